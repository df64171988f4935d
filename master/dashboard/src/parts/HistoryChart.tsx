// How much was held during the last minutes, as far as this page has seen them.

import { AreaChart } from "@mantine/charts";
import { Text, useComputedColorScheme } from "@mantine/core";
import type { Sample } from "../model/cluster";
import { cores } from "../model/format";
import { useNow } from "./useNow";

/** So much of the past is shown, in milliseconds. */
const SPAN = 5 * 60 * 1000;

export function HistoryChart({ history }: { history: readonly Sample[] }) {
  const dark = useComputedColorScheme("light") === "dark";
  const now = useNow();
  const last = history.at(-1);
  // Nothing has changed since the last sample, so it still holds.
  const samples = last !== undefined && now > last.time ? [...history, { ...last, time: now }] : [...history];
  return (
    <figure style={{ margin: 0 }} aria-label="Cores used and offered during the last minutes">
      <Text size="sm" fw={500} component="figcaption">
        Cores held
      </Text>
      <AreaChart
        h={120}
        data={samples.map(({ time, used, offered }) => ({ time, used, offered }))}
        dataKey="time"
        type="stacked"
        series={[
          { name: "used", color: dark ? "cyan.5" : "cyan.8" },
          { name: "offered", color: "yellow.5" },
        ]}
        withDots={false}
        withGradient={false}
        curveType="stepAfter"
        valueFormatter={cores}
        areaChartProps={{ accessibilityLayer: false }}
        areaProps={{ isAnimationActive: false }}
        tooltipProps={{ labelFormatter: (time) => new Date(Number(time)).toLocaleTimeString() }}
        xAxisProps={{ type: "number", domain: [Math.max(now - SPAN, samples[0]?.time ?? 0), now], allowDataOverflow: true, hide: true }}
        yAxisProps={{ width: 32, domain: [0, Math.max(...history.map((sample) => sample.total), 1)] }}
      />
    </figure>
  );
}
