// Types of @sharelinkd/server. Answers have the names of docs/api.md.

/** Which hub, as whom, and for how long a call is tried. */
export interface HubOptions {
  /** The API's URL, as "https://hub.example:8090". */
  url: string | { toString(): string; readonly href: string };
  /** An API key, as `sharelink-hub key` prints it. */
  key: string;
  /** Seconds for one attempt; 15 if left out. `publish` and `batch` get at least 40. */
  timeout?: number;
  /** Seconds for a call with all its attempts; 60 if left out, at most 240. */
  deadline?: number;
  /** Attempts after the first: 0 to 20; 4 if left out. */
  retries?: number;
}

/** A hub's API. Wrong arguments throw TypeError or RangeError, and nothing is sent. */
export class Hub {
  constructor(options: HubOptions);
  readonly url: string;
  /** A topic; nothing is sent. Its name has 1 to 64 of the characters A-Z a-z 0-9 - _ . ~ : / */
  topic(name: string): Topic;
  /** Lists topics by name. */
  topics(options?: { below?: string; cursor?: string | null; limit?: number }): Promise<Topics>;
  /** One message or one state to at most 100 topics: a result for each, in the same order. */
  publish(request: Publish): Promise<Result[]>;
  /**
   * At most 1000 operations: a result for each, in the same order. Look at each status. Messages
   * and states without a key of their own get one of `idempotencyKey` (at most 124 characters;
   * random if left out) and their number.
   */
  batch(operations: readonly Operation[], options?: { idempotencyKey?: string }): Promise<Result[]>;
  /** Revokes a link or a token. */
  revoke(what: Revoke): Promise<Revoked>;
  /** Closes one page, whose id webhooks have. */
  kick(page: string, reason?: string | null): Promise<void>;
  /** The relays of this hub, and its engine. */
  fleet(): Promise<Fleet>;
  /** Whether the hub works. */
  health(): Promise<{ status: "ok" }>;
}

/** A topic of a hub, from `hub.topic(name)`. */
export class Topic {
  private constructor();
  readonly name: string;
  /**
   * Publishes a message that the ready-made share page shows. `author` is that of the event
   * `page.message` from which it is: the page marks it as its own.
   */
  say(text: string, options?: { from?: string; avatar?: string; author?: string | undefined } & MessageOptions): Promise<Published>;
  /** Publishes a message: any JSON value. */
  message(value: unknown, options?: MessageOptions): Promise<Published>;
  /** Lists the messages that are kept, oldest first. */
  messages(options?: { since?: number; limit?: number }): Promise<Messages>;
  /** Takes a message down. Null if the topic has ended: then nobody is told. */
  takeDown(sequence: number): Promise<Published | null>;
  /**
   * Sets the state, as a whole. With `ifMatch`, the sequence of the state that was read (0: none
   * yet), it throws `state_changed` if another one was set in between.
   */
  setState(value: unknown, options?: { ifMatch?: number; idempotencyKey?: string }): Promise<Published>;
  /** The newest state; null if there is none. */
  state(): Promise<State | null>;
  /**
   * Changes fields of the state and keeps the others; null removes one. Or a function makes the
   * new state of the old one (null: none yet). Read and set again where others set it in between.
   */
  updateState(change: Record<string, unknown>): Promise<Published>;
  updateState<T = any>(change: (old: T | null) => unknown): Promise<Published>;
  /** The topic's history, state and audience. */
  info(): Promise<TopicInfo>;
  /** Ends the topic; its pages are told the reason. */
  end(reason?: string | null): Promise<void>;
  /** Opens an ended topic again. */
  open(): Promise<void>;
  /** Makes a share link. It is a secret of those who may watch: don't log it. */
  link(options?: LinkOptions): Promise<Link>;
  /** Makes a token for an encoder that sends picture and sound to this topic. `ttl`: seconds. */
  ingestToken(options?: { ttl?: number }): Promise<Token>;
}

/** What a call throws when the hub refuses it, or doesn't answer. */
export class HubError extends Error {
  private constructor();
  /** The answer's status; null if there was no answer. */
  readonly status: number | null;
  /**
   * The API's word for it (docs/api.md, "Errors"), or `unreachable`, `connection_lost`, `timeout`,
   * `tls`, `not_the_hub`.
   */
  readonly code: string;
  /** What is wrong, and how to mend it, for people. */
  readonly detail: string;
  /** Seconds after which to come back, if the answer said so. */
  readonly retryAfter: number | null;
  /** `X-Request-Id` of the answer, if a proxy set it. */
  readonly requestId: string | null;
  /** The key under which it was sent; the same call with it does it once, within 5 minutes. */
  readonly idempotencyKey: string | null;
  /** Whether it may have taken effect. */
  readonly isUnknown: boolean;
  readonly attempts: number;
  /** The problem document, if the hub sent one. */
  readonly problem: Problem | null;
}

export interface MessageOptions {
  /** Your own key for this publication, 1 to 128 visible ASCII characters; random if left out. */
  idempotencyKey?: string;
  /** Asks that a replica of the engine has it; the answer's `durable` says whether it has. */
  durable?: boolean;
}

