//! The documents against the hub.
//!
//! Owns a reader of the YAML that `docs/openapi.yaml` is written in: mappings by indentation,
//! values on one line. Its paths are compared with the routes, and every example is run, as is
//! every line of `docs/api.md`, by a shell and the real `curl`. An answer must have the shape of
//! its example: the same fields, of the same types.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use hub::{admission::Links, link::LinkKey, memory};
use hyper::StatusCode;
use serde_json::Value;
use wire::uplink::ToBusiness;

use super::{super::routes::ROUTES, KEY, Relay, Server, hub_settings, settings};

const RECORDING: &[u8] = include_bytes!("../../../../crates/media/testdata/h264.mp4");

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A hub as the documents expect it: signed links beside the webhook's, and a relay that holds the
/// topic `demo`.
async fn prepared() -> (Server, Relay) {
    let mut hub = hub_settings();
    hub.admission.links = Links::SignedOrWebhook;
    hub.admission.keys = vec![LinkKey { id: 1, key: vec![1; 32] }];
    let number = hub.fleet_key.number(&hub::Name::new("demo").unwrap());
    let server = Server::start_with(hub, memory::Limits::default(), settings()).await;
    let relay = server.relay("hall");
    let made = server.call("POST", "/v1/links", r#"{"topic":"demo"}"#).await.json();
    relay.subscribe(1, made["link"].as_str().unwrap());
    relay.send(&ToBusiness::Audience { topic: number, pages: 3 });
    (server, relay)
}

/// What has a shape: objects by their fields, lists by their first item.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {}", shape(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.first().map_or_else(String::new, shape)),
        Value::String(_) => "text".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Null => "null".to_owned(),
    }
}

/// The values of a YAML document by their places, as `paths|/healthz|get|summary`.
fn places(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut stack: Vec<(usize, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '-'])) {
        let indent = line.len() - line.trim_start().len();
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        if !value.is_empty() && !value.starts_with(' ') {
            continue;
        }
        stack.retain(|(other, _)| *other < indent);
        stack.push((indent, key.trim_matches('"').to_owned()));
        let place: Vec<&str> = stack.iter().map(|(_, key)| key.as_str()).collect();
        found.push((place.join("|"), value.trim().to_owned()));
    }
    found
}

/// A path, a method, and what stands below.
type Operation = (String, String, BTreeMap<String, String>);

/// The operations of the document, in order.
fn operations() -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    for (place, value) in places(&read("docs/openapi.yaml")) {
        let parts: Vec<&str> = place.splitn(4, '|').collect();
        match parts[..] {
            ["paths", path, method] if method != "parameters" => {
                operations.push((path.to_owned(), method.to_uppercase(), BTreeMap::new()));
            }
            ["paths", _, method, rest] if method != "parameters" => {
                operations.last_mut().unwrap().2.insert(rest.to_owned(), value);
            }
            _ => {}
        }
    }
    operations
}

#[test]
fn the_specification_has_all_routes_and_no_others() {
    let mut said: Vec<String> = operations().iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let known =
        ROUTES.iter().flat_map(|(path, methods)| methods.iter().map(move |(method, _)| format!("{method} {path}")));
    let mut known: Vec<String> = known.collect();
    said.sort();
    known.sort();
    assert_eq!(said, known);
    let text = read("docs/api.md");
    for route in known {
        assert!(text.contains(&format!("`{route}")), "docs/api.md has no {route}");
    }
}

#[tokio::test]
async fn every_example_of_the_specification_holds() {
    let (server, relay) = prepared().await;
    let mut count = 0;
    for (path, method, below) in operations() {
        let path = path.replace("{topic}", "demo").replace("{sequence}", "1");
        let body = |media: &str| below.get(&format!("requestBody|content|{media}|example")).cloned();
        let expected = below.keys().filter_map(|key| key.strip_prefix("responses|")).find(|key| key.starts_with('2'));
        let status: u16 = expected.unwrap()[..3].parse().unwrap();
        let example = below.get(&format!("responses|{status}|content|application/json|example"));
        let key = if path == "/healthz" { "" } else { KEY };
        let got = if below.contains_key("requestBody|content|video/mp4|schema|type") {
            server.call_with(key, &method, &path, &[("content-type", "video/mp4")], RECORDING).await
        } else {
            server.call_as(key, &method, &path, &[], &body("application/json").unwrap_or_default()).await
        };
        assert_eq!(got.status, status, "{method} {path}: {}", String::from_utf8_lossy(&got.body));
        match example {
            Some(example) => {
                let example: Value = serde_json::from_str(example).unwrap();
                assert_eq!(shape(&got.json()), shape(&example), "{method} {path}");
                if let (Some(got), Some(said)) = (got.json().get("results"), example.get("results")) {
                    assert_eq!(statuses(got), statuses(said), "{method} {path}: {got}");
                }
                count += 1;
            }
            None if path == "/metrics" => {
                let example = &below["responses|200|content|text/plain|example"];
                let example: String = serde_json::from_str(example).unwrap();
                assert!(String::from_utf8_lossy(&got.body).contains(&example), "{example}");
            }
            None => assert_eq!((status, &*got.body), (204, &b""[..]), "{method} {path}"),
        }
        if let Some(line) = body("application/x-ndjson") {
            let media = [("content-type", "application/x-ndjson")];
            assert_eq!(server.call_as(KEY, &method, &path, &media, &line).await.json()["results"][0]["status"], 200);
        }
    }
    assert!(count >= 13, "only {count} examples were found");
    assert!(relay.received().contains(&"Kick 41 Please be kind.".to_owned()));
}

