/**
 * host.js: the demo's host page.
 *
 * Owns: the texts in Chinese and English, the camera and its recorder, the connection to the demo
 * business server.
 * Refuses: to insert anything as HTML; text is only inserted by textContent.
 * Does not know: the uplink, the relay, or how a recording is split. The server does that.
 *
 * Sends commands as JSON, and after a `live` command the recording as binary frames; receives
 * `room`, `message` and `refused`.
 * For tests: <html data-room> is open or closed, <html data-air> is clip, camera or off, and
 * <html data-connected> is present while connected.
 */

const MESSAGES_MAX = 200; // elements in the list; the oldest are removed
const NEAR_END = 60; // px: if scrolled closer to the end than this, the list follows new messages
const SLICE = 250; // ms of recording per frame
const WAITING_MAX = 8 << 20; // bytes of recording buffered for the server; beyond that, live is stopped

// Types that browsers record and share pages play, in order of preference. Types without codecs are
// last, since what a browser then records is only known once it does.
const TYPES = [
  "video/mp4;codecs=avc1.42E01E,mp4a.40.2", "video/mp4;codecs=avc1.42E01E,opus", "video/mp4",
  "video/webm;codecs=vp8,opus", "video/webm;codecs=vp9,opus", "video/webm",
];
const SOUND_TYPES = ["audio/mp4;codecs=mp4a.40.2", "audio/mp4;codecs=opus", "audio/webm;codecs=opus", "audio/mp4", "audio/webm"];

const chinese = /^zh\b/i.test(navigator.language);
const clock = new Intl.DateTimeFormat(navigator.language, { hour: "2-digit", minute: "2-digit" });
const words = chinese ? {
  page: "主持页面", live: "用摄像头开播", stop: "停止，回到短片", end: "结束房间", reopen: "重新开放房间", title: "标题", setTitle: "更改", share: "分享链接",
  copy: "复制", copied: "已复制", messages: "消息", empty: "还没有人说话。", say: "以主持人身份说点什么", send: "发送",
  closedStage: "房间已关闭，观众看到的是结束画面。", onClip: "正在播放短片", onCamera: "你正在直播", onStarting: "摄像头启动中…", onNothing: "未播出",
  open: "房间开放中", closed: "房间已关闭", waiting: "正在连接…", alone: "中继未连接",
  watching: (count) => `${count} 人在看`,
  joined: "进入了房间", gave: "送出了礼物",
  noCamera: "没有找到摄像头或麦克风。", notAllowed: "浏览器没有得到使用摄像头和麦克风的许可。", inUse: "摄像头或麦克风正被其他程序使用。",
  noRecorder: "这个浏览器不能录制观众可以播放的格式。", lost: "与服务器的连接断开了，直播已停止。",
  refused: { closed: "房间已关闭。", busy: "另一个主持页面正在直播。", empty: "内容不能为空。", unplayable: "观众的浏览器无法播放这种录制格式。", broken: "录制的数据无法处理，已回到短片。", "too-large": "录制的片段太大，已回到短片。" },
} : {
  page: "Host page", live: "Go live with the camera", stop: "Stop, back to the clip", end: "End the room", reopen: "Reopen the room", title: "Title", setTitle: "Change", share: "Share link",
  copy: "Copy", copied: "Copied", messages: "Messages", empty: "Nobody has said anything yet.", say: "Say something as the host", send: "Send",
  closedStage: "The room is closed. Viewers see that it has ended.", onClip: "The clip is on", onCamera: "You are live", onStarting: "Starting the camera…", onNothing: "Off the air",
  open: "The room is open", closed: "The room is closed", waiting: "Connecting…", alone: "No relay is connected",
  watching: (count) => `${count} watching`,
  joined: "joined", gave: "sent a gift",
  noCamera: "No camera or microphone was found.", notAllowed: "The browser was not allowed to use the camera and the microphone.", inUse: "Another program is using the camera or the microphone.",
  noRecorder: "This browser can’t record in a format that viewers can play.", lost: "The connection to the server was lost. You are no longer live.",
  refused: { closed: "The room is closed.", busy: "Another host page is live.", empty: "The text is empty.", unplayable: "Viewers’ browsers can’t play this kind of recording.", broken: "The recording could not be used. The clip is back.", "too-large": "A piece of the recording was too large. The clip is back." },
};

