//! The fan-out: one task that serves the pages that the machine names, one `writev` each, with a
//! budget for each turn. Nearly all pages are in step (the same topic, the same cursors): they get
//! the same piece of the arena, all by one system call.
//!
//! Owns the sockets, by row of the machine's session table, and implements [`Behind`] for the page
//! tasks. A page's own task is woken only when its socket is full, or when it must close.
//! `connection.rs` knows how to write to a socket; the machine decides what is written.

use std::ops::Range;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use smol::future;

use super::Daemon;
use super::budget;
use super::connection::{self, Outgoing};
use super::pages::Behind;
use super::sending::{BATCH_SIZE_MAX, Batch, TakenByEach};
use super::socket_queues;
use super::tls::secured::{abandon_scratch, with_scratch};
use super::watchdog::Part;
use relay::Relay;
use relay::begun::RUN_SIZE_MAX;
use relay::draft::Draft;
use relay::pages::Verdict;
use relay::session::Session;
use relay::table::Id;
use relay::transmit::{Progress, Slices};
use wire::page::{PAGE_FRAGMENTS_MAX, PAGE_FRAME_SIZE_MAX};

/// Writes to one page in one turn, at most: more than one only if a gather didn't hold everything.
/// A page with more ahead gets its next turn after the others.
const WRITES_PER_PAGE: usize = 4;

/// The connection of a page in the session table.
pub type Connection = connection::Connection<Id<Session>>;

/// The connections by row of the session table.
pub struct Connections {
    rows: Vec<Option<Rc<Connection>>>,
}

impl Connections {
    /// No connections; room for `pages_max`.
    pub fn new(pages_max: u32) -> Self {
        Self { rows: Vec::with_capacity(pages_max as usize) }
    }

    /// Adds a page's connection.
    pub fn insert(&mut self, connection: Rc<Connection>) {
        let index = connection.page.index() as usize;
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, || None);
        }
        if let Some(row) = self.rows.get_mut(index) {
            *row = Some(connection);
        }
    }

    /// Removes a page's connection; does nothing if its row was taken by another page.
    pub fn remove(&mut self, page: Id<Session>) {
        if let Some(row) = self.rows.get_mut(page.index() as usize)
            && row.as_ref().is_some_and(|row| row.page == page)
        {
            *row = None;
        }
    }

    /// A page's connection.
    pub fn get(&self, page: Id<Session>) -> Option<&Connection> {
        self.rows.get(page.index() as usize)?.as_deref().filter(|row| row.page == page)
    }
}

/// Serves pages for as long as the daemon runs.
pub async fn run(daemon: Rc<Daemon>) {
    let mut batch = Batch::open(daemon.config.borrow().pages.io_uring);
    loop {
        daemon.serve.wait().await;
        while serve_turn(&daemon, &mut batch) {
            daemon.turns.pass(Part::Fanout);
            future::yield_now().await;
        }
        daemon.turns.pass(Part::Fanout);
    }
}

/// Serves one turn; returns whether pages may be left.
fn serve_turn(daemon: &Daemon, batch: &mut Batch) -> bool {
    if daemon.relay.borrow_mut().poll_full() {
        socket_queues::measure(daemon);
        return true;
    }
    let mut relay = daemon.relay.borrow_mut();
    let mut draft = daemon.draft.borrow_mut();
    let connections = daemon.connections.borrow();
    let now = daemon.clock.now();
    relay.admit_more(now);
    draft.begin(now);
    let mut pages = heapless::Vec::<_, BATCH_SIZE_MAX>::new();
    let ready = relay.poll_pages(&mut pages);
    // Writing to sockets evicts the pages' rows from the CPU cache. Looking them all up first
    // overlaps the cache misses.
    let sockets: heapless::Vec<_, BATCH_SIZE_MAX> =
        pages.iter().enumerate().filter_map(|(at, page)| Some((at < ready, connections.get(*page)?))).collect();
    let mut together = Together::new();
    for (may_come_again, connection) in sockets {
        let is_in_lockstep =
            !may_come_again && connection.takes_ours_at_once() && relay.is_in_lockstep(connection.page, &draft);
        if !is_in_lockstep || together.push(connection).is_err() {
            write_together(&mut relay, &mut draft, batch, &mut together);
            if !write(&mut relay, &mut draft, connection) {
                connection.wake();
            }
        }
    }
    write_together(&mut relay, &mut draft, batch, &mut together);
    relay.check_bounds();
    relay.has_pages_to_serve()
}

