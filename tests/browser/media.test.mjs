/**
 * media.test.mjs: sound and picture as real publishers send them: long groups of small chunks, slices that end anywhere, a
 * camera that is off for a while, a clock that goes back; and players that open late, or can't play at all.
 *
 * Publishing goes on in real time until the page shows the expected result; there are no fixed waits.
 */

import assert from "node:assert/strict";
import { AUDIO, part, VIDEO } from "./business.mjs";
import { both, BOTH_MIME, fragment, padding, picture, PICTURE_MIME, slices, sound, SOUND_MIME } from "./clip.mjs";
import { scene, sleep } from "./stage.mjs";

const RATE = 30; // chunks a second
const FRAME = 1 / RATE;
/** 9 s of chunks, more than an earlier limit of the client. */
const LATE = 270;

/** A room with frame-by-frame publications. */
function camera(room, { mime = PICTURE_MIME, init = picture.init } = {}) {
  let next = 0;
  const self = {
    /** Publishes more frames; the first one begins a group if `start` is set. */
    roll(count, { start = false, extra = 0 } = {}) {
      for (let index = 0; index < count; index += 1, next += 1) {
        const bytes = fragment(picture, next, next + 1, { duration: FRAME });
        room.publish(VIDEO, start && index === 0 ? part.start : part.continue, extra ? Buffer.concat([padding(extra), bytes]) : bytes);
      }
    },
    /** The next frame is a keyframe. */
    cut() { next = Math.ceil(next / picture.keyframes) * picture.keyframes; },
    get next() { return next; },
  };
  room.publish(VIDEO, part.init(mime), init);
  return self;
}

/** Calls `step` in real time until `done` settles. */
async function meanwhile(step, done, every = FRAME) {
  let [ended, steps] = [false, 0];
  const settled = done.finally(() => { ended = true; });
  settled.catch(() => {}); // awaited below
  const began = performance.now();
  while (!ended) {
    step();
    steps += 1;
    await sleep(Math.max(0, began + steps * every * 1000 - performance.now()));
  }
  return settled;
}

/** Runs in the page: counts players and the times that one opened; keeps all of them closed until `openPlayers` is called. */
function countPlayers(hold) {
  const counts = (window.players = { built: 0, appended: 0, cleared: 0 });
  const make = URL.createObjectURL;
  URL.createObjectURL = (what) => { counts.built += 1; return make.call(URL, what); };
  const append = SourceBuffer.prototype.appendBuffer;
  SourceBuffer.prototype.appendBuffer = function (bytes) { counts.appended += bytes.byteLength; return append.call(this, bytes); };
  const remove = SourceBuffer.prototype.remove;
  SourceBuffer.prototype.remove = function (from, to) { counts.cleared += to === Infinity; return remove.call(this, from, to); };
  if (!hold) return;
  const held = [];
  const listen = MediaSource.prototype.addEventListener;
  MediaSource.prototype.addEventListener = function (type, run, ...more) {
    return listen.call(this, type, type === "sourceopen" && held ? (event) => (window.openPlayers ? held.push(() => run(event)) : run(event)) : run, ...more);
  };
  window.openPlayers = () => { window.openPlayers = null; held.forEach((open) => open()); };
}

async function room(stage) {
  const business = await stage.business();
  const made = business.room("room");
  const relay = await stage.relay(business);
  return { made, business, address: `${relay.origin}/s/room`, browser: await stage.browser() };
}

const built = (tab) => tab.run(() => window.players.built);
const lastSaid = (tab, text) => tab.until(`the message ${text}`, (wanted) => document.querySelector("#messages").innerText.includes(wanted), text);

