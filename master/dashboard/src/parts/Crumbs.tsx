// Where one is, and the way back.

import { Anchor, Breadcrumbs, Text } from "@mantine/core";
import { Link } from "wouter";

export function Crumbs({ here }: { here: string }) {
  return (
    <nav aria-label="Breadcrumbs">
      <Breadcrumbs>
        <Anchor component={Link} href="/">
          Datacenter
        </Anchor>
        <Text className="breakable" aria-current="page">
          {here}
        </Text>
      </Breadcrumbs>
    </nav>
  );
}

/** What a page says of something that is not (or not yet) known. */
export function Missing({ what, known }: { what: string; known: boolean }) {
  return <Text role="status">{known ? `The master does not know ${what}, or no longer.` : "Asking the master…"}</Text>;
}
