//! The fan-out: one task that serves the pages the machine names, one `writev` each, with a budget for each turn.
//!
//! It owns the row of sockets beside the machine's session table. A page's own task is woken only when
//! its socket took no more, or when it is to be closed. tungstenite's own small frames (pong, close)
//! wait in the connection's control slot and go out first, between two frames of ours.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::task::Waker;

use smol::{Async, future};

use super::Daemon;
use super::boundary::Boundary;
use crate::relay::pages::Verdict;
use crate::relay::session::Session;
use crate::relay::table::Id;
use crate::relay::transmit::Slices;

/// Pages served before other tasks have their turn: 256 writes are about 1.3 ms.
const PAGES_PER_TURN: usize = 256;
/// Writes to one page in one turn, at most: more than one only where a plan didn't hold everything.
const WRITES_PER_PAGE: usize = 4;
/// tungstenite's control frames are at most so many bytes.
pub const CONTROL_SIZE_MAX: usize = 127;

/// A page's socket, shared by its task and the fan-out.
#[derive(Debug)]
pub struct Connection {
    pub stream: Rc<Async<TcpStream>>,
    /// Frames of tungstenite's own that wait for a place between two of ours.
    pub control: RefCell<Vec<u8>>,
    /// The socket failed: its task is to end.
    pub broken: Cell<bool>,
    /// Where the page's own frames stand.
    pub boundary: Cell<Boundary>,
}

/// The sockets of the session table's pages, by their row.
pub struct Connections {
    rows: Vec<Option<Row>>,
}

struct Row {
    page: Id<Session>,
    connection: Rc<Connection>,
    waker: Option<Waker>,
}

impl Connections {
    /// No sockets; room for `pages_max`.
    pub fn new(pages_max: u32) -> Self {
        Self { rows: Vec::with_capacity(pages_max as usize) }
    }

    /// A page's socket.
    pub fn insert(&mut self, page: Id<Session>, connection: Rc<Connection>) {
        let index = page.index() as usize;
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, || None);
        }
        if let Some(row) = self.rows.get_mut(index) {
            *row = Some(Row { page, connection, waker: None });
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

    /// Whom to wake for a page.
    pub fn set_waker(&mut self, page: Id<Session>, waker: &Waker) {
        if let Some(row) = self.row_mut(page)
            && !row.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            row.waker = Some(waker.clone());
        }
    }

    fn row_mut(&mut self, page: Id<Session>) -> Option<&mut Row> {
        self.rows.get_mut(page.index() as usize)?.as_mut().filter(|row| row.page == page)
    }

    fn connection(&self, page: Id<Session>) -> Option<Rc<Connection>> {
        let row = self.rows.get(page.index() as usize)?.as_ref().filter(|row| row.page == page)?;
        Some(Rc::clone(&row.connection))
    }

    fn wake(&self, page: Id<Session>) {
        if let Some(Some(row)) = self.rows.get(page.index() as usize)
            && row.page == page
            && let Some(waker) = &row.waker
        {
            waker.wake_by_ref();
        }
    }
}

/// Serves pages for as long as the daemon runs.
pub async fn run(daemon: Rc<Daemon>) {
    loop {
        daemon.serve.wait().await;
        while serve_turn(&daemon) {
            future::yield_now().await;
        }
    }
}

/// Serves a turn's pages; whether there are more.
fn serve_turn(daemon: &Daemon) -> bool {
    for _ in 0..PAGES_PER_TURN {
        let page = daemon.relay.borrow_mut().poll_page();
        match page {
            Some(page) => serve(daemon, page),
            None => return false,
        }
    }
    true
}

/// Writes to a page whatever it is to be sent, as far as its socket takes it.
pub fn serve(daemon: &Daemon, page: Id<Session>) {
    let Some(connection) = daemon.connections.borrow().connection(page) else { return };
    for _ in 0..WRITES_PER_PAGE {
        match write_once(daemon, page, &connection) {
            Written::Everything => return,
            Written::Some => {}
            Written::Nothing => break,
        }
    }
    daemon.connections.borrow().wake(page);
}

enum Written {
    /// There is nothing more to send.
    Everything,
    /// There may be more.
    Some,
    /// The page's own task must do something: wait, close, or end.
    Nothing,
}

fn write_once(daemon: &Daemon, page: Id<Session>, connection: &Connection) -> Written {
    let now = daemon.clock.now();
    let mut relay = daemon.relay.borrow_mut();
    let verdict = relay.verdict(page);
    if verdict == Verdict::Cut || verdict != Verdict::Serve && connection.control.borrow().is_empty() {
        return Written::Nothing;
    }
    let mut scratch = daemon.scratch.borrow_mut();
    let plan = relay.plan(now, page, &mut scratch);
    if plan.is_cut() {
        relay.handle_page_overtaken(page);
        return Written::Nothing;
    }
    let control = connection.control.borrow();
    let first = if relay.is_between_frames(page) { control.len() } else { 0 };
    if first == 0 && plan.is_empty() {
        return Written::Everything;
    }
    let mut slices = Slices::new();
    if first > 0 {
        let _ = slices.push(IoSlice::new(&control));
    }
    let gathered = relay.gather(page, &plan, &scratch, &mut slices);
    let result = loop {
        let mut socket = connection.stream.get_ref();
        let result = match slices.as_slice() {
            // What most deliveries are: one slice takes the kernel's shorter way.
            [slice] => socket.write(slice),
            slices => socket.write_vectored(slices),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    drop(slices);
    drop(control);
    let taken = match result {
        Ok(taken) => taken,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(_) => {
            connection.broken.set(true);
            return Written::Nothing;
        }
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
    let of_plan = (taken - of_control) as u64;
    relay.wrote(now, page, &plan, &scratch, of_plan);
    if taken < first + usize::try_from(gathered).unwrap_or(usize::MAX) {
        relay.blocked(page);
        return Written::Nothing;
    }
    let is_everything = gathered == plan.size() && !plan.is_shortened() && verdict == Verdict::Serve;
    if is_everything { Written::Everything } else { Written::Some }
}
