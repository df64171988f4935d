// One framework: its share, what it holds, its tasks.

import { Badge, Group, Stack, Title } from "@mantine/core";
import { Crumbs, Missing } from "../parts/Crumbs";
import { Explain } from "../parts/Explain";
import { Facts } from "../parts/Facts";
import { TaskTable } from "../parts/TaskTable";
import { bytes, cores, percent } from "../model/format";
import { useCluster } from "../model/live";
import { FRAMEWORK_COLOR } from "../theme";

export function FrameworkPage({ id }: { id: string }) {
  const cluster = useCluster();
  const framework = cluster.frameworks.get(id);
  if (framework === undefined) return <Missing what={`framework ${id}`} known={cluster.status !== null} />;
  const tasks = [...cluster.tasks.values()].filter((task) => task.framework_id === id).sort((a, b) => b.updated_at.localeCompare(a.updated_at));
  return (
    <Stack>
      <Crumbs here={framework.name} />
      <Group>
        <Title order={2}>{framework.name}</Title>
        <Badge color={FRAMEWORK_COLOR[framework.state]} variant="filled" autoContrast size="lg">
          {framework.state}
        </Badge>
      </Group>
      <Facts
        facts={[
          ["id", framework.id],
          ["roles", framework.roles.join(", ")],
          ["dominant share", percent(framework.dominant_share)],
          ["holds", `${cores(framework.resources.cpus)} cores, ${bytes(framework.resources.mem)}`],
          ["offers", framework.offers],
          ["tasks", framework.tasks],
          ["API", framework.url],
          [`${framework.state} since`, new Date(framework.since).toLocaleString()],
        ]}
      />
      {framework.state !== "completed" && <Explain query={`framework=${encodeURIComponent(framework.id)}`} />}
      <Title order={3} size="h4">
        Tasks
      </Title>
      <TaskTable tasks={tasks} empty="It has no tasks." />
    </Stack>
  );
}
