// Checks of arguments, before anything is sent: each error says what is right.
//
// Refuses options that it doesn't know, since a misspelt one would do nothing. Keys, links and
// tokens are secrets: no error shows them. The hub checks everything again; limits of its
// configuration are known there alone.

export const SEQUENCE_MAX = Number.MAX_SAFE_INTEGER;
/** A longer publication no hub takes, in bytes; its configuration may say less. */
const JSON_SIZE_MAX = 1 << 20;
const REASON_SIZE_MAX = 256;

const size = (text) => new TextEncoder().encode(text).length;

/** Refuses what is no object, and options that are not known. */
export function options(call, value, names) {
  if (value === undefined) return {};
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new TypeError(`${call}: the options are an object with ${names.join(", ")}`);
  }
  const wrong = Object.keys(value).find((name) => !names.includes(name));
  if (wrong !== undefined) {
    throw new TypeError(`${call}: there is no option ${JSON.stringify(wrong)}; known: ${names.join(", ")}`);
  }
  return value;
}

/** The hub's URL without a slash at its end. */
export function url(value) {
  const example = 'as "https://hub.example:8090"';
  if (typeof value !== "string" && !(value instanceof URL)) {
    throw new TypeError(`Hub: url is ${kind(value)}; give the API's, ${example}`);
  }
  const text = String(value);
  if (!/^https?:\/\//i.test(text)) {
    throw new TypeError(`Hub: url must begin with http:// or https://, ${example}`);
  }
  let parsed;
  try {
    parsed = new URL(text);
  } catch {
    throw new TypeError(`Hub: url can't be read; give the API's, ${example}`);
  }
  if (parsed.username || parsed.password) {
    throw new TypeError("Hub: url has a user or password; give the key as the option key");
  }
  if (parsed.search || parsed.hash) throw new TypeError(`Hub: url has a "?" or "#"; leave it out, ${example}`);
  const path = parsed.pathname.replace(/\/+$/, "");
  if (path.endsWith("/v1")) throw new TypeError("Hub: url ends with /v1; leave that out");
  return parsed.origin + path;
}

/** An API key. */
export function key(value) {
  const make = "make one by `sharelink-hub key`";
  if (value === undefined || value === null || value === "") {
    throw new TypeError(`Hub: key is ${kind(value)}; ${make}. Is the environment variable set?`);
  }
  if (typeof value !== "string") throw new TypeError(`Hub: key is ${kind(value)}, and must be a string; ${make}`);
  if (!/^[!-~]+$/.test(value)) {
    throw new TypeError("Hub: key has a space, a line end or other characters that keys haven't; trim what was read");
  }
  for (const [prefix, what] of [
    ["slt_", "a token for picture and sound, and this needs an API key"],
    ["whsec_", "a webhook's secret, and this needs an API key"],
    ["sha256:", "the hash in the hub's configuration, and this needs the key itself"],
  ]) {
    if (value.startsWith(prefix)) throw new TypeError(`Hub: key is ${what}; ${make}`);
  }
  return value;
}

/** A topic's name. */
export function topic(value) {
  if (typeof value !== "string" || !/^[A-Za-z0-9._~:/-]{1,64}$/.test(value)) {
    const given = typeof value === "string" ? JSON.stringify(value.slice(0, 80)) : kind(value);
    throw new TypeError(`a topic's name has 1 to 64 of the characters A-Z a-z 0-9 - _ . ~ : /, and this is ${given}`);
  }
  if (value === "." || value === "..") {
    throw new TypeError(`the topic ${JSON.stringify(value)} can't be reached by a URL, where it is a step; choose another`);
  }
  return value;
}

/** A whole number within bounds; `undefined` stays so. */
export function whole(name, value, min, max) {
  if (value === undefined) return undefined;
  if (!Number.isSafeInteger(value)) throw new TypeError(`${name} is ${kind(value)}, and must be a whole number`);
  if (value < min || value > max) throw new RangeError(`${name} is ${value}, and must be from ${min} to ${max}`);
  return value;
}

/** A time to live in seconds. */
export const ttl = (value, max = 315_360_000) => whole("ttl (in seconds)", value, 1, max);

/** A number above zero; `undefined` is the default. */
export function number(name, value, otherwise, max) {
  if (value === undefined) return otherwise;
  if (typeof value !== "number" || !(value > 0 && value <= max)) {
    throw new RangeError(`${name} must be a number of seconds above 0, at most ${max}`);
  }
  return value;
}

/** True, false or left out. */
export function flag(name, value) {
  if (value !== undefined && typeof value !== "boolean") throw new TypeError(`${name} is ${kind(value)}, and must be true or false`);
  return value;
}

/** What viewers are told. */
export function reason(value) {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string") throw new TypeError(`the reason is ${kind(value)}, and must be a string`);
  const bytes = size(value);
  if (bytes < 1 || bytes > REASON_SIZE_MAX) {
    throw new RangeError(`the reason has ${bytes} bytes, and must have 1 to ${REASON_SIZE_MAX}`);
  }
  return value;
}

/** A text that is there. */
export function text(name, value) {
  if (typeof value !== "string" || value === "") throw new TypeError(`${name} must be a string that is not empty`);
  return value;
}

/** The caller's own idempotency key. */
export function idempotencyKey(value, max = 128) {
  if (value !== undefined && !(typeof value === "string" && /^[!-~]+$/.test(value) && value.length <= max)) {
    throw new TypeError(`idempotencyKey has 1 to ${max} visible ASCII characters, without spaces`);
  }
  return value;
}

/** What is published, as JSON. */
export function json(value) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`${kind(value)} is no JSON value, so it can't be published`);
  const bytes = text.length > JSON_SIZE_MAX / 4 ? size(text) : 0;
  if (bytes > JSON_SIZE_MAX) {
    throw new RangeError(`a publication has at most ${JSON_SIZE_MAX} bytes of JSON, and this one has ${bytes}`);
  }
  return text;
}

/** A share link: the part of the URL behind /s/. */
export function link(value) {
  if (typeof value !== "string" || !/^[A-Za-z0-9._~-]{1,128}$/.test(value)) {
    throw new TypeError("link must be the part of the share URL behind /s/: 1 to 128 of A-Z a-z 0-9 - _ . ~");
  }
  return value;
}

/** A page's id, as webhooks have it. */
export function page(value) {
  if (typeof value !== "string" || !/^[0-9]+[.][0-9]+@.+$/.test(value)) {
    throw new TypeError('page must be the id that webhooks have for a page, as "1.41@hall"');
  }
  return value;
}

/** What a value is, without showing it. */
export function kind(value) {
  if (value === null || value === undefined) return String(value);
  if (value === "") return "empty";
  if (Array.isArray(value)) return "an array";
  return { object: "an object", function: "a function" }[typeof value] ?? `a ${typeof value}`;
}
