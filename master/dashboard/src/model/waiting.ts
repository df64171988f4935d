// Services and jobs that wait, and why, as their frameworks say: the master knows of tasks, not of what was never launched.

import { useDocumentVisibility } from "@mantine/hooks";
import { useEffect, useState } from "react";
import type { Cluster } from "./cluster";

export interface WaitingWork {
  /** The framework and the service or job: "service web". */
  what: string;
  /** Most pressing first. */
  why: string[];
}

/** What `?waiting=true` of a framework's list answers. */
interface Listed {
  id: string;
  waiting: string[];
}

const LISTS: Record<string, string> = {
  service: "/frameworks/service/v1/apps?waiting=true",
  batch: "/frameworks/batch/v1/jobs?waiting=true",
};

/** Milliseconds from one question to the next. */
const INTERVAL = 3000;

async function ask(name: string, signal: AbortSignal): Promise<WaitingWork[]> {
  const list = LISTS[name];
  if (list === undefined) return [];
  const answer = await fetch(list, { signal });
  if (!answer.ok) return [];
  const items = (await answer.json()) as Listed[];
  return items.map(({ id, waiting }) => ({ what: `${name} ${id}`, why: waiting }));
}

/** Asked anew every few seconds, while the page is looked at. */
export function useWaitingWork(cluster: Cluster): WaitingWork[] {
  const [waiting, setWaiting] = useState<WaitingWork[]>([]);
  const hidden = useDocumentVisibility() === "hidden";
  const active = [...cluster.frameworks.values()].filter((framework) => framework.state === "active");
  const names = [...new Set(active.map((framework) => framework.name))].sort().join(",");
  useEffect(() => {
    if (hidden) return;
    const abort = new AbortController();
    const askAll = () =>
      void Promise.all(names.split(",").map((name) => ask(name, abort.signal)))
        .then((lists) => setWaiting(lists.flat()))
        .catch(() => undefined); // the connection's state is shown elsewhere
    askAll();
    const timer = setInterval(askAll, INTERVAL);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [names, hidden]);
  return waiting;
}