scene("a page that joins 9 s into a group of small chunks plays that group", async (stage) => {
  const { made, address, browser } = await room(stage);
  const film = camera(made);
  film.roll(LATE, { start: true });
  const tab = await stage.tab(browser, address, { before: [countPlayers, false] });
  // It may start before all chunks have arrived; a player that stayed at the beginning would be 9 s
  // behind.
  const newest = tab.until("it plays near the newest", (least) => {
    const { buffered, currentTime, seeking } = document.querySelector("#video");
    return !seeking && currentTime > least && buffered.end(buffered.length - 1) - currentTime < 3;
  }, LATE * FRAME - 3);
  await meanwhile(() => film.roll(1), newest);
  await meanwhile(() => film.roll(1), tab.plays("#video"));
  assert.equal(await built(tab), 1);
});

scene("a player that opens late plays the current group, with its init", async (stage) => {
  const { made, address, browser } = await room(stage);
  const film = camera(made);
  film.roll(1, { start: true });
  const tab = await stage.tab(browser, address, { before: [countPlayers, true] });
  await tab.live();
  film.roll(LATE);
  made.say("the group is here");
  await lastSaid(tab, "the group is here");
  await tab.run(() => window.openPlayers());
  await meanwhile(() => film.roll(1), tab.plays("#video"));
  assert.equal(await built(tab), 1);
});

scene("a player that opens after its queue overflowed plays the next group", async (stage) => {
  const { made, address, browser } = await room(stage);
  const film = camera(made);
  film.roll(1, { start: true });
  const tab = await stage.tab(browser, address, { before: [countPlayers, true] });
  await tab.live();
  // 12 MiB in one group, no faster than the page reads.
  for (let chunk = 1; chunk <= 12; chunk += 1) {
    film.roll(1, { extra: 1_000_000 });
    made.say(`chunk ${chunk}`);
    await lastSaid(tab, `chunk ${chunk}`);
  }
  await tab.run(() => window.openPlayers());
  film.cut();
  film.roll(1, { start: true });
  await meanwhile(() => film.roll(1), tab.plays("#video"));
  assert.equal(await built(tab), 1);
  const { appended } = await tab.run(() => window.players);
  assert.ok(appended < 9 << 20, `${appended} bytes were kept for it`);
});

scene("a publisher's slices of 4 KiB, which end anywhere, play without a new player", async (stage) => {
  const { made, address, browser } = await room(stage);
  let group = 0;
  made.publish(VIDEO, part.init(PICTURE_MIME), picture.init);
  // Each group begins like a large keyframe: with twenty slices that complete no frame.
  const roll = () => {
    const [from, to] = [group * picture.keyframes, (group + 1) * picture.keyframes];
    const bytes = Buffer.concat([padding(20 * 4096), fragment(picture, from, to)]);
    slices(bytes, 4096).forEach((slice, index) => made.publish(VIDEO, index === 0 ? part.start : part.continue, slice));
    group += 1;
  };
  roll();
  roll();
  const tab = await stage.tab(browser, address, { before: [countPlayers, false] });
  const passed = tab.until("five seconds of it were played", () => document.querySelector("#video").currentTime > 6);
  await meanwhile(roll, passed, picture.keyframes / 24);
  assert.equal(await built(tab), 1);
  await meanwhile(roll, tab.plays("#video"), picture.keyframes / 24);
});

