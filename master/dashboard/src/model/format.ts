// Numbers and times for people.

import type { Resources } from "./api";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count: number): string {
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${trim(value)} ${UNITS[unit] ?? "B"}`;
}

export const cores = (count: number): string => trim(count, 2);

export const percent = (part: number): string => `${trim(part * 100)} %`;

function trim(value: number, digits = 1): string {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function ports(resources: Resources): number {
  return resources.ports.reduce((sum, [first, last]) => sum + last - first + 1, 0);
}

/** `3 min` since a time, for a reader who looks now. */
export function ago(time: string, now: number): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export const words = (name: string): string => name.replaceAll("_", " ");
