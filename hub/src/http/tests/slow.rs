//! Clients that are slow.
//!
//! Each is cut off by the real timeout of its phase, so these tests take up to half a minute; they
//! run beside each other. None measures a time: each waits for what the server does at the end.

use std::time::Duration;

use http_body_util::Full;
use hub::memory;
use hyper::Request;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{super::body::Room, DEADLINE, KEY, Server, got, hub_settings, protocol::read_until, rest, settings, until};

/// Sends a byte now and then, until the server has had enough, and returns what it said.
async fn drip(server: &Server, head: &str, each: &str) -> String {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let dripping = async {
        while writer.write_all(each.as_bytes()).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
        std::future::pending().await
    };
    let reading = async { reader.read_to_end(&mut bytes).await };
    let end = async {
        tokio::select! { _ = reading => (), () = dripping => () }
    };
    timeout(DEADLINE, end).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn post(more: &str) -> String {
    let head = format!("POST /v1/topics/room/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n");
    format!("{head}Content-Type: application/json\r\n{more}\r\n")
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = Server::start().await;
    assert_eq!(server.raw(b"").await, "");
}

#[tokio::test]
async fn a_head_that_stops_or_drips_is_cut_off() {
    let server = Server::start().await;
    let stopped = server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n");
    let dripping = drip(&server, "GET /healthz HTTP/1.1\r\nX: ", "x");
    let (stopped, dripping) = tokio::join!(stopped, dripping);
    assert!(stopped.starts_with("HTTP/1.1 408 "), "{stopped}");
    assert!(dripping.starts_with("HTTP/1.1 408 "), "{dripping}");
}

#[tokio::test]
async fn a_head_behind_another_request_is_cut_off_too() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea").await.unwrap();
    read_until(&mut stream, "{\"status\":\"ok\"}\n").await;
    stream.write_all(b"l").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_that_stops_or_drips_is_cut_off() {
    let server = Server::start().await;
    let stopped_head = post("Content-Length: 5\r\n") + "[1";
    let stopped = server.raw(stopped_head.as_bytes());
    // What came fast earns more time than this test waits; each part has its own limit.
    let paused_head = post("Content-Length: 65500\r\n") + &" ".repeat(65_000);
    let paused = server.raw(paused_head.as_bytes());
    let head = post("Content-Length: 60000\r\n");
    let dripping = drip(&server, &head, " ");
    let chunked = post("Transfer-Encoding: chunked\r\n");
    let chunks = drip(&server, &chunked, "1\r\n \r\n");
    let (stopped, paused, dripping, chunks) = tokio::join!(stopped, paused, dripping, chunks);
    for text in [stopped, paused, dripping, chunks] {
        assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("too_slow"), "{text}");
    }
    assert_eq!(server.call("GET", "/v1/topics/room", "").await.status, 404, "nothing was published");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::start().await;
    let state = format!("\"{}\"", "x".repeat(60_000));
    assert_eq!(server.call("PUT", "/v1/topics/room/state", &state).await.status, 200);
    let get = format!("GET /v1/topics/room/state HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let requests = 1000;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // 60 MB of answers, which no socket buffers. The requests themselves fit.
    let _ = timeout(DEADLINE, stream.write_all(get.repeat(requests).as_bytes())).await.unwrap();
    server.until_connections(0).await;
    assert!(rest(&mut stream).await.matches("HTTP/1.1 200 OK").count() < requests);
}

#[tokio::test]
async fn a_pause_between_requests_is_longer_than_a_head_may_take() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    for pause in [0, 7] {
        sleep(Duration::from_secs(pause)).await;
        let request = Request::get("/healthz").body(Full::default()).unwrap();
        let response = timeout(DEADLINE, connection.send_request(request)).await.unwrap();
        assert_eq!(got(response.unwrap()).await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_closed_gives_its_place_back() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "{\"status\":\"ok\"}\n").await;
    server.until_connections(1).await;
    drop(stream);
    server.until_connections(0).await;
}

/// A server whose room for large answers is taken: two callers have half of it each, one of them
/// that of `KEY`. An answer waits for room for `room_time`.
async fn crowded(room_time: Duration) -> (Server, [Room; 2]) {
    let mut settings = settings();
    settings.limits.room_time = room_time;
    let server = Server::start_with(hub_settings(), memory::Limits::default(), settings).await;
    server.call("POST", "/v1/topics/room/messages", "1").await;
    let take = |caller| server.api.answers.wait(caller, (16 << 20) - 1, room_time);
    let taken = [take("all").await.unwrap(), take("two").await.unwrap()];
    (server, taken)
}

#[tokio::test]
async fn a_large_answer_waits_for_room() {
    let (server, [own, other]) = crowded(DEADLINE).await;
    // With its own share, it lacks that of all.
    drop(own);
    let all = server.api.answers.wait("three", (16 << 20) - 1, DEADLINE).await.unwrap();
    let listing = server.call("GET", "/v1/topics/room/messages", "");
    let freeing = async {
        until(async || server.api.answers.held_by("all") > 0).await;
        drop(other);
    };
    let (list, ()) = tokio::join!(listing, freeing);
    assert_eq!((list.status.as_u16(), list.json()["messages"].as_array().unwrap().len()), (200, 1), "{list:?}");
    drop(all);
}

#[tokio::test]
async fn a_large_answer_without_room_is_refused() {
    let (server, taken) = crowded(Duration::from_millis(100)).await;
    let batch = "{\"op\":\"message\",\"topic\":\"room\",\"data\":2}\n".repeat(100);
    let lines = [("content-type", "application/x-ndjson")];
    let (list, batched, small) = tokio::join!(
        server.call("GET", "/v1/topics/room/messages", ""),
        server.call_as(KEY, "POST", "/v1/batch", &lines, &batch),
        server.call("POST", "/v1/topics/other/messages", "1")
    );
    assert_eq!((list.status.as_u16(), batched.status.as_u16(), small.status.as_u16()), (429, 429, 200));
    assert_eq!((list.problem()["code"].as_str(), &list.headers["retry-after"]), (Some("busy"), &"1".parse().unwrap()));
    drop(taken);
    // Nothing of the batch was done.
    let list = server.call("GET", "/v1/topics/room/messages", "").await;
    assert_eq!(list.json()["messages"].as_array().unwrap().len(), 1, "{list:?}");
}

#[tokio::test]
async fn figures_and_the_fleet_do_not_wait_for_lists() {
    let (server, _taken) = crowded(Duration::from_millis(100)).await;
    for (path, status) in [("/v1/topics", 429), ("/metrics", 200), ("/v1/fleet", 200)] {
        assert_eq!(server.call("GET", path, "").await.status, status, "{path}");
    }
    // They have room of their own, a share for each caller.
    let fleet_size_max = settings().limits.fleet_size_max;
    let mut own = Vec::new();
    for _ in 0..2 {
        own.push(server.api.fleets.wait("all", fleet_size_max, DEADLINE).await.unwrap());
    }
    let by = |key| server.call_as(key, "GET", "/metrics", &[], "");
    assert_eq!((by(KEY).await.status.as_u16(), by("slk_reader").await.status.as_u16()), (429, 200));
}
