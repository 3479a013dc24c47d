/**
 * sharelink.js: the page client of sharelinkd, one ES module without dependencies.
 *
 * Owns: one WebSocket to a relay (`ShareLink`), the subscriptions made over it (`Subscription`), each one's
 * counters, and the playing of its sound and picture by Media Source Extensions (`Player`).
 * Refuses: to look into anyone's `data` (it is handed on as parsed, and is untrusted), to draw anything, to keep
 * messages, and to guess from a browser's name: what a browser can do is asked at run time.
 * Does not know: what a room is, who may see it, or where the page came from.
 *
 * The protocol is docs/protocol.md, "Page"; the interface is sharelink.d.ts; the manual is docs/page-client.md, which also
 * names the oldest browsers: tests/browser/floor.test.mjs holds this file to them.
 */

const SUBPROTOCOL = "sharelink.v1";
const TRACKS = ["state", "messages", "audio", "video"];
const [STATE, MESSAGES, AUDIO, VIDEO] = [0, 1, 2, 3];
const [INIT, START] = [1, 2];

// ---------------------------------------------------------------------------------------------- limits, all in ms
/** Full jitter: the n-th wait is anywhere between 0 and BACKOFF_MIN * BACKOFF_GROWTH^n, at most BACKOFF_MAX. Less
 *  than doubling, so that a relay that was away for seconds is found again within seconds. */
const BACKOFF_MIN = 500;
const BACKOFF_GROWTH = 1.6;
const BACKOFF_MAX = 30_000;
/** A confirmed subscription must hold this long before the back-off begins anew: a relay that accepts and falls
 *  over at once would otherwise be met by an endless stampede. */
const STEADY = 10_000;
/** The relay says `alive` after 15 s of silence, so this is two of them missed and some more. */
const SILENCE = 40_000;
/** The same for a page that was just looked at again: one missed is enough, the viewer is waiting. */
const SILENCE_SEEN = 20_000;
const BEAT = 5_000;
const CONNECT_TIMEOUT = 15_000;
/** After an `end` that the page did not ask for: a room that reopens comes back within this, give or take a quarter. */
const ASK_AGAIN = 30_000;
/** After 1008 (kicked, or a limit broken): coming straight back would only be refused again. */
const REFUSED = 30_000;
/** A wait named by the relay is believed up to here. */
const RETRY_MAX = 300_000;
/** Where nothing is there and nothing is asked for within this, the connection is let go: the relay would close it. */
const REST = 5_000;
const SEND_SIZE_MAX = 512;

/** What `run` returns; `otherwise` where the browser lacks it or refuses it. */
const optional = (run, otherwise = undefined) => { try { return run(); } catch { return otherwise; } };
/** ms that only grow. Every wait is measured by it: the wall clock of a phone may jump by hours. It may stand still while
 *  a device sleeps, which is allowed for. */
const now = Number.isFinite(optional(() => performance.now())) ? () => performance.now() : counted;

/** The same without the browser's help: a step of the wall clock counts as little more than a beat at most. */
let [counts, countedAt] = [0, NaN];
function counted() {
  const at = Date.now();
  if (!(countedAt <= at)) countedAt = at; // the first look, or a clock that was set back
  counts += Math.min(at - countedAt, BEAT + 1_000);
  countedAt = at;
  return counts;
}

const emit = (target, type, detail) => target.dispatchEvent(new CustomEvent(type, { detail }));
const between = (low, high) => low + Math.random() * (high - low);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const isSequence = (value) => Number.isSafeInteger(value) && value > 0;

// The doors between the classes of this module; nobody outside holds these keys.
const ask = Symbol("ask");
const say = Symbol("say");
const settle = Symbol("settle");
const isResting = Symbol("isResting");
const isNeeded = Symbol("isNeeded");
const receive = Symbol("receive");
const receiveMedia = Symbol("receiveMedia");
const lost = Symbol("lost");
const since = Symbol("since");

// ============================================================================================== the connection

/** One connection to a relay. It opens with the first subscription and closes with the last one. */
export class ShareLink extends EventTarget {
  #url;
  #socket = null;
  #state = "idle";
  #uplink = true;
  #subscriptions = new Set();
  #asked = new Map(); // id of a `subscribe` that has no answer yet -> { subscription, at }
  #topics = new Map(); // topic number on this connection -> subscription
  #id = 0;
  #attempt = 0;
  #notBefore = 0; // a wait that the relay asked for: not even the viewer's return shortens it
  #began = 0;
  #heard = 0;
  #seen = 0; // when the viewer came back last
  #beaten = 0;
  #retryTimer = 0;
  #beatTimer = 0;
  #steadyTimer = 0;
  #listening = [];

