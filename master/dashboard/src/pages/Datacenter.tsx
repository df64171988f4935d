// The first page: the whole datacenter at a glance.

import { Alert, Badge, Card, Group, Paper, SimpleGrid, Skeleton, Stack, Tabs, Text, Title } from "@mantine/core";
import { Link } from "wouter";
import { orderedState } from "../parts/AgentOrders";
import { HistoryChart } from "../parts/HistoryChart";
import { ShareChart } from "../parts/ShareChart";
import { TaskTable } from "../parts/TaskTable";
import { UseBar, UseLegend } from "../parts/UseBar";
import { WaitingWork } from "../parts/WaitingWork";
import type { Agent, Status } from "../model/api";
import { agentsByName, tasksOf, type Cluster, type Group as TaskGroup } from "../model/cluster";
import { bytes, cores } from "../model/format";
import { useCluster } from "../model/live";
import { useWaitingWork } from "../model/waiting";
import { AGENT_COLOR, GROUP_COLOR } from "../theme";

export function Datacenter() {
  const cluster = useCluster();
  if (cluster.status === null) return <Skeleton height={400} aria-label="Asking the master…" />;
  return (
    <Stack gap="lg">
      {cluster.status.warnings.map((warning) => (
        <Alert key={warning} color="yellow" title="Attention">
          {warning}
        </Alert>
      ))}
      <Overview status={cluster.status} cluster={cluster} />
      <Agents agents={agentsByName(cluster)} />
      <Paper component="section" withBorder p="md" aria-labelledby="frameworks">
        <Title order={2} size="h4" id="frameworks" mb="sm">
          Frameworks by dominant share
        </Title>
        <ShareChart cluster={cluster} />
      </Paper>
      <Tasks cluster={cluster} />
    </Stack>
  );
}

function Overview({ status, cluster }: { status: Status; cluster: Cluster }) {
  const { total, used, offered } = status.resources;
  return (
    <SimpleGrid cols={{ base: 1, md: 3 }}>
      <Paper component="section" withBorder p="md" aria-label="Resources">
        <Stack gap="xs">
          <UseBar name="CPU" used={used.cpus} offered={offered.cpus} total={total.cpus} show={cores} />
          <UseBar name="Memory" used={used.mem} offered={offered.mem} total={total.mem} show={bytes} />
          <UseLegend />
        </Stack>
      </Paper>
      <Paper component="section" withBorder p="md" aria-label="Counts">
        <SimpleGrid cols={2} verticalSpacing="xs">
          <Count name="agents" count={status.agents.active ?? 0} of={cluster.agents.size} color="teal" />
          <Count name="frameworks" count={status.frameworks.active ?? 0} of={liveFrameworks(cluster)} color="teal" />
          <Count name="running tasks" count={tasksOf(cluster, "running").length} color={GROUP_COLOR.running} />
          <Count name="failed tasks" count={tasksOf(cluster, "failed").length} color={GROUP_COLOR.failed} />
        </SimpleGrid>
      </Paper>
      <Paper component="section" withBorder p="md" aria-label="The last minutes">
        <HistoryChart history={cluster.history} />
      </Paper>
    </SimpleGrid>
  );
}

const liveFrameworks = (cluster: Cluster): number =>
  [...cluster.frameworks.values()].filter((framework) => framework.state !== "completed").length;

function Count({ name, count, of, color }: { name: string; count: number; of?: number; color: string }) {
  return (
    <div>
      <Text size="xl" fw={700} className="numbers" {...(count > 0 ? {} : { c: "dimmed" })}>
        {count}
        {of !== undefined && of !== count && (
          <Text span c="dimmed" size="md">
            {" "}
            of {of}
          </Text>
        )}
      </Text>
      <Group gap={6} wrap="nowrap">
        <span aria-hidden style={{ width: 8, height: 8, borderRadius: 4, background: `var(--mantine-color-${color}-filled)` }} />
        <Text size="sm">{name}</Text>
      </Group>
    </div>
  );
}

function Agents({ agents }: { agents: Agent[] }) {
  return (
    <section aria-labelledby="agents">
      <Title order={2} size="h4" id="agents" mb="sm">
        Agents
      </Title>
      {agents.length === 0 && <Text c="dimmed">No agent has registered yet. Start one with: divvy agent</Text>}
      <ul className="tiles">
        {agents.map((agent) => (
          <li key={agent.id}>
            <AgentTile agent={agent} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function AgentTile({ agent }: { agent: Agent }) {
  const { total, used, offered } = agent.resources;
  const ordered = orderedState(agent);
  return (
    <Card component={Link} href={`/agents/${encodeURIComponent(agent.id)}`} withBorder padding="md" className="tile">
      <Group justify="space-between" wrap="nowrap" mb="xs">
        <Text fw={600} truncate>
          {agent.hostname}
        </Text>
        <Badge color={agent.state === "active" && ordered !== null ? "yellow" : AGENT_COLOR[agent.state]} variant="filled" autoContrast style={{ flexShrink: 0 }}>
          {agent.state === "active" ? (ordered ?? agent.state) : agent.state}
        </Badge>
      </Group>
      <Stack gap={6}>
        <UseBar name="CPU" used={used.cpus} offered={offered.cpus} total={total.cpus} show={cores} />
        <UseBar name="Memory" used={used.mem} offered={offered.mem} total={total.mem} show={bytes} />
        <Text size="sm" c="dimmed">
          {agent.tasks === 1 ? "1 task" : `${agent.tasks} tasks`}
        </Text>
      </Stack>
    </Card>
  );
}

const EMPTY_GROUP: Record<TaskGroup, string> = {
  running: "Nothing runs.",
  waiting: "No task is on its way.",
  failed: "Nothing has failed.",
  ended: "Nothing has ended yet.",
};

function Tasks({ cluster }: { cluster: Cluster }) {
  const groups: TaskGroup[] = ["running", "waiting", "failed", "ended"];
  const work = useWaitingWork(cluster);
  const count = (group: TaskGroup): number => tasksOf(cluster, group).length + (group === "waiting" ? work.length : 0);
  return (
    <section aria-labelledby="tasks">
      <Title order={2} size="h4" id="tasks" mb="sm">
        Tasks
      </Title>
      <Tabs defaultValue="running" keepMounted={false}>
        <Tabs.List mb="sm">
          {groups.map((group) => (
            <Tabs.Tab key={group} value={group} rightSection={<Text size="sm">{count(group)}</Text>}>
              {group}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {groups.map((group) => (
          <Tabs.Panel key={group} value={group}>
            {group === "waiting" && <WaitingWork work={work} />}
            <TaskTable tasks={tasksOf(cluster, group)} empty={EMPTY_GROUP[group]} />
          </Tabs.Panel>
        ))}
      </Tabs>
    </section>
  );
}
