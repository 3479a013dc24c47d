//! One HTTP request for each connection: the share page, the client, health, and the upgrade to a page.
//!
//! The head is read into a fixed buffer, whole within its time, and routed; every answer but the upgrade
//! closes the connection. Refuses what is too large (431), too slow (408), no HTTP (400), of another origin
//! (403), and pages beyond the table (503 with `Retry-After`). A connection keeps its place among the heads
//! until its answer is written. What a page then says is `pages.rs`.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::server::create_response;
use async_tungstenite::tungstenite::http::{Method, Request, Version};
use smol::{Async, LocalExecutor, Timer, future};

use super::{Daemon, listen::Heads, pages, preview};
use crate::config::{Config, Origins};
use crate::relay::pages::{Peer, Refusal};
use crate::wire::{is_link, page::SUBPROTOCOL};

/// A request head is at most so many bytes.
const HEAD_SIZE_MAX: usize = 4096;
/// Header lines of a request at most.
const HEADERS_MAX: usize = 64;
/// An answer must be taken within this time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection is read on after its answer: dropping it resets it, and what was not taken is lost.
const LINGER_TIME_MAX: Duration = Duration::from_secs(10);

/// What the share page may load: its own files, pictures, media from the client, its WebSocket.
const CONTENT_SECURITY_POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' https: data:; media-src 'self' blob:; connect-src 'self' ws: wss:; base-uri 'none'; \
     form-action 'none'; frame-ancestors *\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n";
const NO_STORE: &str = "Cache-Control: no-store\r\n";
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
        Some(stream) => pages::begin(daemon, &executor, page, stream, early),
        None => daemon.step(|relay, now| relay.handle_page_closed(now, page)),
    }
}

type NewPage = (crate::relay::table::Id<crate::relay::session::Session>, Vec<u8>);

async fn converse(daemon: &Daemon, stream: &Rc<Async<TcpStream>>, address: IpAddr) -> Option<NewPage> {
    let mut head = vec![0; HEAD_SIZE_MAX].into_boxed_slice();
    let time_max = Duration::from_millis(daemon.config.borrow().board.head_ms_max.into());
    let late = async {
        Timer::after(time_max).await;
        Err(Some(Answer::plain(408, "the request head took too long\n")))
    };
    let answer = match future::or(read_head(stream, &mut head), late).await {
        Ok((size, filled)) => {
            let (bytes, early) = head.get(..filled)?.split_at(size.min(filled));
            match route(daemon, bytes, address) {
                Routed::Answer(answer) => answer,
                Routed::Upgrade(response, page) => {
                    let early = early.to_vec();
                    let written = timely(stream, response.as_bytes()).await;
                    if written.is_err() {
                        daemon.step(|relay, now| relay.handle_page_closed(now, page));
                        return None;
                    }
                    return Some((page, early));
                }
            }
        }
        Err(Some(answer)) => answer,
        Err(None) => return None,
    };
    let body = if answer.is_head { &[] } else { &*answer.body };
    if timely(stream, &answer.head()).await.is_ok() && timely(stream, body).await.is_ok() {
        linger(stream).await;
    }
    None
}

/// Reads until the head is whole; its size and how many bytes were read. `Err(None)`: the peer is gone.
async fn read_head(stream: &Async<TcpStream>, head: &mut [u8]) -> Result<(usize, usize), Option<Answer>> {
    let mut filled = 0;
    loop {
        let size = read(stream, head.get_mut(filled..).unwrap_or_default()).await;
        match size {
            Ok(0) if filled == head.len() => {
                return Err(Some(Answer::plain(431, "a request head is at most 4096 bytes\n")));
            }
            Ok(0) | Err(_) => return Err(None),
            Ok(size) => filled += size,
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head.get(..filled).unwrap_or_default()) {
            Ok(httparse::Status::Complete(size)) => return Ok((size, filled)),
            Ok(httparse::Status::Partial) if filled == head.len() => {
                return Err(Some(Answer::plain(431, "a request head is at most 4096 bytes\n")));
            }
            Ok(httparse::Status::Partial) => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Some(Answer::plain(431, "a request has at most 64 header lines\n")));
            }
            Err(error) => return Err(Some(Answer::plain(400, &format!("not an HTTP request: {error}\n")))),
        }
    }
}

