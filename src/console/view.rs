//! What a console looks at, and what an engineer wants done: its two sides towards the shell.
//!
//! The shell puts a [`View`] together for each look, from the machine and from what only it knows: where it listens, the
//! log's last lines, the process. A [`Request`] goes the other way; it prints as it is typed. Neither holds anything
//! between two looks, and neither does anything.

use std::fmt;
use std::net::SocketAddr;

use log::LevelFilter;

use super::lines::Lines;
use crate::config::Config;
use board::Board;
use relay::{Relay, session::Session, table::Id, time::Instant};

/// What the process is to the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Bytes resident; 0 where the kernel doesn't say.
    pub resident_size: u64,
    /// The most that were.
    pub resident_size_highest: u64,
    /// Descriptors that it may open; 0 where that is not known.
    pub descriptors_max: u64,
}

/// What the console looks at.
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
    /// The log's level.
    pub log_level: LevelFilter,
    /// Lines of the log that were not written.
    pub unwritten: u64,
    /// Asks the kernel about the process.
    pub process: &'a dyn Fn() -> Process,
}

/// What an engineer wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Close this page, which was there when it was asked for.
    Close(Id<Session>),
    /// End a topic for all its pages.
    End(u32),
    /// Send every page away and end.
    Drain,
    /// Read the configuration again.
    Reload,
    /// Log these lines from now on.
    LogLevel(LevelFilter),
}

impl fmt::Display for Request {
    /// As it is typed; a page with its generation.
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
