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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;
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
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self(socket, path)
        }

        /// Signs of life that came since it was asked.
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

    /// The relay's real tasks, but for those that are left out, then what happens with them.
    fn relay(manager: &Manager, without: &[Part], happens: impl AsyncFnOnce(&Daemon)) {
        let none = |_: &Path| Err(ErrorKind::NotFound.into());
        let around = Surroundings { read_secret: &none, hostname: "box", runtime_directory: None };
        let text = "[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"unix:/nowhere/business.sock\"]\n";
        let config = Config::parse(text, &TINY, &around).unwrap();
        let listeners = listen::bind(&config, Vec::new()).unwrap();
        let notify = Notify::to(manager.1.as_os_str(), Some(LIMIT)).unwrap();
        let daemon = Daemon::new(config, None, &listeners, notify).unwrap();
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

    /// Waits until so many signs came; how long that took.
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
            assert_eq!(manager.signs(), 0, "{name} had no turn, and the watchdog was fed all the same");
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
