/**
 * units.test.mjs: the studio's parts that need no browser: the link, the rate, the clock, the line, the words, the muxer.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";

const ROOT = new URL("../../../hub/src/studio/", import.meta.url);
const text = (name) => readFileSync(new URL(name, ROOT), "utf8");
// The files are modules without a package.json beside them, so Node gets copies that say so.
const copies = mkdtempSync("/tmp/sharelink-studio-");
writeFileSync(`${copies}/package.json`, '{"type":"module"}');
const load = async (name, ...below) => {
  for (const one of [name, ...below]) writeFileSync(`${copies}/${one.split("/").at(-1)}`, text(one));
  return import(`${copies}/${name}`);
};

const { parse, socket } = await load("link.js");
const { LATE, LOST, Rate } = await load("rate.js");
const { Clock } = await load("clock.js");
const { Line } = await load("line.js");
const { explained, words } = await load("words.js");
const { FRAGMENT, Muxer } = await load("muxing.js", "vendor/mediabunny.js");

test("a link has a topic and a token", () => {
  assert.deepEqual(parse("#demo/slt_aZ0-_"), { topic: "demo", token: "slt_aZ0-_" });
  assert.deepEqual(parse("#app%2Froom%3A7/slt_x"), { topic: "app/room:7", token: "slt_x" });
  // As some programs hand it on: decoded.
  assert.deepEqual(parse("#app/room:7/slt_x"), { topic: "app/room:7", token: "slt_x" });
  for (const wrong of ["", "#", "#demo", "#demo/", "#/slt_x", "#demo/slk_x", "#demo/slt_", "#demo/slt_x y", "#%/slt_x", "#<b>/slt_x", `#${"x".repeat(65)}/slt_x`, "#slt_x"]) {
    assert.equal(parse(wrong), null, wrong);
  }
});

test("the WebSocket is beside the page, also below a prefix", () => {
  assert.equal(socket("https://hub.example/studio"), "wss://hub.example/studio/ws");
  assert.equal(socket("http://127.0.0.1:8090/hub/studio?a=b#demo/slt_x"), "ws://127.0.0.1:8090/hub/studio/ws");
});

test("a line that is late gets less, by steps, and more again once it keeps up", () => {
  const rate = new Rate(2_000_000);
  assert.equal(rate.look(0, 0.1), false);
  assert.equal(rate.look(500, LATE + 0.1), true);
  assert.equal(rate.bitrate, 1_400_000);
  assert.equal(rate.look(1000, 1), false, "the line has not drained yet");
  for (let at = 2000; at < 60_000; at += 500) rate.look(at, 1);
  assert.equal(rate.bitrate, 150_000, "not below a picture");
  let last = rate.bitrate;
  for (let at = 60_000; at < 64_000; at += 500) assert.equal(rate.look(at, 0), false, "it is not sure yet");
  for (let at = 64_000; at < 400_000; at += 500) {
    rate.look(at, 0);
    assert.ok(rate.bitrate >= last && rate.bitrate <= last * 1.201);
    last = rate.bitrate;
  }
  assert.equal(rate.bitrate, 2_000_000);
});

test("where the line's speed is known the bitrate goes there, and while groups are dropped no further", () => {
  const rate = new Rate(2_000_000);
  rate.look(0, 1, 1_000_000);
  assert.equal(rate.bitrate, 850_000);
  rate.look(2000, 1, 100_000);
  assert.equal(rate.bitrate, 212_500, "not by more than a step");
  assert.equal(rate.admits(false, 3), false);
  const other = new Rate(2_000_000);
  other.admits(true, 3);
  for (let at = 0; at < 20_000; at += 500) other.look(at, 3, 1_000_000);
  assert.equal(other.bitrate, 850_000);
  assert.equal(other.admits(true, 0), true);
  other.look(30_000, 1, 0);
  assert.equal(other.bitrate, 595_000);
});

test("a line that is lost gets whole groups, or none", () => {
  const rate = new Rate(1_000_000);
  const admitted = [[true, 0], [false, LOST + 0.1], [false, 0], [true, 1], [false, 0], [true, 0.1], [false, 0.1]].map(([starts, behind]) => rate.admits(starts, behind));
  assert.deepEqual(admitted, [true, false, false, false, false, true, true]);
  assert.equal(rate.dropped, 2);
  assert.equal(rate.admits(false, LOST + 1), false);
  rate.renew();
  assert.equal(rate.admits(true, 0), true, "a new stream begins at once");
});

test("a track's clock follows the page's, and no jitter", () => {
  const clock = new Clock();
  clock.look(5_000_000, 100);
  assert.equal(clock.at(5_000_000), 100_000);
  for (let n = 1; n < 2000; n += 1) clock.look(5_000_000 + n * 20_000, 100 + n * 20 + (n % 7) * 9);
  assert.equal(clock.at(5_000_000), 100_000);
  // A sound card that is slow by 1 %: what is due is caught up.
  const slow = new Clock();
  for (let n = 0; n < 3000; n += 1) slow.look(n * 19_800, n * 20);
  assert.ok(Math.abs(slow.at(3000 * 19_800) - 3000 * 20_000) < 300_000);
  slow.reset();
  slow.look(7, 50);
  assert.equal(slow.at(7), 50_000);
});

/** A line whose sockets and timers are the test's. */
function stage() {
  const it = { sockets: [], states: [], timers: new Map(), now: 0, ready: 0 };
  let number = 0;
  it.line = new Line({
    url: "ws://hub/studio/ws", first: { token: "slt_x", topic: "demo" },
    on: { state: (state, why) => it.states.push(why ? `${state} ${why.code}` : state), ready: () => { it.ready += 1; } },
    open: (url) => {
      const one = { url, sent: [], readyState: 0, bufferedAmount: 0, send: (what) => one.sent.push(what), close: () => { one.readyState = 3; } };
      it.sockets.push(one);
      return one;
    },
    now: () => it.now, random: () => 0.5,
    later: (task, ms) => { it.timers.set(number += 1, { task, at: it.now + ms }); return number; },
    cancel: (timer) => it.timers.delete(timer),
  });
  it.pass = (ms) => {
    it.now += ms;
    for (const [timer, { task, at }] of [...it.timers]) if (at <= it.now && it.timers.delete(timer)) task();
  };
  it.opened = () => { const one = it.sockets.at(-1); one.readyState = 1; one.onopen(); return one; };
  it.says = (what) => it.sockets.at(-1).onmessage({ data: JSON.stringify(what) });
  it.closes = (code) => it.sockets.at(-1).onclose({ code });
  it.live = () => { it.opened(); it.says({ type: "live", mime: "video/mp4" }); };
  return it;
}

