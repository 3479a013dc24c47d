//! The watchdog: tells the service manager that the relay is alive, as long as it is.
//!
//! Alive is: within one period the executor's turns came through each of the three tasks without which nothing is served,
//! the fan-out, the uplink and the tick. Each says so where it goes around; whoever has nothing to do is woken to go around all
//! the same. Where one of them doesn't, whether the thread is stuck or that task alone, nothing is said, and
//! the service manager starts the relay again. What is said, and how, is `systemd.rs`'s.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use smol::Timer;

use super::Daemon;

/// A part of the relay without which it serves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `fanout.rs`.
    Fanout = 1,
    /// `uplink.rs`.
    Uplink = 2,
    /// The machine's time.
    Tick = 4,
}

const PARTS: [(Part, &str); 3] =
    [(Part::Fanout, "the fan-out"), (Part::Uplink, "the uplink"), (Part::Tick, "the tick")];
/// Signs of life in the time after which there must have been one: one may come late, or be lost.
const SIGNS: u32 = 4;

/// Which parts had their turn since it was asked.
#[derive(Debug, Default)]
pub struct Turns(Cell<u8>);

impl Turns {
    /// A part goes around.
    pub fn pass(&self, part: Part) {
        self.0.set(self.0.get() | part as u8);
    }

    /// Asks anew.
    fn begin(&self) {
        self.0.set(0);
    }

    /// A part that had no turn yet.
    fn missing(&self) -> Option<&'static str> {
        PARTS.iter().find(|(part, _)| self.0.get() & *part as u8 == 0).map(|(_, name)| *name)
    }
}

/// Feeds the watchdog, where there is one, for as long as the daemon runs.
pub async fn feed(daemon: Rc<Daemon>) {
    let Some(limit) = daemon.notify.watchdog() else { return };
    let period = limit / SIGNS;
    loop {
        daemon.turns.begin();
        daemon.serve.raise();
        daemon.uplink.raise();
        let mut waited = Duration::ZERO;
        loop {
            Timer::after(period).await;
            waited += period;
            let Some(missing) = daemon.turns.missing() else { break };
            log::error!("{missing} had no turn for {waited:?}: after {limit:?} the service manager restarts the relay");
        }
        daemon.notify.alive();
    }
}
