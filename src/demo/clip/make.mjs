// Renders the demo's clip: `node make.mjs video` writes 192 raw rgb24 frames of 426x240 to standard
// output, `node make.mjs audio` three rounds of 16 s of mono 48 kHz s16le audio, and `node make.mjs
// loop FIRST COUNT < in.aac` copies COUNT frames of an ADTS stream from FIRST on. Everything is a
// function of the position in the loop, so that the last frame leads to the first: lanterns rise
// over a lake at night, and somebody plucks a pentatonic tune.
import { readFileSync, writeSync } from 'node:fs';

const W = 426, H = 240, FPS = 24, FRAMES = 192;
const TAU = Math.PI * 2;
const clamp = (x, a = 0, b = 1) => (x < a ? a : x > b ? b : x);
const mix = (a, b, t) => a + (b - a) * t;
const smooth = (a, b, x) => { const t = clamp((x - a) / (b - a)); return t * t * (3 - 2 * t); };

// A random number generator with a fixed seed, so that every run renders the same frames.
let seed = 20240223;
const random = () => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return seed / 4294967296; };

const HORIZON = 142;
const MOON = { x: 322, y: 52, r: 15 };

const ridge = (x, a, b, c, d) => a + b * Math.sin(x * 0.011 + c) + 0.5 * b * Math.sin(x * 0.027 + d) + 0.18 * b * Math.sin(x * 0.071 + c + d);
const far = x => HORIZON - 30 - ridge(x, 0, 13, 0.6, 2.0);
const near = x => HORIZON - 9 - ridge(x, 0, 8, 3.4, 0.3);

const stars = Array.from({ length: 70 }, () => ({
  x: random() * W, y: random() * 96, light: 0.25 + random() * 0.6, turns: 1 + Math.floor(random() * 2), phase: random() * TAU,
}));

// Each lantern rises once per loop (distant ones are small, slow and dim).
const lanterns = Array.from({ length: 22 }, (_, i) => {
  const depth = i / 21;                       // 0 far, 1 near
  return {
    x: 14 + ((i * 151) % 386), start: ((i * 13) % 22 + random() * 1.6) / 22, size: mix(2.0, 6.4, depth ** 1.5), top: mix(36, -14, depth),
    foot: mix(HORIZON - 4, HORIZON + 30, depth ** 2), sway: mix(3, 12, depth), phase: random() * TAU, light: mix(0.5, 1, depth),
  };
});

function lanternAt(l, t) {
  const p = (t + l.start) % 1;
  const rise = p ** 1.15;
  return {
    x: l.x + l.sway * Math.sin(TAU * p + l.phase) * p + 8 * p, y: mix(l.foot, l.top, rise), size: l.size * mix(1, 0.72, p),
    light: l.light * smooth(0, 0.1, p) * (1 - smooth(0.8, 1, p)) * (0.92 + 0.08 * Math.sin(TAU * 3 * t + l.phase)),
    foot: l.foot,
  };
}

function sky(x, y, t, out) {
  const v = clamp(y / HORIZON);
  let r = mix(11, 78, v ** 2.1), g = mix(16, 62, v ** 1.9), b = mix(44, 104, v ** 1.3);
  const warm = Math.exp(-(((x - 190) / 190) ** 2)) * v ** 5;
  r += 66 * warm; g += 26 * warm; b += 4 * warm;
  const dx = x - MOON.x, dy = y - MOON.y, d = Math.sqrt(dx * dx + dy * dy);
  const halo = 74 * Math.exp(-d / 26) + 22 * Math.exp(-d / 80);
  r += halo * 0.92; g += halo * 0.9; b += halo * 0.78;
  const disc = 1 - smooth(MOON.r - 0.9, MOON.r + 0.9, d);
  if (disc > 0) {
    const spots = 1 - 0.07 * smooth(0.2, 1, Math.sin(dx * 0.34 + 1) * Math.sin(dy * 0.29 + dx * 0.1)) - 0.05 * smooth(4, 14, dx + dy + 9);
    r = mix(r, 255 * spots, disc); g = mix(g, 246 * spots, disc); b = mix(b, 220 * spots, disc);
  }
  // Two thin veils of cloud that move by one whole period per loop.
  const veil = (Math.sin(x * TAU / 213 - TAU * t + Math.sin(y * 0.09) * 1.2) * 0.5 + 0.5) * Math.exp(-(((y - 84 - 6 * Math.sin(x * 0.02)) / 11) ** 2));
  r += 13 * veil; g += 11 * veil; b += 17 * veil;
  const f = smooth(-0.8, 0.8, y - far(x));
  if (f > 0) { const m = smooth(far(x), HORIZON, y); r = mix(r, mix(38, 92, m), f); g = mix(g, mix(38, 74, m), f); b = mix(b, mix(76, 106, m), f); }
  const n = smooth(-0.8, 0.8, y - near(x));
  if (n > 0) { const m = smooth(near(x), HORIZON + 2, y); r = mix(r, mix(17, 46, m), n); g = mix(g, mix(20, 42, m), n); b = mix(b, mix(44, 70, m), n); }
  out[0] = r; out[1] = g; out[2] = b;
}

