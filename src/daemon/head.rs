//! Routes a request head, without its socket: whether it is complete, and what it requests.
//!
//! Owns the paths and the permitted spellings of a share link (docs/protocol.md under "HTTP"), as
//! far as they follow from the bytes and the configuration alone. `request.rs` checks HTTP's own
//! rules, `upgrade.rs` those of an upgrade. Refuses other methods (405). Knows neither the machine
//! nor a clock: `http.rs` knows whether there is room and what a share page shows.

use std::net::IpAddr;

use super::assets::{self, coding::Coding};
pub use super::request::{HEAD_SIZE_MAX, size};
use super::request::{HEADERS_MAX, Request, is_plain_host};
pub use super::response::Response;
use super::upgrade;
pub use super::upgrade::Upgrade;
use crate::config::Pages;
use wire::is_link;

/// What a request asks for.
#[derive(Debug)]
pub enum Asked {
    /// One of the page's files, with its answer.
    File(Response),
    /// Another path, whose answer doesn't depend on any link or page.
    Path {
        /// The request's path, without query.
        path: String,
        /// The request is a HEAD.
        is_head: bool,
    },
    /// The share page of a link.
    SharePage(SharePage),
    /// To become a page.
    Upgrade(Upgrade),
    /// The share page of a link in a non-canonical spelling: the answer redirects to the canonical
    /// one.
    Moved(Response),
    /// A refused request, with its answer.
    Refused(Response),
}

/// A request for a share page.
#[derive(Debug)]
pub struct SharePage {
    /// The link; its form is valid.
    pub link: String,
    /// The query, with its question mark; empty without one.
    pub query: String,
    /// The requested host with its port, if it is safe to write into a header line.
    pub host: Option<String>,
    /// The client's address.
    pub address: IpAddr,
    /// A browser shows the page to a person, who doesn't see the card.
    pub is_shown: bool,
    /// How the page is coded: it has no brotli form.
    pub coding: Coding,
    /// The request is a HEAD.
    pub is_head: bool,
}

/// Routes a complete head from a peer at `address`.
#[must_use]
pub fn read(head: &[u8], pages: &Pages, address: IpAddr) -> Asked {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let request = Request::parse(head, &mut lines);
    request.and_then(|request| route(&request, pages, address)).unwrap_or_else(Asked::Refused)
}

fn route(request: &Request<'_, '_>, pages: &Pages, address: IpAddr) -> Result<Asked, Response> {
    let is_head = is_head(request)?;
    let path = request.path();
    if path == "/ws" {
        // A HEAD never upgrades, whatever its headers say.
        let upgrade = if is_head { Err(upgrade::needed("GET")) } else { upgrade::read(request, pages, address) };
        return upgrade.map(Asked::Upgrade).map_err(|answer| Response { is_head, ..answer });
    }
    let link = path.strip_prefix("/s/").map(|link| link.strip_suffix('/').unwrap_or(link)).filter(|link| is_link(link));
    let Some(link) = link else {
        let file = assets::answer(request, &path, is_head);
        return Ok(file.map_or_else(|| Asked::Path { path: path.into_owned(), is_head }, Asked::File));
    };
    if request.spelled.strip_prefix("/s/") != Some(link) {
        return Ok(Asked::Moved(Response { is_head, ..moved(link, request.query) }));
    }
    let host = request.host.filter(|host| is_plain_host(host)).map(str::to_owned);
    let is_shown = request.only("Sec-Fetch-Dest").is_ok_and(|dest| dest == Some(b"document"));
    let address = upgrade::page_address(request, pages, address);
    let (link, query) = (link.to_owned(), request.query.to_owned());
    let coding = Coding::accepted(request.members("Accept-Encoding"), false);
    Ok(Asked::SharePage(SharePage { link, query, host, address, is_shown, coding, is_head }))
}

/// Redirects to the canonical spelling of a link (RFC 3986, 6.2.2.2), without a slash at the end:
/// the page's script reads the link out of its URL. Header injection is impossible: a link consists
/// of letters, digits and four punctuation characters, and a request's target of visible ASCII.
fn moved(link: &str, query: &str) -> Response {
    Response::plain(301, "the share page is at the canonical spelling of its link\n")
        .with("Location", &format!("/s/{link}{query}"))
}

/// The path without query of a complete head, and whether the request is a HEAD.
///
/// # Errors
/// The answer to any other method, and to bytes that are not HTTP.
pub fn path(head: &[u8]) -> Result<(String, bool), Response> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let request = Request::parse(head, &mut lines)?;
    Ok((request.path().into_owned(), is_head(&request)?))
}

/// Whether a further request may follow a complete head on its connection (RFC 9112, 9.3).
#[must_use]
pub fn stays(head: &[u8]) -> bool {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let request = Request::parse(head, &mut lines);
    request.is_ok_and(|request| !request.is_old && !request.has_body && !request.lists("Connection", "close"))
}

/// Whether the method is HEAD; the answer to anything but `GET` and `HEAD`.
fn is_head(request: &Request<'_, '_>) -> Result<bool, Response> {
    match request.method {
        "GET" => Ok(false),
        "HEAD" => Ok(true),
        _ => Err(Response::plain(405, "GET and HEAD only\n").with("Allow", "GET, HEAD")),
    }
}
