//! The studio: its files, and streams by WebSockets on real sockets.

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, protocol::frame::coding::CloseCode},
};

use super::{super::Settings, DEADLINE, KEY, Server, rest, until};

const MP4: &[u8] = include_bytes!("../../../../crates/media/testdata/h264.mp4");

/// A WebSocket of the studio.
struct Studio(WebSocketStream<TcpStream>);

impl Studio {
    async fn try_open(server: &Server, headers: &[(&str, &str)]) -> Result<Self, tungstenite::Error> {
        let mut request = hyper::Request::builder()
            .uri(format!("ws://{}/studio/ws", server.address))
            .header("host", server.address.to_string())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tungstenite::handshake::client::generate_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(server.address).await.unwrap();
        let open = client_async(request.body(()).unwrap(), stream);
        timeout(DEADLINE, open).await.unwrap().map(|(socket, _)| Self(socket))
    }

    async fn open(server: &Server) -> Self {
        Self::try_open(server, &[("origin", &format!("http://{}", server.address))]).await.unwrap()
    }

    /// One that has named its token.
    async fn begin(server: &Server, token: &str, topic: &str) -> Self {
        let mut studio = Self::open(server).await;
        studio.text(&json!({ "token": token, "topic": topic })).await;
        studio
    }

    async fn text(&mut self, what: &Value) {
        let _ = self.0.send(Message::text(what.to_string())).await;
    }

