/**
 * backoff.test.mjs: pages that lose their relay together come back at times of their own (full jitter). The page client by itself,
 * under Node: its sockets, its clock and its chance are made up here.
 *
 * The chance has a seed, which is printed; SEED=n takes another.
 */

import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import test from "node:test";

const COUNT = 200;
const FIRST = 500; // ms: the longest first wait
const GROWTH = 1.6;
const LONGEST = 30_000;
const ATTEMPTS = 14; // beyond the one at which the steps stop growing

/** Time that passes only where a test lets it. */
class Clock {
  now = 1_000_000;
  #timers = new Map();
  #last = 0;

  set(run, wait, every = 0) {
    this.#timers.set((this.#last += 1), { at: this.now + Math.max(0, wait), run, every });
    return this.#last;
  }

  clear(timer) { this.#timers.delete(timer); }

  pass(duration) {
    const end = this.now + duration;
    for (;;) {
      let due = null;
      for (const timer of this.#timers) if (timer[1].at <= end && !(due?.[1].at <= timer[1].at)) due = timer;
      if (!due) break;
      const [number, timer] = due;
      this.now = timer.at;
      if (timer.every) timer.at += timer.every;
      else this.#timers.delete(number);
      timer.run();
    }
    this.now = end;
  }
}

const clock = new Clock();
/** Whether the relay takes pages. It answers each at once: its connection with what it asks for, or the loss of it. */
let isUp = true;
/** What it takes it loses after so many ms. */
let holds = Infinity;
/** When each page dialled, by its number, and the socket that it has. */
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
    const { type, id } = JSON.parse(text);
    const answer = JSON.stringify({ type: "subscribed", id, topic: 7, epoch: "7", page_messages: false });
    if (type === "subscribe") clock.set(() => this.onmessage?.({ data: answer }), 0);
  }

  lose(code, reason) {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  close() { this.readyState = 3; }
}

/** Mulberry32: the same numbers for the same seed. */
function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
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
Date.now = () => clock.now;
setMaxListeners(0, window, document);
const source = readFileSync(new URL("../../src/web/sharelink.js", import.meta.url));
const { ShareLink } = await import(`data:text/javascript;base64,${source.toString("base64")}`);

/** One scene: `play` with so many pages that are live, and what they dialled since. */
function scene(name, count, play) {
  test(name, () => {
    [isUp, holds, dials, sockets] = [true, Infinity, [], []];
    const pages = Array.from({ length: count }, (_, number) => new ShareLink(`https://page-${number}.example`));
    const subscriptions = pages.map((page) => page.subscribe("room"));
    clock.pass(0);
    assert.ok(subscriptions.every(({ status }) => status === "live"));
    try {
      play();
    } finally {
      pages.forEach((page) => page.close());
    }
  });
}

/** All pages lose their connection now, and the relay is there again or not: when each dials within `wait`, in ms from now. */
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

scene("a wait that the relay names is kept, and the viewer's return does not shorten it", 3, () => {
  assert.deepEqual(lose(2_000, { code: 1012, reason: "retry=4.2", up: true }), [[], [], []]);
  window.dispatchEvent(new Event("online"));
  document.dispatchEvent(new Event("visibilitychange"));
  clock.pass(2_199);
  assert.equal(dials.length, 0, "it came back before its time");
  clock.pass(1);
  assert.equal(dials.flat().length, 3);
});

scene("pages that were sent away for breaking a limit dial after half a minute to a minute, spread over it", COUNT, () => {
  const times = lose(60_000, { code: 1008, reason: "x", up: true }).map(([at]) => at);
  assert.ok(Math.min(...times) >= 30_000 && Math.min(...times) < 33_000 && Math.max(...times) > 57_000, `${Math.min(...times)} to ${Math.max(...times)} ms`);
});
