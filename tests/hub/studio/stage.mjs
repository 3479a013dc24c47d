/**
 * stage.mjs: what the studio's browser tests share: a hub and a relay (`sharelink-hub dev`), its API, and a Chromium whose
 * camera and microphone are made up.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const { chromium } = createRequire(new URL("../../browser/package.json", import.meta.url))("playwright-core");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
export const PATIENCE = 30_000; // ms; generous: others use the machine

/** Starts hub, relay and browser; `browserOnly`: another browser. */
export async function start({ program = process.env.SHARELINK_HUB ?? fileURLToPath(new URL("../../../target/debug/sharelink-hub", import.meta.url)), flags = [], browserOnly = false } = {}) {
  assert.ok(existsSync(program), `${program} is missing: build it, or name it by SHARELINK_HUB`);
  const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: [...FLAGS, ...flags] });
  if (browserOnly) {
    const browser = await launch();
    return { browser, end: () => browser.close() };
  }
  const hub = spawn(program, ["dev", "--json", "--port", "0", "--api-port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const place = JSON.parse((await once(hub.stdout, "data"))[0]);
  const browser = await launch();
  const end = async () => {
    await browser.close();
    hub.kill("SIGTERM");
    await once(hub, "exit");
  };
  return { ...place, browser, end };
}

/** A call of the API; returns what it says. */
export async function call({ api, key }, method, path, body) {
  const headers = { authorization: `Bearer ${key}`, ...(body ? { "content-type": "application/json" } : {}) };
  const answer = await fetch(api + path, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.status === 204 ? null : answer.json();
}

/** A new link of the studio. */
export async function link(place, topic, body) {
  const made = await call(place, "POST", `/v1/topics/${encodeURIComponent(topic)}/ingest-tokens`, body);
  return { ...made, url: place.api + made.studio };
}

export async function isLive(place, topic) {
  return (await call(place, "GET", `/v1/topics/${encodeURIComponent(topic)}`)).live.video;
}

/** A tab whose complaints are collected in `complaints`. */
export async function tab(place, options = {}) {
  const context = await place.browser.newContext({ viewport: { width: 390, height: 844 }, permissions: ["camera", "microphone"], ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) page.complaints.push(message.text()); });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.setDefaultTimeout(PATIENCE);
  return page;
}

/** Waits until the studio is in this state. */
export const until = (page, state) => page.waitForSelector(`html[data-state="${state}"]`, { state: "attached" });

/** Opens the camera and goes live. */
export async function goLive(page, url) {
  await page.goto(url);
  await page.click("#use-camera");
  await until(page, "ready");
  await page.click("#go");
  await until(page, "live");
}

/** Waits until a share page plays, and goes on playing. */
export async function plays(page) {
  await page.waitForFunction(() => {
    const video = document.querySelector("#video");
    return video?.videoWidth > 0 && video.currentTime > 0;
  });
  const from = await page.evaluate(() => document.querySelector("#video").currentTime);
  await page.waitForFunction((then) => document.querySelector("#video").currentTime > then + 1, from);
}

export { assert, sleep };
