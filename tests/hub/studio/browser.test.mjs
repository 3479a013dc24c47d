/**
 * browser.test.mjs: the studio in a real Chromium with a made-up camera, against a real hub and a real relay.
 *
 * Needs Playwright in tests/browser. SHOTS=DIRECTORY writes pictures of the page in its states.
 */
import { after, before, test } from "node:test";

import { assert, call, goLive, isLive, link, plays, sleep, start, tab, until } from "./stage.mjs";

let place;
before(async () => { place = await start(); });
after(() => place?.end());

const problem = (page, code) => page.waitForSelector(`html[data-problem="${code}"]`, { state: "attached" });
const shown = (page) => page.textContent("#problem");
const eventually = async (is, what) => {
  for (let n = 0; n < 300; n += 1) {
    if (await is()) return;
    await sleep(100);
  }
  assert.fail(what);
};
const shoot = async (page, name) => {
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage: true });
};

test("the camera goes live, a share page plays it, and stops", async () => {
  const page = await tab(place);
  const { url } = await link(place, "camera");
  await page.goto(url);
  await shoot(page, "empty-phone-light");
  await page.click("#use-camera");
  await until(page, "ready");
  assert.equal(await page.evaluate(() => document.querySelector("#preview").srcObject.getTracks().length), 2);
  await shoot(page, "ready-phone-light");
  await page.click("#go");
  await until(page, "live");
  assert.equal(await page.getAttribute("html", "data-way"), "codecs");
  assert.equal(await isLive(place, "camera"), true);
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "camera"));
  await plays(share);
  assert.deepEqual(await share.evaluate(() => [document.querySelector("#video").videoWidth, document.querySelector("#video").videoHeight]), [1280, 720]);
  await page.waitForFunction(() => /[1-9]\d* kbit/.test(document.querySelector("#sent").textContent));
  assert.match(await page.textContent("#label"), /1280×720 · H\.264/);
  // What is muted, changed and shared goes on in the same stream.
  await page.click("#mute");
  assert.equal(await page.evaluate(() => document.querySelector("#preview").srcObject.getAudioTracks()[0].enabled), false);
  await page.click("#mute");
  const from = await share.evaluate(() => document.querySelector("#video").currentTime);
  await page.selectOption("#camera", { index: 0 });
  await share.waitForFunction((then) => document.querySelector("#video").currentTime > then + 3, from);
  assert.equal(await page.getAttribute("html", "data-state"), "live");
  await shoot(page, "live-phone-light");
  await page.click("#stop");
  await until(page, "ready");
  await eventually(async () => !(await isLive(place, "camera")), "the stream has not ended");
  // And once more, with the same link.
  await page.click("#go");
  await until(page, "live");
  await plays(share);
  assert.deepEqual([...page.complaints, ...share.complaints], []);
  await page.context().close();
  await share.context().close();
});

test("a browser without WebCodecs records", async () => {
  const page = await tab(place);
  await page.addInitScript(() => { delete globalThis.VideoEncoder; delete globalThis.AudioEncoder; delete globalThis.MediaStreamTrackProcessor; });
  await goLive(page, (await link(place, "recorder")).url);
  assert.equal(await page.getAttribute("html", "data-way"), "recorder");
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "recorder"));
  await plays(share);
  // Another source is another recording.
  await page.selectOption("#microphone", "off");
  await plays(share);
  await until(page, "live");
  assert.deepEqual([...page.complaints, ...share.complaints], []);
  await page.context().close();
  await share.context().close();
});

test("a browser without track processors encodes all the same", async () => {
  const page = await tab(place);
  await page.addInitScript(() => {
    delete globalThis.MediaStreamTrackProcessor;
    // As Chromium now and then: the first picture is announced before it can be had.
    let isFirst = true;
    globalThis.VideoFrame = class extends VideoFrame {
      constructor(source, init) {
        if (isFirst && source instanceof HTMLVideoElement) {
          isFirst = false;
          throw new DOMException("Invalid source state", "InvalidStateError");
        }
        super(source, init);
      }
    };
  });
  await goLive(page, (await link(place, "worklet")).url);
  assert.equal(await page.getAttribute("html", "data-way"), "codecs");
  assert.match(await page.evaluate(async () => {
    while (!document.querySelector("#label").textContent) await new Promise((done) => { setTimeout(done, 50); });
    return document.querySelector("#label").textContent;
  }), /Opus|AAC/);
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "worklet"));
  await plays(share);
  assert.ok(await share.evaluate(() => document.querySelector("#video").webkitAudioDecodedByteCount > 0), "there is no sound");
  assert.deepEqual([...page.complaints, ...share.complaints], []);
  await page.context().close();
  await share.context().close();
});

