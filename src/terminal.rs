//! The engineer's end of the console: `sharelinkd console` and `sharelinkd status`, at the box or
//! on a laptop.
//!
//! Copies bytes between a terminal and the daemon's Unix socket or a serial device, and interprets
//! none: echo and editing are the daemon's. Meanwhile the terminal is in raw mode; its modes are
//! restored however the session ends (Ctrl-], the peer, a signal). With a command, sends it, and
//! the exit code depends on the answer. No runtime: one loop over `poll(2)`.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::console::{Health, ONCE};
use crate::tty;

/// Console socket of the packaged relay.
pub const SOCKET: &str = "/run/sharelinkd/console.sock";
/// Ends the session: Ctrl-].
const LEAVE: u8 = 0x1d;
/// Silence after which a script's session over a serial line ends: a serial line has no end of its
/// own.
const QUIET: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Timeout of the daemon's answer to a program.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// No relay to ask: `EX_UNAVAILABLE` of sysexits.h.
const EXIT_UNAVAILABLE: u8 = 69;
/// The terminal or the line failed: `EX_IOERR`.
const EXIT_IO: u8 = 74;
/// Exit codes of `status`.
const EXIT_DEGRADED: u8 = 1;
const EXIT_DOWN: u8 = 2;

/// Where to reach the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The daemon's Unix socket.
    Socket(PathBuf),
    /// A serial device and its speed in bit/s, with a box at the other end of the cable.
    Serial(PathBuf, u32),
}

/// `sharelinkd console`: with words, sends them as one command; otherwise attaches the terminal.
#[must_use]
pub fn console(way: &Way, words: &[String]) -> ExitCode {
    match (way, words) {
        (Way::Socket(path), []) => attach(connect(path), path),
        (Way::Serial(path, speed), []) => attach(open(path, *speed), path),
        (Way::Socket(path), words) => match ask(path, &words.join(" ")) {
            Ok(answer) => {
                if let Some(failed) = print(&answer) {
                    return failed;
                }
                // The daemon's errors begin with their code.
                if answer.lines().any(|line| line.starts_with("[E")) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
            }
            Err(error) => complain(&error, EXIT_UNAVAILABLE),
        },
        (Way::Serial(..), _) => complain("a command can't be sent over a serial line: type it there", EXIT_IO),
    }
}

/// `sharelinkd status`: the exit code is 0 for healthy, 1 for degraded, 2 for down.
#[must_use]
pub fn status(path: &Path, as_json: bool) -> ExitCode {
    let answers =
        ask(path, "json").and_then(|json| Ok((health(&json)?, if as_json { json } else { ask(path, "status")? })));
    let (health, shown) = match answers {
        Ok(answers) => answers,
        Err(error) if as_json => {
            let value = serde_json::json!({"health": Health::Down.name(), "error": error});
            return print(&format!("{value}\n")).unwrap_or(ExitCode::from(EXIT_DOWN));
        }
        Err(error) => return complain(&error, EXIT_DOWN),
    };
    if let Some(failed) = print(&shown) {
        return failed;
    }
    match health {
        Health::Healthy => ExitCode::SUCCESS,
        Health::Degraded => ExitCode::from(EXIT_DEGRADED),
        Health::Down => ExitCode::from(EXIT_DOWN),
    }
}

/// The health in an answer of `json`.
fn health(json: &str) -> Result<Health, String> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let name = value.get("health").and_then(serde_json::Value::as_str);
    let known =
        [Health::Healthy, Health::Degraded, Health::Down].into_iter().find(|health| name == Some(health.name()));
    known.ok_or_else(|| format!("unexpected answer from the relay: {:?}", json.trim_end()))
}

/// Writes to standard output; returns an exit code if that fails. A closed pipe is not a failure:
/// its reader had enough.
fn print(text: &str) -> Option<ExitCode> {
    let mut out = stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Some(complain(&format!("standard output: {error}"), EXIT_IO))
        }
        _ => None,
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "sharelinkd: {text}");
    ExitCode::from(code)
}

fn connect(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => {
                "is the relay running, and is [console] socket set to this path? --socket PATH names another"
            }
            ErrorKind::ConnectionRefused => "the relay that made it is gone: start it",
            ErrorKind::PermissionDenied => "run this as root, or as a member of the socket's group",
            _ => "check [console] socket",
        };
        format!("{}: {error}; {remedy}", path.display())
    })
}

/// Sends one command to the console at this socket, as a program does.
///
/// # Errors
/// Why there is no answer, as a message for a person.
pub fn ask(path: &Path, line: &str) -> Result<String, String> {
    let text_of = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{}: the relay did not answer within {} s", path.display(), ANSWER_TIME_MAX.as_secs())
        }
        _ => format!("{}: {error}: the relay does not answer", path.display()),
    };
    let mut stream = connect(path)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(text_of)?;
    stream.write_all(&[&[ONCE], line.as_bytes(), b"\n"].concat()).map_err(text_of)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text_of)?;
    if answer.is_empty() { Err(text_of(ErrorKind::UnexpectedEof.into())) } else { Ok(answer) }
}

fn open(path: &Path, speed: u32) -> Result<File, String> {
    tty::open(path, speed).map_err(|error| {
        format!("{}: {error}; name the serial device that the cable is on, such as /dev/ttyUSB0", path.display())
    })
}

