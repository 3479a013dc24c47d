//! Sockets that the service manager holds and passes on (`sd_listen_fds(3)`), so that a restart refuses nobody.
//!
//! Owns which of them is what: `console` by its name, every other that is known is where pages connect. Refuses what is no
//! listening socket of the right kind, and names that nobody here knows: a unit that is wrong is told, not guessed at. Turning a
//! bare number into a descriptor, and taking the variables out of the environment, is the crate `listenfd`'s. Which
//! options the sockets get is `listen.rs`'s.

use std::env;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::SockRef;

use super::DaemonError;

/// More sockets are not passed on by mistake: sixteen addresses for pages, and the console's.
const PASSED_MAX: usize = 17;
/// The name of the pages' sockets in the unit (`FileDescriptorName=`).
const PAGES: &str = "http";
/// The name of the console's.
const CONSOLE: &str = "console";

/// What was passed on.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Where pages connect; none where the configuration says that.
    pub pages: Vec<TcpListener>,
    /// Where engineers connect.
    pub console: Option<UnixListener>,
}

impl Inherited {
    /// Takes everything that was passed to this process; nothing where there is no service manager. Only before any thread is
    /// started: it changes the environment.
    ///
    /// # Errors
    /// What was passed on is not what the relay can serve on.
    pub fn take() -> Result<Self, DaemonError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
        if count > PASSED_MAX {
            return Err(refused(PAGES, &format!("is one of {count}: at most {PASSED_MAX} are taken")));
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
                inherited.console = Some(listening(name, socket, "no Unix stream socket")?);
            } else if is_of_pages(name) {
                let socket = passed.take_tcp_listener(index);
                inherited.pages.push(listening(name, socket, "no TCP socket")?);
            } else {
                let what = format!("has a name that nobody knows: FileDescriptorName= is {PAGES} or {CONSOLE}");
                return Err(refused(name, &what));
            }
        }
        Ok(inherited)
    }
}

/// By its name, or by none: then systemd takes the unit's, or says that it knows none.
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
