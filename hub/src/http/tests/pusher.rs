//! Pusher's door on a real socket: what is published, and each refusal in the form that Pusher's
//! libraries show.
//!
//! Owns the tests of `apps.rs`. What a request means is tested in `pusher.rs` itself; the libraries
//! themselves call a hub in `tests/hub/pusher.py`.

use std::net::Ipv4Addr;

use hub::memory;
use serde_json::{Value, json};
use sharelinkd::config::values::network;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{super::App, Got, KEY, Server, Settings, hub_settings, protocol::read_until, rest, settings};

const EVENTS: &str = "/apps/3/events";
const BATCH: &str = "/apps/3/batch_events";

fn app() -> App {
    App { id: "3".to_owned(), key: "shop".to_owned(), secrets: vec![b"the secret of the app".to_vec()] }
}

fn with_app() -> Settings {
    Settings { pusher: Some(app()), ..settings() }
}

async fn start() -> Server {
    Server::start_with(hub_settings(), memory::Limits::default(), with_app()).await
}

fn target(server: &Server, app: &App, method: &str, path: &str, body: &str) -> String {
    format!("{path}?{}", app.query(method, path, body.as_bytes(), server.shared.moment().unix_us / 1_000_000))
}

/// A call that is signed as it must be.
async fn call(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
    server.call_as("", method, &target(server, &app(), method, path, body), headers, body).await
}

async fn post(server: &Server, path: &str, body: &str) -> Got {
    call(server, "POST", path, &[], body).await
}

fn event(channels: &[&str], data: &str) -> String {
    json!({"name": "e", "channels": channels, "data": data}).to_string()
}

