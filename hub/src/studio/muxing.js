/**
 * muxing.js: from encoded pictures and sound to fragmented MP4, as the hub takes it.
 *
 * Owns: mediabunny's muxer, and where a fragment ends: each FRAGMENT, and before each keyframe, so that a group starts
 * with it. mediabunny by itself ends fragments at keyframes alone; its inner `forceFragmentFinalization` ends one
 * anywhere. That is no public name, so the version is pinned (vendor/README.md), and a test looks for it.
 * Does not know: encoders. Pure: tests/hub/studio/ runs it in Node.
 */
import { EncodedAudioPacketSource, EncodedPacket, EncodedVideoPacketSource, Mp4OutputFormat, NullTarget, Output } from "./mediabunny.js";

export const FRAGMENT = 100_000; // us

export class Muxer {
  #queue = Promise.resolve();
  #output;
  #inner;
  #sources = {};
  #held = {};
  #missing;
  #pending = 0;
  #from = 0;
  #moof = null;
  #header = [];

  /** `video`, `audio`: mediabunny's names of codecs, or none. `emit(bytes, startsGroup)`: the header first, no group. */
  constructor({ video, audio, emit }) {
    const format = new Mp4OutputFormat({
      fastStart: "fragmented",
      minimumFragmentDuration: 1e9, // never by itself
      onFtyp: (data) => this.#header.push(data.slice()),
      onMoov: (data) => emit(joined(...this.#header, data), false),
      onMoof: (data) => { this.#moof = data.slice(); },
      onMdat: (data) => emit(joined(this.#moof, data), this.#startsGroup),
    });
    this.#output = new Output({ format, target: new NullTarget() });
    if (video) this.#output.addVideoTrack(this.#sources.video = new EncodedVideoPacketSource(video));
    if (audio) this.#output.addAudioTrack(this.#sources.audio = new EncodedAudioPacketSource(audio));
    this.#missing = new Set(Object.keys(this.#sources));
    this.#inner = this.#output._muxer;
    if (typeof this.#inner?.forceFragmentFinalization !== "function") throw new Error("this is another mediabunny than muxing.js is written for");
    this.#do(() => this.#output.start());
  }

  #startsGroup = false;

  /**
   * A piece of a track, of each of which one must come soon: {kind: "video" or "audio", data, isKey, at (us), meta}. It
   * is held until the next one of its track shows how long it lasts: where players see a gap between two pieces, they
   * throw away all pictures up to the next keyframe.
   */
  add(piece) {
    const { kind, isKey, at } = piece;
    if (!this.#sources[kind]) return;
    const before = this.#held[kind];
    // Clocks are set, sources change: a track's time never goes back.
    if (at < 0 || at <= (before?.at ?? -1)) return;
    this.#held[kind] = piece;
    if (before) this.#put(before, at - before.at);
    // The header names the tracks that have come: the first fragment waits for all. A fragment
    // ends with a picture, as long as there are any.
    if (this.#pending === 0 || this.#missing.size > 0) return;
    const isPicture = kind === "video" || !this.#sources.video;
    if ((kind === "video" && isKey) || at - this.#from >= (isPicture ? 1 : 3) * FRAGMENT) this.flush();
  }

  #put({ kind, data, isKey, at, meta }, duration) {
    if (this.#pending === 0) {
      this.#from = at;
      this.#do(() => { this.#startsGroup = false; });
    }
    this.#pending += 1;
    this.#missing.delete(kind);
    if (kind === "video" && isKey) this.#do(() => { this.#startsGroup = true; });
    this.#do(() => this.#sources[kind].add(new EncodedPacket(data, isKey ? "key" : "delta", at / 1e6, duration / 1e6), meta));
  }

  /** Ends the fragment. */
  flush() {
    this.#pending = 0;
    this.#do(async () => {
      await this.#inner.forceFragmentFinalization();
      // It keeps a row of each sample for an index at the end, which a live stream never gets.
      this.#inner.finalizedChunks.length = 0;
      for (const track of this.#inner.trackDatas) track.finalizedChunks.length = 0;
    });
  }

  /** When all that was added has been emitted. Rejects where mediabunny refuses something. */
  settled() {
    return this.#queue;
  }

  #do(task) {
    this.#queue = this.#queue.then(task);
    this.#queue.catch(() => {});
  }
}

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
