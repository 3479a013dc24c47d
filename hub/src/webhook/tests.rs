//! The webhook on real sockets: every fault of a server, and what follows for viewers, through the
//! real machine.
//!
//! The server of these tests (`tests/server.rs`) hands each call to the test. Relays are played by
//! hand (`tests/world.rs`). Nothing here measures a time.
#![cfg(test)]

mod server;
mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hub::{
    PageId, admission,
    call::{Answer, Call as ApiCall},
};
use hyper::body::Bytes;
use rustls::{RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use wire::uplink::ToBusiness;

use self::{
    server::{Call, Reply, Server, ok},
    world::{Relay, Said, World, webhook},
};
use super::{
    Settings,
    client::{Client, Failure},
    sign::signatures,
    url::Url,
};
use crate::{revocations::Revocations, shared::moment_us};

const YES: &str = r#"{"accept":true,"topic":"room","page_messages":true}"#;

async fn world() -> (Server, World, Relay) {
    world_with(|_| (), |_| ()).await
}

async fn world_with(
    change: impl FnOnce(&mut hub::Settings),
    change_webhook: impl FnOnce(&mut Settings),
) -> (Server, World, Relay) {
    let server = Server::start(None).await;
    let mut settings = webhook(&server.url());
    change_webhook(&mut settings);
    let world = World::with(settings, change);
    let relay = Relay::join(&world, "box");
    (server, world, relay)
}

/// Whether a call has the signatures of these keys, over what it says itself.
fn is_signed(call: &Call, keys: &[Vec<u8>]) -> bool {
    let header = |name: &str| call.headers[name].as_str();
    header("webhook-signature") == signatures(keys, header("webhook-id"), header("webhook-timestamp"), &call.body)
}

#[tokio::test]
async fn a_call_is_signed_and_its_answer_counts() {
    let keys = vec![b"first key".to_vec(), b"second key".to_vec()];
    let (mut server, _world, mut relay) = world_with(|_| (), |settings| settings.secrets = keys.clone()).await;
    relay.ask(1, "for-one-page", "192.0.2.7");
    let call = server.call().await;
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/hook?k=s3cret"));
    assert_eq!(call.headers["host"], format!("127.0.0.1:{}", server.port));
    assert_eq!(call.headers["content-type"], "application/json");
    assert!(is_signed(&call, &keys) && call.headers["webhook-signature"].split(' ').count() == 2);
    let said = call.json();
    assert_eq!(said["type"], "subscribe");
    let expected = r#"{"link":"for-one-page","page":{"address":"192.0.2.7","origin":"https://app.example"}}"#;
    assert_eq!(said["data"], serde_json::from_str::<serde_json::Value>(expected).unwrap());
    call.answer(r#"{"accept":true,"topic":"room","shared":false,"ttl_s":77,"replay":3,"page_messages":false}"#);
    let [Said::Accept(1, _, 77)] = relay.reads().await[..] else { panic!() };
    // Of a link that is not shared, the next page is asked about too.
    relay.ask(2, "for-one-page", "192.0.2.8");
    server.call().await.answer(r#"{"accept":false,"reason":"one page only"}"#);
    assert_eq!(relay.reads().await, [Said::Deny(2, "one page only".to_owned())]);
}

#[tokio::test]
async fn no_fault_of_the_server_is_an_answer() {
    let chunk = "x".repeat(1000);
    let chunked = |count| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        (0..count).for_each(|_| bytes.extend_from_slice(format!("3e8\r\n{chunk}\r\n").as_bytes()));
        bytes
    };
    let head = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", YES.len());
    let with_yes = |status: &str| Reply::Bytes(format!("{}\r\n{YES}", head(status)).into_bytes());
    let huge_head = format!("{}x: {}\r\n\r\n{YES}", head("200 OK"), "x".repeat(17_000));
    let mut elsewhere = Server::start(None).await;
    let redirect = |status| {
        let location = format!("location: {}\r\n", elsewhere.url());
        Reply::Bytes(format!("HTTP/1.1 {status}\r\n{location}content-length: 0\r\n\r\n").into_bytes())
    };
    let faults: Vec<(&str, Reply)> = vec![
        ("301", redirect("301 Moved Permanently")),
        ("303", redirect("303 See Other")),
        ("307", redirect("307 Temporary Redirect")),
        ("308", redirect("308 Permanent Redirect")),
        ("500", with_yes("500 Internal Server Error")),
        ("503", with_yes("503 Service Unavailable")),
        ("403", with_yes("403 Forbidden")),
        ("204", Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("closed without a word", Reply::Last(Vec::new())),
        ("half a head", Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec())),
        ("half a body", Reply::Last(ok(YES)[..ok(YES).len() - 10].to_vec())),
        ("half a chunked body", Reply::Last(chunked(1))),
        ("not HTTP", Reply::Last(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())),
        ("a huge head", Reply::Last(huge_head.into_bytes())),
        ("a huge length", Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{".to_vec())),
        ("chunks without end", Reply::Bytes(chunked(80))),
        ("nonsense", Reply::Bytes(ok("<html>please log in</html>"))),
        ("a wrong type", Reply::Bytes(ok(r#"{"accept":"yes","topic":"room"}"#))),
        ("no topic", Reply::Bytes(ok(r#"{"accept":true}"#))),
        ("something behind it", Reply::Bytes(ok(&format!("{YES}{YES}")))),
    ];
    for (what, reply) in faults {
        let (mut server, world, mut relay) = world().await;
        relay.ask(1, "link", "");
        server.call().await.reply(reply);
        world.until(what, |hub| hub.counters().subscribes_failed == 1).await;
        assert_eq!(relay.read(), [], "{what}: neither yes nor no");
        // The machine asks again, and then the answer counts.
        let call = server.call().await;
        call.answer(YES);
        assert!(matches!(relay.reads().await[..], [Said::Accept(1, ..)]), "{what}");
        assert_eq!(world.calls(), (2, 1), "{what}");
    }
    assert!(!elsewhere.is_called(), "redirects are not followed");
}

#[tokio::test]
async fn who_is_slow_has_a_fixed_time() {
    let endless = Reply::Drip(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 10_000]);
    for (what, reply) in [("silence", Reply::Silence), ("a head that drips", endless)] {
        let limit = Duration::from_millis(300);
        let (mut server, world, mut relay) = world_with(|_| (), |settings| settings.timeout = limit).await;
        relay.ask(1, "link", "");
        let call = server.call().await;
        // On a slow machine a call before it may have failed while it was made.
        let failed = world.calls().1;
        call.reply(reply);
        world.until(what, |hub| hub.counters().subscribes_failed > failed).await;
        assert_eq!(relay.read(), [], "{what}: neither yes nor no");
    }
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_too() {
    let mut server = Server::start(None).await;
    let client = client(&server.url(), Duration::from_millis(300));
    let answering = tokio::spawn(async move {
        let answer = ok(&format!("\"{}\"", "x".repeat(10_000)));
        let (head, body) = answer.split_at(answer.len() - 10_000);
        server.call().await.reply(Reply::Drip(head.to_vec(), body.to_vec()));
    });
    let answer = client.post(Duration::ZERO, &[], Bytes::from_static(b"{}")).await;
    // On a slow machine the call may have failed before it was made.
    answering.abort();
    // Either the head came in time, or not even that.
    let failure = answer.map_or_else(Some, |answer| answer.body.err());
    assert!(matches!(failure, Some(Failure::Time(..))), "{failure:?}");
}

fn client(url: &str, limit: Duration) -> Client {
    Client::new(Url::parse(url).unwrap(), &Arc::new(RootCertStore::empty()), limit).unwrap()
}

#[tokio::test]
async fn addresses_that_lead_astray_are_not_dialled() {
    // As if a name had led there: the text itself would be refused at once.
    let limit = Duration::from_secs(20);
    for (is_tls, host) in
        [(false, "169.254.169.254"), (true, "169.254.169.254"), (true, "0.0.0.0"), (false, "192.0.2.1")]
    {
        let url = Url { is_tls, host: host.to_owned(), port: 80, authority: host.to_owned(), target: "/".to_owned() };
        let (_, roots) = certificate();
        let client = Client::new(url, &roots, limit).unwrap();
        let failure = client.post(Duration::ZERO, &[], Bytes::from_static(b"{}")).await.unwrap_err();
        assert!(matches!(failure, Failure::Refused(_)), "{host}: {failure}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Bound and not listening on any other address of loopback.
    let failure =
        client(&format!("http://127.0.0.2:{port}/"), limit).post(Duration::ZERO, &[], Bytes::from_static(b"{}")).await;
    assert!(matches!(failure, Err(Failure::Dial(..))), "{failure:?}");
}

fn certificate() -> (TlsAcceptor, Arc<RootCertStore>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = versions.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), Arc::new(roots))
}

#[tokio::test]
async fn https_wants_a_certificate_of_a_known_ca_for_this_name() {
    let (acceptor, roots) = certificate();
    let mut server = Server::start(Some(acceptor)).await;
    let limit = Duration::from_secs(20);
    let port = server.port;
    let post = async |host: &str, roots: &Arc<RootCertStore>| {
        let url = Url::parse(&format!("https://{host}:{port}/")).unwrap();
        Client::new(url, roots, limit).unwrap().post(Duration::ZERO, &[], Bytes::from_static(b"{}")).await
    };
    let (_, others) = certificate();
    assert!(matches!(post("localhost", &others).await, Err(Failure::Tls(_))));
    assert!(matches!(post("127.0.0.1", &roots).await, Err(Failure::Tls(_))));
    let url = Url::parse("https://localhost/").unwrap();
    assert!(Client::new(url, &Arc::new(RootCertStore::empty()), limit).is_err());
    let (answer, ()) = tokio::join!(post("localhost", &roots), async {
        server.call().await.answer(YES);
    });
    assert_eq!(answer.unwrap().body.unwrap(), YES.as_bytes());
}

#[tokio::test]
async fn a_connection_is_kept_and_replaced_once() {
    let (mut server, world, mut relay) = world().await;
    for request in [1, 2, 3] {
        relay.ask(request, &format!("link-{request}"), "");
        let call = server.call().await;
        assert_eq!(call.connection, 0, "request {request}");
        call.answer(YES);
        relay.reads().await;
    }
    // The server closes it just when it is used again.
    relay.ask(4, "link-4", "");
    let call = server.call().await;
    assert_eq!(call.connection, 0);
    call.reply(Reply::Last(Vec::new()));
    let call = server.call().await;
    assert_eq!((call.connection, call.link()), (1, "link-4".to_owned()));
    call.answer(YES);
    relay.reads().await;
    assert_eq!(world.calls(), (4, 0));
    // And the new one too: that is no answer.
    relay.ask(5, "link-5", "");
    for connection in [1, 2] {
        let call = server.call().await;
        assert_eq!(call.connection, connection);
        call.reply(Reply::Last(Vec::new()));
    }
    world.until("no answer", |hub| hub.counters().subscribes_failed == 1).await;
    // Closed while nobody uses it.
    let call = server.call().await;
    call.reply(Reply::Last(ok(YES)));
    relay.reads().await;
    relay.ask(6, "link-6", "");
    server.call().await.answer(YES);
    relay.reads().await;
    assert_eq!(world.calls(), (7, 1));
}

#[tokio::test]
async fn a_kept_connection_is_not_used_after_its_time() {
    let mut server = Server::start(None).await;
    let client = client(&server.url(), Duration::from_secs(20));
    for (now_s, connection) in [(0, 0), (14, 0), (28, 0), (44, 1)] {
        let (answer, ()) =
            tokio::join!(client.post(Duration::from_secs(now_s), &[], Bytes::from_static(b"{}")), async {
                let call = server.call().await;
                assert_eq!(call.connection, connection, "at {now_s} s");
                call.answer(YES);
            });
        assert!(answer.is_ok());
    }
}

#[tokio::test]
async fn a_herd_on_one_link_is_one_call() {
    let (mut server, world, mut relay) = world().await;
    let mut other = Relay::join(&world, "other");
    (0..100).for_each(|request| relay.ask(request, "viral", ""));
    (0..100).for_each(|request| other.ask(request, "viral", ""));
    let call = server.call().await;
    assert_eq!((call.link().as_str(), world.calls()), ("viral", (1, 0)));
    call.answer(YES);
    for relay in [&mut relay, &mut other] {
        let mut accepted = BTreeSet::new();
        while accepted.len() < 100 {
            for said in relay.reads().await {
                let Said::Accept(request, _, 300) = said else { panic!("{said:?}") };
                assert!(accepted.insert(request));
            }
        }
    }
    relay.ask(100, "viral", "192.0.2.7");
    assert!(matches!(relay.reads().await[..], [Said::Accept(100, ..)]));
    assert_eq!(world.calls(), (1, 0), "the grant is shared");
}

#[tokio::test]
async fn a_denial_is_remembered_and_opens_no_breaker() {
    let change = |settings: &mut hub::Settings| settings.admission.failures_max = 2;
    let (mut server, world, mut relay) = world_with(change, |_| ()).await;
    for request in 0..5 {
        relay.ask(request, &format!("bad-{request}"), "");
        server.call().await.answer(r#"{"accept":false,"reason":"no such room"}"#);
        assert_eq!(relay.reads().await, [Said::Deny(request, "no such room".to_owned())]);
    }
    assert!(!world.read(hub::Hub::webhook_rests));
    relay.ask(9, "bad-4", "");
    assert_eq!(relay.reads().await, [Said::Deny(9, "no such room".to_owned())]);
    assert_eq!(world.calls(), (5, 0));
}

#[tokio::test]
async fn after_too_many_failures_it_rests_and_nobody_is_denied() {
    let change = |settings: &mut hub::Settings| {
        settings.admission = admission::Settings {
            calls_max: 1,
            failures_max: 2,
            rest: Duration::from_secs(3600),
            ..settings.admission.clone()
        };
    };
    let (mut server, world, mut relay) = world_with(change, |_| ()).await;
    for request in 0..5 {
        relay.ask(request, &format!("link-{request}"), "");
    }
    for _ in 0..2 {
        server.call().await.status("500 Internal Server Error");
    }
    world.until("rest", hub::Hub::webhook_rests).await;
    relay.ask(9, "link-9", "");
    assert_eq!((world.calls(), relay.read()), ((2, 2), vec![]));
}

#[tokio::test]
async fn a_grant_is_refreshed_in_its_last_fifth() {
    let (mut server, world, mut relay) = world().await;
    let mut request = 0;
    relay.ask(request, "link", "");
    server.call().await.answer(r#"{"accept":true,"topic":"room","ttl_s":5}"#);
    let [Said::Accept(0, room, 5)] = relay.reads().await[..] else { panic!() };
    while !server.is_called() {
        request += 1;
        relay.ask(request, "link", "");
        tokio::time::sleep(Duration::from_millis(50)).await;
        for said in relay.read() {
            assert!(matches!(said, Said::Accept(_, topic, 1..=5) if topic == room), "{said:?}");
        }
    }
    let call = server.call().await;
    assert_eq!(call.json()["data"]["page"], serde_json::Value::Null);
    call.answer(r#"{"accept":true,"topic":"other-room","ttl_s":4000}"#);
    loop {
        request += 1;
        relay.ask(request, "link", "");
        if let Some(Said::Accept(_, topic, ttl_s)) = relay.reads().await.last()
            && *topic != room
        {
            assert!((3900..=4000).contains(ttl_s));
            break;
        }
    }
    assert_eq!(world.calls(), (2, 0));
}

#[tokio::test]
async fn every_question_is_answered_where_the_webhook_goes_away() {
    let (mut server, world, mut relay) = world().await;
    relay.ask(1, "link-1", "");
    let call = server.call().await;
    // The call under way may end; the next one has none to be made to.
    world.settings.send_replace(None);
    relay.ask(2, "link-2", "");
    world.until("no answer to the second", |hub| hub.counters().subscribes_failed >= 1).await;
    call.answer(YES);
    assert!(matches!(relay.reads().await[..], [Said::Accept(1, ..)]));
    // Settings that can't be used are as none.
    let wrong = webhook("ftp://127.0.0.1/");
    world.settings.send_replace(Some(Arc::new(wrong)));
    let failed = world.calls().1;
    relay.ask(3, "link-3", "");
    world.until("no answer to the third", |hub| hub.counters().subscribes_failed > failed).await;
    // And with new ones it goes on.
    let mut next = Server::start(None).await;
    world.settings.send_replace(Some(Arc::new(webhook(&next.url()))));
    relay.ask(4, "link-4", "");
    loop {
        let call = next.call().await;
        let is_last = call.link() == "link-4";
        call.answer(YES);
        if is_last {
            break;
        }
    }
    while !relay.reads().await.iter().any(|said| matches!(said, Said::Accept(4, ..))) {}
}

#[tokio::test]
async fn a_revoked_link_stays_revoked_over_a_restart() {
    let folder = std::env::temp_dir().join(format!("sharelink-hub-revoked-{}", std::process::id()));
    // A killed process with this number may have left it.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let mut server = Server::start(None).await;
    let url = server.url();
    let start = || {
        let opened = Revocations::open(&folder.join("revoked"), moment_us() / 1_000_000).unwrap();
        World::with_revocations(webhook(&url), |_| (), Some(opened))
    };
    let first = start();
    let revoke = ApiCall::Revoke { link: "link-1".to_owned(), reason: "it leaked".into(), ttl_s: 3600 };
    assert_eq!(first.shared.call(revoke).await, Answer::Done);
    drop(first);
    let second = start();
    let mut relay = Relay::join(&second, "box");
    relay.ask(1, "link-1", "");
    assert_eq!(relay.reads().await, [Said::Deny(1, "it leaked".to_owned())]);
    relay.ask(2, "link-2", "");
    server.call().await.answer(YES);
    assert!(matches!(relay.reads().await[..], [Said::Accept(2, ..)]));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_revocation_that_could_not_be_written_holds_and_is_not_acknowledged() {
    let folder = std::env::temp_dir().join(format!("sharelink-hub-unwritten-{}", std::process::id()));
    // A killed process with this number may have left it.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let server = Server::start(None).await;
    let (mut file, rows) = Revocations::open(&folder.join("revoked"), moment_us() / 1_000_000).unwrap();
    file.fill();
    let world = World::with_revocations(webhook(&server.url()), |_| (), Some((file, rows)));
    let revoke = ApiCall::Revoke { link: "link-1".to_owned(), reason: "it leaked".into(), ttl_s: 3600 };
    assert_eq!(world.shared.call(revoke.clone()).await, Answer::Unavailable);
    let mut relay = Relay::join(&world, "box");
    relay.ask(1, "link-1", "");
    assert_eq!(relay.reads().await, [Said::Deny(1, "it leaked".to_owned())]);
    // Sent again, it is in a new file.
    assert_eq!(world.shared.call(revoke).await, Answer::Done);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_answered() {
    let (mut server, world, mut relay) = world().await;
    relay.ask(1, "link-1", "");
    let _call = server.call().await;
    world.webhook.abort();
    world.until("no answer", |hub| hub.counters().subscribes_failed == 1).await;
    assert_eq!(relay.read(), []);
}

/// What a receiver gets. `tests/hub/webhooks.py` checks it with the libraries that receivers use.
#[tokio::test]
async fn a_receiver_gets_questions_and_events() {
    let keys = vec![b"the key before, of 32 bytes size".to_vec(), b"the key of now, of 32 bytes size".to_vec()];
    let (mut server, _world, mut relay) = world_with(|_| (), |settings| settings.secrets = keys.clone()).await;
    let mut dump = Vec::new();
    let mut record = |call: &Call| {
        assert!(is_signed(call, &keys));
        let body = String::from_utf8(call.body.clone()).unwrap();
        dump.push(serde_json::json!({ "headers": call.headers, "body": body }));
    };
    relay.ask(1, "a-link", "192.0.2.7");
    let call = server.call().await;
    record(&call);
    call.accept("room");
    let [Said::Accept(1, topic, _)] = relay.reads().await[..] else { panic!() };
    relay.page_message(topic, 5, "Grüße, \"quoted\"\n\u{2028}");
    let call = server.call().await;
    record(&call);
    call.status("204 No Content");
    let Ok(path) = std::env::var("SHARELINK_WEBHOOK_DUMP") else { return };
    let secrets = keys.iter().map(|key| format!("whsec_{}", STANDARD.encode(key))).collect::<Vec<_>>();
    std::fs::write(path, serde_json::json!({ "secrets": secrets, "calls": dump }).to_string()).unwrap();
}

// Events.

/// A topic with a page on it, and its number.
async fn occupied(server: &mut Server, relay: &mut Relay) -> u32 {
    relay.ask(1, "link", "");
    server.call().await.accept("room");
    let [Said::Accept(1, topic, _)] = relay.reads().await[..] else { panic!() };
    topic
}

fn events(call: &Call) -> Vec<serde_json::Value> {
    let said = call.json();
    assert_eq!(said["type"], "events");
    assert!(said["timestamp"].is_string());
    said["data"]["events"].as_array().unwrap().clone()
}

fn dropped(call: &Call) -> u64 {
    call.json()["data"]["dropped"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn events_come_in_order_in_batches_one_at_a_time() {
    let (mut server, world, mut relay) = world().await;
    let topic = occupied(&mut server, &mut relay).await;
    (0..250).for_each(|n| relay.page_message(topic, 5, &format!("message {n}")));
    let (mut texts, mut ids) = (Vec::new(), BTreeSet::new());
    let page = PageId { connection: relay.id.number(), page: 5, relay: "box".to_owned() }.to_string();
    while texts.len() < 250 {
        let call = server.call().await;
        assert!(is_signed(&call, &webhook("").secrets));
        let events = events(&call);
        assert!((1..=100).contains(&events.len()));
        for event in events {
            assert_eq!((&event["type"], &event["topic"]), (&"page.message".into(), &"room".into()));
            assert_eq!(event["page"], page);
            assert!(ids.insert(event["id"].to_string()));
            texts.push(event["data"].as_str().unwrap().to_owned());
        }
        assert!(!server.is_called(), "one batch at a time");
        call.status("204 No Content");
    }
    assert_eq!(texts, (0..250).map(|n| format!("message {n}")).collect::<Vec<_>>());
    assert_eq!(world.read(hub::Hub::notices_dropped), 0);
}

#[tokio::test]
async fn audiences_are_told() {
    let (mut server, _world, mut relay) = world_with(
        |settings| (settings.times.audience, settings.times.vacated) = (Duration::ZERO, Duration::ZERO),
        |_| (),
    )
    .await;
    let topic = occupied(&mut server, &mut relay).await;
    let mut told = Vec::new();
    for (pages, count) in [(2, 2), (0, 4)] {
        relay.send(&ToBusiness::Audience { topic, pages });
        while told.len() < count {
            let call = server.call().await;
            told.extend(events(&call).iter().map(|event| (event["type"].clone(), event["pages"].as_u64())));
            call.answer("{}");
        }
    }
    let mut expected = vec![("topic.occupied", None), ("topic.audience", Some(2)), ("topic.vacated", None)];
    expected.push(("topic.audience", Some(0)));
    assert_eq!(told, expected.into_iter().map(|(name, pages)| (name.into(), pages)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_is_sent_again_as_it_was_until_it_is_taken() {
    let (mut server, _world, mut relay) = world().await;
    let topic = occupied(&mut server, &mut relay).await;
    relay.page_message(topic, 5, "hello");
    let first = server.call().await;
    let (id, body) = (first.headers["webhook-id"].clone(), first.body.clone());
    first.status("503 Service Unavailable");
    let second = server.call().await;
    assert!(second.headers["webhook-id"] == id && second.body == body && is_signed(&second, &webhook("").secrets));
    // The status is enough, whatever becomes of the body.
    second.reply(Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc".to_vec()));
    relay.page_message(topic, 5, "next");
    let third = server.call().await;
    assert!(third.headers["webhook-id"] != id && events(&third)[0]["data"] == "next" && dropped(&third) == 0);
}

#[tokio::test]
async fn what_is_refused_for_good_is_dropped_and_told() {
    let (mut server, _world, mut relay) = world().await;
    let topic = occupied(&mut server, &mut relay).await;
    for (lost, status) in (0..).zip(["410 Gone", "400 Bad Request"]) {
        relay.page_message(topic, 5, "refused");
        let call = server.call().await;
        assert_eq!(dropped(&call), lost);
        call.status(status);
    }
    relay.page_message(topic, 5, "taken");
    let call = server.call().await;
    assert_eq!((events(&call)[0]["data"].as_str(), dropped(&call)), (Some("taken"), 2));
    call.answer("");
    relay.page_message(topic, 5, "next");
    assert_eq!(dropped(&server.call().await), 0, "told once");
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_told() {
    let (mut server, world, mut relay) = world_with(|settings| settings.limits.notices_max = 64, |_| ()).await;
    let topic = occupied(&mut server, &mut relay).await;
    relay.page_message(topic, 5, "0");
    let mut call = server.call().await;
    (1..1000).for_each(|n| relay.page_message(topic, 5, &n.to_string()));
    assert!(world.read(hub::Hub::notices_dropped) > 500);
    let (mut taken, mut lost) = (events(&call).len() as u64, dropped(&call));
    while taken + lost < 1000 {
        call.answer("");
        call = server.call().await;
        taken += events(&call).len() as u64;
        lost += dropped(&call);
    }
    assert_eq!((taken + lost, lost), (1000, world.read(hub::Hub::notices_dropped)));
}

#[tokio::test]
async fn events_are_sent_where_they_are_wanted() {
    let (mut server, world, mut relay) = world_with(|_| (), |settings| settings.events = false).await;
    let topic = occupied(&mut server, &mut relay).await;
    relay.page_message(topic, 5, "nobody wants it");
    // The answer to a question is there, and no event came before it. What is waiting is dropped.
    relay.ask(2, "other", "");
    let call = server.call().await;
    assert_eq!(call.json()["type"], "subscribe");
    call.accept("other");
    relay.reads().await;
    // Settings are replaced while a batch waits to be sent again: it goes to the new place.
    let mut old = Server::start(None).await;
    world.settings.send_replace(Some(Arc::new(webhook(&old.url()))));
    let first = loop {
        relay.page_message(topic, 5, "wanted");
        if old.is_called() {
            break old.call().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let id = first.headers["webhook-id"].clone();
    first.status("500 Internal Server Error");
    let mut new = Server::start(None).await;
    world.settings.send_replace(Some(Arc::new(webhook(&new.url()))));
    assert_eq!(new.call().await.headers["webhook-id"], id);
    assert!(!server.is_called());
}

// Receipts.

/// A hub whose relay gets receipts, and the number of a topic with a page on it.
async fn room(change: impl FnOnce(&mut hub::Settings)) -> (Server, World, Relay, u32) {
    let mut server = Server::start(None).await;
    let world = World::with(webhook(&server.url()), change);
    let mut relay = Relay::join_with_receipts(&world, "box");
    let topic = occupied(&mut server, &mut relay).await;
    (server, world, relay, topic)
}

#[tokio::test]
async fn a_page_hears_that_its_message_was_taken_and_it_is_told_once() {
    let (mut server, world, mut relay, topic) = room(|_| ()).await;
    let mut other = Relay::join_with_receipts(&world, "other");
    other.ask(1, "link", "");
    assert!(matches!(other.reads().await[..], [Said::Accept(..)]));
    relay.message(topic, 5, [1; 16]);
    let call = server.call().await;
    let event = &events(&call)[0];
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((&event["data"], &event["message_id"]), (&"hello".into(), &digits(&[1; 16]).into()));
    assert_eq!(event["author"], digits(&Relay::author(5)));
    // The page asks once more while nobody has taken it, by another relay: that one is told.
    other.message(topic, 6, [1; 16]);
    call.status("202 Accepted");
    assert_eq!(other.reads().await, [Said::Sent(6, [1; 16])]);
    // And once more: at once, and there is no event, or it would come before the next.
    relay.message(topic, 5, [1; 16]);
    assert_eq!(relay.read(), [Said::Sent(5, [1; 16])]);
    relay.page_message(topic, 5, "next");
    let call = server.call().await;
    let events = events(&call);
    assert_eq!((events.len(), &events[0]["data"]), (1, &"next".into()));
    assert!(events[0].get("message_id").is_none() && events[0]["author"] == digits(&Relay::author(5)));
}

#[tokio::test]
async fn a_page_hears_nothing_of_a_message_that_was_not_taken() {
    let (mut server, _world, mut relay, topic) = room(|_| ()).await;
    // For good: a repeat is a new event.
    for status in ["410 Gone", "400 Bad Request"] {
        relay.message(topic, 5, [1; 16]);
        let call = server.call().await;
        assert_eq!(events(&call)[0]["message_id"], "01".repeat(16));
        call.status(status);
        // The next batch is made after the answer to this one was understood.
        relay.page_message(topic, 5, "next");
        server.call().await.answer("");
        assert_eq!(relay.read(), [], "{status}");
    }
    // For now: the same batch comes again, and a repeat adds nothing to it.
    relay.message(topic, 5, [1; 16]);
    server.call().await.status("500 Internal Server Error");
    relay.message(topic, 5, [1; 16]);
    let call = server.call().await;
    assert_eq!((events(&call).len(), relay.read()), (1, vec![]));
    call.answer("");
    assert_eq!(relay.reads().await, [Said::Sent(5, [1; 16])]);
    relay.page_message(topic, 5, "next");
    assert_eq!(events(&server.call().await)[0]["data"], "next");
}

#[tokio::test]
async fn a_message_without_room_or_receiver_may_come_again() {
    let (mut server, world, mut relay, topic) = room(|settings| settings.limits.notices_max = 2).await;
    // A call is under way, so all others wait: 256 in the shell, and one in the machine.
    relay.page_message(topic, 5, "first");
    let first = server.call().await;
    let id = |n: u16| <[u8; 16]>::try_from([n.to_be_bytes(); 8].concat()).unwrap();
    (0..300).for_each(|n| relay.message(topic, 5, id(n)));
    let counts = || world.read(|hub| (hub.counters().page_messages, hub.notices_dropped()));
    let (said, lost) = counts();
    assert!((1..300).contains(&lost), "{lost}");
    // What had no room is new again, and has no room again; what waits is known.
    relay.message(topic, 5, id(299));
    relay.message(topic, 5, id(0));
    assert_eq!(counts(), (said + 1, lost + 1));
    // Nobody wants events any more: what waits is dropped, and is new again too.
    world.settings.send_replace(None);
    first.status("500 Internal Server Error");
    let repeated = async {
        while counts().0 == said + 1 {
            relay.message(topic, 5, id(0));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, repeated).await.expect("it is still known");
    assert_eq!(relay.read(), []);
}
