//! The watchdog: sends the service manager signs of life while the relay is alive.
//!
//! Alive means: within one period each of the three tasks without which nothing is served, the
//! fan-out, the uplink and the tick, went around its loop. Each records it; an idle one is woken
//! for it. If one doesn't, because the thread or that task is stuck, no sign of life is sent, and
//! the service manager restarts the relay. `systemd.rs` sends the messages.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use smol::Timer;

use super::Daemon;

/// A task without which the relay serves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `fanout.rs`.
    Fanout = 1,
    /// `uplink.rs`.
    Uplink = 2,
    /// The machine's clock tick.
    Tick = 4,
}

const PARTS: [(Part, &str); 3] =
    [(Part::Fanout, "the fan-out"), (Part::Uplink, "the uplink"), (Part::Tick, "the tick")];
/// Signs of life within the watchdog's timeout: one may be late, or be lost.
const SIGNS: u32 = 4;

/// The parts that have run in this period.
#[derive(Debug, Default)]
pub struct Turns(Cell<u8>);

impl Turns {
    /// Records that a part has run.
    pub fn pass(&self, part: Part) {
        self.0.set(self.0.get() | part as u8);
    }

    /// Begins a period.
    fn begin(&self) {
        self.0.set(0);
    }

    /// A part that has not run yet.
    fn missing(&self) -> Option<&'static str> {
        PARTS.iter().find(|(part, _)| self.0.get() & *part as u8 == 0).map(|(_, name)| *name)
    }
}

/// Feeds the watchdog, if there is one, for as long as the daemon runs.
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
            log::error!("{missing} has not run for {waited:?}: after {limit:?} the service manager restarts the relay");
        }
        daemon.notify.alive();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use smol::LocalExecutor;

    use super::super::{fanout, listen, tick, uplink};
    use super::*;
    use crate::config::{Config, Surroundings};
    use crate::daemon::systemd::Notify;
    use board::TINY;

    const LIMIT: Duration = Duration::from_millis(400);
    /// Five periods of the limit above.
    const WHILE: Duration = Duration::from_secs(2);

    /// A service manager.
    struct Manager(UnixDatagram, std::path::PathBuf);

    impl Manager {
        fn begin(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sharelinkd-watchdog-{}-{name}", std::process::id()));
            // A killed process with this number may have left it.
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self(socket, path)
        }

        /// Signs of life received since the last call.
        fn signs(&self) -> usize {
            let mut signs = 0;
            let mut text = [0; 256];
            loop {
                match self.0.recv(&mut text) {
                    Ok(size) => signs += usize::from(&text[..size] == b"WATCHDOG=1"),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return signs,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.1);
        }
    }

    /// Runs the relay's real tasks without the given parts, and `happens` with them.
    fn relay(manager: &Manager, without: &[Part], happens: impl AsyncFnOnce(&Daemon)) {
        let around = Surroundings::without_files("box");
        let text = "[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"unix:/nowhere/business.sock\"]\n";
        let config = Config::parse(text, &TINY, &around).unwrap();
        let listeners = listen::bind(&config.pages.listen, Vec::new(), &TINY).unwrap();
        let notify = Notify::to(manager.1.as_os_str(), Some(LIMIT)).unwrap();
        let daemon = Daemon::new(config, None, &listeners, &listen::Listeners::default(), notify).unwrap();
        let executor = LocalExecutor::new();
        let has = |part| !without.contains(&part);
        let mut tasks = vec![executor.spawn(feed(Rc::clone(&daemon)))];
        if has(Part::Fanout) {
            tasks.push(executor.spawn(fanout::run(Rc::clone(&daemon))));
        }
        if has(Part::Uplink) {
            tasks.push(executor.spawn(uplink::run(Rc::clone(&daemon))));
        }
        if has(Part::Tick) {
            tasks.push(executor.spawn(tick(Rc::clone(&daemon))));
        }
        smol::block_on(executor.run(happens(&daemon)));
    }

    /// Waits for `signs` signs of life; returns the time in milliseconds.
    async fn until(manager: &Manager, daemon: &Daemon, signs: usize) -> u64 {
        let begun = daemon.clock.now();
        let mut came = 0;
        while came < signs {
            Timer::after(LIMIT / 20).await;
            came += manager.signs();
            assert!(daemon.clock.now() < begun.after(20_000), "{came} of {signs} signs of life in 20 s");
        }
        daemon.clock.now().since(begun)
    }

    #[test]
    fn an_idle_relay_is_alive() {
        let manager = Manager::begin("idle");
        relay(&manager, &[], async |daemon| {
            let ms = until(&manager, daemon, 10).await;
            assert!(ms >= 900, "ten signs of life, which come each 100 ms, came in {ms} ms");
        });
    }

    #[test]
    fn a_relay_without_one_of_its_parts_is_not() {
        for (part, name) in PARTS {
            let manager = Manager::begin(name);
            relay(&manager, &[part], async |_| {
                Timer::after(WHILE).await;
            });
            assert_eq!(manager.signs(), 0, "{name} did not run, yet the watchdog was fed");
        }
    }

    #[test]
    fn a_loop_that_is_stuck_is_not_until_it_goes_on() {
        let manager = Manager::begin("stuck");
        relay(&manager, &[], async |daemon| {
            until(&manager, daemon, 2).await;
            std::thread::sleep(WHILE);
            assert_eq!(manager.signs(), 0, "nothing was said in a turn that didn't end");
            until(&manager, daemon, 2).await;
        });
    }
}
