//! How a connection to the business server, or the attempt at one, ended, in words for the log.
//!
//! Owns the words. What follows from an end is the machine's, and whose end it was is said by who
//! logs it. Refuses nothing.

use std::io;

use super::dial::{NoTarget, Target};
use super::line::{Fault, Line};
use crate::config::UplinkAddress;
use relay::fault::PeerError;

/// Why a connection, or an attempt, ended.
pub enum Ending {
    NoTarget(NoTarget),
    Dial(io::Error),
    Io(io::Error),
    /// TLS can't begin, or can't go on.
    Tls(String),
    Closed,
    Fault(PeerError),
    /// Another entry answers, on this connection from this address: its rank, and the entry.
    Moves(Line, Target, usize, UplinkAddress),
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => Self::Io(error),
            Fault::Tls(why) => Self::Tls(why),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoTarget(NoTarget::Name(why)) => write!(f, "its name does not resolve: {why}"),
            Self::NoTarget(NoTarget::Interface(error)) => write!(f, "it can't be reached: {error}"),
            Self::Dial(error) if error.kind() == io::ErrorKind::TimedOut => f.write_str("it did not answer within 5 s"),
            Self::Dial(error) => write!(f, "it can't be reached: {error}"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Fault(fault) => write!(f, "the connection was ended: {fault}"),
            Self::Moves(_, _, _, next) => write!(f, "{next} answers"),
        }
    }
}
