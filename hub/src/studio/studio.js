/**
 * studio.js: the studio's page.
 *
 * Owns: the page's elements, the choice of camera, screen and microphone, and what belongs together: a stream, its
 * encoder, the line to the hub, and the rate between them.
 * Refuses: to insert anything as HTML; text is only inserted by textContent.
 * For tests: <html data-state> is empty, ready, connecting, live, waiting or refused; <html data-way> is codecs or
 * recorder once that is known; <html data-problem> is the code of the problem that is shown.
 */
import { QUALITIES, camera, devices, hasScreen, screen } from "./capture.js";
import { Codecs, Recorder, plan } from "./encoding.js";
import { Line } from "./line.js";
import { parse, socket } from "./link.js";
import { LOST, Rate } from "./rate.js";
import { explained, words as wordsOf } from "./words.js";

const LOOK_EVERY = 500; // ms
const CALM = 1500; // ms for which a problem that mends itself is not shown

const page = document.documentElement;
const $ = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const words = wordsOf(navigator.language);
const link = parse(location.hash);
const chosen = { source: "camera", device: "", facing: "user", microphone: "", quality: "720" };

let stream = null; // what is previewed
let line = null;
let encoder = null;
let rate = null;
let making = null; // the plan by which it is encoded
let since = 0; // when it went live first, in ms
let counted = 0; // bytes sent since the last look
let slow = 0; // the timer of a problem that may mend itself
let lock = null;
let runs = 0; // how often it went live

page.lang = words === wordsOf("zh") ? "zh-Hans" : "en";
for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = words[element.dataset.i18n];
for (const element of document.querySelectorAll("[data-i18n-label]")) element.setAttribute("aria-label", words[element.dataset.i18nLabel]);
document.title = link ? `${link.topic} · ${words.page}` : words.page;
$.topic.textContent = link?.topic ?? words.page;

const state = () => page.dataset.state;
const isOnAir = () => ["connecting", "live", "waiting"].includes(state());

function become(now) {
  page.dataset.state = now;
  $["air-text"].textContent = words.states[now];
  show();
}

/** What may be pressed now. */
function show() {
  const isReady = stream !== null && link !== null;
  $.go.hidden = isOnAir();
  $.stop.hidden = !isOnAir();
  $.go.disabled = !isReady;
  const hasSound = Boolean(stream?.getAudioTracks().length);
  $.mute.disabled = !hasSound;
  const isMuted = $.mute.getAttribute("aria-pressed") === "true";
  $["mute-text"].textContent = stream && !hasSound ? words.silent : isMuted ? words.unmute : words.mute;
  for (const name of ["camera", "screen"]) $[`source-${name}`].setAttribute("aria-pressed", String(chosen.source === name));
  $["camera-field"].hidden = chosen.source !== "camera";
  $.quality.disabled = isOnAir();
  $.clock.hidden = since === 0 || !isOnAir();
}

function trouble(why, tone = "bad") {
  clearTimeout(slow);
  const { text, help } = why ? explained(words, why) : { text: "", help: "" };
  if (why) page.dataset.problem = why.code;
  else delete page.dataset.problem;
  $.problem.dataset.tone = tone;
  $["problem-text"].textContent = text;
  $["problem-help"].textContent = help;
  $.problem.hidden = !why;
}

// ---------------------------------------------------------------- what is seen and heard

/** Opens the chosen source; what is on the air goes on with it. */
async function open() {
  const isScreen = chosen.source === "screen";
  let fresh;
  try {
    // Phones give one camera at a time.
    if (!isScreen && stream && !isOnAir()) close();
    fresh = await (isScreen ? screen(chosen) : camera(chosen));
  } catch (error) {
    if (isScreen) {
      chosen.source = "camera";
      show();
      if (!stream) return trouble({ code: "screenDenied" }, "warn");
      return undefined;
    }
    return trouble({ code: { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "notFound", OverconstrainedError: "notFound", NotReadableError: "inUse", AbortError: "inUse" }[error.name] ?? "denied" });
  }
  const old = stream;
  stream = fresh;
  if (!isOnAir() || page.dataset.problem === "trackEnded") trouble(null);
  const [picture] = fresh.getVideoTracks();
  picture.contentHint = isScreen ? "detail" : "motion";
  picture.onended = () => {
    if (stream === fresh) trouble({ code: "trackEnded" });
  };
  muteAs($.mute.getAttribute("aria-pressed") === "true");
  $.preview.srcObject = fresh;
  const { facingMode, width, height } = picture.getSettings();
  $.preview.toggleAttribute("data-mirrored", !isScreen && facingMode !== "environment");
  $.stage.toggleAttribute("data-tall", height > width);
  encoder?.replace(fresh);
  for (const track of old?.getTracks() ?? []) track.stop();
  if (!isOnAir()) focusing($.curtain, $.go, () => become("ready"));
  else show();
  await list();
}

