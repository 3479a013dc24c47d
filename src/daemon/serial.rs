//! The serial line: opened raw, kept open, taken up again when it comes back.
//!
//! How it is set is `tty.rs`'s. The line is nobody else's (`TIOCEXCL`), so that a getty on it is told off. What is said there is `console.rs`'s. A device that is not
//! there, or vanishes, is looked for every two seconds; the log says so once, and of one that comes and goes how often.

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

/// How often a device that is not there is looked for.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The line, for the last words of a process that panics.
static LINE: Mutex<Option<File>> = Mutex::new(None);

/// Keeps the console on a serial line for as long as the daemon runs.
pub async fn run(daemon: Rc<Daemon>, serial: Serial) {
    let device = serial.device.display();
    let mut told = false;
    let log = |level, line: &str| daemon.logged.borrow_mut().log(level, daemon.clock.now(), &line);
    loop {
        match open(&serial) {
            Ok(line) => {
                log(log::Level::Info, &format!("the console is on {device}, {} bits a second", serial.speed));
                told = false;
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
                        log(log::Level::Warn, &format!("{device} hung up: it is opened again when it is there"));
                    }
                    Err(error) => {
                        log(
                            log::Level::Warn,
                            &format!("{device} is gone: {error}; it is opened again when it is there"),
                        );
                    }
                }
            }
            Err(error) if !told => {
                told = true;
                log::warn!("{device} can't be the console's line: {error}; it is tried again every {AGAIN_AFTER:?}");
            }
            Err(_) => {}
        }
        Timer::after(AGAIN_AFTER).await;
    }
}

/// Says something on the line without waiting; for the last words, at a panic as at the end. What still waited to be sent is given
/// up for them.
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
    // What was typed before anybody listened was not meant for us.
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
    use crate::config::{Config, Surroundings};
    use crate::daemon::{clock::Clock, logging, serve};
    use board::HOST;

    /// The child has panicked long before.
    const CHILD_MS_MAX: u64 = 30_000;
    /// Tells this test's own child on which line it is to panic.
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
                panic!("who panicked hangs");
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

    /// A whole daemon on that line, which is filled until it takes nothing more; then a panic while the console looks.
    fn serve_and_panic(device: &OsStr) {
        let text = format!("[pages]\nlisten = \"127.0.0.1:0\"\n[console]\nserial = {:?}\n", Path::new(device));
        let no_file = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        let around = Surroundings { read_secret: &no_file, hostname: "test", runtime_directory: None };
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
