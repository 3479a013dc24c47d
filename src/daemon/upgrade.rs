//! Validates a WebSocket upgrade, its origin, and the address that the page comes from.
//!
//! Owns the server's side of RFC 6455's opening handshake (4.2.1): no upgrade (426), an invalid one
//! (400), an unsupported version (426), a missing subprotocol (400), a foreign origin (403); and a
//! page's address behind trusted proxies. A header that can't be read counts as a header with a
//! wrong value, never as absent. Knows neither the machine nor a socket.

use std::net::{IpAddr, SocketAddr};

use async_tungstenite::tungstenite::handshake::derive_accept_key;

use super::request::Request;
use super::response::Response;
use crate::config::{Origins, Pages};
use wire::page::SUBPROTOCOL;

/// A valid upgrade.
#[derive(Debug)]
pub struct Upgrade {
    /// The whole answer.
    pub response: String,
    /// The page's origin; empty if it sent none.
    pub origin: String,
    /// The page's address.
    pub address: IpAddr,
    /// The address is loopback or a trusted proxy's own: many people's pages may come from it.
    pub is_anybody: bool,
}

/// Validates an upgrade by `GET`, from a peer at `address`.
///
/// # Errors
/// The answer to an upgrade that is refused.
pub fn read(request: &Request<'_, '_>, pages: &Pages, address: IpAddr) -> Result<Upgrade, Response> {
    let key = websocket_key(request)?;
    if !request.members("Sec-WebSocket-Protocol").any(|offer| offer == SUBPROTOCOL.as_bytes()) {
        return Err(wrong("offer the subprotocol sharelink.v1 in Sec-WebSocket-Protocol"));
    }
    let origin = check_origin(request, pages)?.to_owned();
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n",
        derive_accept_key(key)
    );
    let address = page_address(request, pages, address);
    let is_anybody = address.is_loopback() || is_trusted(pages, address);
    Ok(Upgrade { response, origin, address, is_anybody })
}

fn wrong(what: &str) -> Response {
    Response::plain(400, &format!("/ws takes a WebSocket upgrade: {what}\n"))
}

/// The answer to a request without an upgrade, or with an unsupported one.
pub fn needed(what: &str) -> Response {
    let answer = Response::plain(426, &format!("/ws takes a WebSocket upgrade: {what}\n"));
    answer.with("Upgrade", "websocket").with("Sec-WebSocket-Version", "13")
}

/// The key of a valid opening handshake.
fn websocket_key<'b>(request: &Request<'b, '_>) -> Result<&'b [u8], Response> {
    // HTTP/1.0 has no upgrade: the header must be ignored (RFC 9110, 7.8).
    if request.is_old || !request.lists("Upgrade", "websocket") {
        return Err(needed("Upgrade: websocket, in a request of HTTP/1.1"));
    }
    if !request.lists("Connection", "upgrade") {
        return Err(wrong("Connection: Upgrade is missing; a proxy must forward it"));
    }
    match request.only("Sec-WebSocket-Version")? {
        Some(b"13") => {}
        Some(_) => return Err(needed("Sec-WebSocket-Version is 13")),
        None => return Err(wrong("Sec-WebSocket-Version is missing")),
    }
    if request.has_body {
        return Err(wrong("it must have no body"));
    }
    let key = request.only("Sec-WebSocket-Key")?.filter(|key| is_key(key));
    key.ok_or_else(|| wrong("Sec-WebSocket-Key is 16 bytes in base64"))
}

fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && digits.iter().all(is_digit))
}

/// The page's origin if it may connect; empty if the page sent none.
fn check_origin<'b>(request: &Request<'b, '_>, pages: &Pages) -> Result<&'b str, Response> {
    let Some(origin) = request.only("Origin")? else {
        return if pages.require_origin {
            Err(Response::plain(403, "an Origin is required here (pages.require_origin)\n"))
        } else {
            Ok("")
        };
    };
    // Browsers send nothing else (RFC 6454, 7.1), and the origin is sent to the business server as
    // text.
    let readable = std::str::from_utf8(origin).ok().filter(|origin| origin.bytes().all(|b| b.is_ascii_graphic()));
    let allowed = readable.filter(|origin| {
        let is_own = request.host.is_some_and(|host| is_same_host(origin, host));
        is_own || matches!(pages.origins, Origins::Any) || pages.origins.allows(origin)
    });
    let refusal = "pages of this origin may not connect; the operator allows them in pages.origins\n";
    allowed.ok_or_else(|| Response::plain(403, refusal))
}

/// Whether an origin has the request's own host and port.
fn is_same_host(origin: &str, host: &str) -> bool {
    let (port, authority) = match origin.split_once("://") {
        Some(("http", authority)) => (":80", authority),
        Some(("https", authority)) => (":443", authority),
        _ => return false,
    };
    let bare = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(host)
}

/// The page's address: behind trusted proxies, the rightmost hop that is not trusted itself. A hop
/// that can't be read ends the search: hops left of it are not believed.
pub fn page_address(request: &Request<'_, '_>, pages: &Pages, peer: IpAddr) -> IpAddr {
    let mut address = peer.to_canonical();
    for hop in request.members("X-Forwarded-For").rev() {
        if !is_trusted(pages, address) {
            break;
        }
        match std::str::from_utf8(hop).ok().and_then(forwarded_address) {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address
}

/// Whether the configuration trusts this address as a proxy.
fn is_trusted(pages: &Pages, address: IpAddr) -> bool {
    pages.trusted_proxies.iter().any(|network| network.contains(address))
}

/// An address as proxies write it, with or without a port.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::request::HEADERS_MAX;

    /// The address of a page that comes through a trusted proxy with these header lines.
    fn address(lines: &[u8]) -> String {
        let config = "[pages]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
        let around = crate::config::Surroundings {
            read_secret: &|_| Ok(Vec::new()),
            ..crate::config::Surroundings::without_files("box")
        };
        let pages = crate::config::Config::parse(config, &board::HOST, &around).unwrap().pages;
        let head = [b"GET /ws HTTP/1.1\r\nHost: x\r\n", lines, b"\r\n"].concat();
        let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
        page_address(&Request::parse(&head, &mut room).unwrap(), &pages, [10, 0, 0, 1].into()).to_string()
    }

    #[test]
    fn a_hop_that_cannot_be_read_ends_the_walk_and_an_empty_one_is_none() {
        assert_eq!(address(b"X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\n"), "192.0.2.7");
        assert_eq!(address(b"X-Forwarded-For: 192.0.2.7, \xff, 10.0.0.2\r\n"), "10.0.0.2");
        assert_eq!(address(b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: \xff\r\n"), "10.0.0.1");
        assert_eq!(
            address(b"X-Forwarded-For: 192.0.2.7,\r\nX-Forwarded-For:\r\nX-Forwarded-For: , ,\r\n"),
            "192.0.2.7"
        );
        assert_eq!(address(b"X-Forwarded-For: \xff, [2001:db8::7]:443\r\n"), "2001:db8::7");
    }
}
