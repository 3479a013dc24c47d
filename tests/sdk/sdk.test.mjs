// The Node library against a real hub, through the gate of world.py.
//
// Run in a folder where the library is installed from its tarball.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { inspect } from "node:util";

import { Hub, HubError, Topic, webhooks } from "@sharelinkd/server";

const { HUB_URL, HUB_KEY, GATE_URL, CLOSED_URL, VECTORS } = process.env;
const real = new Hub({ url: HUB_URL, key: HUB_KEY });
const hub = new Hub({ url: GATE_URL, key: HUB_KEY });
let topics = 0;
const room = (through = hub) => through.topic(`node/room-${++topics}`);

async function gate(...plan) {
  const response = await fetch(`${GATE_URL}/gate`, { method: "PUT", body: JSON.stringify(plan) });
  assert.equal(response.status, 200);
}
const seen = async () => (await (await fetch(`${GATE_URL}/gate`)).json()).seen;
const texts = async (topic) => (await real.topic(topic.name).messages()).messages.map(({ data }) => data.text);
const fails = async (call) => {
  const error = await call.then(() => assert.fail("it did not fail"), (error) => error);
  assert(error instanceof HubError, inspect(error));
  return error;
};
const busy = JSON.stringify({ type: "about:blank", title: "Too Many Requests", status: 429, detail: "send it again", code: "busy" });
const away = busy.replace("busy", "engine_unavailable").replace("429", "503");

test("each method does what the API says", async () => {
  const shoes = room();
  const first = await shoes.say("Grüße 👋", { from: "Ann", avatar: "https://a.example/a.png", author: "00ff00ff00ff00ff" });
  assert.deepEqual([first.sequence, typeof first.epoch], [1, "string"]);
  assert.equal((await shoes.message({ kind: "notice", text: "two" }, { durable: true })).durable, false);
  await shoes.message(null);
  assert.deepEqual(await shoes.messages({ since: 1, limit: 1 }), {
    epoch: first.epoch,
    messages: [{ sequence: 1, data: { text: "Grüße 👋", from: "Ann", avatar: "https://a.example/a.png", author: "00ff00ff00ff00ff" } }],
    next: 2,
  });
  assert.equal((await shoes.messages({ since: 3 })).messages[0].data, null);
  assert.equal((await shoes.takeDown(1)).sequence, 4);
  assert.deepEqual((await shoes.messages({ limit: 1 })).messages[0].data, { kind: "removed", sequence: 1 });

  assert.equal(await shoes.state(), null);
  await shoes.setState({ title: "One", host: { name: "Ann", age: 7 } }, { ifMatch: 0 });
  const stale = await fails(shoes.setState({}, { ifMatch: 0 }));
  assert.deepEqual([stale.status, stale.code, stale.problem.sequence], [412, "state_changed", 1]);
  await shoes.updateState({ host: { age: null, ["__proto__"]: 1 }, cover: "c" });
  assert.deepEqual((await shoes.state()).data, { title: "One", host: { name: "Ann", ["__proto__"]: 1 }, cover: "c" });
  let turns = 0;
  await shoes.updateState(async (old) => {
    if (++turns === 1) await shoes.setState({ count: 1 });
    return { count: (old.count ?? 0) + 1 };
  });
  assert.deepEqual([turns, (await shoes.state()).data], [2, { count: 2 }]);

  const info = await shoes.info();
  assert.deepEqual([info.topic, info.ended, info.messages, info.audience.pages], [shoes.name, null, { first: 1, next: 5 }, 0]);
  await shoes.end("See you.");
  const ended = await fails(shoes.say("x"));
  assert.deepEqual([ended.code, ended.problem.reason, ended.isUnknown], ["topic_ended", "See you.", false]);
  assert.equal(await shoes.takeDown(2), null);
  await shoes.open();
  assert.equal((await shoes.info()).ended, null);

  const plain = hub.topic(`node-${++topics}`);
  const { link, url, end } = await plain.link({ ttl: 60, shared: false, pageMessages: true, replay: 3 });
  assert.deepEqual([link, new URL(url).pathname, end], [plain.name, `/s/${link}`, null]);
  const { token } = await plain.ingestToken({ ttl: 60 });
  assert((await hub.revoke({ token, reason: "enough" })).ttl_s <= 60);
  assert.equal((await hub.revoke({ link, ttl: 9 })).ttl_s, 9);

  const [one, two] = [room(), room()];
  const results = await hub.publish({ topics: [one.name, two.name], message: { text: "all" } });
  assert.deepEqual(results.map(({ topic, status, sequence }) => [topic, status, sequence]), [[one.name, 200, 1], [two.name, 200, 1]]);
  await hub.publish({ topics: [one.name], state: 7 });
  assert.equal((await one.state()).data, 7);
  const done = await hub.batch([
    { op: "message", topic: one.name, data: { text: "b" } },
    { op: "state", topic: one.name, data: 8, if_match: 1 },
    { op: "remove", topic: one.name, sequence: 77 },
    { op: "end", topic: two.name, reason: "over" },
    { op: "open", topic: two.name },
  ]);
  assert.deepEqual(done.map(({ status }) => status), [200, 200, 404, 204, 204]);
  assert.equal(done[2].problem.code, "not_found");
  assert.deepEqual(await texts(one), ["all", "b"]);

  const listed = await hub.topics({ below: "node", limit: 1 });
  assert.equal(listed.topics.length, 1);
  assert((await hub.topics({ below: "node", cursor: listed.cursor })).topics.length > 1);
  const { relays, engine } = await hub.fleet();
  assert.deepEqual([relays[0].name, engine], ["dev", { kind: "memory", up: true }]);
  await hub.kick(`${relays[0].connection}.7@dev`, "Please be kind.");
  assert.equal((await fails(hub.kick("999.7@dev"))).code, "not_found");
  assert.deepEqual(await hub.health(), { status: "ok" });
});

