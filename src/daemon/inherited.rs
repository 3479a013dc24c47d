//! Sockets that the service manager passes on (`sd_listen_fds(3)`), so that a restart refuses no
//! connection.
//!
//! Owns the assignment by name: `console` is the console's, `tls` a listener for pages with TLS,
//! every other known name one for pages without. Refuses a socket of the wrong kind, one that is
//! not listening, and unknown names: a wrong unit file is an error, not a guess. The crate
//! `listenfd` turns numbers into descriptors and clears the environment. `listen.rs` sets the
//! sockets' options.

use std::env;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::SockRef;

use super::DaemonError;

/// Sockets passed, at most: sixteen addresses for pages, with or without TLS, and the console's.
/// More is a mistake.
const PASSED_MAX: usize = board::LISTENERS_MAX + 1;
/// Name of the pages' sockets in the unit (`FileDescriptorName=`).
const PAGES: &str = "http";
/// Name of the sockets for pages with TLS.
const TLS: &str = "tls";
/// The unit of these sockets, whose name systemd passes without `FileDescriptorName=`.
const TLS_UNIT: &str = "sharelinkd-tls.socket";
/// Name of the console's socket.
const CONSOLE: &str = "console";

/// The inherited sockets.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The pages' listeners; empty if the configuration names the addresses.
    pub pages: Vec<TcpListener>,
    /// The listeners for pages with TLS; empty if the configuration names the addresses.
    pub tls: Vec<TcpListener>,
    /// The console's listener.
    pub console: Option<UnixListener>,
}

impl Inherited {
    /// Takes every socket passed to this process; none without a service manager. Must run before
    /// any thread starts, since it changes the environment.
    ///
    /// # Errors
    /// A socket that the relay can't serve on.
    pub fn take() -> Result<Self, DaemonError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
        if count > PASSED_MAX {
            return Err(refused(PAGES, &format!("is one of {count}; at most {PASSED_MAX} are accepted")));
        }
        Self::named(ListenFd::from_env(), &names)
    }

    fn named(mut passed: ListenFd, names: &str) -> Result<Self, DaemonError> {
        let mut inherited = Self::default();
        let mut names = names.split(':');
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            if name == CONSOLE {
                let socket = passed.take_unix_listener(index);
                inherited.console = Some(listening(name, socket, "not a Unix stream socket")?);
            } else if matches!(name, TLS | TLS_UNIT) {
                let socket = passed.take_tcp_listener(index);
                inherited.tls.push(listening(name, socket, "not a TCP socket")?);
            } else if is_of_pages(name) {
                let socket = passed.take_tcp_listener(index);
                inherited.pages.push(listening(name, socket, "not a TCP socket")?);
            } else {
                let what = format!("has an unknown name: FileDescriptorName= must be {PAGES}, {TLS} or {CONSOLE}");
                return Err(refused(name, &what));
            }
        }
        Ok(inherited)
    }
}

/// By its name or by none: without `FileDescriptorName=` systemd passes the unit's name, or
/// `unknown`.
fn is_of_pages(name: &str) -> bool {
    matches!(name, PAGES | "" | "unknown") || name.ends_with(".socket")
}

fn listening<T>(name: &str, socket: std::io::Result<Option<T>>, otherwise: &str) -> Result<T, DaemonError>
where
    for<'a> SockRef<'a>: From<&'a T>,
{
    let Ok(Some(socket)) = socket else { return Err(refused(name, &format!("is {otherwise}"))) };
    match SockRef::from(&socket).is_listener() {
        Ok(true) => Ok(socket),
        _ => Err(refused(name, "is not listening: Accept=no is needed")),
    }
}

fn refused(name: &str, why: &str) -> DaemonError {
    DaemonError::Inherited(name.to_owned(), why.to_owned())
}
