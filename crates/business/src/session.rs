//! One relay's connection: handshake, frames, liveness. Bytes in and out, no socket.
//!
//! Owns the deframer, the queue of frames to be written (except publications, which the relay's
//! cursors find), and the timeouts. Refuses a wrong proof, a wrong version, an invalid frame, and a
//! relay that is silent or doesn't read its answers. `business.rs` interprets the frames.

use core::time::Duration;
use std::{collections::VecDeque, fmt, sync::Arc};

use wire::{
    page::MessageId,
    uplink::{
        AWAY, Author, Deframer, LENGTH_SIZE, PREFIX_SIZE_MAX, RECEIPTS, Since, ToBusiness, ToRelay, VERSION, author,
        business_proof, decode_any_to_business, decode_to_business, encode, features, is_marked, proofs_equal,
        relay_proof,
    },
};

use super::{Limits, Times};

/// A relay that sends no complete frame for this time is dead, even if it reads.
const FRAMELESS_MAX: Duration = Duration::from_secs(300);
/// The deframer's space for publication data. Relays don't publish, so it needs none.
const DATA_SIZE_MAX: usize = 0;

/// The memory of a queued frame besides its bytes.
const FRAME_SIZE: usize = 32;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer or the caller closed it, or the socket failed; why.
    Closed(String),
    /// The handshake took longer than this.
    NoHandshake(Duration),
    /// A frame other than `Hello` in the handshake, or a second `Hello`.
    NoHello,
    /// The relay has this version of the protocol.
    Version(u16),
    /// The proof is wrong: the relay has another secret.
    Proof,
    /// The maximum number of relays is connected.
    TooManyRelays,
    /// It had not authenticated yet, and another connection needed its place.
    GaveWay,
    /// A frame is invalid.
    Frame(String),
    /// No sign of life for this time.
    Silent(Duration),
    /// The relay doesn't read: more than this many bytes of answers are queued for it.
    Unread(usize),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(why) => f.write_str(why),
            Self::NoHandshake(limit) => write!(f, "no handshake within {} s", limit.as_secs_f64()),
            Self::NoHello => f.write_str("unexpected frame in the handshake"),
            Self::Version(version) => write!(f, "it has protocol version {version}, this server {VERSION}"),
            Self::Proof => f.write_str("wrong proof: the secrets differ"),
            Self::TooManyRelays => f.write_str("too many relays are connected"),
            Self::GaveWay => f.write_str("too many connections have not authenticated"),
            Self::Frame(what) => f.write_str(what),
            Self::Silent(limit) => write!(f, "no sign of life for {} s", limit.as_secs_f64()),
            Self::Unread(size) => write!(f, "it reads too slowly: more than {size} bytes of answers are queued"),
        }
    }
}

/// A frame from a relay, except `Ping`, which is answered here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// It has authenticated; its name, and the place of its secret in the list.
    Hello(String, usize),
    Subscribe {
        request: u32,
        link: String,
        since: Option<Since>,
        address: String,
        origin: String,
    },
    Unsubscribe {
        topic: u32,
    },
    Audience {
        topic: u32,
        pages: u32,
    },
    PageMessage {
        topic: u32,
        page: u32,
        data: String,
        id: Option<MessageId>,
    },
    Pong {
        nonce: u32,
    },
}

/// What a relay knows besides version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) away: bool,
    pub(crate) receipts: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    times: Times,
    out_size_max: usize,
    deframer: Deframer,
    challenge: [u8; 16],
    hello: [u8; 16],
    /// Whether this side gives receipts.
    has_receipts: bool,
    is_up: bool,
    is_full: bool,
    /// Whether both sides know extensions, and those that the relay has named.
    knows_extensions: bool,
    features: Features,
    opened: Duration,
    /// The times of the last sign of life, and of the last frame.
    heard: Duration,
    framed: Duration,
    pinged: Option<Duration>,
    ping: u32,
    out: VecDeque<Arc<[u8]>>,
    out_size: usize,
}

impl Session {
    /// A new connection, with the challenge queued. `challenge` must be random and new; with the
    /// mark of [`marked`](wire::uplink::marked) it offers extensions.
    pub(crate) fn new(now: Duration, challenge: [u8; 16], times: Times, limits: &Limits) -> Self {
        let mut session = Self {
            times,
            out_size_max: limits.answers_size_max,
            deframer: Deframer::new(DATA_SIZE_MAX),
            challenge,
            hello: [0; 16],
            has_receipts: limits.receipts_max > 0,
            is_up: false,
            is_full: false,
            knows_extensions: false,
            features: Features::default(),
            opened: now,
            heard: now,
            framed: now,
            pinged: None,
            ping: 0,
            out: VecDeque::new(),
            out_size: 0,
        };
        session.push(&ToRelay::Challenge { version: VERSION, nonce: challenge });
        session
    }