test("what was sent twice is published once", async () => {
  for (const [step, least] of [
    [{ do: "drop" }, 0],
    [{ do: "cut" }, 0],
    [{ do: "refuse", status: 503, headers: { "Retry-After": "1" } }, 1],
    [{ do: "spoil", status: 503, headers: { "Retry-After": "1", "Content-Type": "application/problem+json" }, body: away }, 1],
    [{ do: "refuse", status: 429, body: busy }, 0],
    [{ do: "refuse", status: 408 }, 0],
    [{ do: "spoil", status: 502, body: "<html>Bad Gateway</html>" }, 0],
    [{ do: "spoil", status: 500 }, 0],
    [{ do: "hang" }, 0],
  ]) {
    const topic = room(new Hub({ url: GATE_URL, key: HUB_KEY, timeout: step.do === "hang" ? 1 : 60, retries: 20 }));
    await gate(step);
    const published = await topic.say("once");
    const sent = await seen();
    const what = JSON.stringify(step);
    assert.equal(published.sequence, 1, what);
    assert.equal(published.repeated ?? false, step.do !== "refuse", what);
    assert(sent.length >= 2, what);
    assert.deepEqual(new Set(sent.map(({ key }) => key)).size, 1, what);
    assert.match(sent[0].key, /^[0-9a-f-]{36}$/);
    assert(sent[1].at - sent[0].at >= least, `${what}: not after Retry-After`);
    assert.deepEqual(await texts(topic), ["once"], what);
  }
  const topic = room();
  await topic.say("a");
  await topic.say("a");
  assert.deepEqual(await texts(topic), ["a", "a"], "two calls are two messages");
});

test("every write can be sent again", async () => {
  const topic = room();
  await gate({ do: "drop" });
  assert.equal((await topic.setState(1, { ifMatch: 0 })).repeated, true, "the first has set it, so it is not state_changed");
  const other = room();
  await gate({ do: "drop" });
  const results = await hub.publish({ topics: [topic.name, other.name], message: { text: "p" } });
  assert.deepEqual(results.map(({ repeated }) => repeated), [true, true]);
  await gate({ do: "drop" });
  await hub.batch([{ op: "message", topic: topic.name, data: { text: "b" } }, { op: "message", topic: topic.name, data: { text: "b" } }]);
  assert.deepEqual([await texts(topic), await texts(other)], [["p", "b", "b"], ["p"]]);
  for (const call of [
    () => topic.takeDown(1),
    () => topic.end(),
    () => topic.open(),
    () => topic.ingestToken(),
    () => hub.revoke({ link: "a-link-of-nobody" }),
    () => hub.topics(),
  ]) {
    await gate({ do: "drop" });
    await call();
    assert.equal((await seen()).length, 2, String(call));
  }
  const partial = { results: [{ topic: topic.name, status: 200 }, { topic: other.name, status: 503 }] };
  await gate({ do: "spoil", status: 200, body: JSON.stringify(partial) });
  const again = await hub.publish({ topics: [topic.name, other.name], state: 2 });
  assert.deepEqual(again.map(({ status, repeated }) => [status, repeated]), [[200, true], [200, true]]);
  // The hub goes away after the first half: what was done is still told.
  await gate({ do: "spoil", status: 200, body: JSON.stringify(partial) }, ...Array(2).fill({ do: "refuse", status: 503 }));
  const half = await new Hub({ url: GATE_URL, key: HUB_KEY, retries: 2 }).publish({ topics: [topic.name, other.name], state: 3 });
  assert.deepEqual(half.map(({ status }) => status), [200, 503]);
});