enum Routed {
    Answer(Answer),
    Upgrade(String, crate::relay::table::Id<crate::relay::session::Session>),
}

fn route(daemon: &Daemon, head: &[u8], address: IpAddr) -> Routed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let (Ok(_), Some(method), Some(target)) = (parsed.parse(head), parsed.method, parsed.path) else {
        return Routed::Answer(Answer::plain(400, "not an HTTP request\n"));
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if path == "/ws" {
        return upgrade(daemon, &parsed, address).unwrap_or_else(Routed::Answer);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Routed::Answer(Answer { headers: "Allow: GET, HEAD\r\n".into(), ..Answer::plain(405, "GET only\n") });
    }
    let mut answer = file(daemon, path);
    answer.is_head = method == "HEAD";
    Routed::Answer(answer)
}

fn file(daemon: &Daemon, path: &str) -> Answer {
    if let Some((_, kind, headers, body)) = FILES.iter().find(|(file, ..)| *file == path) {
        return Answer { kind, headers: format!("{ASSET}{headers}"), body: (*body).into(), ..Answer::plain(200, "") };
    }
    if path == "/healthz" {
        return if daemon.relay.borrow().is_draining() {
            Answer::plain(503, "draining\n")
        } else {
            Answer::plain(200, "ok")
        };
    }
    match path.strip_prefix("/s/") {
        Some(link) if is_link(link) => {
            let state = daemon.relay.borrow().preview(daemon.clock.now(), link);
            let body = preview::share_page(state.as_deref()).into_bytes();
            let headers = format!("{CONTENT_SECURITY_POLICY}{NO_STORE}");
            Answer { kind: "text/html; charset=utf-8", headers, body: body.into(), ..Answer::plain(200, "") }
        }
        _ => Answer::plain(404, "nothing is here; a share page is /s/<link>\n"),
    }
}

/// Lets a page in, or says why not.
fn upgrade(daemon: &Daemon, parsed: &httparse::Request<'_, '_>, address: IpAddr) -> Result<Routed, Answer> {
    let request = upgrade_request(parsed)?;
    let response = create_response(&request).map_err(|error| {
        let is_upgrade = header(parsed, "upgrade").is_some();
        let code = if is_upgrade { 400 } else { 426 };
        let headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n".into();
        Answer { headers, ..Answer::plain(code, &format!("/ws takes a WebSocket upgrade: {error}\n")) }
    })?;
    let offers = parsed.headers.iter().filter(|line| line.name.eq_ignore_ascii_case("sec-websocket-protocol"));
    let offered = offers
        .filter_map(|line| std::str::from_utf8(line.value).ok())
        .any(|offer| offer.split(',').any(|protocol| protocol.trim() == SUBPROTOCOL));
    if !offered {
        return Err(Answer::plain(
            400,
            "/ws speaks the subprotocol sharelink.v1: offer it in Sec-WebSocket-Protocol\n",
        ));
    }
    let config = daemon.config.borrow();
    let origin = check_origin(parsed, &config)?;
    let peer = Peer { address: page_address(parsed, &config, address), origin };
    let page = daemon.step(|relay, now| relay.handle_page_open(now, peer)).map_err(refused)?;
    let mut text = String::from("HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in response.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    text.push_str(&format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"));
    Ok(Routed::Upgrade(text, page))
}

/// The request as tungstenite's own check wants it.
fn upgrade_request(parsed: &httparse::Request<'_, '_>) -> Result<Request<()>, Answer> {
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok()).unwrap_or_default();
    let mut request = Request::builder().method(method).uri("/ws").version(version);
    for line in parsed.headers.iter() {
        request = request.header(line.name, line.value);
    }
    request.body(()).map_err(|error| Answer::plain(400, &format!("a header line is wrong: {error}\n")))
}

fn header<'a>(parsed: &'a httparse::Request<'_, '_>, name: &str) -> Option<&'a str> {
    let line = parsed.headers.iter().find(|line| line.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(line.value).ok().map(str::trim)
}

