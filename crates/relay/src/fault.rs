//! Why the uplink's connection must end, as the log says it: what the business server sent that is not allowed, or that it
//! sent nothing.

use core::fmt;

use wire::uplink::{FrameError, VERSION};

/// Why the uplink's connection must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// Bytes that are no frame.
    Frame(FrameError),
    /// A frame where it doesn't belong.
    OutOfPlace {
        /// The frame.
        name: &'static str,
        /// Where the connection stands.
        expected: &'static str,
    },
    /// Another version of the protocol.
    Version(u16),
    /// The proof is wrong: another secret.
    Proof,
    /// Nothing came for too long: 10 s in the handshake, 30 s later.
    Silent,
    /// Bytes came, but no whole frame for too long: 20 s for the handshake, 5 min later.
    Slow,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "{error}"),
            Self::OutOfPlace { name, expected } => write!(f, "{name} came where {expected} was expected"),
            Self::Version(version) => write!(f, "it speaks version {version} of the protocol, this relay {VERSION}"),
            Self::Proof => f.write_str("its proof is wrong: is uplink.secret the same on both sides?"),
            Self::Silent => f.write_str("nothing came from it for too long (10 s in the handshake, 30 s later)"),
            Self::Slow => f.write_str(
                "no whole frame came from it for too long (20 s for the handshake, 300 s later), only bytes",
            ),
        }
    }
}
