// How much was held during the last minutes, as far as this page has seen them.

import { AreaChart } from "@mantine/charts";
import { Text, useComputedColorScheme } from "@mantine/core";
import type { Sample } from "../model/cluster";
import { cores } from "../model/format";

export function HistoryChart({ history }: { history: readonly Sample[] }) {
  const dark = useComputedColorScheme("light") === "dark";
  const data = history.map((sample) => ({
    time: new Date(sample.time).toLocaleTimeString(),
    used: sample.used,
    offered: sample.offered,
  }));
  return (
    <figure style={{ margin: 0 }} aria-label="Cores used and offered during the last minutes">
      <Text size="sm" fw={500} component="figcaption">
        Cores held
      </Text>
      <AreaChart
        h={120}
        data={data}
        dataKey="time"
        type="stacked"
        series={[
          { name: "used", color: dark ? "cyan.5" : "cyan.8" },
          { name: "offered", color: "yellow.5" },
        ]}
        withDots={false}
        withGradient={false}
        withXAxis={false}
        curveType="stepAfter"
        valueFormatter={cores}
        areaChartProps={{ accessibilityLayer: false }}
        areaProps={{ isAnimationActive: false }}
        yAxisProps={{ width: 32, domain: [0, Math.max(...history.map((sample) => sample.total), 1)] }}
      />
    </figure>
  );
}
