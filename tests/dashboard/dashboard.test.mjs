// The dashboard in a real Chromium, on a real cluster: what somebody who watches a datacenter sees and does.
// Screenshots go to screenshots/, to be looked at.

import { AxeBuilder } from "@axe-core/playwright";
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Cluster, until } from "./cluster.mjs";

const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };
const SCREENSHOTS = path.join(import.meta.dirname, "screenshots");
const WAIT = { timeout: 30_000 };

let cluster;
let browser;

before(async () => {
  await mkdir(SCREENSHOTS, { recursive: true });
  cluster = await Cluster.start();
  await fill(cluster);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

/** Something that runs, something that has failed, something that waits. */
async function fill(cluster) {
  const sleeper = (id, more) => `id = "${id}"\n${more}\n[task]\nshell = "echo hello from the log; exec sleep 1000"\n`;
  await cluster.divvy("service", "apply", await cluster.file("steady.toml", sleeper("steady", "instances = 2")), "--wait");
  await cluster.divvy("service", "apply", await cluster.file("huge.toml", `${sleeper("huge", "")}cpus = 64\n`));
  const failing = 'id = "broken"\n[task]\nshell = "echo it cannot work >&2; exit 7"\n';
  const submitted = cluster.divvy("batch", "submit", await cluster.file("broken.toml", failing), "--wait");
  await assert.rejects(submitted, { code: 1 });
  await cluster.divvy("quota", "set", "eng", "--guarantee", "cpus=0.1", "--limit", "cpus=0.5;mem=1GiB");
  await cluster.divvy("quota", "set", "eng/ads", "--limit", "cpus=0.2");
  await cluster.divvy("reserve", "agent-3", "db", "disk=2GiB", "--label", "team=storage");
  await cluster.divvy("volumes", "create", "agent-3", "db", "data", "1GiB", "--label", "team=storage");
}

/** A page that fails the test if anything goes wrong in it. */
async function open(where, { viewport = DESKTOP, colorScheme = "light" } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  await page.goto(cluster.url + where);
  const close = async () => {
    await context.close();
    assert.deepEqual(wrong, [], "errors in the page");
  };
  return { page, close };
}

const shot = (page, name) => page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true });

/** What a screen reader or a person with low vision would stumble over. */
async function assertAccessible(page) {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa"]).analyze();
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
  assert.deepEqual(found, []);
}

async function assertNoSidewaysScroll(page) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, globalThis.innerWidth]);
  assert.ok(content <= window, `content is ${content} wide in a window of ${window}`);
}

for (const [name, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`the datacenter at a glance: ${name}, ${colorScheme}`, async () => {
      const { page, close } = await open("/", { viewport, colorScheme });
      await page.getByRole("status", { name: /^live/ }).waitFor(WAIT);
      for (const agent of ["agent-1", "agent-2", "agent-3"]) await page.getByRole("link", { name: new RegExp(`^${agent}`) }).waitFor(WAIT);
      await page.getByRole("link", { name: "service", exact: true }).waitFor(WAIT);
      assert.equal(await page.getByRole("tabpanel").getByText("RUNNING").locator("visible=true").count(), 2);
      await assertNoSidewaysScroll(page);
      await assertAccessible(page);
      await shot(page, `datacenter-${name}-${colorScheme}`);
      await close();
    });
  }
}

test("what has failed and what waits say why", async () => {
  const { page, close } = await open("/");
  await page.getByRole("tab", { name: /failed/ }).click();
  await page.getByRole("tabpanel").getByText("exit code 7").first().waitFor(WAIT);
  await page.getByRole("tab", { name: /^waiting\s*1$/ }).click(); // the service, though no task of it was launched
  await page.getByText(/cpus=64/).waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "waiting");
  await close();
});

test("a change is seen without reloading", async () => {
  const { page, close } = await open("/");
  const running = page.getByRole("tabpanel").getByText("RUNNING").locator("visible=true");
  await until("two tasks are shown", async () => (await running.count()) === 2);
  await cluster.divvy("service", "scale", "steady", "4", "--wait");
  await until("four tasks are shown", async () => (await running.count()) === 4);
  await cluster.divvy("service", "scale", "steady", "2", "--wait");
  await until("two tasks are shown again", async () => (await running.count()) === 2);
  await close();
});

test("from the datacenter to an agent, a framework and a task, by mouse", async () => {
  const { page, close } = await open("/");
  await page.getByRole("link", { name: /^agent-1/ }).click();
  await page.getByRole("heading", { name: "agent-1" }).waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "agent");
  await page.getByRole("link", { name: "Datacenter", exact: true }).click();
  await page.getByRole("link", { name: "service", exact: true }).click();
  await page.getByRole("heading", { name: "service" }).waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "framework");
  await page.getByRole("link", { name: /^steady/ }).first().click();
  await page.getByText("hello from the log").waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "task");
  await close();
});

