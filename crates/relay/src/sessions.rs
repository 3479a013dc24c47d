//! The table of sessions: pages' connections, with everything that is counted or queued by page.
//!
//! Owns the rows, the ready queue that runs through them, what the kernel holds for them, the networks and origins that
//! they share, and the buckets that limit what each network may ask. A row that goes takes all of that with it. Doesn't
//! know who may come in: that is `pages.rs`.

use alloc::{vec, vec::Vec};
use core::net::IpAddr;

use super::{
    counted::{Counted, Key, Network, Origin},
    kernel_memory::{KernelMemory, KernelShare},
    rate::{Bucket, Rate},
    ready::ReadyQueue,
    session::Session,
    table::{Id, NONE, Table},
    time::Instant,
};
use board::Board;

/// The table of sessions.
#[derive(Debug)]
pub struct Sessions {
    rows: Table<Session>,
    ready: ReadyQueue,
    pub(super) kernel: KernelMemory,
    networks: Counted<Network>,
    origins: Counted<Origin>,
    /// What each network may ask; two networks may share a bucket, nobody outside knows which.
    asks: Vec<Bucket>,
    seed: u64,
    next_number: u32,
}

impl Sessions {
    /// No page yet; room for the board's.
    #[must_use]
    pub fn new(board: &Board, seed: u64) -> Self {
        Self {
            rows: Table::new(board.pages_max),
            ready: ReadyQueue::EMPTY,
            kernel: KernelMemory::new(board),
            networks: Counted::new(board.pages_max, seed),
            origins: Counted::new(board.pages_max, seed),
            asks: vec![Bucket::default(); board.addresses_max as usize],
            seed,
            next_number: 0,
        }
    }

    /// The rows, to read.
    #[must_use]
    pub const fn rows(&self) -> &Table<Session> {
        &self.rows
    }

    /// The session at an index, if there is one.
    #[must_use]
    pub fn get(&self, page: u32) -> Option<&Session> {
        self.rows.get(page)
    }

    /// All sessions with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.rows.iter()
    }

    /// Sessions stand at indices below this.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.rows.end()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.rows.len()
    }

    /// Whether there is no room for another one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// The name of the session at an index.
    #[must_use]
    pub fn id(&self, page: u32) -> Option<Id<Session>> {
        self.rows.id(page)
    }

    /// The index that a name stands for, while its session is there.
    #[must_use]
    pub fn resolve(&self, page: Id<Session>) -> Option<u32> {
        self.rows.resolve(page)
    }

    /// Pages that an address's network has.
    #[must_use]
    pub fn of_network(&self, address: IpAddr) -> u32 {
        self.networks.uses(&Network::of(address))
    }

    /// Networks that have pages.
    #[must_use]
    pub const fn networks(&self) -> u32 {
        self.networks.len()
    }

    /// Origins that pages came with.
    #[must_use]
    pub const fn origins(&self) -> u32 {
        self.origins.len()
    }

    /// The `Origin` that a page came with; empty without.
    #[must_use]
    pub fn origin(&self, session: &Session) -> &str {
        self.origins.key(session.origin()).map_or("", Origin::as_str)
    }

    /// A page comes; `None` where there is no room.
    pub fn open(&mut self, now: Instant, address: IpAddr, origin: &str) -> Option<Id<Session>> {
        if self.rows.is_full() {
            return None;
        }
        // Networks and origins have a row for every page: there is one for this page's.
        let network = self.networks.keep(Network::of(address))?;
        let origin = match origin {
            "" => NONE,
            origin => self.origins.keep(Origin::of(origin)).unwrap_or(NONE),
        };
        self.next_number = self.next_number.wrapping_add(1);
        let page = self.rows.insert(Session::new(now, self.next_number, address, network, origin)).ok()?;
        self.rows.id(page)
    }

    /// A page is gone; its row. It must have no subscription left.
    pub fn remove(&mut self, page: u32) -> Option<Session> {
        let row = self.rows.get_mut(page)?;
        debug_assert_eq!(row.chain.first(), NONE, "page {page} goes and leaves a subscription");
        self.kernel.forget(&mut row.kernel);
        self.ready.leave(&mut self.rows, page);
        let session = self.rows.remove(page)?;
        self.networks.release(session.network());
        if session.origin() != NONE {
            self.origins.release(session.origin());
        }
        Some(session)
    }

    /// The page has something of its own to be sent.
    pub fn push_ready(&mut self, page: u32) {
        self.ready.push(&mut self.rows, page);
    }

    /// The next page that has something of its own to be sent.
    pub fn pop_ready(&mut self) -> Option<u32> {
        self.ready.pop(&mut self.rows)
    }

    /// Whether a page has something of its own to be sent.
    #[must_use]
    pub const fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Bytes were written to a page's socket.
    pub fn count_written(&mut self, page: u32, size: u64) {
        let (kernel, share) = self.kernel_of(page);
        kernel.count_written(share, size);
    }

    /// What the kernel holds for all pages, and for one.
    pub(super) fn kernel_of(&mut self, page: u32) -> (&mut KernelMemory, &mut KernelShare) {
        (&mut self.kernel, &mut self.rows[page].kernel)
    }

    /// Whether an address's network may ask for one more link; if so, that counts.
    pub fn may_ask(&mut self, now: Instant, address: IpAddr, rate: Rate) -> bool {
        let row = Network::of(address).hash_with(self.seed) % self.asks.len().max(1) as u64;
        let bucket = usize::try_from(row).ok().and_then(|row| self.asks.get_mut(row));
        bucket.is_none_or(|bucket| bucket.take(rate, now))
    }

    /// Checks sizes alone.
    ///
    /// # Panics
    /// Where a table has grown.
    pub fn check_size(&self, board: &Board) {
        self.rows.check_size("sessions", board.pages_max);
        self.networks.check_size("networks", board.pages_max);
        self.origins.check_size("origins", board.pages_max);
        assert_eq!(self.asks.len(), board.addresses_max as usize, "BOUND: the table of addresses has changed");
    }

    /// Checks the rows and what is shared by them: for tests.
    ///
    /// # Panics
    /// Where something is counted or queued wrongly.
    pub fn check(&self, board: &Board) {
        self.rows.check("sessions", board.pages_max);
        self.ready.check(&self.rows);
        let size: u64 = self.iter().map(|(_, session)| u64::from(session.kernel.size())).sum();
        assert_eq!(self.kernel.total(), size, "the kernel's bytes are counted wrongly");
        self.networks.check("networks", board.pages_max, self.iter().map(|(_, session)| session.network()));
        let origins = self.iter().map(|(_, session)| session.origin()).filter(|origin| *origin != NONE);
        self.origins.check("origins", board.pages_max, origins);
    }
}

impl core::ops::Index<u32> for Sessions {
    type Output = Session;

    fn index(&self, page: u32) -> &Session {
        &self.rows[page]
    }
}

impl core::ops::IndexMut<u32> for Sessions {
    fn index_mut(&mut self, page: u32) -> &mut Session {
        &mut self.rows[page]
    }
}
