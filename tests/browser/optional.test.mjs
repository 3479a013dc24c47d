/**
 * optional.test.mjs: optional browser features may be missing or throw, and the share page still shows its messages:
 * invalid locales, features that a sandbox or a setting removes, a wall clock that jumps.
 *
 * Each row is one tab; `before` runs ahead of the page's own scripts.
 */

import assert from "node:assert/strict";
import { fragment, picture, PICTURE_MIME } from "./clip.mjs";
import { part, VIDEO } from "./business.mjs";
import { scene, sleep } from "./stage.mjs";

const TOGETHER = 4; // tabs at a time

/** Runs `step` for each row, a few at a time; every failure names its row. */
async function each(rows, step) {
  const waiting = [...rows];
  const failed = [];
  await Promise.all(Array.from({ length: TOGETHER }, async () => {
    for (let row = waiting.shift(); row; row = waiting.shift()) await step(row).catch((error) => failed.push(`${row[0]}: ${error.message}`));
  }));
  assert.deepEqual(failed, []);
}

/** A room with a message of each age, and a browser. */
async function room(stage) {
  const business = await stage.business();
  const made = business.room("room");
  made.listens = true;
  const now = Date.now();
  [["today", now], ["long ago", 1_000_000_000_000], ["never", 8.64e15], ["undated", undefined]].forEach(([text, at]) => made.tell({ from: "Tester", text, at }));
  made.skip(1234);
  made.say("last");
  const relay = await stage.relay(business);
  return { made, address: `${relay.origin}/s/room`, browser: await stage.browser() };
}

/** All messages are listed, those of today and of long ago with a time, and the room is live. */
async function shows(tab, word) {
  await tab.live();
  await tab.until("the messages", () => document.querySelectorAll("#messages .message").length === 5);
  const [texts, times] = await tab.run(() => ["#messages .message .text", "#messages time"].map((wanted) => [...document.querySelectorAll(wanted)].map(({ textContent }) => textContent)));
  assert.deepEqual(texts, ["today", "long ago", "never", "undated", "last"]);
  assert.equal(times.length, 4);
  assert.ok(times.every((time) => /\d/.test(time)), `times: ${times}`);
  assert.ok((await tab.text("#messages .gap")).includes("1"));
  assert.equal(await tab.text("#connection"), word);
  await tab.page.context().close();
}

/** Runs in the page: sets the browser's languages. */
const speak = (language, languages) => {
  for (const [name, value] of Object.entries({ language, languages })) Object.defineProperty(Navigator.prototype, name, { get: () => value, configurable: true });
};

scene("invalid locales: the page works, in the viewer's language", async (stage) => {
  const { address, browser } = await room(stage);
  const rows = [["en-US@posix"], ["C"], [""], ["*"], ["de_DE.UTF-8"], ["zh_CN", "直播中"], ["zh_CN.UTF-8", "直播中"], ["ZH-hans-CN", "直播中"], ["zha"], [{}]];
  await each(rows, async ([language, word = "Live"]) => shows(await stage.tab(browser, address, { before: [speak, language, [language]] }), word));
  // Only the list of languages, or not even that.
  const lists = [["a list alone", ["zh-TW"], "直播中"], ["an empty list", [], "Live"], ["no list", null, "Live"]];
  await each(lists, async ([, list, word]) => shows(await stage.tab(browser, address, { before: [speak, null, list] }), word));
});

/** Runs in the page: removes features, or makes them throw as a sandbox does. */
const breakThem = (paths, how) => {
  const fail = () => { throw new Error("not here"); };
  for (const path of paths) {
    const names = path.split(".");
    const name = names.pop();
    const holder = names.reduce((at, part) => at[part], window);
    if (how === "gone") {
      delete holder[name];
      if (name in holder) Object.defineProperty(holder, name, { value: undefined, configurable: true, writable: true });
    } else if (how === "throws") Object.defineProperty(holder, name, { get: fail, set: fail, configurable: true });
    else Object.defineProperty(holder, name, { value: function () { fail(); }, configurable: true, writable: true });
  }
};