export interface LinkOptions {
  /** Seconds; left out, the configuration says. */
  ttl?: number;
  /** Whether a relay asks once for all pages with the link; true if left out. */
  shared?: boolean;
  /** Whether pages may send messages. */
  pageMessages?: boolean;
  /** The messages that a late page gets. */
  replay?: number;
}

export interface Published {
  /** Changes when a topic's sequences begin anew. */
  epoch: string;
  sequence: number;
  /** It had been published before, under the same idempotency key. */
  repeated?: true;
  durable?: boolean;
}

export interface Messages {
  epoch: string;
  messages: { sequence: number; data: any }[];
  /** The `since` of the next list. */
  next: number;
}

export interface State {
  epoch: string;
  sequence: number;
  data: any;
}

export interface Topics {
  topics: { topic: string; ended: boolean }[];
  /** The `cursor` of the next list; null at the end. */
  cursor: string | null;
}

export interface TopicInfo {
  topic: string;
  epoch: string;
  /** The reason, if it has ended. */
  ended: string | null;
  /** Those that are kept, from `first` up to and without `next`. */
  messages: { first: number; next: number };
  live: { audio: boolean; video: boolean };
  state: { sequence: number; data: any } | null;
  audience: { pages: number; relays: { relay: string; pages: number }[] };
}

export type Publish =
  | { topics: readonly string[]; message: unknown; state?: undefined; idempotencyKey?: string }
  | { topics: readonly string[]; state: unknown; message?: undefined; idempotencyKey?: string };

export type Operation =
  | { op: "message"; topic: string; data: unknown; idempotency_key?: string }
  | { op: "state"; topic: string; data: unknown; idempotency_key?: string; if_match?: number }
  | { op: "remove"; topic: string; sequence: number }
  | { op: "end"; topic: string; reason?: string }
  | { op: "open"; topic: string };

export interface Result {
  /** Of `publish` alone. */
  topic?: string;
  /** As the operation's own route would answer: 200, 204, or what is wrong. */
  status: number;
  epoch?: string;
  sequence?: number;
  repeated?: true;
  problem?: Problem;
}

export type Revoke =
  | { link: string; token?: undefined; reason?: string; ttl?: number }
  | { token: string; link?: undefined; reason?: string; ttl?: number };

export interface Revoked {
  /** How long it is denied, in seconds. */
  ttl_s: number;
}

export interface Link {
  /** The secret part. */
  link: string;
  /** The share page; null if the configuration doesn't say where the pages are. */
  url: string | null;
  /** Seconds since 1970; null: never. */
  end: number | null;
}

export interface Token {
  token: string;
  /** Seconds since 1970. */
  end: number;
}

export interface Fleet {
  relays: { name: string; connection: number; up_s: number; pages: number; topics: number }[];
  topics: number;
  engine: { kind: string; up: boolean };
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  /** With `state_changed`, the newest state's sequence. */
  sequence?: number;
  /** With `topic_ended`, what viewers were told. */
  reason?: string;
}

export namespace webhooks {
  /**
   * Checks a call of the hub, and returns it. Throws WebhookError if it isn't the hub's: answer
   * 401. `body`: the bytes as they came. Several secrets: any of them may have signed it.
   */
  function verify(
    secrets: string | readonly string[],
    headers: Headers,
    body: Uint8Array | string,
    options?: { tolerance?: number; now?: number },
  ): Call;
  /** The answer to `subscribe` that lets the viewer in; send it as JSON. `ttl`: seconds. */
  function accept(grant: Grant): Accept;
  /** The answer to `subscribe` that shows the viewer the reason. */
  function deny(reason?: string): Deny;

  class WebhookError extends Error {
    private constructor();
    readonly status: 401;
  }

  type Headers =
    | { readonly [name: string]: string | string[] | undefined }
    | { get(name: string): string | null | undefined };

  interface Grant extends LinkOptions {
    topic: string;
  }
  interface Accept {
    accept: true;
    topic: string;
    shared?: boolean;
    ttl_s?: number;
    replay?: number;
    page_messages?: boolean;
  }
  interface Deny {
    accept: false;
    reason: string;
  }

  type Call = Subscribe | Events;
  interface Subscribe {
    type: "subscribe";
    timestamp: string;
    data: {
      /** The secret part of the share link. */
      link: string;
      /** Null where the hub asks about the link as a whole. */
      page: { address: string; origin: string } | null;
    };
  }
  interface Events {
    type: "events";
    timestamp: string;
    data: {
      events: Event[];
      /** How many were lost since the last batch that you took. */
      dropped?: number;
    };
  }
  /** Skip types that you don't know, and ids that you have seen. */
  type Event = { id: string; topic: string } & (
    | {
        type: "page.message";
        page: string;
        data: string;
        /** The page as an author: publish it with the message, and the page marks its own. */
        author?: string;
        /** The page's own id of the message, the same where it sends it again. */
        message_id?: string;
      }
    | { type: "topic.occupied" }
    | { type: "topic.vacated" }
    | { type: "topic.audience"; pages: number }
    | { type: "stream.started" | "stream.ended"; track: "audio" | "video" }
  );
}