/// The page's origin, where it may connect; empty where it has none.
fn check_origin<'a>(parsed: &'a httparse::Request<'_, '_>, config: &Config) -> Result<&'a str, Answer> {
    let Some(origin) = header(parsed, "origin") else {
        return if config.pages.require_origin {
            Err(Answer::plain(403, "an Origin is required here (pages.require_origin)\n"))
        } else {
            Ok("")
        };
    };
    let is_own = header(parsed, "host").is_some_and(|host| is_same_host(origin, host));
    if is_own || matches!(config.pages.origins, Origins::Any) || config.pages.origins.allows(origin) {
        return Ok(origin);
    }
    Err(Answer::plain(403, "pages of this origin may not connect; the operator allows them in pages.origins\n"))
}

/// Whether an origin's host, with its port, is the request's own.
fn is_same_host(origin: &str, host: &str) -> bool {
    let (port, authority) = match origin.split_once("://") {
        Some(("http", authority)) => (":80", authority),
        Some(("https", authority)) => (":443", authority),
        _ => return false,
    };
    let bare = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(host)
}

/// Where the page is: behind proxies that are trusted, the rightmost address that is not trusted itself.
fn page_address(parsed: &httparse::Request<'_, '_>, config: &Config, peer: IpAddr) -> IpAddr {
    let is_trusted = |address: IpAddr| config.pages.trusted_proxies.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    let lines = parsed.headers.iter().rev().filter(|line| line.name.eq_ignore_ascii_case("x-forwarded-for"));
    let hops = lines.flat_map(|line| std::str::from_utf8(line.value).unwrap_or_default().rsplit(','));
    for hop in hops {
        if !is_trusted(address) {
            break;
        }
        match forwarded_address(hop.trim()) {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address
}

/// An address as proxies write it, with or without a port.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

fn refused(refusal: Refusal) -> Answer {
    let (code, text, retry_ms) = match refusal {
        Refusal::Full { retry_ms } => (503, "the relay is full, come back later\n", retry_ms),
        Refusal::Draining { retry_ms } => (503, "the relay restarts, come back soon\n", retry_ms),
        Refusal::Address { retry_ms } => (503, "this address has as many pages as it may have\n", retry_ms),
    };
    Answer { headers: format!("Retry-After: {}\r\n", retry_ms.div_ceil(1000)), ..Answer::plain(code, text) }
}

/// An answer that closes its connection.
struct Answer {
    code: u16,
    kind: &'static str,
    headers: String,
    body: std::borrow::Cow<'static, [u8]>,
    is_head: bool,
}

impl Answer {
    fn plain(code: u16, text: &str) -> Self {
        let (kind, headers) = ("text/plain; charset=utf-8", NO_STORE.to_owned());
        Self { code, kind, headers, body: text.as_bytes().to_vec().into(), is_head: false }
    }

    fn head(&self) -> Vec<u8> {
        let reason = match self.code {
            200 => "OK",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        // The header lines of an upgrade's refusal name their own Connection.
        let connection = if self.headers.contains("Connection:") { "" } else { "Connection: close\r\n" };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{connection}{}\r\n",
            self.code,
            self.kind,
            self.body.len(),
            self.headers
        )
        .into_bytes()
    }
}

/// Reads some bytes. Waits by `poll_readable`: `Async::readable` would leave a list of waiters behind with the socket.
async fn read(stream: &Async<TcpStream>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.get_ref().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_readable(context)).await?;
            }
            result => return result,
        }
    }
}

/// Writes some bytes, with the same way of waiting.
async fn write(stream: &Async<TcpStream>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.get_ref().write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_writable(context)).await?;
            }
            result => return result,
        }
    }
}

/// Writes everything within the time for it.
async fn timely(stream: &Async<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    let write = async {
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = write(stream, rest).await?;
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

/// Says that nothing more comes, and reads what the peer still sends.
async fn linger(stream: &Async<TcpStream>) {
    if stream.get_ref().shutdown(Shutdown::Write).is_err() {
        return;
    }
    let read = async {
        let mut nowhere = [0; 512];
        while let Ok(1..) = read(stream, &mut nowhere).await {}
    };
    let late = async {
        Timer::after(LINGER_TIME_MAX).await;
    };
    future::or(read, late).await;
}
