/**
 * Glass to glass from the studio: how old the picture is that a share page shows.
 *
 *   node tests/hub/glass/studio.mjs HUB-PROGRAM [seconds] [codecs or recorder]
 *
 * As read.mjs, but the pictures with the time in them are drawn on a canvas, which is the studio's camera, in a second
 * Chromium. Prints p50 and p95 in ms. Needs Playwright in tests/browser, and a quiet machine.
 */
import { goLive, start, tab } from "../studio/stage.mjs";
import { read } from "./reading.mjs";

const [program, seconds = "60", way = "codecs"] = process.argv.slice(2);

/** Runs in the studio's page: a camera that shows the clock of clock.py, and a microphone that hums. */
function clock(way) {
  if (way === "recorder") {
    delete globalThis.VideoEncoder;
    delete globalThis.MediaStreamTrackProcessor;
  }
  const [WIDTH, HEIGHT, SIDE, COLUMNS, BITS, CHECK] = [640, 360, 40, 14, 24, 4];
  MediaDevices.prototype.getUserMedia = async ({ audio }) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
    const context = canvas.getContext("2d", { alpha: false });
    const stream = canvas.captureStream(0);
    const [track] = stream.getVideoTracks();
    setInterval(() => {
      const value = Date.now() % 2 ** BITS;
      const check = [0, 1, 2, 3, 4, 5].reduce((sum, n) => sum + ((value >> (4 * n)) & 15), 0) & 15;
      const bits = value.toString(2).padStart(BITS, "0") + check.toString(2).padStart(CHECK, "0");
      context.fillStyle = "#606060";
      context.fillRect(0, 0, WIDTH, HEIGHT);
      for (let n = 0; n < bits.length; n += 1) {
        context.fillStyle = bits[n] === "1" ? "#fff" : "#000";
        context.fillRect(20 + SIDE * (n % COLUMNS), 20 + SIDE * Math.floor(n / COLUMNS), SIDE, SIDE);
      }
      // Something moves below, so that the encoder has work.
      context.fillStyle = "#d0d0d0";
      context.fillRect((value / 8) % WIDTH, 130, 120, HEIGHT - 150);
      track.requestFrame();
    }, 1000 / 30);
    if (audio) {
      const sound = new AudioContext();
      const hum = sound.createOscillator();
      const out = sound.createMediaStreamDestination();
      hum.connect(out);
      hum.start();
      await sound.resume();
      stream.addTrack(out.stream.getAudioTracks()[0]);
    }
    return stream;
  };
}

const place = await start({ program });
try {
  const studio = await tab(place);
  await studio.addInitScript(clock, way);
  await goLive(studio, place.studio);
  const other = await start({ program, browserOnly: true });
  try {
    const share = await tab(other);
    console.log(`${await studio.getAttribute("html", "data-way")}, ${await read(share, place.share, Number(seconds))}`);
    console.log(`the studio: ${await studio.evaluate(() => ["label", "sent", "behind", "dropped"].map((id) => document.getElementById(id).textContent).join(", "))}`);
  } finally {
    await other.end();
  }
} finally {
  await place.end();
}
