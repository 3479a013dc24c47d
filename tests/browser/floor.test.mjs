/**
 * floor.test.mjs: the oldest browsers of docs/page-client.md. The share page and the page client are checked for syntax
 * and CSS that these lack, and run in a browser without later APIs.
 *
 * The browser here is new: the lists below name the APIs that are later than the floor.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { parse } from "acorn";
import { scene } from "./stage.mjs";

const web = (name) => readFileSync(new URL(`../../src/web/${name}`, import.meta.url), "utf8");
const FLOOR = { Chrome: "84", Safari: "15.0", Firefox: "90" };

test("the manual names the floor that is tested", () => {
  const manual = readFileSync(new URL("../../docs/page-client.md", import.meta.url), "utf8");
  for (const [browser, version] of Object.entries(FLOOR)) assert.ok(manual.includes(`${browser} ${version}`), `${browser} ${version}`);
});

/** Syntax of ES2022 that the floor lacks; `acorn` rejects later syntax. */
function tooYoung(node, isInFunction) {
  switch (node.type) {
    case "StaticBlock": return "a static block";
    case "AssignmentExpression": return ["||=", "&&=", "??="].includes(node.operator) && node.operator;
    case "BinaryExpression": return node.left.type === "PrivateIdentifier" && "#name in object";
    case "AwaitExpression": return !isInFunction && "await at the top level";
    case "ForOfStatement": return node.await && !isInFunction && "await at the top level";
    case "ExportAllDeclaration": return node.exported && "export * as";
    case "Literal": return node.regex && (/[dv]/.test(node.regex.flags) || /\(\?<[=!]/.test(node.regex.pattern)) && "a regular expression";
    default: return false;
  }
}

function walk(node, visit, isInFunction = false) {
  if (!node || typeof node.type !== "string") return;
  visit(node, isInFunction);
  const inside = isInFunction || /Function/.test(node.type);
  for (const value of Object.values(node)) for (const child of [value].flat()) if (child && typeof child === "object") walk(child, visit, inside);
}

const [, inline] = /<script>([^]*?)<\/script>/.exec(web("share.html"));
for (const [name, source, sourceType] of [["sharelink.js", web("sharelink.js"), "module"], ["share.js", web("share.js"), "module"], ["the script in share.html", inline, "script"]]) {
  test(`${name} has no syntax that the floor lacks`, () => {
    const found = [];
    walk(parse(source, { ecmaVersion: 2022, sourceType, locations: true }), (node, isInFunction) => {
      const what = tooYoung(node, isInFunction);
      if (what) found.push(`line ${node.loc.start.line}: ${what}`);
    });
    assert.deepEqual(found, []);
  });
}

test("the syntax check finds later syntax", () => {
  for (const source of ["a ??= 1", "class A { static { } }", "class A { #x; is(y) { return #x in y } }", "await 1", "/(?<=a)b/", "/a/d", "export * as x from 'y'"]) {
    let count = 0;
    walk(parse(source, { ecmaVersion: 2022, sourceType: "module" }), (node, isInFunction) => { count += Boolean(tooYoung(node, isInFunction)); });
    assert.equal(count, 1, source);
  }
});

test("share.css uses nothing that the floor lacks without a fallback", () => {
  const css = web("share.css").replace(/\/\*[^]*?\*\//g, "");
  const found = [];
  // An unknown selector invalidates its whole rule, including the other selectors of its list.
  for (const [, selector] of css.matchAll(/([^{};]+)\{/g)) if (/:has\(|:is\(|:where\(|&|@container|@layer/.test(selector)) found.push(selector.trim());
  for (const [, block] of css.matchAll(/\{([^{}]*)\}/g)) {
    const known = new Set();
    for (const declaration of block.split(/;(?![^(]*\))/)) {
      const [, property, value] = /^\s*([\w-]+)\s*:([^]*)$/.exec(declaration) ?? [];
      if (!property) continue;
      if (/^(inset|(padding|margin|inset)-(block|inline))$/.test(property)) found.push(declaration.trim());
      const isYoung = /color-mix\(|\d[dsl]vh\b/.test(value) || (property === "overflow" && /\bclip\b/.test(value));
      if (isYoung && !known.has(property)) found.push(declaration.trim());
      if (!isYoung) known.add(property);
    }
  }
  assert.deepEqual(found, []);
  const everywhere = css.replace(/@supports \(aspect-ratio: 1\) \{(?:[^{}]*\{[^{}]*\})*\s*\}/g, "");
  assert.ok(everywhere.length < css.length && !everywhere.includes("aspect-ratio:"), "aspect-ratio belongs in its @supports");
});

/** APIs later than at least one of the floor's browsers, by their object. */
const YOUNG = {
  Object: ["hasOwn", "groupBy"],
  Map: ["groupBy"],
  Promise: ["any", "withResolvers", "try"],
  Array: ["fromAsync"],
  "Array.prototype": ["at", "findLast", "findLastIndex", "toSorted", "toReversed", "toSpliced", "with"],
  "Object.getPrototypeOf(Int8Array.prototype)": ["at", "findLast", "findLastIndex", "toSorted", "toReversed", "with"],
  Uint8Array: ["fromBase64", "fromHex"],
  "ArrayBuffer.prototype": ["resize", "transfer", "transferToFixedLength"],
  "String.prototype": ["at", "replaceAll", "isWellFormed", "toWellFormed"],
  "Set.prototype": ["union", "intersection", "difference", "symmetricDifference", "isSubsetOf", "isSupersetOf", "isDisjointFrom"],
  RegExp: ["escape"],
  Math: ["sumPrecise", "f16round"],
  Error: ["captureStackTrace", "isError"],
  Intl: ["Segmenter", "supportedValuesOf", "DurationFormat", "ListFormat", "DisplayNames"],
  "Intl.DateTimeFormat.prototype": ["formatRange", "formatRangeToParts"],
  "Intl.NumberFormat.prototype": ["formatRange", "formatRangeToParts"],
  AbortSignal: ["abort", "any", "timeout"],
  "AbortSignal.prototype": ["reason", "throwIfAborted"],
  "Crypto.prototype": ["randomUUID"],
  URL: ["canParse", "parse"],
  "URLSearchParams.prototype": ["size"],
  "Element.prototype": ["replaceChildren", "checkVisibility", "getHTML", "setHTMLUnsafe", "requestFullscreen", "computedStyleMap", "ariaNotify"],
  "Document.prototype": ["replaceChildren", "fullscreenElement", "exitFullscreen", "startViewTransition", "adoptedStyleSheets", "wasDiscarded", "prerendering"],
  "DocumentFragment.prototype": ["replaceChildren", "moveBefore"],
  "HTMLElement.prototype": ["inert", "popover", "showPopover", "hidePopover", "togglePopover", "attachInternals"],
  "HTMLFormElement.prototype": ["requestSubmit"],
  "HTMLVideoElement.prototype": ["requestVideoFrameCallback", "requestPictureInPicture"],
  "HTMLMediaElement.prototype": ["preservesPitch"],
  "Navigator.prototype": ["mediaSession", "locks", "userAgentData", "userActivation", "wakeLock", "storage", "scheduling", "connection", "share", "virtualKeyboard"],
  "EventTarget.prototype": ["when"],
  "CSSStyleSheet.prototype": ["replaceSync", "replace"],
  window: [
    "structuredClone", "reportError", "scheduler", "navigation", "requestIdleCallback", "cancelIdleCallback", "BroadcastChannel", "SharedWorker", "AggregateError",
    "FinalizationRegistry", "WeakRef", "Iterator", "AsyncDisposableStack", "CompressionStream", "DecompressionStream", "TextEncoderStream", "TextDecoderStream", "WebTransport",
    "WebSocketStream", "ManagedMediaSource", "TrustedTypePolicyFactory", "trustedTypes", "URLPattern", "PerformanceLongTaskTiming", "documentPictureInPicture", "ViewTransition",
    "HTMLDialogElement", "CSSContainerRule", "Temporal", "Observable", "SubmitEvent", "createImageBitmap", "OffscreenCanvas", "MediaCapabilities",
  ],
};

/** Runs in the page, ahead of its scripts. */
function takeAway(young) {
  const missed = [];
  for (const [place, names] of Object.entries(young)) {
    const holder = place.split(".").length > 1 && place.startsWith("Object.get") ? Object.getPrototypeOf(Int8Array.prototype)
      : place === "window" ? window : place.split(".").reduce((at, name) => at?.[name], window);
    for (const name of names) {
      if (holder && !delete holder[name]) missed.push(`${place}.${name}`);
      if (holder && Object.prototype.hasOwnProperty.call(holder, name)) missed.push(`${place}.${name}`);
    }
  }
  // The `signal` option of listeners came in 2021.
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, run, options) {
    return listen.call(this, type, run, options && typeof options === "object" ? { ...options, signal: undefined } : options);
  };
  window.stillThere = missed;
}

scene("in the oldest browsers messages of every kind are shown, the room is live and its picture plays", async (stage) => {
  const { share } = await stage.demo();
  const business = await stage.business({ receipts: true });
  const room = business.room("room");
  room.listens = true;
  room.heard = ({ text, author }) => room.tell({ from: "Viewer", text, author });
  const relay = await stage.relay(business);
  const browser = await stage.browser();
  const tab = await stage.tab(browser, `${relay.origin}/s/room`, { before: [takeAway, YOUNG] });
  assert.deepEqual(await tab.run(() => window.stillThere), []);
  await tab.live();
  const kinds = ["text", "notice", "gift", "join", "constructor", "__proto__", 7, null, undefined];
  kinds.forEach((kind, index) => room.tell({ from: "Tester", text: `said ${index}`, kind, at: 1764000000000, avatar: "https://127.0.0.1:1/none.png" }));
  await tab.until("the last message", (wanted) => document.querySelector("#messages").innerText.includes(wanted), `said ${kinds.length - 1}`);
  const shown = await tab.run(() => [...document.querySelectorAll("#messages .message")].map(({ className }) => className.split(" ")[1]));
  assert.deepEqual(shown, ["text", "notice", "gift", "join", "text", "text", "text", "text", "text"]);
  assert.equal(await tab.text("#title"), "A room");
  business.goAway();
  await tab.until("the business server is away", () => document.documentElement.dataset.uplink === "down");
  // `write` needs a later API.
  await tab.page.focus("#say");
  await tab.page.keyboard.type("from the floor");
  await tab.page.keyboard.press("Enter");
  await tab.until("it is pending", () => document.querySelector('#outbox .outgoing[data-state="sending"]:not([hidden])'));
  business.comeBack();
  await tab.until("it is sent, and one's own", () => !document.querySelector("#outbox").firstChild && document.querySelector("#messages .own").innerText.includes("from the floor"));
  const watcher = await stage.tab(browser, share, { before: [takeAway, YOUNG] });
  await watcher.plays("#video");
  tab.tolerated = /127\.0\.0\.1:1\/none\.png/; // the missing avatar
});
