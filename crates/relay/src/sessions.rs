//! The table of sessions: pages' connections, with everything that is counted or queued per page.
//!
//! Owns the rows, the ready queue through them, the count of kernel memory, the tables of networks
//! and origins that the rows share, and the token buckets for each network's requests. Removing a
//! row removes all that belongs to it. Doesn't know which pages may connect: that is `pages.rs`.

use alloc::{boxed::Box, vec, vec::Vec};
use core::net::IpAddr;

use super::{
    interned::{Interned, Key, Network, Origin},
    kernel_memory::KernelMemory,
    rate::{Bucket, Rate},
    ready::ReadyQueue,
    receipts::{Receipt, Receipts},
    session::Session,
    table::{Id, NONE, Table},
    time::Instant,
};
use board::Board;
use wire::page::MessageId;

/// The table of sessions.
#[derive(Debug)]
pub struct Sessions {
    rows: Table<Session>,
    ready: ReadyQueue,
    kernel: KernelMemory,
    networks: Interned<Network>,
    origins: Interned<Origin>,
    /// Limits each network's requests. Two networks may share a bucket; the seeded hash keeps
    /// outsiders from knowing which.
    asks: Vec<Bucket>,
    seed: u64,
    next_number: u32,
    /// Each row's number, 0 for an empty row: compact, so that a page is found by its number.
    numbers: Box<[u32]>,
    receipts: Receipts,
}

/// The rows, to read. Rows come and go only by the methods here.
impl core::ops::Deref for Sessions {
    type Target = Table<Session>;

    fn deref(&self) -> &Table<Session> {
        &self.rows
    }
}

impl Sessions {
    /// An empty table for the board's pages.
    #[must_use]
    pub fn new(board: &Board, seed: u64) -> Self {
        Self {
            rows: Table::new(board.pages_max),
            ready: ReadyQueue::EMPTY,
            kernel: KernelMemory::new(board),
            networks: Interned::new(board.pages_max, seed),
            origins: Interned::new(board.pages_max, seed),
            asks: vec![Bucket::default(); board.addresses_max as usize],
            seed,
            next_number: 0,
            numbers: vec![0; board.pages_max as usize].into_boxed_slice(),
            receipts: Receipts::new(board),
        }
    }

    /// The number of pages in an address's network.
    #[must_use]
    pub fn of_network(&self, address: IpAddr) -> u32 {
        self.networks.uses(&Network::of(address))
    }

    /// The number of networks that have pages.
    #[must_use]
    pub const fn networks(&self) -> u32 {
        self.networks.len()
    }

    /// The number of different origins of pages.
    #[must_use]
    pub const fn origins(&self) -> u32 {
        self.origins.len()
    }

    /// A page's `Origin`; empty if it sent none.
    #[must_use]
    pub fn origin(&self, session: &Session) -> &str {
        self.origins.key(session.origin()).map_or("", Origin::as_str)
    }

    /// Adds a page; `None` if there is no room.
    pub fn open(&mut self, now: Instant, address: IpAddr, origin: &str) -> Option<Id<Session>> {
        if self.rows.is_full() {
            return None;
        }
        // The tables of networks and origins have as many rows as there are pages, so there is
        // room.
        let network = self.networks.keep(Network::of(address))?;
        let origin = match origin {
            "" => NONE,
            origin => self.origins.keep(Origin::of(origin)).unwrap_or(NONE),
        };
        self.next_number = self.next_number.wrapping_add(1).max(1);
        let page = self.rows.insert(Session::new(now, self.next_number, address, network, origin)).ok()?;
        if let Some(number) = self.numbers.get_mut(page as usize) {
            *number = self.next_number;
        }
        self.rows.id(page)
    }

