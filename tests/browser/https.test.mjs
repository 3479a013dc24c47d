/** https.test.mjs: a relay that ends TLS itself, in a real browser: what is shown, what is sent, and how often hands are shaken. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { scene, sleep } from "./stage.mjs";

const FULL_MAX = 2; // full handshakes of a first view: the page and its parts, beside each other
const [HELLO, SERVER_HELLO, PRE_SHARED_KEY] = [1, 2, 41];

/**
 * A line to `port` that sees the handshakes which pass: for each connection, whether the relay resumed a session, or null
 * until it has answered. Resolves to its port and `hands`.
 */
async function watched(port) {
  const [hands, ends] = [[], []];
  const server = createServer((socket) => {
    const [relay, index] = [connect(port, "127.0.0.1"), hands.push(null) - 1];
    ends.push(socket, relay);
    let answer = Buffer.alloc(0);
    relay.on("data", (data) => {
      if (hands[index] !== null) return;
      answer = Buffer.concat([answer, data]);
      if (answer.length > 5 && answer.length >= 5 + answer.readUInt16BE(3)) hands[index] = isResumed(answer.subarray(5));
    });
    for (const end of [socket, relay]) end.on("error", () => { socket.destroy(); relay.destroy(); });
    socket.pipe(relay).pipe(socket);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: server.address().port, hands, close: () => { server.close(); for (const end of ends) end.destroy(); } };
}

/** Whether a ServerHello of TLS 1.3 takes the client's pre-shared key (RFC 8446, 4.1.3 and 4.2.11). */
function isResumed(message) {
  assert.equal(message[0], SERVER_HELLO);
  let at = 4 + 2 + 32;
  at += 1 + message[at] + 2 + 1; // session id, suite, compression
  const end = at + 2 + message.readUInt16BE(at);
  for (at += 2; at < end; at += 4 + message.readUInt16BE(at + 2)) if (message.readUInt16BE(at) === PRE_SHARED_KEY) return true;
  return false;
}

scene("a share page by https: is live, says so, sends and survives its relay, without an error on its console", async (stage) => {
  const business = await stage.business();
  const room = business.room("room");
  room.listens = true;
  room.say("one");
  const relay = await stage.relay(business, { isSecure: true });
  assert.match(relay.origin, /^https:/);
  const tab = await stage.tab(await stage.browser(), `${relay.origin}/s/room`, { tolerated: /WebSocket connection to .* failed/ });
  await tab.live();
  await tab.until("the message", () => document.querySelector("#messages .message .text")?.textContent === "one");
  assert.equal(await tab.run(() => window.isSecureContext), true, "a camera could not be used");
  const seen = once(tab.session, "Security.visibleSecurityStateChanged");
  await tab.session.send("Security.enable");
  const [{ visibleSecurityState: { securityState } }] = await seen;
  assert.equal(securityState, "secure");
  const sockets = await tab.run(() => performance.getEntriesByType("resource").map(({ name, nextHopProtocol }) => [new URL(name).pathname, nextHopProtocol]));
  assert.ok(sockets.length >= 3 && sockets.every(([, protocol]) => protocol === "http/1.1"), JSON.stringify(sockets));

  // Messages of all sizes, many at once: records and frames are cut at other places each time.
  const texts = Array.from({ length: 150 }, (_, index) => `${index}:${"·".repeat((index * 37) % 900)}`);
  for (const text of texts) room.say(text);
  await tab.until("the last of many", (last) => document.querySelector("#messages .message:last-child .text")?.textContent === last, texts.at(-1));
  assert.deepEqual((await tab.messages()).slice(-150), texts.map((text, index) => [index + 2, text]));
  assert.deepEqual(await tab.gaps(), []);

  await relay.kill();
  await tab.until("the page says that it reconnects", () => document.querySelector("#connection-text").textContent === "Reconnecting…");
  room.say("while away");
  await relay.start();
  await tab.live();
  await tab.until("what was said meanwhile", () => document.querySelector("#messages").innerText.includes("while away"));
  assert.deepEqual(await tab.gaps(), []);
});

scene("a first view shakes hands in full at most twice, and a second one resumes", async (stage) => {
  const business = await stage.business();
  business.room("room").say("one");
  const relay = await stage.relay(business, { isSecure: true });
  const line = await watched(relay.port);
  try {
    const browser = await stage.browser();
    const count = () => ({ full: line.hands.filter((resumed) => resumed === false).length, resumed: line.hands.filter(Boolean).length });
    const tab = await stage.tab(browser, `https://127.0.0.1:${line.port}/s/room`);
    await tab.live();
    await sleep(500);
    const first = count();
    await tab.page.reload();
    await tab.live();
    const second = count();
    console.log(`  first view: ${first.full} full, ${first.resumed} resumed; a reload: ${second.full - first.full} full, ${second.resumed - first.resumed} resumed`);
    assert.ok(first.full >= 1 && first.full <= FULL_MAX, `${first.full} full handshakes`);
    assert.equal(second.full, first.full, "a reload shook hands in full");
  } finally {
    line.close();
  }
});
