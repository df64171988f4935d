import "@mantine/core/styles.css";
import "@mantine/charts/styles.css";
import "./style.css";

import { MantineProvider } from "@mantine/core";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { connect } from "./model/live";
import { cssVariables, theme } from "./theme";

const root = document.getElementById("root");
if (root !== null) {
  connect();
  createRoot(root).render(
    <StrictMode>
      <MantineProvider theme={theme} cssVariablesResolver={cssVariables} defaultColorScheme="auto">
        <App />
      </MantineProvider>
    </StrictMode>,
  );
}
