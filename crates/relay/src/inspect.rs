//! Read access to the machine for the console and for scripts: its rows, as an engineer reads them.
//!
//! Apart from the console's two commands (close a page, end a topic) all are getters by `&self`;
//! none is involved in delivering a publication. Rows are walked by index, so that a long list can
//! be shown in parts while pages come and go: rows that are gone are skipped. No row contains a
//! whole link.

use core::net::IpAddr;

use super::{
    Relay,
    begun::Counts,
    counters::InUse,
    link::Shown,
    log::Log,
    session::{Half, Pace, Session},
    subscription::Stage,
    table::Id,
    time::Instant,
    topic::{LOGS, Topic},
};

/// One page's current state.
#[derive(Debug)]
pub struct PageRow<'a> {
    /// The page's id.
    pub id: Id<Session>,
    /// Its number towards the business server.
    pub number: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its `Origin`; empty if it sent none.
    pub origin: &'a str,
    /// How many subscriptions it has, waiting or live.
    pub subscriptions: u16,
    /// Milliseconds since it connected.
    pub open_ms: u64,
    /// Milliseconds since something was last received from it.
    pub heard_ms: u64,
    /// Milliseconds since its socket last took something.
    pub wrote_ms: u64,
    /// Bytes that its socket holds in the kernel.
    pub kernel_size: u32,
    /// Protocol errors so far.
    pub faults: u8,
    /// What it is doing.
    pub state: PageState,
    /// It is in the middle of a frame.
    pub is_half: bool,
}

/// What a page is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// It has not subscribed to anything yet.
    New,
    /// It has subscribed and is served.
    Live,
    /// Its socket is full: it is slow.
    Slow,
    /// It is being closed with this code.
    Closing(u16),
    /// Its connection is being cut.
    Cut,
}

/// One subscription of a page.
#[derive(Debug)]
pub struct SubscriptionRow<'a> {
    /// The link's first four bytes; none once it is over.
    pub link: Option<Shown<'a>>,
    /// The topic's number, if the subscription is live or was.
    pub topic: Option<u32>,
    /// `waiting`, `live` or `over`.
    pub stage: &'static str,
    /// The next sequence expected by the page on each track; 0 if its counter is not set.
    pub next: [u64; 4],
}

/// One topic's current state.
#[derive(Debug)]
pub struct TopicRow {
    /// The business server's number.
    pub number: u32,
    /// The epoch of its counters.
    pub epoch: u64,
    /// Pages subscribed to it.
    pub pages: u32,
    /// Links that lead to it.
    pub links: u32,
    /// The next sequence expected from the business server on each track; 0 if not known.
    pub next: [u64; 4],
    /// Its rings: the four tracks, then the init segments of audio and of video.
    pub rings: [RingRow; LOGS],
    /// Milliseconds until it is forgotten, if it has no pages.
    pub lingers_ms: Option<u64>,
    /// Whether it was accepted on the current connection to the business server.
    pub is_accepted: bool,
}

/// One ring of a topic.
#[derive(Clone, Copy, Debug)]
pub struct RingRow {
    /// How many frames it holds.
    pub frames: u64,
    /// Their size, bytes.
    pub size: u64,
    /// How many blocks of the arena it holds.
    pub blocks: u32,
}

/// The uplink's connection, as an engineer reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkRow {
    /// `up`, `down`, `dialing` or `handshake`.
    pub state: &'static str,
    /// The rank of the entry in use, or the next to be tried.
    pub entry: u32,
    /// Milliseconds that it has been up or dialling.
    pub for_ms: Option<u64>,
    /// Milliseconds until the next dial.
    pub retry_ms: Option<u64>,
    /// Milliseconds until the first entry is tried again, while another one serves.
    pub return_ms: Option<u64>,
    /// Milliseconds since the peer's last sign of life: data received, or data that it took.
    pub heard_ms: u64,
    /// How many handshakes were completed.
    pub connections: u64,
    /// How many attempts failed in a row.
    pub failures: u32,
    /// Bytes that are queued.
    pub out_size: usize,
    /// Frames queued since the start.
    pub sent: u64,
}

impl Relay {
    /// The end of the pages' indexes, exclusive.
    #[must_use]
    pub fn pages_end(&self) -> u32 {
        self.sessions.end()
    }

