/**
 * stage.mjs: the environment of a browser test: the real daemon, a real Chromium, and tabs that are inspected without a
 * user gesture.
 *
 * Owns every process and directory that a scene starts, and always cleans them up; prints the daemon's log and the tabs'
 * content if a scene fails. An error on a page's console (a script error, a violation of its Content-Security-Policy, a
 * missing resource) fails its scene.
 * Refuses: Playwright's `evaluate`, locators and `waitForSelector` on a tab. They count as a user gesture and would hide
 * that a browser refuses to play; `Tab.run` does not.
 *
 * Environment: SHARELINKD the daemon's binary, CHROMIUM a browser other than /usr/bin/chromium, BROWSER_TLS=1 to connect
 * the pages of each `relay` and `demo` by TLS.
 */

import { execFileSync, spawn } from "node:child_process";
import { X509Certificate, createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createSite, request } from "node:http";
import { createServer as createSecureSite, request as requestSecurely } from "node:https";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectSecurely } from "node:tls";
import { chromium } from "playwright-core";

import { Business } from "./business.mjs";

export { sleep };

const SHARELINKD = process.env.SHARELINKD ?? new URL("../../target/release/sharelinkd", import.meta.url).pathname;
const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
/** Every `relay` speaks TLS, not only those that a scene wants so. */
const IS_SECURE = Boolean(process.env.BROWSER_TLS);
const CAMERA_FLAGS = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
/** ms. The default timeout of a scene's waits; each scene asserts its own, shorter times. */
const PATIENCE = 10_000;
const LOOK = 20; // ms between two polls
const SCENE_TIMEOUT = 80_000; // ms: the longest scene has to wait for 38 s
const PHONE = { width: 390, height: 844 };

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

/** One test: `play` gets a `Stage`, which is cleaned up afterwards. */
export function scene(name, play) {
  test(name, { timeout: SCENE_TIMEOUT }, async () => {
    const stage = new Stage();
    try {
      await play(stage);
      stage.check();
    } catch (error) {
      await stage.report();
      throw error;
    } finally {
      await stage.clear();
    }
  });
}

/** A certificate of this process for 127.0.0.1, with its key, made once; the browsers trust its public key, by `flag`. */
const certificate = (() => {
  let made = null;
  return () => (made ??= (() => {
    const directory = mkdtempSync(join(tmpdir(), "sharelinkd-browser-tls-"));
    process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
    const [file, key] = ["certificate.pem", "key.pem"].map((name) => join(directory, name));
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", file,
      "-days", "30", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], { stdio: "pipe" });
    const { publicKey } = new X509Certificate(readFileSync(file));
    const pin = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64");
    return { file, key, flag: `--ignore-certificate-errors-spki-list=${pin}` };
  })());
})();

class Stage {
  #endings = [];
  #logs = [];
  #tabs = [];
  #hasDemo = false;

  /** `sharelinkd demo` on free ports. */
  async demo() {
    this.#hasDemo = true;
    const { said } = this.#daemon(["demo", "--port", "0", "--host-port", "0", ...(IS_SECURE ? ["--tls"] : [])]);
    const [, share, host] = await said(/share page +(https?:\S+)[^]*host page +(https?:\S+)/);
    return { share, host };
  }

  /** The test's own business server, which survives its relay. */
  async business(settings) {
    const business = await Business.listen(settings);
    this.#endings.push(() => business.close());
    return business;
  }

  /** `sharelinkd run` in front of `business`, with more `lines` of configuration; `start` and `kill` may be called repeatedly. */
  async relay(business, { origins = [], isSecure = IS_SECURE, lines = [] } = {}) {
    const [port, plainPort] = [await quietPort(), await quietPort()];
    const { file, key } = isSecure ? certificate() : {};
    const secure = ["[tls]", `listen = "127.0.0.1:${port}"`, `certificates = [{ certificate_file = "${file}", key_file = "${key}" }]`];
    const directory = this.#directory();
    const config = join(directory, "sharelinkd.toml");
    writeFileSync(config, [
      ...(isSecure ? secure : []), "[pages]", `listen = "127.0.0.1:${isSecure ? plainPort : port}"`, `origins = ${JSON.stringify(origins)}`,
      "[uplink]", `addresses = ["127.0.0.1:${business.port}"]`, ...lines, "",
    ].join("\n"));
    const relay = { origin: `http${isSecure ? "s" : ""}://127.0.0.1:${port}`, port };
    let daemon;
    relay.start = async () => {
      daemon = this.#daemon(["run", "--config", config]);
      await daemon.said(/\bready\b/);
    };
    relay.kill = async () => {
      daemon.child.kill("SIGKILL");
      await daemon.gone;
    };
    await relay.start();
    return relay;
  }

