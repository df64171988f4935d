// Services and jobs that wait, and why, as their frameworks say. They are asked only while this is looked at.

import { Alert, Stack } from "@mantine/core";
import { useEffect, useState } from "react";
import type { Cluster } from "../model/cluster";

interface Waiting {
  what: string;
  why: string;
}

/** What both frameworks of this tree answer in their lists. */
interface Listed {
  id: string;
  waiting?: string | string[] | null;
  reason?: string | null;
}

const LISTS: Record<string, string> = { service: "/frameworks/service/v1/apps", batch: "/frameworks/batch/v1/jobs" };

async function ask(name: string, signal: AbortSignal): Promise<Waiting[]> {
  const list = LISTS[name];
  if (list === undefined) return [];
  const answer = await fetch(list, { signal });
  if (!answer.ok) return [];
  const items = (await answer.json()) as Listed[];
  return items.flatMap((item) => [item.waiting ?? []].flat().map((why) => ({ what: `${name} ${item.id}`, why })));
}

export function WaitingWork({ cluster }: { cluster: Cluster }) {
  const [waiting, setWaiting] = useState<Waiting[]>([]);
  const names = [...cluster.frameworks.values()].filter((framework) => framework.state === "active").map((framework) => framework.name);
  const key = names.sort().join(",");
  useEffect(() => {
    const abort = new AbortController();
    const askAll = () =>
      void Promise.all(key.split(",").map((name) => ask(name, abort.signal)))
        .then((lists) => setWaiting(lists.flat()))
        .catch(() => undefined);
    askAll();
    const timer = setInterval(askAll, 3000);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [key]);
  return (
    <Stack gap="xs" mb={waiting.length > 0 ? "sm" : 0}>
      {waiting.map(({ what, why }) => (
        <Alert key={`${what} ${why}`} color="yellow" title={what}>
          {why}
        </Alert>
      ))}
    </Stack>
  );
}
