//! A hub with its webhook, and relays played by the test, without sockets.
//!
//! Owns the tasks of the webhook and of the clock: they end with it. A relay speaks the uplink by
//! hand. Whoever waits here waits with a deadline that only a broken hub reaches.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use business::RelayId;
use hub::{
    FleetKey, Hub,
    admission::{self, Links},
    memory::Limits,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use wire::{
    page::MessageId,
    uplink::{Author, Deframer, Incoming, PageInfo, ToBusiness, ToRelay, VERSION, author, encode, marked, relay_proof},
};

use super::server::PATIENCE;
use crate::{
    revocations::{Revocations, Row},
    shared::Shared,
    webhook::{Settings, serve},
};

const SECRET: &[u8] = b"a relay's secret";

/// The hub.
pub struct World {
    pub shared: Arc<Shared>,
    pub settings: watch::Sender<Option<Arc<Settings>>>,
    pub webhook: JoinHandle<()>,
    clock: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.webhook.abort();
        self.clock.abort();
    }
}

/// Settings of a webhook.
pub fn webhook(url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        secrets: vec![b"a key that signs, 32 bytes long.".to_vec()],
        roots: Arc::new(rustls::RootCertStore::empty()),
        timeout: Duration::from_secs(20),
        events: true,
    }
}

impl World {
    /// A hub with this webhook, and with changed settings of the machine.
    pub fn with(webhook: Settings, change: impl FnOnce(&mut hub::Settings)) -> Self {
        Self::with_revocations(webhook, change, None)
    }

    /// The same, with revocations on disk.
    pub fn with_revocations(
        webhook: Settings,
        change: impl FnOnce(&mut hub::Settings),
        kept: Option<(Revocations, Vec<Row>)>,
    ) -> Self {
        let mut settings = hub::Settings {
            business: business::Settings {
                secrets: vec![SECRET.to_vec()],
                limits: business::Limits { receipts_max: 1000, ..business::Limits::default() },
                ..business::Settings::default()
            },
            owners: vec![None],
            fleet_key: FleetKey::new(b"fleet".to_vec()),
            admission: admission::Settings { links: Links::Webhook, ..admission::Settings::default() },
            limits: hub::settings::Limits::default(),
            times: hub::settings::Times::default(),
        };
        change(&mut settings);
        let (shared, outgoing) = Shared::new(settings, Limits::default(), kept);
        let (sender, receiver) = watch::channel(Some(Arc::new(webhook)));
        let webhook = tokio::spawn(serve(Arc::clone(&shared), receiver, outgoing));
        let timed = Arc::clone(&shared);
        let clock = tokio::spawn(async move { timed.keep_time().await });
        Self { shared, settings: sender, webhook, clock }
    }

    pub fn read<R>(&self, read: impl Fn(&Hub) -> R) -> R {
        self.shared.read(|hub, _, _| read(hub))
    }

    /// Calls that were made, and those of them without an answer.
    pub fn calls(&self) -> (u64, u64) {
        self.read(|hub| (hub.counters().subscribes, hub.counters().subscribes_failed))
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Hub) -> bool) {
        let start = beginning();
        while !self.read(&holds) {
            assert!(start.elapsed() < PATIENCE, "it never came: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline of a test")]
fn beginning() -> Instant {
    Instant::now()
}

/// A relay.
pub struct Relay {
    shared: Arc<Shared>,
    pub id: RelayId,
    wakeup: Arc<Notify>,
    deframer: Deframer,
}

impl Relay {
    pub fn join(world: &World, name: &str) -> Self {
        Self::join_by(world, name, ([3; 16], [7; 16]))
    }

    /// A relay that gets receipts.
    pub fn join_with_receipts(world: &World, name: &str) -> Self {
        let mut relay = Self::join_by(world, name, (marked([3; 12]), marked([7; 12])));
        relay.send(&ToBusiness::Features { words: "receipts" });
        relay.read();
        relay
    }

    fn join_by(world: &World, name: &str, (challenge, nonce): ([u8; 16], [u8; 16])) -> Self {
        let (id, wakeup) = world.shared.connect(challenge);
        let deframer = Deframer::new(1 << 20).with_extensions();
        let mut relay = Self { shared: Arc::clone(&world.shared), id, wakeup, deframer };
        let proof = relay_proof(SECRET, &challenge, &nonce);
        relay.send(&ToBusiness::Hello { version: VERSION, relay: name, nonce, proof });
        relay.read();
        relay
    }

    pub fn send(&self, frame: &ToBusiness<'_>) {
        let mut bytes = [0; 2048];
        let size = encode(frame, &mut bytes).unwrap();
        assert!(self.shared.change(|hub, now| hub.received(now, self.id, &bytes[..size])));
    }

    /// Asks for a link; for one page if an address is given.
    pub fn ask(&self, request: u32, link: &str, address: &str) {
        let origin = if address.is_empty() { "" } else { "https://app.example" };
        self.send(&ToBusiness::Subscribe { request, link, since: None, page: PageInfo { address, origin } });
    }

    pub fn page_message(&self, topic: u32, page: u32, data: &str) {
        self.send(&ToBusiness::PageMessage { topic, page, data });
    }

    /// A page's message that has an id.
    pub fn message(&self, topic: u32, page: u32, id: MessageId) {
        self.send(&ToBusiness::Send { topic, page, id, data: "hello" });
    }

    /// A page of a relay that gets receipts, as an author.
    pub fn author(page: u32) -> Author {
        author(&marked([3; 12]), &marked([7; 12]), page)
    }

    /// What it was sent.
    pub fn read(&mut self) -> Vec<Said> {
        let mut frames = Vec::new();
        assert!(self.shared.take(self.id, usize::MAX, &mut frames));
        let mut said = Vec::new();
        for frame in frames {
            self.deframer.space()[..frame.len()].copy_from_slice(&frame);
            self.deframer.filled(frame.len());
            while let Some(incoming) = self.deframer.next_frame().unwrap() {
                said.extend(Said::of(incoming));
            }
        }
        said
    }

    /// What it is sent, once it is something.
    pub async fn reads(&mut self) -> Vec<Said> {
        let mut said = self.read();
        while said.is_empty() {
            timeout(PATIENCE, self.wakeup.notified()).await.expect("the relay got nothing");
            said = self.read();
        }
        said
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Of the request; topic and time to live.
    Accept(u32, u32, u32),
    Deny(u32, String),
    /// The page, and the message's id.
    Sent(u32, MessageId),
}

impl Said {
    fn of(incoming: Incoming<'_>) -> Option<Self> {
        match incoming {
            Incoming::Frame(ToRelay::Accept { request, topic, grant, .. }) => {
                Some(Self::Accept(request, topic, grant.ttl_s))
            }
            Incoming::Frame(ToRelay::Deny { request, reason }) => Some(Self::Deny(request, reason.to_owned())),
            Incoming::Frame(ToRelay::Sent { page, id }) => Some(Self::Sent(page, id)),
            _ => None,
        }
    }
}
