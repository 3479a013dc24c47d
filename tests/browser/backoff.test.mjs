/**
 * backoff.test.mjs: pages that lose their relay together reconnect at random times (full jitter); pages without a live
 * subscription drop their connection, and retry when it is due. Runs the page client alone under Node, with fake sockets,
 * a fake clock and seeded random numbers. The wall clock jumps by hours at every call; nothing may depend on it.
 *
 * The seed is printed; SEED=n sets it.
 */

import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import test from "node:test";
import { chance, Clock } from "./clock.mjs";

const COUNT = 200;
const FIRST = 500; // ms: the longest first wait
const GROWTH = 1.6;
const LONGEST = 30_000;
const ATTEMPTS = 14; // beyond the one at which the steps stop growing

const clock = new Clock();
/** Whether the relay accepts pages. It answers each at once: with a connection and a subscription, or with a failure. */
let isUp = true;
/** It loses an accepted connection after this many ms. */
let holds = Infinity;
/** Its answer to a `subscribe`, without the number. */
const ACCEPTED = { type: "subscribed", topic: 7, epoch: "7", page_messages: false };
let answered = ACCEPTED;
/** The dial times of each page, by its number, and its current socket. */
let dials = [];
let sockets = [];

class Socket {
  static OPEN = 1;
  readyState = 0;

  constructor(url) {
    const page = Number(/page-(\d+)/.exec(url)[1]);
    (dials[page] ??= []).push(clock.now);
    sockets[page] = this;
    clock.set(() => (isUp ? this.#open() : this.lose(1006, "")), 0);
  }

  #open() {
    this.readyState = Socket.OPEN;
    this.onopen?.();
    if (holds < Infinity) clock.set(() => this.lose(1006, ""), holds);
  }

  send(text) {
    const { type, id, topic } = JSON.parse(text);
    if (type === "subscribe") clock.set(() => this.say({ ...answered, id }), 0);
    if (type === "unsubscribe") clock.set(() => this.say({ type: "end", topic, reason: "" }), 0);
  }

  say(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  lose(code, reason) {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  close() { this.readyState = 3; }
}

const seed = Number(process.env.SEED ?? 1);
console.log(`  SEED=${seed}`);
Math.random = chance(seed);

// The client finds the browser by these names.
Object.assign(globalThis, {
  window: new EventTarget(), document: Object.assign(new EventTarget(), { visibilityState: "visible" }), location: { href: "https://relay.example/s/room" },
  WebSocket: Socket,
  setTimeout: (run, wait) => clock.set(run, wait), clearTimeout: (timer) => clock.clear(timer),
  setInterval: (run, wait) => clock.set(run, wait, wait), clearInterval: (timer) => clock.clear(timer),
});
let isRefused = false;
Object.defineProperty(globalThis, "performance", { value: { now() { if (isRefused) throw new Error("not here"); return clock.now; } } });
let looks = 0;
let wall = () => clock.now + [5, -9, 26, -1][(looks += 1) % 4] * 3_600_000;
Date.now = () => wall();
setMaxListeners(0, window, document);
const source = readFileSync(new URL("../../src/web/sharelink.js", import.meta.url));
const load = (text) => import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`);
const { ShareLink } = await load(source);

/** One scene: `play` gets this many live pages, and their dials since. */
function scene(name, count, play) {
  test(name, () => {
    [isUp, holds, dials, sockets, answered] = [true, Infinity, [], [], ACCEPTED];
    const pages = Array.from({ length: count }, (_, number) => new ShareLink(`https://page-${number}.example`));
    const subscriptions = pages.map((page) => page.subscribe("room"));
    clock.pass(0);
    assert.ok(subscriptions.every(({ status }) => status === "live"));
    try {
      play(subscriptions, pages);
    } finally {
      pages.forEach((page) => page.close());
    }
  });
}

/** All pages lose their connection now, and the relay is up again or not: the dials of each within `wait`, in ms from now. */
function lose(wait, { code = 1006, reason = "", up = false } = {}) {
  [isUp, dials] = [up, []];
  const began = clock.now;
  for (const socket of [...sockets]) socket.lose(code, reason);
  clock.pass(wait);
  return Array.from(sockets, (_, page) => (dials[page] ?? []).map((at) => at - began));
}

