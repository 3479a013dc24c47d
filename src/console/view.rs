//! The console's interface to the shell: what it reads, and what it requests.
//!
//! The shell builds a [`View`] for each call from the machine and from what only the shell knows:
//! addresses, the log's last lines, the process. A [`Request`] goes the other way, and prints as it
//! is typed. Neither stores or does anything.

use std::fmt;
use std::net::SocketAddr;

use log::LevelFilter;

use super::lines::Lines;
use crate::certificate::Served;
use crate::config::{Config, Pin};
use board::Board;
use relay::{Relay, session::Session, table::Id, time::Instant};

/// The process as the kernel sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Resident bytes; 0 if the kernel doesn't report it.
    pub resident_size: u64,
    /// The highest value so far.
    pub resident_size_highest: u64,
    /// Limit of open descriptors; 0 if unknown.
    pub descriptors_max: u64,
}

/// The uplink as only the shell knows it.
#[derive(Clone, Debug, Default)]
pub struct UplinkNotes {
    /// Entries of `uplink.addresses` whose name didn't resolve when it was last looked up, and why.
    pub unresolved: Vec<(String, String)>,
    /// TLS of the newest connection; none without TLS.
    pub tls: Option<TlsNotes>,
    /// Why the newest attempt, or the newest connection, ended.
    pub failure: Option<String>,
    /// The wall clock was never set.
    pub is_clock_unset: bool,
}

/// One connection's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsNotes {
    /// The cipher suite, once the handshake is done.
    pub suite: Option<&'static str>,
    /// The key of the relay's certificate, if it has one.
    pub own: Option<Pin>,
    /// The key that the business server showed, also if it is refused.
    pub shown: Option<Pin>,
}

/// TLS for pages as only the shell knows it.
#[derive(Clone, Copy, Debug)]
pub struct PagesTls<'a> {
    /// Where pages connect by TLS.
    pub listening: &'a [SocketAddr],
    /// The certificates in force, in the order of the configuration; at most
    /// [`board::CERTIFICATES_MAX`].
    pub certificates: &'a [Served],
    /// What happened since the start.
    pub counts: TlsCounts,
    /// The wall clock, in seconds since 1970; `None` if it was never set.
    pub now_s: Option<i64>,
    /// Whether signatures with other keys than on P-256 cost more than this processor can afford.
    pub is_slow: bool,
}

/// Counts of TLS for pages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCounts {
    /// Handshakes with a signature.
    pub full: u64,
    /// Handshakes by a ticket.
    pub resumed: u64,
    /// Handshakes that failed.
    pub failed: u64,
    /// Handshakes refused by the rate limit of their address.
    pub limited: u64,
    /// Places of half records in use now.
    pub half_records: usize,
    /// Connections cut because others needed the place of their half record.
    pub halves_cut: u64,
    /// Bytes of records that were sealed beyond those that sockets took.
    pub sealed_in_vain: u64,
    /// Times that certificates, or the lowest version, were replaced.
    pub reloads: u64,
    /// Times that the files of a certificate could not be used, and were reported.
    pub reloads_failed: u64,
}

/// What the console reads.
pub struct View<'a> {
    /// The machine.
    pub relay: &'a Relay,
    /// Time since the relay's start.
    pub now: Instant,
    /// The configuration in force.
    pub config: &'a Config,
    /// The board that this binary was built for.
    pub built: &'a Board,
    /// Where pages connect.
    pub listening: &'a [SocketAddr],
    /// The last lines of the log.
    pub lines: &'a Lines,
    /// The log level.
    pub log_level: LevelFilter,
    /// Log lines that could not be written.
    pub unwritten: u64,
    /// The uplink, besides the machine's own state.
    pub uplink: &'a UplinkNotes,
    /// Where the service manager listens for pages by TLS while it is off: nobody serves them.
    pub tls_unserved: &'a [SocketAddr],
    /// TLS for pages; none if it is off.
    pub tls: Option<PagesTls<'a>>,
    /// Asks the kernel about the process.
    pub process: &'a dyn Fn() -> Process,
}

/// A request of an engineer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Close this page; the id names the connection that was there at the time.
    Close(Id<Session>),
    /// End a topic for all its pages.
    End(u32),
    /// Drain and exit.
    Drain,
    /// Reload the configuration.
    Reload,
    /// Set the log level.
    LogLevel(LevelFilter),
}

impl fmt::Display for Request {
    /// As typed; a page has its generation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(page) => write!(f, "close {page}"),
            Self::End(number) => write!(f, "end {number}"),
            Self::Drain => f.write_str("drain"),
            Self::Reload => f.write_str("reload"),
            Self::LogLevel(level) => write!(f, "log {}", level.as_str().to_ascii_lowercase()),
        }
    }
}