scene("a camera that is off for some seconds, in one track with its sound, costs no player, and comes back", async (stage) => {
  const { made, address, browser } = await room(stage);
  made.publish(VIDEO, part.init(BOTH_MIME), both);
  let second = 0;
  const step = sound.frames[0].duration / sound.scale;
  const soundOf = (from) => fragment(sound, Math.round(from / step), Math.round((from + 1) / step));
  const roll = (isOn) => () => {
    const seen = isOn ? fragment(picture, second * 24, (second + 1) * 24) : Buffer.alloc(0);
    // Only sound, in small chunks: no append extends the buffered range.
    const heard = isOn ? [soundOf(second)] : slices(soundOf(second), 512);
    [Buffer.concat([seen, heard[0]]), ...heard.slice(1)].forEach((bytes, index) => made.publish(VIDEO, index === 0 ? part.start : part.continue, bytes));
    second += 1;
  };
  roll(true)();
  roll(true)();
  const tab = await stage.tab(browser, address, { before: [countPlayers, false] });
  await meanwhile(roll(true), tab.plays("#video"), 1);
  const stalls = tab.until("the picture stands", () => document.querySelector("#video").readyState < 3);
  await meanwhile(roll(false), stalls, 1);
  const off = second;
  const wait = tab.until("the camera was off for 7 s", (begin) => (window.began ??= performance.now()) + begin < performance.now(), 7_000);
  await meanwhile(roll(false), wait, 1);
  assert.equal(await built(tab), 1, `torn down while the camera was off, from ${off} s to ${second} s`);
  const back = second;
  const seen = tab.until("the picture is back", (from) => document.querySelector("#video").currentTime > from + 1, back);
  await meanwhile(roll(true), seen, 1);
  assert.equal(await built(tab), 1);
});

scene("groups that arrive whole every six seconds, with a last chunk without a frame, play undisturbed", async (stage) => {
  const { made, address, browser } = await room(stage);
  made.publish(VIDEO, part.init(BOTH_MIME), both);
  let group = 0;
  const step = sound.frames[0].duration / sound.scale;
  const roll = () => {
    const heard = (from, to) => fragment(sound, Math.round(from / step), Math.round(to / step));
    const begin = group * 6;
    made.publish(VIDEO, part.start, Buffer.concat([fragment(picture, begin * 24, (begin + 6) * 24), heard(begin, begin + 5.9)]));
    made.publish(VIDEO, part.continue, heard(begin + 5.9, begin + 6.1));
    group += 1;
  };
  roll();
  const tab = await stage.tab(browser, address, { before: [countPlayers, false] });
  tab.patience = 30_000;
  const passed = tab.until("its third group is played", () => document.querySelector("#video").currentTime > 13);
  await meanwhile(roll, passed, 6);
  const { built: players, cleared } = await tab.run(() => window.players);
  assert.deepEqual({ players, cleared }, { players: 1, cleared: 0 });
});

scene("a publisher whose clock goes back is followed", async (stage) => {
  const { made, address, browser } = await room(stage);
  made.publish(VIDEO, part.init(PICTURE_MIME), picture.init);
  let second = 40;
  const roll = () => {
    made.publish(VIDEO, part.start, fragment(picture, second * 24, (second + 1) * 24));
    second += 1;
  };
  roll();
  roll();
  const tab = await stage.tab(browser, address, { before: [countPlayers, false] });
  await meanwhile(roll, tab.plays("#video"), 1);
  second = 38; // back into the buffered range
  tab.patience = 25_000;
  const followed = tab.until("it plays by the new clock", (limit) => {
    const { currentTime, readyState } = document.querySelector("#video");
    return readyState > 2 && currentTime < limit && currentTime;
  }, 1_000);
  await meanwhile(roll, followed, 1);
  second = 0;
  const back = tab.until("it plays by the new clock", () => {
    const { currentTime, readyState } = document.querySelector("#video");
    return readyState > 2 && currentTime > 1 && currentTime < 30;
  });
  await meanwhile(roll, back, 1);
  await meanwhile(roll, tab.plays("#video"), 1);
});

