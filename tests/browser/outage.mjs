/**
 * outage.mjs: measures an outage in a real browser: a script of its own, not part of the tests. Chromium runs in a network
 * namespace behind a router, another namespace, which drops every packet both ways and nothing else: no reset, no error, no
 * `offline` event.
 *
 * Prints for each of RUNS outages the seconds until the spinner, until the page says that its line is lost, and, from the
 * network's return on, until it says "Live" and until the picture moves. Then for TYPED outages of 8 s, in each of which a
 * message is typed at another time: how often it arrived exactly once.
 *
 * Needs Linux, root, `ip` and `iptables`. Owns both namespaces and one pair of interfaces, and removes them at the end.
 *
 *   cargo build && RUNS=5 TYPED=20 SHARELINKD=target/debug/sharelinkd node tests/browser/outage.mjs
 */

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

import { Business } from "./business.mjs";
import { film } from "./film.mjs";
import { sleep, Tab } from "./stage.mjs";

const [RUNS, TYPED] = [Number(process.env.RUNS ?? 5), Number(process.env.TYPED ?? 20)];
const SHARELINKD = resolve(process.env.SHARELINKD ?? "target/release/sharelinkd");
const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const OUTAGES = [8, 12, 16, 20, 9.3]; // s, from the network's loss on
const TYPED_OUTAGE = 8;
const [ROUTER, BROWSER] = [`outage-r${process.pid}`, `outage-b${process.pid}`];
const HERE = "10.214.0.1";

const run = (command) => execFileSync("sh", ["-ec", command], { stdio: ["ignore", "pipe", "inherit"] });
const inRouter = (command) => run(`ip netns exec ${ROUTER} ${command}`);
const loseNetwork = () => inRouter("iptables -A FORWARD -j DROP");
const returnNetwork = () => inRouter("iptables -F FORWARD");

function makeNetwork() {
  const [near, far] = [`o${process.pid}a`, `o${process.pid}b`];
  run(`
    ip netns add ${ROUTER}
    ip netns add ${BROWSER}
    ip link add ${near} type veth peer name near netns ${ROUTER}
    ip -n ${ROUTER} link add ${far} type veth peer name far netns ${BROWSER}
    ip address add ${HERE}/30 dev ${near}
    ip -n ${ROUTER} address add 10.214.0.2/30 dev near
    ip -n ${ROUTER} address add 10.214.1.1/30 dev ${far}
    ip -n ${BROWSER} address add 10.214.1.2/30 dev far
    ip link set ${near} up
    for each in near ${far}; do ip -n ${ROUTER} link set $each up; done
    for each in far lo; do ip -n ${BROWSER} link set $each up; done
    ip -n ${BROWSER} route add default via 10.214.1.1
    ip route add 10.214.1.0/30 via 10.214.0.2
    ip netns exec ${ROUTER} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  `);
}

function removeNetwork() {
  for (const name of [BROWSER, ROUTER]) try { run(`ip netns del ${name}`); } catch { /* was not made */ }
}

/** The relay, on this side of the router. */
async function startRelay(directory, business) {
  const config = join(directory, "sharelinkd.toml");
  writeFileSync(config, `[pages]\nlisten = "${HERE}:0"\n[uplink]\naddresses = ["127.0.0.1:${business.port}"]\n`);
  const child = spawn(SHARELINKD, ["run", "--config", config], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (log += data));
  for (let tries = 0; tries < 200; tries += 1) {
    const found = /ready: pages connect to (\S+)/.exec(log);
    if (found) return { origin: `http://${found[1]}`, child };
    await sleep(50);
  }
  throw new Error(`the relay did not start:\n${log}`);
}

