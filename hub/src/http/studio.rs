//! The studio: a page that goes live with the camera of a browser or phone.
//!
//! Owns its files, which are compiled in, and the upgrade of its WebSocket. The page is for
//! everybody: what it may do, the token says that stands in the fragment of its link. Refuses
//! frames around it, all but its own scripts, and a WebSocket of a page of another origin. What
//! comes by the WebSocket is `socket.rs`'s.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::Full;
use hub::Name;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::Bytes,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue,
        IF_NONE_MATCH, ORIGIN, REFERRER_POLICY, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        UPGRADE, X_CONTENT_TYPE_OPTIONS,
    },
};
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Api, body,
    places::{self, Place},
    problem::Problem,
};
use crate::client::encoded;

/// The path of the page, which its link begins with.
const PAGE: &str = "/studio";
const SOCKET: &str = "/studio/ws";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files: path, media type, text.
const FILES: &[(&str, &str, &str)] = &[
    (PAGE, HTML, include_str!("../studio/studio.html")),
    ("/studio/studio.css", "text/css; charset=utf-8", include_str!("../studio/studio.css")),
    ("/studio/icon.svg", "image/svg+xml", include_str!("../studio/icon.svg")),
    ("/studio/studio.js", SCRIPT, include_str!("../studio/studio.js")),
    ("/studio/capture.js", SCRIPT, include_str!("../studio/capture.js")),
    ("/studio/clock.js", SCRIPT, include_str!("../studio/clock.js")),
    ("/studio/encoding.js", SCRIPT, include_str!("../studio/encoding.js")),
    ("/studio/line.js", SCRIPT, include_str!("../studio/line.js")),
    ("/studio/link.js", SCRIPT, include_str!("../studio/link.js")),
    ("/studio/muxing.js", SCRIPT, include_str!("../studio/muxing.js")),
    ("/studio/rate.js", SCRIPT, include_str!("../studio/rate.js")),
    ("/studio/sound.js", SCRIPT, include_str!("../studio/sound.js")),
    ("/studio/words.js", SCRIPT, include_str!("../studio/words.js")),
    ("/studio/mediabunny.js", SCRIPT, include_str!("../studio/vendor/mediabunny.js")),
    ("/studio/mediabunny.txt", "text/plain; charset=utf-8", include_str!("../studio/vendor/LICENSE")),
];

/// Nothing but its own files and its own hub; the preview is no address at all.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    media-src blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), screen-wake-lock=(self)";

/// The versions of all files, by their content.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |(_, _, text): &(&str, &str, &str)| {
        let hash: String = Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
    };
    FILES.iter().map(tag).collect()
});

/// Goes with the answer after which the connection is a WebSocket: the place of its request.
#[derive(Clone)]
pub struct Upgrade {
    _place: Arc<Option<Place>>,
}

/// Whether a path is the studio's.
pub fn is_here(path: &str) -> bool {
    path == PAGE || path.starts_with("/studio/")
}

/// The studio's link for a topic: a path of the API with the token in its fragment, which browsers
/// don't send.
pub fn link(topic: &Name, token: &str) -> String {
    format!("{PAGE}#{}/{token}", encoded(topic.as_str()))
}

/// Answers a request.
pub fn answer<B>(api: &Api, peer: IpAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    let answered = match request.uri().path() {
        SOCKET => upgrade(api, peer, request),
        path => file(path, request.method(), request.headers()),
    };
    answered.unwrap_or_else(|problem| body::response(Err(problem)))
}

