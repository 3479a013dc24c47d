/**
 * stalled.test.mjs: a line that goes silent without closing, in a browser: the picture stays and a spinner turns, the page says
 * what it knows about its connection and never "Live" beside it, nothing moves, and all comes back. silence.test.mjs has the
 * limits, with a clock of its own.
 */

import assert from "node:assert/strict";
import { film } from "./film.mjs";
import { scene, sleep } from "./stage.mjs";

const BOXES = ["#stage", "#video", "#about", "#composer", "#say", "#chat"];
const NETWORK = /WebSocket connection to .* failed|ERR_INTERNET_DISCONNECTED/;

/** A room behind a line that can be held. */
async function setUp(stage, { receipts = true, filmed = false } = {}) {
  const business = await stage.business({ receipts });
  const room = business.room("room");
  room.listens = true;
  room.heard = ({ text, author }) => room.tell({ from: "Viewer", text, author, at: Date.now() });
  for (let number = 1; number <= 30; number += 1) room.say(`message ${number}`);
  const relay = await stage.relay(business);
  const line = await stage.line(relay.origin);
  const camera = filmed ? film(room) : null;
  const browser = await stage.browser();
  const tab = await stage.tab(browser, `${line.origin}/s/room`, { tolerated: NETWORK });
  await tab.live();
  await tab.run(watch);
  return { business, room, line, camera, tab };
}

/** Runs in the page: notes what it says and shows, each time that this changes. */
function watch() {
  const seen = (window.seen = []);
  const look = () => {
    const now = {
      word: document.querySelector("#connection-text").textContent, state: document.documentElement.dataset.state,
      waits: document.querySelector("#stage").hasAttribute("data-waits"), mode: document.querySelector("#stage").dataset.mode,
    };
    if (JSON.stringify(now) !== JSON.stringify(seen[seen.length - 1])) seen.push(now);
  };
  new MutationObserver(look).observe(document.documentElement, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
}

const words = async (tab) => (await tab.run(() => window.seen)).map(({ word }) => word).filter((word, index, all) => word !== all[index - 1]);

/** Where things are, in whole pixels. */
const boxes = (tab) => tab.run((selectors) => selectors.map((selector) => {
  const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
  return [selector, x, y, width, height].join(" ");
}), BOXES);

/** Whether the video shows a picture, and not one colour. */
const isPicture = (tab) => tab.run(() => {
  const video = document.querySelector("#video");
  const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 18 });
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 32, 18);
  const colours = new Set();
  const { data } = context.getImageData(0, 0, 32, 18);
  for (let at = 0; at < data.length; at += 4) colours.add(data.slice(at, at + 3).join());
  return video.checkVisibility({ opacityProperty: true }) && colours.size > 8;
});

const said = (tab, word) => tab.until(`the page says ${word}`, (wanted) => document.querySelector("#connection-text").textContent === wanted, word);
const spins = () => getComputedStyle(document.querySelector("#spinner")).visibility === "visible";
/** Runs in the page: the lines that are shown as not sent: state and text. */
const outbox = () => [...document.querySelectorAll("#outbox .outgoing")].filter((line) => line.checkVisibility())
  .map((line) => `${line.dataset.state}: ${line.querySelector(".text").textContent}`).join();

