//! Publishing: messages, states, to many topics, in batches.
//!
//! Owns the tests of `messages.rs`, `state.rs` and `batch.rs`, the engine's refusals among them:
//! ended topics, keys that were used, limits that are reached.

use serde_json::{Value, json};

use super::{KEY, Server, hub_settings, settings};
use hub::memory;

#[tokio::test]
async fn a_message_gets_its_place_and_is_listed_byte_by_byte() {
    let server = Server::start().await;
    let body = " \r\n{ \"text\" : \"h\\u00e9llo\", \"n\": 1.0e2, \"text\":null }\n";
    let first = server.call("POST", "/v1/topics/app%2Froom/messages", body).await.json();
    assert_eq!(first["sequence"], 1);
    let epoch = first["epoch"].as_str().unwrap();
    assert!(epoch.parse::<u64>().unwrap() > 0);
    assert_eq!(first.get("repeated"), None);
    assert_eq!(server.call("POST", "/v1/topics/app%2froom/messages", "null").await.json()["sequence"], 2);
    let listed = server.call("GET", "/v1/topics/app%2Froom/messages", "").await;
    let text = String::from_utf8(listed.body.clone()).unwrap();
    assert!(text.contains(body.trim()), "{text}");
    let listed = listed.json();
    assert_eq!((&listed["epoch"], &listed["next"]), (&json!(epoch), &json!(3)));
    let since = server.call("GET", "/v1/topics/app%2Froom/messages?since=2&limit=5", "").await.json();
    assert_eq!(since["messages"], json!([{"sequence": 2, "data": null}]));
    let one = server.call("GET", "/v1/topics/app%2Froom/messages?limit=1", "").await.json();
    assert_eq!((one["messages"].as_array().unwrap().len(), &one["next"]), (1, &json!(2)));
    let none = server.call("GET", "/v1/topics/app%2Froom/messages?since=9", "").await.json();
    assert_eq!((&none["messages"], &none["next"]), (&json!([]), &json!(9)));
}

#[tokio::test]
async fn an_idempotency_key_publishes_once() {
    let server = Server::start().await;
    let post = async |topic: &str, track: &str, key: &str, body: &str| {
        let method = if track == "state" { "PUT" } else { "POST" };
        server.call_as(KEY, method, &format!("/v1/topics/{topic}/{track}"), &[("idempotency-key", key)], body).await
    };
    let first = post("room", "messages", "k1", "1").await.json();
    let again = post("room", "messages", "k1", " 1 ").await.json();
    assert_eq!((&again["sequence"], &again["epoch"]), (&first["sequence"], &first["epoch"]));
    assert_eq!(again["repeated"], true);
    let other = post("room", "messages", "k1", "2").await;
    assert_eq!((other.status.as_u16(), &other.problem()["code"]), (422, &json!("idempotency_key_reused")));
    assert_eq!(post("room", "state", "k1", "1").await.status, 422, "another track is another content");
    assert_eq!(post("other", "messages", "k1", "2").await.status, 200, "a key is its topic's");
    assert_eq!(post("room", "messages", &"k".repeat(128), "3").await.json()["sequence"], 2);
    for bad in ["", &"k".repeat(129), "a b"] {
        let got = post("room", "messages", bad, "4").await;
        assert_eq!((got.status.as_u16(), &got.problem()["code"]), (400, &json!("invalid_idempotency_key")), "{bad:?}");
    }
}

#[tokio::test]
async fn durable_is_said_not_to_be() {
    let server = Server::start().await;
    let got = server.call("POST", "/v1/topics/room/messages?durable=1", "1").await;
    assert_eq!((got.status.as_u16(), &got.json()["durable"]), (202, &json!(false)));
    assert_eq!(server.call("POST", "/v1/topics/room/messages?durable=yes", "1").await.status, 400);
}

