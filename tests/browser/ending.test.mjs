/** ending.test.mjs: the host ends the room and reopens it; a waiting page resumes on its own. */

import assert from "node:assert/strict";
import { scene } from "./stage.mjs";

scene("a room that ended says so, and comes back after it was opened again", async (stage) => {
  const { share, host } = await stage.demo();
  const browser = await stage.browser();
  const [viewer, desk] = await Promise.all([stage.tab(browser, share), stage.tab(browser, host)]);
  await viewer.live();
  await desk.write("#message", "before the end");
  await viewer.until("the message", () => document.querySelector("#messages").innerText.includes("before the end"));

  await desk.tap("#end");
  await viewer.until("the end", () => document.documentElement.dataset.room === "ended");
  const ended = Date.now();
  assert.equal(await viewer.text("#connection"), "Ended");
  assert.match(await viewer.text("#over"), /^This room has ended\n/);
  assert.ok(!(await viewer.shown("#composer")), "an ended room accepts no messages");

  await desk.tap("#reopen");
  // A new page is admitted at once.
  const newcomer = await stage.tab(browser, share);
  await newcomer.live();
  // The page subscribes again 22 to 38 s after the end.
  viewer.patience = 42_000;
  await viewer.until("the room is back", () => document.documentElement.dataset.room === "live");
  console.log(`  back ${((Date.now() - ended) / 1000).toFixed(1)} s after the end`);
  await viewer.until("the end is gone", () => !document.querySelector("#over").checkVisibility());
  assert.equal(await viewer.text("#connection"), "Live");
  await desk.write("#message", "after the end");
  await viewer.until("a new message", () => document.querySelector("#messages").innerText.includes("after the end"));
  const marks = await viewer.run(() => [...document.querySelectorAll("#messages .mark")].map((mark) => mark.textContent));
  assert.deepEqual(marks, ["This room has ended", "The room is open again"]);
  assert.deepEqual(await viewer.gaps(), []);
  await viewer.plays("#video");
});
