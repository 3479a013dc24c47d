/**
 * clip.mjs: splits the demo's clip into frames and remuxes them for a test: other chunks, other times, picture and sound in
 * one track.
 *
 * Owns its knowledge of ISO BMFF: the boxes of `src/demo/clip/*.mp4`, and new fragments.
 * Knows nothing of the relay or of browsers.
 */

import { readFileSync } from "node:fs";

const CLIP = new URL("../../src/demo/clip/", import.meta.url);
const CONTAINERS = ["moov", "mvex", "moof", "traf", "trak", "mdia"];

export const PICTURE_MIME = 'video/mp4; codecs="avc1.4d4015"';
export const SOUND_MIME = 'audio/mp4; codecs="mp4a.40.2"';
export const BOTH_MIME = 'video/mp4; codecs="avc1.4d4015, mp4a.40.2"';

/** The picture: 24 frames a second by default, a keyframe first and every `keyframes` frames. */
export const picture = read("video.mp4", 1);
export const sound = read("audio.mp4", 2);

/** One init segment for both: track 1 the picture, track 2 the sound. */
export const both = (() => {
  const inside = (part, kind) => part.moov.filter((one) => one.kind === kind).map(({ bytes }) => bytes);
  const trex = (part) => box("trex", u32(0), u32(part.track), u32(1), u32(0), u32(0), u32(0));
  const head = Buffer.from(inside(picture, "mvhd")[0]);
  head.writeUInt32BE(3, head.length - 4); // the next track's number
  const moov = box("moov", head, ...inside(picture, "trak"), ...inside(sound, "trak"), box("mvex", trex(picture), trex(sound)));
  return Buffer.concat([picture.ftyp, moov]);
})();

function read(name, track) {
  const file = readFileSync(new URL(name, CLIP));
  const boxes = walk(file);
  const find = (kind, within = boxes) => within.find((one) => one.kind === kind);
  const [moov, ftyp] = [find("moov"), find("ftyp")];
  const trak = find("trak", moov.inside);
  // The sound file's only track has number 1 as well.
  file.writeUInt32BE(track, find("tkhd", trak.inside).at + 20);
  file.writeUInt32BE(track, find("trex", find("mvex", moov.inside).inside).at + 12);
  const scale = file.readUInt32BE(find("mdhd", find("mdia", trak.inside).inside).at + 20);
  const frames = boxes.filter(({ kind }) => kind === "moof").flatMap((moof) => {
    const traf = find("traf", moof.inside).inside;
    const [head, run] = [find("tfhd", traf).at + 8, find("trun", traf).at + 8];
    const [duration, size, flags, runFlags, count] = [head + 8, head + 12, head + 16, run, run + 4].map((at) => file.readUInt32BE(at));
    let [at, entry] = [moof.at + file.readUInt32BE(run + 8), run + 12 + (runFlags & 4 ? 4 : 0)];
    return Array.from({ length: count }, (_, index) => {
      const long = runFlags & 0x200 ? file.readUInt32BE(entry) : size;
      entry += 4;
      const bytes = file.subarray(at, (at += long));
      return { bytes, duration, flags: index === 0 && runFlags & 4 ? file.readUInt32BE(run + 12) : flags };
    });
  });
  return { track, scale, frames, keyframes: frames.findIndex(({ flags }, index) => index > 0 && !(flags & 0x10000)), moov: moov.inside, ftyp: ftyp.bytes, init: Buffer.concat([ftyp.bytes, moov.bytes]) };
}

/** Frames `from` to `to` (exclusive) of the looping clip, each `duration` seconds long, as one fragment. */
export function fragment(part, from, to, { duration = part.frames[0].duration / part.scale, at = from * duration } = {}) {
  const frames = Array.from({ length: to - from }, (_, index) => part.frames[(from + index) % part.frames.length]);
  const ticks = Math.round(duration * part.scale);
  const entries = frames.flatMap(({ bytes, flags }) => [u32(ticks), u32(bytes.length), u32(flags)]);
  const moof = (offset) => box("moof", box("mfhd", u32(0), u32(from + 1)), box("traf",
    box("tfhd", u32(0x020000), u32(part.track)),
    box("tfdt", u32(0x01000000), u64(Math.round(at * part.scale))),
    box("trun", u32(0x000701), u32(frames.length), u32(offset), ...entries)));
  return Buffer.concat([moof(moof(0).length + 8), box("mdat", ...frames.map(({ bytes }) => bytes))]);
}

/** A box that players skip. */
export const padding = (size) => box("free", Buffer.alloc(size - 8));

export function slices(bytes, size) {
  const found = [];
  for (let at = 0; at < bytes.length; at += size) found.push(bytes.subarray(at, at + size));
  return found;
}

function walk(file, begin = 0, end = file.length) {
  const found = [];
  for (let at = begin; at + 8 <= end;) {
    const size = file.readUInt32BE(at);
    const kind = file.toString("latin1", at + 4, at + 8);
    found.push({ kind, at, bytes: file.subarray(at, at + size), inside: CONTAINERS.includes(kind) ? walk(file, at + 8, at + size) : [] });
    at += size;
  }
  return found;
}

function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function box(kind, ...pieces) {
  const body = Buffer.concat(pieces);
  return Buffer.concat([u32(body.length + 8), Buffer.from(kind, "latin1"), body]);
}