async function startBrowser(directory) {
  const wrapper = join(directory, "chromium");
  writeFileSync(wrapper, `#!/bin/sh\nexec ip netns exec ${BROWSER} ${CHROMIUM} "$@"\n`, { mode: 0o755 });
  return chromium.launch({ executablePath: wrapper, headless: true, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"] });
}

/** Runs in the page: notes when the picture last moved, and each change of what the page shows. */
function watch() {
  const notes = (window.notes = { moved: 0, changes: [] });
  let [time, last] = [0, ""];
  setInterval(() => {
    const video = document.querySelector("#video");
    if (video.currentTime !== time) [time, notes.moved] = [video.currentTime, Date.now()];
    const word = document.querySelector("#connection-text").textContent;
    const spins = getComputedStyle(document.querySelector("#spinner")).visibility === "visible";
    if (last === (last = `${word} ${spins}`)) return;
    notes.changes.push({ at: Date.now(), word, spins, moved: notes.moved });
  }, 20);
}

const seconds = (ms) => (Number.isFinite(ms) ? (ms / 1000).toFixed(2) : "never").padStart(6);

async function measure(tab, outage) {
  const lost = Date.now();
  loseNetwork();
  await sleep(outage * 1000 - (Date.now() - lost));
  const back = Date.now();
  returnNetwork();
  await tab.until("it is live", () => document.querySelector("#connection-text").textContent === "Live" && document.documentElement.dataset.state === "open");
  await tab.plays("#video", Date.now() + 30_000);
  await sleep(200);
  const { changes, moved } = await tab.run(() => window.notes);
  const at = (found) => changes.find((change) => change.at >= lost && found(change));
  const spinner = at(({ spins }) => spins);
  const told = at(({ word }) => word === "Reconnecting…");
  const live = changes.filter(({ at: time, word }) => word === "Live" && time >= back).pop();
  const plays = changes.filter(({ at: time, spins }) => !spins && time >= back).pop();
  console.log(`  outage of ${String(outage).padStart(4)} s: picture still after ${seconds(spinner?.moved - lost)}, spinner ${seconds(spinner?.at - spinner?.moved)} later; told after ${seconds(told?.at - lost)}; `
    + `back: live after ${seconds(live?.at - back)}, picture after ${seconds(plays?.at - back)} (last moved ${seconds(Date.now() - moved)} ago)`);
}

async function type(tab, business, number, at) {
  const text = `typed in outage ${number}`;
  const lost = Date.now();
  loseNetwork();
  await sleep(at);
  await tab.write("#say", text);
  await sleep(Math.max(0, TYPED_OUTAGE * 1000 - (Date.now() - lost)));
  returnNetwork();
  await tab.until("it is live", () => document.querySelector("#connection-text").textContent === "Live" && document.documentElement.dataset.state === "open");
  await tab.until("nothing waits", () => !document.querySelector("#outbox .outgoing"));
  await sleep(2_500); // what is still on its way
  const taken = business.heard.filter((message) => message.text === text && message.isNew).length;
  const came = business.heard.filter((message) => message.text === text).length;
  const shown = (await tab.messages()).filter(([, shownText]) => shownText === text).length;
  console.log(`  typed ${seconds(at)} s after the loss: taken ${taken} times (came ${came} times), shown ${shown} times`);
  return taken === 1 && shown === 1;
}

const directory = mkdtempSync(join(tmpdir(), "sharelinkd-outage-"));
const endings = [() => rmSync(directory, { recursive: true, force: true }), removeNetwork];
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => { removeNetwork(); process.exit(1); });
try {
  makeNetwork();
  const business = await Business.listen({ receipts: true });
  endings.push(() => business.close());
  const room = business.room("room");
  room.listens = true;
  room.heard = ({ text, author }) => room.tell({ from: "Viewer", text, author, at: Date.now() });
  const camera = film(room);
  endings.push(() => camera.stop());
  const { origin, child } = await startRelay(directory, business);
  endings.push(() => child.kill("SIGKILL"));
  const browser = await startBrowser(directory);
  endings.push(() => browser.close());
  const context = await browser.newContext({ viewport: { width: 390, height: 844 } });
  const page = await context.newPage();
  const tab = new Tab(page, await context.newCDPSession(page), null);
  tab.patience = 60_000;
  await tab.go(`${origin}/s/room`);
  await tab.live();
  await tab.plays("#video");
  await tab.run(watch);
  for (let number = 0; number < RUNS; number += 1) {
    await sleep(12_000); // the line holds for a while
    await measure(tab, OUTAGES[number % OUTAGES.length]);
  }
  let once = 0;
  for (let number = 0; number < TYPED; number += 1) {
    await sleep(1_500);
    once += await type(tab, business, number, 100 + ((number * 7) % TYPED) * (7_500 / TYPED));
  }
  console.log(`  arrived exactly once: ${once} of ${TYPED}`);
  process.exitCode = once === TYPED ? 0 : 1;
} finally {
  for (const end of endings.reverse()) await end();
}