test("a token that is revoked ends it with words, and so does one whose time is over", async () => {
  const page = await tab(place);
  const { url, token } = await link(place, "revoked");
  await goLive(page, url);
  await call(place, "POST", "/v1/revoke", { token, reason: "the show is over" });
  await until(page, "refused");
  await problem(page, "token_revoked");
  assert.match(await shown(page), /taken back.*the show is over.*new one/);
  await shoot(page, "refused-phone-light");
  const short = await link(place, "expired", { ttl_s: 1 });
  await sleep(2100);
  await page.goto("about:blank");
  await page.goto(short.url);
  await page.click("#use-camera");
  await until(page, "ready");
  await page.click("#go");
  await problem(page, "unknown_key");
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test("a hub that is gone and comes back is found again, and viewers go on", async () => {
  const page = await tab(place);
  const sockets = [];
  await page.routeWebSocket(/studio\/ws/, (socket) => { sockets.push({ socket, server: socket.connectToServer() }); });
  await goLive(page, (await link(place, "again")).url);
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "again"));
  await plays(share);
  await sockets[0].socket.close({ code: 1012, reason: "dropped" });
  await sockets[0].server.close();
  await until(page, "waiting");
  await shoot(page, "waiting-phone-light");
  await until(page, "live");
  assert.equal(sockets.length, 2);
  await plays(share);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
  await share.context().close();
});

test("one encoder at a time: the other waits for its turn", async () => {
  const [one, other] = [await tab(place), await tab(place)];
  await goLive(one, (await link(place, "turns")).url);
  await other.goto((await link(place, "turns")).url);
  await other.click("#use-camera");
  await until(other, "ready");
  await other.click("#go");
  await problem(other, "already_live");
  assert.match(await shown(other), /Somebody else is live/);
  assert.equal(await one.getAttribute("html", "data-state"), "live");
  await one.click("#stop");
  await until(other, "live");
  assert.equal(await other.isVisible("#problem"), false);
  assert.deepEqual([...one.complaints, ...other.complaints], []);
  await one.context().close();
  await other.context().close();
});

test("a slow line gets less, then whole groups are dropped, and all is well again after it", async () => {
  const page = await tab(place);
  // The hub takes nothing for a while: what is sent waits in front of it.
  await page.addInitScript(() => {
    const { send } = WebSocket.prototype;
    globalThis.line = { isShut: false, held: [] };
    Object.defineProperty(WebSocket.prototype, "bufferedAmount", { get() { return globalThis.line.held.reduce((size, [, what]) => size + what.byteLength, 0); } });
    WebSocket.prototype.send = function (what) {
      if (globalThis.line.isShut && typeof what !== "string") globalThis.line.held.push([this, what]);
      else send.call(this, what);
    };
    globalThis.line.open = () => {
      globalThis.line.isShut = false;
      for (const [socket, what] of globalThis.line.held.splice(0)) send.call(socket, what);
    };
  });
  let sockets = 0;
  page.on("websocket", () => { sockets += 1; });
  await goLive(page, (await link(place, "slow")).url);
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "slow"));
  await plays(share);
  await page.evaluate(() => { globalThis.line.isShut = true; });
  await page.waitForFunction(() => Number(document.querySelector("#dropped").textContent) >= 1);
  assert.match(await page.textContent("#label"), /lowered to \d+ kbit/);
  await shoot(page, "slow-phone-light");
  await page.evaluate(() => { globalThis.line.open(); });
  const from = await share.evaluate(() => document.querySelector("#video").currentTime);
  await share.waitForFunction((then) => document.querySelector("#video").currentTime > then + 2, from);
  await page.waitForFunction(() => document.querySelector("#behind").textContent === "0.0 s");
  assert.equal(await page.getAttribute("html", "data-state"), "live");
  assert.equal(sockets, 1, "another bitrate is no other stream");
  assert.deepEqual(page.complaints, []);
  await page.context().close();
  await share.context().close();
});

