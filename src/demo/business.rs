//! A business server: the side of the uplink that a social app's back end writes.
//!
//! Owns the rooms, the share links that lead to them, and the relays that are connected. Use it so:
//! make one, [`open`](Business::open) rooms, [`allow`](Business::allow) links, let
//! [`serve`](Business::serve) run, and publish. What relays and their pages do comes out of
//! [`events`](Business::events). Dropping the future of `serve` ends every connection.
//! One thread: every call is short, never waits, and is done when it returns. Sockets and frames
//! are in `connection.rs`. Knows no clock but the executor's timers, and not what the bytes mean.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    net::TcpListener,
    rc::Rc,
    time::Duration,
};

use smol::{Async, LocalExecutor, Timer, channel};

use super::{
    connection::{self, Outbox},
    room::{Kind, Publication, PublishError, Room},
};
use wire::{
    LINK_SIZE_MAX, REASON_SIZE_MAX, Track,
    uplink::{Grant, Since, ToRelay},
};

/// What a business server is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shared with the relays. Empty only where nobody else reaches the listener.
    pub secret: Vec<u8>,
    /// Relays at the same time; further ones are turned away.
    pub relays_max: usize,
    /// Bytes that may wait for one relay: 16 MiB. A relay that reads more slowly than that is cut
    /// off; it comes back with `since`.
    pub out_size_max: usize,
    /// A relay must have proved itself within this time.
    pub handshake: Duration,
    /// A `Ping` goes out after so long without a frame from the relay.
    pub ping_after: Duration,
    /// A relay without a frame for so long is dead.
    pub dead_after: Duration,
    /// What a viewer is told whose link leads nowhere (at most 256 bytes).
    pub unknown_link: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            secret: Vec::new(),
            relays_max: 16,
            out_size_max: 16 * 1024 * 1024,
            handshake: Duration::from_secs(5),
            ping_after: Duration::from_secs(10),
            dead_after: Duration::from_secs(30),
            unknown_link: "there is nothing behind this link".to_owned(),
        }
    }
}

/// What relays and their pages did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A relay proved itself.
    RelayUp {
        /// The name that it gave.
        relay: String,
    },
    /// A relay's connection ended.
    RelayDown {
        /// The name that it gave; empty where it never proved itself.
        relay: String,
        /// Why.
        reason: String,
    },
    /// A link was asked for.
    Asked {
        /// The link.
        link: String,
        /// Whether it was good.
        accepted: bool,
    },
    /// A room has so many pages now, all relays together.
    Audience {
        /// The room.
        topic: u32,
        /// Pages.
        pages: u64,
    },
    /// A page sent something.
    PageMessage {
        /// The room.
        topic: u32,
        /// The relay's connection.
        relay: u64,
        /// The page's number on that connection.
        page: u32,
        /// What it sent: at most 512 bytes that anybody may have written.
        data: String,
    },
}

/// Events that may wait to be received: a thousand; more are dropped.
const EVENTS_MAX: usize = 1024;

/// The rooms, the links and the relays of one business server.
#[derive(Debug)]
pub struct Business {
    settings: Settings,
    tables: RefCell<Tables>,
    events: (channel::Sender<Event>, channel::Receiver<Event>),
}

#[derive(Debug, Default)]
struct Tables {
    /// Open rooms, and closed ones with the reason to tell.
    rooms: BTreeMap<u32, Result<Room, String>>,
    links: HashMap<String, (u32, Grant)>,
    relays: BTreeMap<u64, Relay>,
    next_relay: u64,
}

/// A relay that proved itself.
#[derive(Debug)]
struct Relay {
    outbox: Rc<Outbox>,
    /// The topics that it was accepted for, each with its audience there.
    topics: BTreeMap<u32, u32>,
}

impl Business {
    /// A business server without rooms.
    #[must_use]
    pub fn new(settings: Settings) -> Rc<Self> {
        Rc::new(Self { settings, tables: RefCell::default(), events: channel::bounded(EVENTS_MAX) })
    }