/// Pages in lockstep, which get the same bytes.
type Together<'a> = heapless::Vec<&'a Connection, BATCH_SIZE_MAX>;

/// Writes the draft's piece to all of them, and empties the list.
fn write_together(relay: &mut Relay, draft: &mut Draft, batch: &mut Batch, together: &mut Together<'_>) {
    let (plain, sealed): (Together<'_>, Together<'_>) =
        together.iter().partition(|connection| connection.stream.secured().is_none());
    write_plain(relay, draft, batch, &plain);
    write_sealed(relay, draft, batch, &sealed);
    together.clear();
}

fn write_plain(relay: &mut Relay, draft: &mut Draft, batch: &mut Batch, pages: &[&Connection]) {
    if pages.is_empty() {
        return;
    }
    let mut taken = TakenByEach::new();
    let piece = relay.piece(draft);
    let size = piece.len();
    // The bytes are the arena's: if the kernel still reads them for a page that is cut, no other
    // page is concerned.
    batch.send(pages.iter().map(|connection| (connection.stream.as_fd(), piece)), &mut taken);
    for (connection, taken) in pages.iter().zip(&taken) {
        commit(relay, draft, connection, taken.map(|taken| (Progress::plain(taken as u64), taken == size)));
    }
}

/// The same over TLS: for each page the piece is sealed into a part of the scratch.
fn write_sealed(relay: &mut Relay, draft: &mut Draft, batch: &mut Batch, pages: &[&Connection]) {
    let mut rest = pages;
    while let Some(first) = rest.first() {
        let mut parts = Parts::new();
        let mut taken = TakenByEach::new();
        let is_done = with_scratch(|scratch| {
            let mut runs = Slices::new();
            let mut size = 0;
            loop {
                match relay.run(first.page, draft, size, RUN_SIZE_MAX, &mut runs) {
                    0 => break,
                    more => size += more,
                }
            }
            let mut filled = 0;
            for connection in rest {
                let Some(secured) = connection.stream.secured() else { continue };
                let Some(room) = scratch.get_mut(filled..).filter(|room| room.len() >= secured.sealed_size(&runs))
                else {
                    break;
                };
                // A page that can't be sealed for sends nothing, and is cut.
                let size = secured.seal_runs(&runs, room).unwrap_or_else(|_| {
                    connection.fail();
                    0
                });
                let _ = parts.push(filled..filled + size);
                filled += size;
            }
            drop(runs);
            let parcels = rest
                .iter()
                .zip(&parts)
                .map(|(connection, part)| (connection.stream.as_fd(), scratch.get(part.clone()).unwrap_or_default()));
            let is_done = batch.send(parcels, &mut taken);
            for ((connection, part), taken) in rest.iter().zip(&parts).zip(&taken) {
                let (Some(secured), Some(sealed)) = (connection.stream.secured(), scratch.get(part.clone())) else {
                    continue;
                };
                let taken = taken.map(|taken| (secured.runs_sent(sealed, taken), taken == sealed.len()));
                commit(relay, draft, connection, taken);
                if connection.is_used_up() {
                    connection.wake();
                }
            }
            is_done
        });
        if !is_done {
            abandon_scratch();
        }
        // At least one page has room in the scratch, which holds a whole write.
        rest = rest.get(parts.len().max(1)..).unwrap_or_default();
    }
}

/// Where each page's records are in the scratch.
type Parts = heapless::Vec<Range<usize>, BATCH_SIZE_MAX>;

/// What a page's socket took of the draft, and whether that is all that was offered.
fn commit(
    relay: &mut Relay,
    draft: &Draft,
    connection: &Connection,
    taken: Result<(Progress, bool), rustix::io::Errno>,
) {
    let Ok((progress, is_whole)) = taken else {
        connection.fail();
        connection.wake();
        return;
    };
    if connection.is_broken() {
        return connection.wake();
    }
    relay.wrote(connection.page, draft, progress);
    if !is_whole {
        relay.blocked(connection.page);
        connection.wake();
    } else if progress.size < draft.size() {
        relay.serve_again(connection.page);
    }
}

