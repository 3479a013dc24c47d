//! Signals: end (SIGTERM, SIGINT), read the configuration again (SIGHUP), and those that mean
//! nothing here.
//!
//! What a signal would do by default is to end the process, and with it every page's connection.
//! Those that people and tools send to ask for something (SIGUSR1 and the like) are named in the
//! log and ignored; SIGQUIT still ends at once, and job control stops and continues. A reload takes
//! a whole, good configuration or nothing of it.

use std::io;

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};

use super::{Daemon, settings};
use crate::config::{self, Config, ConfigError};
use crate::console;

/// Signals that mean nothing here and would end the process. SIGPIPE is none of them: it is ignored
/// without a word, since each page that goes away while it is written to would cause one.
const IGNORED: [(Signal, &str); 8] = [
    (Signal::Usr1, "SIGUSR1"),
    (Signal::Usr2, "SIGUSR2"),
    (Signal::Alarm, "SIGALRM"),
    (Signal::Vtalarm, "SIGVTALRM"),
    (Signal::Prof, "SIGPROF"),
    (Signal::Io, "SIGIO"),
    (Signal::Xcpu, "SIGXCPU"),
    (Signal::Xfsz, "SIGXFSZ"),
];

/// The signals that the daemon listens to.
pub fn signals() -> io::Result<Signals> {
    Signals::new([Signal::Term, Signal::Int, Signal::Hup].into_iter().chain(IGNORED.map(|(signal, _)| signal)))
}

/// Waits for the end; reads the configuration again as often as it is told to.
pub async fn until_told_to_end(daemon: &Daemon, mut signals: Signals) {
    loop {
        let told = async { signals.next().await };
        let at_the_console = async {
            daemon.end.wait().await;
            None
        };
        match future::or(told, at_the_console).await {
            Some(Ok(Signal::Hup)) => {
                let _ = again(daemon);
            }
            Some(Err(error)) => log::warn!("a signal was lost: {error}"),
            Some(Ok(signal)) => match IGNORED.iter().find(|(ignored, _)| *ignored == signal) {
                Some((_, name)) => {
                    let line =
                        format!("{name} is ignored: SIGHUP reads the configuration again, SIGTERM drains and ends");
                    daemon.logged.borrow_mut().log(log::Level::Warn, daemon.clock.now(), &line);
                }
                None => return,
            },
            None => return,
        }
    }
}

/// Reads the configuration again; the keys that changed and wait for a restart.
///
/// # Errors
/// Everything that is wrong with it; then the one in force stays, whole.
pub fn again(daemon: &Daemon) -> Result<Vec<&'static str>, Vec<ConfigError>> {
    let Some(path) = &daemon.path else { return Ok(Vec::new()) };
    daemon.notify.reloading();
    let read = Config::load_again(path, board::SELECTED, &daemon.config.borrow());
    let result = read.map(|config| take(daemon, config));
    if let Err(errors) = &result {
        for error in errors {
            log::error!("{error}");
        }
        log::error!("the configuration stays as it was: {} error(s) in the new one", errors.len());
    }
    daemon.notify.ready(&daemon.look(console::brief));
    result
}

/// Takes what can change while pages are connected; says what waits for a restart.
fn take(daemon: &Daemon, config: Config) -> Vec<&'static str> {
    let mut running = daemon.config.borrow_mut();
    let other_pages = running.pages.listen != config.pages.listen;
    if daemon.is_inherited && other_pages {
        log::warn!("pages.listen changed, and has no effect: the service manager listens (sharelinkd.socket)");
    }
    let other_uplink = running.uplink.addresses != config.uplink.addresses;
    let waits = [
        ("pages.listen", !daemon.is_inherited && other_pages),
        ("pages.io_uring", running.pages.io_uring != config.pages.io_uring),
        ("[uplink] addresses, and the secret with them,", other_uplink),
        ("[limits]", running.board != config.board),
        (
            "[console] serial, speed, socket",
            running.console.serial != config.console.serial || running.console.socket != config.console.socket,
        ),
        ("metrics.listen", running.metrics != config.metrics),
    ];
    let waits: Vec<&str> = waits.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect();
    for key in &waits {
        log::warn!("{key} changed: takes effect after a restart");
    }
    log::set_max_level(config.log_level);
    let mut uplink = config.uplink;
    if other_uplink {
        // A secret, or none, is for the addresses that it stands with: what may go to those must not go to these.
        let config::Uplink { addresses, secret, plaintext, .. } = running.uplink.clone();
        uplink = config::Uplink { addresses, secret, plaintext, ..uplink };
    }
    let kept = Config {
        uplink,
        pages: config::Pages { listen: running.pages.listen.clone(), ..config.pages },
        board: running.board,
        console: config::Console { control: config.console.control, ..running.console.clone() },
        metrics: running.metrics,
        ..config
    };
    *running = kept;
    for note in running.notes() {
        log::warn!("{note}");
    }
    let settings = settings(&running);
    drop(running);
    daemon.step(|relay, _| relay.reconfigure(settings));
    log::info!("the configuration was read again");
    waits
}
