/**
 * share.js: the share page at /s/<link>.
 *
 * Owns: what is displayed, its texts in Chinese and English, and the limit on how much is kept.
 * Refuses: to trust `data`. Any field may have any type and size; text is only inserted by
 * textContent, a URL only if it is https, a colour only as #rrggbb.
 * Does not know: the protocol, which is in sharelink.js. Nor how the two files are loaded: the
 * script in share.html loads both, retries failures, and calls `start` once. Until then nothing
 * here touches the document. Enhancements (formats, observers, full screen) are used through
 * `optional`: a browser that lacks or refuses one still shows messages. docs/page-client.md lists
 * the oldest browsers; tests/browser/floor.test.mjs removes newer features.
 *
 * For tests: <html data-state> is the connection, <html data-room> the subscription's status,
 * <html data-uplink> up or down; a message has data-sequence; a gap has class "gap", data-from and
 * data-to.
 */

/**
 * Maximum elements in the list of messages; the oldest are removed. Keeps phones smooth and memory
 * bounded.
 */
const MESSAGES_MAX = 200;
const NEAR_END = 48; // px: if scrolled closer to the end than this, the list follows new messages
const [TEXT_MAX, NAME_MAX, TITLE_MAX, DESCRIPTION_MAX] = [2000, 64, 200, 1000]; // characters

// ------------------------------------------------------------------------------------------- words

/** The result of `run`, or `otherwise` if the browser lacks or refuses the feature. */
const optional = (run, otherwise = undefined) => { try { return run(); } catch { return otherwise; } };

/**
 * The viewer's language as reported by the browser; some systems report `zh_CN`, `en-US@posix`,
 * `C`, or nothing.
 */
const language = String(optional(() => navigator.language || navigator.languages[0], "") || "");
const chinese = /^zh(?![a-z])/i.test(language);

/**
 * A formatter for the first locale that the browser accepts, then for its own; `plain` if it has
 * none at all.
 */
function formatter(kind, locales, options, plain) {
  for (const locale of [...locales, undefined]) {
    const format = optional(() => new Intl[kind](locale, options), null);
    if (format) return (value) => optional(() => format.format(value), plain(value));
  }
  return plain;
}