test("what may have taken effect is said, and can be sent again by hand", async () => {
  const once = new Hub({ url: GATE_URL, key: HUB_KEY, timeout: 0.3, retries: 0 });
  const topic = room(once);
  await gate({ do: "hang" });
  const error = await fails(topic.say("slow"));
  assert.deepEqual([error.code, error.status, error.isUnknown, error.attempts], ["timeout", null, true, 1]);
  assert.match(error.message, /no answer within 0\.3 s\. It is not known whether it took effect: .* "[0-9a-f-]{36}"/);
  while ((await texts(topic).catch(() => [])).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const again = await real.topic(topic.name).say("slow", { idempotencyKey: error.idempotencyKey });
  assert.deepEqual([again.repeated, await texts(topic)], [true, ["slow"]]);
  const operations = ["a", "b"].map((text) => ({ op: "message", topic: topic.name, data: { text } }));
  await gate({ do: "drop" });
  const batch = await fails(once.batch(operations));
  assert.match(batch.message, /not known whether it took effect: .* "[0-9a-f-]{36}"/);
  const results = await real.batch(operations, { idempotencyKey: batch.idempotencyKey });
  assert.deepEqual([results.map(({ repeated }) => repeated), await texts(topic)], [[true, true], ["slow", "a", "b"]]);
  await gate({ do: "hang" });
  assert.equal((await fails(topic.info())).isUnknown, false, "reading changes nothing");
  await gate({ do: "drop" });
  const lost = await fails(topic.end());
  assert.deepEqual([lost.code, lost.idempotencyKey, lost.isUnknown], ["connection_lost", null, true]);
  assert.match(lost.message, /call again, which does no harm where it did$/);
});

test("retries are bounded", async () => {
  const no = { do: "refuse", status: 503, body: away };
  const thrice = new Hub({ url: GATE_URL, key: HUB_KEY, retries: 2 });
  await gate(no, no, no, no);
  const error = await fails(thrice.topic("a").say("x"));
  assert.deepEqual([(await seen()).length, error.attempts, error.code, error.isUnknown], [3, 3, "engine_unavailable", true]);
  await gate({ do: "refuse", status: 503, headers: { "Retry-After": "3600", "X-Request-Id": "r-1" } });
  const late = await fails(hub.topic("a").say("x"));
  assert.deepEqual([(await seen()).length, late.retryAfter, late.requestId], [1, 3600, "r-1"]);
  const brief = new Hub({ url: GATE_URL, key: HUB_KEY, retries: 20, deadline: 2 });
  await gate(...Array(30).fill({ do: "refuse", status: 429, body: busy }));
  const over = await fails(brief.topic("a").say("x"));
  assert.deepEqual([over.attempts, over.attempts < 20], [(await seen()).length, true]);
  await gate();
});

test("what won't get better is not tried again", async () => {
  for (const status of [400, 401, 403, 404, 409, 412, 413, 415, 422, 501, 507]) {
    await gate({ do: "refuse", status, body: JSON.stringify({ code: "a_code", detail: "a detail", status }) });
    const error = await fails(hub.topic("a").say("x"));
    assert.deepEqual([(await seen()).length, error.status, error.code, error.attempts], [1, status, "a_code", 1]);
  }
  for (const [status, headers, text] of [
    [302, { Location: `${HUB_URL}/healthz` }, "this is a redirect"],
    [200, {}, "this is no answer of a hub"],
    [404, {}, "this is no answer of a hub"],
  ]) {
    await gate({ do: "refuse", status, headers, body: "<html></html>" });
    const error = await fails(hub.topic("a").say("x"));
    assert.deepEqual([(await seen()).length, error.code, error.detail.startsWith(text)], [1, "not_the_hub", true], error.message);
  }
  const closed = await fails(new Hub({ url: CLOSED_URL, key: HUB_KEY, retries: 1 }).topic("a").say("x"));
  assert.deepEqual([closed.code, closed.isUnknown, closed.attempts], ["unreachable", false, 2]);
  assert.match(closed.message, /can't connect to .* \(ECONNREFUSED\): does the hub run there/);
  assert.match((await fails(new Hub({ url: "http://127.0.0.1:6000", key: "k" }).health())).message, /fetch refuses the port/);
  const tls = await fails(new Hub({ url: GATE_URL.replace("http:", "https:"), key: "k", retries: 0 }).health());
  assert.equal(tls.code, "tls", inspect(tls));
});

test("no text has the key", async () => {
  const said = [inspect(hub, { showHidden: true, depth: 9 }), JSON.stringify(hub), inspect(hub.topic("a"), { showHidden: true, depth: 9 }), String(hub)];
  for (const [url, step] of [[GATE_URL, { do: "drop" }], [GATE_URL, { do: "refuse", status: 401 }], [GATE_URL, { do: "hang" }], [CLOSED_URL, { do: "pass" }]]) {
    await gate(step);
    const error = await fails(new Hub({ url, key: HUB_KEY, retries: 0, timeout: 0.3 }).topic("a").say("x"));
    said.push(inspect(error, { showHidden: true, depth: 9 }), error.stack, JSON.stringify(error), inspect(error.cause, { depth: 9 }));
  }
  for (const key of [`${HUB_KEY}\n`, `slt_${HUB_KEY}`, `whsec_${HUB_KEY}`]) {
    assert.throws(() => new Hub({ url: HUB_URL, key }), (error) => said.push(inspect(error)) > 0);
  }
  assert(said.every((text) => !text.includes(HUB_KEY.slice(4))), "a text has the key");
  await gate();
});

test("wrong use is told what is right, and nothing is sent", async () => {
  const given = { url: HUB_URL, key: HUB_KEY };
  for (const [settings, words] of [
    [undefined, /url is undefined; give the API's, as "https:/],
    [{ ...given, url: "hub.example:8090" }, /must begin with http:\/\/ or https:\/\//],
    [{ ...given, url: "http://" }, /can't be read/],
    [{ ...given, url: "http://u:p@h" }, /give the key as the option key/],
    [{ ...given, url: "http://h/?a" }, /leave it out/],
    [{ ...given, url: "http://h/v1/" }, /ends with \/v1; leave that out/],
    [{ ...given, key: undefined }, /key is undefined; make one by `sharelink-hub key`. Is the environment variable set/],
    [{ ...given, key: "" }, /key is empty/],
    [{ ...given, key: 7 }, /must be a string/],
    [{ ...given, key: "a b" }, /trim what was read/],
    [{ ...given, key: "slt_a" }, /a token for picture and sound/],
    [{ ...given, key: "sha256:a" }, /needs the key itself/],
    [{ ...given, retry: 3 }, /no option "retry"; known: url, key, timeout, deadline, retries/],
    [{ ...given, retries: 1.5 }, /must be a whole number/],
    [{ ...given, retries: 21 }, /from 0 to 20/],
    [{ ...given, timeout: 0 }, /number of seconds above 0/],
    [{ ...given, deadline: 300 }, /at most 240/],
  ]) assert.throws(() => new Hub(settings), words);
  for (const name of ["", "a b", "ä", "x".repeat(65), "room?", 7, undefined]) assert.throws(() => hub.topic(name), /1 to 64 of the characters/);
  for (const name of [".", ".."]) assert.throws(() => hub.topic(name), /can't be reached by a URL/);
  assert.throws(() => new Topic(), /hub\.topic/);
  await gate();
  const topic = hub.topic("a");
  const ring = {};
  ring.ring = ring;
  for (const [call, words] of [
    [topic.say(), /text must be a string/],
    [topic.say("x", { form: "Ann" }), /no option "form"; known: from, avatar, author, idempotencyKey, durable/],
    [topic.say("x", "Ann"), /the options are an object/],
    [topic.message(undefined), /undefined is no JSON value/],
    [topic.message(ring), /circular/],
    [topic.message("x".repeat(2 ** 20)), /at most 1048576 bytes of JSON, and this one has 1048578/],
    [topic.message("€".repeat(2 ** 19)), /this one has 1572866/],
    [topic.message(1, { idempotencyKey: "a b" }), /1 to 128 visible ASCII/],
    [topic.takeDown(), /give the message's sequence/],
    [topic.takeDown("1"), /must be a whole number/],
    [topic.takeDown(0), /must be from 1/],
    [topic.updateState(7), /a function/],
    [topic.end(""), /must have 1 to 256/],
    [topic.end("€".repeat(86)), /has 258 bytes/],
    [topic.link({ ttl: "1h" }), /ttl \(in seconds\) is a string/],
    [topic.link({ shared: 1 }), /must be true or false/],
    [hub.publish({ topics: "a", message: 1 }), /an array of 1 to 100/],
    [hub.publish({ topics: ["a", "a"], message: 1 }), /twice/],
    [hub.publish({ topics: ["a"] }), /either message or state/],
    [hub.batch([]), /an array of 1 to 1000/],
    [hub.batch([{ topic: "a" }]), /operation 0 has no op/],
    [hub.revoke({}), /either link or token/],
    [hub.revoke({ link: "https://h/s/a" }), /behind \/s\//],
    [hub.revoke({ token: "a" }), /begins with slt_/],
    [hub.kick("a"), /as "1\.41@hall"/],
    [hub.topics({ limit: 0 }), /from 1 to 1000/],
  ]) await assert.rejects(call, words);
  assert.deepEqual(await seen(), []);
});

test("webhooks are verified as Standard Webhooks says", async () => {
  const { now, calls } = JSON.parse(readFileSync(VECTORS, "utf8"));
  const [example, subscribe, events] = calls;
  const at = { now };
  assert.throws(() => webhooks.verify(example.secrets[0], example.headers, example.body, at), /signature is right, and the body is no call/);
  for (const { secrets, headers, body } of [subscribe, events]) {
    const upper = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toUpperCase(), value]));
    for (const form of [headers, upper, new Headers(headers), new Map(Object.entries(headers))]) {
      for (const bytes of [body, Buffer.from(body), new TextEncoder().encode(body)]) {
        for (const secret of secrets) assert.deepEqual(webhooks.verify(secret, form, bytes, at), JSON.parse(body));
      }
    }
    const [secret] = secrets;
    const stranger = `whsec_${"A".repeat(43)}=`;
    assert.deepEqual(webhooks.verify([stranger, secret], headers, body, at), JSON.parse(body));
    assert.deepEqual(webhooks.verify(secret.slice(6), headers, body, { now: now + 299 }), JSON.parse(body));
    const other = (name, value) => ({ ...headers, [name]: value });
    for (const [secrets, changed, text, options, words] of [
      [secret, headers, `${body} `, at, /no signature matches/],
      [secret, headers, body.replace("room", "moor").replace("a-link", "b-link"), at, /no signature matches/],
      [secret, other("webhook-id", "call_3"), body, at, /no signature matches/],
      [secret, other("webhook-timestamp", String(now + 1)), body, at, /no signature matches/],
      [secret, other("webhook-signature", "v1,AAAA"), body, at, /no signature matches/],
      [secret, other("webhook-signature", headers["webhook-signature"].replaceAll("v1,", "v1a,")), body, at, /no signature matches/],
      [secret, other("webhook-signature", undefined), body, at, /no header webhook-signature/],
      [secret, other("webhook-timestamp", "soon"), body, at, /no time in seconds/],
      [[stranger], headers, body, at, /no signature matches/],
      [secret, headers, body, { now: now + 301 }, /301 s old, and may be 300: set the clocks/],
      [secret, headers, body, { now: now - 301 }, /301 s ahead/],
      [secret, headers, body, undefined, / s old/],
    ]) {
      assert.throws(() => webhooks.verify(secrets, changed, text, options), (error) => {
        assert.match(error.message, words);
        assert(!inspect(error).includes(secret.slice(8)));
        return error instanceof webhooks.WebhookError && error.status === 401;
      });
    }
  }
  const { secrets: [secret], headers, body } = subscribe;
  for (const [secrets, given, words] of [
    [secret, JSON.parse(body), /the body is an object, and must be the bytes as they came.*express\.raw/],
    [secret, undefined, /the body is undefined/],
    [undefined, body, /the secret is undefined; give the text/],
    [[], body, /there is no secret/],
    ["whsec_!", body, /can't be read/],
    ["slk_key", body, /can't be read/],
  ]) assert.throws(() => webhooks.verify(secrets, headers, given, at), words);
  assert.deepEqual(webhooks.accept({ topic: "a/b", ttl: 60, shared: false, pageMessages: true, replay: 9 }), {
    accept: true, topic: "a/b", shared: false, ttl_s: 60, replay: 9, page_messages: true,
  });
  assert.deepEqual(webhooks.accept({ topic: "a" }), { accept: true, topic: "a" });
  assert.deepEqual(webhooks.deny("over"), { accept: false, reason: "over" });
  assert.throws(() => webhooks.accept({ topic: "a", page_messages: true }), /no option "page_messages"; known: .*pageMessages/);
  assert.throws(() => webhooks.accept({ topic: "a", ttl: 86401 }), /from 1 to 86400/);
});

test("CommonJS can require it", { skip: !process.features.require_module && "this Node can't require ES modules" }, () => {
  assert.equal(createRequire(import.meta.url)("@sharelinkd/server").Hub, Hub);
});