    /// Removes a page and returns its row. It must have no subscription left.
    pub fn remove(&mut self, page: u32) -> Option<Session> {
        let row = self.rows.get_mut(page)?;
        debug_assert_eq!(row.chain.first(), NONE, "page {page} goes and leaves a subscription");
        self.kernel.forget(&mut row.kernel);
        self.receipts.clear(&mut row.receipts);
        self.ready.leave(&mut self.rows, page);
        let session = self.rows.remove(page)?;
        if let Some(number) = self.numbers.get_mut(page as usize) {
            *number = 0;
        }
        self.networks.release(session.network());
        if session.origin() != NONE {
            self.origins.release(session.origin());
        }
        Some(session)
    }

    /// The page with a number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<u32> {
        let at = self.numbers.iter().position(|other| *other == number && number != 0)?;
        u32::try_from(at).ok()
    }

    /// The answers to pages' messages.
    #[must_use]
    pub const fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    /// Adds an answer to a page's message; `false` if there is no room.
    pub fn push_receipt(&mut self, page: u32, id: MessageId, receipt: Receipt) -> bool {
        let session = &mut self.rows[page];
        let is_blocked = session.is_blocked();
        self.receipts.push(&mut session.receipts, is_blocked, id, receipt)
    }

    /// A page was sent its oldest answer.
    pub fn pop_receipt(&mut self, page: u32) {
        self.receipts.pop(&mut self.rows[page].receipts);
    }

    /// Queues a page that has something of its own to send.
    pub fn push_ready(&mut self, page: u32) {
        self.ready.push(&mut self.rows, page);
    }

    /// The next queued page.
    pub fn pop_ready(&mut self) -> Option<u32> {
        self.ready.pop(&mut self.rows)
    }

    /// Whether a page is queued.
    #[must_use]
    pub const fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Bytes were written to a page's socket.
    pub fn count_written(&mut self, page: u32, size: u64) {
        self.kernel.count_written(&mut self.rows[page].kernel, size);
    }

    /// A page's socket takes no more: nothing is read from it either, until it does.
    pub fn block(&mut self, page: u32, board: &Board) {
        let session = &mut self.rows[page];
        session.block();
        self.kernel.count_unread(&mut session.kernel, board);
    }

    /// A page's socket was measured: bytes that wait to be sent, and to be read.
    pub fn measured(&mut self, page: u32, board: &Board, send_queue: u32, receive_queue: u32) {
        let session = &mut self.rows[page];
        let is_unread = session.is_blocked();
        self.kernel.measured(&mut session.kernel, board, send_queue, receive_queue, is_unread);
    }

    /// A page is to be cut off: its socket takes what it holds with it. `false` if it is already.
    pub fn cut(&mut self, page: u32) -> bool {
        let session = &mut self.rows[page];
        let is_first = session.cut();
        if is_first {
            self.kernel.forget(&mut session.kernel);
        }
        is_first
    }

    /// What the kernel holds for all pages.
    #[must_use]
    pub const fn kernel(&self) -> &KernelMemory {
        &self.kernel
    }

    /// The same, to plan its measurements.
    pub const fn kernel_mut(&mut self) -> &mut KernelMemory {
        &mut self.kernel
    }

    /// Takes a token for one more link from an address's network; whether there was one.
    pub fn may_ask(&mut self, now: Instant, address: IpAddr, rate: Rate) -> bool {
        let row = Network::of(address).hash_with(self.seed) % self.asks.len().max(1) as u64;
        let bucket = usize::try_from(row).ok().and_then(|row| self.asks.get_mut(row));
        bucket.is_none_or(|bucket| bucket.take(rate, now))
    }

    /// Checks sizes only.
    ///
    /// # Panics
    /// If a table has grown.
    pub fn check_size(&self, board: &Board) {
        self.rows.check_size("sessions", board.pages_max);
        self.ready.check_ends();
        let held = self.kernel.total();
        assert!(!self.rows.is_empty() || held == 0, "no page is left, and the kernel holds {held} B");
        self.networks.check_size("networks", board.pages_max);
        self.origins.check_size("origins", board.pages_max);
        assert_eq!(self.asks.len(), board.addresses_max as usize, "BOUND: the table of addresses has changed");
    }

    /// Checks the rows and what they share. For tests.
    ///
    /// # Panics
    /// If something is counted or queued wrongly.
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