impl Behind for Daemon {
    type Page = Id<Session>;
    const MESSAGE_SIZE_MAX: usize = PAGE_FRAME_SIZE_MAX;
    const FRAGMENTS_MAX: u32 = PAGE_FRAGMENTS_MAX;
    const REST: Duration = budget::REST;

    fn text(&self, page: Id<Session>, text: &str) {
        self.step(|relay, now| relay.handle_page_text(now, page, text));
    }

    fn binary(&self, page: Id<Session>, _: &[u8]) {
        self.step(|relay, now| relay.handle_page_binary(now, page));
    }

    fn heard(&self, page: Id<Session>) {
        self.step(|relay, now| relay.handle_page_heard(now, page));
    }

    fn leaving(&self, page: Id<Session>) {
        self.step(|relay, now| relay.handle_page_leaving(now, page));
    }

    fn broken(&self, page: Id<Session>, code: u16) {
        self.step(|relay, now| relay.handle_page_broken(now, page, code));
    }

    fn used_up(&self, page: Id<Session>) {
        self.step(|relay, now| relay.handle_page_used_up(now, page));
    }

    fn gone(&self, page: Id<Session>) {
        self.connections.borrow_mut().remove(page);
        self.step(|relay, now| relay.handle_page_closed(now, page));
    }

    fn verdict(&self, page: Id<Session>) -> Verdict {
        self.relay.borrow().verdict(page)
    }

    fn is_blocked(&self, page: Id<Session>) -> bool {
        self.relay.borrow().is_blocked(page)
    }

    fn unblocked(&self, page: Id<Session>) {
        self.step(|relay, _| relay.unblocked(page));
    }

    fn serve(&self, connection: &Connection) {
        let mut draft = self.draft.borrow_mut();
        draft.begin(self.clock.now());
        let mut relay = self.relay.borrow_mut();
        write(&mut relay, &mut draft, connection);
        if relay.is_full() || relay.has_pages_to_serve() {
            self.serve.raise();
        }
    }
}

/// Writes what is ahead of a page, as far as its socket takes it. `false` if the page's own task
/// must act: wait, close, or end.
fn write(relay: &mut Relay, draft: &mut Draft, connection: &Connection) -> bool {
    for _ in 0..WRITES_PER_PAGE {
        match write_once(relay, draft, connection) {
            Written::Everything => return true,
            Written::Some => {}
            Written::Nothing => return false,
        }
    }
    relay.serve_again(connection.page);
    true
}

enum Written {
    /// Nothing is left to send.
    Everything,
    /// More may be left.
    Some,
    /// The page's own task must act: wait, close, or end.
    Nothing,
}

fn write_once(relay: &mut Relay, draft: &mut Draft, connection: &Connection) -> Written {
    let page = connection.page;
    relay.plan(page, draft);
    if draft.is_cut() {
        relay.handle_page_overtaken(page);
        return Written::Nothing;
    }
    let has_control = connection.has_control();
    if draft.is_closing() && !has_control {
        return Written::Nothing;
    }
    if draft.is_empty() && !(has_control && draft.is_between_frames()) {
        return Written::Everything;
    }
    let Some(sent) = connection.write(draft.is_between_frames(), &Drafted { relay, draft, page }) else {
        return Written::Nothing;
    };
    relay.wrote(page, draft, sent.progress);
    if !sent.is_whole {
        relay.blocked(page);
        return Written::Nothing;
    }
    let is_everything = sent.progress.size == draft.size() && !draft.is_shortened() && !draft.is_closing();
    if is_everything { Written::Everything } else { Written::Some }
}

/// A page's draft, and the machine that holds its bytes.
struct Drafted<'a> {
    relay: &'a Relay,
    draft: &'a Draft,
    page: Id<Session>,
}

