// The look of the dashboard: one accent, and one colour per meaning everywhere.

import { Alert, createTheme, type CSSVariablesResolver } from "@mantine/core";
import type { AgentState, FrameworkState } from "./model/api";
import type { Group } from "./model/cluster";

export const theme = createTheme({
  primaryColor: "cyan",
  primaryShade: 9,
  autoContrast: true,
  defaultRadius: "md",
  fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
  headings: { fontWeight: "650" },
  focusRing: "auto",
  // On its own tint, an alert's colour has too little contrast for text.
  components: { Alert: Alert.extend({ styles: { title: { color: "var(--mantine-color-text)" } } }) },
});

/** Who holds resources. Told apart by lightness as well as by hue. */
export const HOLDER_COLOR = { used: "cyan.8", offered: "yellow.5", free: "gray.4" } as const;

export const GROUP_COLOR: Record<Group, string> = { running: "teal", waiting: "yellow", failed: "red", ended: "gray" };

export const AGENT_COLOR: Record<AgentState, string> = {
  active: "teal",
  recovering: "blue",
  suspected: "yellow",
  unreachable: "red",
  gone: "gray",
};

export const FRAMEWORK_COLOR: Record<FrameworkState, string> = { active: "teal", disconnected: "yellow", completed: "gray" };

/** Dimmed text still has the contrast that WCAG AA asks of text (4.5 to 1), in both schemes. */
export const cssVariables: CSSVariablesResolver = () => ({
  variables: {},
  light: { "--mantine-color-dimmed": "#5c636a" },
  dark: { "--mantine-color-dimmed": "#a6a7ab" },
});
