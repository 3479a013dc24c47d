//! The console's transport: the Unix socket, and the requests that the shell carries out.
//!
//! One task for each connection, over a socket here and over a tty in `serial.rs`; both end in
//! [`converse`]. `console.rs` owns the commands and texts. The socket serves at most
//! [`CONSOLES_MAX`] engineers; one more gets a refusal, but one extra place is reserved for a
//! program that sends one command (`sharelinkd status`). Nothing waits for a slow line: its output
//! stays in a bounded buffer.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use smol::{Async, LocalExecutor, Timer, future};
use socket2::{Domain, SockAddr, Socket, Type};

use super::budget::Budget;
use super::{Daemon, DaemonError, logging, proc, signals};
use crate::clock;
use crate::config::Config;
use crate::console::{Console, ONCE, PagesTls, Request, View};
use board::{CONSOLES_MAX, IS_ARM32};

/// Mode of the socket: the relay's user and its group may connect.
const MODE: u32 = 0o660;
/// Silence after which a connection gets the banner: it is a person, not a program. A program that
/// got it by mistake would receive more than its answer, and on a loaded machine it may pause
/// between connecting and asking.
const GREET_AFTER: Duration = Duration::from_secs(1);
/// Timeout of the place that is reserved for programs.
const PROGRAM_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of input read in one turn.
const READ_SIZE: usize = 256;
/// Configuration errors shown at the console, at most; the log has all.
const ERRORS_SHOWN_MAX: usize = 8;

/// The console's listening socket.
pub struct Listener {
    /// The socket.
    pub socket: Rc<Async<UnixListener>>,
    /// The file to remove at the end; none if the service manager holds the socket.
    pub path: Option<PathBuf>,
}

/// The inherited socket, else the configured one, else none.
pub fn listener(config: &Config, inherited: Option<UnixListener>) -> Result<Option<Listener>, DaemonError> {
    let configured = config.console.socket.as_deref();
    if let Some(socket) = inherited {
        let held = socket.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        if let Some(configured) = configured.filter(|path| held.as_deref() != Some(*path)) {
            log::warn!(
                "the console listens on the service manager's socket (sharelinkd-console.socket); console.socket = {} has no effect",
                configured.display()
            );
        }
        let socket = Rc::new(Async::new(socket).map_err(DaemonError::Passed)?);
        return Ok(Some(Listener { socket, path: None }));
    }
    let Some(path) = configured else { return Ok(None) };
    let socket = bind(path).map_err(|error| DaemonError::Console(path.to_owned(), error))?;
    Ok(Some(Listener { socket: Rc::new(socket), path: Some(path.to_owned()) }))
}

/// Binds the socket; replaces one that a dead relay left behind.
fn bind(path: &Path) -> io::Result<Async<UnixListener>> {
    // Checked first, since connecting to a file that is not a socket is refused too, and that file
    // must not be removed.
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match knock(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Ok(()) => return Err(io::Error::new(ErrorKind::AddrInUse, "another relay listens there")),
            // Its backlog is full: a live program.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::new(
                    ErrorKind::AddrInUse,
                    "another program listens there and does not accept connections",
                ));
            }
            Err(_) => {}
        },
        Ok(_) => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "the file there is not a socket; it was left as it is",
            ));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Async::new(listener)
}

/// Connects without waiting, to find out whether a program listens there.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// Accepts consoles for as long as the daemon runs.
pub async fn accept(daemon: Rc<Daemon>, executor: Rc<LocalExecutor<'static>>, listener: Rc<Async<UnixListener>>) {
    let places = Rc::new(());
    let mut budget = Budget::TURN;
    loop {
        budget.next_step().await;
        match listener.accept().await {
            Ok((stream, _)) if Rc::strong_count(&places) > CONSOLES_MAX + 1 => refuse(&stream),
            Ok((stream, _)) => {
                let is_last = Rc::strong_count(&places) > CONSOLES_MAX;
                let (daemon, place) = (Rc::clone(&daemon), Rc::clone(&places));
                executor
                    .spawn(async move {
                        // An error means that the peer just left.
                        let _ = match is_last {
                            true => future::or(answer_one(&daemon, &stream), give_up()).await,
                            false => attend(&daemon, &stream).await,
                        };
                        drop(place);
                    })
                    .detach();
            }
            Err(error) => {
                let line = format!("can't accept a console connection now: {error}");
                daemon.logged.borrow_mut().log(log::Level::Warn, daemon.clock.now(), &line);
                Timer::after(Duration::from_secs(1)).await;
            }
        }
    }
}

fn refuse(stream: &Async<UnixStream>) {
    let _ = stream.get_ref().write(b"[E7] all consoles are in use: close one of them\r\n");
}

/// Serves one engineer or one program at the socket.
async fn attend(daemon: &Daemon, stream: &Async<UnixStream>) -> io::Result<()> {
    let mut console = Box::new(Console::new(true));
    if !speaks(stream).await {
        daemon.look(|view| console.greet(view));
    }
    converse(daemon, stream, &mut console).await
}

/// Serves a program on the reserved place; refuses an engineer.
async fn answer_one(daemon: &Daemon, stream: &Async<UnixStream>) -> io::Result<()> {
    let mut asked = [0; READ_SIZE];
    let size = if speaks(stream).await { stream.get_ref().read(&mut asked)? } else { 0 };
    let asked = asked.get(..size).unwrap_or_default();
    if asked.first() != Some(&ONCE) {
        refuse(stream);
        return Ok(());
    }
    let mut console = Box::new(Console::new(true));
    daemon.look(|view| console.handle_input(view, asked));
    converse(daemon, stream, &mut console).await
}