test("a line names its token first, is live when the hub says so, and ends", () => {
  const it = stage();
  it.line.start();
  const one = it.opened();
  assert.deepEqual(one.sent, ['{"token":"slt_x","topic":"demo"}']);
  assert.equal(it.ready, 1);
  it.says({ type: "live", mime: "video/mp4" });
  it.line.send(new Uint8Array(1000));
  it.line.stop();
  assert.equal(one.sent.at(-1), '{"type":"end"}');
  assert.equal(one.readyState, 1, "what is on its way is still sent");
  it.pass(2000);
  assert.equal(one.readyState, 3);
  assert.deepEqual(it.states, ["connecting", "live", "idle"]);
});

test("a line that breaks is made again, later each time, and begins a new stream", () => {
  const it = stage();
  it.line.start();
  it.live();
  it.closes(1006);
  it.pass(400);
  for (let wait = 680; it.sockets.length < 5; wait *= 1.7) {
    const before = it.sockets.length;
    it.closes(1006);
    it.pass(wait - 2);
    assert.equal(it.sockets.length, before, "not yet");
    it.pass(3);
    assert.equal(it.sockets.length, before + 1);
  }
  it.live();
  assert.equal(it.ready, 2);
  it.closes(1001);
  it.line.hurry();
  assert.equal(it.sockets.length, 6, "there is a network again");
  assert.deepEqual(it.states.slice(0, 3), ["connecting", "live", "waiting cut"]);
});

