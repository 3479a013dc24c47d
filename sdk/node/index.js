// Everything that callers use; index.d.ts has the types and says what each does.

export { HubError } from "./lib/errors.js";
export { Hub, Topic } from "./lib/hub.js";
export * as webhooks from "./lib/webhooks.js";
