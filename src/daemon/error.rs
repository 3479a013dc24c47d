//! What prevents the daemon's start, in words for an operator: what failed, where, and the remedy.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the daemon could not start.
#[derive(Debug)]
pub enum DaemonError {
    /// An address can't be listened on.
    Listen(SocketAddr, io::Error),
    /// The service manager passed a socket of this name that is not usable.
    Inherited(String, String),
    /// A socket passed by the service manager is broken.
    Passed(io::Error),
    /// The console's socket can't be listened on.
    Console(PathBuf, io::Error),
    /// The metrics' address can't be listened on.
    Metrics(SocketAddr, io::Error),
    /// The system provides no random bytes.
    Random(getrandom::Error),
    /// Signal handlers can't be installed.
    Signals(io::Error),
    /// A certificate can't be used.
    Tls(String),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "can't listen on {address}: the address is in use by another program; change pages.listen or tls.listen, or stop it"
                )
            }
            Self::Listen(address, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "can't listen on {address}: permission denied; a port below 1024 needs root, CAP_NET_BIND_SERVICE, or under systemd a socket (sharelinkd.socket, sharelinkd-tls.socket)"
                )
            }
            Self::Listen(address, error) => {
                write!(f, "can't listen on {address}: {error}; check pages.listen and tls.listen")
            }
            Self::Inherited(name, why) => {
                write!(
                    f,
                    "the socket {name:?} passed by the service manager {why}; check sharelinkd.socket and sharelinkd-tls.socket"
                )
            }
            Self::Passed(error) => write!(f, "a socket passed by the service manager is broken: {error}"),
            Self::Console(path, error) => {
                write!(f, "the console can't listen on {}: {error}; check console.socket", path.display())
            }
            Self::Metrics(address, error) => {
                write!(f, "the metrics can't be served at {address}: {error}; check metrics.listen")
            }
            Self::Random(error) => write!(f, "can't get random bytes from the system: {error}"),
            Self::Signals(error) => write!(f, "can't install signal handlers: {error}"),
            Self::Tls(why) => write!(f, "can't serve pages by TLS: {why}"),
        }
    }
}
