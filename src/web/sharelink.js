/**
 * sharelink.js: the page client of sharelinkd, one ES module without dependencies.
 *
 * Owns: one WebSocket to a relay (`ShareLink`), its subscriptions (`Subscription`) with their
 * sequence counters, and the playback of their audio and video by Media Source Extensions
 * (`Player`).
 * Refuses: to interpret `data` (it is passed on as parsed, and is untrusted), to draw anything, to
 * keep messages, and to detect features by the browser's name: they are detected at run time.
 * Does not know: what a room is, who may see it, or where the page came from.
 *
 * Protocol: docs/protocol.md, "Page". Interface: sharelink.d.ts. Manual: docs/page-client.md, which
 * also lists the oldest supported browsers; tests/browser/floor.test.mjs enforces them for this
 * file.
 */

const SUBPROTOCOL = "sharelink.v1";
const TRACKS = ["state", "messages", "audio", "video"];
const [STATE, MESSAGES, AUDIO, VIDEO] = [0, 1, 2, 3];
const [INIT, START] = [1, 2];

// ------------------------------------------------------------------------------- limits, all in ms
/**
 * Exponential back-off with full jitter: the n-th wait is random between 0 and BACKOFF_MIN *
 * BACKOFF_GROWTH^n, at most BACKOFF_MAX. It grows slower than by doubling, so that after an outage
 * of seconds pages are back within seconds.
 */
const BACKOFF_MIN = 500;
const BACKOFF_GROWTH = 1.6;
const BACKOFF_MAX = 30_000;
/**
 * The back-off is reset only after a confirmed subscription has held this long. Otherwise a relay
 * that crashes right after accepting pages would be stampeded forever.
 */
const STEADY = 10_000;
/**
 * After this silence the relay is asked whether it is there: where media came within BUSY or
 * something was sent, and in a quiet room, where one of its `alive` (every 15 s) is missing.
 */
const ASK_BUSY = 2_000;
const ASK_QUIET = 16_000;
/** After this silence one of its `alive` may be under way. */
const ALIVE_DUE = 13_500;
const BUSY = 10_000;
/**
 * Where nothing comes for this long while the relay is asked, the line is dead. A large chunk on a
 * slow line holds up the answer, and what has arrived of it can't be seen: so until SAMPLE frames
 * of media came the limit is ANSWER_MAX, and after that 1.5 times such a pause, which counts half
 * as much SLOW_HALF later.
 */
const ANSWER = 2_500;
const ANSWER_MAX = 20_000;
const SAMPLE = 4;
const SLOW_HALF = 30_000;
/**
 * Idle timeout for relays that can't be asked: two `alive` missed, and a margin; and right after
 * the viewer came back and waits, one.
 */
const SILENCE = 40_000;
const SILENCE_SEEN = 20_000;
const BEAT = 500;
const CONNECT_TIMEOUT = 15_000;
/**
 * For this long after a line was lost, a visible page gives up an attempt that hangs after HANGING
 * and begins the next one, so that it is back soon after its network is. Refusals keep the
 * back-off.
 */
const OUTAGE = 20_000;
const HANGING = 2_000;
const NEXT_TRY = 250;
/** The viewer's return begins the next attempt at once, but not sooner after the last one. */
const ATTEMPTS_APART = 1_000;
/** Frames that come within this after the browser said "offline" were on their way before. */
const UNDER_WAY = 1_000;
/**
 * Retry interval after an `end` that the page did not request, to notice a reopened room. Jittered
 * by a quarter.
 */
const ASK_AGAIN = 30_000;
/**
 * Minimum wait after 1008 (kicked, or a limit exceeded): an immediate reconnect would only be
 * refused again.
 */
const REFUSED = 30_000;
/** The longest `retry` accepted from the relay. */
const RETRY_MAX = 300_000;
/**
 * If nothing is subscribed and no retry is due within this, the connection is closed: the relay
 * would close it anyway.
 */
const REST = 5_000;
const SEND_SIZE_MAX = 512;
/** A message without a receipt is sent again after this, under the same id. */
const SEND_AGAIN = 10_000;
/** A message that can't be sent, or has no receipt, is given up after this. */
const SEND_TIMEOUT = 60_000;
/**
 * Messages at once, and ms for each further one: a little less than a relay takes as shipped, so
 * that what has gathered in an outage is not refused after it.
 */
const SEND_BURST = 4;
const SEND_EVERY = 1_100;
/** Names of this page as an author that are kept: one for each connection of its relay. */
const AUTHORS_MAX = 64;

/** The result of `run`, or `otherwise` if the browser lacks or refuses the feature. */
const optional = (run, otherwise = undefined) => { try { return run(); } catch { return otherwise; } };
/**
 * Monotonic time in ms, used for every wait: a phone's wall clock may jump by hours. It may stop
 * while the device sleeps, which the code allows for.
 */
const now = Number.isFinite(optional(() => performance.now())) ? () => performance.now() : counted;

/**
 * A substitute if the browser has no monotonic clock: a step of the wall clock counts as at most a
 * little more than a beat.
 */
let [counts, countedAt] = [0, NaN];
function counted() {
  const at = Date.now();
  if (!(countedAt <= at)) countedAt = at; // the first call, or the clock was set back
  counts += Math.min(at - countedAt, BEAT + 1_000);
  countedAt = at;
  return counts;
}

const emit = (target, type, detail) => target.dispatchEvent(new CustomEvent(type, { detail }));
const between = (low, high) => low + Math.random() * (high - low);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const isSequence = (value) => Number.isSafeInteger(value) && value > 0;
const isVisible = () => optional(() => document.visibilityState) !== "hidden";
const isId = (value) => typeof value === "string" && /^[0-9a-f]{32}$/.test(value);