scene("two hundred pages that lose their relay at once dial at times spread over the whole of each step, and the steps grow", COUNT, () => {
  const times = lose(2 * ATTEMPTS * LONGEST);
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const step = Math.min(LONGEST, FIRST * GROWTH ** attempt);
    const tenths = Array(10).fill(0);
    for (const at of times) {
      const wait = at[attempt] - (at[attempt - 1] ?? 0);
      assert.ok(wait >= 0 && wait <= step, `attempt ${attempt}: a wait of ${wait} ms where the step is ${step} ms`);
      tenths[Math.min(9, Math.floor((wait / step) * 10))] += 1;
    }
    assert.ok(Math.min(...tenths) >= COUNT / 40 && Math.max(...tenths) <= COUNT / 4, `attempt ${attempt}: by tenths of ${step} ms: ${tenths}`);
  }
});

for (const [held, anew] of [[9_900, false], [10_100, true]]) {
  scene(`the steps ${anew ? "begin anew" : "go on"} where a subscription held for ${held / 1000} s`, COUNT, () => {
    holds = held;
    const times = lose(ATTEMPTS * (held + LONGEST), { up: true });
    for (let attempt = 1; attempt < ATTEMPTS; attempt += 1) {
      const step = anew ? FIRST : Math.min(LONGEST, FIRST * GROWTH ** attempt);
      const longest = Math.max(...times.map((at) => at[attempt] - at[attempt - 1] - held));
      assert.ok(longest <= step && longest > step * 0.9, `attempt ${attempt}: the longest wait is ${longest} ms where the step is ${step} ms`);
    }
  });
}

scene("the relay's `retry=` is kept, and the viewer's return does not shorten it", 3, () => {
  assert.deepEqual(lose(2_000, { code: 1012, reason: "retry=4.2", up: true }), [[], [], []]);
  window.dispatchEvent(new Event("online"));
  document.dispatchEvent(new Event("visibilitychange"));
  clock.pass(2_199);
  assert.equal(dials.length, 0, "it reconnected too early");
  clock.pass(1);
  assert.equal(dials.flat().length, 3);
});

scene("pages closed for exceeding a limit dial after 30 to 60 s, evenly spread", COUNT, () => {
  const times = lose(60_000, { code: 1008, reason: "x", up: true }).map(([at]) => at);
  assert.ok(Math.min(...times) >= 30_000 && Math.min(...times) < 33_000 && Math.max(...times) > 57_000, `${Math.min(...times)} to ${Math.max(...times)} ms`);
});

scene("a page stays while its relay sends `alive`, whatever the wall clock does, and reconnects after 40 s of silence", 3, (_, pages) => {
  dials = [];
  const [alive, mute, asleep] = sockets;
  const said = setInterval(() => { for (const socket of [alive, asleep]) socket.say({ type: "alive" }); }, 15_000);
  for (let minute = 0; minute < 5; minute += 1) {
    clock.pass(60_000);
    window.dispatchEvent(new Event("online"));
  }
  clearInterval(said);
  assert.deepEqual([alive, asleep].map(({ readyState }) => readyState), [1, 1]);
  assert.deepEqual([dials[0], dials[2]], [undefined, undefined], "a page with a live connection reconnected");
  assert.equal(mute.readyState, 3);
  // A clock may not count a device's sleep: after the viewer's return the timeout is 20 s.
  clock.pass(1_000);
  window.dispatchEvent(new Event("online"));
  clock.pass(26_000);
  assert.equal(asleep.readyState, 3, "a silent relay was not timed out after the viewer's return");
  assert.ok(pages.every(({ connection }) => ["open", "waiting", "connecting"].includes(connection)));
});

test("without performance.now, a jump of the wall clock ends no connection, and silence still does", async () => {
  const jumping = wall;
  let offset = 0;
  [isRefused, wall, isUp, holds, dials, sockets, answered] = [true, () => clock.now + offset, true, Infinity, [], [], ACCEPTED];
  const { ShareLink: Blind } = await load(`${source}\n// once more`);
  const pages = [0, 1].map((number) => new Blind(`https://page-${number}.example`));
  try {
    pages.forEach((page) => page.subscribe("room"));
    clock.pass(0);
    const [alive, mute] = sockets;
    const said = setInterval(() => alive.say({ type: "alive" }), 15_000);
    for (const hours of [5, -30, 90]) {
      offset += hours * 3_600_000;
      clock.pass(6_000);
      assert.deepEqual([alive.readyState, mute.readyState], [1, 1], `the wall clock was set by ${hours} h`);
    }
    clock.pass(60_000);
    clearInterval(said);
    assert.deepEqual([alive.readyState, mute.readyState], [1, 3]);
  } finally {
    pages.forEach((page) => page.close());
    [isRefused, wall] = [false, jumping];
  }
});

