/**
 * Type declarations of sharelink.js, the page client of sharelinkd. The manual is docs/page-client.md.
 *
 * Sequences and topics are numbers (a sequence stays below 2^53), epochs are strings (a u64 does not fit a number).
 * Whatever is called `data` came from outside and is of type `unknown` for that reason: check it before use.
 */

export type TrackName = "state" | "messages" | "audio" | "video";

/**
 * - `idle` nothing is live, nothing is to be asked for within 5 s, so there is no connection
 * - `connecting` a connection is being made
 * - `open` connected
 * - `waiting` lost, and to be made again after a while
 * - `away` let go because the page was left (`pagehide`); it comes back with the page
 * - `closed` by `ShareLink.close()`, for good
 */
export type ConnectionState = "idle" | "connecting" | "open" | "waiting" | "away" | "closed";

/**
 * - `asking` not answered yet, or to be asked again after a reconnect or a `denied` with `retry`
 * - `live` confirmed by the relay
 * - `ended` the room ended, or its link was revoked; it is asked for again every 30 s or so
 * - `denied` refused; not asked for again unless `askDenied` or `askAgain()` says so
 * - `closed` by `unsubscribe()`, for good
 */
export type SubscriptionStatus = "asking" | "live" | "ended" | "denied" | "closed";

/**
 * - `offered` it runs, but no element was given for it
 * - `starting` the init segment is here, nothing plays yet
 * - `playing`, `stalled`
 * - `blocked` the browser plays nothing, not even muted, before a gesture: call `unmute()` from one
 * - `unsupported` this browser has no Media Source Extensions, or cannot play that MIME type: see `why`. Tell the viewer
 * - `failed` it could not be decoded; the player is rebuilt with a later group
 * - `idle` nothing came for 15 s, or the room ended
 */
export type MediaStatus = "none" | "offered" | "starting" | "playing" | "stalled" | "blocked" | "unsupported" | "failed" | "idle";

export interface ConnectionDetail {
  state: ConnectionState;
  /** The close code, where a connection was lost: 1006 also where the client itself gave it up as dead. */
  code?: number;
  /** The close reason, for 1008 a sentence that a person can read. */
  reason?: string;
  /** With `waiting`: milliseconds until the next attempt. */
  wait?: number;
  /** With `waiting`: attempts since a subscription last held for 10 s. */
  attempt?: number;
}

export interface SubscribedDetail {
  epoch: string;
  /** Whether `send()` is allowed by the link. */
  pageMessages: boolean;
}

export interface DeniedDetail {
  /** What the business server, or the relay, gave as the reason. Untrusted text. */
  reason: string;
  /** Seconds until the client asks again by itself; null: it does not. */
  retry: number | null;
}

/** A state or a message. Each message is seen once, in order, or covered by a `gap`; of states only the newest counts. */
export interface ValueDetail {
  sequence: number;
  data: unknown;
}

/** Sequences that this page will not see. `to` is inclusive. */
export interface GapDetail {
  track: TrackName;
  from: number;
  to: number;
  count: number;
}

export interface EpochDetail {
  /** The business server's counters began anew: sequences seen before say nothing about those that follow. */
  epoch: string;
}

export interface EndDetail {
  reason: string;
  /** true: the answer to `unsubscribe()` or `close()`. false: the room ended. */
  asked: boolean;
}

export interface UplinkDetail {
  /** Whether the relay reaches the business server. While it does not, the page stays and nothing new comes. */
  up: boolean;
}

export interface ErrorDetail {
  /** What the relay refused of what this page sent, for example a `send` that came too fast. */
  reason: string;
}

export interface MediaDetail {
  track: "audio" | "video";
  status: MediaStatus;
  /** Of the running init segment, as it was published; "" before the first one. */
  mime: string;
  /** Whether the MIME type says that there is sound in this track: a video track may carry both. */
  sound: boolean;
  /**
   * With `unsupported`: "mse" where the browser has no Media Source Extensions at all, "type" where it cannot play this
   * MIME type. With `failed`: what the browser said, for a log.
   */
  why?: "mse" | "type" | (string & {});
}