test("a refusal for good ends it, one that passes does not", () => {
  for (const [code, close, state] of [["token_revoked", 1008, "refused"], ["too_large", 1009, "refused"], ["full", 1013, "waiting"], ["already_live", 1013, "waiting"], ["ending", 1001, "waiting"]]) {
    const it = stage();
    it.line.start();
    it.opened();
    it.says({ type: "error", status: 400, code, detail: "why" });
    it.closes(close);
    assert.equal(it.states.at(-1), `${state} ${code}`);
    it.pass(60_000);
    assert.equal(it.sockets.length, state === "waiting" ? 2 : 1, code);
  }
});

test("a topic that somebody else has taken is not taken back", () => {
  const it = stage();
  it.line.start();
  it.live();
  it.says({ type: "error", status: 409, code: "already_live", detail: "why" });
  it.closes(1013);
  assert.equal(it.states.at(-1), "refused taken_over");
});

test("what the hub has not taken counts as behind, and its silence as a broken line", () => {
  const it = stage();
  it.line.start();
  it.live();
  it.line.send(new Uint8Array(1000));
  it.pass(1000);
  it.line.send(new Uint8Array(1000));
  assert.equal(it.line.behind, 0.5, "beyond the usual");
  it.sockets[0].bufferedAmount = 1500;
  assert.equal(it.line.behind, 1, "in the browser, all of it counts");
  it.says({ type: "got", bytes: 1000 });
  it.sockets[0].bufferedAmount = 1000;
  assert.equal(it.line.behind, 0);
  it.pass(400);
  assert.equal(it.line.behind, 0.4);
  it.pass(6600);
  it.line.look();
  assert.equal(it.line.state, "live");
  it.pass(2000);
  // Nothing is sent any more: all groups are dropped while the hub is this far behind.
  it.line.look();
  assert.equal(it.states.at(-1), "waiting silent");
});

test("a quiet line is not a dead one, and an attempt that is under way is not begun again", () => {
  const it = stage();
  it.line.start();
  it.live();
  it.line.send(new Uint8Array(10));
  it.says({ type: "got", bytes: 10 });
  it.pass(60_000);
  it.line.look();
  assert.equal(it.line.state, "live");
  it.sockets[0].onclose({ code: 1006 });
  it.pass(10_000);
  const { length } = it.sockets;
  assert.ok(length > 1 && it.line.state === "waiting");
  it.line.hurry();
  assert.equal(it.sockets.length, length);
});

test("once it is late, the line's speed says how late it will be", () => {
  const it = stage();
  it.line.start();
  it.live();
  for (let n = 1; n <= 10; n += 1) {
    it.line.send(new Uint8Array(50_000));
    it.pass(100);
    if (n % 2 === 0) it.says({ type: "got", bytes: n * 5_000 });
  }
  // 5 000 bytes each 100 ms were taken, 450 000 are on their way.
  assert.equal(it.line.speed, 400_000);
  assert.equal(it.line.behind, 8.5);
  it.says({ type: "got", bytes: 490_000 });
  assert.equal(it.line.behind, 0, "a burst on a line that is fast is not late");
});

test("one that never opens is given up, and a renewed one begins soon", () => {
  const it = stage();
  it.line.start();
  it.pass(10_000);
  assert.equal(it.states.at(-1), "waiting unreachable");
  it.pass(400);
  it.live();
  it.line.renew();
  assert.equal(it.sockets[1].sent.at(-1), '{"type":"end"}');
  it.pass(150);
  assert.equal(it.sockets.length, 3);
});