  /** A browser with a profile of its own. */
  async browser({ camera = false } = {}) {
    const browser = await chromium.launch({
      executablePath: CHROMIUM, headless: true, args: [...FLAGS, certificate().flag, ...(camera ? CAMERA_FLAGS : [])],
    });
    this.#endings.unshift(() => browser.close());
    return browser;
  }

  /**
   * A tab with a `locale`, on a phone by default. `before` runs in the page ahead of its own scripts; `prepare` gets
   * Playwright's page.
   */
  async tab(browser, address, { locale = "en-US", viewport = PHONE, tolerated = null, before = null, prepare = null } = {}) {
    // The demo's certificate is from a CA of its own; a relay's must be the one of this process.
    const context = await browser.newContext({ locale, viewport, ignoreHTTPSErrors: this.#hasDemo });
    const page = await context.newPage();
    for (const [look, ...args] of before ? [[before].flat()] : []) await page.addInitScript(`(${look})(...${JSON.stringify(args)})`);
    await prepare?.(page);
    const tab = new Tab(page, await context.newCDPSession(page), tolerated);
    this.#tabs.push(tab);
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) tab.complaints.push(`${message.text()} (${message.location().url})`);
    });
    page.on("pageerror", (error) => tab.complaints.push(String(error.stack ?? error)));
    await tab.go(address);
    return tab;
  }

  /** Another site, which serves one page: `body()`. Resolves to its origin. */
  async site(body) {
    const server = createSite((_, response) => {
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      response.end(`<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">${body()}`);
    }).listen(0, "127.0.0.1");
    this.#endings.push(() => {
      server.close();
      server.closeAllConnections();
    });
    await once(server, "listening");
    return `http://127.0.0.1:${server.address().port}`;
  }

  /**
   * A proxy to `origin` that spoils the first answers for a path, one for each entry of `troubles[path]`: "cut" in the
   * middle, "reset" before it, "503", or "never". Later answers and all WebSockets pass. Resolves to the proxy's origin,
   * and `asked`, the requested addresses. Between `hold()` and `release()` it is silent, as a network that drops packets:
   * WebSockets stay open, and nothing passes, nor is answered; what was sent arrives afterwards.
   */
  async line(origin, troubles = {}) {
    const { protocol, hostname, port } = new URL(origin);
    const isSecure = protocol === "https:";
    const [asked, sockets, tunnels] = [[], new Map(), new Set()];
    let held = null; // what is to be done after it
    const whenReleased = (run) => (held ? held.push(run) : run());
    const join = ([one, other]) => one.pipe(other).pipe(one);
    const reset = ({ remotePort }) => sockets.get(remotePort).resetAndDestroy();
    const make = (listener) => {
      if (!isSecure) return createSite(listener);
      const { file, key } = certificate();
      return createSecureSite({ cert: readFileSync(file), key: readFileSync(key) }, listener);
    };
    const server = make((question, answer) => {
      asked.push(question.url);
      const trouble = troubles[Object.keys(troubles).find((path) => question.url.split("?")[0] === path)]?.shift();
      if (trouble === "reset") return reset(question.socket);
      if (trouble === "never") return undefined;
      if (trouble === "503") return answer.writeHead(503, { "Content-Length": 5 }).end("full\n");
      const target = { hostname, port, path: question.url, headers: { ...question.headers, connection: "close" }, rejectUnauthorized: false };
      return (isSecure ? requestSecurely : request)(target, async (given) => {
        const body = Buffer.concat(await given.toArray());
        answer.writeHead(given.statusCode, { ...given.headers, connection: "close" });
        if (trouble !== "cut") return answer.end(body);
        return answer.write(body.subarray(0, body.length / 2), () => setImmediate(() => reset(question.socket)));
      }).on("error", () => question.socket.destroy()).end();
    });
    server.on("connection", (socket) => sockets.set(socket.remotePort, socket));
    server.on("upgrade", (question, socket) => whenReleased(() => {
      const dial = (ready) => (isSecure ? connectSecurely({ port, host: hostname, rejectUnauthorized: false }, ready) : connect(Number(port), hostname, ready));
      const relay = dial(() => {
        const lines = question.rawHeaders.map((value, index) => (index % 2 ? `${value}\r\n` : `${value}: `)).join("");
        relay.write(`GET ${question.url} HTTP/1.1\r\n${lines}\r\n`);
        const ends = [socket, relay];
        relay.on("close", () => tunnels.delete(ends));
        whenReleased(() => {
          if (!relay.destroyed) tunnels.add(ends);
          join(ends);
        });
      });
      for (const end of [socket, relay]) {
        end.on("error", () => { socket.destroy(); relay.destroy(); });
        end.on("close", () => whenReleased(() => { socket.destroy(); relay.destroy(); }));
      }
    }));
    server.listen(0, "127.0.0.1");
    this.#endings.push(() => {
      server.close();
      server.closeAllConnections();
    });
    await once(server, "listening");
    const hold = () => {
      held ??= [];
      for (const ends of tunnels) for (const end of ends) end.unpipe().pause();
    };
    const release = () => {
      const waiting = held ?? [];
      held = null;
      tunnels.forEach(join);
      waiting.forEach((run) => run());
    };
    return { origin: `${protocol}//127.0.0.1:${server.address().port}`, asked, hold, release, count: () => tunnels.size };
  }

  /** No page has console errors other than those that its scene tolerates. */
  check() {
    const complaints = this.#tabs.flatMap((tab) => tab.complaints.filter((text) => !tab.tolerated?.test(text)));
    if (complaints.length) throw new Error(`a page has errors on its console:\n  ${complaints.join("\n  ")}`);
  }

  async report() {
    for (const log of this.#logs) console.log(`--- the daemon said:\n${log.join("")}`);
    for (const tab of this.#tabs) {
      const shown = await tab.run(() => `${JSON.stringify({ ...document.documentElement.dataset })}\n${document.body?.innerText}`)
        .catch((error) => `(${error.message})`);
      console.log(`--- ${tab.page.url()}\n${shown}\n--- its complaints: ${JSON.stringify(tab.complaints)}`);
    }
  }

  async clear() {
    for (const end of this.#endings) await end();
  }

  #daemon(args) {
    const child = spawn(SHARELINKD, args, { stdio: ["ignore", "pipe", "pipe"] });
    const log = [];
    this.#logs.push(log);
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => log.push(data));
    children.add(child);
    const gone = new Promise((resolve) => child.once("close", resolve));
    child.once("error", (error) => log.push(`${SHARELINKD} does not start: ${error.message}\n`));
    child.once("exit", () => children.delete(child));
    this.#endings.push(() => {
      if (child.pid === undefined) return undefined;
      child.kill("SIGKILL");
      return gone;
    });
    const said = async (wanted) => {
      for (const end = Date.now() + PATIENCE; Date.now() < end && child.exitCode === null; await sleep(LOOK)) {
        const found = wanted.exec(log.join(""));
        if (found) return found;
      }
      throw new Error(`the daemon never logged ${wanted}`);
    };
    return { child, gone, said };
  }

  #directory() {
    const directory = mkdtempSync(join(tmpdir(), "sharelinkd-browser-"));
    this.#endings.push(() => rmSync(directory, { recursive: true, force: true }));
    return directory;
  }
}

