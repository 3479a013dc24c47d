/**
 * Type declarations of sharelink.js, the page client of sharelinkd. The manual is
 * docs/page-client.md.
 *
 * Sequences and topics are numbers (a sequence stays below 2^53), epochs are strings (a u64 does
 * not fit a number). Everything named `data` is untrusted and therefore of type `unknown`: check it
 * before use.
 */

export type TrackName = "state" | "messages" | "audio" | "video";

/**
 * - `idle` not connected, because nothing is live and no retry is due within 5 s
 * - `connecting` the connection is being established
 * - `open` connected
 * - `waiting` disconnected; reconnects after a wait
 * - `away` disconnected because the page was left (`pagehide`); reconnects when the page comes back
 * - `closed` by `ShareLink.close()`, permanently
 */
export type ConnectionState = "idle" | "connecting" | "open" | "waiting" | "away" | "closed";

/**
 * - `asking` not answered yet, or waiting for a reconnect or for a retry after a `denied` with
 *   `retry`
 * - `live` confirmed by the relay
 * - `ended` the room ended, or its link was revoked; retried about every 30 s
 * - `denied` refused; not retried, except by `askDenied` or `askAgain()`
 * - `closed` by `unsubscribe()`, permanently
 */
export type SubscriptionStatus = "asking" | "live" | "ended" | "denied" | "closed";

/**
 * - `offered` media is available, but no element was given for it
 * - `starting` the init segment was received, nothing plays yet
 * - `playing`, `stalled`
 * - `blocked` the browser plays nothing, not even muted, before a user gesture: call `unmute()`
 *   from one
 * - `unsupported` this browser has no Media Source Extensions, or cannot play that MIME type: see
 *   `why`. Inform the viewer
 * - `failed` decoding failed; the player is rebuilt with a later group
 * - `idle` nothing was received for 15 s while the room was live, or it ended
 */
export type MediaStatus = "none" | "offered" | "starting" | "playing" | "stalled" | "blocked" | "unsupported" | "failed" | "idle";

export interface ConnectionDetail {
  state: ConnectionState;
  /** The close code, if a connection was lost; 1006 also if the client abandoned it as dead. */
  code?: number;
  /** The close reason; for 1008, a human-readable sentence. */
  reason?: string;
  /** With `waiting`: milliseconds until the next attempt. */
  wait?: number;
  /** With `waiting`: the number of attempts since a subscription last held for 10 s. */
  attempt?: number;
}

export interface SubscribedDetail {
  epoch: string;
  /** Whether the link allows `send()`. */
  pageMessages: boolean;
}

export interface DeniedDetail {
  /** The reason given by the business server or the relay. Untrusted text. */
  reason: string;
  /** Seconds until the client retries by itself; null if it does not. */
  retry: number | null;
}

/**
 * A state or a message. Each message is delivered once, in order, or covered by a `gap`; of states
 * only the newest matters.
 */
export interface ValueDetail {
  sequence: number;
  data: unknown;
}

/** Sequences that this page will not receive. `to` is inclusive. */
export interface GapDetail {
  track: TrackName;
  from: number;
  to: number;
  count: number;
}

export interface EpochDetail {
  /**
   * The business server has restarted its counters: earlier sequences are unrelated to those that
   * follow.
   */
  epoch: string;
}

export interface EndDetail {
  reason: string;
  /** true: the answer to `unsubscribe()` or `close()`. false: the room ended. */
  asked: boolean;
}

export interface UplinkDetail {
  /**
   * Whether the relay is connected to the business server. While it is not, the page stays
   * connected but receives nothing new.
   */
  up: boolean;
}

/** What became of a message. */
export interface SendResult {
  /**
   * `sent`: the business server has it. `passed`: it gives no receipts, and the relay took the
   * message. `unsure`: it may have arrived, and nobody said so; it is not sent again by itself.
   */
  state: "sent" | "passed" | "unsure";
  /** With it, `send()` sends the same message again: where there are receipts, it counts once. */
  id: string;
}

/** A message was not sent: what `send()` rejects with. */
export class NotSent extends Error {
  private constructor();
  /** Why, in the relay's words or the module's. */
  readonly reason: string;
  /** With it, `send()` sends the same message again. */
  readonly id: string;
}

export interface ErrorDetail {
  /**
   * Why the relay refused something that this page sent, for example a `send` above the rate limit.
   */
  reason: string;
}

