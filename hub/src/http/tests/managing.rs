//! Topics, links, pages and the fleet.
//!
//! Owns the tests of `topics.rs`, `links.rs` and `fleet.rs`. Where a call has a consequence for
//! viewers, a relay that speaks the uplink by hand shows it.

use hub::{
    admission::{self, Links},
    link::{self, LinkKey},
    memory,
};
use serde_json::{Value, json};
use wire::uplink::ToBusiness;

use super::{Server, hub_settings, settings};

fn keys() -> Vec<LinkKey> {
    vec![LinkKey { id: 7, key: vec![7; 32] }, LinkKey { id: 6, key: vec![6; 32] }]
}

async fn with_links(links: Links, keys: Vec<LinkKey>) -> Server {
    let mut hub = hub_settings();
    hub.admission.links = links;
    hub.admission.keys = keys;
    Server::start_with(hub, memory::Limits::default(), settings()).await
}

#[tokio::test]
async fn a_topic_is_shown_with_its_audience() {
    let server = Server::start().await;
    assert_eq!(server.call("GET", "/v1/topics/room", "").await.problem()["code"], "not_found");
    server.call("POST", "/v1/topics/room/messages", "1").await;
    let plain = server.call("GET", "/v1/topics/room", "").await.json();
    assert_eq!(plain["messages"], json!({"first": 1, "next": 2}));
    assert_eq!((&plain["state"], &plain["ended"]), (&Value::Null, &Value::Null));
    assert_eq!(plain["audience"], json!({"pages": 0, "relays": []}));
    server.call("PUT", "/v1/topics/room/state", "{ \"a\":1}").await;
    let relay = server.relay("hall");
    relay.subscribe(1, "room");
    let number = hub_settings().fleet_key.number(&hub::Name::new("room").unwrap());
    relay.send(&ToBusiness::Audience { topic: number, pages: 5 });
    let shown = server.call("GET", "/v1/topics/room", "").await.json();
    assert_eq!(shown["topic"], "room");
    assert_eq!(shown["state"], json!({"sequence": 1, "data": {"a": 1}}));
    assert_eq!(shown["audience"], json!({"pages": 5, "relays": [{"relay": "hall", "pages": 5}]}));
    let fleet = server.call("GET", "/v1/fleet", "").await.json();
    let up_s = fleet["relays"][0]["up_s"].clone();
    let relay_row = json!({"name": "hall", "connection": relay.id.number(), "up_s": up_s, "pages": 5, "topics": 1});
    let expected = json!({"relays": [relay_row], "topics": 1, "engine": {"kind": "memory", "up": true}});
    assert_eq!(fleet, expected);
}

