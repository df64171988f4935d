// What a role consumes, against what it is promised and limited to.

import { Group, Progress, Stack, Text } from "@mantine/core";
import type { Role } from "../model/api";
import { amount, amounts } from "../model/format";

/** One bar for each dimension that the quota names. */
export function QuotaBars({ role }: { role: Role }) {
  if (role.quota === null) return <Text c="dimmed">It has no quota of its own, and consumes {amounts(role.consumed)}.</Text>;
  const dimensions = [...new Set([...Object.keys(role.quota.guarantee), ...Object.keys(role.quota.limit)])];
  return (
    <Stack gap="xs">
      {dimensions.map((dimension) => (
        <QuotaBar key={dimension} dimension={dimension} consumed={role.consumed[dimension] ?? 0} guarantee={role.quota?.guarantee[dimension]} limit={role.quota?.limit[dimension]} />
      ))}
      {dimensions.length === 0 && <Text c="dimmed">Its quota promises and limits nothing.</Text>}
    </Stack>
  );
}

interface Props {
  dimension: string;
  consumed: number;
  guarantee: number | undefined;
  limit: number | undefined;
}

/** In use, then what is promised beyond it, then what may be used beyond that. */
function QuotaBar({ dimension, consumed, guarantee, limit }: Props) {
  const whole = Math.max(limit ?? 0, guarantee ?? 0, consumed);
  const part = (value: number) => (whole > 0 ? (100 * Math.max(0, value)) / whole : 0);
  const show = (value: number) => amount(dimension, value);
  const facts = [
    `${show(consumed)} consumed`,
    ...(guarantee === undefined ? [] : [`${show(guarantee)} guaranteed`]),
    ...(limit === undefined ? [] : [`limit ${show(limit)}`]),
  ].join(", ");
  return (
    <div>
      <Group justify="space-between" gap="xs" className="numbers">
        <Text size="sm" fw={500}>
          {dimension}
        </Text>
        <Text size="sm" c="dimmed">
          {facts}
        </Text>
      </Group>
      <Progress.Root size="lg" role="img" aria-label={`${dimension}: ${facts}`}>
        <Progress.Section value={part(consumed)} color={limit !== undefined && consumed > limit ? "red.8" : "cyan.8"} aria-hidden />
        <Progress.Section value={part((guarantee ?? 0) - consumed)} color="yellow.5" aria-hidden />
      </Progress.Root>
    </div>
  );
}

export function QuotaLegend() {
  const meanings: [string, string][] = [
    ["cyan-8", "consumed"],
    ["yellow-5", "guaranteed, not consumed"],
    ["gray-4", "up to the limit"],
  ];
  return (
    <Group gap="md">
      {meanings.map(([color, meaning]) => (
        <Group key={meaning} gap={6}>
          <span aria-hidden style={{ width: 12, height: 12, borderRadius: 3, background: `var(--mantine-color-${color})` }} />
          <Text size="sm">{meaning}</Text>
        </Group>
      ))}
    </Group>
  );
}