    /// The page at an index, if there is one.
    #[must_use]
    pub fn page_row(&self, now: Instant, index: u32) -> Option<PageRow<'_>> {
        let (session, id) = (self.sessions.get(index)?, self.sessions.id(index)?);
        let state = match session.closing() {
            _ if session.is_cut() => PageState::Cut,
            Some(close) => PageState::Closing(close.code),
            None if session.is_blocked() => PageState::Slow,
            None if session.pace == Pace::Newcomer => PageState::New,
            None => PageState::Live,
        };
        Some(PageRow {
            id,
            number: session.number(),
            address: session.address(),
            origin: self.sessions.origin(session),
            subscriptions: session.chain.wanted(),
            open_ms: session.open_ms(now),
            heard_ms: session.heard_ms(now),
            wrote_ms: session.wrote_ms(now),
            kernel_size: session.kernel.size(),
            faults: session.faults,
            state,
            is_half: session.half != Half::None,
        })
    }

    /// The subscriptions of the page at an index.
    pub fn subscription_rows(&self, index: u32) -> impl Iterator<Item = SubscriptionRow<'_>> {
        let of_page = self.sessions.get(index).map(|session| self.subscriptions.of(&session.chain));
        of_page.into_iter().flatten().map(|(_, row)| {
            let (stage, topic, next) = match row.stage() {
                Stage::Waiting { .. } => ("waiting", None, [0; 4]),
                Stage::Live(live) => (
                    "live",
                    self.topics.get(live.topic()).map(Topic::number),
                    live.cursors.map(|cursor| cursor.sequence),
                ),
                Stage::Over { topic, .. } => ("over", *topic, [0; 4]),
            };
            let link = self.links.get(row.link()).map(|link| Shown(link.name()));
            SubscriptionRow { link, topic, stage, next }
        })
    }

    /// The end of the topics' indexes, exclusive.
    #[must_use]
    pub fn topics_end(&self) -> u32 {
        self.topics.end()
    }

    /// The topic at an index, if there is one.
    #[must_use]
    pub fn topic_at(&self, now: Instant, index: u32) -> Option<TopicRow> {
        let topic = self.topics.get(index)?;
        let ring = |log: &Log| RingRow {
            frames: log.frames(),
            size: log.end() - log.start(),
            blocks: log.blocks(&self.store),
        };
        Some(TopicRow {
            number: topic.number(),
            epoch: topic.epoch(),
            pages: topic.viewers.len(),
            links: u32::try_from(self.links.iter().filter(|(_, link)| link.topic() == index).count())
                .unwrap_or(u32::MAX),
            next: topic.next(),
            rings: core::array::from_fn(|log| ring(&topic.logs[log])),
            lingers_ms: topic.viewers.is_empty().then(|| topic.acceptance.forget_at().since(now)),
            is_accepted: self.is_published(index),
        })
    }

    /// The links that lead to the topic at an index: their first four bytes, and whether their
    /// grants are shared.
    pub fn topic_links(&self, index: u32) -> impl Iterator<Item = (Shown<'_>, bool)> {
        self.links
            .iter()
            .filter(move |(_, link)| link.topic() == index)
            .map(|(_, link)| (Shown(link.name()), link.grant().shared))
    }

    /// The index of the topic with this number.
    #[must_use]
    pub fn topic_index(&self, number: u32) -> Option<u32> {
        self.topics.find(number)
    }

    /// The highest number of each kind of rows and of blocks that was ever in use.
    #[must_use]
    pub fn highest(&self) -> InUse {
        InUse {
            pages: self.sessions.len_highest(),
            subscriptions: self.subscriptions.len_highest(),
            topics: self.topics.len_highest(),
            links: self.links.len_highest(),
            requests: self.requests.len_highest(),
            begun_frames: self.store.begun.len().1,
            kept_blocks: self.store.begun.kept_blocks().1,
            blocks: self.store.used_highest(),
        }
    }

    /// Counts of partly sent frames that their rings overtook.
    #[must_use]
    pub const fn overtaken(&self) -> Counts {
        self.store.begun.counts()
    }

    /// How many pages have a full socket.
    #[must_use]
    pub fn slow_pages(&self) -> u32 {
        let slow = self.sessions.iter().filter(|(_, session)| session.is_blocked() && !session.is_cut());
        u32::try_from(slow.count()).unwrap_or(u32::MAX)
    }

    /// Whether the arena is so full that the largest media chunk would only fit once older media is
    /// dropped.
    #[must_use]
    pub fn is_media_short(&self) -> bool {
        let chunk = self.board.data_size_max() / self.board.block_size;
        self.store.free() < self.kept_blocks() + chunk
    }

    /// How many different reasons and origins are kept.
    #[must_use]
    pub fn texts_in_use(&self) -> (usize, usize) {
        (self.reasons.len(), self.sessions.origins() as usize)
    }

    /// How many different networks the pages come from.
    #[must_use]
    pub const fn networks(&self) -> u32 {
        self.sessions.networks()
    }

    /// The connection to the business server.
    #[must_use]
    pub fn uplink_row(&self, now: Instant) -> UplinkRow {
        self.uplink.row(now)
    }

    /// Closes a page at the console's request; returns whether it was there.
    pub fn close_by_hand(&mut self, now: Instant, page: Id<Session>) -> bool {
        let Some(page) = self.sessions.resolve(page).filter(|page| self.sessions[*page].closing().is_none()) else {
            return false;
        };
        let reason = super::texts::Reason::Own("closed at the relay's console");
        self.close_page(now, page, 1008, reason, None);
        true
    }

    /// Ends a topic for all its pages at the console's request, as the business server's `End`
    /// would; returns how many pages it had. The business server is sent `Unsubscribe` as soon as
    /// there is room for it.
    pub fn end_by_hand(&mut self, now: Instant, number: u32) -> Option<u32> {
        let topic = self.topics.find(number)?;
        let pages = self.topics[topic].viewers.len();
        self.end_pages(now, topic, "ended at the relay's console");
        // The sweep unsubscribes and forgets the topic; if the buffer has no room for that now, a
        // later sweep does.
        self.topics[topic].acceptance.forget_from(now);
        self.sweep_topics(now);
        Some(pages)
    }
}
