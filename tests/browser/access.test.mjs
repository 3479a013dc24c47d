/** access.test.mjs: both pages for people who use a keyboard or a screen reader, under a strict Content-Security-Policy. */

import assert from "node:assert/strict";
import { scene } from "./stage.mjs";

/** The accessibility tree: role and name of every node. */
async function outline(tab) {
  const { nodes } = await tab.session.send("Accessibility.getFullAXTree");
  return nodes.filter((node) => !node.ignored).map((node) => ({
    role: node.role?.value, name: node.name?.value ?? "",
    ...Object.fromEntries((node.properties ?? []).map(({ name, value }) => [name, value.value])),
  }));
}

/** Presses Tab until `selector` has the focus; every element on the way must show its focus. */
async function reach(tab, selector) {
  for (let pressed = 0; pressed < 20; pressed += 1) {
    await tab.page.keyboard.press("Tab");
    const { there, outlined, id } = await tab.run((wanted) => {
      const element = document.activeElement;
      return { there: element.matches(wanted), outlined: element === document.body || getComputedStyle(element).outlineStyle !== "none", id: element.id };
    }, selector);
    assert.ok(outlined, `#${id} does not show that it has the focus`);
    if (there) return;
  }
  assert.fail(`the Tab key never reaches ${selector}`);
}

const NAMED = ["button", "textbox", "link", "region", "log", "heading"];

scene("the share page by keyboard and screen reader", async (stage) => {
  const { share } = await stage.demo();
  const tab = await stage.tab(await stage.browser(), share);
  await tab.live();
  await tab.plays("#audio");
  await tab.until("a message", () => document.querySelector("#messages .message"));

  const nodes = await outline(tab);
  const named = (role) => nodes.filter((node) => node.role === role).map(({ name }) => name);
  assert.equal(named("main").length, 1, "one main landmark");
  assert.deepEqual(named("region").sort(), ["Messages", "Picture and sound"]);
  assert.deepEqual(named("log"), ["Messages"]);
  assert.equal(nodes.find(({ role }) => role === "log").live, "polite");
  assert.ok(named("status").length >= 1, "the connection's state is a status");
  assert.deepEqual(named("heading").length, 1);
  for (const { role, name } of nodes) {
    if (NAMED.includes(role)) assert.notEqual(name, "", `a ${role} without a name`);
  }

  await reach(tab, "#unmute");
  await tab.page.keyboard.press("Enter");
  await tab.until("the sound is on", () => !document.querySelector("#audio").muted);
  // The focus moves to the element that replaces the button, in both directions.
  await tab.until("the focus is on #mute", () => document.activeElement.id === "mute");
  await tab.plays("#audio");
  await tab.page.keyboard.press("Space");
  await tab.until("the sound is off, and the focus is on #unmute", () => document.querySelector("#audio").muted && document.activeElement.id === "unmute");
  await reach(tab, "#say");
  await tab.page.keyboard.type("by keyboard");
  await tab.page.keyboard.press("Enter");
  await tab.until("the message", () => document.querySelector("#messages").innerText.includes("by keyboard"));
});

scene("the host page by keyboard and screen reader", async (stage) => {
  const { host } = await stage.demo();
  const tab = await stage.tab(await stage.browser(), host, { viewport: { width: 1200, height: 800 } });
  await tab.until("the host page is connected", () => "connected" in document.documentElement.dataset);
  const nodes = await outline(tab);
  const count = (wanted) => nodes.filter(({ role }) => role === wanted).length;
  assert.deepEqual([count("main"), count("banner"), count("heading"), count("log")], [1, 1, 1, 1]);
  assert.equal(nodes.find(({ role }) => role === "log").live, "polite");
  for (const { role, name } of nodes) {
    if (NAMED.includes(role)) assert.notEqual(name, "", `a ${role} without a name`);
  }
  await reach(tab, "#title");
  await reach(tab, "#message");
  await tab.page.keyboard.type("by keyboard");
  await tab.page.keyboard.press("Enter");
  await tab.until("the message", () => document.querySelector("#messages").innerText.includes("by keyboard"));
});

scene("the pages' policy forbids what they don't need, and violations are reported", async (stage) => {
  const { share, host } = await stage.demo();
  const browser = await stage.browser();
  for (const address of [share, host]) {
    const tab = await stage.tab(browser, address, { tolerated: /Content Security Policy/ });
    await tab.run(() => {
      document.body.append(Object.assign(document.createElement("script"), { textContent: "document.title = 'inline'" }));
      document.body.setAttribute("onclick", "document.title = 'handler'");
      document.body.click();
    });
    await tab.until("the title is as it was", () => !["inline", "handler"].includes(document.title));
    assert.ok(tab.complaints.some((text) => text.includes("Content Security Policy")), "a violation was not reported");
  }
});

scene("the share page connects to its own host and to no other", async (stage) => {
  const { share } = await stage.demo();
  const tab = await stage.tab(await stage.browser(), share, { tolerated: /Content Security Policy/ });
  await tab.live();
  await tab.run(() => {
    window.blocked = [];
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => window.blocked.push(`${effectiveDirective} ${new URL(blockedURI).host}`));
    for (const host of ["127.0.0.1:9", "other.example"]) for (const scheme of ["ws", "wss"]) new WebSocket(`${scheme}://${host}/`);
    fetch("http://other.example/").catch(() => {});
  });
  await tab.until("each of them is blocked", () => window.blocked.length === 5);
  assert.deepEqual([...new Set(await tab.run(() => window.blocked))], ["connect-src 127.0.0.1:9", "connect-src other.example"]);
});
