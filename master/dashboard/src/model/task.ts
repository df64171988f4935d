// What is asked for only while one task is looked at: its use and the end of its log.

import { useEffect, useState } from "react";
import type { Usage } from "./api";

const path = (framework: string, id: string) => `/api/v1/tasks/${encodeURIComponent(framework)}/${encodeURIComponent(id)}`;

/** Live use, every two seconds while the task runs; null when it is not known. */
export function useUsage(framework: string, id: string, live: boolean): Usage | null {
  const [usage, setUsage] = useState<Usage | null>(null);
  useEffect(() => {
    if (!live) {
      setUsage(null);
      return;
    }
    const abort = new AbortController();
    const ask = async () => {
      const answer = await fetch(`${path(framework, id)}/usage`, { signal: abort.signal });
      setUsage(answer.ok ? ((await answer.json()) as Usage) : null);
    };
    const quietly = () => void ask().catch(() => undefined);
    quietly();
    const timer = setInterval(quietly, 2000);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [framework, id, live]);
  return usage;
}

/** So many lines of a log's end are asked for, and so many characters are shown. */
const TAIL = { lines: 1000, characters: 64 * 1024 };

/** The end of what a task writes, growing while it runs. */
export function useLog(framework: string, id: string, stream: "stdout" | "stderr", live: boolean): string {
  const [text, setText] = useState("");
  useEffect(() => {
    const abort = new AbortController();
    setText("");
    const read = async () => {
      const answer = await fetch(`${path(framework, id)}/logs?stream=${stream}&tail=${TAIL.lines}&follow=${live}`, { signal: abort.signal });
      if (!answer.ok || answer.body === null) {
        const problem = (await answer.json().catch(() => ({}))) as { error?: string };
        setText(problem.error ?? "The log cannot be read.");
        return;
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const more = part.value;
        setText((before) => (before + more).slice(-TAIL.characters));
      }
    };
    read().catch(() => undefined);
    return () => abort.abort();
  }, [framework, id, stream, live]);
  return text;
}
