/**
 * link.js: the link of the studio.
 *
 * Owns: the syntax of its fragment, `#TOPIC/TOKEN`, with the topic percent-encoded. Browsers send a fragment to nobody.
 * Refuses: fragments that the hub didn't make. Pure; tests/hub/studio/ runs it in Node.
 */

const TOPIC = /^[A-Za-z0-9\-_.~:/]{1,64}$/;
const TOKEN = /^slt_[A-Za-z0-9_-]+$/;

/** The topic and the token of a fragment; null if it has none. */
export function parse(fragment) {
  const text = fragment.replace(/^#/, "");
  const at = text.lastIndexOf("/");
  const token = text.slice(at + 1);
  try {
    const topic = decodeURIComponent(text.slice(0, Math.max(at, 0)));
    return TOPIC.test(topic) && TOKEN.test(token) ? { topic, token } : null;
  } catch {
    return null;
  }
}

/** The WebSocket of the hub that has served the page at this address. */
export function socket(address) {
  const url = new URL("studio/ws", address);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
