/** cut.test.mjs: answers that are cut, refused, or never come: the share page reloads its parts until it has them all. */

import assert from "node:assert/strict";
import { scene } from "./stage.mjs";

const PARTS = ["/sharelink.js", "/assets/share.js", "/assets/share.css"];
const NETWORK = /Failed to load resource|net::ERR_|\/sharelink\.js|\/assets\//;

/** Runs in the page: shortens the longest timeouts. */
const hurry = () => {
  const real = window.setTimeout;
  window.setTimeout = (run, wait, ...more) => real(run, wait > 3_000 ? wait / 10 : wait, ...more);
};

async function room(stage) {
  const business = await stage.business();
  const made = business.room("room");
  made.say("here");
  const relay = await stage.relay(business);
  return { made, relay, browser: await stage.browser() };
}

/** The page is complete: live, with its message and its style. */
async function whole(tab) {
  tab.patience = 40_000;
  await tab.live();
  await tab.until("the message", () => document.querySelector("#messages").innerText.includes("here"));
  await tab.until("the style", () => getComputedStyle(document.querySelector("#stage")).position === "relative");
}

for (const trouble of ["cut", "reset", "503", "never"]) {
  scene(`the first answers for each part of the page: ${trouble}`, async (stage) => {
    const { relay, browser } = await room(stage);
    const troubles = Object.fromEntries(PARTS.map((path) => [path, trouble === "never" ? [trouble] : [trouble, trouble]]));
    const line = await stage.line(relay.origin, troubles);
    const tab = await stage.tab(browser, "about:blank", { tolerated: NETWORK, before: hurry });
    // A part that never comes delays the page's `load`.
    await tab.page.goto(`${line.origin}/s/room`, { waitUntil: "commit" });
    await whole(tab);
    for (const path of PARTS) {
      const asked = line.asked.filter((address) => address.split("?")[0] === path);
      assert.equal(new Set(asked).size, asked.length, `a browser remembers what failed by its address: ${asked}`);
      assert.ok(asked.length > (trouble === "never" ? 1 : 2));
    }
    // It started once.
    assert.deepEqual((await tab.messages()).map(([, text]) => text), ["here"]);
  });
}

scene("a truncated page is reloaded", async (stage) => {
  const { relay, browser } = await room(stage);
  const line = await stage.line(relay.origin, { "/s/room": ["cut", "cut"], "/sharelink.js": ["cut"] });
  const tab = await stage.tab(browser, "about:blank", { tolerated: NETWORK, before: hurry });
  await tab.page.goto(`${line.origin}/s/room`, { waitUntil: "commit" }).catch(() => {});
  await whole(tab);
  assert.equal(line.asked.filter((address) => address.startsWith("/s/")).length, 3);
});

scene("a page on a slow line requests each part only once", async (stage) => {
  const { relay, browser } = await room(stage);
  const line = await stage.line(relay.origin, {});
  const tab = await stage.tab(browser, `${line.origin}/s/room`, {
    async prepare(page) {
      const session = await page.context().newCDPSession(page);
      await session.send("Network.enable");
      await session.send("Network.emulateNetworkConditions", { offline: false, latency: 200, downloadThroughput: 12_000, uploadThroughput: 12_000 });
    },
  });
  await whole(tab);
  for (const path of PARTS) assert.equal(line.asked.filter((address) => address.split("?")[0] === path).length, 1, line.asked.join(" "));
});

scene("a browser that can't run the scripts shows a message", async (stage) => {
  const { relay, browser } = await room(stage);
  const tab = await stage.tab(browser, "about:blank", {
    tolerated: /./,
    before: hurry,
    prepare: (page) => page.route(/\/assets\/share\.js/, (route) => route.fulfill({ contentType: "text/javascript", body: "export const start = @;" })),
  });
  await tab.page.goto(`${relay.origin}/s/room`, { waitUntil: "commit" });
  await tab.until("the word", () => document.querySelector("#connection-text").textContent.includes("This browser is too old"));
});