fn file(path: &str, method: &Method, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, Problem> {
    let found = FILES.iter().zip(&*TAGS).find(|((own, _, _), _)| *own == path);
    let Some(((_, media, text), tag)) = found else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_such_route", "the studio has no such file"));
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(body::method_not_allowed("GET, HEAD"));
    }
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|line| {
        let tags = line.as_bytes().split(|byte| *byte == b',');
        tags.map(|tag| tag.trim_ascii()).any(|known| known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
    });
    let mut response = Response::new(if is_known { Full::default() } else { Full::new((*text).into()) });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let said = response.headers_mut();
    said.insert(ETAG, tag.clone());
    for (name, value) in [
        // Asked for each time, so a new hub has its own page, and sent once.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_TYPE, *media),
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        said.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn upgrade<B>(api: &Api, peer: IpAddr, request: &Request<B>) -> Result<Response<Full<Bytes>>, Problem> {
    let headers = request.headers();
    if *request.method() != Method::GET {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes GET")
            .with(ALLOW, HeaderValue::from_static("GET")));
    }
    demand_own_page(headers)?;
    let key = only(headers, &SEC_WEBSOCKET_KEY);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    let is_asked = request.version() == Version::HTTP_11
        && has_word(headers, &UPGRADE, "websocket")
        && has_word(headers, &CONNECTION, "upgrade")
        && only(headers, &SEC_WEBSOCKET_VERSION) == Some("13");
    let (Some(key), true) = (key, is_asked) else {
        let problem = Problem::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "this path is a WebSocket of version 13, by HTTP/1.1; a proxy in between must pass Upgrade and Connection",
        );
        let problem = problem.with(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(problem.with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    };
    let place = places::of_request(api, &api.settings(), headers, peer)?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let said = response.headers_mut();
    said.insert(UPGRADE, HeaderValue::from_static("websocket"));
    said.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        said.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response.extensions_mut().insert(Upgrade { _place: Arc::new(place) });
    Ok(response)
}

/// Refuses what a page of another origin asks for, or no page at all.
fn demand_own_page(headers: &HeaderMap) -> Result<(), Problem> {
    if let (Some(origin), Some(host)) = (only(headers, &ORIGIN), only(headers, &HOST))
        && is_same(origin, host)
    {
        return Ok(());
    }
    let detail = "this WebSocket is for the hub's own page: send its Origin, with the host and port of Host; \
                  a proxy in between must pass Host as it came";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail))
}

/// Whether an origin has this host and port.
fn is_same(origin: &str, host: &str) -> bool {
    let bare = |port| host.strip_suffix(port).unwrap_or(host);
    match origin.split_once("://") {
        Some(("https", own)) => own.eq_ignore_ascii_case(bare(":443")),
        Some(("http", own)) => own.eq_ignore_ascii_case(bare(":80")),
        _ => false,
    }
}

/// The header's value, if it comes once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        _ => None,
    }
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_with_its_port() {
        for (origin, host) in [
            ("https://hub.example", "hub.example"),
            ("https://hub.example", "HUB.example:443"),
            ("http://127.0.0.1:8090", "127.0.0.1:8090"),
            ("http://[::1]:8090", "[::1]:8090"),
        ] {
            assert!(is_same(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://hub.example:8443", "hub.example"),
            ("https://hub.example", "hub.example:8443"),
            ("https://hub.example", "hub.example:80"),
            ("https://hub.example.evil.example", "hub.example"),
            ("https://evil.example", "hub.example"),
            ("null", "null"),
            ("hub.example", "hub.example"),
            ("ftp://hub.example", "hub.example"),
            ("https://", "hub.example"),
        ] {
            assert!(!is_same(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn a_link_is_read_back_whatever_the_topic() {
        let link = link(&Name::new("app/room:7").unwrap(), "slt_x");
        assert_eq!(link, "/studio#app%2Froom%3A7/slt_x");
    }

    #[test]
    fn all_files_are_served_that_the_page_asks_for() {
        for (path, _, text) in FILES.iter().filter(|(_, media, _)| *media == HTML || *media == SCRIPT) {
            let asked = text.split(['"', '\'']).filter_map(|word| {
                word.strip_prefix("./").or_else(|| word.strip_prefix("studio/")).filter(|_| word.contains('.'))
            });
            for name in asked.filter(|name| !path.ends_with("mediabunny.js") && !name.contains(' ')) {
                assert!(FILES.iter().any(|(own, _, _)| *own == format!("/studio/{name}")), "{path}: {name}");
            }
        }
    }
}
