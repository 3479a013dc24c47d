//! Requests to the hub's HTTP API: raw bytes, and requests made of a route, headers and a body.
//!
//! In every case: whole answers of the announced length; JSON, and for what went wrong a problem
//! document; no failure inside; no key in an answer; no header that lets a page of another site
//! read it; the engine within its bound; and the hub serves on.

use std::{net::Ipv4Addr, sync::Arc};

use hub::{FleetKey, Settings, admission, memory, settings};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sharelink_hub::{
    http::{self, Api, ApiKey, Limits, Scopes},
    shared::Shared,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::Builder,
    sync::watch,
};

/// The API's key. No answer has it.
const KEY: &str = "slk_the-key-of-the-fuzzer";
/// More than any answer.
const PIPE_SIZE: usize = 4 << 20;
const REQUESTS_MAX: usize = 8;
const ENGINE_SIZE: usize = 256 << 10;

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"];
/// Of the routes, with what a path may have in it.
const PATHS: [&str; 21] = [
    "/v1/topics/a/messages",
    "/v1/topics/a/messages/1",
    "/v1/topics/a/state",
    "/v1/topics/a/media",
    "/v1/topics/a/ingest-tokens",
    "/v1/topics/a/open",
    "/v1/topics/a",
    "/v1/topics/b%2Fc",
    "/v1/topics",
    "/v1/publish",
    "/v1/batch",
    "/v1/links",
    "/v1/revoke",
    "/v1/kick",
    "/v1/fleet",
    "/healthz",
    "/apps/1/events",
    "/apps/1/batch_events",
    "/v1/topics/",
    "/",
    "/metrics",
];
const HEADERS: [&str; 8] = [
    "Content-Type: application/json\r\n",
    "Content-Type: application/x-ndjson\r\n",
    "Idempotency-Key: once\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
    "X-Forwarded-For: 192.0.2.1\r\n",
    "Expect: 100-continue\r\n",
    "Origin: https://elsewhere.example\r\n",
    "Accept-Encoding: gzip\r\n",
];

/// A caller who sends anything.
pub fn api(data: &[u8]) {
    // A clock that goes on when all wait: what never comes is overdue at once.
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        let (shared, api, _settings) = start();
        let mut rest = data;
        for _ in 0..REQUESTS_MAX {
            let Some(request) = request(&mut rest) else { break };
            let answers = said(&api, &request).await;
            check(&answers, &request);
        }
        assert!(shared.read(|_, engine, _| engine.size()) <= ENGINE_SIZE);
        let healthy = said(&api, b"GET /healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").await;
        assert!(healthy.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&healthy));
    });
}

/// The next request: after its size either bytes as they are, or a request of a known form.
fn request(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (&[size, form, headers], behind) = rest.split_first_chunk::<3>()?;
    let (body, behind) = behind.split_at(usize::from(size).min(behind.len()));
    *rest = behind;
    if form == u8::MAX {
        return Some(body.to_vec());
    }
    let (method, path) = (usize::from(form) % METHODS.len(), usize::from(form) / METHODS.len());
    // Half of the requests have their query or a piece of their path from the input.
    let (piece, body) = if headers & 1 == 0 { (&[][..], body) } else { body.split_at(body.len() / 3) };
    let key = if headers & 2 == 0 { KEY } else { "slk_another" };
    let mut request = format!("{} {}", METHODS[method], PATHS[path % PATHS.len()]).into_bytes();
    request.extend_from_slice(piece);
    request.extend(format!(" HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n").bytes());
    for (bit, header) in HEADERS.iter().enumerate() {
        if usize::from(headers >> 2) & (1 << (bit % 6)) != 0 {
            request.extend(header.bytes());
        }
    }
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
    request.extend_from_slice(body);
    Some(request)
}

fn start() -> (Arc<Shared>, Arc<Api>, watch::Sender<Arc<http::Settings>>) {
    let machine = Settings {
        business: business::Settings::default(),
        owners: Vec::new(),
        fleet_key: FleetKey::new(b"fleet".to_vec()),
        admission: admission::Settings::default(),
        limits: settings::Limits::default(),
        times: settings::Times::default(),
    };
    let engine = memory::Limits { size_max: ENGINE_SIZE, ..memory::Limits::default() };
    let (shared, _outgoing) = Shared::new(machine, engine, None);
    let scopes = Scopes { publish: true, read: true, admin: true, ingest: true };
    let key = ApiKey { name: "all".to_owned(), hash: Sha256::digest(KEY).into(), scopes, below: String::new() };
    let settings = http::Settings {
        keys: vec![key],
        trusted_proxies: Vec::new(),
        pages_url: None,
        link_ttl_s: 3600,
        pusher: None,
        limits: Limits {
            connections_max: 4,
            connections_per_address_max: 4,
            json_size_max: 4 << 10,
            batch_size_max: 64 << 10,
            chunk_size_max: 512 << 10,
            group_size_max: 1 << 20,
            answer_size_max: 1 << 20,
            fleet_size_max: 64 << 10,
            room_time: std::time::Duration::from_secs(10),
        },
    };
    let (sender, receiver) = watch::channel(Arc::new(settings));
    (Arc::clone(&shared), Api::new(shared, receiver, 1), sender)
}

/// All that a connection says for these bytes, after which the client waits for its end.
async fn said(api: &Arc<Api>, bytes: &[u8]) -> Vec<u8> {
    let (client, server) = duplex(PIPE_SIZE);
    let client = async move {
        let (mut reader, mut writer) = tokio::io::split(client);
        // The hub may have closed before it read all.
        let _ = writer.write_all(bytes).await;
        let mut answers = Vec::new();
        let _ = reader.read_to_end(&mut answers).await;
        answers
    };
    let (answers, ()) = tokio::join!(client, http::converse(Arc::clone(api), server, Ipv4Addr::LOCALHOST.into()));
    answers
}

/// Checks the answers of a connection. To a HEAD there is one, without a body.
fn check(answers: &[u8], request: &[u8]) {
    let is_head = request.starts_with(b"HEAD");
    // Pusher's server libraries expect plain text, and so does Prometheus.
    let names = |path: &[u8]| request.windows(path.len()).any(|part| part == path);
    let may_be_text = names(b"/apps") || names(b"/users") || names(b"/metrics");
    let shown = String::from_utf8_lossy(answers);
    assert!(!shown.contains(KEY), "{shown}");
    assert!(!shown.to_ascii_lowercase().contains("\r\naccess-control-"), "{shown}");
    let mut rest = &*shown;
    while !rest.is_empty() {
        let (head, behind) = rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("a whole head: {rest}"));
        let status: u16 = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        if status == 100 {
            rest = behind;
            continue;
        }
        assert!(status < 500 || [501, 503, 507].contains(&status), "{shown}");
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value)
        };
        let length: usize = field("content-length").map_or(0, |text| text.parse().unwrap_or_else(|_| panic!("{head}")));
        if is_head {
            return;
        }
        let (body, behind) = behind.split_at_checked(length).unwrap_or_else(|| panic!("a whole body: {shown}"));
        rest = behind;
        // hyper's own answers to what is no HTTP have no body.
        if !body.is_empty() {
            let kind = field("content-type").unwrap_or_else(|| panic!("{head}"));
            if kind.starts_with("text/plain") && may_be_text {
                continue;
            }
            let value: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
            if status >= 400 {
                assert_eq!(kind, "application/problem+json", "{shown}");
                assert_eq!(value["status"], status, "{shown}");
            }
        }
    }
}
