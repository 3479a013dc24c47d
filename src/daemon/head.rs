//! A request head, without its socket: whether it is whole, and what it asks for.
//!
//! Owns the rules of docs/protocol.md under "HTTP" that need nothing but the bytes and the configuration: what is no HTTP (400),
//! too large (431), another method (405), no upgrade (426, 400), of another origin (403), and which address a page has behind
//! proxies. Knows neither the machine nor a clock: whether there is room, and what a share page shows, is `http.rs`.

use std::net::{IpAddr, SocketAddr};

use async_tungstenite::tungstenite::handshake::server::create_response;
use async_tungstenite::tungstenite::http::{Method, Request, Version};

use crate::config::{Origins, Pages};
use crate::wire::{is_link, page::SUBPROTOCOL};

/// A request head is at most so many bytes.
pub const HEAD_SIZE_MAX: usize = 4096;
/// Header lines of a request at most.
const HEADERS_MAX: usize = 64;
/// What is made for one connection must not be kept by a cache.
pub const NO_STORE: &str = "Cache-Control: no-store\r\n";

/// The size of the head that `bytes` begin with; `None` where more must come.
///
/// # Errors
/// The answer to what can't become a request head of at most [`HEAD_SIZE_MAX`] bytes.
pub fn size(bytes: &[u8]) -> Result<Option<usize>, Answer> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::Request::new(&mut headers).parse(bytes) {
        Ok(httparse::Status::Complete(size)) => Ok(Some(size)),
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_SIZE_MAX => {
            Err(Answer::plain(431, "a request head is at most 4096 bytes\n"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Answer::plain(431, "a request has at most 64 header lines\n")),
        Err(error) => Err(Answer::plain(400, &format!("not an HTTP request: {error}\n"))),
    }
}

/// What a request asks for.
#[derive(Debug)]
pub enum Asked {
    /// Something that is answered whatever the relay holds: what is at a path.
    Path {
        /// The request's path, without query.
        path: String,
        /// Only the answer's head is wanted.
        is_head: bool,
    },
    /// The share page of a link.
    SharePage {
        /// It has the form of a link.
        link: String,
        /// Only the answer's head is wanted.
        is_head: bool,
    },
    /// To become a page.
    Upgrade(Upgrade),
    /// Nothing that there is: the answer says why.
    Refused(Answer),
}

/// An upgrade that is in order.
#[derive(Debug)]
pub struct Upgrade {
    /// The whole answer.
    pub response: String,
    /// The page's origin; empty where it has none.
    pub origin: String,
    /// Where the page is.
    pub address: IpAddr,
    /// That is loopback, or a trusted proxy's own address: pages of anybody may come from it.
    pub is_anybody: bool,
}

/// Reads a head that is whole, from a peer at `address`.
#[must_use]
pub fn read(head: &[u8], pages: &Pages, address: IpAddr) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let (Ok(_), Some(method), Some(target)) = (parsed.parse(head), parsed.method, parsed.path) else {
        return Asked::Refused(Answer::plain(400, "not an HTTP request\n"));
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if path == "/ws" {
        return upgrade(&parsed, pages, address).map_or_else(Asked::Refused, Asked::Upgrade);
    }
    let is_head = match is_head(method) {
        Ok(is_head) => is_head,
        Err(answer) => return Asked::Refused(answer),
    };
    match path.strip_prefix("/s/").filter(|link| is_link(link)) {
        Some(link) => Asked::SharePage { link: link.to_owned(), is_head },
        None => Asked::Path { path: path.to_owned(), is_head },
    }
}

/// The path, without query, that a whole head asks for, and whether only the answer's head is wanted.
///
/// # Errors
/// The answer to another method, or to no HTTP.
pub fn path(head: &[u8]) -> Result<(String, bool), Answer> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let (Ok(_), Some(method), Some(target)) = (parsed.parse(head), parsed.method, parsed.path) else {
        return Err(Answer::plain(400, "not an HTTP request\n"));
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    Ok((path.to_owned(), is_head(method)?))
}

/// Whether only the answer's head is wanted; the answer to what is neither `GET` nor `HEAD`.
fn is_head(method: &str) -> Result<bool, Answer> {
    match method {
        "GET" => Ok(false),
        "HEAD" => Ok(true),
        _ => Err(Answer { headers: "Allow: GET, HEAD\r\n".into(), ..Answer::plain(405, "GET only\n") }),
    }
}

fn upgrade(parsed: &httparse::Request<'_, '_>, pages: &Pages, address: IpAddr) -> Result<Upgrade, Answer> {
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
    let origin = check_origin(parsed, pages)?.to_owned();
    let mut text = String::from("HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in response.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    text.push_str(&format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"));
    let address = page_address(parsed, pages, address);
    let is_anybody = address.is_loopback() || is_trusted(pages, address);
    Ok(Upgrade { response: text, origin, address, is_anybody })
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
fn check_origin<'a>(parsed: &'a httparse::Request<'_, '_>, pages: &Pages) -> Result<&'a str, Answer> {
    let Some(origin) = header(parsed, "origin") else {
        return if pages.require_origin {
            Err(Answer::plain(403, "an Origin is required here (pages.require_origin)\n"))
        } else {
            Ok("")
        };
    };
    let is_own = header(parsed, "host").is_some_and(|host| is_same_host(origin, host));
    if is_own || matches!(pages.origins, Origins::Any) || pages.origins.allows(origin) {
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
fn page_address(parsed: &httparse::Request<'_, '_>, pages: &Pages, peer: IpAddr) -> IpAddr {
    let mut address = peer.to_canonical();
    let lines = parsed.headers.iter().rev().filter(|line| line.name.eq_ignore_ascii_case("x-forwarded-for"));
    let hops = lines.flat_map(|line| std::str::from_utf8(line.value).unwrap_or_default().rsplit(','));
    for hop in hops {
        if !is_trusted(pages, address) {
            break;
        }
        match forwarded_address(hop.trim()) {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address
}

/// Whether an address is a proxy's that the configuration trusts.
fn is_trusted(pages: &Pages, address: IpAddr) -> bool {
    pages.trusted_proxies.iter().any(|network| network.contains(address))
}

/// An address as proxies write it, with or without a port.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// An answer that closes its connection.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub code: u16,
    /// The body's MIME type.
    pub kind: &'static str,
    /// Further header lines, each with its end.
    pub headers: String,
    /// What GET brings.
    pub body: std::borrow::Cow<'static, [u8]>,
    /// HEAD was asked for: the body is told of and left out.
    pub is_head: bool,
}

impl Answer {
    /// An answer of plain text.
    #[must_use]
    pub fn plain(code: u16, text: &str) -> Self {
        let (kind, headers) = ("text/plain; charset=utf-8", NO_STORE.to_owned());
        Self { code, kind, headers, body: text.as_bytes().to_vec().into(), is_head: false }
    }

    /// The body as it is sent.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.is_head { &[] } else { &self.body }
    }

    /// The bytes before the body.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
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
