//! The fan-out: one task that serves the pages the machine names, one `writev` each, with a budget for each turn. Pages that stand
//! in step, which are nearly all, get the same piece of the arena, handed to the kernel by one call for all of them.
//!
//! It owns the row of sockets beside the machine's session table. A page's own task is woken only when
//! its socket took no more, or when it is to be closed. tungstenite's own small frames (pong, close)
//! wait in the connection's control slot and go out first, between two frames of ours.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::net::TcpStream;
use std::rc::Rc;
use std::task::Waker;

use smol::{Async, future};

use super::Daemon;
use super::boundary::Boundary;
use super::queues;
use super::sending::{BATCH_SIZE_MAX, Batch, TakenByEach, send_slices};
use crate::relay::Relay;
use crate::relay::draft::Draft;
use crate::relay::session::Session;
use crate::relay::table::Id;
use crate::relay::transmit::Slices;

/// Writes to one page in one turn, at most: more than one only where a plan didn't hold everything.
const WRITES_PER_PAGE: usize = 4;
/// tungstenite's control frames are at most so many bytes.
pub const CONTROL_SIZE_MAX: usize = 127;

/// A page's socket, shared by its task and the fan-out.
#[derive(Debug)]
pub struct Connection {
    pub page: Id<Session>,
    pub stream: Async<TcpStream>,
    /// Frames of tungstenite's own that wait for a place between two of ours.
    pub control: RefCell<Vec<u8>>,
    /// The page's task.
    pub waker: RefCell<Option<Waker>>,
    /// The socket failed: its task is to end.
    pub broken: Cell<bool>,
    /// Where the page's own frames stand.
    pub boundary: Cell<Boundary>,
}

impl Connection {
    /// Whom to wake for the page.
    pub fn set_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Whether nothing of tungstenite's is to go out first.
    fn takes_ours_at_once(&self) -> bool {
        !self.broken.get() && self.control.borrow().is_empty()
    }

    /// The page's task has something to do.
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The sockets of the session table's pages, by their row.
pub struct Connections {
    rows: Vec<Option<Rc<Connection>>>,
}

impl Connections {
    /// No sockets; room for `pages_max`.
    pub fn new(pages_max: u32) -> Self {
        Self { rows: Vec::with_capacity(pages_max as usize) }
    }

    /// A page's socket.
    pub fn insert(&mut self, connection: Rc<Connection>) {
        let index = connection.page.index() as usize;
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, || None);
        }
        if let Some(row) = self.rows.get_mut(index) {
            *row = Some(connection);
        }
    }

    /// A page is gone.
    pub fn remove(&mut self, page: Id<Session>) {
        if let Some(row) = self.rows.get_mut(page.index() as usize)
            && row.as_ref().is_some_and(|row| row.page == page)
        {
            *row = None;
        }
    }

    /// A page's socket.
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
            future::yield_now().await;
        }
    }
}

/// Serves a turn's pages; whether there may be more.
fn serve_turn(daemon: &Daemon, batch: &mut Batch) -> bool {
    if daemon.relay.borrow_mut().poll_full() {
        queues::measure(daemon);
        return true;
    }
    let mut relay = daemon.relay.borrow_mut();
    let mut draft = daemon.draft.borrow_mut();
    let connections = daemon.connections.borrow();
    draft.begin(daemon.clock.now());
    let mut pages = heapless::Vec::<_, BATCH_SIZE_MAX>::new();
    let ready = relay.poll_pages(&mut pages);
    // The kernel's work drives the rows of pages out of the cache: a turn's are fetched at once, while nothing
    // waits for each single one.
    let sockets: heapless::Vec<_, BATCH_SIZE_MAX> =
        pages.iter().enumerate().filter_map(|(at, page)| Some((at < ready, connections.get(*page)?))).collect();
    let mut together = Together::new();
    for (may_come_again, connection) in sockets {
        let is_in_step =
            !may_come_again && connection.takes_ours_at_once() && relay.is_in_step(connection.page, &draft);
        if !is_in_step || together.push(connection).is_err() {
            write_together(&mut relay, &mut draft, batch, &mut together);
            write(&mut relay, &mut draft, connection);
        }
    }
    write_together(&mut relay, &mut draft, batch, &mut together);
    relay.check_bounds();
    relay.has_pages_to_serve()
}

/// Pages in step, which are sent the same piece.
type Together<'a> = heapless::Vec<&'a Connection, BATCH_SIZE_MAX>;

/// Writes the draft's piece to all of them, and forgets them.
fn write_together(relay: &mut Relay, draft: &mut Draft, batch: &mut Batch, together: &mut Together<'_>) {
    if together.is_empty() {
        return;
    }
    let mut taken = TakenByEach::new();
    let piece = relay.piece(draft);
    let size = piece.len();
    batch.send(together.iter().map(|connection| connection.stream.get_ref()), piece, &mut taken);
    for (connection, taken) in together.iter().zip(&taken) {
        let Ok(taken) = *taken else {
            connection.broken.set(true);
            connection.wake();
            continue;
        };
        relay.wrote(connection.page, draft, taken as u64);
        if taken < size {
            relay.blocked(connection.page);
            connection.wake();
        }
    }
    together.clear();
}

/// Writes to a page whatever it is to be sent, as far as its socket takes it.
pub fn serve(daemon: &Daemon, connection: &Connection) {
    let mut draft = daemon.draft.borrow_mut();
    draft.begin(daemon.clock.now());
    let mut relay = daemon.relay.borrow_mut();
    write(&mut relay, &mut draft, connection);
    if relay.is_full() {
        daemon.serve.raise();
    }
}

fn write(relay: &mut Relay, draft: &mut Draft, connection: &Connection) {
    for _ in 0..WRITES_PER_PAGE {
        match write_once(relay, draft, connection) {
            Written::Everything => return,
            Written::Some => {}
            Written::Nothing => break,
        }
    }
    connection.wake();
}

enum Written {
    /// There is nothing more to send.
    Everything,
    /// There may be more.
    Some,
    /// The page's own task must do something: wait, close, or end.
    Nothing,
}

fn write_once(relay: &mut Relay, draft: &mut Draft, connection: &Connection) -> Written {
    let page = connection.page;
    relay.plan(page, draft);
    if draft.is_cut() {
        relay.handle_page_overtaken(page);
        return Written::Nothing;
    }
    let control = connection.control.borrow();
    if draft.is_closing() && control.is_empty() {
        return Written::Nothing;
    }
    let first = if draft.is_between_frames() { control.len() } else { 0 };
    if first == 0 && draft.is_empty() {
        return Written::Everything;
    }
    let mut slices = Slices::new();
    if first > 0 {
        let _ = slices.push(IoSlice::new(&control));
    }
    let gathered = relay.gather(page, draft, &mut slices);
    let sent = send_slices(&connection.stream, &slices);
    drop(slices);
    drop(control);
    let Ok(taken) = sent else {
        connection.broken.set(true);
        return Written::Nothing;
    };
    let of_control = taken.min(first);
    if of_control > 0 {
        let mut control = connection.control.borrow_mut();
        control.drain(..of_control);
        if control.is_empty() {
            // It is rare: an idle page keeps no buffer for it.
            *control = Vec::new();
        }
    }
    relay.wrote(page, draft, (taken - of_control) as u64);
    if taken < first + usize::try_from(gathered).unwrap_or(usize::MAX) {
        relay.blocked(page);
        return Written::Nothing;
    }
    let is_everything = gathered == draft.size() && !draft.is_shortened() && !draft.is_closing();
    if is_everything { Written::Everything } else { Written::Some }
}
