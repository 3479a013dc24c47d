//! Why the uplink's connection has to be closed, in the words of the log: the business server broke
//! the protocol or timed out.
//!
//! Owns the texts. Knows neither what led to a fault (`uplink.rs`, `liveness.rs`) nor what follows
//! from it: the connection is closed and dialled again (`uplink_connection.rs`).

use core::fmt;

use wire::uplink::{FrameError, VERSION};

/// Why the uplink's connection has to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// Bytes that don't decode as a frame.
    Frame(FrameError),
    /// A frame that is not allowed in this state.
    OutOfPlace {
        /// The frame's name.
        name: &'static str,
        /// What was expected instead.
        expected: &'static str,
    },
    /// Another version of the protocol.
    Version(u16),
    /// The proof is wrong: the secrets differ.
    Proof,
    /// No sign of life for too long, in the handshake or later.
    Silent {
        /// The limit, seconds.
        limit_s: u64,
    },
    /// Data was received, but no complete frame for too long, in the handshake or later.
    Slow {
        /// The limit, seconds.
        limit_s: u64,
    },
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "{error}"),
            Self::OutOfPlace { name, expected } => write!(f, "{name} came where {expected} was expected"),
            Self::Version(version) => write!(f, "it speaks protocol version {version}, this relay {VERSION}"),
            Self::Proof => f.write_str("its proof is wrong: is uplink.secret the same on both sides?"),
            Self::Silent { limit_s } => write!(f, "timed out: nothing received from it for {limit_s} s"),
            Self::Slow { limit_s } => {
                write!(f, "timed out: no complete frame received from it for {limit_s} s, only bytes")
            }
        }
    }
}