test("every text is there in both languages, and each code of the hub has one", () => {
  const [english, chinese] = [words("en-GB"), words("zh-CN")];
  const names = (all) => Object.entries(all).map(([name, value]) => (typeof value === "object" ? `${name}: ${Object.keys(value)}` : name));
  assert.deepEqual(names(english), names(chinese));
  const html = text("studio.html");
  for (const [, name] of html.matchAll(/data-i18n(?:-label)?="(\w+)"/g)) assert.equal(typeof english[name], "string", name);
  for (const code of ["unknown_key", "token_revoked", "outside_prefix", "topic_ended", "already_live", "full", "invalid_media", "too_slow", "engine_unavailable", "busy", "ending", "too_large"]) {
    assert.ok(english.problems[code], code);
  }
  assert.deepEqual(explained(english, { code: "token_revoked", reason: "bye" }), { text: "This link was taken back. (bye)", help: "Ask whoever sent it for a new one." });
  assert.deepEqual(explained(english, { code: "new_code", detail: "the hub's own words" }), { text: "the hub's own words", help: "" });
});

/** When a track's samples of a fragment begin and end, in units of its timescale: a default-base-is-moof `traf` of mediabunny. */
function times(traf) {
  const [head, time, run] = boxes(traf).map(([, body]) => new DataView(body.buffer, body.byteOffset, body.byteLength));
  const has = run.getUint32(0) & 0xffffff;
  const each = [0x100, 0x200, 0x400, 0x800].filter((bit) => has & bit).length * 4;
  let at = 8 + (has & 1 ? 4 : 0) + (has & 4 ? 4 : 0);
  const start = time.getUint8(0) ? Number(time.getBigUint64(4)) : time.getUint32(4);
  let end = start;
  const usual = head.getUint32(0) & 8 ? head.getUint32(8) : 0;
  for (let n = run.getUint32(4); n > 0; n -= 1, at += each) end += has & 0x100 ? run.getUint32(at) : usual;
  return { track: head.getUint32(4), start, end };
}

/** The boxes of bytes, as [kind, body]. */
function boxes(bytes) {
  const found = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    const size = view.getUint32(at);
    found.push([String.fromCharCode(...bytes.subarray(at + 4, at + 8)), bytes.subarray(at + 8, at + size)]);
    at += size;
  }
  return found;
}

const VP9 = { decoderConfig: { codec: "vp09.00.31.08", codedWidth: 640, codedHeight: 360 } };
const OPUS = { decoderConfig: { codec: "opus", sampleRate: 48_000, numberOfChannels: 2, description: Uint8Array.of(...new TextEncoder().encode("OpusHead"), 1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0) } };

test("the muxer ends a fragment each 100 ms and before each keyframe", async () => {
  const out = [];
  const muxer = new Muxer({ video: "vp9", audio: "opus", emit: (bytes, startsGroup) => out.push([bytes, startsGroup]) });
  const pieces = [];
  for (let n = 0; n < 90; n += 1) pieces.push({ kind: "video", data: new Uint8Array(200), isKey: n % 30 === 0, at: n * 33_333, meta: VP9 });
  for (let n = 0; n < 150; n += 1) pieces.push({ kind: "audio", data: new Uint8Array(50), isKey: true, at: n * 20_000, meta: OPUS });
  pieces.sort((one, other) => one.at - other.at);
  for (const piece of pieces) muxer.add(piece);
  muxer.add({ ...pieces[0], at: 5 }); // back in time: dropped
  muxer.flush();
  await muxer.settled();
  const [header, ...fragments] = out;
  assert.deepEqual(boxes(header[0]).map(([kind]) => kind), ["ftyp", "moov"]);
  assert.equal(header[1], false);
  assert.ok(fragments.length >= 30 && fragments.length <= 36, `${fragments.length} fragments of ${FRAGMENT} us in 3 s`);
  assert.equal(fragments.filter(([, startsGroup]) => startsGroup).length, 3);
  assert.equal(fragments[0][1], true);
  for (const [bytes] of fragments) {
    assert.deepEqual(boxes(bytes).map(([kind]) => kind), ["moof", "mdat"]);
    const tracks = boxes(boxes(bytes)[0][1]).filter(([kind]) => kind === "traf");
    assert.ok(tracks.length <= 2);
    // default-base-is-moof: the hub refuses offsets into a file.
    for (const [, traf] of tracks) assert.equal(boxes(traf)[0][1][1] & 2, 2);
  }
});

