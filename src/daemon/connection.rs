//! A page's socket, shared by the page's task and whoever writes to it; and the rule that keeps frames whole.
//!
//! Owns the control slot, where tungstenite's own small frames (pong, close) wait, and the one `writev` that sends what is in it
//! first, between two frames of ours and never inside one. Knows what is begun only by being told, and neither what the
//! frames say nor who makes them: that is [`Outgoing`], which the fan-out and the tests' echo have each for themselves.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::Waker;

use super::boundary::Boundary;
use super::budget::Budget;
use super::stream::Stream;
use relay::transmit::Slices;

/// One control frame is at most so many bytes (RFC 6455, section 5.5: a payload of 125).
const CONTROL_FRAME_SIZE_MAX: usize = 127;
/// Two of them are the most that wait: a pong, and the close frame behind it.
pub(super) const CONTROL_SIZE_MAX: usize = 2 * CONTROL_FRAME_SIZE_MAX;

/// A page's socket. `P` is the page's name with whoever it belongs to.
#[derive(Debug)]
pub struct Connection<P> {
    /// Whose it is.
    pub page: P,
    pub(super) stream: Stream,
    /// Frames of tungstenite's own that wait for a place between two of ours.
    control: RefCell<Vec<u8>>,
    /// The page's task.
    waker: RefCell<Option<Waker>>,
    /// The socket failed: its task is to end.
    broken: Cell<bool>,
    /// Where the page's own frames stand.
    boundary: Cell<Boundary>,
    /// What is left of the turn of the page's task.
    budget: Cell<Budget>,
}

/// What goes to a page besides the control slot's frames.
pub trait Outgoing {
    /// Collects its bytes as far as they find room in `out`; gives how many they are.
    fn gather<'a>(&'a self, out: &mut Slices<'a>) -> u64;
}

/// How far one write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes taken of what was gathered.
    pub size: u64,
    /// Whether the socket took all that it was offered, the control slot's frames included.
    pub is_whole: bool,
}

impl<P> Connection<P> {
    /// A connection that stands between two frames on both ways.
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

    /// Whether a pong or a close frame waits to go out.
    pub fn has_control(&self) -> bool {
        !self.control.borrow().is_empty()
    }

    /// One write: what waits in the control slot where that has its place, then what `outgoing` has. `None`: the
    /// socket failed, which the page's task finds out by itself.
    pub fn write(&self, is_between_frames: bool, outgoing: &impl Outgoing) -> Option<Sent> {
        let control = self.control.borrow();
        let first = if is_between_frames { control.len() } else { 0 };
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
        Some(Sent { size, is_whole: of_control == first && size == gathered })
    }

    /// The page's task has something to do.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whom to wake for the page.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// The socket failed.
    pub(super) fn fail(&self) {
        self.broken.set(true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether nothing of tungstenite's is to go out first.
    pub(super) fn takes_ours_at_once(&self) -> bool {
        !self.is_broken() && !self.has_control()
    }

    /// Puts bytes into the control slot; `false` where they find no room.
    pub(super) fn push_control(&self, bytes: &[u8]) -> bool {
        let mut control = self.control.borrow_mut();
        let fits = control.len() + bytes.len() <= CONTROL_SIZE_MAX;
        if fits {
            control.extend_from_slice(bytes);
        }
        fits
    }

    /// Bytes came from the page; how many of them are before a frame too many of one message.
    pub(super) fn pass(&self, bytes: &[u8], fragments_max: u32) -> usize {
        let mut boundary = self.boundary.get();
        let passed = boundary.pass(bytes, fragments_max);
        self.boundary.set(boundary);
        passed
    }

    /// Whether a message of the page has more frames than it may.
    pub(super) fn has_fragments_too_many(&self) -> bool {
        self.boundary.get().is_over()
    }

    /// A turn of the page's task begins.
    pub(super) fn begin_turn(&self) {
        self.budget.set(Budget::TURN);
    }

    /// What is left of it.
    pub(super) fn budget(&self) -> Budget {
        self.budget.get()
    }

    /// The page's task does something.
    pub(super) fn step(&self) {
        let mut budget = self.budget.get();
        budget.step();
        self.budget.set(budget);
    }

    /// Reads as much as the turn has left for it; where that is nothing, as if there were nothing.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut budget = self.budget.get();
        if budget.is_spent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let size = self.stream.read(budget.clip(into))?;
        budget.take(size);
        self.budget.set(budget);
        Ok(size)
    }

    /// Whether the page is in the middle of no message and no frame of its own.
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
            // It is rare: an idle page keeps no buffer for it.
            *control = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use super::super::stream::tests::pair;
    use super::*;

    struct Words(&'static [u8]);

    impl Outgoing for Words {
        fn gather<'a>(&'a self, out: &mut Slices<'a>) -> u64 {
            out.push(self.0).map_or(0, |()| self.0.len() as u64)
        }
    }

    fn connected() -> (Connection<()>, TcpStream) {
        let (near, page) = pair();
        (Connection::new((), near), page)
    }

    #[test]
    fn control_frames_wait_for_a_frames_end_and_go_first_then() {
        let (connection, mut page) = connected();
        assert!(connection.push_control(b"pong."));
        assert_eq!(connection.write(false, &Words(b"rest,")), Some(Sent { size: 5, is_whole: true }));
        assert!(connection.has_control());
        assert_eq!(connection.write(true, &Words(b"frame")), Some(Sent { size: 5, is_whole: true }));
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
        assert_eq!(connection.write(true, &Words(b"")), Some(Sent { size: 0, is_whole: false }));
        assert!(connection.has_control());
        page.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        while connection.has_control() {
            // Until there is room for it again.
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
    fn a_socket_that_failed_is_broken() {
        let (connection, page) = connected();
        drop(page);
        while connection.write(true, &Words(b"frame")).is_some() {}
        assert!(connection.is_broken());
    }
}