// Rings of reeds in the corner, and a boat with a lamp.
const reeds = Array.from({ length: 26 }, (_, i) => ({
  x: (i < 17 ? i * 5.2 - 8 : 372 + (i - 17) * 7.2) + random() * 6, h: (i < 17 ? mix(86, 22, i / 17) : mix(26, 68, (i - 17) / 9)) * (0.75 + random() * 0.4),
  lean: (random() - 0.4) * 20, phase: random() * TAU, ear: random() > 0.55,
}));

function frame(t) {
  const light = new Float32Array(W * H * 3);
  const px = [0, 0, 0];
  const skyRow = y => { for (let x = 0; x < W; x++) { sky(x, y, t, px); const o = (y * W + x) * 3; light[o] = px[0]; light[o + 1] = px[1]; light[o + 2] = px[2]; } };
  for (let y = 0; y < HORIZON; y++) skyRow(y);
  for (const s of stars) {
    const k = s.light * (0.62 + 0.38 * Math.sin(TAU * s.turns * t + s.phase)) * 120;
    const x0 = Math.round(s.x), y0 = Math.round(s.y);
    if (y0 > far(x0) - 3 || Math.hypot(x0 - MOON.x, y0 - MOON.y) < 26 || x0 < 0 || x0 >= W) continue;
    const o = (y0 * W + x0) * 3;
    light[o] += k; light[o + 1] += k; light[o + 2] += k;
  }
  const up = lanterns.map(l => lanternAt(l, t));
  const glow = (cx, cy, size, k, limit, stretch) => {
    const reach = size * 5.5;
    for (let y = Math.max(limit[0], Math.floor(cy - reach * stretch)); y < Math.min(limit[1], cy + reach * stretch); y++) {
      for (let x = Math.max(0, Math.floor(cx - reach)); x < Math.min(W, cx + reach); x++) {
        const d = Math.hypot(x - cx, (y - cy) / stretch) / size;
        const g = k * Math.exp(-d * 0.95) * (1 - smooth(3.5, 5.5, d));
        const o = (y * W + x) * 3;
        light[o] += 118 * g; light[o + 1] += 62 * g; light[o + 2] += 18 * g;
      }
    }
  };
  for (const l of up) if (l.y < HORIZON + 40) glow(l.x, l.y, l.size, l.light, [0, Math.min(H, HORIZON)], 1);

  // The lake: the mirrored sky, distorted by ripples that grow towards the viewer.
  for (let y = HORIZON; y < H; y++) {
    const depth = (y - HORIZON) / (H - HORIZON);
    const scale = 1 / (0.06 + depth);
    for (let x = 0; x < W; x++) {
      const a = Math.sin(0.42 * scale * 6 + TAU * 2 * t + x * 0.012) + 0.6 * Math.sin(0.9 * scale * 6 - TAU * 3 * t + x * 0.03);
      const shift = (1.4 + 7 * depth) * a;
      const my = clamp(HORIZON - 1 - (y - HORIZON) * 1.28 + 0.9 * a, 0, HORIZON - 1) | 0;
      const mx = clamp(x + shift, 0, W - 1) | 0;
      const m = (my * W + mx) * 3, o = (y * W + x) * 3;
      const dim = mix(0.74, 0.42, depth);
      const soft = v => Math.min(v, 92 + (v - 92) * 0.12) * dim;
      let r = soft(light[m]) + 3, g = soft(light[m + 1]) + 6, b = soft(light[m + 2]) + 13;
      // The moon's path.
      const path = Math.exp(-(((x - MOON.x + 5 * a * depth) / (10 + 26 * depth)) ** 2));
      const glint = smooth(0.45, 1.3, Math.sin(scale * 9 + TAU * 2 * t + Math.sin(x * 0.21 + TAU * t)) + 0.5 * Math.sin(x * 0.33 + scale * 17 - TAU * 3 * t));
      const k = path * (0.13 + 0.75 * glint) * (1 - 0.55 * depth);
      r += 150 * k; g += 142 * k; b += 118 * k;
      light[o] = r; light[o + 1] = g; light[o + 2] = b;
    }
  }
  const shore = HORIZON;
  for (let x = 0; x < W; x++) for (let y = shore - 3; y < shore + 4; y++) {
    const k = Math.exp(-(((y - shore) / 1.7) ** 2)) * 0.36, o = (y * W + x) * 3;
    light[o] = mix(light[o], 150, k * 0.6); light[o + 1] = mix(light[o + 1], 118, k * 0.6); light[o + 2] = mix(light[o + 2], 140, k * 0.6);
  }

  // The lanterns themselves, far ones first, with their reflections.
  for (const l of up) {
    if (l.light <= 0.01) continue;
    const water = l.foot > HORIZON ? l.foot : HORIZON + 3;
    const ry = water + (water - l.y) * 0.55;
    if (ry < H + 20) glow(l.x + 2 * Math.sin(TAU * 2 * t + l.x), Math.max(ry, HORIZON + 2), l.size * 1.05, l.light * 0.4 * (1 - smooth(30, 120, ry - HORIZON)), [HORIZON, H], 2.2);
    if (l.foot > HORIZON) glow(l.x, l.y, l.size, l.light * 0.8, [HORIZON, H], 1);
    const s = l.size, h = s * 1.28;
    for (let y = Math.max(0, Math.floor(l.y - h - 1)); y < Math.min(H, l.y + h + 1); y++) for (let x = Math.max(0, Math.floor(l.x - s - 1)); x < Math.min(W, l.x + s + 1); x++) {
      const v = (y + 0.5 - l.y) / h, half = s * (v < 0 ? 1 - 0.55 * v ** 4 : 1 - 0.28 * v * v);
      const inside = smooth(-0.7, 0.7, half - Math.abs(x + 0.5 - l.x)) * smooth(-0.7, 0.7, h - Math.abs(y + 0.5 - l.y));
      if (inside <= 0) continue;
      const core = Math.exp(-(((x + 0.5 - l.x) / s) ** 2) * 1.3 - ((v - 0.45) ** 2) * 1.5);
      const a = inside * clamp(l.light * 1.15), o = (y * W + x) * 3;
      light[o] = mix(light[o], mix(214, 255, core), a); light[o + 1] = mix(light[o + 1], mix(92, 214, core), a); light[o + 2] = mix(light[o + 2], mix(38, 128, core), a);
    }
  }

  // A boat with a lamp rocks on the left.
  const bx = 118 + 3 * Math.sin(TAU * t), by = 181 + 0.9 * Math.sin(TAU * 2 * t), tilt = 0.035 * Math.sin(TAU * 2 * t + 0.8);
  glow(bx + 19, by - 15, 5, 0.9, [0, H], 1); glow(bx + 19, by + 15, 5, 0.34, [Math.round(by) + 3, H], 2);
  for (let y = Math.floor(by - 26); y < by + 10; y++) for (let x = Math.floor(bx - 36); x < bx + 38; x++) {
    const u = x - bx, v = y - by - tilt * u;
    const hull = smooth(-0.8, 0.8, v - (-3.2 + -4.2 * (u / 34) ** 4)) * smooth(-0.8, 0.8, 5.6 * (1 - (u / 35) ** 2) - v) * (Math.abs(u) < 35 ? 1 : 0);
    const person = Math.max(smooth(-0.7, 0.7, 3.3 - Math.hypot(u + 6, v + 17.5)), smooth(-0.8, 0.8, Math.min(5.6 - Math.abs(u + 6.5) + (v + 8) * 0.16, v + 14, -v)));
    const hat = smooth(-0.6, 0.6, Math.min((v + 22.4) * 1.9 - Math.abs(u + 6), -18.2 - v));
    const pole = smooth(-0.5, 0.5, 0.9 - Math.abs(u - 19)) * smooth(-1, 0, v + 22) * smooth(-0.5, 0.5, -v - 1);
    const a = Math.max(hull, person, hat, pole), o = (y * W + x) * 3;
    if (a > 0) { const rim = 30 * Math.exp(-Math.abs(u - 17) / 12); light[o] = mix(light[o], 13 + rim, a); light[o + 1] = mix(light[o + 1], 13 + rim * 0.5, a); light[o + 2] = mix(light[o + 2], 26 + rim * 0.15, a); }
    const lamp = smooth(-0.7, 0.7, 3.1 - Math.hypot(u - 19, (v + 15) * 0.85));
    if (lamp > 0) { light[o] = mix(light[o], 255, lamp); light[o + 1] = mix(light[o + 1], 205, lamp); light[o + 2] = mix(light[o + 2], 120, lamp); }
  }

  // Reeds in front.
  for (const r of reeds) {
    for (let k = 0; k < r.h; k += 0.4) {
      const p = k / r.h, y = Math.round(H - k);
      if (y < 0 || y >= H) continue;
      const x = r.x + (r.lean + 5 * Math.sin(TAU * t + r.phase)) * p * p, w = r.ear && p > 0.8 ? 2.1 * Math.sin((p - 0.8) / 0.2 * Math.PI) ** 0.6 + 0.4 : mix(1.5, 0.45, p);
      for (let i = Math.max(0, Math.floor(x - w - 1)); i <= Math.min(W - 1, x + w + 1); i++) {
        const a = smooth(-0.6, 0.6, w - Math.abs(i + 0.5 - x)), o = (y * W + i) * 3;
        light[o] = mix(light[o], 9, a); light[o + 1] = mix(light[o + 1], 12, a); light[o + 2] = mix(light[o + 2], 24, a);
      }
    }
  }

  const out = Buffer.alloc(W * H * 3);
  for (let y = 0; y < H; y++) for (let x = 0; x < W; x++) {
    const o = (y * W + x) * 3;
    const vignette = 1 - 0.22 * (((x - W / 2) / (W / 2)) ** 2 * 0.7 + ((y - H / 2) / (H / 2)) ** 2 * 0.5);
    // Ordered dithering by less than one step prevents banding, and costs no bits because it is
    // static.
    const dither = (((x & 1) * 2 + (y & 1) * 3 + ((x >> 1) & 1)) % 4) / 4 - 0.4;
    for (let c = 0; c < 3; c++) { const v = light[o + c] * vignette; out[o + c] = clamp(v > 200 ? 200 + (v - 200) * 0.62 : v, 0, 254) + dither + 0.5; }
  }
  return out;
}

