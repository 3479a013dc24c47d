//! The API on a real loopback socket, driven by a real HTTP client.
//!
//! Owns the server of a test, its keys, its client, and a relay that speaks the uplink by hand.
//! What is slow waits for the real timeouts, and only for the answer: no test measures a time. Each
//! test has a server of its own, on a port that the kernel chose.

mod documents;
mod managing;
mod media;
mod protocol;
mod publishing;
mod pusher;
mod refusing;
mod slow;
mod studio;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hub::{FleetKey, admission, memory};
use hyper::{HeaderMap, Request, StatusCode, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use wire::uplink::{self, ToBusiness, ToRelay};

use super::{Api, ApiKey, Limits, Scopes, Settings, places::Kind, serve};
use crate::shared::{Outgoing, Shared};

/// Whoever waits longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The key with all scopes for all topics.
pub const KEY: &str = "slk_all";
const SECRET: &[u8] = b"the secret of the relays";

/// A hub with its API.
pub struct Server {
    pub shared: Arc<Shared>,
    api: Arc<Api>,
    pub address: SocketAddr,
    settings: Option<watch::Sender<Arc<Settings>>>,
    task: JoinHandle<()>,
    _outgoing: Outgoing,
    pub tls: watch::Sender<Option<TlsAcceptor>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a client got.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The document of a problem, whose form is checked.
    pub fn problem(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["type"], "about:blank");
        assert_eq!(document["status"], self.status.as_u16());
        assert_eq!(document["title"], self.status.canonical_reason().unwrap());
        for text in ["detail", "code"] {
            assert!(document[text].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        }
        document
    }
}

pub fn key(name: &str, scopes: &str, below: &str) -> ApiKey {
    let has = |scope| scopes.contains(scope);
    ApiKey {
        name: name.to_owned(),
        hash: Sha256::digest(format!("slk_{name}")).into(),
        scopes: Scopes { publish: has("publish"), read: has("read"), admin: has("admin"), ingest: has("ingest") },
        below: below.to_owned(),
    }
}

pub fn settings() -> Settings {
    Settings {
        keys: vec![
            key("reader", "read", ""),
            key("publisher", "publish", ""),
            key("tenant", "publish read admin ingest", "app"),
            key("all", "publish read admin ingest", ""),
            key("studio", "ingest", "app"),
        ],
        trusted_proxies: Vec::new(),
        pages_url: Some("https://pages.example".to_owned()),
        link_ttl_s: 3600,
        pusher: None,
        limits: Limits {
            connections_max: 64,
            connections_per_address_max: 64,
            json_size_max: 64 << 10,
            batch_size_max: 1 << 20,
            chunk_size_max: 512 << 10,
            group_size_max: 1 << 20,
            answer_size_max: 1 << 20,
            fleet_size_max: 64 << 10,
            room_time: DEADLINE,
        },
    }
}

pub fn hub_settings() -> hub::Settings {
    hub::Settings {
        business: business::Settings { secrets: vec![SECRET.to_vec()], ..business::Settings::default() },
        owners: vec![None],
        fleet_key: FleetKey::new(b"fleet".to_vec()),
        admission: admission::Settings::default(),
        limits: hub::settings::Limits::default(),
        times: hub::settings::Times::default(),
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(hub_settings(), memory::Limits::default(), settings()).await
    }

    /// With places for this many streams.
    pub async fn start_with_streams(streams_max: usize) -> Self {
        Self::start_as(hub_settings(), memory::Limits::default(), settings(), streams_max).await
    }

    pub async fn start_with(hub: hub::Settings, engine: memory::Limits, settings: Settings) -> Self {
        Self::start_as(hub, engine, settings, 4).await
    }

    async fn start_as(hub: hub::Settings, engine: memory::Limits, settings: Settings, streams_max: usize) -> Self {
        let (shared, outgoing) = Shared::new(hub, engine, None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (settings, receiver) = watch::channel(Arc::new(settings));
        let (tls, tls_receiver) = watch::channel(None);
        let api = Api::new(Arc::clone(&shared), receiver, streams_max);
        let task = tokio::spawn(serve(Arc::clone(&api), listener, tls_receiver));
        Self { shared, api, address, settings: Some(settings), task, _outgoing: outgoing, tls }
    }

    /// Replaces the settings.
    pub fn set(&self, settings: Settings) {
        self.settings.as_ref().unwrap().send_replace(Arc::new(settings));
    }

    /// Begins the end of the API.
    pub fn end(&mut self) {
        self.settings = None;
    }

    /// Waits until the API has ended.
    pub async fn ended(&mut self) {
        timeout(DEADLINE, &mut self.task).await.unwrap().unwrap();
    }

    /// A connection that stays.
    pub async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A call with the key of all scopes, on a connection of its own.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Got {
        self.call_as(KEY, method, path, &[], body).await
    }

    /// A call with headers; those of JSON and of the key are added if it has a body or a key.
    pub async fn call_as(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        self.call_with(key, method, path, headers, body.as_bytes()).await
    }

    /// The same, with any body.
    pub async fn call_with(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let mut request = Request::builder().method(method).uri(path).header("host", "hub");
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_vec())).unwrap();
        let mut connection = self.connect().await;
        got(timeout(DEADLINE, connection.send_request(request)).await.unwrap().unwrap()).await
    }

    /// Sends bytes, and returns all that comes until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }

    /// Waits until it has this many connections.
    pub async fn until_connections(&self, count: usize) {
        let wait = async {
            while self.api.places.count(Kind::Connection) != count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap();
    }

    /// A relay that is connected.
    pub fn relay(&self, name: &str) -> Relay {
        let challenge = [7; 16];
        let (id, _wakeup) = self.shared.connect(challenge);
        let relay = Relay { shared: Arc::clone(&self.shared), id };
        let nonce = [8; 16];
        let proof = uplink::relay_proof(SECRET, &challenge, &nonce);
        relay.send(&ToBusiness::Hello { version: uplink::VERSION, relay: name, nonce, proof });
        relay
    }
}

/// Waits until something is so.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap();
}

