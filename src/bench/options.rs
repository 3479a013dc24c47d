//! What to measure, and how: the bench's settings and their defaults.
//!
//! Owns the names of the modes. Which of them go together is the command line's (`cli.rs`).

use std::net::SocketAddr;
use std::path::PathBuf;

use super::tls::Suites;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A fixed number of publications in flight, each replaced when it has reached every page.
    Flat,
    /// A fixed number of publications per second.
    Rate,
    /// Pages that are subscribed and receive nothing.
    Idle,
    /// Pages that connect as fast as they can.
    Arrivals,
    /// One page in a hundred reads nothing.
    Stalled,
    /// A stream of 1.2 Mbit/s to every page.
    Media,
    /// A fixed number of publications per second, while TLS handshakes are begun as fast as the
    /// relay takes them.
    Flood,
}

impl Mode {
    /// All modes with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("flat", Self::Flat),
        ("rate", Self::Rate),
        ("idle", Self::Idle),
        ("arrivals", Self::Arrivals),
        ("stalled", Self::Stalled),
        ("media", Self::Media),
        ("flood", Self::Flood),
    ];
}

/// What the runs alternate with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Nothing.
    Nothing,
    /// The minimum that any relay must do.
    Ceiling,
    /// The same relay without TLS.
    Plain,
    /// The same relay without the flood.
    Quiet,
}

/// What to measure, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to measure.
    pub mode: Mode,
    /// The number of pages.
    pub pages: usize,
    /// The number of publications in flight; of arrivals, connections.
    pub under_way: usize,
    /// The size of a publication's frame, in bytes.
    pub size: usize,
    /// The duration of a run, in seconds.
    pub seconds: u64,
    /// Publications per second.
    pub rate: u64,
    /// The number of runs, of which the median is reported.
    pub runs: usize,
    /// What to measure in turn with it.
    pub against: Against,
    /// Whether pages connect by TLS.
    pub tls: bool,
    /// Chain and key, PEM, that the relay serves with by TLS; `None` is a pair of this run's own.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// The suites that pages offer.
    pub suites: Suites,
    /// Whether pages resume a session, each by a ticket of its own.
    pub resumes: bool,
    /// Whether to report as JSON.
    pub json: bool,
    /// A running relay to measure, instead of starting one.
    pub attached: Option<Attached>,
}

/// A relay that the bench didn't start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where pages connect.
    pub relay: SocketAddr,
    /// Where the bench listens as the business server: one of the relay's `uplink.addresses`. The
    /// relay's secret must be empty.
    pub business: SocketAddr,
    /// The relay's process if it is on this machine, and those of a proxy in front of it.
    pub processes: Vec<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Flat,
            pages: 1_000,
            under_way: 1,
            size: 200,
            seconds: 5,
            rate: 100,
            runs: 1,
            against: Against::Nothing,
            tls: false,
            pair: None,
            suites: Suites::Both,
            resumes: false,
            json: false,
            attached: None,
        }
    }
}