async fn give_up() -> io::Result<()> {
    Timer::after(PROGRAM_TIME_MAX).await;
    Ok(())
}

/// Whether the peer sends something at once, as a program does.
async fn speaks(stream: &Async<UnixStream>) -> bool {
    let spoke = async { stream.readable().await.is_ok() };
    let silent = async {
        Timer::after(GREET_AFTER).await;
        false
    };
    future::or(spoke, silent).await
}

/// Carries bytes between a line and its console until either ends.
///
/// # Errors
/// The line's I/O error.
pub async fn converse<T>(daemon: &Daemon, line: &Async<T>, console: &mut Console) -> io::Result<()>
where
    for<'a> &'a T: Read + Write,
{
    let mut keys = [0; READ_SIZE];
    let mut budget = Budget::TURN;
    let mut listens = true;
    loop {
        while let Some(request) = console.poll_request() {
            let text = carry_out(daemon, request);
            daemon.look(|view| console.handle_answer(view, &text));
            // Requests may be queued, and a reload reads a file.
            budget.next_turn().await;
        }
        let is_stuck = write(daemon, line.get_ref(), console)?;
        if console.is_over() && console.transmit().is_empty() {
            return Ok(());
        }
        let deadline = console.poll_timeout();
        let keys_came = async {
            if !listens {
                future::pending::<()>().await;
            }
            line.readable().await?;
            Ok(true)
        };
        let room_came = async {
            if !is_stuck {
                future::pending::<()>().await;
            }
            line.writable().await?;
            Ok(false)
        };
        let time_came = async {
            match deadline {
                Some(deadline) => drop(Timer::after(Duration::from_millis(deadline.since(daemon.clock.now()))).await),
                None => future::pending().await,
            }
            Ok::<bool, io::Error>(false)
        };
        let came = future::or(room_came, future::or(keys_came, time_came)).await?;
        if came {
            match line.get_ref().read(budget.clip(&mut keys)) {
                // A serial line hung up. Over the socket, the commands sent before are still
                // answered.
                Ok(0) if !console.may_leave() => return Ok(()),
                Ok(0) => {
                    listens = false;
                    daemon.look(|view| console.handle_end(view));
                }
                Ok(size) => {
                    let keys = keys.get(..size).unwrap_or_default();
                    daemon.look(|view| console.handle_input(view, keys));
                }
                Err(error) if is_for_now(&error) => {}
                Err(error) => return Err(error),
            }
        }
        daemon.look(|view| console.handle_timeout(view));
        // Yields to pages, pings and the watchdog, however fast input arrives: any key may be a
        // command.
        budget.next_turn().await;
    }
}

/// Writes as much as the line takes; returns whether output is left.
fn write<T>(daemon: &Daemon, mut line: &T, console: &mut Console) -> io::Result<bool>
where
    for<'a> &'a T: Write,
{
    if console.transmit().is_empty() {
        return Ok(false);
    }
    match line.write(console.transmit()) {
        Ok(0) => return Err(ErrorKind::WriteZero.into()),
        Ok(size) => daemon.look(|view| console.wrote(view, size)),
        Err(error) if is_for_now(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(!console.transmit().is_empty())
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Carries out an engineer's request; returns the answer.
fn carry_out(daemon: &Daemon, request: Request) -> String {
    log::info!("at the console: {request}");
    match request {
        Request::Close(page) => match daemon.step(|relay, now| relay.close_by_hand(now, page)) {
            true => format!("page {page} is being closed\n"),
            false => format!("[E3] page {page} is gone or already closing\n"),
        },
        Request::End(number) => match daemon.step(|relay, now| relay.end_by_hand(now, number)) {
            Some(pages) => format!("topic {number} has ended; pages notified: {pages}\n"),
            None => format!("[E3] no topic {number}: `topics` lists them\n"),
        },
        Request::Drain => {
            daemon.end.raise();
            "draining: the relay closes its pages, then exits\n".to_owned()
        }
        Request::Reload => match signals::again(daemon) {
            Ok(waits) => {
                let waits: String =
                    waits.iter().map(|key| format!("{key} changed: takes effect after a restart\n")).collect();
                format!("{waits}configuration reloaded\n")
            }
            Err(errors) => {
                let count = errors.len();
                let shown: String = errors.iter().take(ERRORS_SHOWN_MAX).map(|error| format!("{error}\n")).collect();
                let more = if count > ERRORS_SHOWN_MAX { ", the log has them all" } else { "" };
                format!("{shown}[E8] the configuration stays as it was: {count} error(s){more}\n")
            }
        },
        Request::LogLevel(level) => {
            log::set_max_level(level);
            format!("log level {}\n", level.as_str().to_ascii_lowercase())
        }
    }
}

impl Daemon {
    /// Builds the console's view of the relay.
    pub(super) fn look<T>(&self, see: impl FnOnce(&View<'_>) -> T) -> T {
        let now_s = clock::wall_s();
        self.uplink_notes.borrow_mut().is_clock_unset = now_s.is_none();
        let certificates = self.tls.as_ref().map(|server| (server.counts(), server.certificates()));
        let tls = certificates.as_ref().map(|(counts, certificates)| PagesTls {
            listening: &self.tls_listening,
            certificates: certificates.served(),
            counts: *counts,
            now_s,
            is_slow: IS_ARM32,
        });
        logging::with_lines(|lines, unwritten| {
            see(&View {
                relay: &self.relay.borrow(),
                now: self.clock.now(),
                config: &self.config.borrow(),
                built: board::SELECTED,
                listening: &self.listening,
                lines,
                log_level: log::max_level(),
                unwritten,
                uplink: &self.uplink_notes.borrow(),
                tls_unserved: &self.tls_unserved,
                tls,
                process: &proc::process,
            })
        })
    }
}
