/**
 * silence.test.mjs: the limits of the page client with a fake clock, under Node: when it asks a silent relay, when it takes it
 * for dead, how it dials in an outage; and what the promises of `send()` say.
 *
 * The relay here is a fake socket: it answers at once, or, while `isDead`, neither answers nor closes nor opens.
 */

import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import test from "node:test";
import { chance, Clock } from "./clock.mjs";

const clock = new Clock();
const AUTHOR = "0123456789abcdef";
/** What the relay says in `subscribed`. */
let features = ["ping", "receipts"];
let author = AUTHOR;
/** What becomes of a page's message: "sent", "refused", or nothing. */
let fate = "sent";
let [isDead, isRefusing, takes] = [false, false, true];
let sockets = [];

class Socket {
  static OPEN = 1;
  readyState = 0;
  said = []; // by the page
  at = clock.now;

  constructor() {
    sockets.push(this);
    if (isRefusing) clock.set(() => this.lose(1006, ""), 0);
    else if (!isDead) clock.set(() => this.readyState === 0 && this.#open(), 0);
  }

  #open() {
    this.readyState = Socket.OPEN;
    this.onopen?.();
  }

  send(text) {
    const frame = JSON.parse(text);
    this.said.push(frame);
    if (!isDead) clock.set(() => this.#answer(frame), 0);
  }

  #answer({ type, id, topic }) {
    if (type === "subscribe") this.say({ type: "subscribed", id, topic: 7, epoch: "7", page_messages: takes, features, author });
    if (type === "unsubscribe") this.say({ type: "end", topic, reason: "" });
    if (type === "ping") this.say({ type: "alive" });
    if (type === "send" && fate === "refused") this.say({ type: "error", reason: "too many", id });
    if (type === "send" && fate === "sent" && id) this.say({ type: "sent", id });
  }

  say(frame) { this.onmessage?.({ data: JSON.stringify(frame) }); }

  /** A chunk of the picture. */
  show(sequence) {
    const frame = new DataView(new ArrayBuffer(20));
    [3, 2].forEach((value, at) => frame.setUint8(at, value));
    frame.setUint32(2, 7);
    frame.setUint32(10, sequence);
    this.onmessage?.({ data: frame.buffer });
  }

