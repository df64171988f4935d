// What an operator orders of an agent: to be emptied, to be left alone, to be offered again.

import { Alert, Button, Group, NativeSelect, Stack, Text, Title } from "@mantine/core";
import { useState } from "react";
import type { Agent } from "../model/api";
import { order } from "../model/ask";

const DEADLINES = [
  { value: "", label: "at once" },
  { value: "1m", label: "after 1 minute" },
  { value: "10m", label: "after 10 minutes" },
  { value: "1h", label: "after 1 hour" },
];

/** `draining`, `drained` or `deactivated`, if an operator has made it so. */
export function orderedState(agent: Agent): string | null {
  if (agent.drain !== null) return agent.drain.drained ? "drained" : "draining";
  return agent.deactivated ? "deactivated" : null;
}

export function AgentOrders({ agent }: { agent: Agent }) {
  const [deadline, setDeadline] = useState("10m");
  const [error, setError] = useState<string | null>(null);
  if (agent.state === "gone") return null;
  const ask = (action: string, body: object = {}) => void order(`/api/v1/agents/${encodeURIComponent(agent.id)}/${action}`, body).then(setError);
  const at = (time: string) => new Date(time).toLocaleString();
  return (
    <section aria-labelledby="orders">
      <Stack gap="sm">
        <Title order={3} size="h4" id="orders">
          Maintenance
        </Title>
        {agent.drain !== null && (
          <Text>
            {agent.drain.drained ? "It is drained: nothing runs here any more." : `It is being drained since ${at(agent.drain.since)}. What is left is killed ${agent.drain.deadline === null ? "now" : `at ${at(agent.drain.deadline)}`}.`}
            {agent.drain.then_gone && " Then it is declared gone."}
          </Text>
        )}
        {agent.deactivated && <Text>It is deactivated: its tasks run on, and nothing of it is offered.</Text>}
        {agent.maintenance !== null && (
          <Text>
            Its maintenance begins at {at(agent.maintenance.start)} and takes {agent.maintenance.duration}
            {agent.maintenance.reason !== "" && `: ${agent.maintenance.reason}`}.
          </Text>
        )}
        {error !== null && (
          <Alert color="red" title="Not done">
            {error}
          </Alert>
        )}
        <Group align="end">
          {orderedState(agent) === null ? (
            <>
              <NativeSelect label="What does not leave is killed" data={DEADLINES} value={deadline} onChange={(event) => setDeadline(event.currentTarget.value)} />
              <Button variant="default" onClick={() => ask("drain", deadline === "" ? {} : { deadline })}>
                Drain
              </Button>
              <Button variant="default" onClick={() => ask("deactivate")}>
                Deactivate
              </Button>
            </>
          ) : (
            <Button variant="default" onClick={() => ask("reactivate")}>
              Reactivate
            </Button>
          )}
        </Group>
      </Stack>
    </section>
  );
}
