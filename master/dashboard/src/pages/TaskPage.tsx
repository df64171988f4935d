// One task: its state and why, what it may use and uses, what it writes.

import { Alert, Anchor, Code, Group, SegmentedControl, Stack, Title } from "@mantine/core";
import { useState } from "react";
import { Link } from "wouter";
import { Crumbs, Missing } from "../parts/Crumbs";
import { Facts } from "../parts/Facts";
import { TaskBadge, why } from "../parts/TaskTable";
import { groupOf } from "../model/cluster";
import { bytes, cores } from "../model/format";
import { useCluster } from "../model/live";
import { useLog, useUsage } from "../model/task";

export function TaskPage({ framework, id }: { framework: string; id: string }) {
  const cluster = useCluster();
  const task = cluster.tasks.get(`${framework}/${id}`);
  const live = task !== undefined && groupOf(task.state) === "running";
  const usage = useUsage(framework, id, live);
  if (task === undefined) return <Missing what={`task ${id}`} known={cluster.status !== null} />;
  const time = (at: string | null) => (at === null ? null : new Date(at).toLocaleString());
  return (
    <Stack>
      <Crumbs here={task.id} />
      <Group>
        <Title order={2} className="breakable">
          {task.id}
        </Title>
        <TaskBadge task={task} />
      </Group>
      {groupOf(task.state) === "failed" && (
        <Alert color="red" title={task.state}>
          {why(task)}
        </Alert>
      )}
      <Facts
        facts={[
          ["framework", <Anchor component={Link} href={`/frameworks/${encodeURIComponent(task.framework_id)}`}>{task.framework}</Anchor>],
          ["agent", <Anchor component={Link} href={`/agents/${encodeURIComponent(task.agent_id)}`}>{task.hostname}</Anchor>],
          ["why", why(task)],
          ["healthy", task.healthy === null ? "not checked" : task.healthy ? "yes" : "no"],
          ["may use", `${cores(task.resources.cpus)} cores, ${bytes(task.resources.mem)}`],
          ["uses", usage === null ? null : `${bytes(usage.memory)} (at most ${bytes(usage.memory_peak)}), ${usage.pids} processes, ${cores(usage.cpu_usec / 1e6)} s of processor time`],
          ["ports", task.named_ports.map((port) => `${port.name}=${port.number}`).join(", ") || null],
          ["pid", task.pid],
          ["started", time(task.started_at)],
          ["last change", time(task.updated_at)],
          ["sandbox", task.sandbox],
        ]}
      />
      <Log framework={framework} id={id} live={live} />
    </Stack>
  );
}

function Log({ framework, id, live }: { framework: string; id: string; live: boolean }) {
  const [stream, setStream] = useState<"stdout" | "stderr">("stdout");
  const text = useLog(framework, id, stream, live);
  return (
    <Stack gap="xs">
      <Group justify="space-between">
        <Title order={3} size="h4">
          What it writes
        </Title>
        <SegmentedControl
          data={["stdout", "stderr"]}
          value={stream}
          onChange={(value) => setStream(value === "stderr" ? "stderr" : "stdout")}
          aria-label="Which stream"
        />
      </Group>
      <Code block className="log" tabIndex={0} aria-label={`The end of ${stream}`}>
        {text === "" ? "(nothing)" : text}
      </Code>
    </Stack>
  );
}
