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

import { read } from "./reading.mjs";

const { chromium } = createRequire(new URL("../../browser/package.json", import.meta.url))("playwright-core");
const [program, seconds = "60", fragment = "100000"] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const ENCODER = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p"];

const hub = spawn(program, ["dev", "--json", "--port", "0", "--api-port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
const children = [hub];
process.on("exit", () => children.forEach((child) => child.kill("SIGTERM")));
const { share, api, key, topic } = JSON.parse((await once(hub.stdout, "data"))[0]);

const clock = spawn("python3", [new URL("clock.py", import.meta.url).pathname, String(Number(seconds) + 20)], { stdio: ["ignore", "pipe", "inherit"] });
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
console.log(await read(page, share, Number(seconds)));
await browser.close();
process.exit(0);
