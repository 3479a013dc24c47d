/**
 * encoding.js: from a stream of the browser to the bytes that the hub takes.
 *
 * Owns: which encoders are used (H.264 and AAC where there are any, since everybody plays those), and the two ways:
 * WebCodecs with muxing.js, which may lower its bitrate and drop groups; and MediaRecorder where a browser has only that.
 * Refuses: nothing by itself; `plan` says null where a browser can do neither.
 * Does not know: the line. Both ways have `begin` (a new stream, with its header), `replace`, `rate`, `mute` and `stop`.
 */
import { blocks, pictures } from "./capture.js";
import { Clock } from "./clock.js";
import { Muxer } from "./muxing.js";

const KEY_EVERY = 1_000_000; // us: who comes late sees a picture within it
const STILL = 250; // ms without a new picture, after which the last one is sent again: screens stand still
const SOUND_BITRATE = 96_000;
const WAIT_FOR_SOUND = 1_500; // ms, after which the stream begins without it
const QUEUE_MAX = 4; // pictures that wait for the encoder; more are left out
const HELD_MAX = 400; // pieces that wait for the stream's header

const TYPES = [
  "video/mp4;codecs=avc1.42E01E,mp4a.40.2", "video/mp4;codecs=avc1.42E01F,mp4a.40.2", "video/webm;codecs=vp8,opus", "video/webm;codecs=h264,opus",
  "video/webm;codecs=vp9,opus", "video/mp4;codecs=avc1.42E01E,opus", "video/mp4", "video/webm",
];

/**
 * How this browser encodes a stream of this size. `way` is codecs or recorder; `lacks` are words.js's names of what some
 * viewers will miss. Null if it can't.
 */
export async function plan({ width, height, rate, bitrate, hasSound }) {
  if (hasCodecs(hasSound)) {
    const picture = await supportedPicture({ width, height, rate, bitrate });
    const sound = hasSound ? await supportedSound() : null;
    if (picture && (sound || !hasSound)) {
      const lacks = [...(picture.name === "avc" ? [] : ["h264"]), ...(sound?.name === "opus" ? ["aac"] : [])];
      return { way: "codecs", picture, sound, lacks, rate, label: `${picture.label}${sound ? ` · ${sound.label}` : ""}` };
    }
  }
  const type = globalThis.MediaRecorder ? TYPES.find((one) => MediaRecorder.isTypeSupported(one)) : null;
  if (!type) return null;
  const lacks = [...(/avc1|h264|^video\/mp4$/.test(type) ? [] : ["h264"]), ...(!hasSound || /mp4a|^video\/mp4$/.test(type) ? [] : ["aac"])];
  return { way: "recorder", type, lacks, rate, bitrate, label: `MediaRecorder · ${/webm/.test(type) ? "WebM" : "MP4"}` };
}

const hasCodecs = (hasSound) => "VideoEncoder" in globalThis && "VideoFrame" in globalThis && (!hasSound || ("AudioEncoder" in globalThis && "AudioData" in globalThis))
  && ("MediaStreamTrackProcessor" in globalThis || "requestVideoFrameCallback" in HTMLVideoElement.prototype);

async function supportedPicture({ width, height, rate, bitrate }) {
  // Levels by macroblocks a second: 3.1 up to 1280x720 at 30, 4.0 up to 1920x1080 at 30.
  const isLarge = Math.max(width, height) > 1280 || Math.min(width, height) > 720;
  const [level, level9] = isLarge ? ["28", "40"] : ["1F", "31"];
  const common = { width, height, bitrate, framerate: rate, latencyMode: "realtime" };
  const tries = [
    ...["42E0", "4D00", "6400"].map((profile) => ({ name: "avc", label: "H.264", config: { ...common, codec: `avc1.${profile}${level}`, avc: { format: "avc" } } })),
    { name: "vp9", label: "VP9", config: { ...common, codec: `vp09.00.${level9}.08` } },
  ];
  return firstSupported(VideoEncoder, tries);
}

async function supportedSound() {
  const common = { sampleRate: 48_000, numberOfChannels: 2, bitrate: SOUND_BITRATE };
  return firstSupported(AudioEncoder, [
    { name: "aac", label: "AAC", config: { ...common, codec: "mp4a.40.2", aac: { format: "aac" } } },
    { name: "opus", label: "Opus", config: { ...common, codec: "opus", opus: { format: "opus", frameDuration: 20_000 } } },
  ]);
}

async function firstSupported(Encoder, tries) {
  for (const one of tries) {
    try {
      if ((await Encoder.isConfigSupported(one.config)).supported) return one;
    } catch { /* it doesn't know the fields */ }
  }
  return null;
}

