//! HTTP itself: pipelining, HEAD, chunks, `Expect`, heads that are wrong.
//!
//! Owns the tests that write bytes instead of calls, since a client library would not send them.
//! Slow clients are in `slow.rs`.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{DEADLINE, KEY, Server, rest};

/// Reads until this text has come, and returns all of it.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).ends_with(end) {
        bytes.push(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{more}\r\n")
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let mut bytes = String::new();
    for number in 0..50 {
        let body = format!("{{\"number\":{number}}}");
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        bytes += &head("POST", "/v1/topics/room/messages", &more);
        bytes += &body;
    }
    bytes += &head("GET", "/v1/topics/room/messages", "Connection: close\r\n");
    let text = server.raw(bytes.as_bytes()).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 51);
    let sequences: Vec<usize> = (1..=50).map(|n| text.find(&format!("\"sequence\":{n}}}")).unwrap()).collect();
    assert!(sequences.is_sorted());
    assert!(text.contains("{\"sequence\":50,\"data\":{\"number\":49}}"));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Server::start().await;
    server.call("PUT", "/v1/topics/room/state", "[1,2,3]").await;
    let whole = server.call("GET", "/v1/topics/room/state", "").await;
    let text = server.raw(head("HEAD", "/v1/topics/room/state", "Connection: close\r\n").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(text.contains(&format!("content-length: {}\r\n", whole.body.len())), "{text}");
    assert!(text.contains("etag: \"1\"\r\n"));
    let missing = server.raw(head("HEAD", "/v1/topics/none", "Connection: close\r\n").as_bytes()).await;
    assert!(missing.starts_with("HTTP/1.1 404 ") && missing.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_body_may_come_in_chunks() {
    let server = Server::start().await;
    let more = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
    let body = "1\r\n[\r\n4;ext=1\r\n1, 2\r\n1\r\n]\r\n0\r\nTrailer: x\r\n\r\n";
    let bytes = head("POST", "/v1/topics/room/messages", more) + body;
    assert!(server.raw(bytes.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    let listed = server.call("GET", "/v1/topics/room/messages", "").await;
    assert!(String::from_utf8(listed.body).unwrap().contains("[1, 2]"));
    let size_max = super::settings().limits.json_size_max;
    let mut large = head("POST", "/v1/topics/room/messages", more).into_bytes();
    for _ in 0..size_max / 1024 + 2 {
        large.extend(format!("400\r\n{}\r\n", "1".repeat(1024)).into_bytes());
    }
    let text = server.raw(&large).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("connection: close"), "{text}");
    let broken = head("POST", "/v1/topics/room/messages", more) + "zz\r\n";
    assert!(server.raw(broken.as_bytes()).await.starts_with("HTTP/1.1 400 "));
    let both = head("POST", "/v1/topics/room/messages", &format!("Content-Length: 3\r\n{more}")) + body;
    let text = server.raw(both.as_bytes()).await;
    assert!(!text.contains("HTTP/1.1 200 ") || text.matches("HTTP/1.1").count() == 1, "never two requests: {text}");
}

#[tokio::test]
async fn expect_is_continued_only_where_the_body_is_wanted() {
    let server = Server::start().await;
    let more = "Content-Type: application/json\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head("POST", "/v1/topics/room/messages", more).as_bytes()).await.unwrap();
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"[1]").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    for (path, more, status) in [
        ("/v1/topics/room/messages", more.replace("json", "xml"), "415"),
        ("/v1/topics/room/messages", more.replace("Length: 3", "Length: 300000"), "413"),
        ("/v1/none", more.to_owned(), "404"),
    ] {
        let text = server.raw(head("POST", path, &more).as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "no 100 before it: {text}");
    }
}

#[tokio::test]
async fn an_answer_outlives_the_body_that_was_not_read() {
    let server = Server::start().await;
    let more = "Content-Type: application/json\r\nContent-Length: 200000\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head("POST", "/v1/topics/room/messages", more).as_bytes()).await.unwrap();
    // The answer has come. A socket that is closed by now would be reset by what follows, and the
    // client would learn that alone.
    timeout(DEADLINE, stream.readable()).await.unwrap().unwrap();
    stream.write_all(&[b'1'; 200_000]).await.unwrap();
    let text = rest(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("too_large"), "{text}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = Server::start().await;
    let large = head("GET", "/v1/topics", &format!("X: {}\r\n", "x".repeat(20_000)));
    assert!(server.raw(large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = head("GET", "/v1/topics", &"X: y\r\n".repeat(100));
    assert!(server.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let fits = head("GET", "/v1/topics", &format!("X: {}\r\nConnection: close\r\n", "x".repeat(15_000)));
    assert!(server.raw(fits.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    for nonsense in
        ["\0\0\0\0\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n"]
    {
        let text = server.raw(nonsense.as_bytes()).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{nonsense:?}: {text}");
    }
}

#[tokio::test]
async fn an_old_client_gets_one_answer() {
    let server = Server::start().await;
    let text = server.raw(b"GET /healthz HTTP/1.0\r\n\r\nGET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(text.matches("HTTP/1.").count(), 1, "{text}");
    assert!(text.ends_with("{\"status\":\"ok\"}\n"));
}

#[tokio::test]
async fn at_the_end_requests_under_way_are_finished() {
    let mut server = Server::start().await;
    let more = "Content-Type: application/json\r\nContent-Length: 3\r\nExpect: 100-continue\r\n";
    let mut under_way = TcpStream::connect(server.address).await.unwrap();
    under_way.write_all(head("POST", "/v1/topics/room/messages", more).as_bytes()).await.unwrap();
    read_until(&mut under_way, "HTTP/1.1 100 Continue\r\n\r\n").await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut idle, "{\"status\":\"ok\"}\n").await;
    let mut fresh = TcpStream::connect(server.address).await.unwrap();
    server.until_connections(3).await;
    server.end();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut fresh).await, "");
    under_way.write_all(b"[1]").await.unwrap();
    let text = rest(&mut under_way).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("connection: close"), "{text}");
    server.ended().await;
}
