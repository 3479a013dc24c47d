//! One page's task: reads, closes, and waits for its socket. The bytes for the page come from its
//! owner.
//!
//! A hand-written future, kept small because there are thousands: tungstenite's state is created
//! when bytes arrive and dropped when they completed a message. Only the task polls the socket.
//! tungstenite reads through [`Lower`], which never waits, and writes its own pong and close frames
//! into the connection's control slot, from where they are sent between two of our frames. While
//! the socket is full, nothing is read either: a page that doesn't read is not read. Doesn't know
//! what messages mean: [`Behind`] does, which is the daemon with its machine, or an echo in the
//! tests.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use smol::{LocalExecutor, Timer};

use super::connection::{CONTROL_SIZE_MAX, Connection};
use relay::pages::Verdict;
use relay::texts::shortened;

/// tungstenite's read buffer, while there is one: holds a usual `subscribe`.
const READ_BUFFER_SIZE: usize = 512;
/// Bytes of a closing page that are read and discarded at a time.
const DISCARD_SIZE: usize = 1024;
/// Divisor of the pause for a page that is closing: its close frame may come after everything that
/// it sent before, and its close timeout is short.
const CLOSING_FACTOR: u32 = 25;

/// The owner of pages. Each page's task calls it, one call at a time.
pub trait Behind: 'static {
    /// Identifies a page.
    type Page: Copy + 'static;
    /// Bytes of a page's message, at most, in one frame or in several; more is closed with 1009.
    const MESSAGE_SIZE_MAX: usize;
    /// Frames of a page's message, at most; one more is closed with 1008, however small they are.
    const FRAGMENTS_MAX: u32;
    /// Pause before a page that sent more than one turn holds is read again.
    const REST: Duration;

    /// The page sent a text message.
    fn text(&self, page: Self::Page, text: &str);
    /// The page sent a binary message.
    fn binary(&self, page: Self::Page, bytes: &[u8]);
    /// The page sent a sign of life: a ping or a pong.
    fn heard(&self, page: Self::Page);
    /// The page began the closing handshake: finish the frame that is half sent, and begin no
    /// other.
    fn leaving(&self, page: Self::Page);
    /// The page broke the WebSocket protocol or one of its limits: as for
    /// [`leaving`](Self::leaving). It is closed with this code.
    fn broken(&self, page: Self::Page, code: u16);
    /// TLS keys of the page are used up and were not renewed: it must connect anew.
    fn used_up(&self, page: Self::Page);
    /// The connection is gone.
    fn gone(&self, page: Self::Page);
    /// Whether to serve, close or cut the connection.
    fn verdict(&self, page: Self::Page) -> Verdict;
    /// Whether the socket was full when it was last written to.
    fn is_blocked(&self, page: Self::Page) -> bool;
    /// The socket is writable again.
    fn unblocked(&self, page: Self::Page);
    /// Writes what is ahead of the page, control frames included, as far as the socket takes it. If
    /// it didn't take everything, [`is_blocked`](Self::is_blocked) holds from then on.
    fn serve(&self, connection: &Connection<Self::Page>);
}

/// Starts the task of an upgraded page. `early` holds bytes that arrived behind the request head.
pub fn begin<B: Behind>(
    behind: Rc<B>,
    executor: &LocalExecutor<'static>,
    connection: Rc<Connection<B::Page>>,
    early: Vec<u8>,
) {
    let socket = if early.is_empty() { None } else { open_socket::<B>(&connection, early) };
    executor.spawn(Page { behind, connection, socket, state: State::Open, rest: None }).detach();
}

/// tungstenite's five sizes. Only pong and close frames pass through its write buffer.
fn web_socket_config(message_size_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_SIZE)
        .write_buffer_size(0)
        .max_write_buffer_size(CONTROL_SIZE_MAX)
        .max_message_size(Some(message_size_max))
        .max_frame_size(Some(message_size_max))
}

type Socket<B> = Box<WebSocketStream<Lower<B>>>;