  /** @param {string | URL} [url] the relay; by default the one that served this module */
  constructor(url) {
    super();
    this.#url = socketAddress(url);
    const on = (target, type, run) => this.#listening.push(listen(target, type, run));
    on(window, "pagehide", () => this.#state !== "idle" && this.#drop("away"));
    on(window, "pageshow", () => this.#returned());
    on(window, "online", () => this.#returned());
    on(document, "resume", () => this.#returned());
    on(document, "visibilitychange", () => optional(() => document.visibilityState) !== "hidden" && this.#returned());
  }

  get url() { return this.#url; }
  get connection() { return this.#state; }
  /** Whether the relay's own link to the business server is up, as far as the relay said. */
  get uplink() { return this.#uplink; }

  subscribe(link, options = {}) {
    if (this.#state === "closed") throw new Error("this ShareLink was closed");
    const subscription = new Subscription(this, link, options);
    this.#subscriptions.add(subscription);
    this[ask](subscription);
    return subscription;
  }

  close() {
    if (this.#state === "closed") return;
    for (const leave of this.#listening) leave();
    this.#drop("closed");
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
  }

  // ---- for subscriptions

  [ask](subscription) {
    if (this.#state === "idle") this.#connectInTime();
    // Otherwise everything wanted is asked for when the connection opens.
    if (this.#state !== "open") return;
    for (const waiting of this.#asked.values()) if (waiting.subscription === subscription) return;
    this.#id = (this.#id % 0xffff_ffff) + 1; // u32, never 0
    this.#asked.set(this.#id, { subscription, at: now() });
    this[say]({ type: "subscribe", id: this.#id, link: subscription.link, since: subscription[since]() });
  }

  [say](frame) {
    if (this.#state !== "open" || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame)); // an undefined `since` is left out by JSON
    return true;
  }

  /** Something is no longer wanted, or not now: forget it, and close when nothing is left. */
  [settle]() {
    if (this.#wanted() || this.#asked.size + this.#topics.size > 0) return;
    if (this.#state !== "closed" && this.#state !== "idle") this.#drop("idle");
  }

  #wanted() {
    for (const subscription of this.#subscriptions) {
      if (subscription.status === "closed") this.#subscriptions.delete(subscription);
    }
    return [...this.#subscriptions].some((subscription) => subscription[isNeeded]);
  }

  // ---- opening and losing

  /** Connects, but not before the time that the relay named. */
  #connectInTime() {
    const wait = this.#notBefore - now();
    if (wait <= 0) return this.#connect();
    this.#retryTimer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting", { wait: Math.round(wait), attempt: this.#attempt });
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#began = this.#heard = this.#beaten = now();
    this.#seen = 0;
    this.#uplink = true;
    let socket;
    try {
      socket = this.#socket = new WebSocket(this.#url, SUBPROTOCOL);
    } catch (error) { // forbidden by a policy, or none in this browser: as any other failure, tried again
      return this.#closed(1006, String(error?.message ?? error));
    }
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    socket.onmessage = ({ data }) => {
      this.#heard = now();
      if (typeof data === "string") this.#receiveText(data);
      else this.#receiveBinary(data);
    };
    this.#beatTimer = setInterval(() => this.#beat(), BEAT);
    this.#become("connecting");
  }

  #opened() {
    this.#heard = now();
    this.#become("open");
    for (const subscription of this.#subscriptions) {
      if (subscription.status !== "closed" && !subscription[isResting]) this[ask](subscription);
    }
    this[settle]();
  }

  #closed(code, reason) {
    this.#drop(null);
    const retry = code === 1012 || code === 1013 ? retryOf(reason) : null;
    const wait = retry ?? (code === 1008 ? between(REFUSED, 2 * REFUSED)
      : between(0, Math.min(BACKOFF_MAX, BACKOFF_MIN * BACKOFF_GROWTH ** this.#attempt)));
    this.#notBefore = retry !== null || code === 1008 ? now() + wait : 0;
    this.#attempt = Math.min(this.#attempt + 1, 16);
    if (!this.#wanted()) return this.#become("idle", { code, reason });
    this.#retryTimer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting", { code, reason, wait: Math.round(wait), attempt: this.#attempt });
  }

  /** Lets go of the socket at once: a dead network can hold back its `close` event for minutes. */
  #drop(state) {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#steadyTimer);
    clearInterval(this.#beatTimer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onclose = socket.onmessage = null;
      socket.close(1000);
    }
    this.#asked.clear();
    this.#topics.clear();
    for (const subscription of this.#subscriptions) subscription[lost]();
    if (state) this.#become(state);
  }

  /** The viewer, or the network, is back. */
  #returned() {
    const since = now() - this.#began;
    if (this.#state === "away" || (this.#state === "waiting" && now() >= this.#notBefore && since > 1_000)) {
      if (this.#wanted()) this.#connect();
      else this.#drop("idle");
    } else if (this.#state === "connecting" && since > 3_000) {
      this.#drop(null); // begun on a network that is gone
      this.#connect();
    } else if (this.#state === "open") {
      this.#seen = now();
      // After a freeze the frames that came meanwhile are still queued behind this event: judge a little later.
      setTimeout(() => this.#judge(SILENCE_SEEN), 1_500);
    }
  }

  #beat() {
    const late = now() - this.#beaten > 3 * BEAT;
    this.#beaten = now();
    // A throttled or frozen tab: what was received may be queued behind this timer, so let it in first.
    if (late) setTimeout(() => this.#judge(SILENCE), 2_000);
    else this.#judge(SILENCE);
  }

  #judge(limit) {
    const at = now();
    if (this.#state === "connecting" && at - this.#began > CONNECT_TIMEOUT) return this.#closed(1006, "no connection");
    if (this.#state !== "open") return;
    // A clock that stood still while the device slept knows nothing of that silence; of the one since then it does.
    const unheard = this.#seen > this.#heard && at - this.#seen > SILENCE_SEEN;
    if (unheard || at - this.#heard > limit) return this.#closed(1006, "the relay fell silent");
    for (const asked of this.#asked.values()) {
      if (at - asked.at > SILENCE) return this.#closed(1006, "the relay did not answer");
    }
  }

  #become(state, more = {}) {
    this.#state = state;
    this.#tell("connection", { state, ...more });
  }

  #tell(type, detail) {
    emit(this, type, detail);
    for (const subscription of this.#subscriptions) emit(subscription, type, detail);
  }

  // ---- receiving

  #receiveText(text) {
    let frame;
    try { frame = JSON.parse(text); } catch { return; }
    if (frame === null || typeof frame !== "object") return;
    switch (frame.type) {
      case "subscribed":
      case "denied": {
        const subscription = this.#asked.get(frame.id)?.subscription;
        if (!subscription) return;
        this.#asked.delete(frame.id);
        if (frame.type === "subscribed") this.#confirmed(subscription, frame);
        else if (subscription.status === "closed") this[settle]();
        else subscription[receive](frame);
        return;
      }
      case "uplink":
        this.#uplink = frame.up !== false;
        return this.#tell("uplink", { up: this.#uplink });
      case "error":
        return this.#tell("error", { reason: String(frame.reason ?? "") });
      case "end": {
        const subscription = this.#topics.get(frame.topic);
        this.#topics.delete(frame.topic);
        subscription?.[receive](frame);
        return this[settle]();
      }
      default:
        this.#topics.get(frame.topic)?.[receive](frame);
    }
  }

  #confirmed(subscription, frame) {
    this.#topics.set(frame.topic, subscription);
    // Given up while it was being asked for.
    if (subscription.status === "closed") return void this[say]({ type: "unsubscribe", topic: frame.topic });
    clearTimeout(this.#steadyTimer);
    this.#steadyTimer = setTimeout(() => (this.#attempt = 0), STEADY);
    subscription[receive](frame);
  }

  /** Byte 0 track, 1 part, u32 topic, u64 sequence; for an init: u8 length and the MIME type; then the chunk. */
  #receiveBinary(data) {
    if (data.byteLength < 14) return;
    const view = new DataView(data);
    const [track, part] = [view.getUint8(0), view.getUint8(1)];
    const sequence = view.getUint32(6) * 2 ** 32 + view.getUint32(10);
    if ((track !== AUDIO && track !== VIDEO) || part < INIT || part > 3 || !isSequence(sequence)) return;
    let start = 14;
    let mime = "";
    if (part === INIT) {
      if (data.byteLength < 15) return;
      start = 15 + view.getUint8(14);
      if (data.byteLength < start) return;
      mime = new TextDecoder().decode(new Uint8Array(data, 15, start - 15));
    }
    this.#topics.get(view.getUint32(2))?.[receiveMedia](track, part, sequence, mime, new Uint8Array(data, start));
  }
}

// ============================================================================================== one share link

/** What one share link shows. Made by `ShareLink.subscribe()`. */
export class Subscription extends EventTarget {
  #relay;
  #link;
  #status = "asking";
  #topic = null;
  #epoch = null;
  #pageMessages = false;
  #next = [0, 0, 0, 0]; // the next sequence wanted of each track; 0: whatever comes first
  #players = [];
  #askTimer = 0;
  #askAt = 0;
  #resting = false; // denied, for good or until `#askAt`
  #askDenied; // seconds, or 0

  constructor(relay, link, { audio, video, muted = false, lag = 1.5, askDenied = 0 } = {}) {
    super();
    if (!/^[A-Za-z0-9\-_.~]{1,128}$/.test(link)) throw new TypeError("not a share link: 1 to 128 of A-Z a-z 0-9 - _ . ~");
    this.#relay = relay;
    this.#link = String(link);
    this.#askDenied = askDenied;
    for (const track of [AUDIO, VIDEO]) {
      this.#players[track] = new Player(TRACKS[track], { lag, muted, tell: (type, detail) => emit(this, type, detail) });
    }
    this.#players[AUDIO].leader = this.#players[VIDEO];
    this.#players[VIDEO].follower = this.#players[AUDIO];
    this.attach({ audio, video });
  }

  get link() { return this.#link; }
  get status() { return this.#status; }
  get epoch() { return this.#epoch; }
  get pageMessages() { return this.#status === "live" && this.#pageMessages; }
  get uplink() { return this.#relay.uplink; }
  get connection() { return this.#relay.connection; }
  get muted() { return this.#players.every((player) => player.muted); }

  /** Plays the tracks into these elements from now on; `null` takes one away. */
  attach({ audio, video } = {}) {
    if (audio !== undefined) this.#players[AUDIO].attach(audio);
    if (video !== undefined) this.#players[VIDEO].attach(video);
  }

  /** To be called from a real tap, click or key. Resolves to whether sound is on now. */
  async unmute() {
    // Both are started before anything is awaited: the gesture counts only within its own event.
    const freed = await Promise.all(this.#players.map((player) => player.unmute()));
    return freed.includes(true);
  }

  mute() {
    for (const player of this.#players) player?.mute();
  }

  send(data) {
    // Through bytes and back: a lone surrogate would make JSON that no Rust parser takes.
    const bytes = new TextEncoder().encode(String(data));
    if (bytes.length > SEND_SIZE_MAX) throw new RangeError(`a page's message is at most ${SEND_SIZE_MAX} bytes of UTF-8`);
    if (!this.pageMessages) return false;
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    return this.#relay[say]({ type: "send", topic: this.#topic, data: text });
  }

  /** Asks at once, whatever was answered before. */
  askAgain() {
    if (this.#status === "closed" || this.#status === "live") return;
    clearTimeout(this.#askTimer);
    this.#resting = false;
    if (this.#status === "denied") this.#status = "asking";
    this.#relay[ask](this);
  }

  unsubscribe() {
    if (this.#status === "closed") return;
    const told = this.#status === "live" && this.#relay[say]({ type: "unsubscribe", topic: this.#topic });
    this.#status = "closed";
    clearTimeout(this.#askTimer);
    for (const player of this.#players) player?.attach(null);
    if (told) return; // the relay answers with `end`
    emit(this, "end", { reason: "", asked: true });
    this.#relay[settle]();
  }

  // ---- for the connection

  /** What the page holds already: the relay goes on from there. */
  [since]() {
    return this.#epoch === null ? undefined : { epoch: this.#epoch, next: this.#next };
  }

  /** Not to be asked for when the connection opens: it was denied, and its time has not come. */
  get [isResting]() { return this.#resting; }

  /** Whether it wants a connection now. */
  get [isNeeded]() {
    if (this.#status === "closed" || this.#status === "denied") return false;
    return !this.#resting || this.#askAt - now() < REST;
  }

  [lost]() {
    if (this.#status === "closed") {
      if (this.#topic !== null) emit(this, "end", { reason: "", asked: true });
    } else if (this.#status === "live") this.#status = "asking";
    this.#topic = null;
  }

  [receive](frame) {
    if (this.#status === "closed" && frame.type !== "end") return;
    switch (frame.type) {
      case "subscribed": return this.#confirmed(frame);
      case "denied": return this.#denied(frame);
      case "state":
      case "message": return this.#value(frame);
      case "gap": return this.#gap(frame);
      case "epoch": return this.#newEpoch(String(frame.epoch));
      case "end": return this.#ended(String(frame.reason ?? ""));
    }
  }

  #confirmed({ topic, epoch, page_messages }) {
    clearTimeout(this.#askTimer);
    this.#resting = false;
    this.#status = "live";
    this.#topic = topic;
    this.#pageMessages = page_messages === true;
    if (this.#epoch === null) this.#epoch = String(epoch);
    else if (this.#epoch !== String(epoch)) this.#newEpoch(String(epoch));
    // Media is served as to a late page. A player in the middle of a group drops what it has and goes on where
    // it stopped; any other takes the group from its start, which it may have counted already.
    for (const track of [AUDIO, VIDEO]) if (!this.#players[track].inGroup) this.#next[track] = 0;
    emit(this, "subscribed", { epoch: this.#epoch, pageMessages: this.#pageMessages });
  }

  #denied({ reason, retry }) {
    const wait = Number.isFinite(retry) && retry >= 0 ? clamp(retry * 1000, 100, RETRY_MAX) : null;
    // A room that ended is asked for until it reopens, and may well be denied till then.
    const again = wait !== null ? wait * between(1, 1.2)
      : this.#status === "ended" ? ASK_AGAIN * between(0.75, 1.25)
      : this.#askDenied > 0 ? this.#askDenied * 1000 * between(0.75, 1.25) : null;
    // What was live once and is denied when it comes back has ended meanwhile, as the relay itself says to those who stayed.
    const isOver = wait === null && this.#status !== "ended" && this.#epoch !== null;
    if (isOver) this.#ended(String(reason ?? ""));
    this.#resting = true; // and the connection with it: the relay closes pages that watch nothing
    if (isOver) return this.#relay[settle]();
    if (wait === null && this.#status !== "ended") this.#status = "denied";
    if (again !== null) this.#askLater(again);
    emit(this, "denied", { reason: String(reason ?? ""), retry: again === null ? null : again / 1000 });
    this.#relay[settle]();
  }

  #ended(reason) {
    this.#topic = null;
    if (this.#status === "closed") return emit(this, "end", { reason, asked: true });
    this.#resting = false;
    this.#status = "ended";
    for (const player of this.#players) player?.stop();
    this.#askLater(ASK_AGAIN * between(0.75, 1.25));
    emit(this, "end", { reason, asked: false });
  }

  #askLater(wait) {
    clearTimeout(this.#askTimer);
    this.#askAt = now() + wait;
    this.#askTimer = setTimeout(() => this.askAgain(), wait);
  }

  #newEpoch(epoch) {
    this.#epoch = epoch;
    this.#next.fill(0);
    for (const player of this.#players) player?.forget();
    emit(this, "epoch", { epoch });
  }

  #value({ type, sequence, data }) {
    const track = type === "state" ? STATE : MESSAGES;
    const next = this.#next[track];
    if (!isSequence(sequence) || sequence < next) return; // had it before
    // Of a state only the newest counts. A message that is missing untold would be the relay's fault; say so all the same.
    if (track === MESSAGES && next !== 0 && sequence > next) this.#skip(track, next, sequence - 1);
    this.#next[track] = sequence + 1;
    emit(this, type, { sequence, data });
  }

  #gap({ track: name, from, to }) {
    const track = TRACKS.indexOf(name);
    if (track < 0 || !isSequence(from) || !isSequence(to) || to < from || to < this.#next[track]) return;
    this.#skip(track, this.#next[track] || from, to);
  }

  #skip(track, from, to) {
    this.#next[track] = to + 1;
    this.#players[track]?.hole();
    emit(this, "gap", { track: TRACKS[track], from, to, count: to - from + 1 });
  }

  [receiveMedia](track, part, sequence, mime, bytes) {
    if (this.#status === "closed") return;
    const next = this.#next[track];
    const player = this.#players[track];
    if (part === INIT) {
      // A repeated one keeps its sequence and moves nothing; a late page's counter begins with the first chunk.
      if (next !== 0 && sequence >= next) this.#next[track] = sequence + 1;
      return player.init(sequence, mime, bytes);
    }
    if (sequence < next) return; // had it before the connection broke
    if (next !== 0 && sequence > next) player.hole();
    this.#next[track] = sequence + 1;
    player.chunk(part === START, bytes);
  }
}

// ============================================================================================== playing

/** Seconds, all of them. */
const JOIN_MARGIN = 0.3; // kept ahead, besides one chunk, so that a little network jitter does not stall
const KEEP_BEHIND = 4; // of what was played
const AHEAD_MAX = 20; // even of a paused element: what is further ahead is skipped
const SAME_CLOCK = 3; // sound and picture whose ends are this close are one recording, and are kept in step
const CATCH_UP = 1.08; // playback rate that pulls a small lag in; pitch is kept
const SLOW_DOWN = 0.92;
const IDLE = 15;
const STILL = 5; // of media that add nothing to what is buffered: their clock went back, or one of two tracks is missing
/** ms: what came within this came together. */
const BURST = 100;
const BURSTS = 8; // remembered
/** Bytes that wait for an element that takes nothing; beyond it older groups go, then the running one. Twice the largest
 *  group that a relay has for a late page (4 MiB of video), so that one may come while the one before still waits. */
const QUEUE_SIZE_MAX = 8 << 20;
/** ms: where the next group starts, one that has waited for this is too old to be shown. */
const QUEUE_AGE_MAX = 2_000;
/** Bytes that are appended at once, where they wait: a late page may have hundreds of small chunks to take in. */
const APPEND_SIZE_MAX = 256 << 10;

const MediaSourceClass = optional(() => globalThis.MediaSource) ?? optional(() => globalThis.ManagedMediaSource);
const hasSound = (mime) => /^audio\//i.test(mime) || /opus|vorbis|mp4a|flac|mp3|ac-3|ec-3|pcm/i.test(mime);

/** One media track in one element. Knows parts and groups; sequences are its owner's. */
class Player {
  leader = null; // the picture whose clock this sound follows
  follower = null;
  #name;
  #tell;
  #lag;
  #quiet; // the page wants no sound
  #refused = false; // the browser wants a gesture first
  #element = null;
  #listening = [];
  #init = null; // { sequence, mime, bytes }: kept, to rebuild from
  #source = null;
  #sourceUrl = "";
  #buffer = null;
  #primed = false; // the source buffer has the init
  #queue = []; // chunks that wait: { bytes, start, reset, at }
  #queued = 0; // their bytes
  #appending = null;
  #inGroup = false;
  #hole = false; // the next chunk does not continue the last one
  #clear = false; // everything buffered is to go first
  #starts = []; // media times where buffered groups begin
  #startAt = null; // where the group begins that is being appended, until something of it is buffered
  #bursts = []; // the latest ones: { at, grown, count }
  #margin = JOIN_MARGIN;
  #grewAt = 0; // when what is buffered grew last
  #barren = 0; // since when what is appended adds nothing; 0: it does
  #barrenFor = 0; // ms from then to the last of it: a pause behind it says nothing
  #started = false;
  #paused = false; // by the viewer
  #sought = -1_000;
  #fed = 0;
  #failures = 0;
  #resumeAt = 0;
  #timer = 0;
  #status = "none";

  constructor(name, { lag, muted, tell }) {
    this.#name = name;
    this.#lag = lag;
    this.#quiet = muted;
    this.#tell = tell;
  }

  get inGroup() { return this.#inGroup; }
  get sounding() { return this.#element !== null && this.#init !== null && hasSound(this.#init.mime); }
  get muted() { return !this.sounding || this.#element.muted || this.#status === "blocked"; }
  /** Is fed and would play: what is left of a track that stopped must not be kept in step with anything. */
  get alive() { return this.#started && !this.#element.paused && now() - this.#fed < 5_000; }
  get running() { return this.alive && this.#element.readyState > 2; }
  get time() { return this.#element.currentTime; }
  get goal() { return this.end - this.#chunk - this.#margin; }

  /** Media time up to which there is something to play; 0: nothing. */
  get end() {
    if (!this.#buffer || this.#source.readyState !== "open") return 0;
    const { buffered } = this.#buffer;
    return buffered.length ? buffered.end(buffered.length - 1) : 0;
  }

  attach(element) {
    if (element === this.#element) return;
    this.#dismantle();
    for (const leave of this.#listening) leave();
    this.#listening = [];
    clearInterval(this.#timer);
    this.#element = element;
    this.#started = this.#paused = this.#inGroup = false;
    if (!element) return;
    const on = (type, run) => this.#listening.push(listen(element, type, run));
    on("error", () => this.#source && this.#fail(element.error?.message));
    on("playing", () => this.#report("playing"));
    on("waiting", () => this.#starved());
    // A pause that is seen is the viewer's; one in the background is the browser's, and ends with it.
    on("pause", () => (this.#paused = this.#started && !optional(() => document.hidden) && !element.ended));
    on("play", () => (this.#paused = false));
    on("volumechange", () => this.#heardVolume());
    element.playsInline = true;
    this.#timer = setInterval(() => this.#tick(), 500);
    if (this.#init) this.#build();
  }

  // ---- what the track says

  init(sequence, mime, bytes) {
    if (this.#init?.sequence === sequence) return;
    this.#init = { sequence, mime, bytes };
    this.#inGroup = false;
    this.#failures = 0;
    this.#resumeAt = 0;
    this.#build();
  }

  chunk(start, bytes) {
    this.#fed = now();
    if (start) this.#inGroup = this.#begins();
    if (!this.#inGroup) return;
    this.#queue.push({ bytes, start, reset: this.#hole, at: this.#fed });
    this.#queued += bytes.length;
    this.#hole = false;
    if (this.#queued > QUEUE_SIZE_MAX) this.#overflow();
    this.#pump();
  }

  /** Something is missing: nothing can be decoded before the next start. */
  hole() {
    this.#inGroup = false;
    this.#hole = true;
  }

  /** A new epoch: an init with the old number is another init. What is buffered plays out. */
  forget() {
    if (this.#init) this.#init.sequence = 0;
    this.hole();
  }

  /** The room ended. */
  stop() {
    this.hole();
    if (this.#status !== "none") this.#report("idle");
  }

  // ---- sound

  async unmute() {
    this.#quiet = this.#refused = this.#paused = false;
    if (!this.#source) return false;
    if (this.sounding) this.#element.muted = false;
    await this.#play(); // the silent ones too: a strict browser held them back as well
    return !this.muted;
  }

  mute() {
    this.#quiet = true;
    if (this.#element) this.#element.muted = true;
  }

  /** Ours, or the viewer's by the element's own controls. */
  #heardVolume() {
    if (!this.sounding) return;
    const { muted } = this.#element;
    if (!muted) this.#quiet = this.#refused = false;
    else if (!this.#refused) this.#quiet = true;
    this.#tellSound();
  }

  #tellSound() {
    this.#tell("sound", { track: this.#name, muted: this.#element.muted, refused: this.#refused });
  }

  async #play() {
    const element = this.#element;
    try {
      await element.play();
    } catch (error) {
      if (error.name !== "NotAllowedError" || element !== this.#element) return; // AbortError: something newer loads
      if (element.muted) return this.#report("blocked"); // an <audio> element, or a very strict browser
      this.#refused = true;
      element.muted = true; // tells through `volumechange`
      return this.#play();
    }
  }

  // ---- building and failing

  /** A group begins: whether it can be taken. */
  #begins() {
    if (!this.#init || !this.#element) return false;
    const gone = !this.#source || (this.#buffer && this.#source.readyState !== "open");
    if (gone && this.#status !== "unsupported" && now() >= this.#resumeAt) this.#build();
    if (!this.#source) return false;
    if (this.#queue.length && this.#fed - this.#queue[0].at > QUEUE_AGE_MAX) {
      this.#discard(this.#queue.length);
      this.#hole = true;
    }
    // Chunks need not end with a frame, and a camera may be off while its sound goes on: time tells, not a count. If the
    // clock went back, this group shows once what is in its way is gone; if a track is missing, the last picture stays.
    if (this.#barrenFor > STILL * 1000) {
      this.#clear = this.#hole = true;
      this.#starts = [];
      this.#barren = this.#barrenFor = 0;
    }
    return true;
  }

  /** Why this browser can't play `mime`; "" where it may. */
  #lacks(mime) {
    if (!MediaSourceClass) return "mse";
    return optional(() => MediaSourceClass.isTypeSupported(mime), false) ? "" : "type";
  }

  #build() {
    const { mime } = this.#init;
    this.#dismantle();
    if (!this.#element) return this.#report("offered");
    const lacks = this.#lacks(mime);
    if (lacks) return this.#report("unsupported", lacks);
    this.#status = "none";
    this.#report("starting");
    try {
      this.#attachSource();
    } catch (error) {
      this.#fail(error.message);
    }
  }

  #attachSource() {
    const source = (this.#source = new MediaSourceClass());
    source.addEventListener("sourceopen", () => source === this.#source && this.#opened(), { once: true });
    // Without sound in the stream, muting costs nothing and lets it play everywhere.
    const wanted = this.sounding && !this.#quiet && !this.#refused;
    if (this.#element.muted === wanted) this.#element.muted = !wanted;
    else if (this.sounding && !wanted) this.#tellSound();
    if (MediaSourceClass === optional(() => globalThis.ManagedMediaSource)) {
      this.#element.disableRemotePlayback = true; // ManagedMediaSource does not open otherwise
      try { this.#element.srcObject = source; return; } catch { /* an older one takes an address alone */ }
    }
    this.#element.src = this.#sourceUrl = URL.createObjectURL(source);
  }

  #opened() {
    this.#release();
    try {
      this.#source.duration = Infinity;
      const buffer = (this.#buffer = this.#source.addSourceBuffer(this.#init.mime));
      buffer.addEventListener("updateend", () => buffer === this.#buffer && this.#updated());
      buffer.addEventListener("error", () => buffer === this.#buffer && this.#fail("append"));
    } catch (error) {
      if (error.name !== "NotSupportedError") return this.#fail(error.message);
      this.#dismantle(); // it said that it could, and can't
      return this.#report("unsupported", "type");
    }
    this.#pump();
  }

  #dismantle() {
    const had = this.#source;
    this.#source = this.#buffer = this.#appending = this.#startAt = null;
    this.#queue = [];
    this.#starts = [];
    this.#bursts = [];
    this.#hole = this.#clear = this.#started = this.#primed = false;
    this.#queued = this.#barren = this.#barrenFor = 0;
    this.#margin = JOIN_MARGIN;
    if (!had) return;
    this.#release();
    this.#element.playbackRate = 1;
    if (this.#element.srcObject) this.#element.srcObject = null;
    this.#element.removeAttribute("src");
    this.#element.load(); // lets go of the decoder and of what was buffered
  }

  /** The element has its source, or is to have none: its address is only a place in memory. */
  #release() {
    optional(() => URL.revokeObjectURL(this.#sourceUrl));
  }

  /** A SourceBuffer never recovers from a bad append: begin anew with the next group, more and more slowly. */
  #fail(why) {
    this.#dismantle();
    this.#inGroup = false;
    this.#resumeAt = now() + 1000 * Math.min(30, 2 ** this.#failures - 1);
    this.#failures += 1;
    this.#report("failed", why);
  }

  // ---- feeding

  /** The one place that touches the SourceBuffer; each call does at most one thing to it. */
  #pump() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating || this.#source.readyState !== "open") return;
    try {
      if (this.#clear) {
        this.#clear = false;
        return buffer.remove(0, Infinity);
      }
      const trim = this.#trimPoint(KEEP_BEHIND);
      if (trim > 0) return buffer.remove(0, trim);
      if (!this.#primed) {
        buffer.appendBuffer(this.#init.bytes);
        this.#primed = true;
        return;
      }
      if (!this.#queue.length) return this.#steer(true);
      const { bytes, count } = this.#next();
      const { start, reset, at } = this.#queue[0];
      if (reset) buffer.abort(); // forget half a cluster of the broken group
      this.#queue[0].reset = false;
      const before = this.end;
      buffer.appendBuffer(bytes);
      this.#appending = { before, at, count };
      if (start) this.#startAt = before;
      this.#discard(count);
    } catch (error) {
      if (error.name === "QuotaExceededError") this.#makeRoom();
      else this.#fail(error.message);
    }
  }

  /** The next bytes to append: what waits of one group, together. */
  #next() {
    const queue = this.#queue;
    let [count, size] = [1, queue[0].bytes.length];
    while (count < queue.length && !queue[count].start && !queue[count].reset && size + queue[count].bytes.length <= APPEND_SIZE_MAX) {
      size += queue[count].bytes.length;
      count += 1;
    }
    if (count === 1) return { bytes: queue[0].bytes, count };
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const item of queue.slice(0, count)) {
      bytes.set(item.bytes, at);
      at += item.bytes.length;
    }
    return { bytes, count };
  }

  #discard(count) {
    for (const { bytes } of this.#queue.splice(0, count)) this.#queued -= bytes.length;
  }

  #updated() {
    const appended = this.#appending;
    this.#appending = null;
    if (appended && this.#source.readyState === "open") {
      const { buffered } = this.#buffer;
      const last = buffered.length - 1;
      const from = last >= 0 ? buffered.start(last) : 0;
      const grown = this.end - Math.max(appended.before, from);
      if (grown > 0.001) {
        if (this.#startAt !== null) this.#starts.push(Math.max(this.#startAt, from));
        if (this.#starts.length > 256) this.#starts.shift();
        this.#startAt = null;
        this.#learn(grown, appended);
      } else {
        if (!this.#barren) this.#barren = now();
        this.#barrenFor = now() - this.#barren;
      }
    }
    this.#pump();
  }

  /** What is buffered grew by `grown` seconds. */
  #learn(grown, { at, count }) {
    const time = now();
    // A stall made the margin larger; what comes smoothly makes it smaller again.
    const passed = Math.min(1, (time - this.#grewAt) / 1000);
    this.#margin = clamp(this.#margin - 0.005 * passed, JOIN_MARGIN, this.#marginMax());
    this.#grewAt = time;
    this.#barren = this.#barrenFor = 0;
    const burst = this.#bursts[this.#bursts.length - 1];
    if (burst && at - burst.at < BURST) {
      burst.grown += grown;
      burst.count += count;
    } else this.#bursts.push({ at, grown, count });
    if (this.#bursts.length > BURSTS) this.#bursts.shift();
  }

  /** Seconds of media that come at once, by the latest of them: a chunk, or the slices of one. */
  get #chunk() {
    const bursts = this.#bursts;
    if (!bursts.length) return 0.5;
    // The first may be the whole of a group, as a late page gets it: a chunk is a part of it.
    if (bursts.length === 1) return Math.max(0.5, bursts[0].grown / bursts[0].count);
    // The second largest: one that is larger than all others came out of a jam.
    return bursts.map(({ grown }) => grown).sort((one, other) => other - one)[1];
  }

  /**
   * `remove()` takes everything up to the next keyframe after its end, so in the middle of a group it would reach
   * into what is about to be played. Hence only at the start of a group, a hair before its keyframe.
   */
  #trimPoint(keep) {
    const { buffered } = this.#buffer;
    const point = this.#starts.filter((start) => start <= this.#element.currentTime - keep).pop();
    if (point === undefined || !buffered.length || buffered.start(0) > point - 0.5) return 0;
    this.#starts = this.#starts.filter((start) => start >= point);
    return point - 0.05;
  }

  /** The browser's memory for media is full. */
  #makeRoom() {
    const trim = this.#trimPoint(0.2);
    if (trim > 0) this.#buffer.remove(0, trim);
    else this.#giveUp();
  }

  /** The element takes nothing and nothing can be freed: begin anew with the next group. The source buffer keeps its init. */
  #giveUp() {
    this.#discard(this.#queue.length);
    this.#starts = [];
    this.#clear = true;
    this.hole();
    this.#pump();
  }

  /** More waits than may: keeps the newest group, or, where that is all there is, waits for the next. */
  #overflow() {
    let newest = this.#queue.length - 1;
    while (newest > 0 && !this.#queue[newest].start) newest -= 1;
    if (newest > 0) {
      this.#discard(newest);
      this.#queue[0].reset = true;
    }
    if (this.#queued <= QUEUE_SIZE_MAX) return;
    this.#discard(this.#queue.length);
    this.hole();
  }

  // ---- keeping up

  #tick() {
    if (this.#fed && now() - this.#fed > IDLE * 1000) this.#report("idle");
    if (!this.#source) return;
    if (this.#status === "playing" && this.#failures && now() - this.#resumeAt > 30_000) this.#failures = 0;
    this.#steer(false);
  }

  #starved() {
    if (!this.#started || this.#element.seeking) return;
    // Chunks that come a little late want a larger margin, as far as the lag allows; a gap or a lost relay does not.
    if (this.#inGroup && now() - this.#fed < 2_000) this.#margin = Math.min(this.#margin + 0.1, this.#marginMax());
    this.#report("stalled");
    this.#steer(false);
  }

  #marginMax() { return Math.max(JOIN_MARGIN, this.#lag - this.#chunk - 0.3); }

  /** Where to be, and how fast. `fed`: just after an append, when what lies ahead can be compared. */
  #steer(fed) {
    const element = this.#element;
    const end = this.end;
    if (!end || element.seeking) return;
    const { buffered } = this.#buffer;
    const last = buffered.length - 1;
    if (!this.#started) {
      if (!fed) return;
      this.#started = true;
      this.#seek(this.#best());
      if (element.paused) this.#play();
      return;
    }
    if (element.paused) {
      if (end - element.currentTime > AHEAD_MAX) this.#seek(this.#best());
      else if (!this.#paused && this.#status !== "blocked") this.#play();
      return;
    }
    // A lost group leaves a hole: where what is being played ends, go to where the next begins. Some decoders stop
    // a little before the end.
    const at = element.currentTime;
    const spent = element.readyState > 2 ? 0.02 : 0.3;
    for (let range = 0; range <= last; range += 1) {
      if (at < buffered.end(range) - (range < last ? spent : 0)) {
        if (at < buffered.start(range) - 0.01) return this.#seek(buffered.start(range) + 0.01);
        break;
      }
    }
    if (at > end + 1) return this.#seek(this.#best());
    if (this.#follow(at, end)) return;
    const behind = this.#best() - at;
    if (behind > Math.max(0.5, this.#lag - this.#chunk - this.#margin)) this.#seek(this.#best());
    else if (this.#hurried(at, behind)) this.#rate(SLOW_DOWN);
    else if (fed) this.#rate(behind > (element.playbackRate > 1 ? 0.03 : 0.2) ? CATCH_UP : 1);
    else if (element.playbackRate < 1) this.#rate(1);
  }

  /** One chunk and a margin before the newest: of this track, and of the sound that goes with this picture. */
  #best() {
    const { buffered } = this.#buffer;
    let goal = this.goal;
    if (this.follower?.alive && sameClock(this, this.follower)) goal = Math.min(goal, this.follower.goal);
    return clamp(goal, buffered.start(buffered.length - 1) + 0.01, this.end);
  }

  /** The picture ran so far ahead that its sound starves: it waits until the sound has its margin again. */
  #hurried(at, behind) {
    const sound = this.follower;
    if (!sound?.alive || !sameClock(this, sound)) return false;
    return sound.end - at < 0.1 || (this.#element.playbackRate < 1 && behind < 0);
  }

  /** Sound follows its picture's clock. Returns whether it did. */
  #follow(at, end) {
    const picture = this.leader;
    if (!picture?.running || !this.running || !sameClock(this, picture)) return false;
    const want = picture.time;
    if (want > end - 0.1 || want < this.#buffer.buffered.start(0)) return false;
    const off = want - at;
    if (Math.abs(off) > 0.35) this.#seek(want + 0.05);
    else this.#rate(Math.abs(off) < 0.04 ? 1 : clamp(1 + off / 2, 0.94, CATCH_UP));
    return true;
  }

  #seek(time) {
    if (now() - this.#sought < 1_000) return; // seeking again and again shows nothing at all
    this.#sought = now();
    this.#rate(1);
    this.#element.currentTime = time;
  }

  #rate(rate) {
    if (Math.abs(this.#element.playbackRate - rate) > 0.005) this.#element.playbackRate = rate;
  }

  #report(status, why) {
    if (status === this.#status) return;
    this.#status = status;
    const mime = this.#init?.mime ?? "";
    this.#tell("media", { track: this.#name, status, mime, sound: hasSound(mime), ...(why && { why }) });
  }
}

const sameClock = (one, other) => one.end > 0 && other.end > 0 && Math.abs(one.end - other.end) < SAME_CLOCK;

// ============================================================================================== small parts

/** `https://relay.example/any` -> `wss://relay.example/ws`; a `ws:` or `wss:` address is taken as it is. */
function socketAddress(given) {
  const url = new URL(given ?? import.meta.url, location.href);
  if (url.protocol === "ws:" || url.protocol === "wss:") return url.href;
  const address = new URL("ws", url);
  address.protocol = url.protocol === "http:" ? "ws:" : "wss:";
  address.search = address.hash = "";
  return address.href;
}

/** Returns what takes the listener away again (`signal` does the same in browsers of 2021 and later). */
function listen(target, type, run) {
  target.addEventListener(type, run);
  return () => target.removeEventListener(type, run);
}

/** `retry=4.2` -> 4200 */
function retryOf(reason) {
  const found = /(?:^|[\s;,])retry=(\d+(?:\.\d+)?)/.exec(reason);
  return found ? clamp(Number(found[1]) * 1000, 0, RETRY_MAX) : null;
}
