// Services and jobs that wait, and why.

import { Alert, Stack, Text } from "@mantine/core";
import type { WaitingWork as Work } from "../model/waiting";

export function WaitingWork({ work }: { work: Work[] }) {
  return (
    <Stack gap="xs" mb={work.length > 0 ? "sm" : 0}>
      {work.map(({ what, why }) => (
        <Alert key={what} color="yellow" title={what}>
          {why.map((cause) => (
            <Text key={cause} size="sm">
              {cause}
            </Text>
          ))}
        </Alert>
      ))}
    </Stack>
  );
}