/** 128 random bits, as the id of a message. */
function randomId() {
  const bytes = new Uint8Array(16);
  optional(() => crypto.getRandomValues(bytes)) ?? bytes.forEach((_, at) => (bytes[at] = Math.random() * 256));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A message was not sent; `reason` says why, in the relay's words or in this module's. With its
 * `id` it can be sent again as the same message.
 */
export class NotSent extends Error {
  constructor(reason, id) {
    super(reason);
    this.name = "NotSent";
    this.reason = reason;
    this.id = id;
  }
}

// Private interfaces between the classes of this module: the symbols are not exported.
const ask = Symbol("ask");
const say = Symbol("say");
const settle = Symbol("settle");
const isResting = Symbol("isResting");
const isNeeded = Symbol("isNeeded");
const receive = Symbol("receive");
const receiveMedia = Symbol("receiveMedia");
const lost = Symbol("lost");
const since = Symbol("since");
const ping = Symbol("ping");
const isAliveDue = Symbol("isAliveDue");
const beat = Symbol("beat");
const flush = Symbol("flush");
const uplinked = Symbol("uplinked");
const passed = Symbol("passed");
const spend = Symbol("spend");
const receipt = Symbol("receipt");
const features = Symbol("features");

// ================================================================================== the connection

/** One connection to a relay. It opens with the first subscription and closes with the last one. */
export class ShareLink extends EventTarget {
  #url;
  #socket = null;
  #state = "idle";
  #uplink = true;
  #authors = new Set();
  #subscriptions = new Set();
  #asked = new Map(); // id of an unanswered `subscribe` -> { subscription, at }
  #topics = new Map(); // topic number on this connection -> subscription
  #id = 0;
  #attempt = 0;
  #notBefore = 0; // end of a wait required by the relay: not even the viewer's return shortens it
  #began = 0;
  #heard = 0;
  #pinged = 0; // when the relay was asked for an `alive` that has not come
  #features = new Set();
  #mediaAt = -BUSY;
  #mediaCount = 0; // frames of media on this connection, up to SAMPLE
  #slow = 0; // the last long pause before a frame of media for which an answer had to wait
  #slowAt = 0;
  #saidAt = 0; // when something was last sent
  #budget = SEND_BURST; // messages that may go out now, of all subscriptions
  #spentAt = 0;
  #brokeAt = null; // when the line was lost, while it is not back
  #tookMs = 0; // how long the last connection took to open
  #offlineAt = null;
  #seen = 0; // when the viewer last came back
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
    on(window, "offline", () => this.#wentOffline());
    on(window, "online", () => this.#wentOnline());
    on(document, "resume", () => this.#returned());
    on(document, "visibilitychange", () => isVisible() && this.#returned());
  }

  get url() { return this.#url; }
  get connection() { return this.#state; }
  /** Whether the relay's connection to the business server is up, as last reported by the relay. */
  get uplink() { return this.#uplink; }
  /** Whether the browser says that there is no network, and nothing came that says otherwise. */
  get offline() { return this.#offlineAt !== null; }

  /** Whether an author that stands in a message is this page, now or on an earlier connection. */
  isOwn(author) { return this.#authors.has(author); }

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
    // Otherwise `#opened` subscribes.
    if (this.#state !== "open") return;
    for (const waiting of this.#asked.values()) if (waiting.subscription === subscription) return;
    this.#id = (this.#id % 0xffff_ffff) + 1; // u32, never 0
    this.#asked.set(this.#id, { subscription, at: now() });
    this[say]({ type: "subscribe", id: this.#id, link: subscription.link, since: subscription[since]() });
  }

  [say](frame) {
    if (this.#state !== "open" || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame)); // JSON omits an undefined `since`
    this.#saidAt = now();
    return true;
  }

  /** What the relay of this connection has, as it said. */
  get [features]() { return this.#features; }

  /** Whether another message may go out now: the relay counts those of all subscriptions together. */
  [spend]() {
    const at = now();
    this.#budget = Math.min(SEND_BURST, this.#budget + (at - this.#spentAt) / SEND_EVERY);
    this.#spentAt = at;
    if (this.#budget < 1) return false;
    this.#budget -= 1;
    return true;
  }

  /** Whether an `alive` may be under way: one that was asked for, or the relay's own. */
  get [isAliveDue]() { return this.#pinged !== 0 || now() - this.#heard > ALIVE_DUE; }

  /**
   * Asks for an `alive`, which comes behind the errors of what was sent before. `false` if an
   * earlier one is still to come.
   */
  [ping]() {
    if (this.#pinged || !this[say]({ type: "ping" })) return false;
    this.#pinged = this.#saidAt;
    return true;
  }

  /**
   * Called when a subscription has ended or is paused: disconnects if none needs the connection.
   */
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

  /** Connects, but not before the wait required by the relay is over. */
  #connectInTime() {
    const wait = this.#notBefore - now();
    if (wait <= 0) return this.#connect();
    this.#retryTimer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting", { wait: Math.round(wait), attempt: this.#attempt });
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#began = this.#heard = this.#beaten = now();
    this.#seen = this.#pinged = this.#saidAt = 0;
    this.#mediaAt = -BUSY;
    this.#mediaCount = this.#slow = 0;
    this.#budget = SEND_BURST; // the relay's own count begins anew with each connection
    this.#uplink = true;
    this.#features = new Set();
    let socket;
    try {
      socket = this.#socket = new WebSocket(this.#url, SUBPROTOCOL);
    } catch (error) { // forbidden by a policy, or not supported: retried like any other failure
      return this.#closed(1006, String(error?.message ?? error));
    }
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    socket.onmessage = ({ data }) => {
      const at = now();
      const pause = at - this.#heard;
      this.#heard = at;
      if (this.#pinged && typeof data !== "string" && pause > this.#slowness) [this.#slow, this.#slowAt] = [pause, at];
      if (this.offline && at - this.#offlineAt > UNDER_WAY) {
        this.#offlineAt = null;
        this.#notify("connection", { state: this.#state });
      }
      if (typeof data === "string") this.#receiveText(data);
      else this.#receiveBinary(data);
    };
    this.#beatTimer = setInterval(() => this.#beat(), BEAT);
    this.#become("connecting");
  }

  #opened() {
    this.#heard = now();
    this.#tookMs = this.#heard - this.#began;
    this.#brokeAt = null;
    this.#become("open");
    for (const subscription of this.#subscriptions) {
      if (subscription.status !== "closed" && !subscription[isResting]) this[ask](subscription);
    }
    this[settle]();
  }

  #closed(code, reason, hung = false) {
    if (this.#state === "open") this.#brokeAt = now();
    this.#drop(null);
    const retry = code === 1012 || code === 1013 ? retryOf(reason) : null;
    const wait = retry ?? (code === 1008 ? between(REFUSED, 2 * REFUSED) : hung ? between(0, NEXT_TRY)
      : between(0, Math.min(BACKOFF_MAX, BACKOFF_MIN * BACKOFF_GROWTH ** this.#attempt)));
    this.#notBefore = retry !== null || code === 1008 ? now() + wait : 0;
    if (!hung) this.#attempt = Math.min(this.#attempt + 1, 16);
    if (!this.#wanted()) return this.#become("idle", { code, reason });
    this.#retryTimer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting", { code, reason, wait: Math.round(wait), attempt: this.#attempt });
  }

  /** Abandons the socket at once: on a dead network its `close` event can take minutes. */
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
    if (this.#state === "away") {
      if (this.#wanted()) this.#connect();
      else this.#drop("idle");
    } else if (this.#state === "waiting" && now() >= this.#notBefore) {
      clearTimeout(this.#retryTimer);
      this.#retryTimer = setTimeout(() => this.#connect(), Math.max(0, ATTEMPTS_APART - since));
    } else if (this.#state === "connecting" && since > HANGING) {
      this.#drop(null); // it was started on a network that is gone
      this.#connect();
    } else if (this.#state === "open") {
      this.#seen = now();
      if (this.#features.has("ping")) this[ping]();
      // After a freeze, frames received in the meantime are still queued behind this event: check a
      // little later.
      setTimeout(() => this.#judge(SILENCE_SEEN), 1_500);
    }
  }

  /** The browser says so at once; a relay that can be asked says within seconds whether it is true. */
  #wentOffline() {
    this.#offlineAt = now();
    if (this.#features.has("ping")) this[ping]();
    this.#notify("connection", { state: this.#state });
  }

  #wentOnline() {
    const was = this.offline;
    this.#offlineAt = null;
    this.#returned();
    if (was) this.#notify("connection", { state: this.#state });
  }

  /** Whether the line was lost just now, and somebody waits for it. */
  get #isOutage() { return this.#brokeAt !== null && now() - this.#brokeAt < OUTAGE && isVisible(); }

  #beat() {
    const late = now() - this.#beaten > 3 * BEAT;
    this.#beaten = now();
    // The tab was throttled or frozen: received frames may be queued behind this timer, so handle
    // them first.
    if (late) setTimeout(() => this.#judge(SILENCE), 2_000);
    else this.#judge(SILENCE);
  }

  #judge(limit) {
    const at = now();
    if (this.#state === "connecting") {
      // A slow network gets the time that it needed before.
      const hangs = this.#isOutage && at - this.#began > Math.max(HANGING, 3 * this.#tookMs);
      if (hangs || at - this.#began > CONNECT_TIMEOUT) this.#closed(1006, "no connection", hangs);
      return;
    }
    if (this.#state !== "open") return;
    if (this.#features.has("ping")) {
      const silent = at - this.#heard;
      const busy = at - this.#mediaAt < BUSY || this.#saidAt > this.#heard;
      if (this.#pinged && at - Math.max(this.#pinged, this.#heard) > this.#patience) return this.#closed(1006, "the relay does not answer");
      // What came right after the browser said "offline" was no answer.
      const isDoubted = this.offline && at - this.#offlineAt > UNDER_WAY;
      if (isDoubted || silent > (busy ? ASK_BUSY : ASK_QUIET)) this[ping]();
    }
    for (const subscription of this.#subscriptions) subscription[beat](at);
    // If the clock stopped while the device slept, it did not measure that silence, only the one
    // since the viewer came back.
    const unheard = this.#seen > this.#heard && at - this.#seen > SILENCE_SEEN;
    if (unheard || at - this.#heard > limit) return this.#closed(1006, "nothing received from the relay");
    for (const asked of this.#asked.values()) {
      if (at - asked.at > SILENCE) return this.#closed(1006, "the relay did not answer");
    }
  }

  get #slowness() { return this.#slow * 0.5 ** ((now() - this.#slowAt) / SLOW_HALF); }

  /** How long a relay that was asked may be silent. */
  get #patience() {
    if (this.#mediaCount > 0 && this.#mediaCount < SAMPLE) return ANSWER_MAX;
    return clamp(1.5 * this.#slowness, ANSWER, ANSWER_MAX);
  }

  #become(state, more = {}) {
    this.#state = state;
    this.#notify("connection", { state, ...more });
  }

  #notify(type, detail) {
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
        this.#learn(frame);
        for (const subscription of this.#subscriptions) subscription[uplinked](this.#uplink);
        this.#notify("uplink", { up: this.#uplink });
        return this.#flush();
      case "alive":
        if (!this.#pinged) return;
        this.#pinged = 0;
        for (const subscription of this.#subscriptions) subscription[passed]();
        return;
      case "sent":
        for (const subscription of this.#subscriptions) subscription[receipt](frame.id);
        return;
      case "error": {
        const reason = String(frame.reason ?? "");
        for (const subscription of this.#subscriptions) subscription[receipt](frame.id, reason);
        return this.#notify("error", { reason });
      }
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
    this.#learn(frame);
    // A page has an author where there is a business server; relays before that say neither.
    if (frame.features) this.#uplink = frame.author !== undefined;
    // It was unsubscribed before the answer came.
    if (subscription.status === "closed") return void this[say]({ type: "unsubscribe", topic: frame.topic });
    clearTimeout(this.#steadyTimer);
    this.#steadyTimer = setTimeout(() => (this.#attempt = 0), STEADY);
    subscription[receive](frame);
    this.#flush();
  }

  /** What the relay has for pages, and who this page is on its connection to the business server. */
  #learn({ features: words, author }) {
    if (Array.isArray(words)) this.#features = new Set(words);
    if (typeof author !== "string") return;
    this.#authors.delete(author);
    this.#authors.add(author);
    if (this.#authors.size > AUTHORS_MAX) this.#authors.delete(this.#authors.values().next().value);
  }

  #flush() {
    for (const subscription of this.#subscriptions) subscription[flush]();
  }

  /**
   * u8 track, u8 part, u32 topic, u64 sequence; for an init, u8 length and the MIME type; then the
   * data.
   */
  #receiveBinary(data) {
    if (data.byteLength < 14) return;
    const view = new DataView(data);
    const [track, part] = [view.getUint8(0), view.getUint8(1)];
    const sequence = view.getUint32(6) * 2 ** 32 + view.getUint32(10);
    if ((track !== AUDIO && track !== VIDEO) || part < INIT || part > 3 || !isSequence(sequence)) return;
    this.#mediaAt = now();
    this.#mediaCount = Math.min(this.#mediaCount + 1, SAMPLE);
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

// ================================================================================== one share link

/** A subscription to one share link. Created by `ShareLink.subscribe()`. */
export class Subscription extends EventTarget {
  #relay;
  #link;
  #status = "asking";
  #topic = null;
  #epoch = null;
  #pageMessages = false;
  #next = [0, 0, 0, 0]; // the next expected sequence of each track; 0: any
  #players = [];
  #askTimer = 0;
  #askAt = 0;
  #resting = false; // denied, permanently or until `#askAt`
  #askDenied; // seconds, or 0
  #outbox;

  constructor(relay, link, { audio, video, muted = false, lag = 1.5, askDenied = 0 } = {}) {
    super();
    if (!/^[A-Za-z0-9\-_.~]{1,128}$/.test(link)) throw new TypeError("not a share link: 1 to 128 of A-Z a-z 0-9 - _ . ~");
    this.#relay = relay;
    this.#link = String(link);
    this.#askDenied = askDenied;
    this.#outbox = new Outbox(relay);
    for (const track of [AUDIO, VIDEO]) {
      this.#players[track] = new Player(TRACKS[track], { lag, muted, notify: (type, detail) => emit(this, type, detail) });
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
  get offline() { return this.#relay.offline; }
  get muted() { return this.#players.every((player) => player.muted); }

  /** Plays the tracks in these elements from now on; `null` detaches one. */
  attach({ audio, video } = {}) {
    if (audio !== undefined) this.#players[AUDIO].attach(audio);
    if (video !== undefined) this.#players[VIDEO].attach(video);
  }

  /**
   * Must be called from a user gesture (tap, click or key). Resolves to whether sound is on now.
   */
  async unmute() {
    // Start both before awaiting: the gesture only counts within its own event.
    const unmuted = await Promise.all(this.#players.map((player) => player.unmute()));
    return unmuted.includes(true);
  }

  mute() {
    for (const player of this.#players) player?.mute();
  }

  isOwn(author) { return this.#relay.isOwn(author); }

  send(data, { id = randomId() } = {}) {
    // Encode and decode to replace lone surrogates, which Rust's JSON parsers reject.
    if (typeof data !== "string") throw new TypeError("a page's message is a string");
    const bytes = new TextEncoder().encode(data);
    if (bytes.length > SEND_SIZE_MAX) throw new RangeError(`a page's message is at most ${SEND_SIZE_MAX} bytes of UTF-8`);
    if (!isId(id)) throw new TypeError("the id of a message is 32 digits of 0-9 and a-f, as a promise of send() gave it");
    if (this.#status === "closed") throw new Error("this subscription has ended");
    const isOver = this.#status === "ended" || this.#status === "denied";
    const answer = this.#outbox.add(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes), id);
    if (isOver) this.#outbox.end("the room has ended");
    else this[flush]();
    // Who doesn't look at the answer gets no error in the console.
    answer.catch(() => {});
    return answer;
  }

  /** Subscribes at once, whatever the last answer was. */
  askAgain() {
    if (this.#status === "closed" || this.#status === "live") return;
    clearTimeout(this.#askTimer);
    this.#resting = false;
    if (this.#status === "denied") this.#status = "asking";
    this.#relay[ask](this);
  }

  unsubscribe() {
    if (this.#status === "closed") return;
    const sent = this.#status === "live" && this.#relay[say]({ type: "unsubscribe", topic: this.#topic });
    this.#status = "closed";
    this.#outbox.end("this subscription has ended");
    clearTimeout(this.#askTimer);
    for (const player of this.#players) player?.attach(null);
    if (sent) return; // the relay answers with `end`
    emit(this, "end", { reason: "", asked: true });
    this.#relay[settle]();
  }

  // ---- for the connection

  /** What the page has already received: the relay continues from there. */
  [since]() {
    return this.#epoch === null ? undefined : { epoch: this.#epoch, next: this.#next };
  }

  /**
   * Whether it was denied and is not retried yet: then it is not subscribed when the connection
   * opens.
   */
  get [isResting]() { return this.#resting; }

  /** Whether it wants a connection now. */
  get [isNeeded]() {
    if (this.#status === "closed" || this.#status === "denied") return false;
    return !this.#resting || this.#askAt - now() < REST;
  }

  /** Sends what waits, where it can be sent. */
  [flush]() {
    if (this.#status !== "live") return;
    if (this.#pageMessages) this.#outbox.flush(this.#topic);
    else this.#outbox.end("this room takes no messages from pages");
  }

  [beat](at) {
    if (this.#outbox.beat(at)) this[flush]();
  }

  /** The relay has answered a `ping`: what was sent before it was taken, or its error came before. */
  [passed]() {
    if (this.#outbox.passed()) this[flush]();
  }

  [receipt](id, refusal) { this.#outbox.receipt(id, refusal); }

  /** The relay lost the business server, or has it again. */
  [uplinked](isUp) {
    if (!isUp) this.#outbox.doubtAll();
    this.#tellPlayers();
  }

  /** Whether silence on a track means that its publisher is silent. */
  #tellPlayers() {
    for (const player of this.#players) player?.live(this.#status === "live" && this.uplink);
  }

  [lost]() {
    this.#outbox.lost();
    if (this.#status === "closed") {
      if (this.#topic !== null) emit(this, "end", { reason: "", asked: true });
    } else if (this.#status === "live") this.#status = "asking";
    this.#topic = null;
    this.#tellPlayers();
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
    // The relay sends media as to a late page. A player in the middle of a group drops what it
    // already has and continues where it stopped; any other takes the group from its start, so its
    // counter is reset.
    for (const track of [AUDIO, VIDEO]) if (!this.#players[track].inGroup) this.#next[track] = 0;
    this.#tellPlayers();
    emit(this, "subscribed", { epoch: this.#epoch, pageMessages: this.#pageMessages });
  }

  #denied({ reason, retry }) {
    const wait = Number.isFinite(retry) && retry >= 0 ? clamp(retry * 1000, 100, RETRY_MAX) : null;
    // A room that has ended is retried until it reopens; until then it may be denied.
    const again = wait !== null ? wait * between(1, 1.2)
      : this.#status === "ended" ? ASK_AGAIN * between(0.75, 1.25)
      : this.#askDenied > 0 ? this.#askDenied * 1000 * between(0.75, 1.25) : null;
    // A subscription that was live and is denied on return has ended in the meantime: pages that
    // stayed received `end`.
    const isOver = wait === null && this.#status !== "ended" && this.#epoch !== null;
    if (isOver) this.#ended(String(reason ?? ""));
    this.#resting = true; // the connection may close too: the relay closes pages without a subscription
    if (isOver) return this.#relay[settle]();
    if (wait === null && this.#status !== "ended") {
      this.#status = "denied";
      this.#outbox.end("the link was denied");
    }
    if (again !== null) this.#askLater(again);
    emit(this, "denied", { reason: String(reason ?? ""), retry: again === null ? null : again / 1000 });
    this.#relay[settle]();
  }

  #ended(reason) {
    this.#topic = null;
    if (this.#status === "closed") return emit(this, "end", { reason, asked: true });
    this.#resting = false;
    this.#status = "ended";
    this.#outbox.end("the room has ended");
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
    if (!isSequence(sequence) || sequence < next) return; // a duplicate
    // Of states only the newest matters. A message missing without a gap would be a bug in the
    // relay; report it as a gap.
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
      // A repeated init keeps its sequence and doesn't advance the counter. A late page's counter
      // starts with the first chunk.
      if (next !== 0 && sequence >= next) this.#next[track] = sequence + 1;
      return player.init(sequence, mime, bytes);
    }
    if (sequence < next) return; // received before the connection was lost
    if (next !== 0 && sequence > next) player.hole();
    this.#next[track] = sequence + 1;
    player.chunk(part === START, bytes);
  }
}

// ========================================================================================= sending

/**
 * The messages of one subscription that are not known to be sent. Where the business server gives
 * receipts, each has an id, and is sent again until it has one; otherwise each is sent once, one
 * after the other, and what became of the last one when a line was lost, nobody knows.
 */
class Outbox {
  #relay;
  #rows = []; // { id, data, asked: when it was sent on this connection, or 0, plain, doubt, resolve, reject, timer }

  constructor(relay) {
    this.#relay = relay;
  }

  add(data, id) {
    return new Promise((resolve, reject) => {
      const row = { id, data, asked: 0, plain: false, doubt: false, resolve, reject, timer: 0 };
      row.timer = setTimeout(() => this.#giveUp(row, "there was no connection"), SEND_TIMEOUT);
      this.#rows.push(row);
    });
  }

  flush(topic) {
    if (!this.#relay.uplink) return;
    const known = this.#relay[features];
    if (known.has("receipts")) {
      for (const row of this.#rows) {
        if (row.asked) continue;
        if (!this.#relay[spend]() || !this.#relay[say]({ type: "send", topic, id: row.id, data: row.data })) return;
        row.asked = now();
      }
      return;
    }
    for (const row of [...this.#rows]) if (row.doubt) this.#settle(row, "unsure");
    const [row] = this.#rows;
    if (!row || row.asked) return;
    // The answer to a ping behind it comes behind its error: so no other `alive` may be under way.
    const canAsk = known.has("ping");
    if (canAsk && this.#relay[isAliveDue]) return;
    if (!this.#relay[spend]() || !this.#relay[say]({ type: "send", topic, data: row.data })) return;
    [row.asked, row.plain] = [now(), true];
    if (canAsk) this.#relay[ping]();
    else this.#settle(row, "unsure");
  }

  /** Returns whether there may be something to send. */
  beat(at) {
    for (const row of this.#rows) if (!row.plain && at - row.asked > SEND_AGAIN) this.#doubt(row);
    return this.#rows.some((row) => !row.asked);
  }

  passed() {
    const row = this.#rows.find(({ plain }) => plain);
    if (row) this.#settle(row, "passed");
    return this.#rows.length > 0;
  }

  /**
   * The business server has a message, or the relay refused it. An error without an id is of the
   * plain one. A refusal says nothing of an earlier attempt, which is in doubt.
   */
  receipt(id, refusal) {
    const row = this.#rows.find((other) => (id === undefined ? other.plain : other.id === id));
    if (!row) return;
    if (refusal === undefined) this.#settle(row, "sent");
    else if (row.asked) this.#giveUp(row, refusal, row.doubt);
  }

  lost() {
    for (const row of [...this.#rows]) {
      if (row.plain) this.#settle(row, "unsure");
      else this.#doubt(row);
    }
  }

  /** The relay lost the business server: what is under way to it may be lost. */
  doubtAll() {
    for (const row of this.#rows) if (!row.plain) this.#doubt(row);
  }

  #doubt(row) {
    if (row.asked) [row.asked, row.doubt] = [0, true];
  }

  end(reason) {
    for (const row of [...this.#rows]) this.#giveUp(row, reason);
  }

  #giveUp(row, reason, isDoubtful = row.asked || row.doubt) {
    if (isDoubtful) this.#settle(row, "unsure");
    else this.#refuse(row, reason);
  }

  #settle(row, state) {
    this.#remove(row);
    row.resolve({ state, id: row.id });
  }

  #refuse(row, reason) {
    this.#remove(row);
    row.reject(new NotSent(reason, row.id));
  }

  #remove(row) {
    clearTimeout(row.timer);
    this.#rows = this.#rows.filter((other) => other !== row);
  }
}

// ========================================================================================= playing

/** Seconds, except for the two playback rates. */
const MARGIN = 0.3; // buffered besides one chunk, so that some network jitter doesn't stall playback
const SHORT = 0.2; // of a chunk: up to here the margin shrinks, so that chunk and margin are 0.3 s together
const MARGIN_MIN = 0.1;
const KEEP_BEHIND = 4; // media kept behind the playback position
const AHEAD_MAX = 20; // media ahead of a paused element; beyond that, its position jumps forward
const SAME_CLOCK = 3; // audio and video whose ends are this close are one recording, and are kept in sync
const CATCH_UP = 1.08; // playback rate that reduces a small lag; pitch is preserved
const SLOW_DOWN = 0.92;
const IDLE = 15; // without chunks
const STILL = 5; // of appends that add nothing to the buffer: the media time went back, or one of two tracks is missing
/** ms: chunks received within this are one burst. */
const BURST = 100;
const BURSTS = 8; // kept for the statistics
/**
 * Bytes queued for an element that takes nothing; beyond it, older groups are dropped, then the
 * current one. Twice the largest group that a relay keeps for a late page (4 MiB of video), so that
 * one may arrive while another is queued.
 */
const QUEUE_SIZE_MAX = 8 << 20;
/**
 * ms: when a group starts and the queue has waited for longer than this, the queue is dropped as
 * too old.
 */
const QUEUE_AGE_MAX = 2_000;
/**
 * Maximum bytes per append: queued chunks are merged up to it, since a late page may receive
 * hundreds of small ones.
 */
const APPEND_SIZE_MAX = 256 << 10;

const MediaSourceClass = optional(() => globalThis.MediaSource) ?? optional(() => globalThis.ManagedMediaSource);
const hasSound = (mime) => /^audio\//i.test(mime) || /opus|vorbis|mp4a|flac|mp3|ac-3|ec-3|pcm/i.test(mime);

/** One media track in one element. Knows parts and groups; its owner handles sequences. */
class Player {
  leader = null; // the video whose clock this audio follows
  follower = null;
  #name;
  #notify;
  #lag;
  #quiet; // muted by the page or the viewer
  #refused = false; // the browser requires a gesture before sound
  #element = null;
  #listening = [];
  #init = null; // { sequence, mime, bytes }: kept for rebuilding
  #source = null;
  #sourceUrl = "";
  #buffer = null;
  #primed = false; // the init was appended to the source buffer
  #queue = []; // chunks waiting to be appended: { bytes, start, reset, at }
  #queued = 0; // their size in bytes
  #appending = null;
  #inGroup = false;
  #hole = false; // the next chunk does not continue the last one
  #clear = false; // the buffer must be cleared first
  #starts = []; // media times at which buffered groups begin
  #startAt = null; // start of the group being appended, until something of it is buffered
  #bursts = []; // the latest bursts: { at, grown, count }
  #extra = 0; // what stalls have added to the margin
  #grewAt = 0; // when the buffer last grew
  #barren = 0; // since when appends add nothing; 0: they do
  #barrenFor = 0; // ms from then to the last such append: a pause after it doesn't count
  #started = false;
  #paused = false; // by the viewer
  #sought = -1_000;
  #fed = 0;
  #liveAt = null; // since when the subscription is live, with its business server
  #failures = 0;
  #resumeAt = 0;
  #timer = 0;
  #ticked = 0; // where the element was at the last tick
  #status = "none";

  constructor(name, { lag, muted, notify }) {
    this.#name = name;
    this.#lag = lag;
    this.#quiet = muted;
    this.#notify = notify;
  }

  get inGroup() { return this.#inGroup; }
  get sounding() { return this.#element !== null && this.#init !== null && hasSound(this.#init.mime); }
  get muted() { return !this.sounding || this.#element.muted || this.#status === "blocked"; }
  /**
   * Receives chunks and plays: nothing is synchronized with the rest of a track that has stopped.
   */
  get alive() { return this.#started && !this.#element.paused && now() - this.#fed < 5_000; }
  get running() { return this.alive && this.#element.readyState > 2; }
  get time() { return this.#element.currentTime; }
  get goal() { return this.end - this.#chunk - this.#margin; }

  /** Media time at which the buffer ends; 0 if it is empty. */
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
    // The viewer pauses a visible page; in the background it is the browser, which resumes by
    // itself.
    on("pause", () => (this.#paused = this.#started && !optional(() => document.hidden) && !element.ended));
    on("play", () => (this.#paused = false));
    on("volumechange", () => this.#heardVolume());
    element.playsInline = true;
    this.#timer = setInterval(() => this.#tick(), 500);
    if (this.#init) this.#build();
  }

  // ---- input

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

  /** Chunks are missing: nothing can be decoded before the next group. */
  hole() {
    this.#inGroup = false;
    this.#hole = true;
  }

  /**
   * A new epoch: an init with the same sequence is a different one. What is buffered is played to
   * its end.
   */
  forget() {
    if (this.#init) this.#init.sequence = 0;
    this.hole();
  }

  /** Whether chunks would come if there were any: the last picture of a dead line stays. */
  live(isLive) {
    if (isLive && this.#liveAt === null) this.#liveAt = now();
    else if (!isLive) this.#liveAt = null;
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
    await this.#play(); // tracks without sound too: a strict browser has blocked them as well
    return !this.muted;
  }

  mute() {
    this.#quiet = true;
    if (this.#element) this.#element.muted = true;
  }

  /** The volume was changed, by this class or by the viewer with the element's controls. */
  #heardVolume() {
    if (!this.sounding) return;
    const { muted } = this.#element;
    if (!muted) this.#quiet = this.#refused = false;
    else if (!this.#refused) this.#quiet = true;
    this.#tellSound();
  }

  #tellSound() {
    this.#notify("sound", { track: this.#name, muted: this.#element.muted, refused: this.#refused });
  }

  async #play() {
    const element = this.#element;
    try {
      await element.play();
    } catch (error) {
      if (error.name !== "NotAllowedError" || element !== this.#element) return; // AbortError: a new source is loading
      if (element.muted) return this.#report("blocked"); // an <audio> element, or a very strict browser
      this.#refused = true;
      element.muted = true; // reported by `volumechange`
      return this.#play();
    }
  }

  // ---- building and failing

  /** A group begins. Returns whether it can be taken. */
  #begins() {
    if (!this.#init || !this.#element) return false;
    const gone = !this.#source || (this.#buffer && this.#source.readyState !== "open");
    if (gone && this.#status !== "unsupported" && now() >= this.#resumeAt) this.#build();
    if (!this.#source) return false;
    if (this.#queue.length && this.#fed - this.#queue[0].at > QUEUE_AGE_MAX) {
      this.#discard(this.#queue.length);
      this.#hole = true;
    }
    // Measured by time, not by a count: chunks need not end with a frame, and a camera may be off
    // while its audio goes on. If the media time went back, clearing the buffer lets this group
    // play; if a track is missing, the last frame stays.
    if (this.#barrenFor > STILL * 1000) {
      this.#clear = this.#hole = true;
      this.#starts = [];
      this.#barren = this.#barrenFor = 0;
    }
    return true;
  }

  /** Why this browser can't play `mime`; "" if it may be able to. */
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
    // If the stream has no sound, muting loses nothing, and muted media may play everywhere.
    const wanted = this.sounding && !this.#quiet && !this.#refused;
    if (this.#element.muted === wanted) this.#element.muted = !wanted;
    else if (this.sounding && !wanted) this.#tellSound();
    if (MediaSourceClass === optional(() => globalThis.ManagedMediaSource)) {
      this.#element.disableRemotePlayback = true; // ManagedMediaSource does not open otherwise
      try { this.#element.srcObject = source; return; } catch { /* older versions only accept a URL */ }
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
      this.#dismantle(); // isTypeSupported() was wrong
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
    this.#extra = 0;
    if (!had) return;
    this.#release();
    this.#element.playbackRate = 1;
    if (this.#element.srcObject) this.#element.srcObject = null;
    this.#element.removeAttribute("src");
    this.#element.load(); // frees the decoder and the buffer
  }

  /** The element has its source, or no longer needs one: its object URL would only keep memory. */
  #release() {
    optional(() => URL.revokeObjectURL(this.#sourceUrl));
  }

  /**
   * A SourceBuffer never recovers from a bad append: rebuild with the next group, with exponential
   * back-off.
   */
  #fail(why) {
    this.#dismantle();
    this.#inGroup = false;
    this.#resumeAt = now() + 1000 * Math.min(30, 2 ** this.#failures - 1);
    this.#failures += 1;
    this.#report("failed", why);
  }

  // ---- feeding

  /** The only place that changes the SourceBuffer, by at most one operation per call. */
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
      if (reset) buffer.abort(); // discard the partial cluster of the broken group
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

  /** The next bytes to append: queued chunks of one group, merged. */
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

  /**
   * Called when the buffer has grown by `grown` seconds: adapts the margin and the statistics of
   * bursts.
   */
  #learn(grown, { at, count }) {
    const time = now();
    // Stalls increase the margin; smooth delivery slowly decreases it again.
    const passed = Math.min(1, (time - this.#grewAt) / 1000);
    this.#extra = clamp(this.#extra - 0.005 * passed, 0, this.#extraMax());
    this.#grewAt = time;
    this.#barren = this.#barrenFor = 0;
    const burst = this.#bursts[this.#bursts.length - 1];
    if (burst && at - burst.at < BURST) {
      burst.grown += grown;
      burst.count += count;
    } else this.#bursts.push({ at, grown, count });
    if (this.#bursts.length > BURSTS) this.#bursts.shift();
  }

  /**
   * Seconds of media per burst (a chunk, or the slices of one), estimated from the latest bursts.
   */
  get #chunk() {
    const bursts = this.#bursts;
    if (!bursts.length) return 0.5;
    // The first burst may be a whole group, as a late page receives it: divide by its chunks.
    if (bursts.length === 1) return Math.max(0.5, bursts[0].grown / bursts[0].count);
    // The second largest: the largest may be the result of a delivery jam.
    return bursts.map(({ grown }) => grown).sort((one, other) => other - one)[1];
  }

  /**
   * `remove()` removes everything up to the next keyframe after its end. In the middle of a group,
   * it would remove what is about to be played. So trim only at the start of a group, just before
   * its keyframe.
   */
  #trimPoint(keep) {
    const { buffered } = this.#buffer;
    const point = this.#starts.filter((start) => start <= this.#element.currentTime - keep).pop();
    if (point === undefined || !buffered.length || buffered.start(0) > point - 0.5) return 0;
    this.#starts = this.#starts.filter((start) => start >= point);
    return point - 0.05;
  }

  /** The browser's media buffer is full. */
  #makeRoom() {
    const trim = this.#trimPoint(0.2);
    if (trim > 0) this.#buffer.remove(0, trim);
    else this.#giveUp();
  }

  /**
   * The buffer is full and can't be trimmed: clear it and continue with the next group. The source
   * buffer keeps its init.
   */
  #giveUp() {
    this.#discard(this.#queue.length);
    this.#starts = [];
    this.#clear = true;
    this.hole();
    this.#pump();
  }

  /**
   * The queue is too large: keeps only the newest group or, if that is too large itself, drops it
   * and waits for the next.
   */
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
    if (this.#fed && this.#liveAt !== null && now() - Math.max(this.#fed, this.#liveAt) > IDLE * 1000) this.#report("idle");
    if (!this.#source) return;
    // Not every stall ends with an event.
    const { currentTime, readyState, seeking } = this.#element;
    if (this.#status === "stalled" && currentTime > this.#ticked && readyState > 2 && !seeking) this.#report("playing");
    this.#ticked = currentTime;
    if (this.#status === "playing" && this.#failures && now() - this.#resumeAt > 30_000) this.#failures = 0;
    this.#steer(false);
  }

  #starved() {
    if (!this.#started || this.#element.seeking) return;
    // If chunks come a little late, increase the margin, as far as the lag allows; not after a gap
    // or a lost connection.
    if (this.#inGroup && now() - this.#fed < 2_000) this.#extra = Math.min(this.#extra + 0.1, this.#extraMax());
    this.#report("stalled");
    this.#steer(false);
  }

  #extraMax() { return Math.max(0, this.#lag - this.#chunk - 0.3 - MARGIN); }

  get #margin() { return clamp(MARGIN_MIN + Math.abs(this.#chunk - SHORT), MARGIN_MIN, MARGIN) + this.#extra; }

  /**
   * Adjusts playback position and rate. `fed`: called after an append, when the distance to the end
   * is comparable.
   */
  #steer(fed) {
    const element = this.#element;
    const end = this.end;
    if (!end) return;
    const { buffered } = this.#buffer;
    const last = buffered.length - 1;
    if (element.seeking) {
      // A seek into a few pictures before a hole never ends: there are too few to begin with.
      if (element.currentTime < buffered.start(last) && now() - this.#sought > 2_000) this.#seek(this.#best());
      return;
    }
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
    // A lost group leaves a hole in the buffer: at the end of a range, jump to the start of the
    // next. Some decoders stop a little before the end.
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

  /**
   * The best position: one chunk and the margin before the end of this track and of the audio that
   * belongs to it.
   */
  #best() {
    const { buffered } = this.#buffer;
    let goal = this.goal;
    if (this.follower?.alive && sameClock(this, this.follower)) goal = Math.min(goal, this.follower.goal);
    return clamp(goal, buffered.start(buffered.length - 1) + 0.01, this.end);
  }

  /**
   * The video ran so far ahead that its audio starves: slow down until the audio has its margin
   * again.
   */
  #hurried(at, behind) {
    const sound = this.follower;
    if (!sound?.alive || !sameClock(this, sound)) return false;
    return sound.end - at < 0.1 || (this.#element.playbackRate < 1 && behind < 0);
  }

  /** Makes audio follow its video's clock. Returns whether it did. */
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
    if (now() - this.#sought < 1_000) return; // repeated seeks would show nothing at all
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
    this.#notify("media", { track: this.#name, status, mime, sound: hasSound(mime), ...(why && { why }) });
  }
}

const sameClock = (one, other) => one.end > 0 && other.end > 0 && Math.abs(one.end - other.end) < SAME_CLOCK;

// ========================================================================================= helpers

/**
 * `https://relay.example/any` -> `wss://relay.example/ws`; a `ws:` or `wss:` URL is used unchanged.
 */
function socketAddress(given) {
  const url = new URL(given ?? import.meta.url, location.href);
  if (url.protocol === "ws:" || url.protocol === "wss:") return url.href;
  const address = new URL("ws", url);
  address.protocol = url.protocol === "http:" ? "ws:" : "wss:";
  address.search = address.hash = "";
  return address.href;
}

/**
 * Adds a listener; returns a function that removes it (browsers before 2021 don't support
 * `signal`).
 */
function listen(target, type, run) {
  target.addEventListener(type, run);
  return () => target.removeEventListener(type, run);
}

/** `retry=4.2` -> 4200 */
function retryOf(reason) {
  const found = /(?:^|[\s;,])retry=(\d+(?:\.\d+)?)/.exec(reason);
  return found ? clamp(Number(found[1]) * 1000, 0, RETRY_MAX) : null;
}
