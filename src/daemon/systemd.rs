//! Notifications to the service manager: datagrams to the socket in `NOTIFY_SOCKET`
//! (`sd_notify(3)`).
//!
//! Owns when they are sent: ready, reloading, stopping, alive, and one status line (`STATUS=`),
//! which is updated at a limited rate and only if it changed. If the socket is full, messages that
//! must arrive are queued, bounded; periodic ones are dropped. Never blocks, and a failure never
//! affects the relay. `watchdog.rs` decides whether the relay is alive, and `console/brief.rs`
//! renders the status line.

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

use super::Daemon;
use crate::clock;
use crate::console;

/// Interval between two status lines, at least.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// Time that a shutdown may take beyond the drain.
const STOP_SPARE: Duration = Duration::from_secs(5);
/// Queued messages, at most; the oldest is dropped first, being the most outdated.
const OWED_MAX: usize = 8;

/// The connection to the service manager; inert without one.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    owed: RefCell<VecDeque<String>>,
}

impl Notify {
    /// Reads this process's environment.
    pub fn from_environment() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return Self::default() };
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_meant = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| *us > 0 && is_meant).map(Duration::from_micros);
        match Self::to(&path, watchdog) {
            Ok(notify) => notify,
            Err(error) => {
                log::warn!("can't notify the service manager: {error}");
                Self::default()
            }
        }
    }

    /// Sends to the socket of this name; `watchdog` is the time within which it expects a sign of
    /// life.
    pub fn to(path: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some((socket, address(path)?)), watchdog, owed: RefCell::default() })
    }

    /// Whether there is a service manager.
    pub const fn is_connected(&self) -> bool {
        self.to.is_some()
    }

    /// The watchdog's timeout.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Reports that the relay serves, at start or after a reload.
    pub fn ready(&self, status: &str) {
        self.queue(format!("READY=1\nSTATUS={status}"));
    }

    /// Reports a reload; [`ready`](Self::ready) follows. `Type=notify-reload` requires the time.
    pub fn reloading(&self) {
        self.queue(format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_us()));
    }

    /// Reports a shutdown that may take this long: the unit's `TimeoutStopSec=` doesn't know the
    /// configuration.
    pub fn stopping(&self, within: Duration) {
        self.queue(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (within + STOP_SPARE).as_micros()));
    }

    /// Sends a sign of life; returns whether it was delivered.
    pub fn alive(&self) -> bool {
        self.offer("WATCHDOG=1")
    }

    /// Sends a message that must arrive: now, or once the socket has room.
    fn queue(&self, state: String) {
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

    /// Sends a periodic message; returns whether it was delivered.
    fn offer(&self, state: &str) -> bool {
        self.flush();
        self.owed.borrow().is_empty() && self.send(state).is_ok()
    }

    /// Sends the queued messages, in order.
    fn flush(&self) {
        let mut owed = self.owed.borrow_mut();
        while let Some(state) = owed.front() {
            match self.send(state) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => log::warn!("can't send {state:?} to the service manager: {error}"),
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

/// Updates the status line for as long as the daemon runs.
pub(super) async fn keep_status(daemon: Rc<Daemon>) {
    let mut sent = String::new();
    loop {
        Timer::after(STATUS_EVERY).await;
        let line = daemon.look(console::brief);
        // Queued messages are sent even if the status line is unchanged.
        daemon.notify.flush();
        if line != sent && daemon.notify.offer(&format!("STATUS={line}")) {
            sent = line;
        }
    }
}

/// A path, or an abstract name with a leading `@`.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    }
}
