// Numbers and times for people.

import type { Amounts, Exclusion, Resources } from "./api";

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

/** An amount of one dimension: `4`, `2 GiB`, `10`. */
export const amount = (dimension: string, value: number): string => (dimension === "mem" || dimension === "disk" ? bytes(value) : trim(value, 3));

/** `2 cpus, 1 GiB mem`. */
export const amounts = (all: Amounts): string =>
  Object.entries(all)
    .map(([dimension, value]) => `${amount(dimension, value)} ${dimension}`)
    .join(", ") || "nothing";

/** What resources have that is not zero, ports counted. */
export function named(resources: Resources): Amounts {
  const scalars = Object.entries(resources).filter((entry): entry is [string, number] => typeof entry[1] === "number" && entry[1] > 0);
  const count = ports(resources);
  return { ...Object.fromEntries(scalars), ...(count > 0 ? { ports: count } : {}) };
}

/** Why agents are excluded, as the command line says it. */
export function exclusion(by: Exclusion): string {
  const roles = by.roles?.join(", ") ?? "";
  switch (by.reason) {
    case "not_active":
      return "not connected";
    case "draining":
      return "draining, maintained or deactivated";
    case "constraint":
      return `not what the constraint wants: ${by.clause ?? ""}`;
    case "filter":
      return `refused by the framework, the first until ${by.until === undefined ? "?" : new Date(by.until).toLocaleTimeString()}`;
    case "reservation":
      return `reserved for others: ${roles}`;
    case "too_small":
      return `too small in ${by.dimension ?? "?"}: the best lacks ${by.missing ?? "?"}`;
    case "held_by_others":
      return `too little ${by.dimension ?? "?"} free: the best lacks ${by.missing ?? "?"}${by.holders?.length ? `, held most by ${by.holders.join(", ")}` : ""}`;
    case "held_for_waiting":
      return `kept for ${by.framework ?? "another"}, which has waited longer`;
    case "limit":
      return `beyond ${by.role ?? "the role"}'s limit of ${by.dimension ?? "?"}`;
    case "headroom":
      return `kept free for the guarantees of ${roles}`;
    default:
      return words(by.reason);
  }
}

export const words = (name: string): string => name.replaceAll("_", " ");
