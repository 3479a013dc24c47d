/** links.test.mjs: a denied link says why, in the viewer's language; the manual's five lines work on another site. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { part, VIDEO } from "./business.mjs";
import { fragment, picture, PICTURE_MIME } from "./clip.mjs";
import { scene, sleep } from "./stage.mjs";

const ROOT = new URL("../../", import.meta.url);

scene("a denied link says why, in Chinese and in English, and can be tried again", async (stage) => {
  const business = await stage.business();
  business.deny("gone", "这个链接已过期 <b>expired</b>");
  const relay = await stage.relay(business);
  const browser = await stage.browser();
  const address = `${relay.origin}/s/gone`;
  const [english, chinese] = await Promise.all([stage.tab(browser, address), stage.tab(browser, address, { locale: "zh-CN" })]);
  const shown = { en: [english, "This link can’t be opened", "Try again"], "zh-Hans": [chinese, "无法打开这个链接", "重试"] };
  for (const [language, [tab, heading, button]] of Object.entries(shown)) {
    await tab.until("the page says that the link is denied", () => document.querySelector("#denied").checkVisibility());
    assert.equal(await tab.run(() => document.documentElement.lang), language);
    assert.equal(await tab.text("#denied-title"), heading);
    assert.equal(await tab.run(() => document.title), heading);
    assert.equal(await tab.text("#denied-reason"), "这个链接已过期 <b>expired</b>");
    assert.equal(await tab.text("#again"), button);
    assert.ok(!(await tab.shown("#room")));
  }
  business.room("gone", { title: "It opened" });
  await sleep(2200); // the relay remembers a denial for 2 s
  await chinese.tap("#again");
  await chinese.live();
  assert.equal(await chinese.text("#title"), "It opened");
  assert.equal(await chinese.text("#connection"), "直播中");
});

/** A fake relay: calls `answer` with each socket and each frame of its page. */
const relayOf = (sockets, answer) => (page) => page.routeWebSocket(/\/ws$/, (socket) => {
  sockets.push(socket);
  socket.onMessage((text) => answer(socket, JSON.parse(text), sockets.length));
});

scene("a denied link stays denied when the relay closes the page, and is not requested again", async (stage) => {
  const business = await stage.business();
  const relay = await stage.relay(business);
  const sockets = [];
  let denies = true;
  const gone = new Promise((resolve) => { relay.gone = resolve; });
  const answer = (socket, { type, id }) => {
    if (type !== "subscribe") return;
    if (!denies) return socket.send(JSON.stringify({ type: "subscribed", id, topic: 7, epoch: "7", page_messages: false }));
    socket.onClose(relay.gone);
    socket.send(JSON.stringify({ type: "denied", id, reason: "expired" }));
    socket.close({ code: 1008, reason: "subscribe to something" });
  };
  const tab = await stage.tab(await stage.browser(), `${relay.origin}/s/room`, { prepare: relayOf(sockets, answer) });
  await tab.until("the page says that the link is denied", () => document.querySelector("#denied").checkVisibility());
  await tab.until("there is no connection", () => document.documentElement.dataset.state === "idle");
  assert.deepEqual([await tab.text("#denied-reason"), await tab.run(() => document.documentElement.dataset.room)], ["expired", "denied"]);
  for (const type of ["online", "pageshow"]) await tab.run((name) => window.dispatchEvent(new Event(name)), type);
  assert.equal(sockets.length, 1);
  denies = false;
  await tab.tap("#again");
  await tab.until("the room is live", () => document.documentElement.dataset.room === "live" && !document.querySelector("#denied").checkVisibility());
  assert.equal(sockets.length, 2);
});

scene("a page with a `retry` says so, retries then, and never shows a denial", async (stage) => {
  const business = await stage.business();
  const relay = await stage.relay(business);
  const sockets = [];
  const answer = (socket, { id }, count) => {
    if (count > 1) return socket.send(JSON.stringify({ type: "subscribed", id, topic: 7, epoch: "7", page_messages: false }));
    socket.send(JSON.stringify({ type: "denied", id, reason: "busy", retry: 2 }));
    return socket.close({ code: 1013, reason: "retry=2" });
  };
  const watch = () => document.addEventListener("DOMContentLoaded", () => {
    const seen = (window.seen = []);
    const look = () => seen.push(document.querySelector("#connection-text").textContent, document.querySelector("#denied").hidden);
    new MutationObserver(look).observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
  });
  const tab = await stage.tab(await stage.browser(), `${relay.origin}/s/room`, { before: watch, prepare: relayOf(sockets, answer) });
  await tab.until("the page says that it comes back", () => ["Reconnecting…", "Trying again soon…"].includes(document.querySelector("#connection-text").textContent));
  await tab.until("the room is live", () => document.documentElement.dataset.room === "live");
  assert.equal(sockets.length, 2);
  const seen = await tab.run(() => [...new Set(window.seen)]);
  assert.ok(!seen.includes(false), `it was called denied: ${seen}`);
});
scene("a link pasted in another spelling shows the same room", async (stage) => {
  const business = await stage.business();
  business.room("room~7", { title: "The same" });
  const relay = await stage.relay(business);
  const browser = await stage.browser();
  for (const spelled of ["room~7/", "room%7E7", "r%6Fom%7e7/?from=chat"]) {
    const tab = await stage.tab(browser, `${relay.origin}/s/${spelled}`);
    await tab.live();
    assert.equal(await tab.text("#title"), "The same", spelled);
  }
});


scene("the manual's five lines work on another site, where its origin is allowed", async (stage) => {
  const manual = readFileSync(new URL("docs/page-client.md", ROOT), "utf8");
  const [, lines] = /^## Five lines\n+```html\n([^]+?)```/m.exec(manual);
  assert.ok(lines.includes("https://relay.example"));
  const business = await stage.business();
  const room = business.room("demo");
  let relay = null; // its configuration names the sites, and their pages name it
  const serve = () => stage.site(() => lines.replaceAll("https://relay.example", relay.origin));
  const [friend, stranger] = [await serve(), await serve()];
  relay = await stage.relay(business, { origins: [friend] });

  const browser = await stage.browser();
  const tab = await stage.tab(browser, friend);
  room.say("<b>seen</b> elsewhere");
  await tab.until("the message", () => document.querySelector("#messages").innerText.includes("<b>seen</b> elsewhere"));
  assert.equal(await tab.run(() => document.querySelectorAll("#messages li b").length), 0);

  room.publish(VIDEO, part.init(PICTURE_MIME), picture.init);
  for (let chunk = 0; chunk < 3; chunk += 1) room.publish(VIDEO, chunk === 0 ? part.start : part.continue, fragment(picture, 6 * chunk, 6 * chunk + 6));
  const { width, muted } = await tab.plays("#video");
  assert.ok(width > 0);
  console.log(`  the picture plays on the other site, ${width} px wide, ${muted ? "muted" : "not muted"}`);

  // The module may be loaded from anywhere; the connection is refused with 403.
  const refused = await stage.tab(browser, stranger, { tolerated: /WebSocket connection to .* failed: .*403/ });
  await sleep(1500);
  assert.ok(refused.complaints.length > 0, "a site that is not allowed was connected");
  assert.equal(await refused.run(() => document.querySelector("#messages").childElementCount), 0);
});
