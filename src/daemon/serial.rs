//! The serial line: opened raw, kept open, taken up again when it comes back.
//!
//! How it is set is `tty.rs`'s. The line is nobody else's (`TIOCEXCL`), so that a getty on it is told off. What is said there is `console.rs`'s. A device that is not
//! there, or vanishes, is looked for every two seconds; the log says so once.

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
    loop {
        match open(&serial) {
            Ok(line) => {
                log::info!("the console is on {device}, {} bits a second", serial.speed);
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
                    Ok(()) => log::warn!("{device} hung up: it is opened again when it is there"),
                    Err(error) => log::warn!("{device} is gone: {error}; it is opened again when it is there"),
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

/// Says something on the line without waiting; for the last words.
pub fn last_words(text: &str) {
    if let Ok(line) = LINE.try_lock()
        && let Some(line) = line.as_ref()
    {
        let mut line: &File = line;
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
