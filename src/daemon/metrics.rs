//! The Prometheus endpoint: a listener of its own, one answer for each connection.
//!
//! At most [`METRICS_MAX`](board::METRICS_MAX) scrapers at once. The rules of eviction are the
//! pages' port's (`heads.rs`), except that an answer is cut off after a second if another scraper
//! waits. Serves `GET` and `HEAD` of `/metrics` and nothing else (404). The text is rendered in one
//! go, so that its figures are consistent, and freed with the connection. The sockets' buffers are
//! small and in the memory sum. `metrics.rs` knows the figures.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use smol::{Async, LocalExecutor, Timer, future};
use socket2::{Domain, Protocol, Socket, Type};

use super::heads::{self, Place};
use super::request::begins_as_head;
use super::response::{NO_STORE, Response};
use super::stream::Stream;
use super::{Daemon, delivery, head, http, proc};
use crate::metrics::{self, Figures};
use board::{METRICS_BACKLOG, METRICS_RECEIVE_SIZE, METRICS_SEND_SIZE};

/// Interval between two attempts to accept while no place or no kernel memory is free.
const WAIT: Duration = Duration::from_millis(50);

/// Binds the address (port 0 picks any).
pub fn bind(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(METRICS_SEND_SIZE)?;
    socket.set_recv_buffer_size(METRICS_RECEIVE_SIZE)?;
    socket.set_tcp_nodelay(true)?;
    // As for pages: a closed connection leaves nothing in the kernel.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(METRICS_BACKLOG).unwrap_or(i32::MAX))?;
    Async::new(socket.into())
}

/// Accepts scrapers for as long as the daemon runs.
pub async fn accept(daemon: Rc<Daemon>, executor: Rc<LocalExecutor<'static>>, listener: Async<TcpListener>) {
    loop {
        // A place is taken from a slow scraper only if another one waits.
        let waits = listener.readable().await;
        while !daemon.scrapers.borrow_mut().has_room(daemon.clock.now()) {
            Timer::after(WAIT).await;
        }
        match waits
            .and_then(|()| listener.get_ref().accept())
            .and_then(|(stream, address)| Ok((Stream::new(stream)?, address)))
        {
            Ok((stream, address)) => {
                let place = daemon.scrapers.borrow_mut().enter(daemon.clock.now(), Some(heads::network(address.ip())));
                executor.spawn(serve(Rc::clone(&daemon), place, stream)).detach();
                // Pages get their turn, however many scrapers come.
                future::yield_now().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::debug!("can't accept a scraper now: {error}");
                Timer::after(WAIT).await;
            }
        }
    }
}

async fn serve(daemon: Rc<Daemon>, place: Rc<Place>, stream: Stream) {
    future::or(converse(&daemon, &place, &stream), place.cut()).await;
    daemon.scrapers.borrow_mut().leave(&place);
    delivery::end(&place, stream);
}

async fn converse(daemon: &Daemon, place: &Place, stream: &Stream) {
    let mut head = Vec::new();
    let mut answer = match http::receive(daemon, place, stream, &mut head, 0).await {
        Ok((size, _)) => answer(daemon, head.get(..size).unwrap_or_default()),
        Err(Some(answer)) => answer,
        Err(None) => return,
    };
    answer.is_head |= begins_as_head(&head);
    drop(head);
    delivery::send(&daemon.clock, place, stream, &answer).await;
}

fn answer(daemon: &Daemon, head: &[u8]) -> Response {
    match head::path(head) {
        Ok((path, is_head)) if path == "/metrics" => {
            let body = text(daemon).into_bytes().into();
            Response {
                kind: metrics::CONTENT_TYPE,
                headers: NO_STORE.to_owned(),
                body,
                is_head,
                ..Response::plain(200, "")
            }
        }
        Ok((_, is_head)) => Response { is_head, ..Response::plain(404, "only /metrics is served here\n") },
        Err(answer) => answer,
    }
}

fn text(daemon: &Daemon) -> String {
    let usage = proc::usage();
    let heads = daemon.heads.borrow();
    let figures = Figures {
        answers: &daemon.answers.borrow().rows(),
        heads: heads.count(),
        heads_cut: heads.cut(),
        cpu_ms: usage.cpu_ms,
        descriptors: usage.descriptors,
        started_ms: usage.started_ms,
    };
    daemon.look(|view| metrics::render(view, &figures))
}
