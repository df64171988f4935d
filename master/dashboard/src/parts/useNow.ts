// The time, to the second, for whatever says how long ago something was.

import { useInterval } from "@mantine/hooks";
import { useState } from "react";

export function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useInterval(() => setNow(Date.now()), 1000, { autoInvoke: true });
  return now;
}
