// What the kernel decided and why, and what frameworks were asked to give back.

import { Stack, Text, Title } from "@mantine/core";
import type { Decision, InverseOffer } from "../model/api";
import { useAsked } from "../model/ask";
import { words } from "../model/format";
import { Crumbs } from "../parts/Crumbs";
import { Rows } from "./Reservations";

/** So many are shown, the latest first. */
const SHOWN = 100;

export function Decisions() {
  const decisions = useAsked<Decision[]>(`/api/v1/decisions?offers=false&limit=${SHOWN}`).data;
  const inverse = useAsked<InverseOffer[]>("/api/v1/inverse-offers").data;
  const reason = ({ reason }: InverseOffer) => (typeof reason === "string" ? words(reason) : `preemption for ${reason.preemption}`);
  const time = (at: string | null) => (at === null ? "—" : new Date(at).toLocaleTimeString());
  return (
    <Stack>
      <Crumbs here="Decisions" />
      <Title order={2}>Asked back</Title>
      {inverse?.length === 0 && <Text c="dimmed">Nobody is asked to give anything back.</Text>}
      {inverse !== null && inverse.length > 0 && (
        <Rows
          label="Asked back"
          header={["From", "On", "Tasks", "Why", "By", "Answer"]}
          rows={inverse.map((offer) => [String(offer.id), offer.framework, offer.hostname, offer.tasks.join(", "), reason(offer), time(offer.deadline), offer.answer])}
        />
      )}
      <Title order={2}>Decisions</Title>
      {decisions?.length === 0 && <Text c="dimmed">Nothing but offers has been decided yet.</Text>}
      {decisions !== null && decisions.length > 0 && (
        <Rows
          label="Decisions"
          header={["When", "What", "About", "Why"]}
          rows={[...decisions].reverse().map((decision) => [
            String(decision.index),
            new Date(decision.time).toLocaleTimeString(),
            words(decision.what),
            [decision.role, decision.framework_id, decision.agent_id].filter((part) => part !== null).join(" "),
            decision.why,
          ])}
        />
      )}
    </Stack>
  );
}
