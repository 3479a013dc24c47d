//! A request head, without its socket: whether it is whole, and what it asks for.
//!
//! Owns which path is what, and how a share link may be spelled: docs/protocol.md under "HTTP", as far as it needs nothing
//! but the bytes and the configuration. What HTTP itself demands is `request.rs`, what an upgrade must be is `upgrade.rs`.
//! Refuses another method (405). Knows neither the machine nor a clock: whether there is room, and what a share page shows, is
//! `http.rs`.

use std::net::IpAddr;

pub use super::answer::Answer;
pub use super::request::{HEAD_SIZE_MAX, size};
use super::request::{HEADERS_MAX, Request, is_plain_host};
use super::upgrade;
pub use super::upgrade::Upgrade;
use crate::config::Pages;
use wire::is_link;

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
    SharePage(SharePage),
    /// To become a page.
    Upgrade(Upgrade),
    /// The share page of a link that is spelled in another way: the answer says where it is.
    Moved(Answer),
    /// Nothing that there is: the answer says why.
    Refused(Answer),
}

/// A share page that is asked for.
#[derive(Debug)]
pub struct SharePage {
    /// It has the form of a link.
    pub link: String,
    /// The host, with its port, that the page was asked of, where it can stand in a header line of ours.
    pub host: Option<String>,
    /// Who asks.
    pub address: IpAddr,
    /// A browser shows it to somebody: whoever looks at it sees no card.
    pub is_shown: bool,
    /// Only the answer's head is wanted.
    pub is_head: bool,
}

/// Reads a head that is whole, from a peer at `address`.
#[must_use]
pub fn read(head: &[u8], pages: &Pages, address: IpAddr) -> Asked {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let request = Request::parse(head, &mut lines);
    request.and_then(|request| route(&request, pages, address)).unwrap_or_else(Asked::Refused)
}

fn route(request: &Request<'_, '_>, pages: &Pages, address: IpAddr) -> Result<Asked, Answer> {
    let is_head = is_head(request)?;
    let path = request.path();
    if path == "/ws" {
        // HEAD upgrades nothing, whatever it says.
        let upgrade = if is_head { Err(upgrade::needed("GET")) } else { upgrade::read(request, pages, address) };
        return upgrade.map(Asked::Upgrade).map_err(|answer| Answer { is_head, ..answer });
    }
    let link = path.strip_prefix("/s/").map(|link| link.strip_suffix('/').unwrap_or(link)).filter(|link| is_link(link));
    let Some(link) = link else { return Ok(Asked::Path { path: path.into_owned(), is_head }) };
    if request.spelled.strip_prefix("/s/") != Some(link) {
        return Ok(Asked::Moved(Answer { is_head, ..moved(link, request.query) }));
    }
    let host = request.host.filter(|host| is_plain_host(host)).map(str::to_owned);
    let is_shown = request.only("Sec-Fetch-Dest").is_ok_and(|dest| dest == Some(b"document"));
    let address = upgrade::page_address(request, pages, address);
    Ok(Asked::SharePage(SharePage { link: link.to_owned(), host, address, is_shown, is_head }))
}

/// The same room under another spelling (RFC 3986, 6.2.2.2), or with a slash behind it. The page's script reads the link
/// out of its address, so the browser is sent to the plain one. Nothing of it can end the header line: a link has
/// letters, digits and four signs, and a request's target only what can be seen.
fn moved(link: &str, query: &str) -> Answer {
    Answer::plain(301, "the share page is at the plain spelling of its link\n")
        .with("Location", &format!("/s/{link}{query}"))
}

/// The path, without query, that a whole head asks for, and whether only the answer's head is wanted.
///
/// # Errors
/// The answer to another method, or to no HTTP.
pub fn path(head: &[u8]) -> Result<(String, bool), Answer> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let request = Request::parse(head, &mut lines)?;
    Ok((request.path().into_owned(), is_head(&request)?))
}

/// Whether only the answer's head is wanted; the answer to what is neither `GET` nor `HEAD`.
fn is_head(request: &Request<'_, '_>) -> Result<bool, Answer> {
    match request.method {
        "GET" => Ok(false),
        "HEAD" => Ok(true),
        _ => Err(Answer::plain(405, "GET and HEAD only\n").with("Allow", "GET, HEAD")),
    }
}