/** A second subscription with this answer: its notices, and when it subscribes again. */
function refused(page, answer) {
  answered = answer;
  const [told, asked] = [[], []];
  const began = clock.now;
  const subscription = page.subscribe("other");
  subscription.addEventListener("denied", ({ detail }) => { told.push(detail); asked.push(clock.now - began); });
  return { subscription, told, asked };
}

for (const [code, reason] of [[1008, "subscribe to something"], [1006, ""], [1013, "retry=4.2"]]) {
  scene(`a link that is denied for good is final, though the relay closes with ${code}: no page comes back`, 3, (subscriptions, pages) => {
    subscriptions.forEach((subscription) => subscription.unsubscribe());
    const asked = pages.map((page) => refused(page, { type: "denied", reason: "expired" }));
    clock.pass(0);
    sockets.forEach((socket) => socket.lose(code, reason));
    dials = [];
    clock.pass(600_000);
    assert.deepEqual(dials, []);
    for (const { subscription, told } of asked) {
      assert.equal(subscription.status, "denied");
      assert.deepEqual(told, [{ reason: "expired", retry: null }]);
      assert.equal(subscription.connection, "idle");
    }
  });
}

scene("a link denied with a `retry` is requested at that time, without a connection until then", 1, ([first], [page]) => {
  first.unsubscribe();
  clock.pass(0);
  const { subscription, asked } = refused(page, { type: "denied", reason: "busy", retry: 100 });
  clock.pass(1_000);
  assert.deepEqual([subscription.status, page.connection], ["asking", "idle"]);
  clock.pass(500_000);
  assert.ok(asked.length >= 4 && asked.length <= 6, `${asked}`);
  asked.reduce((last, at) => {
    assert.ok(at - last >= 100_000 && at - last <= 120_001, `${asked}`);
    return at;
  });
  answered = ACCEPTED;
  clock.pass(120_001);
  assert.equal(subscription.status, "live");
});

scene("a `retry` is kept across the loss of the connection", 1, ([first], [page]) => {
  first.unsubscribe();
  clock.pass(0);
  const { asked } = refused(page, { type: "denied", reason: "busy", retry: 4 });
  clock.pass(100);
  assert.equal(page.connection, "open", "it waits only briefly");
  sockets[0].lose(1006, "");
  clock.pass(3_800);
  assert.deepEqual(asked.length, 1);
  clock.pass(2_000);
  assert.deepEqual(asked.length, 2);
});

scene("the `retry=` of a close frame also applies to a link that is requested later", 1, ([first], [page]) => {
  first.unsubscribe();
  clock.pass(0);
  const { asked } = refused(page, { type: "denied", reason: "busy", retry: 4 });
  clock.pass(100);
  dials = [];
  sockets[0].lose(1013, "retry=60");
  clock.pass(59_999);
  assert.deepEqual([asked.length, dials], [1, []]);
  clock.pass(10);
  assert.equal(asked.length, 2);
});

scene("an ended room is requested again within 38 s each time, without a connection in between", 20, (subscriptions, pages) => {
  dials = [];
  answered = { type: "denied", reason: "closed" };
  const began = clock.now;
  for (const socket of sockets) {
    socket.say({ type: "end", topic: 7, reason: "closed" });
    // As the relay does: 60 s after the last live subscription a page is closed.
    clock.set(() => socket.readyState === 1 && socket.lose(1008, "nothing is subscribed"), 60_000);
  }
  clock.pass(38_000);
  assert.ok(pages.every(({ connection }) => connection === "idle"), "the connection is kept without a subscription");
  assert.ok(subscriptions.every(({ status }) => status === "ended"));
  assert.deepEqual(dials, []);
  clock.pass(300_000);
  for (const [page, at] of dials.entries()) {
    const waits = at.map((time, index) => time - (at[index - 1] ?? began));
    assert.ok(at.length >= 7 && waits.slice(1).every((wait) => wait >= 22_500 && wait <= 37_501), `page ${page}: ${waits}`);
  }
  answered = ACCEPTED;
  clock.pass(38_000);
  assert.ok(subscriptions.every(({ status }) => status === "live"));
});
