//! One HTTP request for each connection: the share page, the client, health, and the upgrade to a page.
//!
//! The head is read into a fixed buffer, whole within its time, and routed; every answer but the upgrade
//! closes the connection. Refuses what is too large (431), too slow (408), no HTTP (400), of another origin
//! (403), and pages beyond the table (503 with `Retry-After`). A connection keeps its place among the heads
//! until its answer is written and the other end has closed, or its time is over. What a page then says is `pages.rs`.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use smol::{Async, LocalExecutor, Timer, future};

use super::budget::Budget;
use super::connection::Connection;
use super::head::{self, Answer, Asked, HEAD_SIZE_MAX, NO_STORE, Upgrade};
use super::{Daemon, listen::Heads, pages, preview};
use crate::relay::pages::{Peer, Refusal};
use crate::relay::{session::Session, table::Id};

/// An answer must be taken within this time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection is read on after its answer: dropping it resets it, and what was not taken is lost.
const LINGER_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes that are read behind an answer, at most: some requests more, or the start of a body that nobody wants. Who sends more is
/// cut off.
const LINGER_SIZE_MAX: usize = 64 * 1024;

/// What the share page may load: its own files, pictures, media from the client, its WebSocket. The hash is that of the
/// one script within the page, which brings the others.
const CONTENT_SECURITY_POLICY: &str = "Content-Security-Policy: default-src 'none'; \
     script-src 'self' 'sha256-/ue1WO3g4G+7ndxk/hd0Ekg90ElLtlebKa8V1wtuGlc='; style-src 'self'; \
     img-src 'self' https: data:; media-src 'self' blob:; connect-src 'self' ws: wss:; base-uri 'none'; \
     form-action 'none'; frame-ancestors *\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n";
/// A new version of the relay must reach its pages soon.
const ASSET: &str = "Cache-Control: public, max-age=300\r\nX-Content-Type-Options: nosniff\r\n";

/// Files that are the same for everybody: path, type, further header lines, bytes.
const FILES: [(&str, &str, &str, &[u8]); 4] = [
    (
        "/sharelink.js",
        "text/javascript; charset=utf-8",
        "Access-Control-Allow-Origin: *\r\n",
        include_bytes!("../web/sharelink.js"),
    ),
    ("/assets/share.js", "text/javascript; charset=utf-8", "", include_bytes!("../web/share.js")),
    ("/assets/share.css", "text/css; charset=utf-8", "", include_bytes!("../web/share.css")),
    ("/assets/icon.svg", "image/svg+xml", "", include_bytes!("../web/icon.svg")),
];

/// Serves one connection until it is answered or has become a page.
pub async fn serve(
    daemon: Rc<Daemon>,
    executor: Rc<LocalExecutor<'static>>,
    stream: Rc<Async<TcpStream>>,
    address: SocketAddr,
) {
    let end = converse(&daemon, &stream, address.ip()).await;
    Heads::leave(&daemon.heads, &stream);
    let Some((page, early)) = end else { return };
    match Rc::into_inner(stream) {
        Some(stream) => {
            let connection = Rc::new(Connection::new(page, stream));
            daemon.connections.borrow_mut().insert(Rc::clone(&connection));
            pages::begin(daemon, &executor, connection, early);
        }
        None => daemon.step(|relay, now| relay.handle_page_closed(now, page)),
    }
}

type NewPage = (Id<Session>, Vec<u8>);

async fn converse(daemon: &Daemon, stream: &Rc<Async<TcpStream>>, address: IpAddr) -> Option<NewPage> {
    let mut head = vec![0; HEAD_SIZE_MAX].into_boxed_slice();
    let answered = match receive(daemon, stream, &mut head).await {
        Ok((size, filled)) => {
            let (bytes, early) = head.get(..filled)?.split_at(size.min(filled));
            let asked = head::read(bytes, &daemon.config.borrow().pages, address);
            match asked {
                Asked::Refused(answer) => answer,
                Asked::Path { path, is_head } => without_body(is_head, file(daemon, &path)),
                Asked::SharePage { link, is_head } => without_body(is_head, share_page(daemon, &link)),
                Asked::Upgrade(upgrade) => match enter(daemon, &upgrade) {
                    Err(refusal) => refused(refusal),
                    Ok(page) => {
                        daemon.answers.borrow_mut().count(101);
                        if timely(stream, upgrade.response.as_bytes()).await.is_err() {
                            daemon.step(|relay, now| relay.handle_page_closed(now, page));
                            return None;
                        }
                        return Some((page, early.to_vec()));
                    }
                },
            }
        }
        Err(Some(answer)) => answer,
        Err(None) => return None,
    };
    daemon.answers.borrow_mut().count(answered.code);
    send(stream, &answered).await;
    None
}