scene("a player that begins with a few pictures before a hole goes on behind it", async (stage) => {
  const { made, address, browser } = await room(stage);
  made.publish(VIDEO, part.init(BOTH_MIME), both);
  const step = sound.frames[0].duration / sound.scale;
  const roll = (from, to) => {
    const seen = fragment(picture, Math.round(from * 24), Math.round(to * 24));
    const heard = fragment(sound, Math.ceil(from / step), Math.ceil(to / step));
    made.publish(VIDEO, part.start, Buffer.concat([seen, heard]));
  };
  // With so little sound no player begins.
  roll(0, 2 / 24);
  const tab = await stage.tab(browser, address, { before: [countPlayers, false] });
  await tab.until("it seeks to the first pictures", () => {
    const { buffered, currentTime, seeking } = document.querySelector("#video");
    return seeking && buffered.length === 1 && currentTime > 0 && currentTime < buffered.end(0);
  });
  let second = 3;
  tab.patience = 20_000;
  const passed = tab.until("it plays behind the hole", () => {
    const { currentTime, seeking } = document.querySelector("#video");
    return !seeking && currentTime > 4;
  });
  await meanwhile(() => roll(second, ++second), passed, 1);
  await meanwhile(() => roll(second, ++second), tab.plays("#video"), 1);
  const { built: players, cleared } = await tab.run(() => window.players);
  assert.deepEqual({ players, cleared }, { players: 1, cleared: 0 });
});

const PICTURE = "This browser can’t show this room’s picture.";
const SOUND = "This browser can’t play this room’s sound.";
const MEDIA = "This browser can’t play this room’s picture and sound.";
const UNKNOWN = 'video/mp4; codecs="none.1"';

/** Runs in the page: no Media Source Extensions under any name, or ones that promise more than they do. */
const withoutSources = () => { for (const name of ["MediaSource", "ManagedMediaSource", "WebKitMediaSource"]) delete window[name]; };
const withFalseSources = () => { MediaSource.isTypeSupported = () => true; };
const withSourcesThatThrow = () => { window.MediaSource = class { constructor() { throw new Error("no"); } static isTypeSupported() { return true; } }; };

for (const { name, before = null, locale, tracks, says } of [
  { name: "no Media Source Extensions: picture", before: withoutSources, tracks: [[VIDEO, PICTURE_MIME]], says: PICTURE },
  { name: "no Media Source Extensions: sound", before: withoutSources, tracks: [[AUDIO, SOUND_MIME]], says: SOUND },
  { name: "no Media Source Extensions: both", before: withoutSources, tracks: [[VIDEO, PICTURE_MIME], [AUDIO, SOUND_MIME]], says: MEDIA },
  { name: "no Media Source Extensions: both, in one track", before: withoutSources, tracks: [[VIDEO, BOTH_MIME]], says: MEDIA },
  { name: "no Media Source Extensions: in Chinese", before: withoutSources, locale: "zh-CN", tracks: [[VIDEO, PICTURE_MIME]], says: "这里有画面，但当前浏览器无法显示。" },
  { name: "a codec that it does not have", tracks: [[VIDEO, UNKNOWN]], says: PICTURE },
  { name: "a codec that it promises and does not have", before: withFalseSources, tracks: [[VIDEO, UNKNOWN]], says: PICTURE },
  { name: "media sources that can't be made", before: withSourcesThatThrow, tracks: [[VIDEO, PICTURE_MIME]], says: PICTURE },
]) {
  scene(`the page says what it can't play: ${name}`, async (stage) => {
    const { made, address, browser } = await room(stage);
    for (const [track, mime] of tracks) made.publish(track, part.init(mime), track === VIDEO ? picture.init : sound.init);
    const tab = await stage.tab(browser, address, { before, ...(locale && { locale }) });
    let second = 0;
    const roll = () => {
      for (const [track] of tracks) made.publish(track, part.start, fragment(track === VIDEO ? picture : sound, second * 24, (second + 1) * 24));
      second += 1;
    };
    // Of two tracks one may come first: until the other comes the page says its word, and no third.
    const passing = tracks.length > 1 ? [PICTURE, SOUND] : [];
    const told = tab.until("the last word", (passing) => {
      const word = document.querySelector("#unplayable")?.checkVisibility() && document.querySelector("#unplayable-text").textContent;
      return word && !passing.includes(word) && word;
    }, passing);
    assert.equal(await meanwhile(roll, told, 1), says);
    assert.equal(await tab.run(() => document.querySelector("#unplayable").getAttribute("role")), "status");
    made.say("still here");
    await lastSaid(tab, "still here");
  });
}