function close() {
  for (const track of stream?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
  stream = null;
  $.preview.srcObject = null;
}

/** The names of what may be chosen. */
async function list() {
  const { cameras, microphones } = await devices();
  const fill = (select, all, named, value) => {
    const options = all.map((one, n) => new Option(one.label || named(n + 1), one.deviceId));
    if (select === $.microphone) options.push(new Option(words.noSound, "off"));
    select.replaceChildren(...options);
    if (options.some((option) => option.value === value)) select.value = value;
  };
  const [picture] = stream?.getVideoTracks() ?? [];
  const [sound] = stream?.getAudioTracks() ?? [];
  if (chosen.source === "camera") fill($.camera, cameras, words.cameraNumber, picture?.getSettings().deviceId);
  fill($.microphone, microphones, words.microphoneNumber, sound ? sound.getSettings().deviceId : chosen.microphone);
  // Two cameras on a computer are chosen by name.
  $.flip.hidden = chosen.source !== "camera" || cameras.length < 2 || !matchMedia("(pointer: coarse)").matches;
}

function muteAs(isMuted) {
  $.mute.setAttribute("aria-pressed", String(isMuted));
  for (const track of stream?.getAudioTracks() ?? []) track.enabled = !isMuted;
  encoder?.mute(isMuted);
  show();
}

// ---------------------------------------------------------------- on the air

/** Even, as encoders want it, and of the chosen quality at most. */
function size() {
  const { width = 1280, height = 720 } = stream.getVideoTracks()[0].getSettings();
  const scale = Math.min(1, QUALITIES[chosen.quality].side / Math.min(width, height), (QUALITIES[chosen.quality].side * 16) / 9 / Math.max(width, height));
  return { width: 2 * Math.round((width * scale) / 2), height: 2 * Math.round((height * scale) / 2) };
}

async function goLive() {
  // A camera that was let go of, and no other one yet.
  if (!stream) await open();
  if (!stream || isOnAir()) return;
  const run = ++runs;
  trouble(null);
  focusing($.go, $.stop, () => become("connecting"));
  const { bitrate, rate: pictures } = QUALITIES[chosen.quality];
  making = await plan({ ...size(), rate: pictures, bitrate, hasSound: stream.getAudioTracks().length > 0 });
  // Stopped meanwhile, and perhaps begun again.
  if (run !== runs || state() !== "connecting") return;
  if (!making) {
    become("ready");
    return trouble({ code: "noEncoder" });
  }
  page.dataset.way = making.way;
  $.lacks.replaceChildren(...making.lacks.map((what) => Object.assign(document.createElement("li"), { textContent: words.lacks[what] })));
  $.lacks.hidden = making.lacks.length === 0;
  rate = new Rate(bitrate);
  counted = 0;
  const on = { bytes: pass, renew: () => line?.renew(), fault: () => { halt("ready"); trouble({ code: "encoder" }); } };
  try {
    encoder = new (making.way === "codecs" ? Codecs : Recorder)({ plan: making, stream, on });
    encoder.mute($.mute.getAttribute("aria-pressed") === "true");
  } catch {
    return on.fault();
  }
  line = new Line({ url: socket(location.href), first: link, on: { state: connected, ready: begin } });
  line.start();
  navigator.wakeLock?.request("screen").then((taken) => {
    if (line) lock = taken;
    else taken.release();
  }, () => {});
}

function begin() {
  rate.renew();
  try {
    encoder.begin();
  } catch {
    halt("ready");
    trouble({ code: "encoder" });
  }
}

/** What the encoder gives: sent, or dropped where the line is too slow. */
function pass(bytes, startsGroup) {
  if (!line) return;
  if (making.way === "codecs" && !rate.admits(startsGroup, line.behind)) return;
  counted += bytes.byteLength;
  line.send(bytes);
}

function connected(now, why) {
  if (now === "idle") return;
  if (now === "refused") {
    halt("refused");
    return trouble(why);
  }
  become(now);
  if (now === "live") {
    if (since === 0) since = Date.now();
    if (page.dataset.problem !== "trackEnded") trouble(null);
  } else if (now === "waiting" && why) {
    // What mends itself at once is not worth a word.
    const isCalm = ["renewed", "cut", "ending"].includes(why.code) && line.attempts < 3;
    clearTimeout(slow);
    slow = setTimeout(() => trouble(why, "warn"), isCalm ? CALM : 0);
  }
  show();
}

function halt(then) {
  clearTimeout(slow);
  line?.stop();
  encoder?.stop();
  lock?.release().catch(() => {});
  line = encoder = rate = lock = null;
  since = 0;
  $.lacks.hidden = true;
  for (const name of ["sent", "behind", "dropped"]) $[name].textContent = "–";
  $.label.textContent = "";
  for (const name of ["behind", "dropped"]) delete $[name].parentElement.dataset.tone;
  focusing($.stop, $.go, () => become(then));
}

/** Changes what is shown. If the button that has the focus disappears, the other one gets it. */
function focusing(from, to, change) {
  const isThere = from.contains(document.activeElement);
  change();
  if (isThere) to.focus();
}

const twoDigits = (n) => String(n).padStart(2, "0");

setInterval(() => {
  line?.look();
  if (!line) return;
  const behind = line.behind;
  if (state() === "live" && rate.look(performance.now(), behind, line.speed)) encoder.rate(rate.bitrate);
  // A recording can't be thinned: the next one is smaller.
  if (state() === "live" && making.way === "recorder" && behind > LOST) {
    rate.dropped += 1;
    line.renew();
  }
  $.sent.textContent = words.kbits(Math.round((counted * 8) / LOOK_EVERY));
  counted = 0;
  $.behind.textContent = words.seconds(behind.toFixed(1));
  $.dropped.textContent = words.groups(rate.dropped);
  $.behind.parentElement.dataset.tone = behind > 0.5 ? "warn" : "";
  $.dropped.parentElement.dataset.tone = rate.isDropping ? "warn" : "";
  const { width, height } = size();
  const isLowered = rate.bitrate < rate.target;
  $.label.textContent = `${width}×${height} · ${making.label}${isLowered ? ` · ${words.lowered(Math.round(rate.bitrate / 1000))}` : ""}`;
  const seconds = since ? Math.floor((Date.now() - since) / 1000) : 0;
  const hours = Math.floor(seconds / 3600);
  $.clock.textContent = `${hours ? `${hours}:` : ""}${hours ? twoDigits(Math.floor(seconds / 60) % 60) : Math.floor(seconds / 60)}:${twoDigits(seconds % 60)}`;
}, LOOK_EVERY);

// ---------------------------------------------------------------- what is pressed

function use(source) {
  chosen.source = source;
  return open();
}

$["use-camera"].onclick = $["source-camera"].onclick = () => use("camera");
$["use-screen"].onclick = $["source-screen"].onclick = () => use("screen");
$.camera.onchange = () => { chosen.device = $.camera.value; if (stream) open(); };
$.microphone.onchange = () => { chosen.microphone = $.microphone.value; if (stream) open(); };
$.quality.onchange = () => { chosen.quality = $.quality.value; if (stream) open(); };
$.flip.onclick = () => {
  chosen.facing = chosen.facing === "user" ? "environment" : "user";
  chosen.device = "";
  open();
};
$.mute.onclick = () => muteAs($.mute.getAttribute("aria-pressed") !== "true");
$.go.onclick = () => { goLive(); };
$.stop.onclick = () => {
  trouble(null);
  halt("ready");
};
addEventListener("beforeunload", (event) => {
  if (isOnAir()) event.preventDefault();
});
addEventListener("online", () => line?.hurry());
// Another link in the same tab is another studio.
addEventListener("hashchange", () => location.reload());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && line && lock?.released) navigator.wakeLock.request("screen").then((taken) => { lock = taken; }, () => {});
});

// ---------------------------------------------------------------- the beginning

$["use-screen"].hidden = $["source-screen"].hidden = !hasScreen();
for (const select of [$.camera, $.microphone]) select.append(new Option(words.usual, ""));
$.microphone.append(new Option(words.noSound, "off"));
become("empty");
const blocked = !link ? "noLink" : !isSecureContext ? "insecure" : !navigator.mediaDevices?.getUserMedia ? "noDevices" : null;
if (blocked) {
  page.dataset.blocked = "";
  trouble({ code: blocked });
  for (const element of document.querySelectorAll("select, .choice button")) element.disabled = true;
} else {
  navigator.mediaDevices.addEventListener?.("devicechange", () => { if (stream) list(); });
}
