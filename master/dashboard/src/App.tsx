// The frame around every page, and which page an address names.

import { ActionIcon, Anchor, AppShell, Badge, Container, Group, Text, Title, Tooltip, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { useEffect } from "react";
import { Link, Route, Switch, useLocation } from "wouter";
import { useCluster, useConnection, type Connection } from "./model/live";
import { AgentPage } from "./pages/AgentPage";
import { Datacenter } from "./pages/Datacenter";
import { Decisions } from "./pages/Decisions";
import { FrameworkPage } from "./pages/FrameworkPage";
import { Reservations } from "./pages/Reservations";
import { RolePage, Roles } from "./pages/Roles";
import { TaskPage } from "./pages/TaskPage";

export function App() {
  return (
    <AppShell header={{ height: 56 }} padding="md">
      <a className="skip" href="#content">
        Skip to content
      </a>
      <Header />
      <AppShell.Main id="content" tabIndex={-1}>
        <Container size="xl" px={0}>
          <Pages />
          <Switch>
            <Route path="/" component={Datacenter} />
            <Route path="/agents/:id">{({ id }) => <AgentPage id={id} />}</Route>
            <Route path="/frameworks/:id">{({ id }) => <FrameworkPage id={id} />}</Route>
            <Route path="/tasks/:framework/:id">{({ framework, id }) => <TaskPage framework={framework} id={id} />}</Route>
            <Route path="/roles" component={Roles} />
            <Route path="/roles/*">{(params) => <RolePage path={params["*"] ?? ""} />}</Route>
            <Route path="/reservations" component={Reservations} />
            <Route path="/decisions" component={Decisions} />
            <Route>
              <Text>
                There is no such page. <Link href="/">Back to the datacenter</Link>
              </Text>
            </Route>
          </Switch>
        </Container>
      </AppShell.Main>
    </AppShell>
  );
}

const PAGES: [string, string][] = [
  ["/", "Overview"],
  ["/roles", "Roles"],
  ["/reservations", "Reservations"],
  ["/decisions", "Decisions"],
];

function Pages() {
  const [path] = useLocation();
  const isHere = (href: string) => (href === "/" ? path === "/" : path === href || path.startsWith(`${href}/`));
  return (
    <Group component="nav" aria-label="Pages" gap="md" mb="md">
      {PAGES.map(([href, name]) => (
        <Anchor key={href} component={Link} href={href} fw={isHere(href) ? 650 : 400} underline={isHere(href) ? "always" : "hover"} aria-current={isHere(href) ? "page" : undefined}>
          {name}
        </Anchor>
      ))}
    </Group>
  );
}

function Header() {
  const { status } = useCluster();
  const [path] = useLocation();
  useEffect(() => {
    document.title = path === "/" ? "Divvy" : `${decodeURIComponent(path.split("/").at(-1) ?? "")} · Divvy`;
  }, [path]);
  return (
    <AppShell.Header>
      <Group h="100%" px="md" justify="space-between" wrap="nowrap">
        <Anchor component={Link} href="/" underline="never" c="inherit" aria-label="Divvy: the datacenter">
          <Group gap="xs" wrap="nowrap">
            <img src="/icon.svg" alt="" width={28} height={28} />
            <Title order={1} size="h3">
              Divvy
            </Title>
          </Group>
        </Anchor>
        <Group gap="sm" wrap="nowrap">
          {status !== null && (
            <Text size="sm" c="dimmed" visibleFrom="sm">
              {status.leader} · {status.version} · epoch {status.epoch}
            </Text>
          )}
          <ConnectionBadge connection={useConnection()} />
          <ColorSchemeToggle />
        </Group>
      </Group>
    </AppShell.Header>
  );
}

const CONNECTION: Record<Connection, { color: string; text: string; more: string }> = {
  connecting: { color: "blue", text: "connecting", more: "Asking the master" },
  live: { color: "teal", text: "live", more: "Every change is shown as it happens" },
  lost: { color: "red", text: "stale", more: "The master does not answer; what is shown is the last that was known" },
};

function ConnectionBadge({ connection }: { connection: Connection }) {
  const { color, text, more } = CONNECTION[connection];
  return (
    <Tooltip label={more}>
      <Badge color={color} variant="filled" autoContrast role="status" aria-label={`${text}: ${more}`} style={{ flexShrink: 0 }}>
        {text}
      </Badge>
    </Tooltip>
  );
}

function ColorSchemeToggle() {
  const { setColorScheme } = useMantineColorScheme();
  const dark = useComputedColorScheme("light") === "dark";
  return (
    <ActionIcon variant="default" size="lg" onClick={() => setColorScheme(dark ? "light" : "dark")} aria-label={dark ? "Light colours" : "Dark colours"}>
      <span aria-hidden>{dark ? "☀" : "☾"}</span>
    </ActionIcon>
  );
}