fn statuses(results: &Value) -> Vec<&Value> {
    results.as_array().unwrap().iter().map(|result| &result["status"]).collect()
}

#[test]
fn every_problem_of_the_specification_has_the_shape_of_ours() {
    let mut count = 0;
    for (place, text) in places(&read("docs/openapi.yaml")) {
        if !place.ends_with("application/problem+json|example") {
            continue;
        }
        let said: Value = serde_json::from_str(&text).unwrap();
        let (status, code) = (said["status"].as_u64().unwrap(), said["code"].as_str().unwrap());
        assert!(codes().contains(&(u16::try_from(status).unwrap(), code.to_owned())), "{place}: {status} {code}");
        let title = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap().canonical_reason().unwrap();
        assert_eq!(said["title"], title, "{place}");
        count += 1;
    }
    assert!(count >= 14, "only {count} problems were found");
}

/// The statuses and codes of all problems in the sources.
fn codes() -> Vec<(u16, String)> {
    let mut codes = vec![(503, "too_many_connections".to_owned())];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("problem.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for call in text.split("Problem::").skip(1) {
            let name = call.split('(').next().unwrap();
            let status = match name {
                "bad" => 400,
                "busy" => 429,
                "unavailable" => 503,
                "value" => {
                    codes.push((422, "invalid_value".to_owned()));
                    continue;
                }
                "new" => {
                    let words = call.split("StatusCode::").nth(1).unwrap().split(',').next().unwrap();
                    let words = words.replace('_', " ").to_lowercase();
                    let all = (400..600).filter_map(|number| StatusCode::from_u16(number).ok());
                    let mut named =
                        all.filter(|status| status.canonical_reason().is_some_and(|name| name.to_lowercase() == words));
                    named.next().unwrap_or_else(|| panic!("{}: {words}", path.display())).as_u16()
                }
                _ => continue,
            };
            codes.push((status, call.split('"').nth(1).unwrap().to_owned()));
        }
    }
    codes.sort();
    codes.dedup();
    codes
}

#[test]
fn every_code_is_in_the_table_of_errors() {
    let text = read("docs/api.md");
    let table = text.split("\n## Errors\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut said = Vec::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((status, rest)) = row.split_once(" | ") else { continue };
        let Ok(status) = status.parse::<u16>() else { continue };
        let codes = rest.split(" | ").next().unwrap();
        said.extend(codes.split('`').skip(1).step_by(2).map(|code| (status, code.to_owned())));
    }
    said.sort();
    assert_eq!(said, codes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_the_document_works() {
    let (server, _relay) = prepared().await;
    let text = read("docs/api.md");
    let folder = std::env::temp_dir().join(format!("sharelink-hub-api-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    // An answer of 400 and above is a failure.
    fs::write(folder.join(".curlrc"), "fail-with-body\n").unwrap();
    fs::write(folder.join("recording.mp4"), RECORDING).unwrap();
    let (mut ran, mut compared) = (0, 0);
    let hub = format!("http://{}", server.address);
    let blocks: Vec<&str> = text.split("\n```").collect();
    for (index, block) in blocks.iter().enumerate().filter(|(_, block)| block.starts_with("sh\n")) {
        let lines = block["sh\n".len()..].to_owned();
        let mut command = Command::new("sh");
        command
            .args(["-euc", &lines])
            .current_dir(&folder)
            .env("CURL_HOME", &folder)
            .env("HUB", &hub)
            .env("KEY", KEY)
            .env_remove("HOME");
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{lines}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        ran += 1;
        // The next block but one: between two blocks there is text.
        let Some(example) = blocks.get(index + 2).and_then(|block| block.strip_prefix("json\n")) else { continue };
        if blocks[index + 1].trim().is_empty() {
            let example: Value = serde_json::from_str(example).unwrap();
            let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{lines}\n{said}: {error}"));
            assert_eq!(shape(&said), shape(&example), "{lines}");
            compared += 1;
        }
    }
    let _ = fs::remove_dir_all(&folder);
    assert!(ran >= 16 && compared >= 13, "{ran} blocks ran, {compared} answers were compared");
}