  lose(code, reason) {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  close() { this.readyState = 3; }
  count(type) { return this.said.filter((frame) => frame.type === type).length; }
}

const seed = Number(process.env.SEED ?? 1);
console.log(`  SEED=${seed}`);
Math.random = chance(seed);
const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
Object.assign(globalThis, {
  window: new EventTarget(), document, location: { href: "https://relay.example/s/room" }, WebSocket: Socket,
  setTimeout: (run, wait) => clock.set(run, wait), clearTimeout: (timer) => clock.clear(timer),
  setInterval: (run, wait) => clock.set(run, wait, wait), clearInterval: (timer) => clock.clear(timer),
});
Object.defineProperty(globalThis, "performance", { value: { now: () => clock.now } });
setMaxListeners(0, window, document);
const source = readFileSync(new URL("../../src/web/sharelink.js", import.meta.url));
const { ShareLink, NotSent } = await import(`data:text/javascript;base64,${source.toString("base64")}`);

/** One scene: `play` gets a live subscription; `told` notes each state of its connection, with its time. */
function scene(name, play, known = ["ping", "receipts"]) {
  test(name, async () => {
    [features, author, fate, isDead, isRefusing, takes, sockets] = [known, AUTHOR, "sent", false, false, true, []];
    const page = new ShareLink("https://relay.example");
    const room = page.subscribe("room");
    const told = [];
    page.addEventListener("connection", ({ detail }) => told.push({ ...detail, at: clock.now, offline: page.offline }));
    clock.pass(0);
    clock.pass(0);
    assert.equal(room.status, "live");
    try {
      await play({ page, room, told, socket: sockets[0] });
    } finally {
      page.close();
    }
  });
}

/** The relay is silent from now on: ms until the page knows, at most `wait`. */
function silence(told, wait) {
  isDead = true;
  const began = clock.now;
  clock.pass(wait);
  return (told.find(({ state, at }) => state === "waiting" && at >= began)?.at ?? Infinity) - began;
}

/** Chunks twice a second for a while. */
function busy(socket, seconds) {
  for (let number = 1; number <= 2 * seconds; number += 1) {
    socket.show(number);
    clock.pass(500);
  }
}

/** What a promise came to, once all that is ready has run. */
async function result(promise) {
  const unsettled = Symbol("unsettled");
  const answer = promise.then((value) => value, (error) => error);
  for (let turn = 0; turn < 20; turn += 1) await null;
  const value = await Promise.race([answer, Promise.resolve(unsettled).then(async (one) => { for (let turn = 0; turn < 5; turn += 1) await null; return one; })]);
  return value === unsettled ? "unsettled" : value;
}

// ---------------------------------------------------------------------------------------- silence

scene("where media ran, a dead line is told within 6 s", ({ told, socket }) => {
  busy(socket, 5);
  const took = silence(told, 30_000);
  assert.ok(took > 2_000 && took <= 6_000, `${took} ms`);
});

scene("after a send it is told within 6 s", ({ room, told, socket }) => {
  clock.pass(12_000);
  assert.equal(socket.count("ping"), 0, "nobody asks a quiet room");
  isDead = true;
  room.send("?");
  const took = silence(told, 30_000);
  assert.ok(took > 2_000 && took <= 6_000, `${took} ms`);
});

scene("after a send that waits for an `alive` to pass it is told within 6 s too", ({ room, told, socket }) => {
  clock.pass(13_600);
  isDead = true;
  room.send("?");
  assert.equal(socket.count("send"), 0);
  const took = silence(told, 30_000);
  assert.ok(took <= 6_000, `${took} ms`);
}, ["ping"]);

scene("in a quiet room it is told within 20 s", ({ told }) => {
  const took = silence(told, 60_000);
  assert.ok(took > 15_000 && took <= 20_000, `${took} ms`);
});

scene("a frame that overtakes the question doesn't excuse the silence after it", ({ told, socket }) => {
  busy(socket, 5);
  isDead = true;
  clock.pass(2_100);
  assert.ok(socket.count("ping") > 0);
  socket.show(11);
  const took = silence(told, 30_000);
  assert.ok(took <= 6_000, `${took} ms`);
});

scene("the relay is asked no more than needed, and an answer is a sign of life", ({ told, socket }) => {
  busy(socket, 5);
  assert.equal(socket.count("ping"), 0, "nobody asks while media run");
  clock.pass(60_000);
  assert.ok(socket.count("ping") >= 4 && socket.count("ping") <= 10, `asked ${socket.count("ping")} times in a minute`);
  assert.deepEqual(told.filter(({ state }) => state !== "open" && state !== "connecting"), []);
});

scene("a chunk that takes long on a slow line is no dead line", ({ told, socket }) => {
  isDead = true; // the answer waits behind the chunks
  for (let number = 1; number <= 20; number += 1) {
    clock.pass(6_000);
    socket.show(number);
  }
  assert.deepEqual(told.filter(({ state }) => state === "waiting"), []);
  const took = silence(told, 60_000);
  assert.ok(took <= 22_500, `${took} ms`);
});

scene("a relay without `ping` is never asked, and silent for 40 s before it is given up", ({ room, told, socket }) => {
  busy(socket, 5);
  window.dispatchEvent(new Event("offline"));
  window.dispatchEvent(new Event("online"));
  document.dispatchEvent(new Event("visibilitychange"));
  room.send("?");
  const took = silence(told, 60_000);
  assert.ok(took > 15_000 && took <= 42_000, `${took} ms`);
  assert.deepEqual([...new Set(socket.said.map(({ type }) => type))], ["subscribe", "send"]);
}, []);

scene("`offline` is told at once, and is taken back by `online` or by what comes", ({ page, room, told, socket }) => {
  window.dispatchEvent(new Event("offline"));
  assert.deepEqual([page.offline, room.offline, told[told.length - 1].offline], [true, true, true]);
  window.dispatchEvent(new Event("online"));
  assert.deepEqual([page.offline, told[told.length - 1].offline, page.connection], [false, false, "open"]);
  clock.pass(10_000);
  isDead = true;
  window.dispatchEvent(new Event("offline"));
  socket.say({ type: "message", topic: 7, sequence: 1, data: {} }); // was under way
  assert.equal(page.offline, true);
  clock.pass(1_500);
  socket.say({ type: "message", topic: 7, sequence: 2, data: {} });
  assert.deepEqual([page.offline, told[told.length - 1].offline], [false, false]);
});

scene("`offline` asks at once whether it is true", ({ told, socket }) => {
  isDead = true;
  window.dispatchEvent(new Event("offline"));
  assert.equal(socket.count("ping"), 1);
  const took = silence(told, 30_000);
  assert.ok(took <= 3_500, `${took} ms`);
});

scene("an `offline` that is not true is taken back within seconds, in a quiet room too", ({ page, room, told, socket }) => {
  clock.pass(5_000);
  window.dispatchEvent(new Event("offline"));
  clock.pass(500);
  assert.equal(page.offline, true, "the first answer may have been under way");
  clock.pass(2_000);
  assert.deepEqual([page.offline, room.offline, told[told.length - 1].offline, page.connection], [false, false, false, "open"]);
  assert.equal(socket.count("ping"), 2);
});

scene("the viewer's return asks at once", ({ told, socket }) => {
  isDead = true;
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(socket.count("ping"), 1);
  const took = silence(told, 30_000);
  assert.ok(took <= 3_500, `${took} ms`);
});

// ----------------------------------------------------------------------------------------- outages

for (const outage of [1_000, 4_300, 8_000, 11_700, 14_000]) {
  scene(`after ${(outage + 6_000) / 1000} s without a network, in which every attempt hangs, the next one begins within 2.8 s`, ({ page, told, socket }) => {
    busy(socket, 5);
    silence(told, 6_000);
    clock.pass(outage);
    isDead = false;
    const back = clock.now;
    clock.pass(2_800); // HANGING, a beat, and NEXT_TRY; a real dial is repeated by TCP meanwhile
    assert.equal(page.connection, "open", `${told.slice(-3).map(({ state }) => state)}`);
    assert.ok(sockets[sockets.length - 1].at >= back);
    assert.ok(told.every(({ attempt = 0 }) => attempt <= 1), "attempts that hang are no refusals");
  });
}

scene("later an attempt has 15 s", ({ told, socket }) => {
  busy(socket, 5);
  silence(told, 60_000);
  const late = sockets.slice(-2).map(({ at }) => at);
  assert.ok(late[1] - late[0] >= 15_000, `${late[1] - late[0]} ms`);
});

scene("where nobody looks an attempt has 15 s", ({ told, socket }) => {
  busy(socket, 5);
  document.visibilityState = "hidden";
  try {
    silence(told, 20_000);
    assert.equal(sockets.length, 2);
  } finally {
    document.visibilityState = "visible";
  }
});

scene("refusals keep the growing steps, also right after a line was lost", ({ socket }) => {
  isRefusing = true;
  socket.lose(1006, "");
  clock.pass(600_000);
  const at = sockets.map((one) => one.at);
  assert.ok(sockets.length < 60, `${sockets.length} attempts in 10 min`);
  assert.ok(Math.max(...at.slice(1).map((time, index) => time - at[index])) > 10_000);
});

scene("`online` right after a failed attempt shortens the wait too", ({ page, socket }) => {
  isRefusing = true;
  socket.lose(1006, "");
  while (sockets.length < 12) clock.pass(100);
  isRefusing = false;
  clock.pass(100);
  assert.equal(page.connection, "waiting");
  window.dispatchEvent(new Event("online"));
  clock.pass(1_000);
  assert.equal(page.connection, "open");
});

// ----------------------------------------------------------------------------------------- sending

scene("`send()` resolves to `sent` with its id, and the same id is the same message", async ({ room, socket }) => {
  const sending = room.send("hello");
  assert.equal(await result(sending), "unsettled");
  clock.pass(0);
  const { state, id } = await result(sending);
  assert.equal(state, "sent");
  assert.match(id, /^[0-9a-f]{32}$/);
  const again = room.send("hello", { id });
  clock.pass(0);
  assert.deepEqual(await result(again), { state, id });
  assert.deepEqual(socket.said.filter(({ type }) => type === "send").map((frame) => [frame.id, frame.data]), [[id, "hello"], [id, "hello"]]);
  const other = room.send("hello");
  clock.pass(0);
  assert.notEqual((await result(other)).id, id);
});

scene("a refusal rejects with `NotSent`, its reason and the id", async ({ room }) => {
  fate = "refused";
  const sending = room.send("hello");
  clock.pass(0);
  const error = await result(sending);
  assert.ok(error instanceof NotSent && error instanceof Error);
  assert.equal(error.reason, "too many");
  assert.match(error.id, /^[0-9a-f]{32}$/);
  fate = "sent";
  const again = room.send("hello", { id: error.id });
  clock.pass(0);
  assert.deepEqual(await result(again), { state: "sent", id: error.id });
});

scene("a message without its receipt is sent again under its id, on this connection and the next", async ({ room, socket }) => {
  fate = "";
  const sending = room.send("hello");
  clock.pass(10_600);
  assert.equal(socket.count("send"), 2);
  socket.lose(1006, "");
  clock.pass(1_000);
  const ids = sockets.flatMap(({ said }) => said.filter(({ type }) => type === "send").map(({ id }) => id));
  assert.deepEqual([ids.length, new Set(ids).size], [3, 1]);
  assert.equal(await result(sending), "unsettled");
  sockets[1].say({ type: "sent", id: ids[0] });
  assert.deepEqual(await result(sending), { state: "sent", id: ids[0] });
});

scene("a lost uplink is a doubt: the message goes out again when it is back", async ({ room, socket }) => {
  fate = "";
  const sending = room.send("hello");
  clock.pass(0);
  socket.say({ type: "uplink", up: false });
  const waits = room.send("waits");
  clock.pass(1_000);
  assert.equal(socket.count("send"), 1);
  fate = "sent";
  socket.say({ type: "uplink", up: true, features, author: "fedcba9876543210" });
  clock.pass(0);
  assert.equal(socket.count("send"), 3);
  assert.deepEqual([(await result(sending)).state, (await result(waits)).state], ["sent", "sent"]);
  assert.deepEqual([AUTHOR, "fedcba9876543210", "0000000000000000", undefined].map((author) => room.isOwn(author)), [true, true, false, false]);
});

scene("what can't be sent waits for a minute: then it was not sent, or nobody knows", async ({ room, told, socket }) => {
  fate = "";
  const doubtful = room.send("doubtful");
  clock.pass(100);
  isDead = true;
  socket.lose(1006, "");
  const waiting = room.send("waiting");
  clock.pass(59_000);
  assert.deepEqual([await result(doubtful), await result(waiting)], ["unsettled", "unsettled"]);
  clock.pass(1_000);
  assert.equal((await result(doubtful)).state, "unsure");
  const error = await result(waiting);
  assert.ok(error instanceof NotSent);
  assert.equal(error.reason, "there was no connection");
  assert.ok(told.length > 0);
});

scene("what has gathered goes out at a rate that a relay takes", ({ room, socket }) => {
  isDead = true;
  socket.lose(1006, "");
  for (let number = 0; number < 8; number += 1) room.send(`line ${number}`);
  isDead = false;
  clock.pass(3_000);
  const { said, at } = sockets[sockets.length - 1];
  assert.ok(said.filter(({ type }) => type === "send").length < 8, `since ${at}`);
  clock.pass(8_000);
  assert.deepEqual(said.filter(({ type }) => type === "send").map(({ data }) => data), Array.from({ length: 8 }, (_, number) => `line ${number}`));
});

scene("two rooms on one connection send no more than a relay takes of it", ({ page, room, socket }) => {
  const other = page.subscribe("other");
  clock.pass(0);
  clock.pass(0);
  for (let number = 0; number < 3; number += 1) {
    room.send(`line ${number}`);
    other.send(`line ${number}`);
  }
  assert.equal(socket.count("send"), 4);
  clock.pass(3_000);
  assert.equal(socket.count("send"), 6);
});

scene("a refusal of a repeat is a doubt, for the first attempt may have arrived", async ({ room, socket }) => {
  fate = "";
  const sending = room.send("hello");
  clock.pass(9_000);
  fate = "refused";
  clock.pass(2_000);
  assert.equal(socket.count("send"), 2);
  assert.equal((await result(sending)).state, "unsure");
});

scene("a receipt counts whenever it comes, a refusal only for what is under way", async ({ room, socket }) => {
  fate = "";
  const sending = room.send("hello");
  clock.pass(0);
  const { id } = socket.said.find(({ type }) => type === "send");
  socket.say({ type: "uplink", up: false });
  socket.say({ type: "error", reason: "the business server can't be reached now", id });
  assert.equal(await result(sending), "unsettled");
  socket.say({ type: "sent", id });
  assert.deepEqual(await result(sending), { state: "sent", id });
});

scene("while `subscribed` names no author there is no business server, and what is sent waits for it", async ({ page, room, socket }) => {
  fate = "";
  const doubtful = room.send("doubtful");
  clock.pass(0);
  [features, author] = [["ping"], undefined];
  socket.lose(1006, "");
  const waits = room.send("waits");
  clock.pass(1_000);
  assert.deepEqual([room.status, page.uplink, sockets[1].count("send")], ["live", false, 0]);
  assert.deepEqual([await result(doubtful), await result(waits)], ["unsettled", "unsettled"]);
  fate = "sent";
  sockets[1].say({ type: "uplink", up: true, features: ["ping", "receipts"], author: AUTHOR });
  clock.pass(0);
  assert.deepEqual([(await result(doubtful)).state, (await result(waits)).state], ["sent", "sent"]);
});

scene("an `alive` of the relay's own is no answer for a message without receipts", async ({ room, socket }) => {
  clock.pass(14_900);
  fate = "refused";
  const sending = room.send("hello");
  socket.say({ type: "alive" }); // crosses it
  assert.equal(await result(sending), "unsettled");
  clock.pass(600);
  assert.ok((await result(sending)) instanceof NotSent);
}, ["ping"]);

scene("without receipts it is `passed` once the relay has answered a ping behind it, one after the other", async ({ room, socket }) => {
  const [one, two] = [room.send("one"), room.send("two")];
  assert.deepEqual(socket.said.slice(1), [{ type: "send", topic: 7, data: "one" }, { type: "ping" }]);
  clock.pass(0);
  clock.pass(0);
  assert.deepEqual([(await result(one)).state, (await result(two)).state], ["passed", "passed"]);
  fate = "refused";
  const bad = room.send("three");
  clock.pass(0);
  assert.ok((await result(bad)) instanceof NotSent);
  // In doubt: not sent again by itself.
  isDead = true;
  const doubtful = room.send("four");
  socket.lose(1006, "");
  assert.equal((await result(doubtful)).state, "unsure");
  isDead = false;
  fate = "sent";
  clock.pass(30_000);
  assert.equal(sockets.slice(1).reduce((sum, one) => sum + one.count("send"), 0), 0);
}, ["ping"]);

scene("a message that had a receipt to come is `unsure` to a business server that gives none", async ({ room, socket }) => {
  fate = "";
  const sending = room.send("hello");
  clock.pass(0);
  features = ["ping"];
  socket.lose(1006, "");
  clock.pass(1_000);
  assert.equal((await result(sending)).state, "unsure");
  assert.equal(sockets[1].count("send"), 0);
});

scene("a relay without `ping` and receipts gets it once, and it is `unsure`", async ({ room, socket }) => {
  clock.pass(14_000);
  const sending = room.send("hello");
  assert.equal((await result(sending)).state, "unsure");
  clock.pass(30_000);
  assert.deepEqual(socket.said.slice(1), [{ type: "send", topic: 7, data: "hello" }]);
}, []);

scene("an end settles what waits, and refuses what comes after it", async ({ room, socket }) => {
  fate = "";
  const doubtful = room.send("doubtful");
  clock.pass(0);
  socket.say({ type: "end", topic: 7, reason: "closed" });
  assert.equal((await result(doubtful)).state, "unsure");
  const late = await result(room.send("late"));
  assert.ok(late instanceof NotSent);
  assert.equal(late.reason, "the room has ended");
});

scene("where pages can't send, `send()` rejects", async ({ room, socket }) => {
  takes = false;
  socket.lose(1006, "");
  const sending = room.send("hello");
  clock.pass(1_000);
  assert.ok((await result(sending)) instanceof NotSent);
});

scene("wrong use of `send()` throws at once and says what is right", ({ room, socket }) => {
  assert.throws(() => room.send("é".repeat(257)), { name: "RangeError", message: /512 bytes/ });
  for (const data of [undefined, null, 7, {}, ["x"]]) assert.throws(() => room.send(data), { name: "TypeError", message: /string/ });
  for (const id of ["", "7", 7, null, "A".repeat(32)]) assert.throws(() => room.send("x", { id }), { name: "TypeError", message: /32 digits/ });
  room.unsubscribe();
  assert.throws(() => room.send("x"), { message: /has ended/ });
  assert.equal(socket.count("send"), 0);
});

scene("nobody has to look at the promise of `send()`", async ({ room }) => {
  const seen = [];
  process.on("unhandledRejection", (error) => seen.push(error));
  fate = "refused";
  room.send("hello");
  clock.pass(0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(seen, []);
});