#[tokio::test]
async fn prometheus_reads_what_is_counted() {
    let server = Server::start().await;
    let relay = server.relay("hall");
    relay.subscribe(1, "room");
    let number = hub_settings().fleet_key.number(&hub::Name::new("room").unwrap());
    relay.send(&ToBusiness::Audience { topic: number, pages: 5 });
    server.call("POST", "/v1/topics/room/messages", "1").await;
    server.call("GET", "/v1/nothing", "").await;
    let got = server.call_as("slk_reader", "GET", "/metrics", &[], "").await;
    assert_eq!(got.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(got.body).unwrap();
    for row in [
        "sharelink_hub_serving 1",
        "sharelink_hub_relays 1",
        "sharelink_hub_pages 5",
        "sharelink_hub_topics_held 1",
        "sharelink_hub_links_decided_total{decision=\"accepted\"} 1",
        "sharelink_hub_publications_total 1",
        "sharelink_hub_used{of=\"engine_topics\"} 1",
        "sharelink_hub_limit{of=\"streams\"} 4",
        "sharelink_hub_http_answers_total{code=\"200\"} 1",
        "sharelink_hub_http_answers_total{code=\"404\"} 1",
    ] {
        assert!(text.lines().any(|line| line == row), "{row}:\n{text}");
    }
    for key in ["", "slk_publisher", "slk_tenant"] {
        let status = server.call_as(key, "GET", "/metrics", &[], "").await.status.as_u16();
        assert_eq!(status, if key.is_empty() { 401 } else { 403 }, "{key}");
    }
}

#[tokio::test]
async fn topics_are_listed_by_name_with_a_cursor() {
    let server = Server::start().await;
    for topic in ["app%2Fa", "app%2Fb", "apple", "zoo"] {
        server.call("POST", &format!("/v1/topics/{topic}/messages"), "1").await;
    }
    server.call("DELETE", "/v1/topics/zoo", "").await;
    let list = async |key: &str, query: &str| {
        let got = server.call_as(key, "GET", &format!("/v1/topics{query}"), &[], "").await.json();
        let names = got["topics"].as_array().unwrap().iter().map(|row| row["topic"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), got["cursor"].clone(), got)
    };
    let (names, cursor, whole) = list("slk_all", "").await;
    assert_eq!((&*names, &cursor), ("app/a app/b apple zoo", &Value::Null));
    assert_eq!(whole["topics"][3], json!({"topic": "zoo", "ended": true}));
    let (names, cursor, _) = list("slk_all", "?limit=3").await;
    assert_eq!((&*names, &cursor), ("app/a app/b apple", &json!("apple")));
    assert_eq!(list("slk_all", "?limit=3&cursor=apple").await.0, "zoo");
    assert_eq!(list("slk_all", "?below=app").await.0, "app/a app/b");
    assert_eq!(list("slk_tenant", "").await.0, "app/a app/b", "a key sees what it is for");
    assert_eq!(list("slk_tenant", "?below=app/b").await.0, "app/b");
    let outside = server.call_as("slk_tenant", "GET", "/v1/topics?below=zoo", &[], "").await;
    assert_eq!((outside.status.as_u16(), &outside.problem()["code"]), (403, &json!("outside_prefix")));
    for bad in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=a%20b", "?below=%3F"] {
        let got = server.call("GET", &format!("/v1/topics{bad}"), "").await;
        assert_eq!((got.status.as_u16(), &got.problem()["code"]), (400, &json!("invalid_parameter")), "{bad}");
    }
}

#[tokio::test]
async fn an_ended_topic_takes_nothing_until_it_is_opened() {
    let server = Server::start().await;
    let first = server.call("POST", "/v1/topics/room/messages", "1").await.json();
    let relay = server.relay("hall");
    relay.subscribe(1, "room");
    assert_eq!(server.call("DELETE", "/v1/topics/room", "{\"reason\":\"good night\"}").await.status, 204);
    assert!(relay.received().contains(&"End good night".to_owned()));
    let refused = server.call("POST", "/v1/topics/room/messages", "2").await;
    assert_eq!((refused.status.as_u16(), &refused.problem()["code"]), (409, &json!("topic_ended")));
    assert_eq!(refused.problem()["reason"], "good night");
    assert_eq!(server.call("PUT", "/v1/topics/room/state", "2").await.status, 409);
    assert_eq!(server.call("GET", "/v1/topics/room", "").await.json()["ended"], "good night");
    assert_eq!(server.call("POST", "/v1/topics/room/open", "").await.status, 204);
    let next = server.call("POST", "/v1/topics/room/messages", "2").await.json();
    assert_eq!((&next["epoch"], &next["sequence"]), (&first["epoch"], &json!(2)));
    assert_eq!(server.call("DELETE", "/v1/topics/room", "").await.status, 204);
    assert_eq!(server.call("GET", "/v1/topics/room", "").await.json()["ended"], "this room has ended");
    for (body, status) in [
        (json!({"reason": "x".repeat(257)}), 422),
        (json!({"reason": ""}), 422),
        (json!({"why": "x"}), 400),
        (json!({"reason": 7}), 400),
    ] {
        assert_eq!(server.call("DELETE", "/v1/topics/room", &body.to_string()).await.status, status, "{body}");
    }
    assert_eq!(server.call("POST", "/v1/topics/room/open", "{}").await.status, 204);
    assert_eq!(server.call("POST", "/v1/topics/room/open", "{\"x\":1}").await.problem()["code"], "invalid_body");
}

