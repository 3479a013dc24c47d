//! Speaking to the service manager: datagrams to the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).
//!
//! Owns what is said when: ready, reloading, stopping, alive, and one line about the relay (`STATUS=`), which is kept
//! current at a bounded rate and only where it changed. What must arrive waits here, bounded, where the socket takes nothing;
//! what will be said again is left out. Never blocks and is never a reason to fail. When the relay is alive is
//! `watchdog.rs`'s, and what the line says is `console/brief.rs`'s.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use smol::Timer;

use super::{Daemon, clock};
use crate::console;

/// How often the line about the relay may change.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// What the end takes besides the drain.
const STOP_SPARE: Duration = Duration::from_secs(5);
/// Messages that wait at most: the oldest says the least by then.
const OWED_MAX: usize = 8;

/// The way to the service manager; nobody is there where nothing was named.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    owed: RefCell<VecDeque<String>>,
}

impl Notify {
    /// As the environment of this process says.
    pub fn from_environment() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return Self::default() };
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_meant = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| *us > 0 && is_meant).map(Duration::from_micros);
        match Self::to(&path, watchdog) {
            Ok(notify) => notify,
            Err(error) => {
                log::warn!("the service manager can't be told anything: {error}");
                Self::default()
            }
        }
    }

    /// To the socket of this name, which wants to hear within the time of `watchdog`.
    pub fn to(path: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some((socket, address(path)?)), watchdog, owed: RefCell::default() })
    }

    /// Whether a service manager wants to be told.
    pub const fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    /// It wants a sign of life at least so often.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The relay serves, or serves on after it read its configuration again.
    pub fn ready(&self, status: &str) {
        self.tell(format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its configuration; [`ready`](Self::ready) follows. `Type=notify-reload` wants to know when that was.
    pub fn reloading(&self) {
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_us()));
    }

    /// It goes away, and may take so long: the unit's own limit (`TimeoutStopSec=`) doesn't know the configuration.
    pub fn stopping(&self, within: Duration) {
        self.tell(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (within + STOP_SPARE).as_micros()));
    }

    /// The relay is alive; whether that was heard.
    pub fn alive(&self) -> bool {
        self.hint("WATCHDOG=1")
    }

    /// Says what must arrive: at once, or when the socket takes it.
    fn tell(&self, state: String) {
        if self.to.is_none() {
            return;
        }
        let mut owed = self.owed.borrow_mut();
        if owed.len() >= OWED_MAX {
            owed.pop_front();
        }
        owed.push_back(state);
        drop(owed);
        self.flush();
    }

    /// Says what will be said again; whether it arrived.
    fn hint(&self, state: &str) -> bool {
        self.flush();
        self.owed.borrow().is_empty() && self.send(state).is_ok()
    }

    /// Says what waits, in its order.
    fn flush(&self) {
        let mut owed = self.owed.borrow_mut();
        while let Some(state) = owed.front() {
            match self.send(state) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => log::warn!("the service manager can't be told {state:?}: {error}"),
                Ok(()) => {}
            }
            owed.pop_front();
        }
    }

    fn send(&self, state: &str) -> io::Result<()> {
        let Some((socket, address)) = &self.to else { return Ok(()) };
        socket.send_to_addr(state.as_bytes(), address).map(drop)
    }
}

/// Keeps the line about the relay current, for as long as the daemon runs.
pub async fn keep_status(daemon: Rc<Daemon>) {
    let mut told = String::new();
    loop {
        Timer::after(STATUS_EVERY).await;
        let line = daemon.look(console::brief);
        // What waits from before goes out even where this line is no news.
        daemon.notify.flush();
        if line != told && daemon.notify.hint(&format!("STATUS={line}")) {
            told = line;
        }
    }
}

/// A path, or with a leading `@` an abstract name.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    }
}
