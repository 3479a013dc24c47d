//! The settings of a hub.

use core::time::Duration;

use super::{admission, name::FleetKey};

/// The settings. Printed, they show no secrets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Secrets, limits and timeouts of the relays' side.
    pub business: business::Settings,
    /// For each secret, the relay that has it; `None` if any relay may.
    pub owners: Vec<Option<String>>,
    /// The key from which topics get their numbers.
    pub fleet_key: FleetKey,
    /// Who may watch.
    pub admission: admission::Settings,
    /// What else is limited.
    pub limits: Limits,
    /// The times.
    pub times: Times,
}

/// The limits of a hub besides those of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls of the API that wait for the engine; more are refused as too many.
    pub calls_max: usize,
    /// Requests of relays that wait for topics to be loaded; more stay unanswered.
    pub waiting_max: usize,
    /// Entries of one read.
    pub read_max: usize,
    /// The rings for relays, all topics together, in bytes.
    pub rings_size_max: usize,
    /// Notices that wait to be sent; more are dropped, page messages first.
    pub notices_max: usize,
}

/// The times of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A topic that no relay holds is followed for this time.
    pub linger: Duration,
    /// A topic that is followed is asked for as a whole at this interval, so that it does not
    /// expire.
    pub refresh: Duration,
    /// Without an answer of the engine for this time, the relays are sent away.
    pub engine_lost: Duration,
    /// Audiences are told at this interval at most.
    pub audience: Duration,
    /// A topic without pages is told to be vacated after this time: relays come back within it.
    pub vacated: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls_max: 4096, waiting_max: 16_384, read_max: 64, rings_size_max: 256 << 20, notices_max: 16_384 }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(60),
            refresh: Duration::from_secs(600),
            engine_lost: Duration::from_secs(10),
            audience: Duration::from_secs(5),
            vacated: Duration::from_secs(10),
        }
    }
}