#[tokio::test]
async fn a_signed_link_says_what_was_asked_for() {
    let server = with_links(Links::Signed, keys()).await;
    let body = r#"{"topic":"app/room","ttl_s":60,"shared":false,"page_messages":false,"replay":9}"#;
    let made = server.call("POST", "/v1/links", body).await.json();
    let link = made["link"].as_str().unwrap();
    let signed = link::verify(&keys()[..1], link).unwrap();
    assert_eq!(
        (signed.topic.as_str(), signed.shared, signed.page_messages, signed.replay),
        ("app/room", false, false, 9)
    );
    assert_eq!(made["end"], signed.end_s);
    assert_eq!(made["url"], format!("https://pages.example/s/{link}"));
    let defaults = server.call("POST", "/v1/links", r#"{"topic":"room"}"#).await.json();
    let signed = link::verify(&keys(), defaults["link"].as_str().unwrap()).unwrap();
    assert_eq!((signed.shared, signed.page_messages, signed.replay), (true, true, 50));
    assert!(u64::from(signed.end_s) > made["end"].as_u64().unwrap(), "link_ttl_s is 3600");
    let relay = server.relay("hall");
    relay.subscribe(1, defaults["link"].as_str().unwrap());
    assert!(relay.received().iter().any(|frame| frame.starts_with("Accept 1 ")));
    let tenant = server.call_as("slk_tenant", "POST", "/v1/links", &[], r#"{"topic":"room"}"#).await;
    assert_eq!(tenant.problem()["code"], "outside_prefix");
    for (body, status) in [
        (json!({"topic": "room", "ttl_s": 0}), 422),
        (json!({"topic": "room", "ttl_s": 400_000_000}), 422),
        (json!({"topic": "room", "ttl_s": -1}), 400),
        (json!({"topic": "room", "replay": 65_536}), 400),
        (json!({"topic": "a b"}), 400),
        (json!({}), 400),
    ] {
        assert_eq!(server.call("POST", "/v1/links", &body.to_string()).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn other_admissions_say_why_they_make_no_signed_links() {
    let server = with_links(Links::Dev, Vec::new()).await;
    let made = server.call("POST", "/v1/links", r#"{"topic":"room"}"#).await.json();
    assert_eq!(made, json!({"link": "room", "url": "https://pages.example/s/room", "end": null}));
    assert_eq!(server.call("POST", "/v1/links", r#"{"topic":"app/room"}"#).await.status, 422);
    for (links, words) in [(Links::Webhook, "webhook"), (Links::SignedOrWebhook, "[links] keys")] {
        let server = with_links(links, Vec::new()).await;
        let got = server.call("POST", "/v1/links", r#"{"topic":"room"}"#).await;
        assert_eq!((got.status.as_u16(), &got.problem()["code"]), (409, &json!("no_signed_links")));
        assert!(got.problem()["detail"].as_str().unwrap().contains(words));
    }
}

#[tokio::test]
async fn a_revoked_link_is_denied_until_its_end() {
    let server = with_links(Links::Signed, keys()).await;
    let made = server.call("POST", "/v1/links", r#"{"topic":"app/room","ttl_s":5000}"#).await.json();
    let link = made["link"].as_str().unwrap();
    let relay = server.relay("hall");
    relay.subscribe(1, link);
    let revoked =
        server.call("POST", "/v1/revoke", &json!({"link": link, "reason": "no more", "ttl_s": 1}).to_string()).await;
    let ttl_s = revoked.json()["ttl_s"].as_u64().unwrap();
    assert!((4000..=5000).contains(&ttl_s), "until its own end: {ttl_s}");
    assert!(relay.received().contains(&format!("Revoke {link} no more")));
    relay.subscribe(2, link);
    assert!(relay.received().contains(&"Deny 2 no more".to_owned()));
    let other = server.call("POST", "/v1/links", r#"{"topic":"room"}"#).await.json();
    for (key, link, status) in [
        ("slk_tenant", link, 200),
        ("slk_tenant", other["link"].as_str().unwrap(), 403),
        ("slk_tenant", "unknown", 403),
        ("slk_all", "unknown", 422),
        ("slk_all", &link[..20], 422),
        ("slk_all", "a/b", 422),
        ("slk_all", "", 422),
    ] {
        let body = json!({"link": link}).to_string();
        assert_eq!(server.call_as(key, "POST", "/v1/revoke", &[], &body).await.status, status, "{key} {link}");
    }
    let detail = async |link: &str| {
        let got = server.call("POST", "/v1/revoke", &json!({"link": link}).to_string()).await;
        assert_eq!(got.status, 422, "{got:?}");
        got.problem()["detail"].as_str().unwrap().to_owned()
    };
    for url in [&format!("https://share.example/s/{link}"), "share.example/s/abc", "/s/abc"] {
        assert!(detail(url).await.contains("behind /s/: send that alone"));
    }
    assert!(detail("x").await.contains("is no signed link"));
    // Its key was removed: pages may watch by it still.
    let keys_of_now = vec![LinkKey { id: 9, key: vec![9; 32] }];
    server.shared.change(|hub, _| {
        hub.set_admission(admission::Settings { links: Links::Signed, keys: keys_of_now, ..hub.admission().clone() });
    });
    let (all, tenant) = (json!({"link": other["link"], "ttl_s": 60}).to_string(), json!({"link": link}).to_string());
    assert_eq!(server.call("POST", "/v1/revoke", &all).await.json()["ttl_s"], 60);
    assert_eq!(server.call_as("slk_tenant", "POST", "/v1/revoke", &[], &tenant).await.status, 403);
    // One that is signed by nobody may be the webhook's.
    let server = with_links(Links::SignedOrWebhook, keys()).await;
    let unknown = server.call("POST", "/v1/revoke", r#"{"link":"x","ttl_s":70}"#).await.json();
    assert_eq!(unknown["ttl_s"], 70);
    assert_eq!(server.call("POST", "/v1/revoke", r#"{"link":"x","ttl_s":0}"#).await.status, 422);
}

#[tokio::test]
async fn a_page_is_kicked_by_its_id() {
    let server = Server::start().await;
    let relay = server.relay("box/1");
    relay.subscribe(1, "room");
    let page = format!("{}.41@box/1", relay.id.number());
    let got = server.call("POST", "/v1/kick", &json!({"page": page, "reason": "rude"}).to_string()).await;
    assert_eq!(got.status, 204);
    assert!(relay.received().contains(&"Kick 41 rude".to_owned()));
    let elsewhere = json!({"page": format!("{}.41@box/2", relay.id.number())});
    assert_eq!(server.call("POST", "/v1/kick", &elsewhere.to_string()).await.problem()["code"], "not_found");
    for bad in ["", "1.2", "1@box", "1.2@", "x.2@box", "1.-2@box", "1.4294967296@box"] {
        let got = server.call("POST", "/v1/kick", &json!({"page": bad}).to_string()).await;
        assert_eq!((got.status.as_u16(), &got.problem()["code"]), (422, &json!("invalid_value")), "{bad}");
    }
    let tenant = server.call_as("slk_tenant", "POST", "/v1/kick", &[], &json!({"page": page}).to_string()).await;
    assert_eq!(tenant.problem()["code"], "outside_prefix");
    assert_eq!(server.call_as("slk_tenant", "GET", "/v1/fleet", &[], "").await.status, 403);
}

#[tokio::test]
async fn health_needs_no_key() {
    let server = Server::start().await;
    let got = server.call_as("", "GET", "/healthz", &[], "").await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"status": "ok"})));
    assert_eq!(server.call_as("", "GET", "/healthz?x=1", &[], "").await.status, 400);
}
