/** messages.test.mjs: the host's actions show on the share page at once, and a refresh loses nothing. */

import assert from "node:assert/strict";
import { scene, sleep } from "./stage.mjs";

const LIMIT = 1000; // ms from the host's key to the viewer's screen

/** Types on the host page, and measures the time until the share page shows it. */
async function timed(what, [desk, field, text], viewer, look) {
  const pressed = await desk.write(field, text);
  await viewer.until(what, look, text);
  const took = Date.now() - pressed;
  console.log(`  ${what}: ${took} ms`);
  assert.ok(took < LIMIT, `${what} took ${took} ms`);
}

scene("a message and a title of the host are on the share page within a second, as text", async (stage) => {
  const { share, host } = await stage.demo();
  const browser = await stage.browser();
  const [viewer, desk] = await Promise.all([stage.tab(browser, share), stage.tab(browser, host)]);
  await viewer.live();
  const listed = (text) => [...document.querySelectorAll("#messages .message .text")].some((element) => element.textContent === text);

  await timed("a message", [desk, "#message", "你好 from the host"], viewer, listed);
  const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script><b>bold</b>`;
  await timed("a message that looks like HTML", [desk, "#message", hostile], viewer, listed);
  const inserted = await viewer.run(() => document.querySelectorAll("#messages :is(img, script, b)").length);
  assert.equal(inserted, 0, "a message became elements");

  const title = "<i>Title</i> 标题 №2";
  const titled = (wanted) => document.querySelector("#title").textContent === wanted && document.title === wanted;
  await timed("a title", [desk, "#title", title], viewer, titled);
  assert.equal(await viewer.run(() => document.querySelector("#title").childElementCount), 0);
});

scene("a viewer's message reaches every page", async (stage) => {
  const { share, host } = await stage.demo();
  const browser = await stage.browser();
  const [viewer, desk] = await Promise.all([stage.tab(browser, share), stage.tab(browser, host)]);
  await viewer.live();
  await viewer.write("#say", "hello from outside 👍");
  for (const [tab, item] of [[viewer, ".message"], [desk, "li"]]) {
    await tab.until("the message is listed", (wanted) => [...document.querySelectorAll(`#messages ${wanted} .text`)]
      .some((element) => element.textContent === "hello from outside 👍"), item);
  }
});

scene("a refresh during messages loses none and duplicates none", async (stage) => {
  const { share, host } = await stage.demo();
  const browser = await stage.browser();
  const [stays, refreshes, desk] = await Promise.all([stage.tab(browser, share), stage.tab(browser, share), stage.tab(browser, host)]);
  await Promise.all([stays.live(), refreshes.live()]);

  // Fewer than the demo's replay of 50, so that a returning page must get all of them.
  const said = (async () => {
    for (let number = 1; number <= 30; number += 1) {
      await desk.write("#message", `flow ${number}`);
      await sleep(60);
    }
  })();
  for (let round = 0; round < 3; round += 1) {
    await sleep(500);
    await refreshes.page.reload();
  }
  await said;
  for (const tab of [stays, refreshes]) {
    await tab.until("the last message", () => document.querySelector("#messages").innerText.includes("flow 30"));
  }
  // The demo may publish between two reads, so compare only what both pages have.
  const [one, other] = [await stays.messages(), await refreshes.messages()];
  const common = Math.min(one.at(-1)[0], other.at(-1)[0]);
  const upTo = (list) => list.filter(([sequence]) => sequence <= common);
  assert.deepEqual(upTo(other), upTo(one));
  const numbers = one.map(([sequence]) => sequence);
  assert.deepEqual(numbers, numbers.map((_, index) => index + numbers[0]), "each sequence once and in order");
  const flow = other.flatMap(([, text]) => /^flow (\d+)$/.exec(text)?.[1] ?? []).map(Number);
  assert.deepEqual(flow, Array.from({ length: 30 }, (_, index) => index + 1));
  assert.deepEqual([await stays.gaps(), await refreshes.gaps()], [[], []]);
});

scene("a message that is taken down goes, also for who comes later", async (stage) => {
  const business = await stage.business();
  const room = business.room("room");
  const relay = await stage.relay(business);
  const browser = await stage.browser();
  const tab = await stage.tab(browser, `${relay.origin}/s/room`);
  await tab.live();
  for (const text of ["one", "two", "three"]) room.say(text);
  await tab.until("three messages", () => document.querySelectorAll("#messages .message").length === 3);
  // One that was drawn, one that nobody has, and one that comes together with its removal.
  room.tell({ kind: "removed", sequence: 2 });
  room.tell({ kind: "removed", sequence: 77 });
  room.say("four");
  room.tell({ kind: "removed", sequence: 6 });
  room.say("five");
  const texts = () => [...document.querySelectorAll("#messages .message .text")].map((element) => element.textContent).join();
  await tab.until("the rest", () => document.querySelector("#messages .message:last-child .text")?.textContent === "five");
  assert.equal(await tab.run(texts), "one,three,five");
  const late = await stage.tab(browser, `${relay.origin}/s/room`);
  await late.until("the rest", () => document.querySelector("#messages .message:last-child .text")?.textContent === "five");
  assert.equal(await late.run(texts), "one,three,five");
  assert.deepEqual(await late.gaps(), []);
});
