/**
 * outsider.mjs: a page of another site, in a real Chromium, that tries to use a hub's API.
 *
 *     node outsider.mjs API KEY
 *
 * The page even knows the API's key: a browser can't send it for a page of another origin. Prints one line of JSON: the
 * hub's answers as the browser saw them, as `[origin, method, path, status]`, and how many attempts were made.
 */
import { createServer } from "node:http";

import { chromium } from "../browser/node_modules/playwright-core/index.mjs";

const [, , api, key] = process.argv;
const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];

const site = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<title>outside</title>"));
await new Promise((done) => site.listen(0, "0.0.0.0", done));
const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });

/** Runs in the page: every way to call that a page has. Returns the number of attempts. */
async function attack({ api, key }) {
  const message = `${api}/v1/topics/stolen/messages`;
  const body = '{"text":"from outside"}';
  const bearer = { authorization: `Bearer ${key}` };
  const json = { "content-type": "application/json" };
  const attempts = [];
  for (const mode of ["no-cors", "cors"]) {
    for (const credentials of ["include", "omit"]) {
      attempts.push(fetch(message, { method: "POST", mode, credentials, body }));
      attempts.push(fetch(message, { method: "POST", mode, credentials, body, headers: { ...json, ...bearer } }));
      attempts.push(fetch(message, { method: "POST", mode, credentials, body: new Blob([body], { type: "application/json" }), headers: bearer }));
      attempts.push(fetch(`${api}/v1/topics/stolen`, { mode, credentials, headers: bearer }));
    }
  }
  attempts.push(fetch(`${api}/v1/topics/stolen/state`, { method: "PUT", body, headers: { ...json, ...bearer } }));
  attempts.push(fetch(`${api}/v1/topics/open`, { method: "DELETE", headers: bearer }));
  attempts.push(fetch(message, { method: "POST", mode: "no-cors", keepalive: true, body: new URLSearchParams({ text: "x" }) }));
  const basic = api.replace("//", `//any:${key}@`);
  for (const action of [message, `${basic}/v1/topics/stolen/messages`, `${api}/v1/batch`, `${api}/apps/1/events`]) {
    for (const enctype of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
      attempts.push(new Promise((done) => {
        const frame = document.createElement("iframe");
        frame.name = `frame${Math.random()}`;
        const form = document.createElement("form");
        Object.assign(form, { action, enctype, method: "POST", target: frame.name });
        const field = document.createElement("input");
        // As text/plain, the body is name=value: JSON all the same.
        Object.assign(field, { name: '{"text":"', value: '"}' });
        form.append(field);
        document.body.append(frame, form);
        frame.onload = done;
        setTimeout(done, 3000);
        form.submit();
      }));
    }
  }
  attempts.push(new Promise((done) => {
    const image = document.createElement("img");
    image.onload = image.onerror = done;
    image.src = `${basic}/v1/topics`;
  }));
  attempts.push(new Promise((done) => {
    const socket = new WebSocket(`${message.replace("http", "ws")}`);
    socket.onopen = () => socket.send(body);
    socket.onclose = done;
  }));
  navigator.sendBeacon(message, new Blob([body], { type: "text/plain" }));
  const ended = await Promise.allSettled(attempts);
  const read = await Promise.all(ended.map((one) => (one.value instanceof Response ? one.value.text() : "")));
  return { attempts: attempts.length + 1, read: read.join("") };
}

const answers = [];
let attempts = 0;
let read = "";
try {
  // One origin of another site, one of the same site with another port, and an opaque one.
  for (const origin of [`http://localhost:${site.address().port}`, `http://127.0.0.1:${site.address().port}`, "about:blank"]) {
    const tab = await browser.newPage();
    tab.on("response", (response) => {
      const url = new URL(response.url());
      if (url.port === new URL(api).port) {
        answers.push([origin, response.request().method(), url.pathname, response.status()]);
      }
    });
    await tab.goto(origin);
    const done = await tab.evaluate(attack, { api, key });
    attempts += done.attempts;
    read += done.read;
    // A link that the operator follows.
    await tab.goto(`${api}/v1/topics`).catch(() => {});
    await tab.close();
  }
} finally {
  await browser.close();
  site.close();
}
console.log(JSON.stringify({ answers, attempts, read }));
