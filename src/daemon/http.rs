//! HTTP: the share page, the client, health, and the upgrade to a page.
//!
//! The head must arrive within a timeout and fit a fixed buffer. Every answer but the upgrade
//! closes the connection; over TLS, where a connection is expensive, some more requests are
//! answered. Refuses heads that are too large (431) or too slow (408), bytes that are not HTTP
//! (400), foreign origins (403), and pages beyond the table (503 with `Retry-After`). `delivery.rs`
//! sends an answer; `pages.rs` handles what a page then sends.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use smol::{LocalExecutor, Timer, future};

use super::assets::{self, SCRIPT_SOURCE, coding::VARY};
use super::connection::Connection;
use super::delivery::{end, finish, send, send_and_stay};
use super::exchange::{first_byte, read_head_on, readable, timely};
use super::head::{self, Asked, HEAD_SIZE_MAX, SharePage, Upgrade};
use super::heads::Place;
use super::preview::card;
use super::request::begins_as_head;
use super::response::{NO_STORE, Response, STATUSES};
use super::stream::Stream;
use super::{Daemon, card, challenge, pages, tls};
use relay::pages::{Peer, Refusal};
use relay::{session::Session, table::Id};

/// Requests on one TLS connection, at most.
const REQUESTS_MAX: u32 = 16;

/// Serves one connection until it is answered, becomes a page, or is evicted. By TLS, hands are
/// shaken first.
pub async fn serve(
    daemon: Rc<Daemon>,
    executor: Rc<LocalExecutor<'static>>,
    place: Rc<Place>,
    stream: Stream,
    address: IpAddr,
    is_tls: bool,
) {
    let stream = match daemon.tls.as_ref().filter(|_| is_tls) {
        Some(server) => unless_cut(&place, secure(&daemon, server, &place, stream)).await,
        None => Some(stream),
    };
    let Some(stream) = stream else { return daemon.heads.borrow_mut().leave(&place) };
    let Some((page, upgrade, early)) = unless_cut(&place, converse(&daemon, &place, &stream, address)).await else {
        daemon.heads.borrow_mut().leave(&place);
        return end(&place, stream);
    };
    // The machine has admitted the page: from here on its place can't be evicted.
    let sent = timely(&stream, upgrade.as_bytes()).await;
    daemon.heads.borrow_mut().leave(&place);
    let halves = daemon.tls.as_ref().map(tls::Server::halves);
    let is_kept = stream.secured().zip(halves).is_none_or(|(secured, halves)| secured.move_to(halves));
    if sent.is_err() || !is_kept {
        return daemon.step(|relay, now| relay.handle_page_closed(now, page));
    }
    let connection = Rc::new(Connection::new(page, stream));
    daemon.connections.borrow_mut().insert(Rc::clone(&connection));
    pages::begin(daemon, &executor, connection, early);
}

/// The result of `work`; `None` if its place is given to another meanwhile.
async fn unless_cut<T>(place: &Place, work: impl Future<Output = Option<T>>) -> Option<T> {
    let cut = async {
        place.cut().await;
        None
    };
    future::or(work, cut).await
}

/// The connection by TLS; `None` if it is over.
async fn secure(daemon: &Daemon, server: &tls::Server, place: &Place, stream: Stream) -> Option<Stream> {
    match tls::shake(daemon, server, place, &stream).await {
        Ok(secured) => Some(stream.secure(secured)),
        Err(answer) => {
            if let Some(answer) = answer {
                daemon.answers.borrow_mut().count(answer.code);
                send(&daemon.clock, place, &stream, &answer).await;
            }
            end(place, stream);
            None
        }
    }
}

/// An admitted page, its upgrade answer, and the bytes that it sent behind the request.
type NewPage = (Id<Session>, String, Vec<u8>);