test("roles show what they are promised and limited to, and why something waits in them", async () => {
  const { page, close } = await open("/");
  await page.getByRole("link", { name: "Roles", exact: true }).click();
  await page.getByRole("img", { name: "cpus: 0 consumed, 0.1 guaranteed, limit 0.5" }).waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "roles");
  await page.getByRole("link", { name: "eng/ads", exact: true }).click();
  await page.getByRole("heading", { name: "eng/ads" }).waitFor(WAIT);
  await page.getByRole("heading", { name: "Why it waits" }).waitFor(WAIT);
  await assertAccessible(page);
  await close();
});

test("a framework's page says why it waits, as a funnel", async () => {
  const { page, close } = await open("/");
  await page.getByRole("link", { name: "service", exact: true }).click();
  await page.getByRole("img", { name: "3 agents" }).first().waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "explain");
  await close();
});

test("reservations and volumes are listed", async () => {
  const { page, close } = await open("/reservations");
  const reserved = page.getByRole("table").first();
  await reserved.getByText("1 GiB disk").waitFor(WAIT);
  await reserved.getByText("team=storage").waitFor(WAIT);
  await page.getByRole("cell", { name: "data", exact: true }).waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "reservations");
  await close();
});

test("an agent is drained and offered again by buttons, and the decisions say so", async () => {
  const { page, close } = await open("/");
  await page.getByRole("link", { name: /^agent-2/ }).click();
  await page.getByLabel("What does not leave is killed").selectOption("at once");
  await page.getByRole("button", { name: "Drain" }).click();
  await page.getByText("It is drained").waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "drained");
  await page.getByRole("link", { name: "Decisions", exact: true }).click();
  await page.getByRole("cell", { name: "drained", exact: true }).waitFor(WAIT);
  await assertAccessible(page);
  await shot(page, "decisions");
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByRole("link", { name: /^agent-2 ?drained/ }).click();
  await page.getByRole("button", { name: "Reactivate" }).click();
  await page.getByRole("button", { name: "Deactivate" }).waitFor(WAIT);
  await close();
});

test("the operator's pages fit on a phone", async () => {
  for (const [where, heading] of [["/roles", "Roles"], ["/reservations", "Reservations"], ["/decisions", "Decisions"]]) {
    const { page, close } = await open(where, { viewport: PHONE, colorScheme: "dark" });
    await page.getByRole("heading", { name: heading, exact: true }).waitFor(WAIT);
    await assertNoSidewaysScroll(page);
    await assertAccessible(page);
    await shot(page, `${heading.toLowerCase()}-phone`);
    await close();
  }
});

test("everything is reached by keyboard alone", async () => {
  const { page, close } = await open("/");
  await page.getByRole("link", { name: /^agent-3/ }).waitFor(WAIT);
  const focused = () => page.evaluate(() => document.activeElement?.textContent ?? "");
  const tabTo = async (what) => {
    for (let presses = 0; presses < 60; presses++) {
      await page.keyboard.press("Tab");
      if (what.test(await focused())) return;
    }
    assert.fail(`Tab never reaches ${what}`);
  };
  await tabTo(/^Skip to content/);
  await tabTo(/^agent-2/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "agent-2" }).waitFor(WAIT);
  await page.goBack();
  await page.getByRole("link", { name: /^agent-3/ }).waitFor(WAIT);
  await tabTo(/^running/);
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await page.getByRole("tab", { name: /failed/, selected: true }).waitFor(WAIT);
  await tabTo(/^broken/);
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("exit code 7").waitFor(WAIT);
  await close();
});

test("while the master is away the page says so, and comes back by itself", async () => {
  const context = await browser.newContext({ viewport: DESKTOP });
  const page = await context.newPage();
  await page.goto(cluster.url);
  await page.getByRole("status", { name: /^live/ }).waitFor(WAIT);
  await cluster.down();
  await page.getByRole("status", { name: /^stale/ }).waitFor(WAIT);
  await page.getByRole("link", { name: /^agent-1/ }).waitFor(WAIT); // the last that was known
  await cluster.up();
  await page.getByRole("status", { name: /^live/ }).waitFor(WAIT);
  await until("the tasks run again", async () => (await cluster.tasks()).filter((task) => task.state === "RUNNING").length === 2);
  await context.close();
});
