//! The serial line: opened raw, kept open, and reopened when the device is back.
//!
//! `tty.rs` sets its modes. The line is opened exclusively (`TIOCEXCL`), so that a getty can't use
//! it too. `console.rs` owns the dialogue. A missing device is retried every two seconds: the log
//! reports it once, and one that comes and goes at a limited rate.

use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use rustix::termios::{QueueSelector, ioctl_tiocexcl, tcflush};
use smol::{Async, Timer};

use super::{Daemon, console};
use crate::config::Serial;
use crate::console::Console;
use crate::tty;

/// Retry interval for a missing device.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The open line, for the last words of a process that panics.
static LINE: Mutex<Option<File>> = Mutex::new(None);

/// Runs the console on a serial line for as long as the daemon runs.
pub async fn run(daemon: Rc<Daemon>, serial: Serial) {
    let device = serial.device.display();
    let mut is_reported = false;
    let log = |level, line: &str| daemon.logged.borrow_mut().log(level, daemon.clock.now(), &line);
    loop {
        match open(&serial) {
            Ok(line) => {
                log(log::Level::Info, &format!("the console is on {device}, {} bit/s", serial.speed));
                is_reported = false;
                if let Ok(mut last) = LINE.lock() {
                    *last = line.get_ref().try_clone().ok();
                }
                let mut console = Box::new(Console::new(false));
                daemon.look(|view| console.greet(view));
                let ended = console::converse(&daemon, &line, &mut console).await;
                if let Ok(mut last) = LINE.lock() {
                    *last = None;
                }
                match ended {
                    Ok(()) => {
                        log(log::Level::Warn, &format!("{device} hung up; it is reopened when it is back"));
                    }
                    Err(error) => {
                        log(log::Level::Warn, &format!("{device} is gone: {error}; it is reopened when it is back"));
                    }
                }
            }
            Err(error) if !is_reported => {
                is_reported = true;
                log::warn!("can't open {device} for the console: {error}; retried every {AGAIN_AFTER:?}");
            }
            Err(_) => {}
        }
        Timer::after(AGAIN_AFTER).await;
    }
}

/// Writes to the line without blocking, at a panic and at the end. Queued output is discarded to
/// make room.
pub fn last_words(text: &str) {
    if let Ok(line) = LINE.try_lock()
        && let Some(line) = line.as_ref()
    {
        let mut line: &File = line;
        let _ = tcflush(line, QueueSelector::OFlush);
        let _ = line.write_all(text.replace('\n', "\r\n").as_bytes());
    }
}

fn open(serial: &Serial) -> io::Result<Async<File>> {
    let line = tty::open(&serial.device, serial.speed)?;
    ioctl_tiocexcl(&line)?;
    // Input from before the console was there is not meant for it.
    tcflush(&line, QueueSelector::IOFlush)?;
    Async::new(line)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};
    use std::{env, path::Path, thread};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use smol::{LocalExecutor, future};

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Surroundings};
    use crate::daemon::{logging, serve};
    use board::HOST;

    /// Timeout of the child, which panics long before.
    const CHILD_MS_MAX: u64 = 30_000;
    /// Environment variable that makes the test's child process panic, and names its line.
    const LINE_OF_CHILD: &str = "SHARELINKD_TEST_PANICS_ON";

    #[test]
    fn last_words_reach_a_line_that_is_full_and_the_log_even_out_of_the_console_itself() {
        if let Some(device) = env::var_os(LINE_OF_CHILD) {
            return serve_and_panic(&device);
        }
        let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&far).and_then(|()| unlockpt(&far)).unwrap();
        let device = ptsname(&far, Vec::new()).unwrap();
        let name = "last_words_reach_a_line_that_is_full_and_the_log_even_out_of_the_console_itself";
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("daemon::serial::tests::{name}"), "--nocapture"])
            .env(LINE_OF_CHILD, OsStr::from_bytes(device.to_bytes()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let clock = Clock::start();
        while child.try_wait().unwrap().is_none() {
            if clock.now().0 > CHILD_MS_MAX {
                child.kill().unwrap();
                panic!("the child hangs after its panic");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success());
        let mut said = Vec::new();
        let _ = File::from(far).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).into_owned();
        let words = format!("\r\n[P1] sharelinkd {} panicked, which is a bug: panicked at ", env!("CARGO_PKG_VERSION"));
        assert!(said.contains(&words) && said.ends_with("made up by a test\r\n"), "{said:?}");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(log.contains("the console is on ") && log.contains("panicked, which is a bug"), "{log}");
    }

    /// Runs a whole daemon on that line, fills the line, and panics while the console reads the
    /// log's lines.
    fn serve_and_panic(device: &OsStr) {
        let text = format!("[pages]\nlisten = \"127.0.0.1:0\"\n[console]\nserial = {:?}\n", Path::new(device));
        let around = Surroundings::without_files("test");
        let config = Config::parse(&text, &HOST, &around).unwrap();
        logging::init(config.log_level, Clock::start());
        crate::daemon::last_words();
        let executor = Rc::new(LocalExecutor::new());
        let panics = async {
            while LINE.lock().unwrap().is_none() {
                Timer::after(Duration::from_millis(10)).await;
            }
            let mut line = LINE.lock().unwrap().as_ref().unwrap().try_clone().unwrap();
            while line.write_all(&[b'.'; 256]).is_ok() {}
            logging::with_lines(|_, _| panic!("made up by a test"))
        };
        let serves = async { serve(Rc::clone(&executor), config, None, |_| {}).await.unwrap() };
        smol::block_on(executor.run(future::or(serves, panics)));
    }
}
