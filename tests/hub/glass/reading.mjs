/**
 * reading.mjs: reads the time out of the pictures that a share page shows (clock.py says how it is written), and how old
 * each is, on the same clock.
 */
import { setTimeout as sleep } from "node:timers/promises";

const SETTLE_S = 8; // until the player has found its place

/** Opens the share page in a tab, reads for so many seconds, and returns a line of text. */
export async function read(page, share, seconds) {
  await page.goto(share);
  await page.waitForFunction(() => document.querySelector("video")?.readyState > 2, undefined, { timeout: 20_000 });
  await sleep(SETTLE_S * 1000);
  const { ages, stalls } = await page.evaluate(async (ms) => {
    const video = document.querySelector("video");
    const canvas = new OffscreenCanvas(640, 360);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const ages = [];
    let stalls = 0;
    video.addEventListener("waiting", () => { stalls += 1; });
    const end = performance.now() + ms;
    while (performance.now() < end) {
      await new Promise((resolve) => { video.requestVideoFrameCallback(resolve); });
      const now = Date.now();
      context.drawImage(video, 0, 0, 640, 360);
      const { data } = context.getImageData(0, 0, 640, 360);
      const bit = (n) => data[4 * ((40 + 40 * Math.floor(n / 14)) * 640 + 40 + 40 * (n % 14))] > 128 ? 1 : 0;
      const number = (from, count) => Array.from({ length: count }, (_, n) => bit(from + n)).reduce((all, one) => all * 2 + one, 0);
      const value = number(0, 24);
      const check = [0, 1, 2, 3, 4, 5].reduce((sum, n) => sum + ((value >> (4 * n)) & 15), 0) & 15;
      if (check === number(24, 4)) ages.push(((now - value) % 16777216 + 16777216) % 16777216);
    }
    return { ages, stalls };
  }, seconds * 1000);
  ages.sort((one, other) => one - other);
  const at = (share) => ages[Math.floor(share * (ages.length - 1))];
  return `${ages.length} pictures: p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, ${ages[0]} to ${ages.at(-1)} ms; ${stalls} stalls`;
}
