/** playback.test.mjs: sound and picture play without a stall, start soon on a late page, and one tap unmutes. */

import assert from "node:assert/strict";
import { scene, sleep } from "./stage.mjs";

const WATCHED = 11_000; // ms: more than one loop of the clip's picture
const LAG_MAX = 2; // s behind the newest, and behind the clock
const STILL_MAX = 1; // s without any advance
const LATE_MAX = 4000; // ms on a loaded machine; the measured one is printed

/** Watches an element for a while; returns how far it played. */
async function watch(tab, selector) {
  const first = await tab.playback(selector);
  let [last, moved, still, ahead] = [first, first, 0, 0];
  while (last.at - first.at < WATCHED / 1000) {
    await sleep(100);
    const now = await tab.playback(selector);
    assert.ok(now.time >= last.time - 0.001, `${selector} went back from ${last.time} to ${now.time}`);
    if (now.time > last.time) moved = now;
    still = Math.max(still, now.at - moved.at);
    ahead = Math.max(ahead, now.ahead);
    last = now;
  }
  const [clock, media] = [last.at - first.at, last.time - first.time];
  const show = (value) => `${value.toFixed(2)} s`;
  console.log(`  ${selector}: ${show(media)} in ${show(clock)}, still for ${show(still)} at most, ${show(ahead)} buffered at most`);
  assert.ok(Math.abs(clock - media) < LAG_MAX, `${selector} played ${show(media)} in ${show(clock)}`);
  assert.ok(still < STILL_MAX, `${selector} stood still for ${show(still)}`);
  assert.ok(ahead < LAG_MAX, `${selector} was ${show(ahead)} behind`);
  return { frames: last.frames - first.frames };
}

scene("sound and picture advance, muted at first, until one tap", async (stage) => {
  const { share } = await stage.demo();
  const tab = await stage.tab(await stage.browser(), share);
  await Promise.all([tab.plays("#video"), tab.plays("#audio")]);
  assert.equal(await tab.run(() => document.querySelector("#stage").dataset.mode), "video");

  // Without a gesture the browser plays only muted, and the page says so.
  await tab.until("the page says that it is muted", () => document.querySelector("#unmute").checkVisibility());
  assert.equal((await tab.text("#unmute")).trim(), "Tap for sound");
  assert.equal((await tab.playback("#audio")).muted, true);

  const [picture] = await Promise.all([watch(tab, "#video"), watch(tab, "#audio")]);
  assert.ok(picture.frames > WATCHED / 1000 * 8, `only ${picture.frames} pictures were drawn`);

  await tab.tap("#unmute");
  await tab.until("the sound is on", () => !document.querySelector("#audio").muted && !document.querySelector("#unmute").checkVisibility());
  assert.ok(await tab.shown("#mute"));
  await sleep(300); // a browser that refuses stops playback shortly after
  const { muted, paused } = await tab.plays("#audio");
  assert.deepEqual({ muted, paused }, { muted: false, paused: false });
});

scene("a late page plays within about a group", async (stage) => {
  const { share } = await stage.demo();
  const browser = await stage.browser();
  await (await stage.tab(browser, share)).plays("#video");
  for (let round = 1; round <= 3; round += 1) {
    await sleep(370 * round); // at another position in the group each time
    const start = Date.now();
    const tab = await stage.tab(browser, "about:blank");
    const navigated = Date.now();
    await tab.go(share);
    const [picture, sound] = await Promise.all(["#video", "#audio"].map(async (selector) => {
      await tab.plays(selector);
      return Date.now() - navigated;
    }));
    console.log(`  late page ${round}: picture after ${picture} ms, sound after ${sound} ms (a new tab takes ${navigated - start} ms before that)`);
    assert.ok(picture < LATE_MAX, `the picture took ${picture} ms`);
    assert.ok(sound < LATE_MAX, `the sound took ${sound} ms`);
    await tab.page.close();
  }
});