test("a screen goes live, and in its place a picture of another shape, at the same size", async () => {
  const page = await tab(place);
  await page.addInitScript(() => {
    MediaDevices.prototype.getUserMedia = async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 360, height: 640 });
      const context = canvas.getContext("2d");
      setInterval(() => {
        context.fillStyle = `hsl(${(performance.now() / 10) % 360} 80% 50%)`;
        context.fillRect(0, 0, 360, 640);
      }, 40);
      return canvas.captureStream(25);
    };
  });
  let sockets = 0;
  page.on("websocket", () => { sockets += 1; });
  await page.goto((await link(place, "screen")).url);
  await page.selectOption("#microphone", "off");
  await page.click("#use-screen");
  await until(page, "ready");
  assert.equal(await page.isVisible("#camera-field"), false);
  await page.click("#go");
  await until(page, "live");
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "screen"));
  await plays(share);
  const size = () => share.evaluate(() => { const { videoWidth, videoHeight } = document.querySelector("#video"); return `${videoWidth}x${videoHeight}`; });
  const before = await size();
  await page.click("#source-camera");
  // The middle is coloured, and beside it are bars.
  await share.waitForFunction(() => {
    const video = document.querySelector("#video");
    const context = new OffscreenCanvas(video.videoWidth, video.videoHeight).getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0);
    const spread = (x) => { const [r, g, b] = context.getImageData(x, video.videoHeight / 2, 1, 1).data; return Math.max(r, g, b) - Math.min(r, g, b); };
    return spread(video.videoWidth / 2) > 80 && spread(4) < 30;
  });
  assert.equal(await size(), before);
  // At most one new stream: the encoder writes other colours into its header.
  assert.ok(sockets <= 2, `${sockets} streams`);
  assert.deepEqual([...page.complaints, ...share.complaints], []);
  await page.context().close();
  await share.context().close();
});

test("a link without its fragment, a camera that is refused, and an ended topic are explained", async () => {
  const bare = await tab(place);
  await bare.goto(`${place.api}/studio`);
  await problem(bare, "noLink");
  assert.match(await shown(bare), /whole link/);
  assert.equal(await bare.isDisabled("#go"), true);
  await shoot(bare, "nolink-phone-light");
  await bare.context().close();
  const refused = await tab(place);
  await refused.addInitScript(() => { MediaDevices.prototype.getUserMedia = async () => { throw new DOMException("no", "NotAllowedError"); }; });
  await refused.goto((await link(place, "refused")).url);
  await refused.click("#use-camera");
  await problem(refused, "denied");
  await refused.context().close();
  const page = await tab(place);
  await goLive(page, (await link(place, "ended")).url);
  await call(place, "DELETE", "/v1/topics/ended", { reason: "good night" });
  await problem(page, "topic_ended");
  assert.match(await shown(page), /good night/);
  assert.deepEqual([...bare.complaints, ...refused.complaints, ...page.complaints], []);
  await page.context().close();
});

/** Runs in the page: `camera.error` is what the browser says of the camera, until it is null; `asked` counts. */
const fickle = (error) => {
  const { getUserMedia } = MediaDevices.prototype;
  globalThis.camera = { error, asked: 0 };
  MediaDevices.prototype.getUserMedia = function (wanted) {
    globalThis.camera.asked += 1;
    return globalThis.camera.error ? Promise.reject(new DOMException("no", globalThis.camera.error)) : getUserMedia.call(this, wanted);
  };
};

/** The page's WebSockets, from now on; `last` is what it sent last by one. */
function sockets(page) {
  const all = [];
  page.on("websocket", (socket) => {
    all.push(socket);
    socket.on("framesent", ({ payload }) => { socket.last = String(payload); });
  });
  return all;
}

/** How many streams come to the hub. */
async function streams({ api, key }) {
  const text = await (await fetch(`${api}/metrics`, { headers: { authorization: `Bearer ${key}` } })).text();
  return Number(/^sharelink_hub_used\{of="streams"\} (\d+)$/m.exec(text)[1]);
}

