//! Signals: end (SIGTERM, SIGINT) and read the configuration again (SIGHUP).

use std::io;
use std::path::PathBuf;

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;

use super::{Daemon, settings, systemd};
use crate::board;
use crate::config::Config;

/// The signals that the daemon listens to.
pub fn signals() -> io::Result<Signals> {
    Signals::new([Signal::Term, Signal::Int, Signal::Hup])
}

/// Waits for the end; reads the configuration again as often as it is told to.
pub async fn until_told_to_end(daemon: &Daemon, path: Option<PathBuf>, mut signals: Signals) {
    while let Some(signal) = signals.next().await {
        match (signal, &path) {
            (Ok(Signal::Hup), Some(path)) => {
                systemd::notify("RELOADING=1");
                match Config::load(path, board::SELECTED) {
                    Ok(config) => take(daemon, config),
                    Err(errors) => {
                        for error in &errors {
                            log::error!("{error}");
                        }
                        log::error!("the configuration stays as it was: {} error(s) in the new one", errors.len());
                    }
                }
                systemd::notify("READY=1");
            }
            (Ok(Signal::Hup), None) => {}
            (Ok(_), _) => return,
            (Err(error), _) => log::warn!("a signal was lost: {error}"),
        }
    }
}

/// Takes what can change while pages are connected; says what waits for a restart.
fn take(daemon: &Daemon, config: Config) {
    let mut running = daemon.config.borrow_mut();
    let waits = [
        ("pages.listen", running.pages.listen != config.pages.listen),
        ("uplink.addresses", running.uplink.addresses != config.uplink.addresses),
        ("[limits]", running.board != config.board),
        ("[console]", running.console != config.console),
        ("metrics.listen", running.metrics != config.metrics),
    ];
    for (key, _) in waits.iter().filter(|(_, changed)| *changed) {
        log::warn!("{key} changed: that takes a restart");
    }
    log::set_max_level(config.log_level);
    let kept = Config {
        uplink: crate::config::Uplink { addresses: running.uplink.addresses.clone(), ..config.uplink },
        pages: crate::config::Pages { listen: running.pages.listen.clone(), ..config.pages },
        board: running.board,
        console: running.console.clone(),
        metrics: running.metrics,
        ..config
    };
    *running = kept;
    let settings = settings(&running);
    drop(running);
    daemon.step(|relay, _| relay.reconfigure(settings));
    log::info!("the configuration was read again");
}
