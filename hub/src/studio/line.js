/**
 * line.js: the connection to the hub, for as long as the person is live.
 *
 * Owns: the WebSocket, its first message, the back-off between attempts, what the hub says, and how many bytes it has
 * not taken yet. A new connection is a new stream: `onready` asks for its header.
 * Refuses: to go on where the hub refuses for good. Doesn't know what the bytes are. What it needs of a browser can be
 * given to it: tests/hub/studio/ runs it in Node.
 *
 * States: idle, connecting, live, waiting (for the next attempt; with why), refused (for good; with why).
 */

const OPEN_MAX = 10_000; // ms
const SILENCE_MAX = 8_000; // ms in which the hub takes nothing that it was sent: the network has changed
const USUAL = 0.5; // s on its way before the hub says that it has it: its word comes each 200 ms
const SPEED_MIN = 350; // ms over which the speed is measured, at least and at most
const SPEED_MAX = 1_500;
const WAIT = 400;
const WAIT_MAX = 8_000;
const END_MAX = 2_000; // for the hub to take what is on its way

export class Line {
  /** `first`: {token, topic}. `on`: {state(state, why), ready()}. */
  constructor({ url, first, on, open = (address) => new WebSocket(address), now = () => performance.now(), random = Math.random,
    later = (task, ms) => setTimeout(task, ms), cancel = (timer) => clearTimeout(timer) }) {
    Object.assign(this, { url, first, on, open, now, random, later, cancel });
    this.state = "idle";
    this.attempts = 0;
    this.socket = null;
    this.timer = null;
  }

  start() {
    this.attempts = 0;
    this.#connect();
  }

  /** Ends the stream, and what is on its way is still sent. */
  stop() {
    const { socket, state } = this;
    this.#leave();
    this.#become("idle");
    if (!socket) return;
    if (state === "live" || state === "connecting") try { socket.send('{"type":"end"}'); } catch { /* not open yet */ }
    this.later(() => socket.close(), END_MAX);
  }

  /** A new stream, at once: the old one can't go on. */
  renew() {
    if (this.state === "idle" || this.state === "refused") return;
    const { socket } = this;
    this.#leave();
    if (socket) {
      try { socket.send('{"type":"end"}'); } catch { /* not open yet */ }
      this.later(() => socket.close(), END_MAX);
    }
    // What the hub still has of the old stream is its own until that has ended.
    this.#wait({ code: "renewed" }, 150);
  }

  /** There may be a network again. An attempt that is under way goes on. */
  hurry() {
    if (this.state === "waiting" && this.socket === null) this.#connect();
  }

  /** Twice a second: a line on which the hub takes nothing for long is dead, whatever the browser says. */
  look() {
    if (this.isOpen && this.sent > this.taken && this.now() - this.heard > SILENCE_MAX) this.#lost({ code: "silent" });
  }

  get isOpen() {
    return this.socket !== null && this.socket.readyState === 1;
  }

  send(bytes) {
    if (!this.isOpen) return;
    if (this.sent === this.taken) this.heard = this.now();
    this.socket.send(bytes);
    this.sent += bytes.byteLength;
    this.unheard.push({ end: this.sent, at: this.now() });
  }

  /** How far the hub is behind, in s: how old the oldest byte is that the browser still holds, or, beyond the usual, that is on its way. */
  get behind() {
    if (!this.isOpen) return 0;
    const onItsWay = this.#age(this.taken) - USUAL;
    // Once it is late, how long all of it takes says sooner how late it will be.
    const whole = onItsWay > 0 && this.speed > 0 ? (8 * (this.sent - this.taken)) / this.speed - USUAL : 0;
    return Math.max(this.#age(this.sent - this.socket.bufferedAmount), onItsWay, whole, 0);
  }

  /** What the hub takes, in bit/s; 0 where that is not known. It is the line's speed while the hub is behind. */
  get speed() {
    const [first, last] = [this.gots[0], this.gots.at(-1)];
    const ms = this.gots.length > 1 ? last.at - first.at : 0;
    return ms < SPEED_MIN ? 0 : ((last.bytes - first.bytes) * 8000) / ms;
  }

  /** The age of the oldest byte beyond the first `taken` ones, in s. */
  #age(taken) {
    const oldest = this.unheard.find(({ end }) => end > taken);
    return oldest ? (this.now() - oldest.at) / 1000 : 0;
  }

  #become(state, why = null) {
    this.state = state;
    this.on.state(state, why);
  }

  #leave() {
    this.cancel(this.timer);
    this.timer = null;
    const { socket } = this;
    this.socket = null;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
  }

  #connect() {
    this.#leave();
    Object.assign(this, { sent: 0, taken: 0, unheard: [], gots: [], heard: this.now(), why: null, wasLive: false });
    const socket = this.open(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    if (this.state !== "waiting") this.#become("connecting");
    this.timer = this.later(() => this.#lost({ code: "unreachable" }), OPEN_MAX);
    socket.onopen = () => {
      this.cancel(this.timer);
      socket.send(JSON.stringify(this.first));
      this.on.ready();
    };
    socket.onmessage = ({ data }) => this.#said(JSON.parse(data));
    socket.onclose = ({ code }) => this.#closed(code);
  }

  #said(said) {
    this.heard = this.now();
    if (said.type === "live") {
      this.attempts = 0;
      this.wasLive = true;
      this.mime = said.mime;
      this.#become("live");
    } else if (said.type === "got") {
      this.taken = said.bytes;
      this.unheard = this.unheard.filter(({ end }) => end > said.bytes);
      this.gots = [...this.gots, { at: this.heard, bytes: said.bytes }].filter(({ at }) => this.heard - at <= SPEED_MAX);
    } else if (said.type === "error") {
      this.why = said;
    }
  }

  #closed(code) {
    const why = this.why ?? { code: this.wasLive ? "cut" : "unreachable" };
    // The hub has given the topic to somebody else: to take it back would be a fight.
    if (why.code === "already_live" && this.wasLive) this.#refused({ ...why, code: "taken_over" });
    else if (code === 1008 || code === 1009) this.#refused(why);
    else this.#lost(why);
  }

  #refused(why) {
    this.#leave();
    this.#become("refused", why);
  }

  #lost(why) {
    const { socket } = this;
    this.#leave();
    socket?.close();
    this.attempts += 1;
    const wait = Math.min(WAIT * 1.7 ** (this.attempts - 1), WAIT_MAX);
    this.#wait(why, wait * (0.75 + this.random() / 2));
  }

  #wait(why, ms) {
    this.#become("waiting", why);
    this.timer = this.later(() => this.#connect(), ms);
  }
}