/// Raw mode of the terminal: restores the modes when dropped, and receives the signals that would
/// end the program before.
struct Raw {
    modes: Termios,
    signals: Signals,
}

impl Raw {
    /// Sets raw mode.
    fn make() -> io::Result<Self> {
        let modes = tcgetattr(stdin())?;
        let signals = Signals::new([Signal::Term, Signal::Hup, Signal::Int, Signal::Quit])?;
        let mut raw = modes.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { modes, signals })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.modes);
    }
}

/// How a session ended.
enum Ended {
    /// The user left.
    Left,
    /// The peer closed.
    Closed,
    /// A signal came.
    Signal(Signal),
}

fn attach<T: AsFd>(line: Result<T, String>, path: &Path) -> ExitCode
where
    for<'a> &'a T: Read + Write,
{
    let line = match line {
        Ok(line) => line,
        Err(error) => return complain(&error, EXIT_UNAVAILABLE),
    };
    let mut raw = match stdin().is_terminal().then(Raw::make).transpose() {
        Ok(raw) => raw,
        Err(error) => return complain(&format!("the terminal can't be made raw: {error}"), EXIT_IO),
    };
    let is_typed = raw.is_some();
    // Checked now: a line that has hung up no longer counts as a terminal.
    let is_serial = line.as_fd().is_terminal();
    if is_typed {
        let _ = write!(stdout(), "{}: Ctrl-] leaves\r\n", path.display());
    }
    let ended = carry(&line, raw.as_mut());
    drop(raw);
    if is_typed {
        let _ = writeln!(stdout());
    }
    match ended {
        Ok(Ended::Left) => ExitCode::SUCCESS,
        Ok(Ended::Closed) if is_serial => complain(&format!("{}: the line hung up", path.display()), EXIT_IO),
        Ok(Ended::Closed) => {
            if is_typed {
                let _ = writeln!(stdout(), "{}: closed by the relay", path.display());
            }
            ExitCode::SUCCESS
        }
        // As a shell reports it.
        Ok(Ended::Signal(signal)) => ExitCode::from(u8::try_from(signal as i32).unwrap_or(0).saturating_add(128)),
        Err(error) => complain(&format!("{}: {error}", path.display()), EXIT_IO),
    }
}

/// Copies bytes both ways until either side ends, a signal arrives, or Ctrl-] is typed at a
/// terminal.
fn carry<T: AsFd>(line: &T, mut raw: Option<&mut Raw>) -> io::Result<Ended>
where
    for<'a> &'a T: Read + Write,
{
    let mut bytes = [0; 1024];
    let (mut listens, mut quiet) = (true, None);
    loop {
        let signals = raw.as_ref().map(|raw| raw.signals.as_fd());
        let came = wait(line.as_fd(), listens.then(stdin), signals, quiet)?;
        if came.signal
            && let Some(raw) = raw.as_mut()
            && let Some(signal) = future::block_on(raw.signals.next())
        {
            return Ok(Ended::Signal(signal?));
        }
        if came.answers {
            let mut line = line;
            match line.read(&mut bytes) {
                Ok(0) => return Ok(Ended::Closed),
                Ok(size) => show(bytes.get(..size).unwrap_or_default())?,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        if came.keys {
            let size = rustix::io::read(stdin(), &mut bytes)?;
            let typed = bytes.get(..size).unwrap_or_default();
            let end = typed.iter().position(|byte| raw.is_some() && *byte == LEAVE);
            send(line, typed.get(..end.unwrap_or(size)).unwrap_or_default())?;
            if end.is_some() || (raw.is_some() && size == 0) {
                return Ok(Ended::Left);
            }
            if size == 0 {
                // A script's input has ended; its commands are still to be answered.
                listens = false;
                quiet = shutdown(line, Shutdown::Write).is_err().then_some(QUIET);
            }
        }
        if !came.any() && quiet.is_some() {
            return Ok(Ended::Left);
        }
    }
}

/// What is ready.
struct Came {
    answers: bool,
    keys: bool,
    signal: bool,
}

impl Came {
    const fn any(&self) -> bool {
        self.answers || self.keys || self.signal
    }
}

/// Waits until something is ready, or until the timeout.
fn wait(
    line: BorrowedFd<'_>,
    keys: Option<io::Stdin>,
    signals: Option<BorrowedFd<'_>>,
    most: Option<Timespec>,
) -> io::Result<Came> {
    let mut watched = vec![PollFd::from_borrowed_fd(line, PollFlags::IN)];
    watched.extend(signals.map(|signals| PollFd::from_borrowed_fd(signals, PollFlags::IN)));
    watched.extend(keys.as_ref().map(|keys| PollFd::new(keys, PollFlags::IN)));
    match poll(&mut watched, most.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut came = watched.iter().map(|watched| !watched.revents().is_empty());
    let answers = came.next() == Some(true);
    let signal = signals.is_some() && came.next() == Some(true);
    Ok(Came { answers, signal, keys: keys.is_some() && came.next() == Some(true) })
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes all bytes to a line that may take only some at a time.
fn send<T: AsFd>(line: &T, mut bytes: &[u8]) -> io::Result<()>
where
    for<'a> &'a T: Write,
{
    let mut writer = line;
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(size) => bytes = bytes.get(size..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut watched = [PollFd::new(line, PollFlags::OUT)];
                let _ = poll(&mut watched, None)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
