import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// `npm run dev` serves the sources beside a running `divvy dev`, whose API it passes on.
export default defineConfig({
  plugins: [react()],
  build: { chunkSizeWarningLimit: 1200, sourcemap: false },
  server: { proxy: { "/api": "http://127.0.0.1:5050", "/frameworks": "http://127.0.0.1:5050" } },
});
