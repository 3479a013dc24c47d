/** links.test.mjs: a denied link says why, in the viewer's language; the manual's five lines work on another site. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { part, VIDEO } from "./business.mjs";
import { scene, sleep } from "./stage.mjs";

const ROOT = new URL("../../", import.meta.url);

scene("a denied link says why, in Chinese and in English, and can be tried again", async (stage) => {
  const business = await stage.business();
  business.deny("gone", "这个链接已过期 <b>expired</b>");
  const relay = await stage.relay(business);
  const browser = await stage.browser();
  const address = `${relay.origin}/s/gone`;
  const [english, chinese] = await Promise.all([stage.tab(browser, address), stage.tab(browser, address, { locale: "zh-CN" })]);
  const shown = { en: [english, "This link can’t be opened", "Try again"], "zh-Hans": [chinese, "无法打开这个链接", "重试"] };
  for (const [language, [tab, heading, button]] of Object.entries(shown)) {
    await tab.until("the page says that the link is denied", () => document.querySelector("#denied").checkVisibility());
    assert.equal(await tab.run(() => document.documentElement.lang), language);
    assert.equal(await tab.text("#denied-title"), heading);
    assert.equal(await tab.run(() => document.title), heading);
    assert.equal(await tab.text("#denied-reason"), "这个链接已过期 <b>expired</b>");
    assert.equal(await tab.text("#again"), button);
    assert.ok(!(await tab.shown("#room")));
  }
  business.room("gone", { title: "It opened" });
  await sleep(2200); // the relay remembers a denial for 2 s
  await chinese.tap("#again");
  await chinese.live();
  assert.equal(await chinese.text("#title"), "It opened");
  assert.equal(await chinese.text("#connection"), "直播中");
});

scene("a link that was pasted in another spelling shows the same room", async (stage) => {
  const business = await stage.business();
  business.room("room~7", { title: "The same" });
  const relay = await stage.relay(business);
  const browser = await stage.browser();
  for (const spelled of ["room~7/", "room%7E7", "r%6Fom%7e7/?from=chat"]) {
    const tab = await stage.tab(browser, `${relay.origin}/s/${spelled}`);
    await tab.live();
    assert.equal(await tab.text("#title"), "The same", spelled);
  }
});

/** The clip's picture: its init, and its fragments, of which the first begins with a keyframe. */
function fragments() {
  const file = readFileSync(new URL("src/demo/clip/video.mp4", ROOT));
  const found = { init: [], chunks: [] };
  for (let at = 0; at + 8 <= file.length;) {
    const size = file.readUInt32BE(at);
    const kind = file.toString("latin1", at + 4, at + 8);
    const bytes = file.subarray(at, at + size);
    if (kind === "ftyp" || kind === "moov") found.init.push(bytes);
    if (kind === "moof") found.chunks.push(bytes);
    if (kind === "mdat") found.chunks.push(Buffer.concat([found.chunks.pop(), bytes]));
    at += size;
  }
  return { init: Buffer.concat(found.init), chunks: found.chunks };
}

scene("the manual's five lines work on another site, where its origin is allowed", async (stage) => {
  const manual = readFileSync(new URL("docs/page-client.md", ROOT), "utf8");
  const [, lines] = /^## Five lines\n+```html\n([^]+?)```/m.exec(manual);
  assert.ok(lines.includes("https://relay.example"));
  const business = await stage.business();
  const room = business.room("demo");
  let relay = null; // its configuration names the sites, their pages name it
  const serve = () => stage.site(() => lines.replaceAll("https://relay.example", relay.origin));
  const [friend, stranger] = [await serve(), await serve()];
  relay = await stage.relay(business, { origins: [friend] });

  const browser = await stage.browser();
  const tab = await stage.tab(browser, friend);
  room.say("<b>seen</b> elsewhere");
  await tab.until("the message", () => document.querySelector("#messages").innerText.includes("<b>seen</b> elsewhere"));
  assert.equal(await tab.run(() => document.querySelectorAll("#messages li b").length), 0);

  const { init, chunks } = fragments();
  room.publish(VIDEO, part.init('video/mp4; codecs="avc1.4d4015"'), init);
  for (const [index, chunk] of chunks.slice(0, 3).entries()) room.publish(VIDEO, index === 0 ? part.start : part.continue, chunk);
  const { width, muted } = await tab.plays("#video");
  assert.ok(width > 0);
  console.log(`  the picture plays on the other site, ${width} px wide, ${muted ? "muted" : "not muted"}`);

  // The module may be loaded from anywhere; the connection is refused with 403.
  const refused = await stage.tab(browser, stranger, { tolerated: /WebSocket connection to .* failed: .*403/ });
  await sleep(1500);
  assert.ok(refused.complaints.length > 0, "a site that is not allowed got a connection");
  assert.equal(await refused.run(() => document.querySelector("#messages").childElementCount), 0);
});
