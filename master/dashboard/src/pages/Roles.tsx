// Roles: how much each weighs, what it is promised and limited to, what it consumes.

import { Anchor, Paper, Stack, Text, Title } from "@mantine/core";
import { Link } from "wouter";
import type { Role } from "../model/api";
import { useAsked } from "../model/ask";
import { amounts, named, percent } from "../model/format";
import { Crumbs, Missing } from "../parts/Crumbs";
import { Explain } from "../parts/Explain";
import { Facts } from "../parts/Facts";
import { QuotaBars, QuotaLegend } from "../parts/QuotaBars";

const weight = (role: Role): string => (role.weight / 1000).toLocaleString("en");

const roleHref = (path: string): string => `/roles/${path.split("/").map(encodeURIComponent).join("/")}`;

export function Roles() {
  const { data } = useAsked<Role[]>("/api/v1/roles");
  return (
    <Stack>
      <Crumbs here="Roles" />
      <Title order={2}>Roles</Title>
      {data === null && <Missing what="its roles" known={false} />}
      {data?.length === 0 && <Text c="dimmed">Nobody is subscribed, and no role has a quota or a weight. Set one with: divvy quota set ROLE --guarantee cpus=1</Text>}
      <QuotaLegend />
      <ul className="tiles wide">
        {data?.map((role) => (
          <li key={role.path}>
            <Paper withBorder p="md">
              <Stack gap="xs">
                <Anchor component={Link} href={roleHref(role.path)} fw={600} className="breakable">
                  {role.path}
                </Anchor>
                <Text size="sm" c="dimmed">
                  weight {weight(role)}, share {percent(role.dominant_share)}, {role.frameworks === 1 ? "1 framework" : `${role.frameworks} frameworks`}
                </Text>
                <QuotaBars role={role} />
              </Stack>
            </Paper>
          </li>
        ))}
      </ul>
    </Stack>
  );
}

export function RolePage({ path }: { path: string }) {
  const { data } = useAsked<Role[]>("/api/v1/roles");
  const role = data?.find((role) => role.path === path);
  if (role === undefined) return <Missing what={`role ${path}`} known={data !== null} />;
  return (
    <Stack>
      <Crumbs here={path} />
      <Title order={2} className="breakable">
        {path}
      </Title>
      <Paper withBorder p="md">
        <Stack gap="xs">
          <QuotaBars role={role} />
          <QuotaLegend />
        </Stack>
      </Paper>
      <Facts
        facts={[
          ["weight", weight(role)],
          ["dominant share", percent(role.dominant_share)],
          ["frameworks", role.frameworks],
          ["holds", amounts(named(role.resources))],
          ["consumes", amounts(role.consumed)],
          ["reserved for it", amounts(named(role.reserved))],
          ["lacks of its guarantee", amounts(role.unmet)],
          ["may be preempted beyond it", role.quota === null || role.quota.preemptible ? "yes" : "no"],
        ]}
      />
      <Explain query={`role=${encodeURIComponent(path)}`} />
    </Stack>
  );
}