/// Creates WebSocket state for a page; `early` was read already.
fn open_socket<B: Behind>(connection: &Rc<Connection<B::Page>>, mut early: Vec<u8>) -> Option<Socket<B>> {
    early.truncate(connection.pass(&early, B::FRAGMENTS_MAX));
    let lower = Lower(Rc::clone(connection));
    let config = web_socket_config(B::MESSAGE_SIZE_MAX);
    let opening = WebSocketStream::from_partially_read(lower, early, Role::Server, Some(config));
    // It is ready at once: it has nothing to wait for.
    match pin!(opening).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(socket) => Some(Box::new(socket)),
        Poll::Pending => None,
    }
}

/// State of a page's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Frames are read.
    Open,
    /// Our close frame is queued or sent: waits for the peer's.
    Closing,
    /// Both close frames are done, or the page's bytes are no longer WebSocket: what is queued is
    /// sent.
    Ending,
    /// Everything is sent. Input is discarded until the page closes: dropping the socket earlier
    /// would reset it, and could lose the close frame. The close timeout limits this.
    Ended,
}

struct Page<B: Behind> {
    behind: Rc<B>,
    connection: Rc<Connection<B::Page>>,
    /// Present while a message is half read or the connection is closing.
    socket: Option<Socket<B>>,
    state: State,
    /// Pause after a spent turn; nothing is read until then.
    rest: Option<Box<Timer>>,
}

