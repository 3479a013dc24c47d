/**
 * business.mjs: a business server for the browser tests, written from docs/protocol.md alone ("Uplink"), without a
 * line of the product.
 *
 * Owns the postcard encoding of the frames that it needs, the handshake with an empty secret, receipts for pages' messages
 * where a test wants them, and rooms that are held in memory from their first message on, so that they survive the relay.
 * Knows nothing of browsers. Simplified for tests: it keeps everything and renews nothing.
 */

import { createHash, createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

export const [STATE, MESSAGES, AUDIO, VIDEO] = [0, 1, 2, 3];
const EXTENDED = Buffer.from("+ext");
const [WHOLE, INIT, START, CONTINUE] = [0, 1, 2, 3];
export const part = {
  whole: [WHOLE], start: [START], continue: [CONTINUE],
  init: (mime) => [INIT, ...string(mime)],
};

export class Business {
  #links = new Map(); // link -> a room, or the reason of its denial
  #connections = new Set();
  #server;
  #topics = new Map(); // topic -> a room
  #taken = new Set(); // ids of messages
  #isAway = false;
  subscribes = []; // every Subscribe received
  /** Pages' messages in the order in which they came: { text, id, isNew }. */
  heard = [];
  /** Whether it gives receipts to relays that connect from now on. */
  givesReceipts;
  /** Whether it keeps its receipts back, though it takes the messages. */
  isMute = false;

  static async listen({ receipts = false } = {}) {
    const business = new Business();
    business.givesReceipts = receipts;
    business.#server = createServer((socket) => business.#serve(socket)).listen(0, "127.0.0.1");
    await once(business.#server, "listening");
    return business;
  }

  get port() { return this.#server.address().port; }

  room(link, settings = {}) {
    const room = new Room(this.#connections, { topic: this.#links.size + 1, ...settings });
    this.#links.set(link, room);
    this.#topics.set(room.topic, room);
    return room;
  }

  deny(link, reason) {
    this.#links.set(link, reason);
  }

  /** Closes its relays' connections, and each further one until `comeBack`. */
  goAway() {
    this.#isAway = true;
    for (const { socket } of this.#connections) socket.destroy();
  }

  comeBack() { this.#isAway = false; }

  async close() {
    for (const { socket } of this.#connections) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  #serve(socket) {
    if (this.#isAway) return void socket.destroy();
    const connection = { socket, topics: new Set(), nonce: null, send: (...bytes) => socket.write(frame(bytes)) };
    this.#connections.add(connection);
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => this.#connections.delete(connection));
    const challenge = this.givesReceipts ? Buffer.concat([randomBytes(12), EXTENDED]) : randomBytes(16);
    connection.send(0, varint(1), challenge);
    let held = Buffer.alloc(0);
    socket.on("data", (data) => {
      held = Buffer.concat([held, data]);
      while (held.length >= 4 && held.length >= 4 + held.readUInt32LE()) {
        const size = held.readUInt32LE();
        this.#receive(connection, challenge, new Reader(held.subarray(4, 4 + size)));
        held = held.subarray(4 + size);
      }
    });
  }

  #receive(connection, challenge, reader) {
    const kind = reader.varint();
    if (kind === 0) { // Hello
      reader.varint();
      reader.string();
      const [nonce, proof] = [reader.take(16), reader.take(32)];
      if (!proof.equals(hmac("sharelinkd relay", challenge, nonce))) return connection.socket.destroy();
      connection.nonce = nonce;
      connection.send(1, varint(1), hmac("sharelinkd business", nonce, challenge));
      if (EXTENDED.equals(challenge.subarray(12)) && EXTENDED.equals(nonce.subarray(12))) connection.send(10, string("receipts"));
    } else if (kind === 1) this.#subscribe(connection, reader);
    else if (kind === 2) connection.topics.delete(reader.varint()); // Unsubscribe
    else if (kind === 4) { // PageMessage
      const [topic, page] = [reader.varint(), reader.varint()];
      this.#take(topic, { text: reader.string(), id: null, isNew: true, author: author(challenge, connection.nonce, page) });
    } else if (kind === 5) connection.send(8, varint(reader.varint())); // Ping
    else if (kind === 8) { // Send
      const [topic, page, id] = [reader.varint(), reader.varint(), reader.take(16)];
      const name = id.toString("hex");
      this.#take(topic, { text: reader.string(), id: name, isNew: !this.#taken.has(name), author: author(challenge, connection.nonce, page) });
      this.#taken.add(name);
      if (!this.isMute) connection.send(12, varint(page), id);
    }
  }

  #take(topic, message) {
    this.heard.push(message);
    if (message.isNew) this.#topics.get(topic)?.heard?.(message);
  }

  #subscribe(connection, reader) {
    const [request, link] = [reader.varint(), reader.string()];
    const since = reader.byte() ? { epoch: reader.varint(), next: [1, 2, 3, 4].map(() => reader.varint()) } : null;
    this.subscribes.push({ link, since });
    const room = this.#links.get(link);
    if (!(room instanceof Room)) return connection.send(3, varint(request), string(room ?? "no such link"));
    const { topic, epoch, replay } = room;
    // Accept with a grant: shared, ttl_s, page_messages, replay.
    connection.send(2, varint(request), varint(topic), varint(epoch), [1], varint(300), [room.listens ? 1 : 0], varint(replay));
    connection.topics.add(topic);
    room.replayTo(connection, since);
  }
}

class Room {
  /** Whether its pages may send messages. */
  listens = false;
  /** Called with each of these; one that is repeated is not among them. */
  heard = null;
  #connections;
  #next = [1, 1, 1, 1];
  #state = null;
  #messages = [];
  #init = [null, null, null, null];
  #group = [[], [], [], []];

  constructor(connections, { topic, epoch = 1, replay = 200, title = "A room" }) {
    this.#connections = connections;
    Object.assign(this, { topic, epoch, replay });
    this.publish(STATE, part.whole, JSON.stringify({ title }));
  }

  say(text) {
    this.tell({ from: "Tester", text, at: Date.now() });
  }

  /** A message without changes. */
  tell(data) {
    this.publish(MESSAGES, part.whole, JSON.stringify(data));
  }

  /** Drops this many messages before any relay gets them. */
  skip(count) {
    this.#next[MESSAGES] += count;
  }

  publish(track, kind, data) {
    const bytes = Buffer.from(data);
    const sequence = this.#next[track]++;
    const body = [4, varint(this.topic), [track], varint(sequence), kind, varint(bytes.length), bytes];
    if (track === STATE) this.#state = body;
    else if (track === MESSAGES) this.#messages.push({ sequence, body });
    else if (kind[0] === INIT) [this.#init[track], this.#group[track]] = [body, []];
    else this.#group[track] = kind[0] === START ? [body] : [...this.#group[track], body];
    for (const { topics, send } of this.#connections) if (topics.has(this.topic)) send(...body);
  }

  /** The replay for a late page, or the messages from the relay's position on. */
  replayTo({ send }, since) {
    const wanted = since?.epoch === this.epoch ? since.next[MESSAGES] : 0;
    const known = wanted > 0 && wanted <= this.#next[MESSAGES];
    const messages = known ? this.#messages.filter(({ sequence }) => sequence >= wanted) : this.#messages.slice(-this.replay);
    const media = [AUDIO, VIDEO].flatMap((track) => (this.#init[track] ? [this.#init[track], ...this.#group[track]] : []));
    for (const body of [this.#state, ...messages.map((message) => message.body), ...media]) send(...body);
  }
}

// --------------------------------------------------------------------------------- postcard

function frame(pieces) {
  const body = Buffer.concat(pieces.map((piece) => Buffer.from(typeof piece === "number" ? [piece] : piece)));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(body.length);
  return Buffer.concat([size, body]);
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

function string(text) {
  const bytes = Buffer.from(text);
  return [...varint(bytes.length), ...bytes];
}

/** What both ends call a page as the author of its messages. */
function author(challenge, hello, page) {
  const number = Buffer.alloc(4);
  number.writeUInt32LE(page);
  return createHash("sha256").update("sharelinkd author").update(challenge).update(hello).update(number).digest("hex").slice(0, 16);
}

const hmac = (...pieces) => createHmac("sha256", "").update(Buffer.concat(pieces.map((piece) => Buffer.from(piece)))).digest();

class Reader {
  #bytes;
  #at = 0;

  constructor(bytes) { this.#bytes = bytes; }

  byte() { return this.take(1)[0]; }
  string() { return this.take(this.varint()).toString(); }

  varint() {
    let [value, scale, byte] = [0, 1, 128];
    for (; byte > 127; scale *= 128) {
      byte = this.byte();
      value += (byte & 127) * scale;
    }
    return value;
  }

  take(size) {
    if (this.#at + size > this.#bytes.length) throw new Error("the relay sent a frame that is too short");
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }
}
