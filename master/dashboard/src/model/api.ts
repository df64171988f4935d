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
  deactivated: boolean;
  drain: Drain | null;
  maintenance: MaintenanceWindow | null;
  reserved: Reserved[];
  volumes: Volume[];
  revocable: ResourceUse;
}

export interface Drain {
  since: string;
  deadline: string | null;
  then_gone: boolean;
  drained: boolean;
}

export interface MaintenanceWindow {
  start: string;
  duration: string;
  reason: string;
}

export interface Reservation {
  role: string;
  principal: string | null;
  labels: Record<string, string>;
  fixed: boolean;
}

/** The outermost reservation first; the innermost is the owner. */
export interface Reserved {
  stack: Reservation[];
  resources: Resources;
}

export interface Volume {
  id: string;
  size: number;
  stack: Reservation[];
  principal: string | null;
  created: string;
  used_by: string[];
}

interface OnAgent {
  agent_id: string;
  hostname: string;
  agent_state: AgentState;
  role: string;
  orphan: boolean;
}

export interface ReservationView extends OnAgent {
  reserved: Reserved;
  used: Resources;
}

export interface AgentVolume extends OnAgent, Volume {}

/** By name; what is not named is different from zero. */
export type Amounts = Record<string, number>;

export interface Quota {
  guarantee: Amounts;
  limit: Amounts;
  shape: Resources | null;
  preemptible: boolean;
}

export interface Role {
  path: string;
  /** In thousandths. */
  weight: number;
  dominant_share: number;
  frameworks: number;
  resources: Resources;
  quota: Quota | null;
  consumed: Amounts;
  reserved: Resources;
  unmet: Amounts;
}

export interface InverseOffer {
  id: string | number;
  framework: string;
  hostname: string;
  tasks: string[];
  deadline: string | null;
  reason: string | { preemption: string };
  answer: "pending" | "accepted" | "declined";
}

export interface Decision {
  index: number;
  time: string;
  what: string;
  framework_id: string | null;
  role: string | null;
  agent_id: string | null;
  why: string;
}

/** What excludes an agent; which other fields there are depends on the reason. */
export interface Exclusion {
  reason: string;
  clause?: string;
  until?: string;
  roles?: string[];
  role?: string;
  dimension?: string;
  missing?: string;
  holders?: string[];
  framework?: string;
}

export interface Funnel {
  framework_id: string;
  framework: string;
  role: string;
  shape: string | null;
  wants: Amounts;
  count: number;
  waiting_since: string | null;
  agents: number;
  stages: (Exclusion & { agents: number })[];
  fits: number;
  nearest: { agent_id: string; hostname: string } | null;
  hint: string;
}

export interface Explanation {
  summary: string;
  funnels: Funnel[];
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