/// The messages of a topic; null if there is none.
async fn messages(server: &Server, topic: &str) -> Value {
    let got = server.call("GET", &format!("/v1/topics/{topic}/messages"), "").await;
    if got.status == 404 {
        return Value::Null;
    }
    got.json()["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect()
}

/// The text of a refusal, whose form is checked.
fn refusal(got: &Got, status: u16) -> String {
    let text = String::from_utf8(got.body.clone()).unwrap();
    let media = got.headers["content-type"].to_str().unwrap();
    assert_eq!((got.status.as_u16(), media), (status, "text/plain; charset=utf-8"), "{text}");
    assert!(!text.is_empty() && !text.contains("the secret of the app"), "{text}");
    text
}

#[tokio::test]
async fn events_become_messages_in_their_order() {
    let server = start().await;
    let relay = server.relay("hall");
    relay.subscribe(1, "room");
    let got = post(&server, EVENTS, &event(&["room", "other"], r#"{"n":1}"#)).await;
    assert_eq!((got.status.as_u16(), &*got.body), (200, &b"{}"[..]));
    assert_eq!(got.headers["content-type"], "application/json");
    let batch = r#"{"batch":[{"channel":"room","name":"f","data":"x"},{"channel":"room","name":"g","data":"null"}]}"#;
    assert_eq!(post(&server, BATCH, batch).await.json(), json!({}));
    let all = json!([{"event": "e", "data": {"n": 1}}, {"event": "f", "data": "x"}, {"event": "g", "data": null}]);
    assert_eq!(messages(&server, "room").await, all);
    assert_eq!(messages(&server, "other").await, json!([{"event": "e", "data": {"n": 1}}]));
    let received = relay.received();
    assert!(received.contains(&r#"messages 3 {"event":"g","data":null}"#.to_owned()), "{received:?}");
}

#[tokio::test]
async fn a_reload_opens_the_door_and_changes_its_secret() {
    let server = Server::start().await;
    let body = event(&["room"], "1");
    let text = refusal(&post(&server, EVENTS, &body).await, 404);
    assert!(text.contains("[pusher]"), "{text}");
    server.set(with_app());
    assert_eq!(post(&server, EVENTS, &body).await.status, 200);
    let next = App { secrets: vec![b"the next one".to_vec()], ..app() };
    let as_next = async || {
        let target = target(&server, &next, "POST", EVENTS, &body);
        server.call_as("", "POST", &target, &[], &body).await.status.as_u16()
    };
    assert_eq!(as_next().await, 401);
    let both = App { secrets: [app().secrets, next.secrets.clone()].concat(), ..app() };
    server.set(Settings { pusher: Some(both), ..settings() });
    assert_eq!((as_next().await, post(&server, EVENTS, &body).await.status.as_u16()), (200, 200));
    server.set(Settings { pusher: Some(next.clone()), ..settings() });
    assert_eq!((as_next().await, post(&server, EVENTS, &body).await.status.as_u16()), (200, 401));
}

#[tokio::test]
async fn each_refusal_is_text_with_its_status() {
    let mut limited = with_app();
    (limited.limits.json_size_max, limited.limits.batch_size_max) = (1000, 4000);
    let server = Server::start_with(hub_settings(), memory::Limits::default(), limited).await;
    let body = event(&["room"], "1");
    for (method, path, headers, body, status, word) in [
        ("POST", EVENTS, &[][..], event(&["a@b"], "1"), 400, "a@b"),
        ("POST", EVENTS, &[], "1".to_owned(), 400, "Pusher's libraries"),
        ("POST", EVENTS, &[("sec-fetch-site", "cross-site")], body.clone(), 403, "another site"),
        ("POST", "/apps/4/events", &[], body.clone(), 404, "app_id"),
        ("GET", "/apps/3/channels", &[], String::new(), 404, "/v1"),
        ("GET", "/apps/3/channels/room/users", &[], String::new(), 404, "/v1"),
        ("POST", "/apps/3/users/7/terminate_connections", &[], "{}".to_owned(), 404, "/v1"),
        ("POST", "/users/7/terminate_connections", &[], "{}".to_owned(), 404, "/v1"),
        ("GET", EVENTS, &[], String::new(), 405, "POST"),
        ("POST", EVENTS, &[], event(&["room"], &"x".repeat(1000)), 413, "at most 1000"),
        ("POST", BATCH, &[], "x".repeat(4001), 413, "larger than 4000"),
        ("POST", EVENTS, &[("content-type", "text/plain")], body.clone(), 415, "Content-Type"),
    ] {
        let got = call(&server, method, path, headers, &body).await;
        let text = refusal(&got, status);
        assert!(text.contains(word), "{text}");
        assert_eq!(got.headers.contains_key("allow"), status == 405);
    }
    assert!(refusal(&server.call("POST", EVENTS, &body).await, 401).contains("auth_key"), "an API key opens nothing");
    let other = App { secrets: vec![b"another".to_vec()], ..app() };
    let forged = target(&server, &other, "POST", EVENTS, &body);
    assert!(refusal(&server.call_as("", "POST", &forged, &[], &body).await, 401).contains("auth_signature"));
    assert_eq!(server.call("GET", "/v1/topics", "").await.json()["topics"], json!([]), "nothing was published");
}

#[tokio::test]
async fn who_has_no_secret_sends_no_body() {
    let server = start().await;
    let head = |query: &str| {
        format!(
            "POST {EVENTS}?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\
             Connection: close\r\n\r\n"
        )
    };
    // The body never comes.
    let answer = server.raw(head("auth_key=shop").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn one_topic_that_has_ended_refuses_all_of_a_request() {
    let server = start().await;
    server.call("POST", "/v1/topics/over/messages", "1").await;
    assert_eq!(server.call("DELETE", "/v1/topics/over", "").await.status, 204);
    let text = refusal(&post(&server, EVENTS, &event(&["over"], "1")).await, 409);
    assert!(text.starts_with("\"over\": the topic has ended"), "{text}");
    let batch = r#"{"batch":[{"channel":"new","name":"e","data":"1"},{"channel":"over","name":"e","data":"1"}]}"#;
    for (path, body) in [(EVENTS, event(&["new", "over", "newer"], "1")), (BATCH, batch.to_owned())] {
        let text = refusal(&post(&server, path, &body).await, 409);
        assert!(text.starts_with("nothing was published: \"over\": the topic has ended; open it"), "{text}");
    }
    assert_eq!(messages(&server, "new").await, Value::Null);
    assert_eq!(server.call("POST", "/v1/topics/over/open", "").await.status, 204);
    assert_eq!(post(&server, BATCH, batch).await.status, 200);
    assert_eq!(messages(&server, "over").await, json!([1, {"event": "e", "data": 1}]));
}

#[tokio::test]
async fn where_it_is_full_the_answer_says_how_far_it_came() {
    let engine = memory::Limits { topics_max: 2, ..memory::Limits::default() };
    let server = Server::start_with(hub_settings(), engine, with_app()).await;
    let text = refusal(&post(&server, EVENTS, &event(&["a", "b", "c", "a"], "1")).await, 507);
    assert!(text.starts_with("published: the first 2 of 3, in the order of the request; then \"c\": "), "{text}");
    assert!(text.contains("[limits] topics"), "{text}");
    let text = refusal(&post(&server, EVENTS, &event(&["c", "a"], "2")).await, 507);
    assert!(text.starts_with("nothing was published: \"c\": there is no room"), "{text}");
    for topic in ["a", "b"] {
        assert_eq!(messages(&server, topic).await, json!([{"event": "e", "data": 1}]));
    }
}

#[tokio::test]
async fn where_too_much_waits_it_is_to_be_sent_again() {
    let mut hub = hub_settings();
    hub.limits.calls_max = 0;
    let server = Server::start_with(hub, memory::Limits::default(), with_app()).await;
    for channels in [&["a"][..], &["a", "b"]] {
        let got = post(&server, EVENTS, &event(channels, "1")).await;
        assert!(refusal(&got, 429).contains("send it again"));
        assert_eq!(got.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_requests_are_bounded_by_client() {
    let mut proxied = with_app();
    proxied.trusted_proxies = vec![network(&Ipv4Addr::LOCALHOST.to_string()).unwrap()];
    proxied.limits.connections_per_address_max = 1;
    let server = Server::start_with(hub_settings(), memory::Limits::default(), proxied).await;
    let body = event(&["room"], "1");
    // A request under way: its body has not come.
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        target(&server, &app(), "POST", EVENTS, &body),
        body.len()
    );
    let mut held = TcpStream::connect(server.address).await.unwrap();
    held.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut held, "100 Continue\r\n\r\n").await;
    let from = [("x-forwarded-for", "192.0.2.7")];
    assert!(refusal(&call(&server, "POST", EVENTS, &from, &body).await, 429).contains("of this address"));
    assert_eq!(server.call_as(KEY, "GET", "/v1/topics", &from, "").await.status, 429, "one count for both APIs");
    held.write_all(body.as_bytes()).await.unwrap();
    assert!(rest(&mut held).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(call(&server, "POST", EVENTS, &from, &body).await.status, 200);
}
