// What is set aside for whom, and the volumes made of it.

import { Anchor, Badge, Stack, Table, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "wouter";
import type { AgentVolume, Reservation, ReservationView } from "../model/api";
import { useAsked } from "../model/ask";
import { amounts, bytes, named } from "../model/format";
import { Crumbs } from "../parts/Crumbs";

export function Reservations() {
  const reservations = useAsked<ReservationView[]>("/api/v1/reservations").data;
  const volumes = useAsked<AgentVolume[]>("/api/v1/volumes").data;
  return (
    <Stack>
      <Crumbs here="Reservations" />
      <Title order={2}>Reservations</Title>
      {reservations?.length === 0 && <Text c="dimmed">Nothing is reserved. Reserve with: divvy reserve AGENT ROLE RESOURCES</Text>}
      {reservations !== null && reservations.length > 0 && (
        <Rows
          label="Reservations"
          header={["For", "Agent", "Reserved", "In use", "Labels"]}
          rows={reservations.map((found) => [
            `${found.agent_id} ${JSON.stringify(found.reserved.stack)}`,
            <Owner role={found.reserved.stack.map((reservation) => reservation.role).join(" > ")} orphan={found.orphan} />,
            <AgentLink id={found.agent_id} hostname={found.hostname} />,
            amounts(named(found.reserved.resources)),
            amounts(named(found.used)),
            labels(found.reserved.stack.at(-1)),
          ])}
        />
      )}
      <Title order={2}>Volumes</Title>
      {volumes?.length === 0 && <Text c="dimmed">There are no volumes. Make one of reserved disk with: divvy volumes create AGENT ROLE ID SIZE</Text>}
      {volumes !== null && volumes.length > 0 && (
        <Rows
          label="Volumes"
          header={["Volume", "Of", "Agent", "Size", "Used by"]}
          rows={volumes.map((found) => [
            `${found.agent_id} ${found.id}`,
            found.id,
            <Owner role={found.role} orphan={found.orphan} />,
            <AgentLink id={found.agent_id} hostname={found.hostname} />,
            bytes(found.size),
            found.used_by.join(", ") || "nobody",
          ])}
        />
      )}
    </Stack>
  );
}

function labels(reservation: Reservation | undefined): string {
  if (reservation === undefined) return "";
  const labels = Object.entries(reservation.labels).map(([key, value]) => `${key}=${value}`);
  return [...labels, ...(reservation.fixed ? ["fixed by the agent"] : [])].join(", ");
}

function Owner({ role, orphan }: { role: string; orphan: boolean }) {
  return (
    <>
      {role}{" "}
      {orphan && (
        <Badge color="yellow" variant="filled" autoContrast>
          nobody uses it
        </Badge>
      )}
    </>
  );
}

const AgentLink = ({ id, hostname }: { id: string; hostname: string }) => (
  <Anchor component={Link} href={`/agents/${encodeURIComponent(id)}`}>
    {hostname}
  </Anchor>
);

/** The first of each row is its key. */
export function Rows({ label, header, rows }: { label: string; header: string[]; rows: [string, ...ReactNode[]][] }) {
  return (
    <Table.ScrollContainer minWidth={560} scrollAreaProps={{ viewportProps: { tabIndex: 0, role: "region", "aria-label": label } }}>
      <Table striped>
        <Table.Thead>
          <Table.Tr>
            {header.map((name) => (
              <Table.Th key={name}>{name}</Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map(([key, ...cells]) => (
            <Table.Tr key={key}>
              {cells.map((cell, at) => (
                <Table.Td key={header[at]} className="breakable numbers">
                  {cell}
                </Table.Td>
              ))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