async fn converse(daemon: &Daemon, place: &Place, stream: &Stream, address: IpAddr) -> Option<NewPage> {
    let (mut head, mut filled) = (Vec::new(), 0);
    let mut requests_left = if stream.secured().is_some() { REQUESTS_MAX } else { 1 };
    loop {
        requests_left -= 1;
        let received = receive(daemon, place, stream, &mut head, filled).await;
        let (size, is_last) = match &received {
            Ok((size, _)) => (*size, requests_left == 0 || !head::stays(head.get(..*size)?)),
            Err(_) => (0, true),
        };
        let mut answered = match received {
            Ok((_, now_filled)) => {
                filled = now_filled;
                let (bytes, early) = head.get(..filled)?.split_at(size.min(filled));
                match answer(daemon, place, stream, bytes, address).await {
                    Ok(answer) => answer,
                    Err((page, upgrade)) => return Some((page, upgrade, early.to_vec())),
                }
            }
            Err(Some(answer)) => answer,
            Err(None) => {
                if requests_left + 1 < REQUESTS_MAX && stream.secured().is_some() {
                    // The peer asks no more, and may still wait for the last answer.
                    finish(&daemon.clock, place, stream, &[], &[]).await;
                } else {
                    stream.answer_end();
                }
                return None;
            }
        };
        answered.is_head |= begins_as_head(&head);
        daemon.answers.borrow_mut().count(answered.code);
        // After any other answer the peer starts over, with a request that is read from its start.
        if is_last || !matches!(answered.code, 200 | 301 | 304 | 404) {
            drop(head);
            send(&daemon.clock, place, stream, &answered).await;
            return None;
        }
        answered.stays = true;
        head.copy_within(size..filled, 0);
        filled -= size;
        if !send_and_stay(&daemon.clock, place, stream, &answered, filled > 0).await {
            return None;
        }
    }
}

/// The answer to a request.
///
/// # Errors
/// The admitted page and its upgrade answer.
async fn answer(
    daemon: &Daemon,
    place: &Place,
    stream: &Stream,
    head: &[u8],
    address: IpAddr,
) -> Result<Response, (Id<Session>, String)> {
    let asked = head::read(head, &daemon.config.borrow().pages, address);
    let is_plain = stream.secured().is_none();
    let mut answered = match asked {
        Asked::Refused(answer) | Asked::Moved(answer) | Asked::File(answer) => answer,
        Asked::Path { path, is_head } => {
            let challenge = if is_plain { challenge::answer(daemon, &path) } else { None };
            Response { is_head, ..challenge.unwrap_or_else(|| other(daemon, &path)) }
        }
        Asked::SharePage(asked) => match redirect(daemon, &asked, address).filter(|_| is_plain) {
            Some(redirected) => Response { is_head: asked.is_head, ..redirected },
            None => {
                place.answer_arrives(daemon.clock.now(), 0);
                let card = card(daemon, &asked).await;
                Response { is_head: asked.is_head, ..share_page(daemon, &asked, card.as_deref()) }
            }
        },
        Asked::Upgrade(upgrade) => match enter(daemon, &upgrade) {
            Err(refusal) => refused(refusal),
            Ok(page) => {
                daemon.answers.borrow_mut().count(101);
                return Err((page, upgrade.response));
            }
        },
    };
    let hsts_s = daemon.config.borrow().tls.as_ref().map_or(0, |tls| tls.hsts_s);
    if !is_plain && hsts_s > 0 {
        answered = answered.with("Strict-Transport-Security", &format!("max-age={hsts_s}"));
    }
    Ok(answered)
}

/// The redirect of a plain request for a share page to `https:`, where the configuration wants one.
fn redirect(daemon: &Daemon, asked: &SharePage, peer: IpAddr) -> Option<Response> {
    let config = daemon.config.borrow();
    config.tls.as_ref().filter(|tls| tls.redirects(peer, &config.pages.trusted_proxies))?;
    let base = match &config.pages.url {
        Some(url) => url.clone(),
        None => {
            let host = asked.host.as_deref()?;
            let host = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(host, _)| host);
            match daemon.tls_listening.first().map(SocketAddr::port)? {
                443 => format!("https://{host}"),
                port => format!("https://{host}:{port}"),
            }
        }
    };
    let target = format!("{base}/s/{}{}", asked.link, asked.query);
    Some(Response::plain(308, "the share page is at its https: address\n").with("Location", &target))
}

