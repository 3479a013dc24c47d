//! The webhook: questions to the company's API (`subscribe.rs`), and what it is told (`events.rs`).
//!
//! Owns the settings that a reload replaces, and the signed call itself. Refuses to call where the
//! settings are wrong: questions then have no answer, and notices are dropped. Decides nothing
//! about links: the machine asks, remembers, retries and rests.

mod client;
mod complaints;
mod events;
mod sign;
mod subscribe;
#[cfg(test)]
mod tests;
mod url;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::body::Bytes;
use rustls::RootCertStore;
use tokio::sync::watch;

use self::{
    client::{Answer, Client, Failure},
    complaints::Complaints,
};
use crate::shared::{Outgoing, Shared};

pub use self::{
    client::{BODY_SIZE_MAX, KEPT_MAX},
    events::COUNT_MAX as BATCH_COUNT_MAX,
    sign::secret,
    url::Url,
};

/// The settings of the webhook; replaced as a whole by a reload.
#[derive(Clone)]
pub struct Settings {
    /// `http://` or `https://`, with host, port and path: see [`Url::parse`].
    pub url: String,
    /// The keys that sign (Standard Webhooks), decoded by [`secret`]: one signature for each. At
    /// least one.
    pub secrets: Vec<Vec<u8>>,
    /// The roots for `https`.
    pub roots: Arc<RootCertStore>,
    /// A call has this time, from the dial to the last byte of the answer.
    pub timeout: Duration,
    /// Whether events are sent, or `subscribe` alone.
    pub events: bool,
}

/// Printed, they show neither the secrets nor the URL, which may hold one.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secrets, timeout, events, .. } = self;
        let mut settings = f.debug_struct("Settings");
        settings.field("secrets", &secrets.len()).field("timeout", timeout).field("events", events).finish()
    }
}

/// Calls the webhook, for ever. Without settings, questions have no answer and notices are dropped.
pub async fn serve(shared: Arc<Shared>, settings: watch::Receiver<Option<Arc<Settings>>>, outgoing: Outgoing) {
    let Outgoing { questions, notices } = outgoing;
    let (ids, complaints) = (Ids::new(), Complaints::default());
    let hook = Arc::new(Hook { shared, ids, complaints });
    let endpoints = Endpoints { settings, made: Arc::default() };
    tokio::join!(
        subscribe::serve(Arc::clone(&hook), endpoints.clone(), questions),
        events::serve(Arc::clone(&hook), endpoints, notices),
    );
}

/// What all calls share.
struct Hook {
    shared: Arc<Shared>,
    ids: Ids,
    complaints: Complaints,
}

impl Hook {
    fn complain(&self, what: &str, example: &str) {
        self.complaints.say(self.shared.moment().at, what, example);
    }

    /// Signs and sends a body.
    async fn post(&self, endpoint: &Endpoint, id: &str, body: Bytes) -> Result<Answer, Failure> {
        let now = self.shared.moment();
        let timestamp = (now.unix_us / 1_000_000).to_string();
        let signatures = sign::signatures(&endpoint.settings.secrets, id, &timestamp, &body);
        let headers = [("webhook-id", id), ("webhook-timestamp", &*timestamp), ("webhook-signature", &*signatures)];
        endpoint.client.post(now.at, &headers, body).await
    }
}

/// The endpoint of the settings as they are when it is asked for.
#[derive(Clone)]
struct Endpoints {
    settings: watch::Receiver<Option<Arc<Settings>>>,
    made: Arc<Mutex<Option<Made>>>,
}

/// Settings, and the endpoint of them, unless they can't be used.
type Made = (Arc<Settings>, Option<Arc<Endpoint>>);

impl Endpoints {
    fn current(&mut self) -> Option<Arc<Endpoint>> {
        let settings = self.settings.borrow_and_update().clone();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = made.as_ref().map(|(of, _)| Arc::as_ptr(of)) == settings.as_ref().map(Arc::as_ptr);
        if !is_same {
            *made = settings.map(|settings| (Arc::clone(&settings), Endpoint::new(settings)));
        }
        made.as_ref().and_then(|(_, endpoint)| endpoint.clone())
    }

    /// Waits for other settings; for ever if there will be none.
    async fn changed(&mut self) {
        if self.settings.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Where the webhook is, by the settings of now.
struct Endpoint {
    settings: Arc<Settings>,
    client: Client,
}

impl Endpoint {
    fn new(settings: Arc<Settings>) -> Option<Arc<Self>> {
        let url = Url::parse(&settings.url).map_err(str::to_owned);
        let client = url.and_then(|url| Client::new(url, &settings.roots, settings.timeout));
        match client {
            Ok(client) => Some(Arc::new(Self { settings, client })),
            Err(why) => {
                log::error!("webhook: it is not called: {why}");
                None
            }
        }
    }
}

/// Ids that no other process gives, nor this one twice.
struct Ids {
    prefix: String,
    next: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        let mut random = [0; 8];
        if let Err(error) = getrandom::fill(&mut random) {
            log::error!("can't get random bytes, so the ids of webhooks may repeat: {error}");
        }
        Self { prefix: random.iter().map(|byte| format!("{byte:02x}")).collect(), next: AtomicU64::new(1) }
    }

    fn next(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
