// Why something waits: all agents, narrowed down stage by stage to those that are left.

import { Alert, Paper, Progress, Stack, Text, Title } from "@mantine/core";
import type { Explanation, Funnel } from "../model/api";
import { useAsked } from "../model/ask";
import { ago, amounts, exclusion } from "../model/format";
import { useNow } from "./useNow";

/** `query` is what `GET /api/v1/explain` is asked with. */
export function Explain({ query }: { query: string }) {
  const { data, error } = useAsked<Explanation>(`/api/v1/explain?${query}`);
  return (
    <section aria-labelledby="explain">
      <Stack gap="sm">
        <Title order={3} size="h4" id="explain">
          Why it waits
        </Title>
        {error !== null && <Alert color="red">{error}</Alert>}
        {data !== null && <Text className="breakable">{data.summary}</Text>}
        {data?.funnels.map((funnel) => (
          <FunnelView key={`${funnel.framework_id} ${funnel.role} ${funnel.shape ?? ""}`} funnel={funnel} />
        ))}
      </Stack>
    </section>
  );
}

function FunnelView({ funnel }: { funnel: Funnel }) {
  const now = useNow();
  const waits = funnel.waiting_since === null ? "" : `, for ${ago(funnel.waiting_since, now)}`;
  const wants = funnel.shape === null ? "takes what is offered" : `${funnel.count} wanted, each ${amounts(funnel.wants)}`;
  let left = funnel.agents;
  const rows = funnel.stages.map((stage) => {
    left = Math.max(0, left - stage.agents);
    return { left, text: `${stage.agents} ${exclusion(stage)}` };
  });
  return (
    <Paper withBorder p="md">
      <Text fw={600} className="breakable">
        {funnel.shape === null ? funnel.framework : `${funnel.shape} of ${funnel.framework}`} in {funnel.role}
      </Text>
      <Text size="sm" c="dimmed" mb="xs">
        {wants}
        {waits}
      </Text>
      <ol className="funnel">
        <Row left={funnel.agents} all={funnel.agents} text={funnel.agents === 1 ? "agent" : "agents"} />
        {rows.map((row) => (
          <Row key={row.text} left={row.left} all={funnel.agents} text={row.text} minus />
        ))}
      </ol>
      {funnel.nearest !== null && (
        <Text size="sm" mt="xs">
          Nearest: {funnel.nearest.hostname}
        </Text>
      )}
      {funnel.hint !== "" && (
        <Text size="sm" mt="xs" className="breakable">
          {funnel.hint}
        </Text>
      )}
    </Paper>
  );
}

function Row({ left, all, text, minus = false }: { left: number; all: number; text: string; minus?: boolean }) {
  const label = minus ? `${left} of ${all} agents left` : `${all} agents`;
  return (
    <li>
      <Text size="sm" className="numbers" ta="right" aria-hidden>
        {left}
      </Text>
      <Progress.Root size="lg" role="img" aria-label={label}>
        <Progress.Section value={all > 0 ? (100 * left) / all : 0} color="cyan.8" aria-hidden />
      </Progress.Root>
      <Text size="sm" className="breakable">
        {minus && "−"}
        {text}
      </Text>
    </li>
  );
}
