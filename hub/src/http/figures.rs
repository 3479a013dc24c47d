//! `GET /metrics`: what Prometheus reads.
//!
//! Owns the counts of answers by status, and the gathering of all figures in one piece. The text is
//! `metrics.rs`'s. Refuses keys with a prefix, since figures are about all topics. Counts nothing
//! else: the machine counts for itself.

use std::sync::atomic::{AtomicU64, Ordering};

use hub::call::{Answer, Call};
use hyper::StatusCode;
use sharelinkd::daemon::proc;

use super::{answers, asked::Asked, body::Reply, places::Kind, problem::Problem};
use crate::metrics::{self, Figures};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The statuses that are counted each by itself, in their order. 0 stands for every other one.
const STATUSES: [u16; 24] = [
    0, 101, 200, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 426, 429, 500, 501, 503,
    507,
];

/// How many answers had which status.
#[derive(Default)]
pub struct Answered {
    counts: [AtomicU64; STATUSES.len()],
}

impl Answered {
    /// One more.
    pub fn count(&self, status: StatusCode) {
        let place = STATUSES.binary_search(&status.as_u16()).unwrap_or(0);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rows(&self) -> Vec<(u16, u64)> {
        STATUSES.iter().zip(&self.counts).map(|(code, count)| (*code, count.load(Ordering::Relaxed))).collect()
    }
}

/// `GET /metrics`.
pub async fn show(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    asked.caller.demand_all_topics()?;
    let api = asked.api;
    let fleet = match answers::call(&api.shared, Call::Fleet).await {
        Answer::Fleet(fleet) => fleet,
        other => return Err(answers::problem(other, "there is no fleet")),
    };
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let connections = (api.places.count(Kind::Connection), asked.limits.connections_max);
    let streams = (api.streams_max - api.streams.available_permits().min(api.streams_max), api.streams_max);
    let figures = api.shared.read(|hub, engine, now| {
        let limits = engine.limits();
        let tables = [
            ("connections", connections.0, connections.1),
            ("streams", streams.0, streams.1),
            ("engine_topics", engine.topic_count(), limits.topics_max),
            ("engine_bytes", engine.size(), limits.size_max),
        ];
        Figures {
            counters: *hub.counters(),
            serves: hub.serves(now),
            webhook_rests: hub.webhook_rests(),
            relays: wide(fleet.relays.len()),
            pages: fleet.relays.iter().map(|relay| relay.pages).sum(),
            topics: wide(fleet.topics),
            events_dropped: hub.notices_dropped(),
            answers: api.answered.rows(),
            tables: tables.map(|(name, used, limit)| (name, wide(used), wide(limit))).to_vec(),
            process: proc::process(),
            usage: proc::usage(),
        }
    });
    Ok(Reply::text(MEDIA_TYPE, metrics::render(&figures)))
}
