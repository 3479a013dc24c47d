//! Looking into the machine: rows as an engineer reads them, for the console and for scripts.
//!
//! Getters by `&self` alone; nothing here is on the way of a publication. Rows are walked by index, so that a long
//! list can be shown piece by piece while pages come and go: what is gone is skipped. No row holds a whole link.

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

/// One page, as it is now.
#[derive(Debug)]
pub struct PageRow<'a> {
    /// Its id.
    pub id: Id<Session>,
    /// Its number at the business server.
    pub number: u32,
    /// Where it is.
    pub address: IpAddr,
    /// Its `Origin`; empty without.
    pub origin: &'a str,
    /// Subscriptions, waiting or live.
    pub subscriptions: u16,
    /// Milliseconds since it connected.
    pub open_ms: u64,
    /// Milliseconds since something came from it.
    pub heard_ms: u64,
    /// Milliseconds since its socket took something.
    pub wrote_ms: u64,
    /// Bytes that the kernel holds for it.
    pub kernel_size: u32,
    /// Protocol errors so far.
    pub faults: u8,
    /// What it is doing.
    pub state: PageState,
    /// A frame of it is half written.
    pub is_half: bool,
}

/// What a page is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// It has not subscribed to anything yet.
    New,
    /// It is served.
    Live,
    /// Its socket takes no more: it is slow.
    Slow,
    /// It is being closed with this code.
    Closing(u16),
    /// It is being cut off.
    Cut,
}

/// One subscription of a page.
#[derive(Debug)]
pub struct SubscriptionRow<'a> {
    /// The link's first four bytes; none once it is over.
    pub link: Option<Shown<'a>>,
    /// The topic's number, where it is served.
    pub topic: Option<u32>,
    /// `waiting`, `live` or `over`.
    pub stage: &'static str,
    /// The next sequence of each track that the page expects; 0 where its counter is not set.
    pub next: [u64; 4],
}

/// One topic, as it is now.
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
    /// The next sequence of each track expected from the business server; 0 where none is known.
    pub next: [u64; 4],
    /// Its rings: the four tracks, then the init segments of audio and video.
    pub rings: [RingRow; LOGS],
    /// Milliseconds until it is forgotten, where no page is left.
    pub lingers_ms: Option<u64>,
    /// Whether the connection to the business server that is up now accepted it.
    pub is_accepted: bool,
}

/// One ring of a topic.
#[derive(Clone, Copy, Debug)]
pub struct RingRow {
    /// Frames that it holds.
    pub frames: u64,
    /// Bytes of them.
    pub size: u64,
    /// Blocks of the arena that it holds.
    pub blocks: u32,
}

/// The connection as an engineer reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkRow {
    /// `up`, `down`, `dialing` or `handshake`.
    pub state: &'static str,
    /// The place of the address in use, or to be tried next, in the configured list.
    pub address: u32,
    /// Milliseconds since it is up or dialling.
    pub for_ms: Option<u64>,
    /// Milliseconds until it is dialled.
    pub retry_ms: Option<u64>,
    /// Milliseconds until the first address is tried again, while another one serves.
    pub return_ms: Option<u64>,
    /// Milliseconds since a frame came.
    pub heard_ms: u64,
    /// Connections whose handshake was done.
    pub connections: u64,
    /// Dials that failed in a row.
    pub failures: u32,
    /// Bytes that wait to be written.
    pub out_size: usize,
    /// Frames put there since the start.
    pub sent: u64,
}

impl Relay {
    /// Pages stand at indexes below this.
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
            None if session.blocked => PageState::Slow,
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

    /// What the page at an index is subscribed to.
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

    /// Topics stand at indexes below this.
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
            links: u32::try_from(self.links.iter().filter(|(_, link)| link.topic == index).count()).unwrap_or(u32::MAX),
            next: topic.next(),
            rings: core::array::from_fn(|log| ring(&topic.logs[log])),
            lingers_ms: topic.viewers.is_empty().then(|| topic.acceptance.forget_at().since(now)),
            is_accepted: self.is_published(index),
        })
    }

    /// The links that lead to the topic at an index: their first four bytes, and whether the grant is shared.
    pub fn topic_links(&self, index: u32) -> impl Iterator<Item = (Shown<'_>, bool)> {
        self.links
            .iter()
            .filter(move |(_, link)| link.topic == index)
            .map(|(_, link)| (Shown(link.name()), link.grant.shared))
    }

    /// The index of the topic of this number.
    #[must_use]
    pub fn topic_index(&self, number: u32) -> Option<u32> {
        self.topics.find(number)
    }

    /// The most rows and blocks that were ever in use at the same time.
    #[must_use]
    pub fn highest(&self) -> InUse {
        InUse {
            pages: self.sessions.rows().len_highest(),
            subscriptions: self.subscriptions.rows().len_highest(),
            topics: self.topics.len().1,
            links: self.links.len().1,
            requests: self.requests.rows().len_highest(),
            begun_frames: self.store.begun.len().1,
            kept_blocks: self.store.begun.kept_blocks().1,
            blocks: self.store.used_highest(),
        }
    }

    /// What became of frames that their rings overtook while pages stood inside.
    #[must_use]
    pub const fn overtaken(&self) -> Counts {
        self.store.begun.counts()
    }

    /// Pages whose sockets take no more.
    #[must_use]
    pub fn slow_pages(&self) -> u32 {
        let slow = self.sessions.iter().filter(|(_, session)| session.blocked && !session.is_cut());
        u32::try_from(slow.count()).unwrap_or(u32::MAX)
    }

    /// Whether media can't get the largest chunk's room without forgetting older ones.
    #[must_use]
    pub fn is_media_short(&self) -> bool {
        let chunk = self.board.data_size_max() / self.board.block_size;
        self.store.free() < self.kept_blocks() + chunk
    }

    /// Different reasons and origins kept now.
    #[must_use]
    pub fn texts_in_use(&self) -> (usize, usize) {
        (self.reasons.len(), self.sessions.origins() as usize)
    }

    /// Different networks that pages come from now.
    #[must_use]
    pub const fn networks(&self) -> u32 {
        self.sessions.networks()
    }

    /// The connection to the business server.
    #[must_use]
    pub fn uplink_row(&self, now: Instant) -> UplinkRow {
        self.uplink.row(now)
    }

    /// An engineer closes a page; whether it was there.
    pub fn close_by_hand(&mut self, now: Instant, page: Id<Session>) -> bool {
        let Some(page) = self.sessions.resolve(page).filter(|page| self.sessions[*page].closing().is_none()) else {
            return false;
        };
        let reason = super::texts::Reason::Own("closed at the relay's console");
        self.close_page(now, page, 1008, reason, None);
        true
    }

    /// An engineer ends a topic for all its pages, as the business server's `End` would; the pages that it had. The business
    /// server is told by `Unsubscribe`, as soon as there is room for it.
    pub fn end_by_hand(&mut self, now: Instant, number: u32) -> Option<u32> {
        let topic = self.topics.find(number)?;
        let pages = self.topics[topic].viewers.len();
        self.end_pages(now, topic, "ended at the relay's console");
        // The sweep forgets it; where there is no room yet to say so to the business server, as soon as there is.
        self.topics[topic].acceptance.forget_from(now);
        self.sweep_topics(now);
        Some(pages)
    }
}
