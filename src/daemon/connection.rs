//! A page's socket, shared by the page's task and its writer, and the rule that keeps frames whole.
//!
//! Owns the control slot, which holds tungstenite's own small frames (pong, close), and the write
//! that sends them first, between two of our frames and never inside one. The caller reports
//! whether a frame is half sent. Doesn't know what the frames say or who makes them: that is
//! [`Outgoing`], implemented by the fan-out and by the tests' echo.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::task::Waker;

use super::boundary::Boundary;
use super::budget::{Budget, RECORD_SIZE_MIN};
use super::stream::Stream;
use super::tls::secured::Secured;
use relay::transmit::{Progress, Slices};

/// Bytes of one control frame, at most (RFC 6455, section 5.5: a payload of 125).
const CONTROL_FRAME_SIZE_MAX: usize = 127;
/// At most two control frames wait: a pong and the close frame after it.
pub(super) const CONTROL_SIZE_MAX: usize = 2 * CONTROL_FRAME_SIZE_MAX;

/// A page's socket. `P` identifies the page to its owner.
#[derive(Debug)]
pub struct Connection<P> {
    /// The page.
    pub page: P,
    pub(super) stream: Stream,
    /// tungstenite's own frames, waiting for the end of our current frame.
    control: RefCell<Vec<u8>>,
    /// Wakes the page's task.
    waker: RefCell<Option<Waker>>,
    /// The socket failed: the page's task must end.
    broken: Cell<bool>,
    /// Position in the stream of frames that the page sends.
    boundary: Cell<Boundary>,
    /// What is left of the current turn of the page's task.
    budget: Cell<Budget>,
}

/// The source of a page's bytes, apart from the control slot.
pub trait Outgoing {
    /// Appends its bytes to `out` as far as they fit; returns their number.
    fn gather<'a>(&'a self, out: &mut Slices<'a>) -> u64;

    /// With TLS: appends the bytes of the record that begins at the offset `at`, at most `most` and
    /// of one source; returns their number, 0 if no more should be offered. The bytes that a write
    /// reports as begun must be the first again, as they were.
    fn run<'a>(&'a self, at: u64, most: u64, out: &mut Slices<'a>) -> u64;
}

/// Result of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The bytes of `outgoing` that were written.
    pub progress: Progress,
    /// Whether the socket took everything offered, control frames included.
    pub is_whole: bool,
}

impl<P> Connection<P> {
    /// A connection at a frame boundary in both directions.
    pub fn new(page: P, stream: Stream) -> Self {
        Self {
            page,
            stream,
            control: RefCell::default(),
            waker: RefCell::default(),
            broken: Cell::default(),
            boundary: Cell::default(),
            budget: Cell::new(Budget::TURN),
        }
    }

    /// Whether a pong or a close frame waits to be sent, or a record of TLS's own.
    pub fn has_control(&self) -> bool {
        !self.control.borrow().is_empty() || self.stream.secured().is_some_and(Secured::has_own)
    }

    /// One write: the control slot first if our stream is between frames, then the bytes of
    /// `outgoing`. `None` if the socket failed, now or before; the page's task finds that out by
    /// itself.
    pub fn write(&self, is_between_frames: bool, outgoing: &impl Outgoing) -> Option<Sent> {
        if self.is_broken() {
            return None;
        }
        let control = self.control.borrow();
        let first = if is_between_frames { control.len() } else { 0 };
        if let Some(secured) = self.stream.secured() {
            let control_now = control.get(..first).unwrap_or_default();
            let written = secured.write(self.stream.as_fd(), control_now, |at, most, out| outgoing.run(at, most, out));
            drop(control);
            let Ok(written) = written else {
                self.fail();
                return None;
            };
            if written.control > 0 {
                self.control_taken(written.control);
            }
            return Some(Sent { progress: written.progress, is_whole: written.is_whole });
        }
        let mut slices = Slices::new();
        if first > 0 {
            let _ = slices.push(&control[..]);
        }
        let gathered = outgoing.gather(&mut slices);
        let sent = self.stream.write_slices(&slices);
        drop(slices);
        drop(control);
        let Ok(taken) = sent else {
            self.fail();
            return None;
        };
        let of_control = taken.min(first);
        if of_control > 0 {
            self.control_taken(of_control);
        }
        let size = (taken - of_control) as u64;
        let progress = Progress { socket: taken as u64, ..Progress::plain(size) };
        Some(Sent { progress, is_whole: of_control == first && size == gathered })
    }