/** One tab. Its function arguments run in the page: they see only their own arguments. */
export class Tab {
  complaints = [];
  patience = PATIENCE;

  constructor(page, session, tolerated) {
    this.page = page;
    this.session = session;
    this.tolerated = tolerated;
  }

  async go(address) {
    await this.page.goto(address);
  }

  /** Runs `look` in the page, without a user gesture. */
  async run(look, ...args) {
    const { result, exceptionDetails } = await this.session.send("Runtime.evaluate", {
      expression: `(${look})(...${JSON.stringify(args)})`, returnByValue: true, awaitPromise: true, userGesture: false,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Polls until `look` returns something true, and resolves to it. */
  async until(what, look, ...args) {
    const end = Date.now() + this.patience;
    for (;;) {
      let seen;
      // Fails between two documents.
      try { seen = await this.run(look, ...args); } catch (error) { seen = null; if (Date.now() > end) throw error; }
      if (seen) return seen;
      if (Date.now() > end) throw new Error(`waited in vain for this: ${what}`);
      await sleep(LOOK);
    }
  }

  text(selector) {
    return this.run((wanted) => document.querySelector(wanted)?.innerText, selector);
  }

  /** Whether an element is visible. */
  shown(selector) {
    return this.run((wanted) => Boolean(document.querySelector(wanted)?.checkVisibility()), selector);
  }

  /** A real tap in the middle of an element. */
  async tap(selector) {
    const [x, y] = await this.until(`${selector} can be tapped`, (wanted) => {
      const element = document.querySelector(wanted);
      if (!element?.checkVisibility() || element.disabled) return null;
      element.scrollIntoView({ block: "nearest", behavior: "instant" });
      const { x, y, width, height } = element.getBoundingClientRect();
      const middle = [x + width / 2, y + height / 2];
      return element.contains(document.elementFromPoint(...middle)) && middle;
    }, selector);
    await this.page.mouse.click(x, y);
  }

  /** Types into a field and submits it with a real key. Resolves to the time of the key press. */
  async write(selector, text) {
    await this.until("the page's script runs", () => document.documentElement.dataset.room);
    // A new message may move the field away from the tap.
    const end = Date.now() + this.patience;
    do {
      if (Date.now() > end) throw new Error(`${selector} can't get the focus`);
      await this.tap(selector);
    } while (!(await this.run((wanted) => document.activeElement === document.querySelector(wanted), selector)));
    await this.page.keyboard.insertText(text);
    const pressed = Date.now();
    await this.page.keyboard.press("Enter");
    return pressed;
  }

  /** Waits until the room is shown and its connection is live. */
  live() {
    return this.until("the room is live", () => document.documentElement.dataset.room === "live" && document.querySelector("#title").textContent);
  }

  /** The sequences and texts of the listed messages. */
  messages() {
    return this.run(() => [...document.querySelectorAll("#messages .message")]
      .map((element) => [Number(element.dataset.sequence), element.querySelector(".text").textContent]));
  }

  gaps() {
    return this.run(() => [...document.querySelectorAll("#messages .gap")].map(({ dataset }) => [Number(dataset.from), Number(dataset.to)]));
  }

  /** An element's playback state: in seconds, except `frames` and `width`. */
  playback(selector) {
    return this.run((wanted) => {
      const element = document.querySelector(wanted);
      const { buffered, currentTime, paused, muted, readyState, seeking, videoWidth: width } = element;
      const ahead = buffered.length ? buffered.end(buffered.length - 1) - currentTime : 0;
      const frames = element.getVideoPlaybackQuality().totalVideoFrames;
      return { at: performance.now() / 1000, time: currentTime, paused, muted, readyState, seeking, ahead, frames, width };
    }, selector);
  }

  /** Resolves once an element really plays: its time advances between two polls. */
  async plays(selector, end = Date.now() + PATIENCE) {
    let before = null;
    for (;;) {
      const now = await this.playback(selector).catch(() => null);
      if (now && before && !now.seeking && !before.seeking && before.time > 0 && now.time > before.time && now.readyState > 1) return now;
      before = now;
      if (Date.now() > end) throw new Error(`${selector} does not play: ${JSON.stringify(now)}`);
      await sleep(LOOK);
    }
  }
}

/** A free port below the ephemeral range, so that no outgoing connection takes it while the relay is away. */
async function quietPort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer();
    try {
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    } catch {
      continue;
    }
    server.close();
    await once(server, "close");
    return port;
  }
}