// Audio: 8 bars at 120 beats per minute are 16 s.
const RATE = 48000, SECONDS = 16, SAMPLES = RATE * SECONDS;

function tune() {
  const buffer = new Float64Array(SAMPLES);
  const hz = n => 440 * 2 ** ((n - 69) / 12);
  const pluck = (beat, note, gain, ring = 2.6) => {
    const from = Math.round(beat * 0.5 * RATE), f = hz(note), length = Math.round(ring * RATE);
    for (let i = 0; i < length; i++) {
      const t = i / RATE, bend = 1 + 0.0022 * Math.exp(-t * 22);
      let v = 0;
      for (let h = 1; h <= 6; h++) { if (f * h > 7000) break; v += Math.sin(TAU * f * h * bend * t * (1 + 0.00018 * h * h)) * Math.exp(-t * (1.5 + 1.25 * h)) / h ** 1.35; }
      buffer[(from + i) % SAMPLES] += v * gain * Math.min(1, t * 420) * Math.min(1, (length - i) / 2400);
    }
  };
  const pad = (beat, beats, notes, gain) => {
    const from = Math.round(beat * 0.5 * RATE), length = Math.round((beats * 0.5 + 1.2) * RATE);
    for (const n of notes) for (let i = 0; i < length; i++) {
      const t = i / RATE, f = hz(n), env = Math.min(1, t / 1.1) * Math.min(1, (length - i) / RATE / 1.4);
      buffer[(from + i) % SAMPLES] += gain * env * (Math.sin(TAU * f * t) + 0.4 * Math.sin(TAU * f * 1.0028 * t) + 0.16 * Math.sin(TAU * 2 * f * t)) * (0.9 + 0.1 * Math.sin(TAU * 0.25 * t * 2));
    }
  };
  // D major pentatonic: D E F# A B.
  pad(0, 8, [38, 50, 57], 0.05); pad(8, 8, [35, 47, 54, 62], 0.04); pad(16, 8, [43, 50, 59], 0.045); pad(24, 8, [45, 52, 57, 64], 0.04);
  const low = [[0, 50], [1.5, 57], [3, 62], [4, 50], [5.5, 57], [8, 47], [9.5, 54], [11, 62], [12, 47], [13.5, 54], [16, 43], [17.5, 50], [19, 59], [20, 43], [21.5, 50], [24, 45], [25.5, 52], [27, 57], [28, 45], [29.5, 52], [31, 57]];
  for (const [b, n] of low) pluck(b, n, 0.15, 2.2);
  const high = [[0, 78], [1, 76], [2, 74], [3, 69], [4.5, 71], [5, 74], [6, 76], [8, 74], [9, 71], [10, 69], [11, 66], [12, 69], [13.5, 71], [14, 74], [16, 83], [17, 81], [18, 78], [19, 76], [20, 78], [21.5, 81], [22, 74], [24, 76], [25, 78], [26, 76], [27, 74], [28, 71], [29, 69], [30, 71], [31, 74]];
  for (const [b, n] of high) pluck(b, n, 0.2 * (b % 2 === 0 ? 1 : 0.82), 3);
  for (const [b, n] of [[7, 86], [15, 90], [23, 93], [23.5, 90], [31.5, 81]]) pluck(b, n, 0.05, 3);
  // Reverb: delays that feed back around the loop, so that the tail of the end overlaps the
  // beginning.
  let wet = Float64Array.from(buffer);
  for (const [delay, back] of [[0.0297, 0.5], [0.0431, 0.46], [0.0719, 0.42], [0.1213, 0.36]]) {
    const d = Math.round(delay * RATE), state = new Float64Array(SAMPLES);
    for (let round = 0; round < 2; round++) for (let i = 0; i < SAMPLES; i++) state[i] = wet[i] * (1 - back) + state[(i - d + SAMPLES) % SAMPLES] * back;
    wet = state;
  }
  const mixed = buffer.map((v, i) => v * 0.8 + wet[i] * 1.1);
  const peak = mixed.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const out = Buffer.alloc(SAMPLES * 2);
  for (let i = 0; i < SAMPLES; i++) out.writeInt16LE(Math.round(mixed[i] / peak * 21000), i * 2);
  return out;
}

const write = bytes => { for (let done = 0; done < bytes.length;) { try { done += writeSync(1, bytes, done); } catch (e) { if (e.code !== 'EAGAIN') throw e; } } };
const [what, first, count] = process.argv.slice(2);
if (what === 'video') for (let i = 0; i < FRAMES; i++) write(frame(i / FRAMES));
else if (what === 'audio') { const round = tune(); for (let i = 0; i < 3; i++) write(round); }
else if (what === 'loop') {
  const adts = readFileSync(0), kept = [];
  for (let at = 0, n = 0; at + 7 <= adts.length; n++) {
    const size = ((adts[at + 3] & 3) << 11) | (adts[at + 4] << 3) | (adts[at + 5] >> 5);
    if (n >= Number(first) && n < Number(first) + Number(count)) kept.push(adts.subarray(at, at + size));
    at += size;
  }
  write(Buffer.concat(kept));
} else { console.error('usage: node make.mjs video | audio | loop FIRST COUNT'); process.exit(2); }
