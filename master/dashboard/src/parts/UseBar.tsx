// One resource as a bar: used, offered, free.

import { Group, Progress, Text } from "@mantine/core";
import { HOLDER_COLOR } from "../theme";

interface Props {
  name: string;
  used: number;
  offered: number;
  total: number;
  show: (amount: number) => string;
}

export function UseBar({ name, used, offered, total, show }: Props) {
  const part = (amount: number) => (total > 0 ? (100 * amount) / total : 0);
  const free = Math.max(0, total - used - offered);
  const text = `${name}: ${show(used)} used, ${show(offered)} offered, ${show(free)} free of ${show(total)}`;
  return (
    <div>
      <Group justify="space-between" gap="xs" wrap="nowrap" className="numbers">
        <Text size="sm" fw={500}>
          {name}
        </Text>
        <Text size="sm" c="dimmed" truncate>
          {show(used)} of {show(total)}
        </Text>
      </Group>
      <Progress.Root size="lg" title={text} role="img" aria-label={text}>
        <Progress.Section value={part(used)} color={HOLDER_COLOR.used} aria-hidden />
        <Progress.Section value={part(offered)} color={HOLDER_COLOR.offered} aria-hidden />
      </Progress.Root>
    </div>
  );
}

/** What the colours mean. */
export function UseLegend() {
  return (
    <Group gap="md">
      {(["used", "offered", "free"] as const).map((holder) => (
        <Group key={holder} gap={6}>
          <span aria-hidden style={{ width: 12, height: 12, borderRadius: 3, background: `var(--mantine-color-${HOLDER_COLOR[holder].replace(".", "-")})` }} />
          <Text size="sm">{holder}</Text>
        </Group>
      ))}
    </Group>
  );
}
