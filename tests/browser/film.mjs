/**
 * film.mjs: a camera for a room of business.mjs: the demo's picture in a loop, in real time, from the time of the call on.
 */

import assert from "node:assert/strict";
import { part, VIDEO } from "./business.mjs";
import { fragment, picture, PICTURE_MIME } from "./clip.mjs";

const CHUNK = 8; // frames
const DURATION = picture.frames[0].duration / picture.scale; // s

/** `stop` ends it. */
export function film(room) {
  let next = 0;
  const roll = () => {
    const end = next + CHUNK;
    room.publish(VIDEO, next % picture.keyframes === 0 ? part.start : part.continue, fragment(picture, next, end));
    next = end;
  };
  assert.equal(picture.keyframes % CHUNK, 0);
  room.publish(VIDEO, part.init(PICTURE_MIME), picture.init);
  roll();
  const began = performance.now();
  const timer = setInterval(() => { while (next * DURATION * 1000 < performance.now() - began + CHUNK * DURATION * 1000) roll(); }, 50);
  timer.unref(); // where a test fails before it stops it
  return { stop: () => clearInterval(timer) };
}