/** `on`: {bytes(bytes, startsGroup), renew(), fault(error)}. */
export class Codecs {
  constructor({ plan, stream, on }) {
    Object.assign(this, { plan, on, isMuted: false, stops: [], clocks: { video: new Clock(), audio: new Clock() }, muxer: null });
    this.pace = plan.rate; // pictures a second
    this.full = plan.picture.config.bitrate;
    const fault = (error) => { if (this.isOpen) this.on.fault(error); };
    this.isOpen = true;
    this.fault = fault;
    this.video = new VideoEncoder({ output: (chunk, meta) => this.#encoded("video", chunk, meta), error: fault });
    this.video.configure(plan.picture.config);
    this.#take(stream);
    this.still = setInterval(() => this.#repeat(), STILL);
  }

  /** A new stream: its header, then its groups. */
  begin() {
    Object.assign(this, { muxer: null, held: [], origin: null, begun: performance.now() });
    this.wantsKey = true;
  }

  /** Other pictures and sound go on in the same stream. */
  replace(stream) {
    this.#drop();
    this.clocks.video.reset();
    this.clocks.audio.reset();
    this.#take(stream);
  }

  rate(bitrate) {
    // Encoders have a floor: fewer pictures are better than none.
    this.pace = this.plan.rate / (bitrate < this.full / 2 ? 2 : 1);
    this.plan.picture.config = { ...this.plan.picture.config, bitrate };
    this.video.configure(this.plan.picture.config);
    // Some encoders begin anew.
    this.wantsKey = true;
  }

  mute(isMuted) {
    this.isMuted = isMuted;
    for (const stop of this.stops) stop.mute?.(isMuted);
  }

  stop() {
    this.isOpen = false;
    clearInterval(this.still);
    this.#drop();
    for (const encoder of [this.video, this.audio]) if (encoder && encoder.state !== "closed") encoder.close();
  }

  #take(stream) {
    const [picture] = stream.getVideoTracks();
    const [sound] = stream.getAudioTracks();
    this.stops = [pictures(picture, (frame) => this.#picture(frame))];
    if (sound && this.plan.sound) {
      const stop = blocks(sound, (data) => this.#sound(data));
      stop.mute?.(this.isMuted);
      this.stops.push(stop);
    }
  }

  #drop() {
    for (const stop of this.stops) stop();
    this.stops = [];
    this.last?.close();
    this.last = null;
  }

  #picture(frame) {
    const now = performance.now();
    this.clocks.video.look(frame.timestamp, now);
    const at = this.clocks.video.at(frame.timestamp);
    // A camera may give more than was asked for.
    const interval = 1e6 / this.pace;
    this.due ??= at;
    if (at < this.due - interval / 2) return frame.close();
    this.due = Math.max(this.due + interval, at - interval);
    const fitted = this.#fitted(frame, at);
    this.last?.close();
    this.last = fitted.clone();
    this.seen = now;
    this.#encode(fitted, at);
  }

  /** At the encoder's size and the page's time: in another shape, with bars. */
  #fitted(frame, at) {
    const { width, height } = this.plan.picture.config;
    const timestamp = Math.round(at);
    if (frame.displayWidth === width && frame.displayHeight === height) {
      const own = new VideoFrame(frame, { timestamp });
      frame.close();
      return own;
    }
    this.canvas ??= new OffscreenCanvas(width, height);
    const context = this.canvas.getContext("2d", { alpha: false, desynchronized: true });
    const scale = Math.min(width / frame.displayWidth, height / frame.displayHeight);
    const [wide, high] = [Math.round(frame.displayWidth * scale), Math.round(frame.displayHeight * scale)];
    context.fillRect(0, 0, width, height);
    context.drawImage(frame, (width - wide) >> 1, (height - high) >> 1, wide, high);
    frame.close();
    return new VideoFrame(this.canvas, { timestamp });
  }

  #encode(frame, at) {
    if (this.isOpen && this.video.state === "configured" && this.video.encodeQueueSize <= QUEUE_MAX) {
      const keyFrame = this.wantsKey || at - (this.keyAt ?? -Infinity) >= KEY_EVERY - 5_000;
      if (keyFrame) Object.assign(this, { keyAt: at, wantsKey: false });
      this.video.encode(frame, { keyFrame });
    }
    frame.close();
  }

  #repeat() {
    const now = performance.now();
    if (!this.last || now - this.seen < STILL) return;
    const frame = new VideoFrame(this.last, { timestamp: Math.round(now * 1000) });
    this.due = now * 1000;
    this.#encode(frame, now * 1000);
  }