/// Reads a request's head within its timeout; returns its size and the number of bytes read. The
/// first `filled` bytes are in `head` already. It is allocated when the first byte arrives, so a
/// silent connection has no buffer.
///
/// # Errors
/// The answer to bytes that are not a request; `None` if the peer is gone.
pub async fn receive(
    daemon: &Daemon,
    place: &Place,
    stream: &Stream,
    head: &mut Vec<u8>,
    filled: usize,
) -> Result<(usize, usize), Option<Response>> {
    let time_max = Duration::from_millis(daemon.config.borrow().board.head_ms_max.into());
    let late = async {
        Timer::after(time_max).await;
        Err(Some(Response::plain(408, "the request head took too long\n")))
    };
    let head = async {
        if stream.secured().is_none() {
            first_byte(place, stream).await.map_err(|_| None)?;
        } else if filled == 0 {
            readable(stream).await.map_err(|_| None)?;
            place.awaits_peer(daemon.clock.now());
        }
        place.head_begins();
        head.resize(HEAD_SIZE_MAX, 0);
        read_head_on(stream, head, filled).await
    };
    future::or(head, late).await
}

/// Number of answers by status.
#[derive(Debug, Default)]
pub struct Answers([u64; STATUSES.len()]);

impl Answers {
    fn count(&mut self, code: u16) {
        let of_code = STATUSES.iter().zip(&mut self.0).find(|((known, _), _)| *known == code);
        if let Some((_, count)) = of_code {
            *count += 1;
        }
    }

    /// The statuses and their counts.
    pub fn rows(&self) -> [(u16, u64); STATUSES.len()] {
        let mut rows = STATUSES.map(|(code, _)| (code, 0));
        for (row, count) in rows.iter_mut().zip(self.0) {
            row.1 = count;
        }
        rows
    }
}

/// Asks the machine to admit a page.
fn enter(daemon: &Daemon, upgrade: &Upgrade) -> Result<Id<Session>, Refusal> {
    let peer = Peer { address: upgrade.address, origin: &upgrade.origin, is_anybody: upgrade.is_anybody };
    daemon.step(|relay, now| relay.handle_page_open(now, peer))
}

fn other(daemon: &Daemon, path: &str) -> Response {
    if path != "/healthz" {
        return Response::plain(404, "nothing is here; a share page is /s/<link>\n");
    }
    if daemon.relay.borrow().is_draining() { Response::plain(503, "draining\n") } else { Response::plain(200, "ok") }
}

fn share_page(daemon: &Daemon, asked: &SharePage, card: Option<&[u8]>) -> Response {
    let config = daemon.config.borrow();
    let url = config.pages.url.as_ref().map(|url| format!("{url}/s/{}", asked.link));
    let body = assets::share_page(&card::tags(card, url.as_deref()), asked.coding);
    let headers = format!("{}{NO_STORE}{VARY}{}", page_policy(asked.host.as_deref()), asked.coding.line());
    Response { kind: "text/html; charset=utf-8", headers, body: body.into(), ..Response::plain(200, "") }
}

/// What the share page may load: its own files, images, media from the client, its own WebSocket.
/// In current browsers 'self' covers the WebSocket; Safari before 15.4 needs its URL. A `Host` made
/// up by a proxy does no harm here.
fn page_policy(host: Option<&str>) -> String {
    let sockets = host.map(|host| format!(" wss://{host} ws://{host}")).unwrap_or_default();
    format!(
        "Content-Security-Policy: default-src 'none'; script-src 'self' '{SCRIPT_SOURCE}'; style-src 'self'; img-src 'self' https: data:; \
         media-src 'self' blob:; connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors *\r\n\
         Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
    )
}

fn refused(refusal: Refusal) -> Response {
    let (code, text, retry_ms) = match refusal {
        Refusal::Full { retry_ms } => (503, "the relay is full, retry later\n", retry_ms),
        Refusal::Draining { retry_ms } => (503, "the relay restarts, retry soon\n", retry_ms),
        Refusal::Address { retry_ms } => (503, "this address has reached its limit of pages\n", retry_ms),
    };
    Response { headers: format!("Retry-After: {}\r\n", retry_ms.div_ceil(1000)), ..Response::plain(code, text) }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::daemon::assets::coding::Coding;

    #[test]
    fn the_policy_names_the_script_that_is_served() {
        let page = String::from_utf8(assets::share_page("", Coding::Plain)).unwrap();
        let scripts: Vec<&str> = page.split("<script").skip(1).collect();
        assert_eq!(scripts.len(), 1, "one script within the page, and none beside it");
        let script = scripts[0].strip_prefix('>').unwrap().split("</script>").next().unwrap();
        let hash = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, Sha256::digest(script.as_bytes()));
        assert!(page_policy(None).contains(&format!("script-src 'self' 'sha256-{hash}';")));
    }
}