#[tokio::test]
async fn a_message_taken_down_leaves_a_tombstone_and_tells_pages() {
    let server = Server::start().await;
    for text in ["\"a\"", "\"b\""] {
        server.call("POST", "/v1/topics/room/messages", text).await;
    }
    let relay = server.relay("hall");
    relay.subscribe(1, "room");
    let removed = server.call("DELETE", "/v1/topics/room/messages/1", "").await.json();
    assert_eq!(removed["sequence"], 3);
    let listed = server.call("GET", "/v1/topics/room/messages", "").await.json();
    let tombstone = json!({"kind": "removed", "sequence": 1});
    let expected = json!([
        {"sequence": 1, "data": tombstone},
        {"sequence": 2, "data": "b"},
        {"sequence": 3, "data": tombstone},
    ]);
    assert_eq!(listed["messages"], expected);
    let received = relay.received();
    assert!(received.contains(&r#"messages 3 {"kind":"removed","sequence":1}"#.to_owned()), "{received:?}");
    assert_eq!(server.call("DELETE", "/v1/topics/room/messages/9", "").await.problem()["code"], "not_found");
    assert_eq!(server.call("DELETE", "/v1/topics/none/messages/1", "").await.status, 404);
    assert_eq!(server.call("DELETE", "/v1/topics/room/messages/x", "").await.problem()["code"], "invalid_sequence");
}

#[tokio::test]
async fn a_state_is_replaced_only_where_it_was_read() {
    let server = Server::start().await;
    let put = async |tag: &str, body: &str| {
        let headers = [("if-match", tag)];
        let headers = if tag.is_empty() { &[][..] } else { &headers[..] };
        server.call_as(KEY, "PUT", "/v1/topics/room/state", headers, body).await
    };
    assert_eq!(server.call("GET", "/v1/topics/room/state", "").await.status, 404);
    let early = put("\"3\"", "1").await;
    assert_eq!((early.status.as_u16(), &early.problem()["sequence"]), (412, &json!(0)));
    let first = put("\"0\"", "{\"title\":\"x\"}").await;
    assert_eq!((first.status.as_u16(), &first.headers["etag"]), (200, &"\"1\"".parse().unwrap()));
    assert_eq!(put("\"0\"", "2").await.problem()["sequence"], 1);
    assert_eq!(put("\"1\"", "2").await.json()["sequence"], 2);
    assert_eq!(put("", "[3]").await.json()["sequence"], 3);
    let shown = server.call("GET", "/v1/topics/room/state", "").await;
    assert_eq!(shown.headers["etag"], "\"3\"");
    assert_eq!((&shown.json()["sequence"], &shown.json()["data"]), (&json!(3), &json!([3])));
    for bad in ["3", "*", "W/\"3\"", "\"x\"", "\"3\", \"4\""] {
        assert_eq!(put(bad, "4").await.problem()["code"], "invalid_if_match", "{bad}");
    }
}

#[tokio::test]
async fn what_is_no_json_value_is_refused_and_opens_no_topic() {
    let server = Server::start().await;
    let deep = format!("{}{}", "[".repeat(257), "]".repeat(257));
    for bad in ["{", "1 2", "{\"a\":1,}", "NaN", "\"\u{1}\"", " ", &deep] {
        for (method, path) in [("POST", "/v1/topics/room/messages"), ("PUT", "/v1/topics/room/state")] {
            let got = server.call(method, path, bad).await;
            assert_eq!((got.status.as_u16(), &got.problem()["code"]), (400, &json!("invalid_json")), "{bad:?}");
        }
    }
    let deep = format!("{}{}", "[".repeat(256), "]".repeat(256));
    assert_eq!(server.call("GET", "/v1/topics/room", "").await.status, 404);
    assert_eq!(server.call("POST", "/v1/topics/room/messages", &deep).await.status, 200);
    assert_eq!(server.call("GET", "/v1/topics/room/messages", "").await.status, 200);
}

#[tokio::test]
async fn a_value_has_a_maximum_size() {
    let server = Server::start().await;
    let of_size = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    let size_max = settings().limits.json_size_max;
    let fits = format!("\n{}\n", of_size(size_max));
    assert_eq!(server.call("POST", "/v1/topics/room/messages", &fits).await.status, 200);
    let publish = |size| format!("{{\"topics\":[\"a\"],\"message\":{}}}", of_size(size));
    let batch = |size| format!("{{\"op\":\"state\",\"topic\":\"b\",\"data\":{}}}", of_size(size));
    assert_eq!(server.call("POST", "/v1/publish", &publish(size_max)).await.status, 200);
    for too_large in [size_max + 1, size_max + 10_000] {
        let got = server.call("POST", "/v1/topics/room/messages", &of_size(too_large)).await;
        assert_eq!((got.status.as_u16(), &got.problem()["code"]), (413, &json!("too_large")));
        assert_eq!(server.call("PUT", "/v1/topics/room/state", &of_size(too_large)).await.status, 413);
        assert_eq!(server.call("POST", "/v1/publish", &publish(too_large)).await.status, 413);
        let lines = [("content-type", "application/x-ndjson")];
        let got = server.call_as(KEY, "POST", "/v1/batch", &lines, &batch(too_large)).await.json();
        assert_eq!(got["results"][0]["problem"]["code"], "too_large");
    }
}

#[tokio::test]
async fn one_body_goes_to_many_topics() {
    let server = Server::start().await;
    server.call("DELETE", "/v1/topics/over", "{\"reason\":\"closed\"}").await;
    let body = r#"{"topics":["a","over","b c","app/x"],"message":{"n":1}}"#;
    let got = server.call("POST", "/v1/publish", body).await.json();
    let results = got["results"].as_array().unwrap();
    let statuses: Vec<&Value> = results.iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, [200, 409, 400, 200]);
    assert_eq!((&results[0]["topic"], &results[0]["sequence"]), (&json!("a"), &json!(1)));
    assert_eq!(results[1]["problem"]["reason"], "closed");
    let again = r#"{"topics":["a","b"],"state":null}"#;
    let headers = [("idempotency-key", "k")];
    for repeated in [Value::Null, json!(true)] {
        let got = server.call_as(KEY, "POST", "/v1/publish", &headers, again).await.json();
        assert_eq!((&got["results"][0]["sequence"], &got["results"][1]["repeated"]), (&json!(1), &repeated));
    }
    assert_eq!(server.call("GET", "/v1/topics/b/state", "").await.json()["data"], Value::Null);
    let tenant = server.call_as("slk_tenant", "POST", "/v1/publish", &[], body).await.json();
    let statuses: Vec<Value> = (0..4).map(|index| tenant["results"][index]["status"].clone()).collect();
    assert_eq!(statuses, [403, 403, 400, 200]);
    let many: Vec<String> = (0..101).map(|number| format!("t{number}")).collect();
    for (body, code) in [
        (json!({"topics": ["a"]}), "invalid_value"),
        (json!({"topics": ["a"], "message": 1, "state": 2}), "invalid_value"),
        (json!({"topics": [], "message": 1}), "invalid_value"),
        (json!({"topics": many, "message": 1}), "invalid_value"),
        (json!({"topics": ["a", "b", "a"], "message": 1}), "invalid_value"),
        (json!({"topics": ["a"], "message": 1, "other": 1}), "invalid_body"),
    ] {
        assert_eq!(server.call("POST", "/v1/publish", &body.to_string()).await.problem()["code"], code, "{body}");
    }
}

/// A batch with one operation of each kind, and each kind of mistake.
fn operations() -> Vec<(Value, u16)> {
    vec![
        (json!({"op": "message", "topic": "a", "data": null, "idempotency_key": "k"}), 200),
        (json!({"op": "message", "topic": "a", "data": null, "idempotency_key": "k"}), 200),
        (json!({"op": "message", "topic": "a", "data": 2, "idempotency_key": "k"}), 422),
        (json!({"op": "state", "topic": "b", "data": {"x": 1}, "if_match": 0}), 200),
        (json!({"op": "state", "topic": "b", "data": {"x": 2}, "if_match": 0}), 412),
        (json!({"op": "remove", "topic": "a", "sequence": 1}), 200),
        (json!({"op": "remove", "topic": "a"}), 400),
        (json!({"op": "end", "topic": "a", "reason": "over"}), 204),
        (json!({"op": "message", "topic": "a", "data": 3}), 409),
        (json!({"op": "open", "topic": "a"}), 204),
        (json!({"op": "message", "topic": "a", "data": 4}), 200),
        (json!({"op": "fly", "topic": "a"}), 400),
        (json!({"op": "open", "topic": "a", "data": 1}), 400),
        (json!({"op": "message", "topic": "a", "data": 1, "dada": 1}), 400),
        (json!({"op": "message", "topic": "ä", "data": 1}), 400),
        (json!({"op": "message", "topic": "a"}), 400),
        (json!({"op": "message", "topic": "a", "data": 1, "idempotency_key": ""}), 400),
        (json!({"op": "end", "topic": "a", "reason": ""}), 422),
        (json!(7), 400),
    ]
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_operation_in_order() {
    let lines: String = operations().iter().map(|(operation, _)| format!("{operation}\r\n\n")).collect();
    let all: Vec<Value> = operations().into_iter().map(|(operation, _)| operation).collect();
    let whole = json!({"operations": all}).to_string();
    let json = "application/json; charset=UTF-8";
    for (media, body) in [("application/x-ndjson", &lines), (json, &whole)] {
        let server = Server::start().await;
        let got = server.call_as(KEY, "POST", "/v1/batch", &[("content-type", media)], body).await.json();
        let results = got["results"].as_array().unwrap();
        assert_eq!(results.len(), operations().len());
        for (result, (operation, status)) in results.iter().zip(operations()) {
            assert_eq!(result["status"], status, "{operation}: {result}");
            assert_eq!(result.get("problem").is_some(), status >= 400, "{result}");
        }
        assert_eq!(results[1]["repeated"], true);
        assert_eq!(results[4]["problem"]["sequence"], 1);
        assert_eq!(results[5]["sequence"], 2, "the removal tells pages by a message");
        assert_eq!(results[8]["problem"]["reason"], "over");
        assert_eq!(results[10]["sequence"], 3);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_line_names_it() {
    let server = Server::start().await;
    let body = "{\"op\":\"open\",\"topic\":\"a\"}\n\n{\"op\":\"open\"}\n{\n{\"op\":\"remove\",\"topic\":\"a\",\"sequence\":9}\n";
    let media = [("content-type", "application/x-ndjson")];
    let got = server.call_as(KEY, "POST", "/v1/batch", &media, body).await;
    assert!(got.body.ends_with(b"}\n"), "a line for a terminal");
    let got = got.json();
    let details: Vec<&str> =
        got["results"].as_array().unwrap().iter().filter_map(|row| row["problem"]["detail"].as_str()).collect();
    let [field, json, message] = details[..] else { panic!("{got}") };
    assert!(field.starts_with("line 3: ") && field.ends_with("missing field `topic` at column 13"), "{field}");
    assert!(json.starts_with("line 4: the body is no JSON: ") && json.ends_with(" at column 1"), "{json}");
    assert!(message.starts_with("line 5: there is no such topic"), "{message}");
}

#[tokio::test]
async fn answers_and_problems_end_with_a_newline() {
    let server = Server::start().await;
    for (path, status) in [("/v1/fleet", 200), ("/healthz", 200), ("/v1/nothing", 404)] {
        let got = server.call("GET", path, "").await;
        assert_eq!((got.status.as_u16(), got.body.last()), (status, Some(&b'\n')), "{got:?}");
    }
    assert_eq!(server.call("POST", "/v1/topics/a/open", "").await.body, b"", "an answer without a body has none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_on_one_topic_happen_in_order() {
    let server = Server::start().await;
    let topics = 7;
    let lines: String = (0..1000)
        .map(|number| {
            format!("{}\n", json!({"op": "message", "topic": format!("t{}", number % topics), "data": number}))
        })
        .collect();
    let media = [("content-type", "application/x-ndjson")];
    let got = server.call_as(KEY, "POST", "/v1/batch", &media, &lines).await.json();
    assert_eq!(got["results"].as_array().unwrap().len(), 1000);
    for topic in 0..topics {
        let listed = server.call("GET", &format!("/v1/topics/t{topic}/messages?limit=1000"), "").await.json();
        let data: Vec<u64> =
            listed["messages"].as_array().unwrap().iter().map(|message| message["data"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = (0..1000).filter(|number| number % topics == topic).collect();
        assert_eq!(data, expected);
    }
    let wide = format!("{{\"operations\":[1{}]}}", ",1".repeat(1000));
    assert_eq!(server.call("POST", "/v1/batch", &wide).await.problem()["code"], "invalid_body");
    let more = format!("{lines}{{\"op\":\"open\",\"topic\":\"a\"}}");
    assert_eq!(server.call_as(KEY, "POST", "/v1/batch", &media, &more).await.problem()["code"], "invalid_value");
    assert_eq!(server.call_as(KEY, "POST", "/v1/batch", &media, "\n\n").await.problem()["code"], "invalid_value");
}

#[tokio::test]
async fn each_operation_of_a_batch_needs_its_scope() {
    let server = Server::start().await;
    let body = json!({"operations": [
        {"op": "message", "topic": "app/a", "data": 1},
        {"op": "end", "topic": "app/a"},
        {"op": "message", "topic": "apple", "data": 1},
    ]});
    for (key, expected) in
        [("slk_publisher", [200, 403, 200]), ("slk_tenant", [200, 204, 403]), ("slk_reader", [403; 3])]
    {
        let got = server.call_as(key, "POST", "/v1/batch", &[], &body.to_string()).await.json();
        let statuses: Vec<Value> = (0..3).map(|index| got["results"][index]["status"].clone()).collect();
        assert_eq!(statuses, expected, "{key}");
        server.call("POST", "/v1/topics/app%2Fa/open", "").await;
    }
}

#[tokio::test]
async fn what_is_full_names_the_limit() {
    let engine = memory::Limits { topics_max: 1, keys_max: 0, ..memory::Limits::default() };
    let server = Server::start_with(hub_settings(), engine, settings()).await;
    server.call("POST", "/v1/topics/a/messages", "1").await;
    let full = server.call("POST", "/v1/topics/b/messages", "1").await;
    assert_eq!((full.status.as_u16(), &full.problem()["code"]), (507, &json!("full")));
    assert!(full.problem()["detail"].as_str().unwrap().contains("[limits] topics"));
    let keys = server.call_as(KEY, "POST", "/v1/topics/a/messages", &[("idempotency-key", "k")], "1").await;
    assert_eq!(keys.status, 507);
}

#[tokio::test]
async fn too_many_calls_are_told_to_come_back() {
    let mut hub = hub_settings();
    hub.limits.calls_max = 0;
    let server = Server::start_with(hub, memory::Limits::default(), settings()).await;
    let got = server.call("POST", "/v1/topics/a/messages", "1").await;
    assert_eq!((got.status.as_u16(), &got.headers["retry-after"]), (429, &"1".parse().unwrap()));
    assert_eq!(got.problem()["code"], "busy");
}

#[tokio::test]
async fn new_settings_hold_from_the_next_request_on() {
    let server = Server::start().await;
    let mut kept = server.connect().await;
    let request = || {
        let request = hyper::Request::get("/v1/topics").header("authorization", "Bearer slk_reader");
        request.body(http_body_util::Full::default()).unwrap()
    };
    assert_eq!(super::got(kept.send_request(request()).await.unwrap()).await.status, 200);
    let mut changed = settings();
    changed.keys.retain(|key| key.name != "reader");
    server.set(changed);
    assert_eq!(super::got(kept.send_request(request()).await.unwrap()).await.status, 401);
}
