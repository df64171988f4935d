// Frameworks by dominant share: who holds how much of what is scarcest for them.

import { Anchor, Badge, Group, Progress, Stack, Table, Text } from "@mantine/core";
import { Link } from "wouter";
import { frameworksByShare, type Cluster } from "../model/cluster";
import { bytes, cores, percent } from "../model/format";
import { FRAMEWORK_COLOR } from "../theme";

export function ShareChart({ cluster }: { cluster: Cluster }) {
  const frameworks = frameworksByShare(cluster);
  if (frameworks.length === 0) {
    return <Text c="dimmed">No framework has subscribed yet. Try: cargo run --example keep_alive -p divvy-sdk</Text>;
  }
  return (
    <Stack gap={0}>
      <Table verticalSpacing={6}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Framework</Table.Th>
            <Table.Th w="35%">Dominant share</Table.Th>
            <Table.Th>Tasks</Table.Th>
            <Table.Th visibleFrom="sm">Holds</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {frameworks.map((framework) => (
            <Table.Tr key={framework.id}>
              <Table.Td>
                <Group gap="xs">
                  <Anchor component={Link} href={`/frameworks/${encodeURIComponent(framework.id)}`} fw={500} className="breakable">
                    {framework.name}
                  </Anchor>
                  {framework.state !== "active" && (
                    <Badge color={FRAMEWORK_COLOR[framework.state]} variant="filled" autoContrast>
                      {framework.state}
                    </Badge>
                  )}
                </Group>
              </Table.Td>
              <Table.Td className="numbers">
                <Text size="sm">{percent(framework.dominant_share)}</Text>
                <Progress value={100 * framework.dominant_share} size="lg" color="cyan.8" aria-label={`dominant share of ${framework.name}`} />
              </Table.Td>
              <Table.Td className="numbers">{framework.tasks}</Table.Td>
              <Table.Td className="numbers" visibleFrom="sm">
                {cores(framework.resources.cpus)} cores, {bytes(framework.resources.mem)}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Stack>
  );
}