  #sound(data) {
    const { sampleRate, numberOfChannels } = data;
    this.clocks.audio.look(data.timestamp, performance.now());
    const isOther = this.audio && (this.heard.sampleRate !== sampleRate || this.heard.numberOfChannels !== numberOfChannels);
    if (isOther) this.audio.close();
    if (!this.audio || isOther) {
      this.heard = { sampleRate, numberOfChannels };
      this.audioMeta = null;
      this.audio = new AudioEncoder({ output: (chunk, meta) => this.#encoded("audio", chunk, meta), error: this.fault });
      this.audio.configure({ ...this.plan.sound.config, ...this.heard });
      // Its header is another one.
      if (isOther) this.on.renew();
    }
    if (this.isOpen && this.audio.state === "configured") this.audio.encode(data);
    data.close();
  }

  #encoded(kind, chunk, meta) {
    const config = meta?.decoderConfig;
    const name = `${kind}Meta`;
    if (config) {
      const isOther = this[name] && !isSame(this[name].described, config.description);
      this[name] = { decoderConfig: config.codec === "opus" ? opusAt48kHz(config) : config, described: config.description };
      if (isOther && this.muxer) return this.on.renew();
    }
    const data = new Uint8Array(chunk.byteLength);
    chunk.copyTo(data);
    const at = kind === "video" ? chunk.timestamp : this.clocks.audio.at(chunk.timestamp);
    this.#mux({ kind, data, isKey: chunk.type === "key", at });
  }

  #mux(piece) {
    if (!this.held) return;
    if (!this.muxer) {
      if (this.origin === null && !(piece.kind === "video" && piece.isKey)) return;
      this.origin ??= piece.at;
      this.held.push(piece);
      // Sound from before the first picture is dropped, so it is none yet.
      const hasSound = this.audioMeta && this.held.some(({ kind, at }) => kind === "audio" && at >= this.origin);
      const waits = this.plan.sound && this.stops.length > 1 && !hasSound && performance.now() - this.begun < WAIT_FOR_SOUND;
      if (!this.videoMeta || waits) {
        if (this.held.length > HELD_MAX) this.begin();
        return;
      }
      const { picture, sound } = this.plan;
      const muxer = new Muxer({
        video: picture.name, audio: hasSound ? sound.name : null,
        // What is left of a stream that has ended is none of the next one's.
        emit: (bytes, startsGroup) => { if (this.muxer === muxer) this.on.bytes(bytes, startsGroup); },
      });
      this.muxer = muxer;
      const held = this.held;
      this.held = [];
      for (const one of held) this.#add(one);
      return;
    }
    this.#add(piece);
  }

  #add(piece) {
    const { muxer } = this;
    muxer.add({ ...piece, at: piece.at - this.origin, meta: { decoderConfig: this[`${piece.kind}Meta`].decoderConfig } });
    muxer.settled().catch((error) => { if (this.muxer === muxer) this.fault(error); });
  }
}

/** The same by MediaRecorder: its bytes can't be cut, so `renew` is its only answer to a line that is too slow. */
export class Recorder {
  constructor({ plan, stream, on }) {
    Object.assign(this, { plan, stream, on, isOpen: true, recorder: null, bitrate: plan.bitrate });
  }

  begin() {
    this.#end();
    const options = { mimeType: this.plan.type, videoBitsPerSecond: this.bitrate, audioBitsPerSecond: SOUND_BITRATE, videoKeyFrameIntervalDuration: 1000 };
    const recorder = new MediaRecorder(this.stream, options);
    let queue = Promise.resolve();
    recorder.ondataavailable = ({ data }) => {
      queue = queue.then(async () => {
        const bytes = new Uint8Array(await data.arrayBuffer());
        if (this.recorder === recorder && bytes.length) this.on.bytes(bytes, false);
      });
    };
    recorder.onerror = ({ error }) => this.on.fault(error ?? new Error("the recorder failed"));
    this.recorder = recorder;
    recorder.start(100);
  }

  replace(stream) {
    this.stream = stream;
    this.on.renew();
  }

  rate(bitrate) {
    this.bitrate = bitrate;
  }

  mute() { /* its tracks are the person's own, which are silent */ }

  stop() {
    this.isOpen = false;
    this.#end();
  }

  #end() {
    const { recorder } = this;
    this.recorder = null;
    if (recorder && recorder.state !== "inactive") recorder.stop();
  }
}

/** Opus counts by 48 kHz whatever was encoded. Chrome refuses a header that says two rates. */
function opusAt48kHz(config) {
  if (!config.description) return { ...config, sampleRate: 48_000 };
  const description = bytesOf(config.description).slice();
  // OpusHead (RFC 7845, section 5.1): 8 bytes of name, version, channels, pre-skip, then the rate.
  if (description.length >= 16) new DataView(description.buffer).setUint32(12, 48_000, true);
  return { ...config, sampleRate: 48_000, description };
}

const bytesOf = (all) => (ArrayBuffer.isView(all) ? new Uint8Array(all.buffer, all.byteOffset, all.byteLength) : new Uint8Array(all));

function isSame(one, other) {
  if (!one || !other) return one === other;
  const [a, b] = [one, other].map(bytesOf);
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
