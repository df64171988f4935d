// Tasks as rows: what, where, in which state, why. On a narrow screen each row becomes a card.

import { Anchor, Badge, Button, Card, Group, Stack, Table, Text } from "@mantine/core";
import { useState } from "react";
import { Link } from "wouter";
import type { Task } from "../model/api";
import { groupOf, taskKey } from "../model/cluster";
import { ago, words } from "../model/format";
import { GROUP_COLOR } from "../theme";
import { useNow } from "./useNow";

const PAGE = 50;

export const taskHref = (task: Task): string => `/tasks/${encodeURIComponent(task.framework_id)}/${encodeURIComponent(task.id)}`;

export const why = (task: Task): string => task.message || words(task.reason);

export function TaskBadge({ task }: { task: Task }) {
  const unhealthy = task.state === "RUNNING" && task.healthy === false;
  return (
    <Badge color={unhealthy ? "orange" : GROUP_COLOR[groupOf(task.state)]} variant="filled" autoContrast>
      {unhealthy ? "unhealthy" : task.state}
    </Badge>
  );
}

export function TaskTable({ tasks, empty }: { tasks: Task[]; empty: string }) {
  const [shown, setShown] = useState(PAGE);
  const now = useNow();
  if (tasks.length === 0) return <Text c="dimmed">{empty}</Text>;
  const rows = tasks.slice(0, shown);
  return (
    <Stack gap="sm">
      <Table.ScrollContainer minWidth={640} visibleFrom="sm">
        <Table striped highlightOnHover>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Task</Table.Th>
              <Table.Th>State</Table.Th>
              <Table.Th>Framework</Table.Th>
              <Table.Th>Agent</Table.Th>
              <Table.Th>For</Table.Th>
              <Table.Th>Why</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {rows.map((task) => (
              <Table.Tr key={taskKey(task)}>
                <Table.Td>
                  <TaskLink task={task} />
                </Table.Td>
                <Table.Td>
                  <TaskBadge task={task} />
                </Table.Td>
                <Table.Td>{task.framework}</Table.Td>
                <Table.Td>{task.hostname}</Table.Td>
                <Table.Td className="numbers">{ago(task.updated_at, now)}</Table.Td>
                <Table.Td className="breakable">{why(task)}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Stack gap="xs" hiddenFrom="sm">
        {rows.map((task) => (
          <Card key={taskKey(task)} withBorder padding="sm">
            <Group justify="space-between" wrap="nowrap" align="start">
              <TaskLink task={task} />
              <TaskBadge task={task} />
            </Group>
            <Text size="sm" className="breakable">
              {why(task)}
            </Text>
            <Text size="sm" c="dimmed">
              {task.framework} on {task.hostname}, for {ago(task.updated_at, now)}
            </Text>
          </Card>
        ))}
      </Stack>
      {tasks.length > shown && (
        <Button variant="default" onClick={() => setShown(shown + PAGE)}>
          Show {Math.min(PAGE, tasks.length - shown)} more of {tasks.length}
        </Button>
      )}
    </Stack>
  );
}

function TaskLink({ task }: { task: Task }) {
  return (
    <Anchor component={Link} href={taskHref(task)} className="breakable" fw={500}>
      {task.id}
    </Anchor>
  );
}