impl<B: Behind> Future for Page<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let page = self.get_mut();
        page.connection.set_waker(context.waker());
        if page.rest.is_none() {
            page.connection.begin_turn();
        }
        loop {
            if page.connection.is_used_up() && page.state == State::Open {
                page.behind.used_up(page.connection.page);
            }
            match page.behind.verdict(page.connection.page) {
                Verdict::Cut => return Poll::Ready(()),
                Verdict::Close(code, reason) if page.state == State::Open => {
                    page.close(context, code, &reason);
                    page.state = State::Closing;
                }
                Verdict::Close(..) | Verdict::Serve => {}
            }
            // A full socket is left alone until it is writable: retrying would never end.
            if page.connection.has_control() && !page.is_blocked() {
                page.behind.serve(&page.connection);
            }
            if page.connection.is_broken() {
                return Poll::Ready(());
            }
            if page.state == State::Ending && !page.connection.has_control() {
                let _ = page.connection.stream.end_writing();
                page.state = State::Ended;
            }
            if page.is_blocked() {
                match page.connection.stream.poll_writable(context) {
                    Poll::Ready(Ok(())) => {
                        page.behind.unblocked(page.connection.page);
                        page.behind.serve(&page.connection);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    // A closing page is read even while its socket is full.
                    Poll::Pending if page.state == State::Open => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if page.connection.budget().is_spent() && page.poll_rest(context).is_pending() {
                return Poll::Pending;
            }
            page.connection.step();
            match page.read(context) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                // tungstenite puts the answer to a ping into the slot with its next read, which
                // found nothing.
                Poll::Pending if page.connection.has_control() && !page.is_blocked() => {}
                // tungstenite reads until a message is complete, and got `Pending` for a spent
                // turn.
                Poll::Pending if page.connection.budget().is_spent() => {}
                Poll::Pending => match page.connection.stream.poll_readable(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

impl<B: Behind> Page<B> {
    fn is_blocked(&self) -> bool {
        self.behind.is_blocked(self.connection.page)
    }

    /// Waits for the pause after a spent turn.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if B::REST.is_zero() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = if self.state == State::Open { B::REST } else { B::REST / CLOSING_FACTOR };
        let rest = self.rest.get_or_insert_with(|| Box::new(Timer::after(rest)));
        if Pin::new(&mut **rest).poll(context).is_pending() {
            return Poll::Pending;
        }
        self.rest = None;
        self.connection.begin_turn();
        Poll::Ready(())
    }

    /// Reads one frame; `false` if the connection is over.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if matches!(self.state, State::Ending | State::Ended) {
            return self.discard();
        }
        let Some(socket) = self.socket() else { return Poll::Ready(false) };
        let message = match Pin::new(socket).poll_next(context) {
            Poll::Ready(message) => message,
            Poll::Pending if self.connection.has_fragments_too_many() => {
                let reason = format!("a page's message is in at most {} frames", B::FRAGMENTS_MAX);
                return Poll::Ready(self.give_up(context, 1008, &reason));
            }
            Poll::Pending => {
                if self.state == State::Open && self.connection.is_between_messages() {
                    self.socket = None;
                }
                return Poll::Pending;
            }
        };
        match message {
            Some(Ok(message)) => {
                self.handle(message);
                Poll::Ready(true)
            }
            Some(Err(error)) => Poll::Ready(self.fail(context, &error)),
            None => {
                // The closing handshake is complete: its last frame is in the control slot.
                self.state = State::Ending;
                Poll::Ready(true)
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let page = self.connection.page;
        match message {
            Message::Text(text) => self.behind.text(page, &text),
            Message::Binary(bytes) => self.behind.binary(page, &bytes),
            Message::Close(_) => {
                self.behind.leaving(page);
                if self.state == State::Open {
                    // tungstenite puts its close frame into the control slot with the next read.
                    self.state = State::Closing;
                }
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => self.behind.heard(page),
        }
        // A frame's answer is sent before the next frame is read.
        self.behind.serve(&self.connection);
    }

    /// Handles a violation of the WebSocket protocol or of a limit: the close frame states it, if
    /// one can be sent.
    fn fail(&mut self, context: &mut Context<'_>, error: &Error) -> bool {
        let too_long;
        let (code, reason) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                too_long = format!("a page's frames are at most {} bytes", B::MESSAGE_SIZE_MAX);
                (1009, too_long.as_str())
            }
            Error::Capacity(_) => (1009, "too large"),
            Error::Utf8(_) => (1007, "a text frame is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.connection.stream.answer_end();
                return false;
            }
            Error::Protocol(_) => (1002, "that is not the WebSocket protocol"),
            _ => return false,
        };
        self.give_up(context, code, reason)
    }

    /// Closes the page, and stops parsing its bytes as frames.
    fn give_up(&mut self, context: &mut Context<'_>, code: u16, reason: &str) -> bool {
        self.behind.broken(self.connection.page, code);
        if self.state == State::Open {
            self.close(context, code, reason);
        }
        self.state = State::Ending;
        true
    }

    /// Puts a close frame into the control slot.
    fn close(&mut self, context: &mut Context<'_>, code: u16, reason: &str) {
        let reason = shortened(reason, 123).to_owned().into();
        if let Some(socket) = self.socket() {
            let closing = socket.close(Some(CloseFrame { code: CloseCode::from(code), reason }));
            // The slot takes it at once: it has room for a pong and a close frame.
            let _ = pin!(closing).poll(context);
        }
    }

    fn socket(&mut self) -> Option<&mut WebSocketStream<Lower<B>>> {
        if self.socket.is_none() {
            self.socket = open_socket::<B>(&self.connection, Vec::new());
        }
        self.socket.as_deref_mut()
    }

    /// Reads and discards; `false` if the peer is gone.
    fn discard(&self) -> Poll<bool> {
        let mut nowhere = [0; DISCARD_SIZE];
        match self.connection.discard(&mut nowhere) {
            Ok(0) => Poll::Ready(false),
            Ok(_) => Poll::Ready(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(_) => Poll::Ready(false),
        }
    }
}

impl<B: Behind> Drop for Page<B> {
    fn drop(&mut self) {
        self.behind.gone(self.connection.page);
    }
}

/// tungstenite's transport. It never waits, since only the page's task polls the socket. It returns
/// no more than the turn's budget, and nothing after the frame limit of a message was exceeded:
/// then the task closes the page.
struct Lower<B: Behind>(Rc<Connection<B::Page>>);

impl<B: Behind> AsyncRead for Lower<B> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.0.has_fragments_too_many() {
            return Poll::Pending;
        }
        match self.0.read(into) {
            Ok(0) => Poll::Ready(Ok(0)),
            Ok(size) => match self.0.pass(into.get(..size).unwrap_or_default(), B::FRAGMENTS_MAX) {
                0 => Poll::Pending,
                passed => Poll::Ready(Ok(passed)),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<B: Behind> AsyncWrite for Lower<B> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.push_control(bytes) { Poll::Ready(Ok(bytes.len())) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::net::TcpStream;

    use super::super::budget;
    use super::super::connection::Outgoing;
    use super::super::stream::tests::pair;
    use super::super::tls::halves::Halves;
    use super::super::tls::secured::tests::secured;
    use super::*;
    use crate::clock::Clock;
    use relay::transmit::Slices;
    use rustix::io::ioctl_fionread;
    use tls::record::Content;

    const SIZE: usize = budget::SIZE as usize;

    /// Accepts everything that a page sends, and sends nothing. A page that floods pauses for
    /// `HOURS`.
    #[derive(Default)]
    struct Wall<const HOURS: u64> {
        is_cut: Cell<bool>,
    }

    impl<const HOURS: u64> Behind for Wall<HOURS> {
        type Page = ();
        const MESSAGE_SIZE_MAX: usize = 1 << 20;
        const FRAGMENTS_MAX: u32 = u32::MAX;
        const REST: Duration = Duration::from_secs(HOURS * 3600);

        fn text(&self, (): (), _: &str) {}
        fn binary(&self, (): (), _: &[u8]) {}
        fn heard(&self, (): ()) {}
        fn leaving(&self, (): ()) {}
        fn used_up(&self, (): ()) {}
        fn broken(&self, (): (), _: u16) {}
        fn gone(&self, (): ()) {}

        fn verdict(&self, (): ()) -> Verdict {
            if self.is_cut.get() { Verdict::Cut } else { Verdict::Serve }
        }

        fn is_blocked(&self, (): ()) -> bool {
            false
        }

        fn unblocked(&self, (): ()) {}

        /// Discards the pongs; over TLS, sends them.
        fn serve(&self, connection: &Connection<()>) {
            if connection.stream.secured().is_some() {
                connection.write(true, self);
            } else {
                connection.control_taken(connection.control_size());
            }
        }
    }

    impl<const HOURS: u64> Outgoing for Wall<HOURS> {
        fn gather<'a>(&'a self, _: &mut Slices<'a>) -> u64 {
            0
        }

        fn run<'a>(&'a self, _: u64, _: u64, _: &mut Slices<'a>) -> u64 {
            0
        }
    }

    /// A page that has sent `first`, and six turns of `again`.
    fn flooded<const HOURS: u64>(first: &[u8], again: &[u8]) -> (Rc<Wall<HOURS>>, Rc<Connection<()>>, TcpStream) {
        let (stream, mut page) = pair();
        let flood = [first, &again.repeat(6 * SIZE / again.len())].concat();
        page.write_all(&flood).unwrap();
        let connection = Rc::new(Connection::new((), stream));
        while waiting(&connection) < flood.len() {}
        (Rc::default(), connection, page)
    }

    fn waiting(connection: &Connection<()>) -> usize {
        ioctl_fionread(&connection.stream).unwrap().try_into().unwrap()
    }

    const FLOODS: [(&str, &[u8], &[u8]); 8] = [
        ("empty fragments", &[0x01, 0x80, 0, 0, 0, 0], &[0x00, 0x80, 0, 0, 0, 0]),
        ("fragments of one byte", &[0x01, 0x80, 0, 0, 0, 0], &[0x00, 0x81, 0, 0, 0, 0, b' ']),
        ("a frame that never ends", &[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0], &[b' '; 64]),
        ("pings", &[], &[0x89, 0x80, 0, 0, 0, 0]),
        ("pongs", &[], &[0x8a, 0x80, 0, 0, 0, 0]),
        ("empty texts", &[], &[0x81, 0x80, 0, 0, 0, 0]),
        ("bytes behind a close", &[0x88, 0x80, 0, 0, 0, 0], &[b' '; 64]),
        ("bytes behind nonsense", &[0xff; 8], &[b' '; 64]),
    ];

    #[test]
    fn whatever_a_page_floods_a_turn_takes_no_more_than_its_budget() {
        for (what, first, again) in FLOODS {
            let (wall, connection, _page) = flooded::<0>(first, again);
            let executor = LocalExecutor::new();
            begin(wall, &executor, Rc::clone(&connection), Vec::new());
            let mut left = waiting(&connection);
            let all = left;
            // What a turn reads may be handled in later ones.
            for turn in 1..=20 {
                assert!(executor.try_tick(), "{what}: it waits for more in turn {turn}, with {left} bytes there");
                let taken = left - waiting(&connection);
                left -= taken;
                assert!(taken <= SIZE, "{what}: {taken} bytes in turn {turn}");
                if left == 0 {
                    break;
                }
            }
            assert!(left < all, "{what}: nothing was read");
        }
    }

    #[test]
    fn the_peers_close_notify_is_answered_before_the_connection_is_gone() {
        let (stream, mut peer) = secured();
        let end = peer.record(Content::Alert, &[1, 0]);
        peer.socket.write_all(&end).unwrap();
        let connection = Rc::new(Connection::new((), stream));
        while waiting(&connection) < end.len() {}
        let executor = LocalExecutor::new();
        begin(Rc::new(Wall::<1>::default()), &executor, connection, Vec::new());
        assert!(executor.try_tick() && executor.is_empty());
        assert_eq!(String::from_utf8(peer.hear(100)).unwrap(), "Alert [1, 0]");
    }

    #[test]
    fn a_page_that_floods_rests_and_can_be_cut_meanwhile() {
        for (what, first, again) in FLOODS {
            let (wall, connection, _page) = flooded::<1>(first, again);
            let executor = LocalExecutor::new();
            begin(Rc::clone(&wall), &executor, Rc::clone(&connection), Vec::new());
            assert!(executor.try_tick());
            let left = waiting(&connection);
            connection.wake();
            assert!(executor.try_tick());
            assert!(!executor.try_tick(), "{what}: it does not rest");
            assert_eq!(waiting(&connection), left, "{what}");
            assert_eq!(Rc::strong_count(&wall), 2, "{what}: it is gone");
            wall.is_cut.set(true);
            connection.wake();
            assert!(executor.try_tick());
            assert_eq!(Rc::strong_count(&wall), 1, "{what}: it is there still");
        }
    }

    type Record = (Content, &'static [u8]);

    /// Records of TLS that a page repeats, behind one that begins a frame without end.
    const TLS_FLOODS: [(&str, &[Record]); 4] = [
        ("records of one byte", &[(Content::ApplicationData, b" ")]),
        ("empty records", &[(Content::ApplicationData, b""), (Content::ApplicationData, b" ")]),
        ("key updates", &[(Content::Handshake, &[24, 0, 0, 1, 0]), (Content::ApplicationData, b" ")]),
        ("key updates that want one", &[(Content::Handshake, &[24, 0, 0, 1, 1]), (Content::ApplicationData, b" ")]),
    ];

    #[test]
    fn whatever_records_a_page_floods_a_turn_takes_few_of_them_and_then_it_rests() {
        const RECORDS: usize = 200;
        const RECORDS_PER_TURN: usize = 16;
        for (what, again) in TLS_FLOODS {
            let (stream, mut peer) = secured();
            let halves = Rc::new(Halves::new(4, Clock::start()));
            assert!(stream.secured().unwrap().move_to(&halves));
            let begin_frame: Record = (Content::ApplicationData, FLOODS[2].1);
            let records = [begin_frame].into_iter().chain(again.iter().copied().cycle()).take(RECORDS);
            let mut ends = vec![0];
            let wire: Vec<Vec<u8>> = records.map(|(content, plain)| peer.record(content, plain)).collect();
            wire.iter().for_each(|record| ends.push(ends.last().unwrap() + record.len()));
            peer.socket.write_all(&wire.concat()).unwrap();
            let connection = Rc::new(Connection::new((), stream));
            while waiting(&connection) < *ends.last().unwrap() {}
            let wall = Rc::new(Wall::<1>::default());
            let executor = LocalExecutor::new();
            begin(Rc::clone(&wall), &executor, Rc::clone(&connection), Vec::new());
            assert!(executor.try_tick());
            let taken = ends.last().unwrap() - waiting(&connection);
            let count = ends.iter().position(|end| *end == taken).expect("whole records");
            assert!((1..=RECORDS_PER_TURN).contains(&count), "{what}: {count} records in a turn");
            connection.wake();
            assert!(executor.try_tick());
            assert!(!executor.try_tick(), "{what}: it does not rest");
            assert_eq!(ends.last().unwrap() - waiting(&connection), taken, "{what}");
            assert_eq!(Rc::strong_count(&wall), 2, "{what}: it is gone");
        }
    }
}
