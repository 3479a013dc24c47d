/**
 * sending.test.mjs: what a viewer types on the share page: pending, sent, failed or not sure, never lost and never doubled;
 * and own messages are marked, also after the relay lost its business server. stalled.test.mjs has the outages of the line,
 * silence.test.mjs the promises of `send()`.
 */

import assert from "node:assert/strict";
import { scene, sleep } from "./stage.mjs";

/** A room that publishes what pages send, and names its author. */
async function setUp(stage, { receipts = true, lines = [], locale = "en-US" } = {}) {
  const business = await stage.business({ receipts });
  const room = business.room("room");
  room.listens = true;
  room.heard = ({ text, author }) => room.tell({ from: "Viewer", text, author, at: Date.now() });
  room.say("hello");
  const relay = await stage.relay(business, { lines });
  const line = await stage.line(relay.origin);
  const browser = await stage.browser();
  const enter = async () => {
    const tab = await stage.tab(browser, `${line.origin}/s/room`, { locale, tolerated: /WebSocket connection to .* failed/ });
    await tab.live();
    return tab;
  };
  return { business, room, relay, line, enter, tab: await enter() };
}

/** Runs in the page: the lines that are shown as not sent, or whether they are the `wanted`. */
const outbox = (wanted) => {
  const lines = [...document.querySelectorAll("#outbox .outgoing")].filter((line) => line.checkVisibility());
  const shown = lines.map((line) => `${line.dataset.state}: ${line.querySelector(".text").textContent}`).join();
  return wanted === undefined ? shown : shown === wanted;
};
const shows = (tab, wanted) => tab.until(`the outbox shows "${wanted}"`, outbox, wanted);
const lists = (tab, wanted) => tab.until(`the message "${wanted}"`, (expected) => [...document.querySelectorAll("#messages .message .text")]
  .some(({ textContent }) => textContent === expected), wanted);
const isGone = (tab) => tab.until("nothing is left in the outbox", () => !document.querySelector("#outbox").firstChild && !document.querySelector("#outbox").checkVisibility());
const own = (tab) => tab.run(() => [...document.querySelectorAll("#messages .own .text")].map(({ textContent }) => textContent));
const heard = (business, wanted) => business.heard.filter(({ text }) => text === wanted).length;
/** A real key on a button of the outbox, by its words. */
async function press(tab, words) {
  await tab.run((wanted) => [...document.querySelectorAll("#outbox button")].find((button) => button.textContent === wanted).focus(), words);
  await tab.page.keyboard.press("Enter");
}

scene("a message is pending until the business server has it, and is marked as one's own", async (stage) => {
  const { business, room, tab, enter } = await setUp(stage);
  const other = await enter();
  business.isMute = true;
  // Published, though its receipt is kept back: it is shown once.
  await tab.run(() => {
    [window.shown, window.began, window.took] = [0, 0, 0];
    const look = () => { window.shown += !document.querySelector("#outbox").hidden; };
    new MutationObserver(look).observe(document.querySelector("#outbox"), { attributes: true, subtree: true });
    document.querySelector("#composer").addEventListener("submit", () => (window.began = performance.now()), { capture: true, once: true });
    new MutationObserver(() => { window.took ||= document.querySelector("#messages .own") && performance.now() - window.began; })
      .observe(document.querySelector("#messages"), { childList: true, subtree: true });
  });
  await tab.write("#say", "published");
  await lists(tab, "published");
  await sleep(1_000); // longer than until a pending line shows
  assert.equal(await tab.run(outbox), "");
  // On a busy machine it may have taken longer than until a pending line shows.
  const { shown, took } = await tab.run(() => ({ shown: window.shown, took: window.took }));
  assert.ok(took > 0 && (shown === 0 || took > 400), `a line that was published after ${took} ms flickered`);
  room.heard = null;
  await tab.write("#say", "kept back");
  await shows(tab, "sending: kept back");
  assert.equal((await tab.text("#outbox .fate")).trim(), "Sending…");
  business.isMute = false;
  tab.patience = 30_000; // it is sent again after 10 s
  await isGone(tab);
  assert.deepEqual(business.heard.filter(({ isNew }) => isNew).map(({ text }) => text), ["published", "kept back"]);
  assert.ok(heard(business, "kept back") > 1, "it was not sent again");
  await lists(other, "published");
  assert.deepEqual([await own(tab), await own(other)], [["published"], []]);
  assert.equal((await tab.text("#messages .own .you")).trim(), "you");
});

