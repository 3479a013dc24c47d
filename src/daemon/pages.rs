//! One page's task: reads, closes, waits for its socket. What is written to a page is the fan-out's.
//!
//! A hand-written future, small because there are thousands: tungstenite's state is built when bytes come and
//! dropped when they completed a message. The task alone polls the socket: tungstenite
//! reads through [`Lower`], which never waits, and writes its own pong and close frames into the
//! connection's control slot, from where they go out between two frames of ours. While the socket takes
//! nothing more, nothing is read either: a page that doesn't listen is not heard.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use smol::{Async, LocalExecutor};

use super::Daemon;
use super::fanout::{CONTROL_SIZE_MAX, Connection, serve};
use crate::relay::pages::Verdict;
use crate::relay::session::Session;
use crate::relay::table::Id;
use crate::relay::texts::shortened;
use crate::wire::page::PAGE_FRAME_SIZE_MAX;

/// Frames read from a page before others have their turn.
const FRAMES_PER_TURN: usize = 16;
/// tungstenite's read buffer, while there is one: the usual `subscribe` is read at once.
const READ_BUFFER_SIZE: usize = 512;
/// Bytes of a page that is being closed which are read and thrown away in one turn.
const DISCARD_SIZE: usize = 1024;

/// tungstenite's five sizes. Nothing of ours passes through its write buffer but pong and close.
fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_SIZE)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * CONTROL_SIZE_MAX)
        .max_message_size(Some(PAGE_FRAME_SIZE_MAX))
        .max_frame_size(Some(PAGE_FRAME_SIZE_MAX))
}

/// Starts a page's task, once it is upgraded. `early` are bytes that came behind the request head.
pub fn begin(
    daemon: Rc<Daemon>,
    executor: &LocalExecutor<'static>,
    page: Id<Session>,
    stream: Async<TcpStream>,
    early: Vec<u8>,
) {
    let connection = Rc::new(Connection {
        page,
        stream,
        control: RefCell::default(),
        waker: RefCell::default(),
        broken: Cell::default(),
        boundary: Cell::default(),
    });
    daemon.connections.borrow_mut().insert(Rc::clone(&connection));
    let socket = if early.is_empty() { None } else { open_socket(&connection, early) };
    executor.spawn(Page { daemon, connection, socket, state: State::Open }).detach();
}

/// WebSocket state for what comes from a page; `early` was read already.
fn open_socket(connection: &Rc<Connection>, early: Vec<u8>) -> Option<Box<WebSocketStream<Lower>>> {
    let mut boundary = connection.boundary.get();
    boundary.pass(&early);
    connection.boundary.set(boundary);
    let lower = Lower(Rc::clone(connection));
    let opening = WebSocketStream::from_partially_read(lower, early, Role::Server, Some(web_socket_config()));
    // There is nothing in it to wait for.
    match pin!(opening).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(socket) => Some(Box::new(socket)),
        Poll::Pending => None,
    }
}

/// Where a page's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Frames are read.
    Open,
    /// Our close frame is on its way or out: the peer's is awaited.
    Closing,
    /// Both close frames are done, or what the page sends is not WebSocket any more: what is left goes out.
    Ending,
    /// Nothing more goes out, and what comes is thrown away until the page hangs up: dropping the socket earlier
    /// would reset it, and could lose the close frame. It has the time of a close for it.
    Ended,
}

struct Page {
    daemon: Rc<Daemon>,
    connection: Rc<Connection>,
    /// There while a message is half read or the connection is being closed.
    socket: Option<Box<WebSocketStream<Lower>>>,
    state: State,
}

