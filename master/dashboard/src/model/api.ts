// The operator API as the dashboard reads it: the mirror of proto/src/api.rs. cpus are numbers of cores, sizes bytes, times RFC 3339.

export type Ranges = [number, number][];

export interface Resources {
  cpus: number;
  mem: number;
  disk: number;
  ports: Ranges;
  [scalar: string]: number | Ranges;
}

export interface ResourceUse {
  total: Resources;
  used: Resources;
  offered: Resources;
  available: Resources;
}

export type AgentState = "active" | "recovering" | "suspected" | "unreachable" | "gone";

export interface Agent {
  id: string;
  hostname: string;
  state: AgentState;
  resources: ResourceUse;
  attributes: Record<string, string | number | Ranges>;
  tasks: number;
  address: string;
  url: string;
  version: string;
  since: string;
}

export type FrameworkState = "active" | "disconnected" | "completed";

export interface Framework {
  id: string;
  name: string;
  roles: string[];
  state: FrameworkState;
  tasks: number;
  offers: number;
  dominant_share: number;
  resources: Resources;
  url: string | null;
  since: string;
}

export type TaskState =
  | "STAGING"
  | "STARTING"
  | "RUNNING"
  | "KILLING"
  | "UNREACHABLE"
  | "FINISHED"
  | "FAILED"
  | "KILLED"
  | "ERROR"
  | "DROPPED"
  | "GONE"
  | "UNKNOWN";

export interface Task {
  id: string;
  name: string;
  framework: string;
  framework_id: string;
  agent_id: string;
  hostname: string;
  state: TaskState;
  healthy: boolean | null;
  ports: Ranges;
  named_ports: { name: string; number: number }[];
  resources: Resources;
  pid: number | null;
  started_at: string | null;
  updated_at: string;
  reason: string;
  message: string;
  sandbox: string | null;
}

export interface Status {
  leader: string;
  version: string;
  epoch: number;
  uptime: number;
  agents: Partial<Record<AgentState, number>>;
  frameworks: Partial<Record<FrameworkState, number>>;
  tasks: Partial<Record<TaskState, number>>;
  resources: ResourceUse;
  warnings: string[];
}

export interface Snapshot {
  status: Status;
  agents: Agent[];
  frameworks: Framework[];
  tasks: Task[];
}

export type Change =
  | { kind: "snapshot"; data: Snapshot }
  | { kind: "agent"; data: Agent }
  | { kind: "framework"; data: Framework }
  | { kind: "task"; data: Task }
  | { kind: "task_removed"; data: { framework_id: string; id: string } }
  | { kind: "status"; data: Status };

export const CHANGE_KINDS = ["snapshot", "agent", "framework", "task", "task_removed", "status"] as const;

export interface Usage {
  cpu_usec: number;
  memory: number;
  memory_peak: number;
  pids: number;
}