const page = document.documentElement;
const $ = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
page.lang = chinese ? "zh-Hans" : "en";
document.title = words.page;
for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = words[element.dataset.i18n];
for (const element of document.querySelectorAll("[data-i18n-label]")) element.setAttribute("aria-label", words[element.dataset.i18nLabel]);
for (const element of document.querySelectorAll("[data-i18n-placeholder]")) element.placeholder = words[element.dataset.i18nPlaceholder];

let room = null; // the last `room` note from the server
let recording = null; // { recorder, stream } while this page is live or starting
let socket = null;
let retry = 0;
let noteTimer = 0;

// -------------------------------------------------------------------------------------- connection

function connect() {
  socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/ws${location.search}`);
  socket.onopen = () => { retry = 0; page.dataset.connected = ""; $.messages.replaceChildren(); show(); };
  socket.onmessage = ({ data }) => {
    const note = JSON.parse(data);
    if (note.type === "room") { room = note; show(); }
    else if (note.type === "message") list(note.data);
    else if (note.type === "refused") refuse(note.reason);
  };
  socket.onclose = () => {
    delete page.dataset.connected;
    if (recording) { release(); notify(words.lost); }
    show();
    setTimeout(connect, Math.min(250 * 2 ** retry++, 4000));
  };
}

function command(type, fields = {}) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, ...fields }));
}

function refuse(reason) {
  if (["busy", "unplayable", "broken", "too-large"].includes(reason)) release();
  notify(words.refused[reason] ?? String(reason));
  show();
}

// ----------------------------------------------------------------------------------- what is shown

function show() {
  const connected = "connected" in page.dataset;
  const open = Boolean(room?.open);
  const live = Boolean(recording);
  page.dataset.room = open ? "open" : "closed";
  page.dataset.air = !open ? "off" : room?.on_air ? "camera" : "clip";
  page.dataset.tone = !connected ? "waiting" : !room?.relays ? "bad" : open ? "good" : "off";
  const status = !connected ? words.waiting : !room?.relays ? words.alone : open ? words.open : words.closed;
  if ($.status.textContent !== status) $.status.textContent = status;
  const air = !open ? words.onNothing : room?.on_air ? words.onCamera : live || room?.live ? words.onStarting : words.onClip;
  if ($["air-text"].textContent !== air) $["air-text"].textContent = air;

  $.audience.textContent = words.watching(room?.audience ?? 0);
  $.name.textContent = room?.title ?? "";
  $.about.textContent = room?.description ?? "";
  $.mark.textContent = [...(room?.host ?? "")][0] ?? "";
  $.title.placeholder = room?.title ?? "";
  if (/^#[0-9a-f]{6}$/i.test(room?.color ?? "")) page.style.setProperty("--accent", room.color);
  if (/^https?:\/\//.test(room?.share ?? "")) { $.share.href = room.share; $.share.textContent = room.share.replace(/^https?:\/\//, ""); }

  $.live.hidden = live || !open;
  $.stop.hidden = !live || !open;
  $.end.hidden = !open;
  $.reopen.hidden = open || !room;
  $.closed.hidden = open || !room;
  $.camera.hidden = !live;
  for (const id of ["live", "stop", "end", "reopen"]) $[id].disabled = !connected;
  $["set-title"].disabled = !connected || !open;
  $.send.disabled = !connected || !open || !$.message.value.trim();
  if (!open && recording) release();
}

function list(message) {
  const kind = ["notice", "gift", "join"].includes(message.kind) ? message.kind : "text";
  const text = String(message.text ?? "") || (kind === "join" ? words.joined : kind === "gift" ? words.gave : "");
  const from = String(message.from ?? "");
  const follow = $.messages.scrollHeight - $.messages.scrollTop - $.messages.clientHeight < NEAR_END;
  const item = document.createElement("li");
  item.className = kind;
  if (kind === "notice" || !from) {
    item.classList.add("notice");
    item.textContent = text;
  } else {
    if (from === room?.host) item.classList.add("host");
    item.style.setProperty("--hue", String([...from].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7)));
    const time = element("time", "", clock.format(new Date(Number(message.at) || Date.now())));
    const meta = element("div", "meta");
    meta.append(element("span", "from", from), time);
    item.append(element("span", "avatar", [...from][0].toUpperCase()), meta, element("p", "text", text));
    item.firstChild.ariaHidden = "true";
  }
  $.messages.append(item);
  while ($.messages.childElementCount > MESSAGES_MAX) $.messages.firstElementChild.remove();
  if (follow) $.messages.scrollTop = $.messages.scrollHeight;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function notify(text) {
  clearTimeout(noteTimer);
  $.note.textContent = text;
  $.note.hidden = false;
  noteTimer = setTimeout(() => { $.note.hidden = true; }, 8000);
}

// -------------------------------------------------------------------------------------- going live

async function goLive() {
  if (recording) return;
  const own = recording = { stream: null, recorder: null };
  $.note.hidden = true;
  show();
  try {
    own.stream = await devices();
  } catch (error) {
    if (recording === own) release();
    notify({ NotAllowedError: words.notAllowed, SecurityError: words.notAllowed, NotReadableError: words.inUse }[error.name] ?? words.noCamera);
    return show();
  }
  if (recording !== own) return own.stream.getTracks().forEach((track) => track.stop()); // stopped in the meantime
  $.camera.srcObject = own.stream;
  $.camera.play().catch(() => {});
  own.stream.getTracks().forEach((track) => { track.onended = () => stopLive(own); });
  const types = own.stream.getVideoTracks().length ? TYPES : SOUND_TYPES;
  record(own, types.filter((type) => MediaRecorder.isTypeSupported(type)));
}

/** Camera and microphone, or whichever of them exists. */
async function devices() {
  const video = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24, max: 30 } };
  const audio = { echoCancellation: true, noiseSuppression: true };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio });
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
    return navigator.mediaDevices.getUserMedia({ video }).catch(() => navigator.mediaDevices.getUserMedia({ audio }));
  }
}

/**
 * Records with the first type that share pages can play. The actual type is known with the first
 * bytes.
 */
function record(own, types) {
  const type = types.shift();
  if (type === undefined) {
    release();
    notify(words.noRecorder);
    return show();
  }
  if (type.includes("codecs") && !playable(type)) return record(own, types);
  const recorder = own.recorder = new MediaRecorder(own.stream, {
    mimeType: type, videoBitsPerSecond: 700_000, audioBitsPerSecond: 48_000, videoKeyFrameIntervalDuration: 1000,
  });
  let announced = false;
  let order = Promise.resolve(); // chains the reads of blobs, to keep their order
  recorder.ondataavailable = ({ data }) => {
    order = order.then(async () => {
      const bytes = await data.arrayBuffer();
      if (!bytes.byteLength || own.recorder !== recorder || recording !== own || socket?.readyState !== WebSocket.OPEN) return;
      if (!announced) {
        if (!playable(recorder.mimeType)) {
          recorder.ondataavailable = null;
          if (recorder.state !== "inactive") recorder.stop();
          return record(own, types);
        }
        announced = true;
        command("live", { mime: recorder.mimeType });
      }
      if (socket.bufferedAmount > WAITING_MAX) return stopLive(own);
      socket.send(bytes);
    });
  };
  recorder.onerror = () => stopLive(own);
  recorder.start(SLICE);
}

function playable(type) {
  const source = window.ManagedMediaSource ?? window.MediaSource;
  return source ? source.isTypeSupported(type) : true;
}

function stopLive(own = recording) {
  if (!own || own !== recording) return;
  release();
  command("stop");
  show();
}

/** Releases camera and recorder. Discards what the recorder has not delivered yet. */
function release() {
  const own = recording;
  recording = null;
  if (!own) return;
  if (own.recorder && own.recorder.state !== "inactive") {
    own.recorder.ondataavailable = null;
    own.recorder.stop();
  }
  own.stream?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
  $.camera.srcObject = null;
}

// ------------------------------------------------------------------------------ what the host does

$.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $.message.value.trim();
  if (!text || $.send.disabled) return;
  command("say", { text });
  $.message.value = "";
  $.messages.scrollTop = $.messages.scrollHeight;
  show();
});
$.message.addEventListener("input", show);
$.naming.addEventListener("submit", (event) => {
  event.preventDefault();
  const title = $.title.value.trim();
  if (!title || $["set-title"].disabled) return;
  command("title", { title });
  $.title.value = "";
});
$.live.addEventListener("click", goLive);
$.stop.addEventListener("click", () => stopLive());
$.end.addEventListener("click", () => command("end"));
$.reopen.addEventListener("click", () => { $.messages.replaceChildren(); command("reopen"); });
$.copy.addEventListener("click", async () => {
  await navigator.clipboard.writeText($.share.href).catch(() => {});
  $.copy.textContent = words.copied;
  setTimeout(() => { $.copy.textContent = words.copy; }, 1500);
});
connect();