const locales = [language, language.replace(/[.@].*$/, "").replace(/_/g, "-")].filter(Boolean);
const two = (value) => String(value).padStart(2, "0");
const plainTime = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
const plainDate = (date) => `${date.getMonth() + 1}/${date.getDate()} ${plainTime(date)}`;
const number = formatter("NumberFormat", chinese ? [...locales, "zh"] : ["en"], { notation: "compact", maximumFractionDigits: 1 }, String);
const clock = formatter("DateTimeFormat", locales, { hour: "2-digit", minute: "2-digit" }, plainTime);
const dated = formatter("DateTimeFormat", locales, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" }, plainDate);

const words = chinese ? {
  stage: "画面与声音", messages: "消息", say: "说点什么", send: "发送", empty: "新消息会实时出现在这里。",
  unmute: "点按开启声音", play: "点按播放", mute: "静音", expand: "全屏", room: "直播间",
  connecting: "连接中…", joining: "进入中…", live: "直播中", reconnecting: "正在重新连接…", offline: "网络已断开",
  uplink: "等待房间恢复…", busy: "稍后自动重试…", ended: "已结束",
  endedTitle: "房间已结束", endedText: "如果重新开播，这里会自动恢复。", reopened: "房间重新开放了",
  denied: "无法打开这个链接", deniedText: "它可能已过期，或房间已关闭。", badLink: "这个链接不完整，请检查后重新打开。", again: "重试",
  tooLong: "消息太长了", slow: "发送太快", notSent: "未发送", sending: "发送中…", unsure: "可能未发送", outbox: "尚未发送的消息", about: (fate, text) => `${fate}：${text}`,
  you: "我", drop: "移除", outboxFull: "请先处理未发送的消息",
  joined: "进入了房间", gave: "送出了礼物",
  noPicture: "这里有画面，但当前浏览器无法显示。", noSound: "这里有声音，但当前浏览器无法播放。",
  noMedia: "这里有画面和声音，但当前浏览器无法播放。", otherBrowser: "请换用其他浏览器打开，或更新浏览器。消息不受影响。",
  watching: (count) => `${number(count)} 人在看`,
  host: (name) => `主持人：${name}`,
  missed: (count) => `错过了 ${number(count)} 条消息`,
  newer: (count) => (count > 99 ? "99+ 条新消息" : `${count} 条新消息`),
} : {
  stage: "Picture and sound", messages: "Messages", say: "Say something", send: "Send", empty: "New messages appear here.",
  unmute: "Tap for sound", play: "Tap to play", mute: "Mute", expand: "Full screen", room: "Live room",
  connecting: "Connecting…", joining: "Joining…", live: "Live", reconnecting: "Reconnecting…", offline: "You are offline",
  uplink: "Waiting for the room…", busy: "Trying again soon…", ended: "Ended",
  endedTitle: "This room has ended", endedText: "If it opens again, this page reconnects by itself.", reopened: "The room is open again",
  denied: "This link can’t be opened", deniedText: "It may have expired, or the room was closed.", badLink: "This link is incomplete. Check it and open it again.", again: "Try again",
  tooLong: "That message is too long", slow: "Too fast", notSent: "Not sent", sending: "Sending…", unsure: "Maybe not sent", outbox: "Messages that are not sent yet", about: (fate, text) => `${fate}: ${text}`,
  you: "you", drop: "Remove", outboxFull: "Send or remove the waiting messages first",
  joined: "joined", gave: "sent a gift",
  noPicture: "This browser can’t show this room’s picture.", noSound: "This browser can’t play this room’s sound.",
  noMedia: "This browser can’t play this room’s picture and sound.", otherBrowser: "Try another browser or a newer one. Messages are not affected.",
  watching: (count) => `${number(count)} watching`,
  host: (name) => `Hosted by ${name}`,
  missed: (count) => (count === 1 ? "1 message was missed" : `${number(count)} messages were missed`),
  newer: (count) => (count > 99 ? "99+ new messages" : count === 1 ? "1 new message" : `${count} new messages`),
};

const page = document.documentElement;
/** Elements by id; filled by `start`. */
const $ = {};
/** The subscription; null if the URL has no valid link. */
let room = null;

function translate() {
  page.lang = chinese ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = words[element.dataset.i18n];
  for (const element of document.querySelectorAll("[data-i18n-label]")) element.setAttribute("aria-label", words[element.dataset.i18nLabel]);
  $.say.placeholder = words.say;
}

// ---------------------------------------------------------------------------------- untrusted data

const record = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});

/**
 * Text without control characters, bidirectional overrides and repeated empty lines, truncated to
 * `max`; "" if not a string.
 */
function textOf(value, max) {
  if (typeof value !== "string") return "";
  const clean = value.slice(0, 4 * max).replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "").replace(/\n{3,}/g, "\n\n").trim();
  const characters = [...clean];
  return characters.length > max ? `${characters.slice(0, max).join("")}…` : clean;
}

function httpsOf(value) {
  if (typeof value !== "string" || value.length > 2048) return "";
  try {
    const url = new URL(value);
    return url.protocol === "https:" ? url.href : "";
  } catch { return ""; }
}