/** Features that are removed together, so that a fallback does not hide the next failure. */
const OPTIONAL = [
  ["Intl", "localStorage", "sessionStorage", "indexedDB", "caches", "ResizeObserver", "requestAnimationFrame", "performance", "MediaSource", "ManagedMediaSource", "history"],
  [
    "Intl.DateTimeFormat", "Intl.NumberFormat", "Navigator.prototype.language", "Navigator.prototype.languages", "Performance.prototype.now", "MediaSource.isTypeSupported",
    "IntersectionObserver", "MutationObserver", "crypto", "structuredClone", "visualViewport", "matchMedia", "AbortController", "fetch", "Notification", "requestIdleCallback",
  ],
  [
    "Intl.DateTimeFormat.prototype.format", "Intl.NumberFormat.prototype.format", "Navigator.prototype.onLine", "Navigator.prototype.mediaSession", "Document.prototype.cookie",
    "Document.prototype.fonts", "Document.prototype.fullscreenElement", "Document.prototype.hidden", "Document.prototype.visibilityState", "URL.createObjectURL",
    "Element.prototype.requestFullscreen",
  ],
  ["SourceBuffer", "URL.revokeObjectURL", "HTMLMediaElement.prototype.play", "HTMLMediaElement.prototype.load", "HTMLMediaElement.prototype.buffered", "HTMLMediaElement.prototype.muted"],
];

for (const how of ["gone", "throws", "fails when called"]) {
  scene(`what is optional ${how === "gone" ? "is missing" : how}: messages are shown all the same`, async (stage) => {
    const { made, address, browser } = await room(stage);
    made.publish(VIDEO, part.init(PICTURE_MIME), picture.init);
    made.publish(VIDEO, part.start, fragment(picture, 0, 24));
    await each(OPTIONAL, async (paths) => {
      // Only the missing video element is reported.
      const tolerated = paths.some((path) => path.startsWith("HTMLMediaElement")) ? /not here|not a function|undefined/ : null;
      await shows(await stage.tab(browser, address, { before: [breakThem, paths, how], tolerated }), "Live");
    });
  });
}

scene("a WebSocket whose constructor throws is retried like a lost connection", async (stage) => {
  const { address, browser } = await room(stage);
  const failTwice = () => {
    const Real = window.WebSocket;
    window.tries = 0;
    window.WebSocket = new Proxy(Real, { construct(target, args) {
      window.tries += 1;
      if (window.tries <= 2) throw new DOMException("insecure", "SecurityError");
      return new Real(...args);
    } });
  };
  const tab = await stage.tab(browser, address, { before: failTwice });
  await shows(tab, "Live");
});

/** Runs in the page: a wall clock that jumps by hours at each call, back and forth; and a count of connections. */
const jump = () => {
  const Real = window.Date;
  let looks = 0;
  const wrong = () => Real.now() + [5, -9, 26, -1][(looks += 1) % 4] * 3_600_000;
  window.Date = class extends Real {
    constructor(...given) { super(...(given.length ? given : [wrong()])); }
    static now() { return wrong(); }
  };
  window.connections = 0;
  window.WebSocket = new Proxy(window.WebSocket, { construct(target, args) { window.connections += 1; return new target(...args); } });
};

scene("a wall clock that jumps by hours changes only times of day", async (stage) => {
  const { made, address, browser } = await room(stage);
  made.publish(VIDEO, part.init(PICTURE_MIME), picture.init);
  const tab = await stage.tab(browser, address, { before: jump });
  await tab.live();
  await tab.run(() => {
    const seen = (window.seen = []);
    new MutationObserver(() => seen.push(document.documentElement.dataset.state)).observe(document.documentElement, { attributes: true, attributeFilter: ["data-state"] });
  });
  // The client checks its connection every 5 s and when the viewer returns, and its picture every
  // half a second.
  let [second, done] = [0, false];
  const played = tab.until("seven seconds were played", () => document.querySelector("#video").currentTime > 7).finally(() => { done = true; });
  while (!done) {
    made.publish(VIDEO, part.start, fragment(picture, second * 24, (second + 1) * 24));
    await tab.run(() => window.dispatchEvent(new Event("online")));
    second += 1;
    await sleep(1000);
  }
  await played;
  const { connections, seen } = await tab.run(() => ({ connections, seen }));
  assert.equal(connections, 1);
  assert.deepEqual(seen.filter((state) => state !== "open"), []);
  assert.equal(await tab.run(() => document.querySelector("#stage").dataset.mode), "video");
});
