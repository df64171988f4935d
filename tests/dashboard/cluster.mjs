// A real cluster for the browser to look at: `divvy dev` on a free port, in a folder that is removed afterwards.

import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const ROOT = path.resolve(import.meta.dirname, "../..");

function binary() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target");
  const found = [process.env.DIVVY, path.join(target, "debug/divvy"), path.join(target, "release/divvy")];
  const program = found.find((file) => file !== undefined && existsSync(file));
  if (program === undefined) throw new Error("no divvy binary: run `cargo build` first, or set DIVVY");
  return program;
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Waits until `check` returns something true; the deadline is for a loaded machine. */
export async function until(what, check, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`in vain after ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export class Cluster {
  static async start() {
    const cluster = new Cluster();
    cluster.dir = await mkdtemp(path.join(os.tmpdir(), "divvy-dashboard-"));
    cluster.address = `127.0.0.1:${await freePort()}`;
    cluster.url = `http://${cluster.address}`;
    await cluster.up();
    return cluster;
  }

  async up() {
    let said = "";
    this.dev = spawn(binary(), ["dev", "--listen", this.address, "--data-dir", path.join(this.dir, "data")]);
    this.dev.stdout.on("data", (text) => (said += text));
    this.dev.stderr.on("data", (text) => (said += text));
    this.ended = new Promise((resolve) => this.dev.once("exit", resolve));
    const ready = () => {
      if (this.dev.exitCode !== null) throw new Error(`divvy dev ended: ${said}`);
      return said.includes("ready");
    };
    await until("divvy dev is ready", ready);
  }

  async down() {
    this.dev.kill("SIGTERM");
    await this.ended;
  }

  async stop() {
    await this.down();
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Runs a command against this cluster; answers what it prints. */
  async divvy(...args) {
    const { stdout } = await promisify(execFile)(binary(), ["--master", this.address, ...args]);
    return stdout;
  }

  /** Writes a spec file and answers where it is. */
  async file(name, text) {
    const file = path.join(this.dir, name);
    await writeFile(file, text);
    return file;
  }

  async tasks() {
    return JSON.parse(await this.divvy("tasks", "-o", "json"));
  }
}
