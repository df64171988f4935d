import { describe, expect, it } from "vitest";
import type { Agent, Resources, Snapshot, Status, Task } from "./api";
import { EMPTY, HISTORY, agentsByName, apply, tasksOf } from "./cluster";

const resources = (cpus: number): Resources => ({ cpus, mem: 0, disk: 0, ports: [] });
const use = (used: number) => ({
  total: resources(4),
  used: resources(used),
  offered: resources(0),
  available: resources(4 - used),
});
const status = (used: number): Status => ({
  leader: "127.0.0.1:5050",
  version: "0.1.0",
  epoch: 1,
  uptime: 1,
  agents: { active: 1 },
  frameworks: {},
  tasks: { RUNNING: used },
  resources: use(used),
  warnings: [],
});
const agent = (id: string, hostname: string): Agent => ({
  id,
  hostname,
  state: "active",
  resources: use(0),
  attributes: {},
  tasks: 0,
  address: "127.0.0.1",
  url: "",
  version: "0.1.0",
  since: "2026-01-01T00:00:00.000Z",
  deactivated: false,
  drain: null,
  maintenance: null,
  reserved: [],
  volumes: [],
  revocable: use(0),
});
const task = (id: string, state: Task["state"], updated_at = "2026-01-01T00:00:00.000Z"): Task => ({
  id,
  name: "web",
  framework: "service",
  framework_id: "f1-1",
  agent_id: "a1-1",
  hostname: "agent-1",
  state,
  healthy: null,
  ports: [],
  named_ports: [],
  resources: resources(0.1),
  pid: null,
  started_at: null,
  updated_at,
  reason: "command_exited",
  message: "",
  sandbox: null,
});
const snapshot = (parts: Partial<Snapshot>): Snapshot => ({ status: status(0), agents: [], frameworks: [], tasks: [], ...parts });

describe("apply", () => {
  it("replaces everything with a snapshot, then one object a change", () => {
    const before = apply(EMPTY, [{ kind: "snapshot", data: snapshot({ tasks: [task("a", "RUNNING"), task("b", "STAGING")] }) }], 0);
    const after = apply(
      before,
      [
        { kind: "task", data: task("b", "FAILED") },
        { kind: "task_removed", data: { framework_id: "f1-1", id: "a" } },
        { kind: "agent", data: agent("a1-1", "agent-1") },
      ],
      1000,
    );
    expect([...after.tasks.values()].map((t) => [t.id, t.state])).toEqual([["b", "FAILED"]]);
    expect([...after.agents.keys()]).toEqual(["a1-1"]);
    expect(before.tasks.size).toBe(2);
  });

  it("keeps what did not change, so that it is not drawn again", () => {
    const before = apply(EMPTY, [{ kind: "snapshot", data: snapshot({}) }], 0);
    const after = apply(before, [{ kind: "status", data: status(1) }], 5);
    expect(after.agents).toBe(before.agents);
    expect(after.tasks).toBe(before.tasks);
  });

  it("keeps one sample a second, and a bounded past", () => {
    let cluster = EMPTY;
    for (let tick = 0; tick < 2 * HISTORY; tick++) {
      cluster = apply(cluster, [{ kind: "status", data: status(1) }], tick * 1000);
      cluster = apply(cluster, [{ kind: "status", data: status(2) }], tick * 1000 + 500);
    }
    expect(cluster.history.length).toBe(HISTORY);
    expect(cluster.history.at(-1)).toMatchObject({ used: 2, time: (2 * HISTORY - 1) * 1000 });
  });
});

describe("views", () => {
  it("shows the latest failure first", () => {
    const tasks = [task("old", "FAILED", "2026-01-01T00:00:01.000Z"), task("new", "ERROR", "2026-01-01T00:00:02.000Z"), task("up", "RUNNING")];
    const cluster = apply(EMPTY, [{ kind: "snapshot", data: snapshot({ tasks }) }], 0);
    expect(tasksOf(cluster, "failed").map((t) => t.id)).toEqual(["new", "old"]);
  });

  it("orders agents as people count", () => {
    const agents = [agent("a1-1", "agent-10"), agent("a1-2", "agent-2")];
    const cluster = apply(EMPTY, [{ kind: "snapshot", data: snapshot({ agents }) }], 0);
    expect(agentsByName(cluster).map((a) => a.hostname)).toEqual(["agent-2", "agent-10"]);
  });
});
