/** camera.test.mjs: the host goes live with Chromium's fake camera; viewers see it move, and then the clip again. */

import assert from "node:assert/strict";
import { scene, sleep } from "./stage.mjs";

/** A small copy of the picture that a viewer sees. */
const picture = (tab) => tab.run(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 36 });
  const context = canvas.getContext("2d");
  context.drawImage(document.querySelector("#video"), 0, 0, 64, 36);
  return [...context.getImageData(0, 0, 64, 36).data];
});

const difference = (one, other) => one.filter((value, index) => Math.abs(value - other[index]) > 24).length;

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
  assert.ok(!(await viewer.shown("#unmute")) || (await viewer.playback("#video")).muted);

  const before = await picture(viewer);
  await sleep(3000);
  const [after, later] = [await picture(viewer), await viewer.playback("#video")];
  assert.ok(later.time - camera.time > 2, `the picture advanced by ${later.time - camera.time} s in 3 s`);
  assert.ok(difference(before, after) > 50, "the picture does not move");

  start = Date.now();
  await desk.tap("#stop");
  await viewer.until("the clip is back", (width) => document.querySelector("#video").videoWidth === width, clip.width);
  await viewer.plays("#video");
  await viewer.plays("#audio");
  console.log(`  the clip is back after ${Date.now() - start} ms`);
  assert.equal(await desk.run(() => document.documentElement.dataset.air), "clip");
});
