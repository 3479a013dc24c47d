//! The other end of the console: `sharelinkd console` and `sharelinkd status`, at the box or on the engineer's laptop.
//!
//! Carries bytes between a terminal and the daemon's Unix socket, or a serial device, and understands none of
//! them: echo and editing are the daemon's. The terminal is raw meanwhile and given back as it was. Asks one line where
//! it is given one, and exits by the answer. No runtime: one loop over `poll(2)`.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::console::{Health, ONCE};
use crate::tty;

/// Where the packaged relay has its console.
pub const SOCKET: &str = "/run/sharelinkd/console.sock";
/// Leaves the terminal: Ctrl-].
const LEAVE: u8 = 0x1d;
/// The daemon answers a program within this time, however busy it is.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Nobody to ask: `EX_UNAVAILABLE` of sysexits.h.
const EXIT_UNAVAILABLE: u8 = 69;
/// The terminal or the line failed: `EX_IOERR`.
const EXIT_IO: u8 = 74;
/// Exit codes of `status`.
const EXIT_DEGRADED: u8 = 1;
const EXIT_DOWN: u8 = 2;

/// Where the console is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The daemon's Unix socket.
    Socket(PathBuf),
    /// A serial device and its bits a second: a box at the other end of a cable.
    Serial(PathBuf, u32),
}

/// `sharelinkd console`: with words, asks them as one command; else carries the terminal.
#[must_use]
pub fn console(way: &Way, words: &[String]) -> ExitCode {
    match (way, words) {
        (Way::Socket(path), []) => attach(connect(path).map(|line| (line, path.as_path()))),
        (Way::Serial(path, speed), []) => attach(open(path, *speed).map(|line| (line, path.as_path()))),
        (Way::Socket(path), words) => match ask(path, &words.join(" ")) {
            Ok(answer) => {
                let _ = stdout().write_all(answer.as_bytes());
                // The daemon's own words for what can't be done begin with their code.
                if answer.lines().any(|line| line.starts_with("[E")) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
            }
            Err(told) => complain(&told, EXIT_UNAVAILABLE),
        },
        (Way::Serial(..), _) => complain("a serial line takes no command here: type it there", EXIT_IO),
    }
}

/// `sharelinkd status`: the exit code tells healthy (0), degraded (1), down (2).
#[must_use]
pub fn status(path: &Path, as_json: bool) -> ExitCode {
    let answers = ask(path, "json")
        .and_then(|json| if as_json { Ok((json.clone(), json)) } else { Ok((ask(path, "status")?, json)) });
    let (shown, json) = match answers {
        Ok(answers) => answers,
        Err(told) if as_json => {
            let value = serde_json::json!({"health": Health::Down.name(), "error": told});
            let _ = writeln!(stdout(), "{value}");
            return ExitCode::from(EXIT_DOWN);
        }
        Err(told) => return complain(&told, EXIT_DOWN),
    };
    let _ = stdout().write_all(shown.as_bytes());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    match value.get("health").and_then(serde_json::Value::as_str) {
        Some(health) if health == Health::Healthy.name() => ExitCode::SUCCESS,
        Some(health) if health == Health::Degraded.name() => ExitCode::from(EXIT_DEGRADED),
        _ => ExitCode::from(EXIT_DOWN),
    }
}

fn complain(told: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "sharelinkd: {told}");
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

/// Asks one line, as a program does.
fn ask(path: &Path, line: &str) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}: the relay does not answer", path.display());
    let mut stream = connect(path)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(told)?;
    stream.write_all(&[&[ONCE], line.as_bytes(), b"\n"].concat()).map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    if answer.is_empty() { Err(told(ErrorKind::UnexpectedEof.into())) } else { Ok(answer) }
}

fn open(path: &Path, speed: u32) -> Result<File, String> {
    tty::open(path, speed).map_err(|error| {
        format!("{}: {error}; name the serial device that the cable is on, such as /dev/ttyUSB0", path.display())
    })
}

/// The terminal's modes as they were, given back when this goes.
struct Restored(Option<Termios>);

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(modes) = &self.0 {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, modes);
        }
    }
}

fn attach<T: AsFd>(line: Result<(T, &Path), String>) -> ExitCode
where
    for<'a> &'a T: Read + Write,
{
    let (line, path) = match line {
        Ok(line) => line,
        Err(told) => return complain(&told, EXIT_UNAVAILABLE),
    };
    let restored = Restored(stdin().is_terminal().then(|| tcgetattr(stdin()).ok()).flatten());
    if let Some(modes) = &restored.0 {
        let mut raw = modes.clone();
        raw.make_raw();
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Drain, &raw) {
            return complain(&format!("the terminal can't be made raw: {error}"), EXIT_IO);
        }
        let _ = write!(stdout(), "{}: Ctrl-] leaves\r\n", path.display());
    }
    let ended = carry(&line, restored.0.is_some());
    drop(restored);
    match ended {
        Ok(()) => {
            let _ = writeln!(stdout());
            ExitCode::SUCCESS
        }
        Err(error) => complain(&format!("{}: {error}", path.display()), EXIT_IO),
    }
}

/// Carries bytes both ways until either side ends, or Ctrl-] is typed at a terminal.
fn carry<T: AsFd>(line: &T, is_typed: bool) -> io::Result<()>
where
    for<'a> &'a T: Read + Write,
{
    let mut bytes = [0; 1024];
    let mut listens = true;
    loop {
        let (keys, answers) = readable(listens.then(stdin), line.as_fd())?;
        if answers {
            let mut line = line;
            match line.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(size) => show(bytes.get(..size).unwrap_or_default())?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if keys {
            let size = rustix::io::read(stdin(), &mut bytes)?;
            let typed = bytes.get(..size).unwrap_or_default();
            let end = typed.iter().position(|byte| is_typed && *byte == LEAVE);
            send(line, typed.get(..end.unwrap_or(size)).unwrap_or_default())?;
            if end.is_some() {
                return Ok(());
            }
            // A script's standard input has ended: what it asked for is still to be answered.
            listens = size > 0;
            if !listens {
                send(line, &[0x04])?;
            }
        }
    }
}

/// Which of both has something to read; waits until one has.
fn readable(keys: Option<io::Stdin>, line: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let mut watched = vec![PollFd::from_borrowed_fd(line, PollFlags::IN)];
    if let Some(keys) = &keys {
        watched.push(PollFd::new(keys, PollFlags::IN));
    }
    match poll(&mut watched, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let has = |at: usize| watched.get(at).is_some_and(|watched| !watched.revents().is_empty());
    Ok((has(1), has(0)))
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes all of it to a line that may take only a part at a time.
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