    /// Wakes the page's task.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Sets the waker of the page's task.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Marks the socket as failed: nothing more is sent.
    pub(super) fn fail(&self) {
        self.broken.set(true);
        if let Some(secured) = self.stream.secured() {
            secured.abandon();
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether our frames may be sent now, with no control frame before them.
    pub(super) fn takes_ours_at_once(&self) -> bool {
        !self.is_broken() && !self.has_control() && self.stream.secured().is_none_or(Secured::is_at_rest)
    }

    /// Whether its TLS keys are used up, so that it must be closed.
    pub(super) fn is_used_up(&self) -> bool {
        self.stream.secured().is_some_and(Secured::is_used_up)
    }

    /// Puts bytes into the control slot; `false` if they don't fit.
    pub(super) fn push_control(&self, bytes: &[u8]) -> bool {
        let mut control = self.control.borrow_mut();
        let fits = control.len() + bytes.len() <= CONTROL_SIZE_MAX;
        if fits {
            control.extend_from_slice(bytes);
        }
        fits
    }

    /// Parses bytes that the page sent; returns how many precede the first frame over a message's
    /// limit.
    pub(super) fn pass(&self, bytes: &[u8], fragments_max: u32) -> usize {
        let mut boundary = self.boundary.get();
        let passed = boundary.pass(bytes, fragments_max);
        self.boundary.set(boundary);
        passed
    }

    /// Whether a message of the page exceeded its frame limit.
    pub(super) fn has_fragments_too_many(&self) -> bool {
        self.boundary.get().is_over()
    }

    /// Begins a turn of the page's task.
    pub(super) fn begin_turn(&self) {
        self.budget.set(Budget::TURN);
    }

    /// What is left of the current turn.
    pub(super) fn budget(&self) -> Budget {
        self.budget.get()
    }

    /// Takes a step from the turn.
    pub(super) fn step(&self) {
        let mut budget = self.budget.get();
        budget.step();
        self.budget.set(budget);
    }

    /// Reads as much as the turn still allows. Once it is spent, fails with `WouldBlock` as if
    /// nothing had arrived.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read_by(into, Stream::read)
    }

    /// The same for bytes that nobody looks at.
    pub(super) fn discard(&self, nowhere: &mut [u8]) -> io::Result<usize> {
        self.read_by(nowhere, Stream::discard)
    }

    fn read_by(&self, into: &mut [u8], read: impl Fn(&Stream, &mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut budget = self.budget.get();
        let record_size = if self.stream.secured().is_some() { RECORD_SIZE_MIN } else { 0 };
        while !budget.is_spent() {
            match read(&self.stream, budget.clip(into)) {
                Ok(size) => {
                    budget.take(size.max(record_size));
                    self.budget.set(budget);
                    return Ok(size);
                }
                // A record without data, or a part of one: more may be there.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => budget.take(record_size),
                // No place for the rest of a record: tried again after a pause.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => budget.take(usize::MAX),
                Err(error) => {
                    self.budget.set(budget);
                    return Err(error);
                }
            }
        }
        self.budget.set(budget);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Whether the page is outside any message and any frame of its own.
    pub(super) fn is_between_messages(&self) -> bool {
        self.boundary.get().is_between_messages()
    }

    #[cfg(test)]
    pub(super) fn control_size(&self) -> usize {
        self.control.borrow().len()
    }

    pub(super) fn control_taken(&self, size: usize) {
        let mut control = self.control.borrow_mut();
        control.drain(..size);
        if control.is_empty() {
            // Control frames are rare, and an idle page should keep no buffer.
            *control = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use super::super::stream::tests::pair;
    use super::super::tls::secured::tests::secured;
    use super::*;

    struct Words(&'static [u8]);

    impl Outgoing for Words {
        fn gather<'a>(&'a self, out: &mut Slices<'a>) -> u64 {
            out.push(self.0).map_or(0, |()| self.0.len() as u64)
        }

        fn run<'a>(&'a self, at: u64, most: u64, out: &mut Slices<'a>) -> u64 {
            let rest = self.0.get(usize::try_from(at).unwrap()..).unwrap_or_default();
            let run = &rest[..rest.len().min(usize::try_from(most).unwrap())];
            out.push(run).map_or(0, |()| run.len() as u64)
        }
    }

    fn sent(control: u64, size: u64, is_whole: bool) -> Option<Sent> {
        Some(Sent { progress: Progress { size, begun: 0, socket: control + size }, is_whole })
    }

    fn connected() -> (Connection<()>, TcpStream) {
        let (near, page) = pair();
        (Connection::new((), near), page)
    }

    #[test]
    fn control_frames_wait_for_a_frames_end_and_go_first_then() {
        let (connection, mut page) = connected();
        assert!(connection.push_control(b"pong."));
        assert_eq!(connection.write(false, &Words(b"rest,")), sent(0, 5, true));
        assert!(connection.has_control());
        assert_eq!(connection.write(true, &Words(b"frame")), sent(5, 5, true));
        assert!(!connection.has_control());
        assert_eq!(connection.control.borrow().capacity(), 0, "an idle page keeps no buffer");
        let mut said = [0; 15];
        page.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"rest,pong.frame");
    }

    #[test]
    fn the_slot_has_room_for_a_pong_and_a_close_frame() {
        let (connection, _page) = connected();
        assert!(connection.push_control(&[0; CONTROL_FRAME_SIZE_MAX]));
        assert!(connection.push_control(&[0; CONTROL_FRAME_SIZE_MAX]));
        assert!(!connection.push_control(&[0]));
    }

    #[test]
    fn a_full_socket_keeps_what_it_did_not_take_in_the_slot() {
        let (connection, mut page) = connected();
        let words = Words(&[b'x'; 4096]);
        while connection.write(true, &words).unwrap().is_whole {}
        assert!(connection.push_control(b"pong."));
        assert_eq!(connection.write(true, &Words(b"")), sent(0, 0, false));
        assert!(connection.has_control());
        page.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        while connection.has_control() {
            // Make room in the socket.
            let mut taken = [0; 65_536];
            if let Ok(size) = page.read(&mut taken) {
                said.extend_from_slice(&taken[..size]);
            }
            connection.write(true, &Words(b"")).unwrap();
        }
        drop(connection);
        page.set_nonblocking(false).unwrap();
        page.read_to_end(&mut said).unwrap();
        assert!(said.ends_with(b"pong.") && said[..said.len() - 5].iter().all(|byte| *byte == b'x'));
    }

    #[test]
    fn nothing_is_sealed_once_nobody_knows_what_has_left() {
        let (stream, mut peer) = secured();
        let connection = Connection::new((), stream);
        assert_eq!(connection.write(true, &Words(b"frame")).map(|sent| sent.is_whole), Some(true));
        connection.fail();
        assert!(connection.push_control(b"pong."));
        assert_eq!(connection.write(true, &Words(b"frame")), None);
        assert!(connection.stream.write(b"frame").is_err() && !connection.takes_ours_at_once());
        connection.stream.end_writing().unwrap();
        assert_eq!(peer.hear(1_000), b"frame");
        assert!(peer.hear(1_000).is_empty(), "not even the end");
    }

    #[test]
    fn a_socket_that_failed_is_broken() {
        let (connection, page) = connected();
        drop(page);
        while connection.write(true, &Words(b"frame")).is_some() {}
        assert!(connection.is_broken());
    }
}
