// Questions to the operator API that no stream answers, asked anew while the page is looked at; and what an operator orders.

import { useDocumentVisibility } from "@mantine/hooks";
import { useEffect, useState } from "react";

/** Milliseconds from one question to the next. */
const INTERVAL = 2000;

interface Problem {
  error: string;
}

export interface Asked<T> {
  data: T | null;
  /** Why there is no answer, for people. */
  error: string | null;
  again: () => void;
}

const problem = async (answer: Response): Promise<string> =>
  ((await answer.json().catch(() => null)) as Problem | null)?.error ?? `the master answers ${answer.status}`;

/** The latest answer of a path; a failure keeps the last answer. */
export function useAsked<T>(path: string): Asked<T> {
  const [asked, setAsked] = useState<Omit<Asked<T>, "again">>({ data: null, error: null });
  const [turn, setTurn] = useState(0);
  const hidden = useDocumentVisibility() === "hidden";
  useEffect(() => {
    if (hidden) return;
    const abort = new AbortController();
    const ask = async () => {
      const answer = await fetch(path, { signal: abort.signal });
      if (!answer.ok) {
        const error = await problem(answer);
        setAsked(({ data }) => ({ data, error }));
        return;
      }
      const data = (await answer.json()) as T;
      setAsked({ data, error: null });
    };
    const askQuietly = () => void ask().catch(() => undefined); // the connection's state is shown elsewhere
    askQuietly();
    const timer = setInterval(askQuietly, INTERVAL);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [path, hidden, turn]);
  return { ...asked, again: () => setTurn((last) => last + 1) };
}

/** Orders something; answers what is wrong, or null once it is done. */
export async function order(path: string, body: object = {}): Promise<string | null> {
  try {
    const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    return answer.ok ? null : await problem(answer);
  } catch {
    return "the master does not answer";
  }
}