    /// Sends bytes. The hub may have ended the stream.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.send(Message::binary(bytes.to_vec())).await;
    }

    /// What the hub says next, but for what it got.
    async fn said(&mut self) -> Value {
        loop {
            match timeout(DEADLINE, self.0.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) if text.contains("\"got\"") => {}
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The code of its close.
    async fn closed(&mut self) -> CloseCode {
        loop {
            if let Message::Close(frame) = timeout(DEADLINE, self.0.next()).await.unwrap().unwrap().unwrap() {
                return frame.unwrap().code;
            }
        }
    }

    /// Why the hub ends it: status, code, and the close.
    async fn refused(&mut self) -> (u64, String, CloseCode) {
        let said = loop {
            let said = self.said().await;
            if said["type"] != "live" {
                break said;
            }
        };
        assert_eq!(said["type"], "error", "{said}");
        assert!(said["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{said}");
        let status = said["status"].as_u64().unwrap();
        let title = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap().canonical_reason().unwrap();
        assert_eq!(said["title"], title);
        (status, said["code"].as_str().unwrap().to_owned(), self.closed().await)
    }
}

async fn token(server: &Server, topic: &str) -> String {
    let made = server.call("POST", &format!("/v1/topics/{topic}/ingest-tokens"), "").await.json();
    made["token"].as_str().unwrap().to_owned()
}

async fn live(server: &Server, topic: &str) -> bool {
    let got = server.call("GET", &format!("/v1/topics/{topic}"), "").await;
    got.status == 200 && got.json()["live"]["video"] == true
}

#[tokio::test]
async fn the_page_is_its_own_and_nobody_frames_it() {
    let server = Server::start().await;
    let get = async |path: &str, more: &str| {
        server.raw(format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{more}\r\n").as_bytes()).await
    };
    let page = get("/studio", "Sec-Fetch-Site: cross-site\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("text/html; charset=utf-8"), "{page}");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; ",
        "frame-ancestors 'none'",
        "permissions-policy: camera=(self), microphone=(self), display-capture=(self)",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
        "x-content-type-options: nosniff",
    ] {
        assert!(page.contains(header), "{header}: {page}");
    }
    assert!(!page.contains("access-control"), "no page may read this");
    let (_, tag) = page.split_once("etag: ").unwrap();
    let tag = tag.lines().next().unwrap();
    let again = get("/studio", &format!("If-None-Match: \"x\", W/{tag}\r\n")).await;
    assert!(again.starts_with("HTTP/1.1 304 ") && again.ends_with("\r\n\r\n"), "{again}");
    assert!(get("/studio", "If-None-Match: \"x\"\r\n").await.starts_with("HTTP/1.1 200 "));
    let script = get("/studio/mediabunny.js", "").await;
    assert!(script.contains("text/javascript") && script.len() > 1_000, "{}", script.len());
    assert!(get("/studio/../Cargo.toml", "").await.starts_with("HTTP/1.1 404 "));
    assert_eq!(server.call("GET", "/studio/x", "").await.problem()["code"], "no_such_route");
    assert_eq!(server.call("POST", "/studio", "{}").await.problem()["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_stream_is_live_until_it_ends() {
    let server = Server::start().await;
    let made = server.call("POST", "/v1/topics/app%2Froom/ingest-tokens", "").await.json();
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["studio"], format!("/studio#app%2Froom/{token}"));
    for last in [Message::text("{\"type\":\"end\"}"), Message::binary(Vec::new())] {
        let mut studio = Studio::begin(&server, token, "app/room").await;
        // The connection is no request any more: no timeout of those holds.
        let (first, second) = MP4.split_at(20_000);
        for part in first.chunks(3_000) {
            studio.send(part).await;
        }
        assert_eq!(studio.said().await, json!({ "type": "live", "mime": "video/mp4; codecs=\"opus,avc1.42C015\"" }));
        until(async || live(&server, "app%2Froom").await).await;
        studio.0.send(Message::Ping("are you there".into())).await.unwrap();
        studio.send(second).await;
        studio.0.send(last).await.unwrap();
        let ended = studio.said().await;
        assert!(ended["type"] == "ended" && ended["chunks"].as_u64().unwrap() > 3, "{ended}");
        assert_eq!(studio.closed().await, CloseCode::Normal);
        assert!(!live(&server, "app%2Froom").await);
    }
    // A page that is closed ends its stream too.
    let mut studio = Studio::begin(&server, token, "app/room").await;
    studio.send(&MP4[..20_000]).await;
    until(async || live(&server, "app%2Froom").await).await;
    drop(studio);
    until(async || !live(&server, "app%2Froom").await).await;
    server.until_connections(0).await;
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_websocket() {
    let server = Server::start().await;
    let own = format!("http://{}", server.address);
    for headers in [
        &[][..],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", &own), ("origin", "https://evil.example")],
    ] {
        match Studio::try_open(&server, headers).await.err() {
            Some(tungstenite::Error::Http(response)) => {
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
                assert!(String::from_utf8_lossy(response.body().as_ref().unwrap()).contains("cross_site"));
            }
            other => panic!("{headers:?}: {other:?}"),
        }
    }
    let host = server.address.to_string();
    let headers = [("origin", own.as_str()), ("host", host.as_str())];
    assert_eq!(server.call_as("", "POST", "/studio/ws", &headers, "").await.status, 405);
    let request = format!("GET /studio/ws HTTP/1.1\r\nHost: {host}\r\nOrigin: {own}\r\nConnection: close\r\n");
    for more in ["", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n"] {
        let text = server.raw(format!("{request}{more}\r\n").as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 426 ") && text.contains("upgrade_required"), "{text}");
    }
}

#[tokio::test]
async fn only_a_token_of_this_topic_opens_it() {
    let server = Server::start().await;
    let good = token(&server, "room").await;
    let short = server.call("POST", "/v1/topics/room/ingest-tokens", "{\"ttl_s\":1}").await.json();
    let short = short["token"].as_str().unwrap();
    until(async || server.shared.moment().unix_us / 1_000_000 > short_end(&server, short)).await;
    for (what, token, topic, status, code) in [
        ("another topic", &*good, "other", 403, "outside_prefix"),
        ("a topic below", &good, "room/1", 403, "outside_prefix"),
        ("no topic", &good, "", 400, "invalid_topic"),
        ("wrong", &format!("{good}x"), "room", 401, "unknown_key"),
        ("a key", KEY, "room", 401, "unknown_key"),
        ("its time is over", short, "room", 401, "unknown_key"),
    ] {
        let mut studio = Studio::begin(&server, token, topic).await;
        assert_eq!(studio.refused().await, (status, code.to_owned(), CloseCode::Policy), "{what}");
    }
}

fn short_end(server: &Server, token: &str) -> u64 {
    server.shared.read(|hub, _, _| hub::token::verify(hub.fleet_key(), token)).unwrap().end_s.into()
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_its_stream_with_the_reason() {
    let server = Server::start().await;
    let token = token(&server, "room").await;
    let mut studio = Studio::begin(&server, &token, "room").await;
    studio.send(&MP4[..20_000]).await;
    until(async || live(&server, "room").await).await;
    let body = json!({ "token": token, "reason": "your time is over" }).to_string();
    assert_eq!(server.call("POST", "/v1/revoke", &body).await.status, 200);
    assert_eq!(studio.said().await["type"], "live");
    let said = studio.said().await;
    assert_eq!((&said["code"], &said["reason"]), (&json!("token_revoked"), &json!("your time is over")));
    assert_eq!(studio.closed().await, CloseCode::Policy);
    let mut again = Studio::begin(&server, &token, "room").await;
    again.send(&MP4[..20_000]).await;
    assert_eq!(again.refused().await.1, "token_revoked");
}

#[tokio::test]
async fn a_first_message_without_a_good_token_is_refused() {
    let server = Server::start().await;
    let good = token(&server, "room").await;
    let first = json!({ "token": good, "topic": "room" }).to_string();
    let too_long = json!({ "token": good, "topic": "x".repeat(5_000) }).to_string();
    for (what, messages, status, code, close) in [
        ("bytes", vec![Message::binary(MP4.to_vec())], 413, "too_large", CloseCode::Size),
        ("few bytes", vec![Message::binary(vec![0; 99])], 400, "invalid_body", CloseCode::Policy),
        ("no JSON", vec![Message::text("hello")], 400, "invalid_json", CloseCode::Policy),
        ("more fields", vec![Message::text("{\"a\":1}")], 400, "invalid_body", CloseCode::Policy),
        ("a long one", vec![Message::text(too_long)], 413, "too_large", CloseCode::Size),
        (
            "text in place of bytes",
            vec![Message::text(first.clone()), Message::text("{\"type\":\"hello\"}")],
            400,
            "invalid_body",
            CloseCode::Policy,
        ),
        (
            "a huge message",
            vec![Message::text(first.clone()), Message::binary(vec![0; 3 << 20])],
            413,
            "too_large",
            CloseCode::Size,
        ),
        (
            "no stream",
            vec![Message::text(first.clone()), Message::binary(vec![b'G'; 64])],
            422,
            "invalid_media",
            CloseCode::Policy,
        ),
        (
            "an end at once",
            vec![Message::text(first.clone()), Message::text("{\"type\":\"end\"}")],
            422,
            "invalid_value",
            CloseCode::Policy,
        ),
    ] {
        let mut studio = Studio::open(&server).await;
        for message in messages {
            let _ = studio.0.send(message).await;
        }
        assert_eq!(studio.refused().await, (status, code.to_owned(), close), "{what}");
    }
    server.until_connections(0).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = Server::start().await;
    let mut studio = Studio::open(&server).await;
    let mut slow = Studio::begin(&server, &token(&server, "room").await, "room").await;
    assert_eq!(studio.refused().await, (408, "too_slow".to_owned(), CloseCode::Again));
    // A stream that has begun has 10 s.
    assert_eq!(slow.refused().await, (408, "too_slow".to_owned(), CloseCode::Again));
}

#[tokio::test]
async fn one_stream_has_the_topic_and_gives_way_to_its_owner_alone() {
    let server = Server::start().await;
    let [own, other] = [token(&server, "room").await, token(&server, "room").await];
    let mut first = Studio::begin(&server, &own, "room").await;
    first.send(&MP4[..20_000]).await;
    until(async || live(&server, "room").await).await;
    let mut second = Studio::begin(&server, &other, "room").await;
    second.send(&MP4[..20_000]).await;
    assert_eq!(second.refused().await, (409, "already_live".to_owned(), CloseCode::Again));
    // The same token, once the first has sent nothing for a second.
    let mut again = loop {
        let mut again = Studio::begin(&server, &own, "room").await;
        again.send(&MP4[..20_000]).await;
        if again.said().await["type"] == "live" {
            break again;
        }
    };
    assert_eq!(first.refused().await.1, "already_live", "the first one is over");
    again.send(&MP4[20_000..]).await;
    again.text(&json!({ "type": "end" })).await;
    assert_eq!(again.said().await["type"], "ended");
}

#[tokio::test]
async fn an_ended_topic_and_a_full_hub_say_so() {
    let server = Server::start().await;
    let good = token(&server, "room").await;
    let mut studio = Studio::begin(&server, &good, "room").await;
    studio.send(&MP4[..20_000]).await;
    until(async || live(&server, "room").await).await;
    assert_eq!(server.call("DELETE", "/v1/topics/room", "{\"reason\":\"good night\"}").await.status, 204);
    assert_eq!(studio.refused().await, (409, "topic_ended".to_owned(), CloseCode::Policy));
    let mut streams = Vec::new();
    for number in 0..4 {
        let topic = format!("room-{number}");
        let mut stream = Studio::begin(&server, &token(&server, &topic).await, &topic).await;
        stream.send(&MP4[..20_000]).await;
        until(async || live(&server, &topic).await).await;
        streams.push(stream);
    }
    let mut fifth = Studio::begin(&server, &token(&server, "room-4").await, "room-4").await;
    assert_eq!(fifth.refused().await, (507, "full".to_owned(), CloseCode::Again));
}

#[tokio::test]
async fn a_hub_that_ends_says_so_and_waits_for_no_stream() {
    let mut server = Server::start().await;
    let good = token(&server, "room").await;
    let mut studio = Studio::begin(&server, &good, "room").await;
    studio.send(&MP4[..20_000]).await;
    until(async || live(&server, "room").await).await;
    let mut silent = Studio::open(&server).await;
    server.end();
    assert_eq!(studio.refused().await, (503, "ending".to_owned(), CloseCode::Away));
    assert_eq!(silent.refused().await.2, CloseCode::Away);
    drop((studio, silent));
    server.ended().await;
}

#[tokio::test]
async fn what_comes_with_the_head_is_not_lost() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let first = json!({ "token": "slt_x", "topic": "room" }).to_string();
    let mut bytes = concat!(
        "GET /studio/ws HTTP/1.1\r\nHost: hub\r\nOrigin: https://hub\r\nConnection: keep-alive, Upgrade\r\n",
        "Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .as_bytes()
    .to_vec();
    bytes.extend([0x81, 0x80 | u8::try_from(first.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend(first.as_bytes());
    stream.write_all(&bytes).await.unwrap();
    let said = rest(&mut stream).await;
    // The answer of RFC 6455, section 1.3.
    assert!(said.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{said}");
    assert!(said.contains("\"code\":\"unknown_key\""), "{said}");
}

#[tokio::test]
async fn a_websocket_has_the_place_of_its_connection_and_behind_a_proxy_of_its_request() {
    let proxied = || Settings {
        trusted_proxies: vec![sharelinkd::config::values::network("127.0.0.1").unwrap()],
        ..super::settings()
    };
    let mut settings = proxied();
    settings.limits.connections_per_address_max = 2;
    let server = Server::start_with(super::hub_settings(), hub::memory::Limits::default(), settings).await;
    let origin = format!("http://{}", server.address);
    let headers = [("origin", origin.as_str()), ("x-forwarded-for", "192.0.2.7")];
    let open = async || Studio::try_open(&server, &headers).await;
    let (one, two) = (open().await.unwrap(), open().await.unwrap());
    assert!(matches!(open().await.err(), Some(tungstenite::Error::Http(response)) if response.status() == 429));
    drop((one, two));
    until(async || open().await.is_ok()).await;
    server.set(proxied());
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(b"GET /studio/ws HTTP/1.1\r\nHost: hub\r\n").await.unwrap();
    // A slow head is still answered.
    let mut said = Vec::new();
    timeout(DEADLINE, raw.read_to_end(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&said));
}
