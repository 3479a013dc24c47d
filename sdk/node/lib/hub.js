// A hub and its topics: one method for each route of docs/api.md.
//
// Owns the paths, and what is sent to each. Each write gets an idempotency key here if the caller
// gives none. Answers come as the API gives them. Doesn't send picture and sound: encoders do.

import { randomUUID } from "node:crypto";

import { Calls } from "./calls.js";
import * as check from "./check.js";
import { HubError } from "./errors.js";

const TIMEOUT_S = 15;
const DEADLINE_S = 60;
/** The hub knows an idempotency key for 5 minutes: all attempts are over before. */
const DEADLINE_S_MAX = 240;
const RETRIES = 4;
const RETRIES_MAX = 20;
/** The hub gives a batch 30 s, in seconds. */
const MANY_TIMEOUT_S = 40;
const TOPICS_MAX = 100;
const OPERATIONS_MAX = 1000;
/** Behind a batch's key, each operation's has a dot and its number. */
const KEY_SIZE_MAX = 124;
/** How often `updateState` reads again when others set the state in between. */
const UPDATES_MAX = 10;

export class Hub {
  #calls;

  constructor(settings) {
    const known = ["url", "key", "timeout", "deadline", "retries"];
    const given = check.options("Hub", settings ?? {}, known);
    this.#calls = new Calls({
      url: check.url(given.url),
      key: check.key(given.key),
      timeout: check.number("timeout", given.timeout, TIMEOUT_S, DEADLINE_S_MAX),
      deadline: check.number("deadline", given.deadline, DEADLINE_S, DEADLINE_S_MAX),
      retries: check.whole("retries", given.retries, 0, RETRIES_MAX) ?? RETRIES,
    });
  }

  get url() {
    return this.#calls.url;
  }

  topic(name) {
    return new Topic(this.#calls, check.topic(name));
  }

  async topics(options) {
    const { below, cursor, limit } = check.options("topics", options, ["below", "cursor", "limit"]);
    if (below) check.topic(below);
    return this.#calls.call({
      method: "GET",
      path: `/v1/topics${query({ below, cursor: cursor ?? undefined, limit: check.whole("limit", limit, 1, 1000) })}`,
      isRead: true,
    });
  }

  async publish(request) {
    const given = check.options("publish", request ?? {}, ["topics", "message", "state", "idempotencyKey"]);
    const { topics } = given;
    if (!Array.isArray(topics) || topics.length < 1 || topics.length > TOPICS_MAX) {
      throw new TypeError(`publish: topics is an array of 1 to ${TOPICS_MAX} names`);
    }
    topics.forEach(check.topic);
    if (new Set(topics).size !== topics.length) throw new TypeError("publish: topics has a name twice");
    const tracks = ["message", "state"].filter((name) => given[name] !== undefined);
    if (tracks.length !== 1) throw new TypeError("publish: give either message or state");
    const [track] = tracks;
    const data = check.json(given[track]);
    const answer = await this.#calls.call({
      method: "POST",
      path: "/v1/publish",
      body: `{"topics":${JSON.stringify(topics)},"${track}":${data}}`,
      idempotencyKey: check.idempotencyKey(given.idempotencyKey) ?? randomUUID(),
      isPartial: ({ results }) => results.some(({ status }) => status === 429 || status === 503),
      timeout: Math.max(this.#calls.timeout, MANY_TIMEOUT_S),
    });
    return answer.results;
  }

  async batch(operations, options) {
    const { idempotencyKey } = check.options("batch", options, ["idempotencyKey"]);
    const key = check.idempotencyKey(idempotencyKey, KEY_SIZE_MAX) ?? randomUUID();
    if (!Array.isArray(operations) || operations.length < 1 || operations.length > OPERATIONS_MAX) {
      throw new TypeError(`batch: operations is an array of 1 to ${OPERATIONS_MAX}`);
    }
    const texts = operations.map((operation, index) => {
      const { op, topic } = operation ?? {};
      if (typeof op !== "string") throw new TypeError(`batch: operation ${index} has no op`);
      check.topic(topic);
      const isKeyed = op === "message" || op === "state";
      return check.json(isKeyed ? { ...operation, idempotency_key: operation.idempotency_key ?? `${key}.${index}` } : operation);
    });
    const answer = await this.#calls.call({
      method: "POST",
      path: "/v1/batch",
      body: `{"operations":[${texts.join(",")}]}`,
      idempotencyKey: key,
      isKeyInside: true,
      timeout: Math.max(this.#calls.timeout, MANY_TIMEOUT_S),
    });
    return answer.results;
  }

  async revoke(what) {
    const { link, token, reason, ttl } = check.options("revoke", what ?? {}, ["link", "token", "reason", "ttl"]);
    if ((link === undefined) === (token === undefined)) throw new TypeError("revoke: give either link or token");
    if (token !== undefined && !(typeof token === "string" && token.startsWith("slt_"))) {
      throw new TypeError("revoke: token must be one of ingestToken(), which begins with slt_");
    }
    const named = link === undefined ? { token } : { link: check.link(link) };
    return this.#post("/v1/revoke", { ...named, reason: check.reason(reason), ttl_s: check.ttl(ttl) });
  }

  async kick(page, reason) {
    await this.#post("/v1/kick", { page: check.page(page), reason: check.reason(reason) });
  }

  async fleet() {
    return this.#calls.call({ method: "GET", path: "/v1/fleet", isRead: true });
  }

  async health() {
    return this.#calls.call({ method: "GET", path: "/healthz", isRead: true });
  }

  #post(path, body) {
    return this.#calls.call({ method: "POST", path, body: JSON.stringify(body) });
  }

  [Symbol.for("nodejs.util.inspect.custom")]() {
    return `Hub { url: ${JSON.stringify(this.url)} }`;
  }
}