    /// The free space to read into.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.deframer.space()
    }

    /// Reports that `size` bytes were read into [`space`](Self::space).
    pub(crate) fn filled(&mut self, size: usize) {
        self.deframer.filled(size);
    }

    /// The next complete frame. A relay with any of these secrets authenticates.
    pub(crate) fn next(&mut self, now: Duration, secrets: &[Vec<u8>]) -> Result<Option<Input>, Ended> {
        loop {
            let body = self.deframer.next_body().map_err(|error| Ended::Frame(error.to_string()))?;
            let Some(body) = body else { return Ok(None) };
            let frame = if self.knows_extensions { decode_any_to_business(body) } else { decode_to_business(body) };
            let frame =
                frame.map_err(|(byte, fault)| Ended::Frame(format!("invalid frame at byte {byte}: {fault:?}")))?;
            (self.heard, self.framed) = (now, now);
            let input = match frame {
                ToBusiness::Hello { version, relay, nonce, proof } if !self.is_up => {
                    if version != VERSION {
                        return Err(Ended::Version(version));
                    }
                    let mut fitting = None;
                    // All of them, whichever fits: the time must not depend on it.
                    for (place, secret) in secrets.iter().enumerate() {
                        if proofs_equal(&proof, &relay_proof(secret, &self.challenge, &nonce)) {
                            fitting = Some((place, secret));
                        }
                    }
                    let Some((place, secret)) = fitting else { return Err(Ended::Proof) };
                    let name = relay.to_owned();
                    let proof = business_proof(secret, &nonce, &self.challenge);
                    self.push(&ToRelay::Welcome { version: VERSION, proof });
                    (self.is_up, self.hello) = (true, nonce);
                    self.knows_extensions = is_marked(&self.challenge) && is_marked(&nonce);
                    Input::Hello(name, place)
                }
                _ if !self.is_up => return Err(Ended::NoHello),
                ToBusiness::Hello { .. } => return Err(Ended::NoHello),
                ToBusiness::Ping { nonce } => {
                    self.push(&ToRelay::Pong { nonce });
                    continue;
                }
                ToBusiness::Features { words } => {
                    let knows = |extension| features(words).any(|word| word == extension);
                    self.features = Features { away: knows(AWAY), receipts: self.has_receipts && knows(RECEIPTS) };
                    let words = if self.has_receipts { "away receipts" } else { AWAY };
                    self.push(&ToRelay::Features { words });
                    continue;
                }
                ToBusiness::Pong { nonce } => Input::Pong { nonce },
                ToBusiness::Subscribe { request, link, since, page } => Input::Subscribe {
                    request,
                    link: link.to_owned(),
                    since,
                    address: page.address.to_owned(),
                    origin: page.origin.to_owned(),
                },
                ToBusiness::Unsubscribe { topic } => Input::Unsubscribe { topic },
                ToBusiness::Audience { topic, pages } => Input::Audience { topic, pages },
                ToBusiness::PageMessage { topic, page, data } => {
                    Input::PageMessage { topic, page, data: data.to_owned(), id: None }
                }
                ToBusiness::Send { topic, page, id, data } if self.features.receipts => {
                    Input::PageMessage { topic, page, data: data.to_owned(), id: Some(id) }
                }
                ToBusiness::Send { .. } => return Err(Ended::Frame("a Send that nobody asked for".to_owned())),
            };
            return Ok(Some(input));
        }
    }

    /// Records that the relay's full socket took bytes again.
    pub(crate) fn took(&mut self, now: Duration) {
        self.heard = now;
    }

    /// Queues a frame other than `Publish`. `false` if the queue is full; then the connection must
    /// be ended.
    pub(crate) fn push(&mut self, frame: &ToRelay<'_>) -> bool {
        let mut bytes = [0; LENGTH_SIZE + PREFIX_SIZE_MAX];
        // It fits: every string in it was truncated to its maximum.
        let Some(frame) = encode(frame, &mut bytes).and_then(|size| bytes.get(..size)) else { return false };
        self.is_full |= self.out_size + frame.len() + FRAME_SIZE > self.out_size_max;
        if !self.is_full {
            self.out_size += frame.len() + FRAME_SIZE;
            self.out.push_back(frame.into());
        }
        !self.is_full
    }

    /// A page of the relay as an author.
    pub(crate) fn author(&self, page: u32) -> Author {
        author(&self.challenge, &self.hello, page)
    }

    /// What the relay knows besides version 1, as far as it has said.
    pub(crate) const fn features(&self) -> Features {
        self.features
    }

    /// Queues a `Ping`, and returns its nonce, which the `Pong` repeats.
    pub(crate) fn ping(&mut self) -> u32 {
        self.ping = self.ping.wrapping_add(1);
        self.push(&ToRelay::Ping { nonce: self.ping });
        self.ping
    }

    /// Takes the next queued frame.
    pub(crate) fn take(&mut self) -> Option<Arc<[u8]>> {
        let frame = self.out.pop_front()?;
        self.out_size -= frame.len() + FRAME_SIZE;
        Some(frame)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub(crate) fn deadline(&self) -> Duration {
        let Times { handshake, ping_after, dead_after } = self.times;
        if !self.is_up {
            return self.opened.saturating_add(handshake);
        }
        let last = self.pinged.filter(|at| *at > self.heard).unwrap_or(self.heard);
        let dead = self.heard.saturating_add(dead_after).min(self.framed.saturating_add(FRAMELESS_MAX.max(dead_after)));
        last.saturating_add(ping_after).min(dead)
    }

    /// Handles the deadline: sends a `Ping`, or returns why the connection must end.
    pub(crate) fn handle_timeout(&mut self, now: Duration) -> Result<(), Ended> {
        let Times { handshake, dead_after, .. } = self.times;
        if self.is_full {
            return Err(Ended::Unread(self.out_size_max));
        }
        if !self.is_up {
            let is_late = now >= self.opened.saturating_add(handshake);
            return if is_late { Err(Ended::NoHandshake(handshake)) } else { Ok(()) };
        }
        for (since, limit) in [(self.heard, dead_after), (self.framed, FRAMELESS_MAX.max(dead_after))] {
            if now >= since.saturating_add(limit) {
                return Err(Ended::Silent(limit));
            }
        }
        if now >= self.deadline() {
            self.ping();
            self.pinged = Some(now);
        }
        Ok(())
    }

    /// Whether the queue of answers has overflowed.
    pub(crate) const fn is_full(&self) -> bool {
        self.is_full
    }
}