/// Reads until the server closes; a reset is an end too.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The whole of an answer.
pub async fn got(response: hyper::Response<hyper::body::Incoming>) -> Got {
    let (head, body) = response.into_parts();
    let body = timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes().to_vec();
    assert_eq!(head.headers["cache-control"], "no-store");
    let cors = |name: &&hyper::header::HeaderName| name.as_str().starts_with("access-control");
    assert_eq!(head.headers.keys().find(cors), None, "no page may read this");
    Got { status: head.status, headers: head.headers, body }
}

/// A relay.
pub struct Relay {
    shared: Arc<Shared>,
    pub id: business::RelayId,
}

impl Relay {
    pub fn send(&self, frame: &ToBusiness<'_>) {
        let mut bytes = [0; 1024];
        let size = uplink::encode(frame, &mut bytes).unwrap();
        assert!(self.shared.change(|hub, now| hub.received(now, self.id, &bytes[..size])));
    }

    pub fn subscribe(&self, request: u32, link: &str) {
        let page = uplink::PageInfo { address: "192.0.2.7", origin: "https://pages.example" };
        self.send(&ToBusiness::Subscribe { request, link, since: None, page });
    }

    /// What has come, as text.
    pub fn received(&self) -> Vec<String> {
        let mut frames = Vec::new();
        self.shared.take(self.id, usize::MAX, &mut frames);
        let bytes = frames.concat();
        let (mut rest, mut shown) = (&bytes[..], Vec::new());
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (body, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            shown.push(match uplink::decode_to_relay(body).unwrap() {
                ToRelay::Publish { track, part, data, .. } if track.is_media() => {
                    format!("{} {part:?} of {} bytes", track.name(), data.len())
                }
                ToRelay::Publish { track, sequence, data, .. } => {
                    format!("{} {sequence} {}", track.name(), String::from_utf8_lossy(data))
                }
                ToRelay::Accept { request, grant, .. } => format!("Accept {request} {}", grant.ttl_s),
                ToRelay::Deny { request, reason } => format!("Deny {request} {reason}"),
                ToRelay::End { reason, .. } => format!("End {reason}"),
                ToRelay::Revoke { link, reason } => format!("Revoke {link} {reason}"),
                ToRelay::Kick { page, reason } => format!("Kick {page} {reason}"),
                other => other.name().to_owned(),
            });
            rest = behind;
        }
        shown
    }
}