impl Future for Page {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let page = self.get_mut();
        page.connection.set_waker(context.waker());
        let mut frames = 0;
        loop {
            if page.connection.broken.get() {
                return Poll::Ready(());
            }
            let verdict = page.daemon.relay.borrow().verdict(page.connection.page);
            match verdict {
                Verdict::Cut => return Poll::Ready(()),
                Verdict::Close(code, reason) if page.state == State::Open => {
                    page.close(context, code, &reason);
                    page.state = State::Closing;
                }
                Verdict::Close(..) | Verdict::Serve => {}
            }
            if !page.connection.control.borrow().is_empty() {
                serve(&page.daemon, &page.connection);
            }
            let is_written = page.connection.control.borrow().is_empty();
            if is_written && page.state == State::Ending {
                let _ = page.connection.stream.get_ref().shutdown(Shutdown::Write);
                page.state = State::Ended;
            }
            let is_blocked = page.daemon.relay.borrow().is_blocked(page.connection.page);
            if is_blocked {
                match page.connection.stream.poll_writable(context) {
                    Poll::Ready(Ok(())) => {
                        page.daemon.step(|relay, _| relay.unblocked(page.connection.page));
                        serve(&page.daemon, &page.connection);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    // Closing doesn't wait for the page to listen.
                    Poll::Pending if page.state == State::Open => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if frames == FRAMES_PER_TURN {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            frames += 1;
            match page.read(context) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                // The answer to a ping comes into the slot with the next read, which found nothing.
                Poll::Pending if !page.connection.control.borrow().is_empty() => {}
                Poll::Pending => match page.connection.stream.poll_readable(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

impl Page {
    /// Reads one frame; `false` where the connection is over.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if matches!(self.state, State::Ending | State::Ended) {
            return self.discard();
        }
        let Some(socket) = self.socket() else { return Poll::Ready(false) };
        let message = match Pin::new(socket).poll_next(context) {
            Poll::Ready(message) => message,
            Poll::Pending => {
                if self.state == State::Open && self.connection.boundary.get().is_between_messages() {
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
                // The closing handshake is done.
                self.state = State::Ending;
                Poll::Ready(true)
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let page = self.connection.page;
        match message {
            Message::Text(text) => self.daemon.step(|relay, now| relay.handle_page_text(now, page, &text)),
            Message::Binary(_) => self.daemon.step(|relay, now| relay.handle_page_binary(now, page)),
            Message::Close(_) => {
                self.daemon.step(|relay, now| relay.handle_page_leaving(now, page));
                if self.state == State::Open {
                    // tungstenite has put the answer into the control slot.
                    self.state = State::Closing;
                }
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.daemon.step(|relay, now| relay.handle_page_heard(now, page));
            }
        }
        // A step's answer goes out before the next frame is read.
        serve(&self.daemon, &self.connection);
    }

    /// A page broke the WebSocket protocol or a limit of it: it is told which, as far as that is possible.
    fn fail(&mut self, context: &mut Context<'_>, error: &Error) -> bool {
        let (code, reason) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => (1009, "a page's frames are at most 4096 bytes"),
            Error::Capacity(_) => (1009, "too large"),
            Error::Utf8(_) => (1007, "a text frame is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return false,
            Error::Protocol(_) => (1002, "that is not the WebSocket protocol"),
            _ => return false,
        };
        let page = self.connection.page;
        self.daemon.step(|relay, now| relay.handle_page_leaving(now, page));
        if self.state == State::Open {
            self.close(context, code, reason);
        }
        self.state = State::Ending;
        serve(&self.daemon, &self.connection);
        true
    }

    /// Puts a close frame into the control slot.
    fn close(&mut self, context: &mut Context<'_>, code: u16, reason: &str) {
        let reason = shortened(reason, 123).to_owned().into();
        if let Some(socket) = self.socket() {
            let closing = socket.close(Some(CloseFrame { code: CloseCode::from(code), reason }));
            // The slot takes it at once; where it is full, its end is written with the next read.
            let _ = pin!(closing).poll(context);
        }
    }

    fn socket(&mut self) -> Option<&mut WebSocketStream<Lower>> {
        if self.socket.is_none() {
            self.socket = open_socket(&self.connection, Vec::new());
        }
        self.socket.as_deref_mut()
    }

    /// Reads what nobody wants; `false` where the peer is gone.
    fn discard(&self) -> Poll<bool> {
        let mut nowhere = [0; DISCARD_SIZE];
        match self.connection.stream.get_ref().read(&mut nowhere) {
            Ok(0) => Poll::Ready(false),
            Ok(_) => Poll::Ready(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(_) => Poll::Ready(false),
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let page = self.connection.page;
        self.daemon.connections.borrow_mut().remove(page);
        self.daemon.step(|relay, now| relay.handle_page_closed(now, page));
    }
}

/// What tungstenite reads from and writes to: it never waits, since the page's task alone polls the socket.
#[derive(Debug)]
struct Lower(Rc<Connection>);

impl AsyncRead for Lower {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.0.stream.get_ref().read(into) {
            Ok(size) => {
                let mut boundary = self.0.boundary.get();
                boundary.pass(into.get(..size).unwrap_or_default());
                self.0.boundary.set(boundary);
                Poll::Ready(Ok(size))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Lower {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut control = self.0.control.borrow_mut();
        if control.len() + bytes.len() > CONTROL_SIZE_MAX {
            return Poll::Pending;
        }
        control.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
