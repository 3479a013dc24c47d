// Each method of the Node library, as a strict compiler sees it; run against a hub afterwards.

import { Hub, HubError, webhooks, type Operation, type Published, type Result, type TopicInfo } from "@sharelinkd/server";
import type { IncomingMessage } from "node:http";

const hub = new Hub({ url: new URL(process.env.GATE_URL!), key: process.env.HUB_KEY!, timeout: 15, deadline: 60, retries: 4 });
const room = hub.topic("example");

const said: Published = await room.say("Hello.", { from: "Ann", avatar: "https://a.example/a.png" });
const sequence: number = said.sequence;
await room.message({ kind: "notice" }, { idempotencyKey: `order-${Math.random()}`, durable: true });
for (const { sequence, data } of (await room.messages({ since: 1, limit: 10 })).messages) console.log(sequence, data);
const removed: Published | null = await room.takeDown(sequence);
await room.setState({ title: "Room", count: 1 }, { ifMatch: 0, idempotencyKey: "state-1" });
await room.updateState({ title: "Another" });
await room.updateState<{ count: number }>((old) => ({ ...old, count: (old?.count ?? 0) + 1 }));
const state = await room.state();
if (state?.data.count !== 2 || state.data.title !== "Another") throw new Error(JSON.stringify(state));
const info: TopicInfo = await room.info();
await room.end("See you.");
await room.open();
const { link, url, end } = await room.link({ ttl: 60, shared: true, pageMessages: false, replay: 5 });
const { token } = await room.ingestToken({ ttl: 60 });
const operations: Operation[] = [{ op: "message", topic: "example", data: 1 }, { op: "end", topic: "example" }, { op: "open", topic: "example" }];
const results: Result[] = [
  ...(await hub.batch(operations, { idempotencyKey: "batch-1" })),
  ...(await hub.publish({ topics: ["example"], message: { text: "all" } })),
  ...(await hub.publish({ topics: ["example"], state: null, idempotencyKey: "all-1" })),
];
const refused = results.filter(({ status }) => status >= 300).map(({ problem }) => problem?.detail);
if (refused.length) throw new Error(refused.join());
const seconds: number = (await hub.revoke({ token, reason: "over" })).ttl_s + (await hub.revoke({ link, ttl: 60 })).ttl_s;
const { topics, cursor } = await hub.topics({ below: "example", cursor: null, limit: 5 });
const { relays } = await hub.fleet();
await hub.kick(`${relays[0].connection}.1@${relays[0].name}`, "Please be kind.");
const { status } = await hub.health();
console.log(removed?.sequence, info.audience.pages, url, end, seconds, topics.length, cursor, status, hub.url, room.name);
try {
  await hub.topic("nothing-here").info();
  throw new Error("there is such a topic");
} catch (error) {
  if (!(error instanceof HubError)) throw error;
  const { code, retryAfter, isUnknown, idempotencyKey, problem }: HubError = error;
  if (code !== "not_found" || problem?.status !== 404) throw error;
  console.log(error.status, error.detail, retryAfter, isUnknown, idempotencyKey, error.attempts, error.requestId);
}

export function receive(request: IncomingMessage, body: Buffer): webhooks.Accept | webhooks.Deny | undefined {
  const call = webhooks.verify([process.env.NEW_SECRET!, process.env.OLD_SECRET!], request.headers, body, { tolerance: 300 });
  if (call.type === "subscribe") {
    const address: string | undefined = call.data.page?.address;
    return call.data.link === "a-link" ? webhooks.accept({ topic: "room-7", ttl: 60, pageMessages: true }) : webhooks.deny(`not ${address}`);
  }
  for (const event of call.data.events) {
    if (event.type !== "page.message") continue;
    const id: string = event.message_id ?? event.id;
    console.log(id, event.page, event.data.length);
    void room.say(event.data, { from: "A viewer", author: event.author });
  }
  return undefined;
}

export function wrong(): void {
  // @ts-expect-error A misspelt option.
  void room.say("x", { form: "Ann" });
  // @ts-expect-error Neither message nor state.
  void hub.publish({ topics: ["a"] });
  // @ts-expect-error Both.
  void hub.revoke({ link: "a", token: "b" });
  // @ts-expect-error A body that was parsed.
  webhooks.verify("whsec_", {}, { type: "events" });
  // @ts-expect-error No key.
  new Hub({ url: "http://h" });
  // @ts-expect-error No such operation.
  void hub.batch([{ op: "say", topic: "a", data: 1 }]);
}
