/**
 * Glass to glass: how old the picture is that a share page shows.
 *
 *   node tests/hub/glass/read.mjs HUB-PROGRAM [seconds] [fragment, microseconds]
 *
 * Starts `sharelink-hub dev`, sends it pictures with the time in them (clock.py) by ffmpeg, opens the share page in
 * Chromium, and reads each picture that is shown, on the same clock. Prints p50 and p95 in ms. Needs Playwright in
 * tests/browser, ffmpeg, and a quiet machine.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const { chromium } = createRequire(new URL("../../browser/package.json", import.meta.url))("playwright-core");
const [program, seconds = "60", fragment = "100000"] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const ENCODER = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p"];
const SETTLE_S = 8; // until the player has found its place

const hub = spawn(program, ["dev", "--json", "--port", "0", "--api-port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
const children = [hub];
process.on("exit", () => children.forEach((child) => child.kill("SIGTERM")));
const { share, api, key, topic } = JSON.parse((await once(hub.stdout, "data"))[0]);

const clock = spawn("python3", [new URL("clock.py", import.meta.url).pathname, String(Number(seconds) + SETTLE_S + 10)], { stdio: ["ignore", "pipe", "inherit"] });
const ffmpeg = spawn("ffmpeg", [
  "-loglevel", "error", "-probesize", "32", "-f", "rawvideo", "-pix_fmt", "gray", "-s", "640x360", "-r", "30", "-i", "pipe:0",
  ...ENCODER, "-f", "mp4", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-frag_duration", fragment,
  "-flush_packets", "1", "-method", "PUT", `${api.replace("://", `://x:${key}@`)}/v1/topics/${topic}/media`,
], { stdio: ["pipe", "inherit", "inherit"] });
children.push(clock, ffmpeg);
clock.stdout.pipe(ffmpeg.stdin);
ffmpeg.stdin.on("error", () => {});

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });
const page = await browser.newPage({ viewport: { width: 390, height: 844 } });
await sleep(2000);
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
}, Number(seconds) * 1000);
await browser.close();
ages.sort((one, other) => one - other);
const at = (share) => ages[Math.floor(share * (ages.length - 1))];
console.log(`${ages.length} pictures: p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, ${ages[0]} to ${ages.at(-1)} ms; ${stalls} stalls`);
process.exit(0);
