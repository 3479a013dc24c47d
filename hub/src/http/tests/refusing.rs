//! What is refused: callers, paths, methods, bodies, and what is too many.
//!
//! Owns a table of one good call for each route, from which each refusal is tried on all routes
//! that have it. A test compares the table with the routes.

use std::net::Ipv4Addr;

use http_body_util::Full;
use hub::memory;
use hyper::Request;
use serde_json::{Value, json};
use sharelinkd::config::values::network;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{super::routes::ROUTES, KEY, Server, got, hub_settings, rest, settings};

/// Every route, with a body that it takes.
const CALLS: [(&str, &str, &str, &str); 20] = [
    ("GET", "/metrics", "", "read"),
    ("GET", "/v1/fleet", "", "read"),
    ("GET", "/v1/topics", "", "read"),
    ("GET", "/v1/topics/app%2Fa", "", "read"),
    ("GET", "/v1/topics/app%2Fa/messages", "", "read"),
    ("GET", "/v1/topics/app%2Fa/state", "", "read"),
    ("POST", "/v1/topics/app%2Fa/messages", "1", "publish"),
    ("DELETE", "/v1/topics/app%2Fa/messages/1", "", "publish"),
    ("PUT", "/v1/topics/app%2Fa/state", "1", "publish"),
    ("POST", "/v1/publish", r#"{"topics":["a"],"message":1}"#, "publish"),
    ("POST", "/v1/links", r#"{"topic":"a"}"#, "publish"),
    ("PUT", "/v1/topics/app%2Fa/media", "", "ingest"),
    ("POST", "/v1/topics/app%2Fa/media", "", "ingest"),
    ("POST", "/v1/topics/app%2Fa/ingest-tokens", "", "ingest"),
    ("POST", "/v1/topics/app%2Fa/open", "", "admin"),
    ("DELETE", "/v1/topics/app%2Fa", "", "admin"),
    ("POST", "/v1/revoke", r#"{"link":"a"}"#, "admin"),
    ("POST", "/v1/kick", r#"{"page":"1.1@x"}"#, "admin"),
    ("POST", "/v1/batch", r#"{"operations":[{"op":"open","topic":"b"}]}"#, ""),
    ("GET", "/healthz", "", ""),
];

#[test]
fn the_calls_are_all_routes() {
    assert_eq!(CALLS.len(), ROUTES.iter().map(|(_, methods)| methods.len()).sum::<usize>());
}

#[tokio::test]
async fn every_route_needs_a_key_and_its_scope() {
    let server = Server::start().await;
    for (method, path, body, scope) in CALLS {
        let as_key = async |key: &str| server.call_as(key, method, path, &[], body).await;
        if path == "/healthz" {
            continue;
        }
        for unknown in ["", "slk_none", "slk_al", "slk_all2"] {
            let got = as_key(unknown).await;
            assert_eq!((got.status.as_u16(), &got.headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
            assert_eq!(got.problem()["code"], "unknown_key");
        }
        for (key, has) in [("slk_reader", "read"), ("slk_publisher", "publish")] {
            let got = as_key(key).await;
            if scope.is_empty() || has == scope {
                assert!(!matches!(got.status.as_u16(), 401 | 403), "{method} {path} {got:?}");
                continue;
            }
            assert_eq!((got.status.as_u16(), &got.problem()["code"]), (403, &json!("missing_scope")));
            let detail = got.problem()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(scope) && !detail.contains("slk_"), "{detail}");
        }
        if path.starts_with("/v1/topics/") {
            let outside = path.replace("app%2Fa", "apple");
            let got = server.call_as("slk_tenant", method, &outside, &[], body).await;
            assert_eq!((got.status.as_u16(), &got.problem()["code"]), (403, &json!("outside_prefix")));
            assert!(got.problem()["detail"].as_str().unwrap().contains("\"app\""));
            assert!(!matches!(as_key("slk_tenant").await.status.as_u16(), 401 | 403));
        }
    }
}

#[tokio::test]
async fn a_key_is_sent_in_one_way() {
    let server = Server::start().await;
    let with = async |lines: &[(&str, &str)]| server.call_as("", "GET", "/v1/topics", lines, "").await.status.as_u16();
    for good in ["Bearer slk_all", "bearer slk_all", "BEARER  slk_all "] {
        assert_eq!(with(&[("authorization", good)]).await, 200, "{good}");
    }
    for bad in ["slk_all", "Basic c2xrX2FsbA==", "Bearer", "Bearer slk_all slk_all"] {
        assert_eq!(with(&[("authorization", bad)]).await, 401, "{bad}");
    }
    assert_eq!(with(&[("authorization", "Bearer slk_all"), ("authorization", "Bearer slk_all")]).await, 401);
    assert_eq!(server.call_as("", "GET", "/v1/topics?key=slk_all", &[], "").await.status, 401);
}

#[tokio::test]
async fn a_page_of_another_site_is_refused() {
    let server = Server::start().await;
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("", 403), ("same-origin", 200), ("none", 200)] {
        let got = server.call_as(KEY, "GET", "/v1/topics", &[("sec-fetch-site", site)], "").await;
        assert_eq!(got.status, status, "{site}");
        if status == 403 {
            assert_eq!(got.problem()["code"], "cross_site");
        }
    }
    let both = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
    assert_eq!(server.call_as(KEY, "GET", "/v1/topics", &both, "").await.status, 403);
    let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    assert_eq!(server.call_as("", "OPTIONS", "/v1/publish", &preflight, "").await.status, 405);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = Server::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/topics/",
        "/v1/topics/a/",
        "/v1/topics/a/b",
        "/v1/topics/a/messages/1/2",
        "/V1/topics",
    ] {
        let got = server.call("GET", path, "").await;
        let code = got.problem()["code"].clone();
        // An empty segment is a topic without a name.
        let expected = if path == "/v1/topics/" { json!("invalid_topic") } else { json!("no_such_route") };
        assert_eq!(code, expected, "{path}");
    }
    for path in ["/v1/topics/a/", "/v1/fleet/", "/v1/topics/a/messages/"] {
        let got = server.call("GET", path, "").await.problem();
        assert!(got["detail"].as_str().unwrap().ends_with("leave out the / at its end"), "{got}");
    }
    assert_eq!(server.call("GET", "/v1/topics/%zz", "").await.problem()["code"], "invalid_path");
    assert_eq!(server.call("GET", "/v1/topics/a%20b", "").await.problem()["code"], "invalid_topic");
    for (method, path, allow) in [
        ("PATCH", "/v1/topics/a", "GET, DELETE, HEAD"),
        ("GET", "/v1/publish", "POST"),
        ("HEAD", "/v1/batch", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("BREW", "/v1/topics/a/state", "GET, PUT, HEAD"),
    ] {
        let got = server.call(method, path, "").await;
        assert_eq!((got.status.as_u16(), &got.headers["allow"]), (405, &allow.parse().unwrap()));
        if method != "HEAD" {
            assert_eq!(got.problem()["code"], "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn unknown_and_double_fields_and_parameters_are_refused_by_name() {
    let server = Server::start().await;
    for (method, path, body, _) in CALLS {
        let got = server.call(method, &format!("{path}?durabel=1"), body).await;
        assert_eq!((got.status.as_u16(), &got.problem()["code"]), (400, &json!("unknown_parameter")), "{path}");
        assert!(got.problem()["detail"].as_str().unwrap().contains("durabel"));
        if body.starts_with('{') {
            let (unknown, double) = (body.replacen('{', "{\"tpoic\":1,", 1), body.replacen('{', &twice(body), 1));
            for (wrong, name) in [(unknown, "tpoic"), (double, "duplicate field")] {
                let got = server.call(method, path, &wrong).await;
                assert_eq!((got.status.as_u16(), &got.problem()["code"]), (400, &json!("invalid_body")), "{wrong}");
                assert!(got.problem()["detail"].as_str().unwrap().contains(name), "{got:?}");
            }
        }
    }
    let twice = server.call("GET", "/v1/topics?limit=1&limit=2", "").await;
    assert_eq!(twice.problem()["code"], "duplicate_parameter");
    let in_batch = r#"{"op":"open","topic":"a","topic":"b"}"#;
    let got = server.call("POST", "/v1/batch", &format!("{{\"operations\":[{in_batch}]}}")).await.json();
    assert!(got["results"][0]["problem"]["detail"].as_str().unwrap().contains("duplicate field `topic`"));
}

/// The first field of an object, to be put before it.
fn twice(body: &str) -> String {
    let name = body.split('"').nth(1).unwrap();
    let first: Value = serde_json::from_str::<Value>(body).unwrap()[name].clone();
    format!("{{\"{name}\":{first},")
}

#[tokio::test]
async fn a_body_has_its_media_type() {
    let server = Server::start().await;
    for (method, path, body, _) in CALLS.into_iter().filter(|(_, _, body, _)| !body.is_empty()) {
        for wrong in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "json", ""]
        {
            let got = server.call_as(KEY, method, path, &[("content-type", wrong)], body).await;
            assert_eq!(
                (got.status.as_u16(), &got.problem()["code"]),
                (415, &json!("unsupported_media_type")),
                "{path}"
            );
        }
        let none =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n");
        let none = format!("{none}Content-Length: {}\r\n\r\n{body}", body.len());
        assert!(server.raw(none.as_bytes()).await.starts_with("HTTP/1.1 415 "), "{path}");
        let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert_eq!(server.call_as(KEY, method, path, &packed, body).await.status, 415);
    }
    let good = [("content-type", "Application/JSON ; Charset=\"utf-8\"")];
    assert_eq!(server.call_as(KEY, "POST", "/v1/topics/a/messages", &good, "1").await.status, 200);
}

#[tokio::test]
async fn connections_are_bounded_in_all() {
    let mut few = settings();
    few.limits.connections_max = 2;
    let server = Server::start_with(hub_settings(), memory::Limits::default(), few).await;
    refuses_a_third(&server).await;
}

#[tokio::test]
async fn connections_are_bounded_by_address() {
    let mut few = settings();
    few.limits.connections_per_address_max = 2;
    let server = Server::start_with(hub_settings(), memory::Limits::default(), few).await;
    refuses_a_third(&server).await;
}

async fn refuses_a_third(server: &Server) {
    let held = [ask(server).await, ask(server).await];
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let text = rest(&mut third).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("too_many_connections"), "{text}");
    drop(held);
    // The server learns of it when it reads.
    server.until_connections(0).await;
    drop(ask(server).await);
}

/// A connection that has made a call, and stays.
async fn ask(server: &Server) -> hyper::client::conn::http1::SendRequest<Full<hyper::body::Bytes>> {
    let mut connection = server.connect().await;
    let request = Request::get("/healthz").body(Full::default()).unwrap();
    assert_eq!(got(connection.send_request(request).await.unwrap()).await.status, 200);
    connection
}

#[tokio::test]
async fn behind_a_trusted_proxy_requests_are_bounded_by_client() {
    let mut proxied = settings();
    proxied.trusted_proxies = vec![network(&Ipv4Addr::LOCALHOST.to_string()).unwrap()];
    proxied.limits.connections_per_address_max = 1;
    let server = Server::start_with(hub_settings(), memory::Limits::default(), proxied).await;
    // A request under way: its body has not come.
    let head = format!(
        "POST /v1/topics/a/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let mut held = TcpStream::connect(server.address).await.unwrap();
    held.write_all(head.as_bytes()).await.unwrap();
    super::protocol::read_until(&mut held, "100 Continue\r\n\r\n").await;
    let from = async |client: &str| server.call_as(KEY, "GET", "/v1/topics", &[("x-forwarded-for", client)], "").await;
    assert_eq!(from("198.51.100.1").await.status, 200, "what the client itself wrote is not believed");
    let refused = from("192.0.2.7").await;
    assert_eq!((refused.status.as_u16(), &refused.problem()["code"]), (429, &json!("too_many_requests")));
    assert_eq!(refused.headers["retry-after"], "1");
    held.write_all(b"1").await.unwrap();
    assert!(rest(&mut held).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(from("192.0.2.7").await.status, 200);
}
