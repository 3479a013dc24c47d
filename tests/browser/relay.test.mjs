/** relay.test.mjs: the relay is killed and restarted; the page catches up on every message. */

import assert from "node:assert/strict";
import { scene, sleep } from "./stage.mjs";

const AWAY = 3000; // ms

scene("a page catches up after some seconds without its relay", async (stage) => {
  const business = await stage.business();
  const room = business.room("room");
  let said = 0;
  const say = (count) => { for (let index = 0; index < count; index += 1) room.say(`message ${said += 1}`); };
  say(5);
  const relay = await stage.relay(business);
  const tab = await stage.tab(await stage.browser(), `${relay.origin}/s/room`, { tolerated: /WebSocket connection to .* failed/ });
  await tab.live();
  await tab.run(() => {
    const words = (window.wordsSeen = [document.querySelector("#connection-text").textContent]);
    new MutationObserver(() => words.push(document.querySelector("#connection-text").textContent))
      .observe(document.querySelector("#connection"), { subtree: true, childList: true, characterData: true });
  });
  // A page keeps 200: they are fewer, however long the page takes.
  const flow = setInterval(() => { if (said < 190) say(1); }, 50);
  await sleep(500);

  await relay.kill();
  await tab.until("the page says that it reconnects", () => document.querySelector("#connection-text").textContent === "Reconnecting…");
  assert.ok((await tab.messages()).length > 5, "the messages stay on the page");
  await sleep(AWAY);
  const started = Date.now();
  await relay.start();
  await tab.live();
  console.log(`  live again ${Date.now() - started} ms after the relay came back, ${said} messages so far`);
  await sleep(500);
  clearInterval(flow);
  say(1);

  const last = `message ${said}`;
  await tab.until("the last message", (wanted) => document.querySelector("#messages .message:last-child .text")?.textContent === wanted, last);
  const expected = Array.from({ length: said }, (_, index) => [index + 1, `message ${index + 1}`]);
  assert.deepEqual(await tab.messages(), expected);
  assert.deepEqual(await tab.gaps(), []);
  assert.deepEqual([...new Set(await tab.run(() => window.wordsSeen))].filter((word) => word !== "Joining…"), ["Live", "Reconnecting…"]);
  assert.equal(await tab.text("#connection"), "Live");
});

scene("messages that are no longer kept are shown as a gap", async (stage) => {
  const business = await stage.business();
  const room = business.room("room");
  room.say("one");
  const relay = await stage.relay(business);
  const tab = await stage.tab(await stage.browser(), `${relay.origin}/s/room`, { tolerated: /WebSocket connection to .* failed/ });
  await tab.live();
  await relay.kill();
  room.skip(3);
  room.say("five");
  await relay.start();
  await tab.until("the message behind the gap", () => document.querySelector("#messages").innerText.includes("five"));
  assert.deepEqual(await tab.gaps(), [[2, 4]]);
  assert.equal(await tab.text("#messages .gap"), "3 messages were missed");
  assert.deepEqual(await tab.messages(), [[1, "one"], [5, "five"]]);
});