test("the muxer's header names both tracks, whichever comes first", async () => {
  for (const late of ["video", "audio"]) {
    const out = [];
    const muxer = new Muxer({ video: "vp9", audio: "opus", emit: (bytes) => out.push(bytes) });
    const piece = { video: { kind: "video", data: new Uint8Array(200), isKey: true, meta: VP9 }, audio: { kind: "audio", data: new Uint8Array(50), isKey: true, meta: OPUS } };
    const early = late === "video" ? "audio" : "video";
    muxer.add({ ...piece[late], at: -1 }); // from before the beginning: dropped
    for (let n = 0; n < 8; n += 1) muxer.add({ ...piece[early], at: n * 50_000 });
    muxer.add({ ...piece[late], at: 380_000 });
    muxer.add({ ...piece[late], at: 390_000 });
    muxer.flush();
    await muxer.settled();
    const [header, first] = out;
    assert.equal(boxes(boxes(header)[1][1]).filter(([kind]) => kind === "trak").length, 2, late);
    assert.equal(boxes(first)[0][0], "moof");
  }
});

test("the muxer leaves no gap between fragments, however unevenly pictures and sound come", async () => {
  const ends = {};
  let [count, worst] = [0, 0];
  const emit = (bytes) => {
    for (const [kind, body] of boxes(boxes(bytes)[0][1])) {
      if (kind !== "traf") continue;
      const { track, start, end } = times(body);
      if (track in ends) worst = Math.max(worst, Math.abs(start - ends[track]));
      ends[track] = end;
      count += 1;
    }
  };
  const muxer = new Muxer({ video: "vp9", audio: "opus", emit });
  let [at, sound] = [0, 0];
  for (let n = 0; n < 200; n += 1) {
    at += n % 13 === 0 ? 400_000 : 20_000 + 7_001 * (n % 5);
    for (; sound < at; sound += n === 50 ? 90_000 : 20_000) muxer.add({ kind: "audio", data: new Uint8Array(50), isKey: true, at: sound, meta: OPUS });
    muxer.add({ kind: "video", data: new Uint8Array(200), isKey: n % 30 === 0, at, meta: VP9 });
  }
  muxer.flush();
  await muxer.settled();
  assert.ok(count > 100, `${count} runs`);
  assert.ok(worst <= 2, `a gap of ${worst} units`);
});

test("the muxer says what it can't take", async () => {
  const muxer = new Muxer({ video: "avc", emit: () => {} });
  for (const at of [0, 10]) muxer.add({ kind: "video", data: new Uint8Array(9), isKey: true, at, meta: undefined });
  await assert.rejects(muxer.settled());
});

test("mediabunny is the one that muxing.js is written for, with its licence", () => {
  const bundle = text("vendor/mediabunny.js");
  assert.equal(createHash("sha256").update(bundle).digest("hex"), "4a4861f814e87c63e6782b1de6f28c068cdeb17f40579607bf27f206356dd0e3");
  assert.ok(bundle.includes("forceFragmentFinalization") && bundle.includes("Mozilla Public"));
  assert.match(text("vendor/LICENSE"), /^Mozilla Public License Version 2\.0/);
  assert.match(text("vendor/README.md"), /mediabunny@1\.61\.0 esbuild@0\.28\.2/);
});