const colorOf = (value) => (typeof value === "string" && /^#[0-9a-f]{6}$/i.test(value) ? value.toLowerCase() : "");
const countOf = (value) => (Number.isFinite(value) && value >= 0 ? Math.floor(value) : null);

function dateOf(value) {
  const date = new Date(Number.isFinite(value) ? value : NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function show(element, text) {
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
}

// --------------------------------------------------------------------------------------- the state

let named = false;
let watching = "";

function showState(data) {
  const { title, description, cover, color, host, audience } = record(data);
  named = true;
  const name = textOf(title, TITLE_MAX) || words.room;
  show($.title, name);
  show($.host, textOf(host, NAME_MAX) && words.host(textOf(host, NAME_MAX)));
  show($.description, textOf(description, DESCRIPTION_MAX));
  $.mark.textContent = [...(textOf(host, NAME_MAX) || name)][0];
  document.title = name;
  const count = countOf(audience);
  watching = count === null ? "" : words.watching(count);
  arrange();
  paint(colorOf(color) || "#3b5bdb");
  const picture = httpsOf(cover);
  if (picture !== ($.cover.getAttribute("src") ?? "")) {
    $.cover.hidden = true; // until it has loaded: a broken image is worse than none
    if (picture) $.cover.src = picture;
    else $.cover.removeAttribute("src");
    arrange();
  }
}

/**
 * Sets the room's colours: unchanged for decoration, darkened under white text (WCAG AA requires a
 * contrast of 4.5).
 */
function paint(color) {
  const channels = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  let deep = channels;
  while (contrast(luminance(deep), 1) < 5.5) deep = deep.map((value) => value * 0.92);
  const light = luminance(channels);
  page.style.setProperty("--accent", color);
  page.style.setProperty("--on-accent", contrast(light, 1) >= 4.5 ? "#fff" : "#14161b");
  page.style.setProperty("--deep", `rgb(${deep.map(Math.round).join(" ")})`);
}

function luminance(channels) {
  const [red, green, blue] = channels.map((value) => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);

function watchState() {
  $.cover.addEventListener("load", () => { $.cover.hidden = false; arrange(); });
  $.cover.addEventListener("error", () => { $.cover.hidden = true; arrange(); });
  $.description.addEventListener("click", () => {
    $.description.setAttribute("aria-expanded", $.description.getAttribute("aria-expanded") !== "true");
  });
}

// ---------------------------------------------------------------------------------------- messages

const FRAME_MAX = 250; // ms: messages are drawn after this even without an animation frame (hidden page, frozen view)

let pending = [];
let drawing = 0; // the timer for FRAME_MAX
let following = true;
let pinned = 0; // the scroll position when the list last followed
let unread = 0;
const numbered = new Map(); // the epoch's messages by sequence, those that were removed from the list included

function enqueue(element) {
  pending.push(element);
  if (pending.length > MESSAGES_MAX) pending.shift();
  if (drawing) return;
  // Draw once per frame, however many messages come in.
  drawing = setTimeout(draw, FRAME_MAX);
  optional(() => requestAnimationFrame(draw));
}

function draw() {
  if (!drawing) return;
  clearTimeout(drawing);
  drawing = 0;
  const list = $.messages;
  const elements = pending;
  pending = [];
  const batch = document.createDocumentFragment();
  batch.append(...elements);
  list.append(batch);
  // For a reader further up, the text must not move when the oldest messages are removed.
  const height = list.scrollHeight;
  while (list.childElementCount > MESSAGES_MAX) list.firstElementChild.remove();
  if (following) return toEnd();
  list.scrollTop -= height - list.scrollHeight;
  unread += elements.filter((element) => "sequence" in element.dataset).length;
  show($.newer, unread > 0 ? words.newer(unread) : "");
}

function toEnd() {
  $.messages.scrollTop = $.messages.scrollHeight;
  pinned = $.messages.scrollTop;
  following = true;
  unread = 0;
  $.newer.hidden = true;
}

function watchMessages() {
  const list = $.messages;
  list.addEventListener("scroll", () => {
    // Only a reader scrolls up. A distant end can also mean that the stage has just grown and the
    // list is about to follow.
    following = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END || (following && list.scrollTop >= pinned);
    if (following && unread) toEnd();
  }, { passive: true });
  $.newer.addEventListener("click", () => { toEnd(); list.focus(); });
  // On a resize (keyboard, rotation, a growing stage), keep following.
  const resized = () => following && toEnd();
  if (!optional(() => (new ResizeObserver(resized).observe(list), true), false)) addEventListener("resize", resized);
}

const KINDS = new Map([["text", textMessage], ["notice", noticeMessage], ["gift", textMessage], ["join", joinMessage]]);

function showMessage(sequence, data) {
  const { text, from, avatar, at, kind, author, sequence: taken } = record(data);
  if (kind === "removed") return takeDown(taken);
  const known = KINDS.has(kind) ? kind : "text";
  const message = {
    kind: known,
    from: textOf(from, NAME_MAX),
    text: textOf(text, TEXT_MAX),
    avatar: httpsOf(avatar),
    date: dateOf(at),
    own: room.isOwn(author),
  };
  if (message.own) arrived(message.text);
  if (!message.text && message.from) message.text = { gift: words.gave, join: words.joined }[known] ?? "";
  if (!message.text) return;
  const element = make("div", message.own ? `message ${known} own` : `message ${known}`);
  element.dataset.sequence = sequence;
  KINDS.get(known)(element, message);
  numbered.set(sequence, element);
  if (numbered.size > MESSAGES_MAX) numbered.delete(numbered.keys().next().value);
  enqueue(element);
}

/** The business server took a message down: it goes, drawn or not. */
function takeDown(sequence) {
  const element = numbered.get(sequence);
  numbered.delete(sequence);
  pending = pending.filter((other) => other !== element);
  element?.remove();
}

function textMessage(element, { from, text, avatar, date, own }) {
  element.style.setProperty("--hue", hueOf(from));
  element.append(face(from, avatar));
  if (from || date || own) element.append(meta(from, date, own));
  else element.classList.add("unnamed");
  element.append(make("p", "text", text));
}

function noticeMessage(element, { from, text, date }) {
  if (from) element.append(meta(from, date));
  element.append(make("p", "text", text));
  if (!from && date) element.append(timeOf(date));
}

function joinMessage(element, { from, text }) {
  if (from && !text.startsWith(from)) element.append(make("bdi", "from", from), " ");
  element.append(make("bdi", "text", text));
}

function meta(from, date, own = false) {
  const line = make("div", "meta");
  if (from) line.append(make("bdi", "from", from));
  if (own) line.append(make("span", "you", words.you));
  if (date) line.append(timeOf(date));
  return line;
}

function timeOf(date) {
  const today = date.toDateString() === new Date().toDateString();
  const time = make("time", "", (today ? clock : dated)(date));
  time.dateTime = date.toISOString();
  return time;
}

function face(from, avatar) {
  const box = make("span", "avatar", [...from][0]?.toUpperCase() ?? "·");
  box.setAttribute("aria-hidden", "true");
  if (!avatar) return box;
  const image = make("img");
  image.alt = "";
  image.decoding = "async";
  image.referrerPolicy = "no-referrer";
  image.onload = () => { box.textContent = ""; box.append(image); };
  image.src = avatar;
  return box;
}

/**
 * Hues for names, chosen to stay distinct when darkened for contrast. The same name always has the
 * same hue.
 */
const HUES = [212, 340, 165, 268, 18, 192, 305, 235, 145, 2];

function hueOf(name) {
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 1_000_003;
  return String(HUES[hash % HUES.length]);
}

function showGap({ track, from, to, count }) {
  if (track !== "messages") return; // a gap in the media is visible anyway
  const element = make("div", "gap", words.missed(count));
  element.dataset.from = from;
  element.dataset.to = to;
  enqueue(element);
}

// ------------------------------------------------------------------------------- sound and picture

const tracks = { audio: {}, video: {} };
/** After this many consecutive failures, a track is considered unplayable in this browser. */
const FAILURES_MAX = 2;
const active = ({ status }) => status === "playing" || status === "stalled" || status === "blocked";

/** Decides what the stage shows: video, a sound animation, the cover, or the room's colour. */
function arrange() {
  const focused = document.activeElement;
  // While the video changes, for example when a host goes live, the stage keeps its layout.
  const changing = tracks.video.status === "starting" && $.stage.dataset.mode === "video";
  const picture = changing || (active(tracks.video) && $.video.videoWidth > 0);
  const cover = !$.cover.hidden;
  const sound = [tracks.audio, tracks.video].some((track) => active(track) && track.sound);
  const blocked = [tracks.audio, tracks.video].some((track) => track.status === "blocked");
  showUnplayable();
  $.stage.dataset.mode = picture ? "video" : sound ? "audio" : cover ? "cover" : "plain";
  if (!changing) $.stage.toggleAttribute("data-tall", picture && $.video.videoHeight > $.video.videoWidth);
  $.stage.toggleAttribute("data-playing", sound && !blocked);
  $.stage.toggleAttribute("data-over", !$.over.hidden);
  $.stage.toggleAttribute("data-waits", room.status !== "ended" && [tracks.audio, tracks.video].some(({ status }) => status === "stalled"));
  const quiet = room.muted;
  const live = room.status !== "ended";
  show($.audience, live ? watching : "");
  $.unmute.hidden = !(live && (blocked || (sound && quiet)));
  $.unmute.lastElementChild.textContent = blocked ? words.play : words.unmute;
  $.mute.hidden = !(live && sound && !quiet && !blocked);
  $.expand.hidden = !(live && picture && ($.stage.requestFullscreen || $.video.webkitEnterFullscreen));
  // Move the focus to the button that replaces the focused one: a hidden button can't keep it.
  if (focused === $.unmute && $.unmute.hidden) $.mute.focus();
  if (focused === $.mute && $.mute.hidden) $.unmute.focus();
}

/** Informs the viewer of media that this browser can't play. */
function showUnplayable() {
  const lacks = ({ status, failures }) => status === "unsupported" || (failures >= FAILURES_MAX && !["playing", "idle"].includes(status));
  const picture = lacks(tracks.video);
  const sound = (picture && tracks.video.sound) || lacks(tracks.audio);
  const word = room.status === "ended" || !(picture || sound) ? "" : words[picture && sound ? "noMedia" : picture ? "noPicture" : "noSound"];
  show($["unplayable-text"], word);
  show($["unplayable-help"], word && words.otherBrowser);
  $.unplayable.hidden = !word;
  $.stage.toggleAttribute("data-lacks", Boolean(word));
}

function showMedia(media) {
  const { failures = 0 } = tracks[media.track];
  const now = media.status === "failed" ? failures + 1 : ["playing", "idle"].includes(media.status) ? 0 : failures;
  tracks[media.track] = { ...media, failures: now };
  arrange();
}

function watchStage() {
  for (const type of ["loadeddata", "resize", "emptied"]) $.video.addEventListener(type, () => arrange());
  $.unmute.addEventListener("click", async () => {
    await room.unmute();
    arrange();
  });
  $.mute.addEventListener("click", () => {
    room.mute();
    arrange();
  });
  $.expand.addEventListener("click", () => optional(() => {
    if (document.fullscreenElement) document.exitFullscreen();
    else if ($.stage.requestFullscreen) $.stage.requestFullscreen()?.catch(() => {});
    else $.video.webkitEnterFullscreen();
  }));
}

// ------------------------------------------------------------------------------------------ status

let wasLive = false;
let busy = false;

function standing() {
  const { status, connection, uplink } = room;
  page.dataset.state = connection;
  page.dataset.room = status;
  page.dataset.uplink = uplink ? "up" : "down";
  const [word, tone] = status === "ended" ? ["ended", "off"]
    : room.offline || (connection !== "open" && optional(() => navigator.onLine) === false) ? ["offline", "warn"]
    : connection === "idle" && busy ? ["busy", "warn"]
    : connection !== "open" ? [wasLive || connection === "waiting" ? "reconnecting" : "connecting", "warn"]
    : status !== "live" ? [busy ? "busy" : "joining", "warn"]
    : uplink ? ["live", "live"] : ["uplink", "warn"];
  if ($["connection-text"].textContent !== words[word]) $["connection-text"].textContent = words[word];
  $.connection.dataset.tone = tone;
  $.composer.hidden = !(room.pageMessages || ($.composer.hidden === false && status === "asking"));
  $.chat.toggleAttribute("data-listens", !$.composer.hidden);
  arrange();
}

function live() {
  busy = false;
  if (!$.over.hidden) enqueue(make("div", "mark", words.reopened));
  $.over.hidden = $.denied.hidden = true;
  $.room.hidden = false;
  wasLive = true;
  standing();
  setTimeout(() => named || showState(null), 3000); // a room without a state still needs a title
}

function ended() {
  if (!$.over.hidden) return standing();
  $["over-title"].textContent = words.endedTitle;
  $["over-text"].textContent = words.endedText;
  $.over.hidden = false;
  enqueue(make("div", "mark", words.endedTitle));
  standing();
}

function denied(reason) {
  $["denied-title"].textContent = words.denied;
  $["denied-text"].textContent = room ? words.deniedText : words.badLink;
  show($["denied-reason"], textOf(reason, 256));
  $.again.hidden = !room;
  $.again.disabled = false;
  $.room.hidden = true;
  $.denied.hidden = false;
  document.title = words.denied;
  page.dataset.room = "denied";
}

// ----------------------------------------------------------------------------------------- sending

/** Lines that are not known to be sent, at most; then the next one stays in the field. */
const OUTBOX_MAX = 10;
/** ms: a line that is sent sooner is not shown as pending, so that nothing moves for it. */
const PENDING_SHOWN = 500;
let hintTimer = 0;

function hint(text) {
  clearTimeout(hintTimer);
  show($.hint, text);
  if (text) hintTimer = setTimeout(() => ($.hint.hidden = true), 4000);
}

const fits = () => new TextEncoder().encode($.say.value).length <= 512;

function watchComposer() {
  $.say.addEventListener("input", () => {
    $.send.disabled = !$.say.value.trim() || !fits();
    hint(fits() ? "" : words.tooLong);
  });
  $.composer.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $.say.value.trim();
    if (!text || !fits()) return;
    if ($.outbox.childElementCount >= OUTBOX_MAX) return hint(words.outboxFull);
    post(text);
    $.say.value = "";
    $.send.disabled = true;
    toEnd();
  });
}

/** Sends a line, and shows it until it is known what became of it. */
function post(text) {
  const [line, fate, acts] = [make("div", "outgoing"), make("span", "fate"), make("span", "acts")];
  const [again, drop] = [make("button", "", words.again), make("button", "", words.drop)];
  line.append(make("bdi", "text", text), fate, acts);
  acts.append(again, drop);
  for (const button of [again, drop]) button.type = "button";
  line.tabIndex = -1;
  line.hidden = true;
  const tell = (state, word) => {
    line.dataset.state = state;
    fate.textContent = word;
  };
  const attempt = async (id) => {
    tell("sending", words.sending);
    const late = setTimeout(() => unveil(line), PENDING_SHOWN);
    try {
      const answer = await room.send(text, id && { id });
      if (answer.state !== "unsure") return close(line);
      again.onclick = () => repeat(answer.id);
      tell("unsure", words.unsure);
    } catch (error) {
      again.onclick = () => repeat(error.id);
      tell("failed", /^too many/.test(error.reason) ? words.slow : words.notSent);
    } finally {
      clearTimeout(late);
    }
    delete line.dataset.arrived;
    unveil(line);
    $.fate.textContent = words.about(fate.textContent, text);
  };
  const repeat = (id) => {
    // The button goes; the focus must not go with it.
    if (acts.contains(document.activeElement)) line.focus({ preventScroll: true });
    attempt(id);
  };
  drop.onclick = () => close(line);
  $.outbox.append(line);
  attempt();
}

function unveil(line) {
  if (!line.hidden || "arrived" in line.dataset) return;
  line.hidden = $.outbox.hidden = false;
  $.outbox.scrollTop = line.offsetTop + line.offsetHeight - $.outbox.clientHeight;
}

function close(line) {
  veil(line);
  line.remove();
}

/** Hides a line. Its focus goes to the next one, or else to the messages. */
function veil(line) {
  const hadFocus = line.contains(document.activeElement);
  line.hidden = true;
  const next = [...$.outbox.children].find(({ hidden }) => !hidden);
  if (hadFocus) (next || $.messages).focus({ preventScroll: true });
  $.outbox.hidden = !next;
}

/** A line of one's own was published: it is not shown twice while its receipt is under way. */
function arrived(text) {
  const line = [...$.outbox.children].find(({ dataset, firstChild }) => dataset.state === "sending" && !("arrived" in dataset) && firstChild.textContent === text);
  if (!line) return;
  line.dataset.arrived = "";
  veil(line);
}

// ------------------------------------------------------------------------------------------- start

/** Called once, when the document is parsed and the client is loaded. */
export function start({ ShareLink }) {
  for (const element of document.querySelectorAll("[id]")) $[element.id] = element;
  translate();
  paint("#3b5bdb");
  // Any of these characters may be percent-encoded: `%7E` is `~`.
  const path = optional(() => decodeURIComponent(location.pathname), location.pathname);
  const link = /^\/s\/([A-Za-z0-9\-_.~]{1,128})\/?$/.exec(path)?.[1];
  if (!link) return denied("");
  room = new ShareLink().subscribe(link, { video: $.video, audio: $.audio });
  listen({
    state: ({ data }) => showState(data),
    message: ({ sequence, data }) => showMessage(sequence, data),
    gap: showGap,
    epoch: () => numbered.clear(),
    media: showMedia,
    sound: arrange,
    connection: standing,
    uplink: standing,
    subscribed: live,
    end: ended,
    denied: ({ reason, retry }) => {
      busy = retry !== null;
      if (room.status === "denied") denied(reason);
      standing();
    },
  });
  watchState();
  watchMessages();
  watchStage();
  watchComposer();
  $.again.addEventListener("click", () => {
    $.again.disabled = true;
    room.askAgain();
  });
  standing();
}

function listen(handlers) {
  for (const [type, handle] of Object.entries(handlers)) room.addEventListener(type, ({ detail }) => handle(detail));
}