export interface SoundDetail {
  track: "audio" | "video";
  muted: boolean;
  /** true: the browser insisted on starting muted. Show a control, and call `unmute()` when it is tapped. */
  refused: boolean;
}

export interface ShareLinkEvents {
  connection: ConnectionDetail;
  uplink: UplinkDetail;
  error: ErrorDetail;
}

export interface SubscriptionEvents extends ShareLinkEvents {
  subscribed: SubscribedDetail;
  denied: DeniedDetail;
  state: ValueDetail;
  message: ValueDetail;
  gap: GapDetail;
  epoch: EpochDetail;
  end: EndDetail;
  media: MediaDetail;
  sound: SoundDetail;
}

type Listener<Detail> = ((event: CustomEvent<Detail>) => void) | { handleEvent(event: CustomEvent<Detail>): void } | null;

/** An EventTarget whose events are `CustomEvent`s with a known `detail`. A type alone: the module has no such class. */
declare class TypedTarget<Events> extends EventTarget {
  addEventListener<Type extends keyof Events & string>(type: Type, listener: Listener<Events[Type]>, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<Type extends keyof Events & string>(type: Type, listener: Listener<Events[Type]>, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

export interface SubscribeOptions {
  /** Plays the `audio` track. Best a `<video>` element: browsers refuse to start an `<audio>`, even a muted one. */
  audio?: HTMLMediaElement | null;
  /** Plays the `video` track, with its sound where it has some. */
  video?: HTMLMediaElement | null;
  /** Start without trying for sound. Default false: sound where the browser allows it. */
  muted?: boolean;
  /** Seconds behind live from which playback jumps forward. Default 1.5; longer where one chunk alone is longer. */
  lag?: number;
  /** Seconds (give or take a quarter) until a denied link is asked for again. Default 0: never. */
  askDenied?: number;
}

/** One connection to a relay. It opens with the first subscription and closes with the last one. */
export class ShareLink extends TypedTarget<ShareLinkEvents> {
  /**
   * @param url the relay: `https://relay.example` or a `wss:` address. By default the relay that served this module;
   *   give it where the module was bundled or copied.
   */
  constructor(url?: string | URL);
  /** The WebSocket address in use. */
  readonly url: string;
  readonly connection: ConnectionState;
  readonly uplink: boolean;
  /**
   * Asks for what a share link shows. Several share the one connection, up to what the relay allows (8 as shipped).
   * @param link the token, 1 to 128 of `A-Z a-z 0-9 - _ . ~`
   * @throws TypeError where that is no share link; Error after `close()`
   */
  subscribe(link: string, options?: SubscribeOptions): Subscription;
  /** Ends every subscription and the connection, for good. */
  close(): void;
}

/** What one share link shows. The connection's own events are repeated here, so that one target is enough. */
export class Subscription extends TypedTarget<SubscriptionEvents> {
  private constructor();
  readonly link: string;
  readonly status: SubscriptionStatus;
  /** null until it was confirmed once. */
  readonly epoch: string | null;
  /** Whether `send()` would be forwarded now. */
  readonly pageMessages: boolean;
  readonly connection: ConnectionState;
  readonly uplink: boolean;
  /** true where no sound is heard: muted, refused by the browser, or none there. */
  readonly muted: boolean;
  /** Plays the tracks into other elements from the next group on; null takes one away, what is left out stays. */
  attach(elements: { audio?: HTMLMediaElement | null; video?: HTMLMediaElement | null }): void;
  /** Call it from a real tap, click or key. Resolves to whether sound is on. */
  unmute(): Promise<boolean>;
  mute(): void;
  /**
   * Sends a text to the business server.
   * @returns false where it could not be sent now (not live, or the link does not allow it); nothing is kept for later
   * @throws RangeError where it is longer than 512 bytes of UTF-8
   */
  send(data: string): boolean;
  /** Asks at once for what was denied, ended or is to be asked for later. */
  askAgain(): void;
  /** Ends this subscription, for good. The relay's answer is the `end` event. */
  unsubscribe(): void;
}

export {};