scene("text typed while the business server is away arrives once, and is one's own under the new name", async (stage) => {
  const { business, tab } = await setUp(stage);
  await tab.write("#say", "before");
  await lists(tab, "before");
  business.goAway();
  await tab.until("the page waits", () => document.querySelector("#connection-text").textContent === "Waiting for the room…");
  await tab.write("#say", "are you there?");
  await shows(tab, "sending: are you there?");
  business.comeBack();
  await lists(tab, "are you there?");
  await isGone(tab);
  await tab.write("#say", "after");
  await lists(tab, "after");
  assert.deepEqual(await own(tab), ["before", "are you there?", "after"]);
  assert.deepEqual(business.heard.map(({ text }) => text), ["before", "are you there?", "after"]);
  assert.notEqual(business.heard[0].author, business.heard[1].author);
});

scene("what is typed while a relay is away arrives once, in order, however much it is", async (stage) => {
  const { business, relay, tab } = await setUp(stage);
  await relay.kill();
  await tab.until("it is told", () => document.querySelector("#connection-text").textContent === "Reconnecting…");
  const texts = Array.from({ length: 8 }, (_, index) => `line ${index}`);
  for (const text of texts) await tab.write("#say", text);
  await shows(tab, texts.map((text) => `sending: ${text}`).join());
  // No more than this many; the next one stays in the field.
  for (const text of ["line 8", "line 9", "line 10"]) await tab.write("#say", text);
  assert.equal(await tab.run(() => document.querySelector("#say").value), "line 10");
  assert.equal(await tab.text("#hint"), "Send or remove the waiting messages first");
  await relay.start();
  tab.patience = 40_000;
  await isGone(tab);
  await lists(tab, "line 9");
  assert.deepEqual(business.heard.map(({ text }) => text), [...texts, "line 8", "line 9"]);
  assert.equal(await tab.run(() => document.querySelector("#say").value), "line 10");
});

scene("a refused message can be sent again or removed by keyboard, and a screen reader hears of it", async (stage) => {
  const { business, tab } = await setUp(stage, { lines: ["[limits]", "sends_burst = 1"] });
  // All at once: a second later the relay takes another.
  await tab.run(() => {
    for (const text of ["first", "second", "third"]) {
      document.querySelector("#say").value = text;
      document.querySelector("#composer").requestSubmit();
    }
  });
  await shows(tab, "failed: second,failed: third");
  await tab.until("the first is sent", () => document.querySelectorAll("#outbox .outgoing").length === 2);
  assert.deepEqual(await tab.run(() => [...document.querySelectorAll("#outbox .fate")].map(({ textContent }) => textContent)), Array(2).fill("Too fast"));
  assert.equal(await tab.run(() => document.querySelector("#fate").textContent), "Too fast: third");
  await sleep(1_500);
  await press(tab, "Try again");
  await lists(tab, "second");
  await shows(tab, "failed: third");
  assert.notEqual(await tab.run(() => document.activeElement.tagName), "BODY", "the focus is lost");
  await press(tab, "Remove");
  await isGone(tab);
  assert.equal(await tab.run(() => document.activeElement.id), "messages");
  assert.deepEqual(business.heard.map(({ text }) => text), ["first", "second"]);
});

scene("without receipts a message in doubt is not sent again by itself", async (stage) => {
  const { business, line, tab } = await setUp(stage, { receipts: false });
  await tab.write("#say", "passed");
  await isGone(tab);
  await lists(tab, "passed");
  line.hold();
  await tab.write("#say", "in doubt");
  await shows(tab, "unsure: in doubt");
  assert.equal((await tab.text("#outbox .fate")).trim(), "Maybe not sent");
  line.release(); // it was on its way: it arrives
  await tab.live();
  await lists(tab, "in doubt");
  await sleep(12_000); // longer than until a message is sent again where there are receipts
  assert.equal(await tab.run(outbox), "unsure: in doubt");
  assert.equal(heard(business, "in doubt"), 1);
  await press(tab, "Try again");
  await isGone(tab);
  assert.equal(heard(business, "in doubt"), 2);
  // One that waited for the connection was not in doubt.
  assert.deepEqual(business.heard.map(({ id }) => id), [null, null, null]);
});

scene("without receipts, what is typed in an outage arrives once", async (stage) => {
  const { business, relay, tab } = await setUp(stage, { receipts: false, locale: "zh-CN" });
  await relay.kill();
  await tab.until("it is told", () => document.querySelector("#connection-text").textContent === "正在重新连接…");
  await tab.write("#say", "你好");
  await shows(tab, "sending: 你好");
  assert.equal((await tab.text("#outbox .fate")).trim(), "发送中…");
  await relay.start();
  tab.patience = 30_000;
  await isGone(tab);
  await lists(tab, "你好");
  assert.deepEqual(business.heard.map(({ text }) => text), ["你好"]);
});