/// Reads a request's head within the time for it; its size and how many bytes were read.
///
/// # Errors
/// The answer to what is none; `None` where the peer is gone.
pub async fn receive(
    daemon: &Daemon,
    stream: &Async<TcpStream>,
    head: &mut [u8],
) -> Result<(usize, usize), Option<Answer>> {
    let time_max = Duration::from_millis(daemon.config.borrow().board.head_ms_max.into());
    let late = async {
        Timer::after(time_max).await;
        Err(Some(Answer::plain(408, "the request head took too long\n")))
    };
    future::or(read_head(stream, head), late).await
}

/// Sends an answer, and sees the connection to its end.
pub async fn send(stream: &Async<TcpStream>, answer: &Answer) {
    if timely(stream, &answer.head()).await.is_ok() && timely(stream, answer.body()).await.is_ok() {
        linger(stream).await;
    }
}

/// How many requests were answered with which status.
#[derive(Debug, Default)]
pub struct Answers([u64; CODES.len()]);

/// Every status that is answered with.
const CODES: [u16; 10] = [101, 200, 400, 403, 404, 405, 408, 426, 431, 503];

impl Answers {
    fn count(&mut self, code: u16) {
        let of_code = CODES.iter().zip(&mut self.0).find(|(known, _)| **known == code);
        if let Some((_, count)) = of_code {
            *count += 1;
        }
    }

    /// The statuses and their counts.
    pub fn rows(&self) -> [(u16, u64); CODES.len()] {
        let mut rows = CODES.map(|code| (code, 0));
        for (row, count) in rows.iter_mut().zip(self.0) {
            row.1 = count;
        }
        rows
    }
}

/// Reads until a request head is whole; its size and how many bytes were read.
///
/// # Errors
/// The answer to what can't become one; none where the peer is gone.
pub async fn read_head(stream: &Async<TcpStream>, head: &mut [u8]) -> Result<(usize, usize), Option<Answer>> {
    let mut filled = 0;
    let mut budget = Budget::TURN;
    loop {
        match read(stream, head.get_mut(filled..).unwrap_or_default(), &mut budget).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(size) => filled += size,
        }
        if let Some(size) = head::size(head.get(..filled).unwrap_or_default()).map_err(Some)? {
            return Ok((size, filled));
        }
    }
}

/// The machine lets a page in, or not.
fn enter(daemon: &Daemon, upgrade: &Upgrade) -> Result<Id<Session>, Refusal> {
    let peer = Peer { address: upgrade.address, origin: &upgrade.origin, is_anybody: upgrade.is_anybody };
    daemon.step(|relay, now| relay.handle_page_open(now, peer))
}

fn file(daemon: &Daemon, path: &str) -> Answer {
    if let Some((_, kind, headers, body)) = FILES.iter().find(|(file, ..)| *file == path) {
        return Answer { kind, headers: format!("{ASSET}{headers}"), body: (*body).into(), ..Answer::plain(200, "") };
    }
    if path != "/healthz" {
        return Answer::plain(404, "nothing is here; a share page is /s/<link>\n");
    }
    if daemon.relay.borrow().is_draining() { Answer::plain(503, "draining\n") } else { Answer::plain(200, "ok") }
}

fn share_page(daemon: &Daemon, link: &str) -> Answer {
    let state = daemon.relay.borrow().card(daemon.clock.now(), link);
    let body = preview::share_page(state.as_deref()).into_bytes();
    let headers = format!("{CONTENT_SECURITY_POLICY}{NO_STORE}");
    Answer { kind: "text/html; charset=utf-8", headers, body: body.into(), ..Answer::plain(200, "") }
}

/// The answer to HEAD tells the size of the body that GET would bring, and leaves it out.
fn without_body(is_head: bool, answer: Answer) -> Answer {
    Answer { is_head, ..answer }
}

fn refused(refusal: Refusal) -> Answer {
    let (code, text, retry_ms) = match refusal {
        Refusal::Full { retry_ms } => (503, "the relay is full, come back later\n", retry_ms),
        Refusal::Draining { retry_ms } => (503, "the relay restarts, come back soon\n", retry_ms),
        Refusal::Address { retry_ms } => (503, "this address has as many pages as it may have\n", retry_ms),
    };
    Answer { headers: format!("Retry-After: {}\r\n", retry_ms.div_ceil(1000)), ..Answer::plain(code, text) }
}