impl Outgoing for Drafted<'_> {
    fn gather<'a>(&'a self, out: &mut Slices<'a>) -> u64 {
        self.relay.gather(self.page, self.draft, out)
    }

    fn run<'a>(&'a self, at: u64, most: u64, out: &mut Slices<'a>) -> u64 {
        self.relay.run(self.page, self.draft, at, most, out)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use smol::LocalExecutor;

    use super::super::stream::Stream;
    use super::super::tls::secured::tests::{Peer, secure};
    use super::*;
    use board::{Board, HOST};
    use relay::rig::Rig;

    /// The other end of a page's connection.
    enum Reader {
        Plain(TcpStream),
        Tls(Box<Peer>),
    }

    /// Counts the wake-ups of a page's task.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `count` pages of topic 7 that have received all their notices.
    fn audience(rig: &mut Rig, count: usize) -> Vec<Id<Session>> {
        let mut pages = vec![rig.viewer()];
        while pages.len() < count {
            let page = rig.page();
            rig.subscribe(page, 1, "link");
            rig.read(page);
            pages.push(page);
        }
        while rig.relay.poll_page().is_some() {}
        pages
    }

    #[test]
    fn a_page_whose_socket_takes_everything_at_once_is_not_woken() {
        for (wants_ring, is_tls) in [(true, false), (false, false), (true, true), (false, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut rig = Rig::up(&Board { pages_max: 8, subscriptions_max: 8, ..HOST });
            let pages = audience(&mut rig, 4);
            // A page that has read everything is in step.
            rig.messages(1..=1);
            pages.iter().for_each(|page| drop(rig.read(*page)));
            while rig.relay.poll_page().is_some() {}
            rig.messages(2..=4);
            let daemon = Daemon::of(rig);
            let wakes: Vec<_> = pages.iter().map(|_| Arc::new(Wakes::default())).collect();
            let mut peers = Vec::new();
            for (page, wakes) in pages.iter().zip(&wakes) {
                let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let stream = Stream::new(listener.accept().unwrap().0).unwrap();
                // The second page is plain in any case.
                let stream = if is_tls && *page != pages[1] {
                    let (stream, peer) = secure(stream, peer);
                    peers.push(Reader::Tls(Box::new(peer)));
                    stream
                } else {
                    peers.push(Reader::Plain(peer));
                    stream
                };
                let connection = Rc::new(Connection::new(*page, stream));
                connection.set_waker(&Waker::from(Arc::clone(wakes)));
                daemon.connections.borrow_mut().insert(connection);
            }
            // The last one's socket fails.
            daemon.connections.borrow().get(pages[3]).unwrap().stream.end_writing().unwrap();
            let mut batch = Batch::open(wants_ring);
            while serve_turn(&daemon, &mut batch) {}
            for peer in &mut peers[..3] {
                let said = match peer {
                    Reader::Plain(peer) => {
                        let mut said = vec![0; 1024];
                        let size = peer.read(&mut said).unwrap();
                        said.truncate(size);
                        said
                    }
                    Reader::Tls(peer) => peer.hear(1024),
                };
                assert_eq!(relay::rig::frames(&said), [2, 3, 4].map(relay::rig::message));
            }
            let counts: Vec<_> = wakes.iter().map(|wakes| wakes.0.load(Ordering::Relaxed)).collect();
            assert_eq!(counts, [0, 0, 0, 1], "ring: {wants_ring}, TLS: {is_tls}");
        }
    }

    #[test]
    fn others_have_their_turn_while_many_pages_are_served() {
        const PAGES: usize = 3 * BATCH_SIZE_MAX;
        let count = u32::try_from(PAGES).unwrap();
        let mut rig = Rig::up(&Board { pages_max: count, subscriptions_max: count, ..HOST });
        audience(&mut rig, PAGES);
        rig.messages(1..=1);
        let daemon = Daemon::of(rig);
        let executor = LocalExecutor::new();
        let _serving = executor.spawn(run(Rc::clone(&daemon)));
        // Stands for any other task of the executor: a page's, the console's, the uplink's.
        let turns = Rc::new(Cell::new(0));
        let (turns_of_others, relay) = (Rc::clone(&turns), Rc::clone(&daemon));
        let others = executor.spawn(async move {
            relay.serve.raise();
            while relay.relay.borrow().has_pages_to_serve() {
                turns_of_others.set(turns_of_others.get() + 1);
                future::yield_now().await;
            }
        });
        smol::block_on(executor.run(others));
        assert!(turns.get() >= 3, "{} turns of others while {PAGES} pages were served", turns.get());
    }
}
