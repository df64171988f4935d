// What the dashboard knows of the cluster, and how a change alters it. Pure: no network, no clock, no DOM.

import type { Agent, Change, Framework, Status, Task, TaskState } from "./api";

/** One point of the recent past, for the charts. */
export interface Sample {
  time: number;
  used: number;
  offered: number;
  total: number;
  running: number;
}

/** Everything that is shown. Replaced, never changed in place, so that what did not change need not be drawn again. */
export interface Cluster {
  status: Status | null;
  agents: ReadonlyMap<string, Agent>;
  frameworks: ReadonlyMap<string, Framework>;
  tasks: ReadonlyMap<string, Task>;
  history: readonly Sample[];
}

export const EMPTY: Cluster = { status: null, agents: new Map(), frameworks: new Map(), tasks: new Map(), history: [] };

/** So many points of the past are kept, one a second at the most. */
export const HISTORY = 300;

/** A task's identity: its id is unique only within its framework. */
export const taskKey = (task: { framework_id: string; id: string }): string => `${task.framework_id}/${task.id}`;

/** The cluster after some changes that came at `now` (milliseconds). Maps are copied once a batch, not once a change. */
export function apply(cluster: Cluster, changes: readonly Change[], now: number): Cluster {
  let { status, history } = cluster;
  let agents: Map<string, Agent> | null = null;
  let frameworks: Map<string, Framework> | null = null;
  let tasks: Map<string, Task> | null = null;
  for (const change of changes) {
    switch (change.kind) {
      case "snapshot":
        status = change.data.status;
        agents = new Map(change.data.agents.map((agent) => [agent.id, agent]));
        frameworks = new Map(change.data.frameworks.map((framework) => [framework.id, framework]));
        tasks = new Map(change.data.tasks.map((task) => [taskKey(task), task]));
        break;
      case "agent":
        (agents ??= new Map(cluster.agents)).set(change.data.id, change.data);
        break;
      case "framework":
        (frameworks ??= new Map(cluster.frameworks)).set(change.data.id, change.data);
        break;
      case "task":
        (tasks ??= new Map(cluster.tasks)).set(taskKey(change.data), change.data);
        break;
      case "task_removed":
        (tasks ??= new Map(cluster.tasks)).delete(taskKey(change.data));
        break;
      case "status":
        status = change.data;
        break;
    }
  }
  if (status !== null && changes.length > 0) history = remember(history, status, now);
  return {
    status,
    agents: agents ?? cluster.agents,
    frameworks: frameworks ?? cluster.frameworks,
    tasks: tasks ?? cluster.tasks,
    history,
  };
}

function remember(history: readonly Sample[], status: Status, now: number): readonly Sample[] {
  const { used, offered, total } = status.resources;
  const sample: Sample = {
    time: now,
    used: used.cpus,
    offered: offered.cpus,
    total: total.cpus,
    running: status.tasks.RUNNING ?? 0,
  };
  const last = history.at(-1);
  const kept = last !== undefined && now - last.time < 1000 ? history.slice(0, -1) : history;
  const time = kept === history ? now : (last?.time ?? now);
  return [...kept, { ...sample, time }].slice(-HISTORY);
}

/** How a task is counted at a glance. */
export type Group = "running" | "waiting" | "failed" | "ended";

const GROUPS: Record<TaskState, Group> = {
  RUNNING: "running",
  STAGING: "waiting",
  STARTING: "waiting",
  KILLING: "waiting",
  UNREACHABLE: "waiting",
  UNKNOWN: "waiting",
  FAILED: "failed",
  ERROR: "failed",
  DROPPED: "failed",
  GONE: "failed",
  FINISHED: "ended",
  KILLED: "ended",
};

export const groupOf = (state: TaskState): Group => GROUPS[state];

/** Tasks of one group, the latest change first. */
export function tasksOf(cluster: Cluster, group: Group): Task[] {
  const tasks = [...cluster.tasks.values()].filter((task) => groupOf(task.state) === group);
  return tasks.sort((a, b) => b.updated_at.localeCompare(a.updated_at) || taskKey(a).localeCompare(taskKey(b)));
}

/** Agents by name, numbers in names as numbers: agent-2 before agent-10. */
export function agentsByName(cluster: Cluster): Agent[] {
  const order = new Intl.Collator("en", { numeric: true });
  return [...cluster.agents.values()].sort((a, b) => order.compare(a.hostname, b.hostname) || order.compare(a.id, b.id));
}

/** Frameworks that count, the largest share first; retired ones last. */
export function frameworksByShare(cluster: Cluster): Framework[] {
  const retired = (framework: Framework) => Number(framework.state === "completed");
  return [...cluster.frameworks.values()].sort(
    (a, b) => retired(a) - retired(b) || b.dominant_share - a.dominant_share || a.name.localeCompare(b.name),
  );
}