scene("a stalled picture stays with a spinner, the dead line is told, and all comes back", async (stage) => {
  const { business, line, camera, tab } = await setUp(stage, { filmed: true });
  await tab.plays("#video");
  await tab.until("its stage has grown", () => document.querySelector("#stage").getAnimations().length === 0 && document.querySelector("#stage").dataset.mode === "video");
  const before = await boxes(tab);
  assert.equal(await tab.run(spins), false);
  await tab.run(watch); // from here on

  line.hold();
  await tab.until("the spinner", spins);
  assert.deepEqual(await boxes(tab), before, "the spinner moved something");
  assert.ok(await isPicture(tab), "the picture is gone");
  await said(tab, "Reconnecting…");
  assert.deepEqual(await boxes(tab), before, "the notice moved something");

  // What is typed now is pending, in the same place throughout the outage.
  await tab.write("#say", "typed in the outage");
  await tab.until("it is pending", () => document.querySelector("#outbox .outgoing")?.checkVisibility());
  assert.equal(await tab.run(outbox), "sending: typed in the outage");
  assert.equal(await tab.run(() => document.querySelector("#say").value), "");
  assert.deepEqual(await boxes(tab), before, "the pending line moved something");

  // Longer than a room keeps a stage without media.
  await sleep(16_000);
  assert.ok(await isPicture(tab), "the picture is gone");
  assert.ok(await tab.run(spins));
  assert.deepEqual(await boxes(tab), before);
  assert.equal(await tab.run(outbox), "sending: typed in the outage");

  tab.patience = 40_000;
  line.release();
  await said(tab, "Live");
  await tab.plays("#video", Date.now() + 20_000);
  await tab.until("the spinner goes", () => getComputedStyle(document.querySelector("#spinner")).visibility === "hidden");
  await tab.until("the line is sent", () => !document.querySelector("#outbox .outgoing") && document.querySelector("#messages").innerText.includes("typed in the outage"));
  assert.deepEqual(await boxes(tab), before, "the return moved something");
  await sleep(1_000);
  assert.equal(business.heard.filter(({ text, isNew }) => isNew && text === "typed in the outage").length, 1);
  assert.deepEqual((await tab.messages()).filter(([, text]) => text === "typed in the outage").length, 1);
  camera.stop();

  const seen = await tab.run(() => window.seen);
  assert.deepEqual(seen.filter(({ word, state }) => word === "Live" && state !== "open"), [], "it said Live on a dead line");
  assert.ok(seen.every(({ mode }) => mode === "video"), "the stage changed");
  const at = (found) => seen.findIndex(found);
  assert.ok(at(({ waits }) => waits) < at(({ word }) => word === "Reconnecting…"), "the spinner comes first");
  assert.deepEqual((await words(tab)).filter((word) => word !== "Joining…"), ["Live", "Reconnecting…", "Live"]);
});

scene("the spinner goes where the picture moves, though no event said so", async (stage) => {
  const { camera, tab } = await setUp(stage, { filmed: true });
  await tab.plays("#video");
  await tab.run(watch);
  await tab.run(() => document.querySelector("#video").dispatchEvent(new Event("waiting")));
  await tab.until("it turned", () => window.seen.some(({ waits }) => waits));
  await tab.until("it stopped", () => !window.seen[window.seen.length - 1].waits);
  await tab.plays("#video");
  camera.stop();
});

scene("a picture that its host ended leaves the stage, also after an outage", async (stage) => {
  const { camera, tab, line } = await setUp(stage, { filmed: true });
  // Some chunks: before that, silence may mean that a large one is under way.
  await tab.until("it plays", () => document.querySelector("#video").getVideoPlaybackQuality().totalVideoFrames > 60);
  line.hold();
  await said(tab, "Reconnecting…");
  camera.stop();
  tab.patience = 40_000;
  line.release();
  await said(tab, "Live");
  await tab.until("the stage is without a picture", () => document.querySelector("#stage").dataset.mode === "plain");
  assert.equal(await tab.run(spins), false);
});

scene("in a quiet room a message shows that the line is dead", async (stage) => {
  const { business, line, tab } = await setUp(stage);
  const fetched = line.asked.length;
  line.hold();
  await tab.write("#say", "is it dead?");
  await said(tab, "Reconnecting…");
  assert.equal(await tab.run(outbox), "sending: is it dead?");
  tab.patience = 30_000;
  line.release();
  await said(tab, "Live");
  await tab.until("it is sent", () => !document.querySelector("#outbox .outgoing") && document.querySelector("#messages").innerText.includes("is it dead?"));
  await sleep(1_000);
  // It was on its way on the old line, and was sent again on the new one: one message.
  assert.equal(business.heard.filter(({ isNew }) => isNew).length, 1);
  assert.equal(new Set(business.heard.map(({ id }) => id)).size, 1);
  assert.equal((await tab.messages()).filter(([, text]) => text === "is it dead?").length, 1);
  assert.equal(line.asked.length, fetched, "nothing but the WebSocket was fetched again");
});

scene("a browser that is offline is told at once, and what comes back is told too", async (stage) => {
  const { tab } = await setUp(stage);
  await tab.page.context().setOffline(true);
  // For a second at least: what comes on a line that lives takes it back.
  await tab.until("it is told", () => window.seen.some(({ word }) => word === "You are offline"));
  const told = await tab.run(() => window.seen.find(({ word }) => word === "You are offline"));
  assert.equal(told.state, "open", "it was told only when the line was lost");
  await tab.write("#say", "typed offline");
  await tab.page.context().setOffline(false);
  await said(tab, "Live");
  await tab.until("it is sent", () => document.querySelector("#messages").innerText.includes("typed offline") && !document.querySelector("#outbox .outgoing"));
  assert.deepEqual((await words(tab)).filter((word) => !["Joining…", "Reconnecting…"].includes(word)), ["Live", "You are offline", "Live"]);
});