for (const [error, code, says] of [["NotAllowedError", "denied", /may not use the camera.*Allow them/], ["NotFoundError", "notFound", /No such camera.*Connect one/], ["NotReadableError", "inUse", /in use.*Close the other program/]]) {
  test(`a camera that is ${code} is told, and can be tried again`, async () => {
    const page = await tab(place);
    const all = sockets(page);
    await page.addInitScript(fickle, error);
    await page.goto((await link(place, `again-${code}`)).url);
    await page.click("#use-camera");
    await problem(page, code);
    assert.match(await shown(page), says);
    assert.equal(await page.isDisabled("#go"), true, "there is nothing to send");
    await page.evaluate(() => { globalThis.camera.error = null; });
    await page.click("#use-camera");
    await until(page, "ready");
    assert.equal(await page.isVisible("#problem"), false);
    // It is let go of for another quality, and does not come back: "Go live" tries again.
    await page.evaluate((name) => { globalThis.camera.error = name; }, error);
    await page.selectOption("#quality", { index: 0 });
    await problem(page, code);
    const asked = () => page.evaluate(() => globalThis.camera.asked);
    const before = await asked();
    await page.click("#go");
    await page.waitForFunction((least) => globalThis.camera.asked > least, before);
    assert.match(await shown(page), says);
    assert.deepEqual([await page.getAttribute("html", "data-state"), all.length], ["ready", 0]);
    await page.evaluate(() => { globalThis.camera.error = null; });
    await page.click("#go");
    await until(page, "live");
    assert.deepEqual([await page.isVisible("#problem"), all.length, await asked()], [false, 1, before + 2]);
    assert.deepEqual(page.complaints, []);
    await page.context().close();
  });
}

test("stop and go in quick succession is one stream, which goes live again", async () => {
  const page = await tab(place);
  const all = sockets(page);
  const { url } = await link(place, "quick");
  await eventually(async () => (await streams(place)) === 0, "streams of other tests have not ended");
  await page.goto(url);
  await page.click("#use-camera");
  await until(page, "ready");
  // Returns the state right after them.
  const press = (...names) => page.evaluate((ids) => {
    for (const id of ids) document.getElementById(id).click();
    return document.documentElement.dataset.state;
  }, names);
  // Stopped while it looks for an encoder.
  await press("go", "stop", "go", "stop", "go");
  await until(page, "live");
  assert.equal(all.length, 1);
  const share = await tab(place);
  await share.goto(place.share.replace("demo", "quick"));
  await plays(share);
  assert.equal(await streams(place), 1);
  // And while it is live.
  for (let n = 2; n < 4; n += 1) {
    assert.equal(await press("stop", "go"), "connecting");
    await until(page, "live");
    assert.deepEqual(all.slice(0, -1).filter(({ last }) => last !== '{"type":"end"}'), [], "the page did not end its old stream");
    await eventually(async () => all.filter((socket) => !socket.isClosed()).length === 1, "an old connection stays");
    await eventually(async () => (await streams(place)) === 1, "an old stream stays");
    assert.equal(await isLive(place, "quick"), true);
    await plays(share);
  }
  await press("stop");
  await eventually(async () => (await streams(place)) === 0, "a stream stays");
  assert.deepEqual([...page.complaints, ...share.complaints], []);
  await page.context().close();
  await share.context().close();
});

test("nothing is wider than a small phone, and every control has a name", async () => {
  const page = await tab(place, { viewport: { width: 320, height: 640 } });
  await goLive(page, (await link(place, "small")).url);
  await page.waitForFunction(() => document.querySelector("#label").textContent);
  const found = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth,
    cut: [...document.querySelectorAll("button, dd")].filter((one) => one.offsetWidth && one.scrollWidth > one.clientWidth + 1).map((one) => one.id || one.textContent),
    nameless: [...document.querySelectorAll("button, select")].filter((one) => !one.textContent.trim() && !one.getAttribute("aria-label") && !one.labels?.length).map((one) => one.id),
    inline: document.querySelectorAll("[style], style, script:not([src])").length,
  }));
  assert.deepEqual(found, { wide: 320, cut: [], nameless: [], inline: 0 });
  await shoot(page, "small-light");
  await page.context().close();
});

if (process.env.SHOTS) test("pictures", async () => {
  for (const colorScheme of ["light", "dark"]) for (const [device, viewport] of [["phone", { width: 390, height: 844 }], ["desktop", { width: 1280, height: 800 }]]) {
    const page = await tab(place, { viewport, colorScheme });
    const { url, token } = await link(place, "Late-show");
    const name = (state) => `${state}-${device}-${colorScheme}`;
    await page.goto(url);
    await shoot(page, name("empty"));
    await page.click("#use-camera");
    await until(page, "ready");
    await shoot(page, name("ready"));
    await page.click("#go");
    await until(page, "live");
    await sleep(2500);
    await shoot(page, name("live"));
    await call(place, "POST", "/v1/revoke", { token });
    await until(page, "refused");
    await shoot(page, name("refused"));
    await page.goto("about:blank");
    await page.goto(`${place.api}/studio`);
    await shoot(page, name("nolink"));
    await page.context().close();
  }
});
