// The hub's webhook: checks a call, and makes the answer to `subscribe`.
//
// Signatures are those of Standard Webhooks: HMAC-SHA256 over id, time and body, in constant time.
// Refuses a body that was parsed already, since its bytes are others by then. No error shows a
// secret. Keeps nothing: the receiver skips events whose id it has seen.

import { createHmac, timingSafeEqual } from "node:crypto";

import * as check from "./check.js";

/** How far a call's time may be away, in seconds. */
const TOLERANCE_S = 300;
const TTL_S_MAX = 86_400;

/** The call is not the hub's, or too old: answer 401. */
export class WebhookError extends Error {
  get name() {
    return "WebhookError";
  }

  get status() {
    return 401;
  }
}

export function verify(secrets, headers, body, options) {
  const { tolerance, now } = check.options("webhooks.verify", options, ["tolerance", "now"]);
  const keys = (Array.isArray(secrets) ? secrets : [secrets]).map(decoded);
  if (keys.length === 0) throw new TypeError("webhooks.verify: there is no secret");
  const bytes = raw(body);
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const signatures = header(headers, "webhook-signature");
  demandRecent(timestamp, now ?? Date.now() / 1000, tolerance ?? TOLERANCE_S);
  const given = signatures.split(" ").filter((part) => part.startsWith("v1,")).map((part) => Buffer.from(part.slice(3), "base64"));
  let isValid = false;
  for (const key of keys) {
    const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(bytes).digest();
    for (const signature of given) {
      // The length is no secret. All are compared.
      if (signature.length === expected.length && timingSafeEqual(signature, expected)) isValid = true;
    }
  }
  if (!isValid) {
    throw new WebhookError("no signature matches: is the secret that of the hub's secret_files, and the body as it came?");
  }
  let call;
  try {
    call = JSON.parse(bytes.toString("utf8"));
  } catch {
    call = null;
  }
  if (typeof call?.type !== "string") throw new WebhookError("the signature is right, and the body is no call of a hub");
  return call;
}

export function accept(grant) {
  const names = ["topic", "shared", "ttl", "replay", "pageMessages"];
  const given = check.options("webhooks.accept", grant ?? {}, names);
  return defined({
    accept: true,
    topic: check.topic(given.topic),
    shared: check.flag("shared", given.shared),
    ttl_s: check.ttl(given.ttl, TTL_S_MAX),
    replay: check.whole("replay", given.replay, 0, 65_535),
    page_messages: check.flag("pageMessages", given.pageMessages),
  });
}

export function deny(reason) {
  return { accept: false, reason: check.reason(reason ?? "this link is not valid") };
}

const defined = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

function decoded(secret) {
  const make = "give the text of the file that `sharelink-hub secret --webhook` made: whsec_ and base64";
  if (typeof secret !== "string" || secret === "") {
    throw new TypeError(`webhooks.verify: the secret is ${check.kind(secret)}; ${make}`);
  }
  const text = secret.trim().replace(/^whsec_/, "");
  const key = Buffer.from(text, "base64");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text) || key.length < 24 || key.length > 64) {
    throw new TypeError(`webhooks.verify: the secret can't be read; ${make}`);
  }
  return key;
}

function raw(body) {
  if (typeof body === "string") return Buffer.from(body);
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  throw new TypeError(
    `webhooks.verify: the body is ${check.kind(body)}, and must be the bytes as they came, before they are parsed; ` +
      'with Express, use express.raw({ type: "application/json" }) on this route, before express.json()',
  );
}

function header(headers, name) {
  if (headers === null || typeof headers !== "object") {
    throw new TypeError("webhooks.verify: headers are those of the request, an object");
  }
  let value;
  if (typeof headers.get === "function") value = headers.get(name);
  else value = Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
  if (Array.isArray(value)) [value] = value;
  if (typeof value !== "string" || value === "") throw new WebhookError(`there is no header ${name}: this is no call of a hub`);
  return value;
}

function demandRecent(timestamp, now, tolerance) {
  if (!/^[0-9]{1,12}$/.test(timestamp)) throw new WebhookError("webhook-timestamp is no time in seconds");
  const age = Math.round(now - Number(timestamp));
  if (Math.abs(age) > tolerance) {
    const how = age > 0 ? "old" : "ahead";
    throw new WebhookError(`the call is ${Math.abs(age)} s ${how}, and may be ${tolerance}: set the clocks of both machines`);
  }
}