/// Reads some bytes. Waits by `poll_readable`: `Async::readable` would leave a list of waiters behind with the socket.
async fn read(stream: &Async<TcpStream>, into: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
    loop {
        budget.next_read().await;
        match stream.get_ref().read(budget.clip(into)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_readable(context)).await?;
                // Others had their turn meanwhile.
                *budget = Budget::TURN;
            }
            result => return result.inspect(|size| budget.take(*size)),
        }
    }
}

/// Writes some bytes, with the same way of waiting.
async fn write(stream: &Async<TcpStream>, bytes: &[u8], budget: &mut Budget) -> io::Result<usize> {
    loop {
        budget.next_step().await;
        match stream.get_ref().write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_writable(context)).await?;
            }
            result => return result,
        }
    }
}

/// Writes everything within the time that an answer has for it.
///
/// # Errors
/// The socket's own, or that it took too long.
pub async fn timely(stream: &Async<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    let write = async {
        let (mut rest, mut budget) = (bytes, Budget::TURN);
        while !rest.is_empty() {
            let size = write(stream, rest, &mut budget).await?;
            rest = rest.get(size..).unwrap_or_default();
        }
        Ok(())
    };
    let late = async {
        Timer::after(ANSWER_TIME_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future::or(write, late).await
}

/// Says that nothing more comes, and reads what the peer still sends, up to a size and for a time.
async fn linger(stream: &Async<TcpStream>) {
    if stream.get_ref().shutdown(Shutdown::Write).is_err() {
        return;
    }
    let read = async {
        let (mut nowhere, mut budget, mut left) = ([0; 512], Budget::TURN, LINGER_SIZE_MAX);
        while left > 0
            && let Ok(size @ 1..) = read(stream, &mut nowhere, &mut budget).await
        {
            left = left.saturating_sub(size);
        }
    };
    let late = async {
        Timer::after(LINGER_TIME_MAX).await;
    };
    future::or(read, late).await;
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::io::ioctl_fionread;
    use sha2::{Digest, Sha256};

    use super::super::budget;
    use super::*;

    fn connected() -> (Rc<Async<TcpStream>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Rc::new(Async::new(listener.accept().unwrap().0).unwrap()), peer)
    }

    #[test]
    fn talk_behind_an_answer_takes_no_more_than_a_turn_and_then_rests() {
        let (stream, mut peer) = connected();
        let before = 4 * budget::SIZE as usize;
        peer.write_all(&vec![b'x'; before]).unwrap();
        let waiting = || usize::try_from(ioctl_fionread(&*stream).unwrap()).unwrap();
        while waiting() < before {}
        let executor = LocalExecutor::new();
        let read = Rc::clone(&stream);
        let _lingers = executor.spawn(async move { linger(&read).await });
        assert!(executor.try_tick());
        let taken = before - waiting();
        assert!((1..=budget::SIZE as usize).contains(&taken), "{taken} bytes in a turn");
        assert!(!executor.try_tick(), "it reads on at once");
    }

    #[test]
    fn who_talks_without_end_behind_an_answer_is_cut_off() {
        let (stream, mut peer) = connected();
        let talks = std::thread::spawn(move || {
            let mut size = 0;
            while let Ok(written) = peer.write(&[b'x'; 4096]) {
                size += written;
            }
            size
        });
        smol::block_on(async {
            linger(&stream).await;
            drop(stream);
        });
        assert!(talks.join().unwrap() >= LINGER_SIZE_MAX);
    }

    #[test]
    fn the_policy_names_the_script_within_the_page() {
        let page = include_str!("../web/share.html");
        let scripts: Vec<&str> = page.split("<script").skip(1).collect();
        assert_eq!(scripts.len(), 1, "one script within the page, and none beside it");
        let script = scripts[0].strip_prefix('>').unwrap().split("</script>").next().unwrap();
        let hash = base64(&Sha256::digest(script.as_bytes()));
        let expected = format!("script-src 'self' 'sha256-{hash}';");
        assert!(CONTENT_SECURITY_POLICY.contains(&expected), "the script's hash is now {hash}");
    }

    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let value =
                chunk.iter().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let letter = char::from(LETTERS[value >> (18 - 6 * place) & 63]);
                out.push(if place <= chunk.len() { letter } else { '=' });
            }
        }
        out
    }
}
