// One agent: what it has, who holds it, what runs there.

import { Badge, Group, Paper, SimpleGrid, Stack, Title } from "@mantine/core";
import { AgentOrders, orderedState } from "../parts/AgentOrders";
import { Crumbs, Missing } from "../parts/Crumbs";
import { Facts } from "../parts/Facts";
import { TaskTable } from "../parts/TaskTable";
import { UseBar, UseLegend } from "../parts/UseBar";
import { taskKey } from "../model/cluster";
import { amounts, bytes, cores, named, ports } from "../model/format";
import { useCluster } from "../model/live";
import { AGENT_COLOR } from "../theme";

export function AgentPage({ id }: { id: string }) {
  const cluster = useCluster();
  const agent = cluster.agents.get(id);
  if (agent === undefined) return <Missing what={`agent ${id}`} known={cluster.status !== null} />;
  const { total, used, offered } = agent.resources;
  const tasks = [...cluster.tasks.values()].filter((task) => task.agent_id === id).sort((a, b) => taskKey(a).localeCompare(taskKey(b)));
  const attributes = Object.entries(agent.attributes).map(([name, value]) => `${name}=${JSON.stringify(value).replaceAll('"', "")}`);
  return (
    <Stack>
      <Crumbs here={agent.hostname} />
      <Group>
        <Title order={2}>{agent.hostname}</Title>
        <Badge color={AGENT_COLOR[agent.state]} variant="filled" autoContrast size="lg">
          {agent.state}
        </Badge>
        {orderedState(agent) !== null && (
          <Badge color="yellow" variant="filled" autoContrast size="lg">
            {orderedState(agent)}
          </Badge>
        )}
      </Group>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Paper withBorder p="md">
          <Stack gap="xs">
            <UseBar name="CPU" used={used.cpus} offered={offered.cpus} total={total.cpus} show={cores} />
            <UseBar name="Memory" used={used.mem} offered={offered.mem} total={total.mem} show={bytes} />
            <UseBar name="Disk" used={used.disk} offered={offered.disk} total={total.disk} show={bytes} />
            <UseBar name="Ports" used={ports(used)} offered={ports(offered)} total={ports(total)} show={String} />
            <UseLegend />
          </Stack>
        </Paper>
        <Facts
          facts={[
            ["id", agent.id],
            ["address", agent.address],
            ["attributes", attributes.join(", ")],
            ["version", agent.version],
            ["reserved", agent.reserved.map((reserved) => `${amounts(named(reserved.resources))} for ${reserved.stack.at(-1)?.role ?? "?"}`).join("; ") || null],
            ["volumes", agent.volumes.map((volume) => `${volume.id} (${bytes(volume.size)})`).join(", ") || null],
            [`${agent.state} since`, new Date(agent.since).toLocaleString()],
          ]}
        />
      </SimpleGrid>
      <AgentOrders agent={agent} />
      <Title order={3} size="h4">
        Tasks
      </Title>
      <TaskTable tasks={tasks} empty="No task has run here lately." />
    </Stack>
  );
}
