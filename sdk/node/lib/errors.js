// What a call throws when the hub refuses it, or doesn't answer.
//
// Owns the error's text: which call, what is wrong, how to mend it, and whether it may have taken
// effect. It never has the key. Wrong arguments are TypeError and RangeError, before anything is
// sent (check.js).

const FIELDS = ["status", "code", "detail", "retryAfter", "requestId", "idempotencyKey", "isUnknown", "attempts", "problem"];

export class HubError extends Error {
  constructor(fields, cause) {
    super(text(fields), cause === undefined ? undefined : { cause });
    for (const name of FIELDS) this[name] = fields[name] ?? null;
    this.isUnknown = fields.isUnknown === true;
  }

  get name() {
    return "HubError";
  }
}

function text({ call, status, code, detail, attempts, isUnknown, idempotencyKey }) {
  const what = [status, code].filter((part) => part !== null && part !== undefined).join(" ");
  const tries = attempts > 1 ? ` (${attempts} attempts)` : "";
  return `${call}: ${what}: ${detail}${tries}${isUnknown ? unknown(idempotencyKey) : ""}`;
}

function unknown(key) {
  const again = key
    ? `the same call with the idempotency key ${JSON.stringify(key)}, within 5 minutes, does it once`
    : "call again, which does no harm where it did";
  return `. It is not known whether it took effect: ${again}`;
}
