//! The HTTP API: its listener, its routes, its answers.
//!
//! Owns the settings of the API and the accepting of connections. A connection is served by
//! `connection.rs`, a request by `routes.rs` and the file of its group of routes; each ends in one
//! call of the machine. Everything is bounded: connections and requests by `places.rs`, heads and
//! pauses by `connection.rs`, bodies by `body.rs`. Knows nothing of engines or relays.

mod answers;
mod apps;
mod asked;
mod auth;
mod batch;
mod body;
mod connection;
mod figures;
mod fleet;
mod links;
mod media;
mod messages;
mod places;
mod problem;
mod pusher;
mod routes;
mod socket;
mod state;
mod studio;
mod target;
mod tokens;
mod topics;
mod watched;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use sharelinkd::config::Network;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use self::places::Places;
pub use self::{body::BODIES_SIZE_MAX, connection::converse, links::LINK_TTL_S_MAX, pusher::App, tokens::new_studio};
use crate::shared::Shared;

/// The wait after an `accept` that failed: file descriptors are short.
const REST: Duration = Duration::from_millis(100);

/// Answers about all relays that have room at once: half of them are one caller's.
const FLEETS_MAX: usize = 4;

/// The settings of the API; replaced as a whole by a reload.
pub struct Settings {
    /// Who may call.
    pub keys: Vec<ApiKey>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// The public URL of the share pages, without a trailing slash: `POST /v1/links` returns
    /// `<url>/s/<link>`.
    pub pages_url: Option<String>,
    /// The time to live of a new link where the caller says none, in seconds.
    pub link_ttl_s: u32,
    /// The app of Pusher's server libraries; `None` is off.
    pub pusher: Option<App>,
    /// The limits.
    pub limits: Limits,
}

/// A key of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// For logs.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// It is for topics below this prefix; empty: for all.
    pub below: String,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Publish messages and states, take messages down, make links.
    pub publish: bool,
    /// Read topics and the fleet.
    pub read: bool,
    /// End and open topics, revoke, kick.
    pub admin: bool,
    /// Send picture and sound, and make tokens for that.
    pub ingest: bool,
}

/// The limits of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections, over all addresses. A connection has one request under way.
    pub connections_max: usize,
    /// Connections from one address (IPv6: one /64). Those of a trusted proxy don't count; its
    /// clients' requests under way do, by their addresses.
    pub connections_per_address_max: usize,
    /// A message's or a state's JSON, in bytes.
    pub json_size_max: usize,
    /// The body of a batch, in bytes.
    pub batch_size_max: usize,
    /// A chunk of picture, in bytes.
    pub chunk_size_max: usize,
    /// A group of pictures, in bytes.
    pub group_size_max: usize,
    /// The size of the largest answer and of what it is made of, in bytes. An answer is begun once
    /// there is room for this.
    pub answer_size_max: usize,
    /// The same for an answer about all relays, in bytes. These have room of their own, whose size
    /// does not change after the start.
    pub fleet_size_max: usize,
    /// An answer waits this long for its room.
    pub room_time: Duration,
}

impl Limits {
    /// The room of all answers about all relays, in bytes.
    pub const fn fleets_size_max(&self) -> usize {
        // Each takes up to a KiB more.
        self.fleet_size_max.saturating_add(1024).saturating_mul(FLEETS_MAX)
    }
}

/// What all connections share, those of all listeners.
pub struct Api {
    shared: Arc<Shared>,
    settings: watch::Receiver<Arc<Settings>>,
    places: Arc<Places>,
    /// Room for bodies, and for answers.
    bodies: body::Bodies,
    answers: body::Bodies,
    /// And for answers about all relays.
    fleets: body::Bodies,
    /// Places of streams of media, and how many there are in all.
    streams: Arc<Semaphore>,
    streams_max: usize,
    own_streams: media::Own,
    answered: figures::Answered,
}

impl Api {
    /// An API without connections.
    pub fn new(shared: Arc<Shared>, settings: watch::Receiver<Arc<Settings>>, streams_max: usize) -> Arc<Self> {
        let streams = Arc::new(Semaphore::new(streams_max));
        let [bodies, answers] = [(); 2].map(|()| body::Bodies::new());
        let fleets = body::Bodies::apart(settings.borrow().limits.fleets_size_max());
        let (places, answered) = (Arc::default(), figures::Answered::default());
        Arc::new(Self {
            shared,
            settings,
            places,
            bodies,
            answers,
            fleets,
            streams,
            streams_max,
            own_streams: media::Own::default(),
            answered,
        })
    }

    /// The settings as they are now.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Waits until the API is to end: the sender of the settings is gone.
    async fn ended(&self) {
        let mut settings = self.settings.clone();
        while settings.changed().await.is_ok() {}
    }
}

/// Serves the API on one listener, until the sender of the settings is dropped: then it accepts no
/// more, lets requests under way finish, and ends. New settings and certificates hold from the next
/// request and the next connection on. Dropped itself, it cuts off all its connections.
pub async fn serve(api: Arc<Api>, listener: TcpListener, tls: watch::Receiver<Option<TlsAcceptor>>) {
    let mut connections = JoinSet::new();
    let ended = api.ended();
    tokio::pin!(ended);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut ended => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let tls = tls.borrow().clone();
                if let Some(place) = connection::admit(&api, &stream, peer.ip(), tls.is_some()) {
                    connections.spawn(connection::attend(Arc::clone(&api), stream, peer.ip(), tls, place));
                }
            }
            Err(error) => {
                log::warn!("a connection of the API could not be accepted: {error}");
                sleep(REST).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;

/// Answers a request: one of Pusher's API, of the studio, or of the hub's own API.
async fn answer(api: &Api, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let response = if apps::is_here(request.uri().path()) {
        apps::answer(api, peer, request).await
    } else if studio::is_here(request.uri().path()) {
        studio::answer(api, peer, &request)
    } else {
        routes::answer(api, peer, request).await
    };
    api.answered.count(response.status());
    response
}