export class Topic {
  #calls;
  #path;

  constructor(calls, name) {
    if (!(calls instanceof Calls)) throw new TypeError("a topic comes from hub.topic(name)");
    this.#calls = calls;
    this.#path = `/v1/topics/${encodeURIComponent(name)}`;
    this.name = name;
  }

  async say(text, options) {
    const given = check.options("say", options, ["from", "avatar", "author", "idempotencyKey", "durable"]);
    const { from, avatar, author, ...rest } = given;
    return this.message({ text: check.text("text", text), from, avatar, author }, rest);
  }

  async message(value, options) {
    const { idempotencyKey, durable } = check.options("message", options, ["idempotencyKey", "durable"]);
    return this.#calls.call({
      method: "POST",
      path: `${this.#path}/messages${check.flag("durable", durable) ? "?durable=1" : ""}`,
      body: check.json(value),
      idempotencyKey: check.idempotencyKey(idempotencyKey) ?? randomUUID(),
    });
  }

  async messages(options) {
    const given = check.options("messages", options, ["since", "limit"]);
    const since = check.whole("since", given.since, 0, check.SEQUENCE_MAX);
    const limit = check.whole("limit", given.limit, 1, 1000);
    return this.#calls.call({ method: "GET", path: `${this.#path}/messages${query({ since, limit })}`, isRead: true });
  }

  async takeDown(sequence) {
    if (sequence === undefined) throw new TypeError("takeDown: give the message's sequence");
    check.whole("sequence", sequence, 1, check.SEQUENCE_MAX);
    return this.#calls.call({ method: "DELETE", path: `${this.#path}/messages/${sequence}` });
  }

  async setState(value, options) {
    const { ifMatch, idempotencyKey } = check.options("setState", options, ["ifMatch", "idempotencyKey"]);
    const sequence = check.whole("ifMatch", ifMatch, 0, check.SEQUENCE_MAX);
    return this.#calls.call({
      method: "PUT",
      path: `${this.#path}/state`,
      body: check.json(value),
      headers: sequence === undefined ? {} : { "If-Match": `"${sequence}"` },
      idempotencyKey: check.idempotencyKey(idempotencyKey) ?? randomUUID(),
    });
  }

  async state() {
    try {
      return await this.#calls.call({ method: "GET", path: `${this.#path}/state`, isRead: true });
    } catch (error) {
      if (error instanceof HubError && error.code === "not_found") return null;
      throw error;
    }
  }

  async updateState(change) {
    const isFunction = typeof change === "function";
    if (!isFunction && !isObject(change)) {
      throw new TypeError(`updateState: give an object of the fields to change, or a function, and not ${check.kind(change)}`);
    }
    for (let updates = 1; ; updates++) {
      const old = await this.state();
      const value = isFunction ? await change(old?.data ?? null) : merged(old?.data, change);
      try {
        return await this.setState(value, { ifMatch: old?.sequence ?? 0 });
      } catch (error) {
        const isChanged = error instanceof HubError && error.code === "state_changed";
        if (!isChanged || updates >= UPDATES_MAX) throw error;
      }
    }
  }

  async info() {
    return this.#calls.call({ method: "GET", path: this.#path, isRead: true });
  }

  async end(reason) {
    const said = check.reason(reason);
    const body = said === undefined ? undefined : JSON.stringify({ reason: said });
    await this.#calls.call({ method: "DELETE", path: this.#path, body });
  }

  async open() {
    await this.#calls.call({ method: "POST", path: `${this.#path}/open` });
  }

  async link(options) {
    const given = check.options("link", options, ["ttl", "shared", "pageMessages", "replay"]);
    const body = {
      topic: this.name,
      ttl_s: check.ttl(given.ttl),
      shared: check.flag("shared", given.shared),
      page_messages: check.flag("pageMessages", given.pageMessages),
      replay: check.whole("replay", given.replay, 0, 65_535),
    };
    return this.#calls.call({ method: "POST", path: "/v1/links", body: JSON.stringify(body) });
  }

  async ingestToken(options) {
    const { ttl } = check.options("ingestToken", options, ["ttl"]);
    const body = JSON.stringify({ ttl_s: check.ttl(ttl) });
    return this.#calls.call({ method: "POST", path: `${this.#path}/ingest-tokens`, body });
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** A state with other fields (JSON merge patch, RFC 7396): null removes one. */
function merged(old, patch) {
  if (!isObject(patch)) return patch;
  const fields = new Map(isObject(old) ? Object.entries(old) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) fields.delete(name);
    else if (value !== undefined) fields.set(name, merged(fields.get(name), value));
  }
  return Object.fromEntries(fields);
}

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}
