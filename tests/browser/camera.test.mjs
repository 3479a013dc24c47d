/** camera.test.mjs: the host goes live with Chromium's fake camera; viewers see it move, and then the clip again. */

import assert from "node:assert/strict";
import { scene, sleep } from "./stage.mjs";

/** A greyscale copy of the viewer's picture. */
const picture = (tab) => tab.run(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 90 });
  const context = canvas.getContext("2d");
  context.drawImage(document.querySelector("#video"), 0, 0, 160, 90);
  return [...context.getImageData(0, 0, 160, 90).data].filter((_, index) => index % 4 === 1);
});

const differ = (one, other) => one.filter((value, index) => Math.abs(value - other[index]) > 24).length;

scene("going live shows the camera on the share page, and stopping brings the clip back", async (stage) => {
  const { share, host } = await stage.demo();
  const browser = await stage.browser({ camera: true });
  const [viewer, desk] = [await stage.tab(browser, share), await stage.tab(browser, host)];
  const clip = await viewer.plays("#video");
  await desk.until("the host page is connected", () => "connected" in document.documentElement.dataset);

  let start = Date.now();
  await desk.tap("#live");
  await desk.until("the host page is live", () => document.documentElement.dataset.air === "camera");
  await viewer.until("the picture is the camera's", (width) => document.querySelector("#video").videoWidth > 0
    && document.querySelector("#video").videoWidth !== width, clip.width);
  const camera = await viewer.plays("#video");
  console.log(`  camera on the share page after ${Date.now() - start} ms, ${clip.width} -> ${camera.width} px wide`);
  // The fake camera's wheel rotates: samples at a fixed interval may always find it at the same
  // angle.
  let [last, changes] = [await picture(viewer), []];
  for (let look = 0; look < 5; look += 1) {
    await sleep(330 + 140 * look);
    const now = await picture(viewer);
    changes.push(differ(last, now));
    last = now;
  }
  const later = await viewer.playback("#video");
  console.log(`  it moves: ${changes} of 14400 points changed between looks`);
  assert.ok(later.time - camera.time > 2, `the picture advanced by ${later.time - camera.time} s in 3 s`);
  assert.ok(changes.filter((count) => count > 50).length >= 3, "the picture does not move");

  start = Date.now();
  await desk.tap("#stop");
  await viewer.until("the clip is back", (width) => document.querySelector("#video").videoWidth === width, clip.width);
  await viewer.plays("#video");
  await viewer.plays("#audio");
  console.log(`  the clip is back after ${Date.now() - start} ms`);
  assert.equal(await desk.run(() => document.documentElement.dataset.air), "clip");
});
