//! What this hub is connected to, and whether it works.
//!
//! Owns two answers: `GET /v1/fleet`, for operators with a key, and `GET /healthz`, for load
//! balancers without one. The latter says nothing but yes or no, and takes no time. A key with a
//! prefix doesn't see the fleet, which serves the topics of all keys.

use hub::call::{Answer, Call};
use serde::Serialize;

use super::{
    Api,
    answers::{self, problem},
    asked::Asked,
    body::Reply,
    problem::Problem,
};

#[derive(Serialize)]
struct Fleet {
    relays: Vec<Relay>,
    /// Topics that relays hold.
    topics: usize,
    engine: Engine,
}

#[derive(Serialize)]
struct Relay {
    name: String,
    connection: u64,
    up_s: u64,
    pages: u64,
    topics: usize,
}

#[derive(Serialize)]
struct Engine {
    kind: &'static str,
    up: bool,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /v1/fleet`.
pub async fn show(asked: &mut Asked<'_>) -> Result<Reply, Problem> {
    let [] = asked.parameters([])?;
    asked.caller.demand_all_topics()?;
    match answers::call(&asked.api.shared, Call::Fleet).await {
        Answer::Fleet(view) => {
            let relays = view.relays.into_iter().map(|relay| Relay {
                name: relay.name,
                connection: relay.connection,
                up_s: relay.up_s,
                pages: relay.pages,
                topics: relay.topics,
            });
            let engine = Engine { kind: "memory", up: view.engine_up };
            Reply::json(&Fleet { relays: relays.collect(), topics: view.topics, engine })
        }
        other => Err(problem(other, "there is no fleet")),
    }
}

/// `GET /healthz`.
pub fn health(api: &Api) -> Result<Reply, Problem> {
    if api.shared.read(|hub, _, now| hub.serves(now)) {
        Reply::json(&Health { status: "ok" })
    } else {
        Err(Problem::unavailable("engine_unavailable", "the engine does not answer"))
    }
}