export interface MediaDetail {
  track: "audio" | "video";
  status: MediaStatus;
  /** The MIME type of the current init segment, as published; "" before the first one. */
  mime: string;
  /** Whether this track has sound, according to its MIME type: a video track may have both. */
  sound: boolean;
  /**
   * With `unsupported`: "mse" if the browser has no Media Source Extensions at all, "type" if it
   * cannot play this MIME type. With `failed`: the browser's error message, for a log.
   */
  why?: "mse" | "type" | (string & {});
}

export interface SoundDetail {
  track: "audio" | "video";
  muted: boolean;
  /**
   * true: the browser only allowed muted playback. Show a control, and call `unmute()` when it is
   * tapped.
   */
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

/**
 * An EventTarget whose events are `CustomEvent`s with a known `detail`. Only a type: the module has
 * no such class.
 */
declare class TypedTarget<Events> extends EventTarget {
  addEventListener<Type extends keyof Events & string>(type: Type, listener: Listener<Events[Type]>, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<Type extends keyof Events & string>(type: Type, listener: Listener<Events[Type]>, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

export interface SubscribeOptions {
  /**
   * Plays the `audio` track. Preferably a `<video>` element: browsers don't autoplay an `<audio>`,
   * not even muted.
   */
  audio?: HTMLMediaElement | null;
  /** Plays the `video` track, with its sound if it has any. */
  video?: HTMLMediaElement | null;
  /** Start muted. Default false: with sound, if the browser allows it. */
  muted?: boolean;
  /**
   * Playback further behind live than this, in seconds, jumps forward. Default 1.5; more if a
   * single chunk is longer.
   */
  lag?: number;
  /** Seconds until a denied link is retried, jittered by a quarter. Default 0: never. */
  askDenied?: number;
}

/** One connection to a relay. It opens with the first subscription and closes with the last one. */
export class ShareLink extends TypedTarget<ShareLinkEvents> {
  /**
   * @param url the relay: `https://relay.example` or a `wss:` URL. By default the relay that served
   *   this module; required if the module was bundled or copied.
   */
  constructor(url?: string | URL);
  /** The WebSocket URL in use. */
  readonly url: string;
  readonly connection: ConnectionState;
  readonly uplink: boolean;
  /** Whether the browser says that there is no network, and nothing came that says otherwise. */
  readonly offline: boolean;
  /** Whether the `author` of a message is this page, now or on an earlier connection. */
  isOwn(author: unknown): boolean;
  /**
   * Subscribes to a share link. Subscriptions share the connection, up to the relay's limit (8 by
   * default).
   * @param link the token, 1 to 128 of `A-Z a-z 0-9 - _ . ~`
   * @throws TypeError if it is not a share link; Error after `close()`
   */
  subscribe(link: string, options?: SubscribeOptions): Subscription;
  /** Ends every subscription and the connection, permanently. */
  close(): void;
}

/**
 * A subscription to one share link. The connection's events are repeated here, so that one target
 * is enough.
 */
export class Subscription extends TypedTarget<SubscriptionEvents> {
  private constructor();
  readonly link: string;
  readonly status: SubscriptionStatus;
  /** null until first confirmed. */
  readonly epoch: string | null;
  /** Whether `send()` would be forwarded now. */
  readonly pageMessages: boolean;
  readonly connection: ConnectionState;
  readonly uplink: boolean;
  /** See `ShareLink.offline`. */
  readonly offline: boolean;
  /** true if no sound is audible: muted, blocked by the browser, or the media has none. */
  readonly muted: boolean;
  /**
   * Plays the tracks in other elements from the next group on; null detaches one, an omitted one
   * stays.
   */
  attach(elements: { audio?: HTMLMediaElement | null; video?: HTMLMediaElement | null }): void;
  /** Call it from a user gesture (tap, click or key). Resolves to whether sound is on. */
  unmute(): Promise<boolean>;
  mute(): void;
  /** See `ShareLink.isOwn`. */
  isOwn(author: unknown): boolean;
  /**
   * Sends a text to the business server, as soon as there is a connection, for at most a minute.
   * @param options.id that of an earlier attempt, to send the same message again
   * @returns what became of it; rejects with `NotSent` if it was refused or could not be sent
   * @throws RangeError if it is longer than 512 bytes of UTF-8; TypeError if it is no string or the
   *   id is none; Error after `unsubscribe()`
   */
  send(data: string, options?: { id?: string }): Promise<SendResult>;
  /** Retries at once if it was denied, has ended or waits for a retry. */
  askAgain(): void;
  /** Ends this subscription, permanently. The relay answers with the `end` event. */
  unsubscribe(): void;
}

export {};