    /// Accepts relays until dropped.
    ///
    /// # Errors
    /// The listener itself broke.
    pub async fn serve(self: Rc<Self>, listener: Async<TcpListener>) -> io::Result<()> {
        let connections = LocalExecutor::new();
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, address)) => {
                        let business = Rc::clone(&self);
                        connections.spawn(connection::run(business, stream, address)).detach();
                    }
                    // Out of file descriptors, or a peer that left before it was accepted: go on, but don't spin.
                    Err(error) => {
                        log::warn!("business server: a relay could not be accepted: {error}");
                        Timer::after(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        connections.run(accepting).await
    }

    /// What relays and pages do. Each event goes to one receiver; where nobody receives, the newest are dropped.
    #[must_use]
    pub fn events(&self) -> channel::Receiver<Event> {
        self.events.1.clone()
    }

    /// Opens a room, or opens it anew: its counters begin at 1, so `epoch` must be a new one.
    /// Relays that had the room open are told that it ended, and ask again.
    pub fn open(&self, topic: u32, epoch: u64) {
        if matches!(self.tables.borrow().rooms.get(&topic), Some(Ok(_))) {
            self.end(topic, "the room begins anew");
        }
        self.tables.borrow_mut().rooms.insert(topic, Ok(Room::new(epoch)));
    }

    /// Lets a share link lead to a room.
    pub fn allow(&self, link: &str, topic: u32, grant: Grant) {
        debug_assert!(link.len() <= LINK_SIZE_MAX);
        self.tables.borrow_mut().links.insert(link.to_owned(), (topic, grant));
    }

    /// Takes a share link back: every page that came by it is told so at once.
    pub fn revoke(&self, link: &str, reason: &str) {
        let mut tables = self.tables.borrow_mut();
        tables.links.remove(link);
        for relay in tables.relays.values() {
            relay.outbox.send(&ToRelay::Revoke { link, reason: cut(reason, REASON_SIZE_MAX) });
        }
    }

    /// Publishes to every relay that has the room.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was sent.
    pub fn publish(&self, topic: u32, track: Track, kind: Kind, data: Vec<u8>) -> Result<u64, PublishError> {
        let mut tables = self.tables.borrow_mut();
        let Some(Ok(room)) = tables.rooms.get_mut(&topic) else { return Err(PublishError::Closed) };
        let publication = room.publish(track, kind, data)?;
        for relay in tables.relays.values() {
            if relay.topics.contains_key(&topic) {
                relay.outbox.publish(topic, &publication);
            }
        }
        Ok(publication.sequence)
    }

    /// Ends a room: its pages are told why, and so is whoever asks for it until it opens again.
    pub fn end(&self, topic: u32, reason: &str) {
        let reason = cut(reason, REASON_SIZE_MAX);
        let mut tables = self.tables.borrow_mut();
        tables.rooms.insert(topic, Err(reason.to_owned()));
        for relay in tables.relays.values_mut() {
            if relay.topics.remove(&topic).is_some() {
                relay.outbox.send(&ToRelay::End { topic, reason });
            }
        }
        drop(tables);
        self.tell(Event::Audience { topic, pages: 0 });
    }

    /// Closes one page, by the numbers of its [`Event::PageMessage`].
    pub fn kick(&self, relay: u64, page: u32, reason: &str) {
        if let Some(relay) = self.tables.borrow().relays.get(&relay) {
            relay.outbox.send(&ToRelay::Kick { page, reason: cut(reason, REASON_SIZE_MAX) });
        }
    }

    /// Reads an open room.
    pub fn with_room<R>(&self, topic: u32, read: impl FnOnce(&Room) -> R) -> Option<R> {
        match self.tables.borrow().rooms.get(&topic) {
            Some(Ok(room)) => Some(read(room)),
            _ => None,
        }
    }

    /// Pages that have the room, all relays together.
    #[must_use]
    pub fn audience(&self, topic: u32) -> u64 {
        let tables = self.tables.borrow();
        tables.relays.values().filter_map(|relay| relay.topics.get(&topic)).map(|&pages| u64::from(pages)).sum()
    }

    /// Relays that are connected and proved themselves.
    #[must_use]
    pub fn relays(&self) -> usize {
        self.tables.borrow().relays.len()
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn tell(&self, event: Event) {
        // A back end that doesn't listen to its events loses them; the relays are served all the same.
        let _ = self.events.0.try_send(event);
    }

    /// A relay proved itself; its number, or `None` where the table is full.
    pub(super) fn relay_up(&self, outbox: &Rc<Outbox>) -> Option<u64> {
        let mut tables = self.tables.borrow_mut();
        if tables.relays.len() >= self.settings.relays_max {
            return None;
        }
        tables.next_relay += 1;
        let number = tables.next_relay;
        tables.relays.insert(number, Relay { outbox: Rc::clone(outbox), topics: BTreeMap::new() });
        Some(number)
    }

    pub(super) fn relay_down(&self, relay: u64) {
        let gone = self.tables.borrow_mut().relays.remove(&relay);
        for topic in gone.into_iter().flat_map(|relay| relay.topics.into_keys()) {
            self.tell(Event::Audience { topic, pages: self.audience(topic) });
        }
    }

    /// Answers a subscription request, and sends what must follow the answer.
    pub(super) fn subscribe(&self, relay: u64, request: u32, link: &str, since: Option<Since>) {
        let mut tables = self.tables.borrow_mut();
        let tables = &mut *tables;
        let Some(relay) = tables.relays.get_mut(&relay) else { return };
        let answer = match tables.links.get(link) {
            None => Err(self.settings.unknown_link.as_str()),
            Some(&(topic, grant)) => match tables.rooms.get(&topic) {
                None => Err(self.settings.unknown_link.as_str()),
                Some(Err(reason)) => Err(reason.as_str()),
                Some(Ok(room)) => Ok((topic, grant, room)),
            },
        };
        match answer {
            Err(reason) => relay.outbox.send(&ToRelay::Deny { request, reason: cut(reason, REASON_SIZE_MAX) }),
            Ok((topic, grant, room)) => {
                relay.topics.entry(topic).or_insert(0);
                relay.outbox.send(&ToRelay::Accept { request, topic, epoch: room.epoch(), grant });
                for publication in room.replay(since, grant.replay) {
                    relay.outbox.publish(topic, &publication);
                }
            }
        }
        self.tell(Event::Asked { link: link.to_owned(), accepted: answer.is_ok() });
    }

    pub(super) fn unsubscribe(&self, relay: u64, topic: u32) {
        let known = self.tables.borrow_mut().relays.get_mut(&relay).and_then(|relay| relay.topics.remove(&topic));
        if known.is_some() {
            self.tell(Event::Audience { topic, pages: self.audience(topic) });
        }
    }

    pub(super) fn audience_of(&self, relay: u64, topic: u32, pages: u32) {
        let mut tables = self.tables.borrow_mut();
        let Some(known) = tables.relays.get_mut(&relay).and_then(|relay| relay.topics.get_mut(&topic)) else { return };
        *known = pages;
        drop(tables);
        self.tell(Event::Audience { topic, pages: self.audience(topic) });
    }

    pub(super) fn page_message(&self, relay: u64, topic: u32, page: u32, data: &str) {
        let tables = self.tables.borrow();
        // What was under way when the topic ended or was given up is of no use any more.
        if tables.relays.get(&relay).is_some_and(|relay| relay.topics.contains_key(&topic)) {
            self.tell(Event::PageMessage { topic, relay, page, data: data.to_owned() });
        }
    }
}

/// The longest beginning of `text` with at most `size_max` bytes.
#[must_use]
pub fn cut(text: &str, size_max: usize) -> &str {
    text.get(..text.floor_char_boundary(size_max)).unwrap_or(text)
}

/// The bytes that a publication takes in a relay's queue.
pub(super) fn queued_size(publication: &Publication) -> usize {
    publication.data.len() + 64
}
