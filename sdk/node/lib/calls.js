// Calls of the hub's HTTP API: one request, and its retries.
//
// Owns the key, the times and the back-off. A write has one idempotency key over all its attempts,
// so that sending it again does it once. Tried again are connections that fail or break, timeouts,
// 408, 429, and 5xx but 501, 505 and 507 (which stay until somebody mends something). Follows no
// redirects. Doesn't know the routes.

import { HubError } from "./errors.js";

/** Back-off: from this to that, doubled each time, in seconds. */
const BACKOFF_S = 0.25;
const BACKOFF_S_MAX = 8;
/** Answers that say nothing was done. */
const UNDONE = ["busy", "too_many_requests", "too_many_connections", "too_slow"];
/** Errors of a connection that never was. */
const UNSENT = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"];

export class Calls {
  #key;

  constructor({ url, key, timeout, deadline, retries }) {
    this.#key = key;
    Object.assign(this, { url, timeout, deadline, retries });
  }

  /**
   * Makes a call, again where that may help. `isRead`: it changes nothing. `isPartial` says of an
   * answer whether the same call may do more. `isKeyInside`: the idempotency key is in the body.
   * Returns the answer's JSON, or null without a body.
   */
  async call(request) {
    const until = performance.now() + this.deadline * 1000;
    let isUnknown = false;
    let partial; // what an attempt has done, if the others can't finish it
    for (let attempts = 1; ; attempts++) {
      const left = (until - performance.now()) / 1000;
      const answer = await this.#attempt(request, Math.max(Math.min(request.timeout ?? this.timeout, left), 0.001));
      const { failure } = answer;
      isUnknown ||= Boolean(failure?.isUnknown) && !request.isRead;
      const wait = backoff(attempts, failure?.retryAfter ?? null);
      const isOver = attempts > this.retries || performance.now() + wait * 1000 >= until;
      if (!failure) {
        if (isOver || !request.isPartial?.(answer.value)) return answer.value;
        partial = answer;
      } else if (isOver || !failure.isTransient) {
        if (partial) return partial.value;
        const call = `${request.method} ${request.path}`;
        const { cause, ...fields } = failure;
        throw new HubError({ ...fields, call, attempts, isUnknown, idempotencyKey: request.idempotencyKey }, cause);
      }
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  }

  async #attempt({ method, path, body, headers, idempotencyKey, isKeyInside }, timeout) {
    const fields = { Authorization: `Bearer ${this.#key}`, Accept: "application/json", ...headers };
    if (body !== undefined) fields["Content-Type"] = "application/json";
    if (idempotencyKey && !isKeyInside) fields["Idempotency-Key"] = idempotencyKey;
    let response, text;
    try {
      const signal = AbortSignal.timeout(Math.ceil(timeout * 1000));
      response = await fetch(this.url + path, { method, body, headers: fields, signal, redirect: "manual" });
      text = await response.text();
    } catch (error) {
      return { failure: unanswered(error, this.url, timeout) };
    }
    return received(response, text);
  }
}

/** Seconds to wait before the next attempt: random, so that callers don't come back together. */
function backoff(attempts, retryAfter) {
  const random = Math.random() * Math.min(BACKOFF_S * 2 ** (attempts - 1), BACKOFF_S_MAX);
  return retryAfter === null ? random : retryAfter + random;
}

function unanswered(error, url, timeout) {
  const failure = { status: null, retryAfter: null, isTransient: true, isUnknown: true, cause: error };
  if (error.name === "TimeoutError") {
    return { ...failure, code: "timeout", detail: `${url} gave no answer within ${round(timeout)} s` };
  }
  const code = String(error.cause?.code ?? error.code ?? "");
  const why = code || error.cause?.message || error.message;
  if (UNSENT.includes(code)) {
    const detail = `can't connect to ${url} (${why}): does the hub run there, and is its [api] listen this address?`;
    return { ...failure, code: "unreachable", detail, isUnknown: false };
  }
  if (why === "bad port") {
    const detail = `fetch refuses the port of ${url}, which another protocol has; let the hub listen on another`;
    return { ...failure, code: "unreachable", detail, isUnknown: false, isTransient: false };
  }
  if (/CERT|ALTNAME|SELF_SIGNED|VERIFY|^ERR_SSL|^ERR_TLS|^EPROTO$/.test(code)) {
    const detail = `the TLS handshake with ${url} failed (${why}); for a private CA set NODE_EXTRA_CA_CERTS to its file`;
    return { ...failure, code: "tls", detail, isUnknown: false, isTransient: false };
  }
  return { ...failure, code: "connection_lost", detail: `the connection to ${url} broke before the answer (${why})` };
}

function received(response, text) {
  const { status } = response;
  let value = null;
  let isJson = true;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    isJson = false;
  }
  if (response.ok && isJson) return { value };
  const failure = {
    status,
    code: "not_the_hub",
    detail: "this is no answer of a hub: does url lead to its API, and what says a proxy in between?",
    retryAfter: seconds(response.headers.get("retry-after")),
    requestId: response.headers.get("x-request-id"),
    isTransient: [408, 429].includes(status) || (status >= 500 && ![501, 505, 507].includes(status)),
    isUnknown: status >= 500 && status !== 507,
  };
  if (status >= 300 && status < 400) {
    failure.detail = "this is a redirect, and the hub makes none: give as url what it leads to";
  } else if (isJson && typeof value?.code === "string" && typeof value.detail === "string") {
    const isUnknown = failure.isUnknown && !UNDONE.includes(value.code);
    Object.assign(failure, { code: value.code, detail: value.detail, problem: value, isUnknown });
  }
  return { failure };
}

/** `Retry-After` in seconds: a number, or a date. */
function seconds(text) {
  if (text === null) return null;
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, (date - Date.now()) / 1000);
}

const round = (value) => Math.round(value * 100) / 100;
