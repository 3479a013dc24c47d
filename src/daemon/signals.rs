//! Signals: shut down (SIGTERM, SIGINT), reload the configuration (SIGHUP), and those without a
//! meaning here.
//!
//! Most signals would by default end the process, and with it every page's connection. Those that
//! people and tools send as a request (SIGUSR1 and the like) are logged and ignored. SIGQUIT still
//! ends at once, and job control stops and continues. A reload applies a complete, valid
//! configuration or nothing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};

use super::{Daemon, settings};
use crate::config::{self, Config, ConfigError, Tls, UplinkTls};
use crate::console;

/// Ignored signals that would end the process. SIGPIPE is ignored without a log line: each page
/// that leaves while it is written to would cause one.
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

/// The signals that the daemon handles.
pub fn signals() -> io::Result<Signals> {
    Signals::new([Signal::Term, Signal::Int, Signal::Hup].into_iter().chain(IGNORED.map(|(signal, _)| signal)))
}

/// Waits for the request to shut down; meanwhile reloads the configuration on each SIGHUP.
pub async fn until_told_to_end(daemon: &Daemon, mut signals: Signals) {
    loop {
        let signal = async { signals.next().await };
        let at_the_console = async {
            daemon.end.wait().await;
            None
        };
        match future::or(signal, at_the_console).await {
            Some(Ok(Signal::Hup)) => {
                let _ = again(daemon);
            }
            Some(Err(error)) => log::warn!("a signal was lost: {error}"),
            Some(Ok(signal)) => match IGNORED.iter().find(|(ignored, _)| *ignored == signal) {
                Some((_, name)) => {
                    let line = format!("{name} is ignored: SIGHUP reloads the configuration, SIGTERM drains and exits");
                    daemon.logged.borrow_mut().log(log::Level::Warn, daemon.clock.now(), &line);
                }
                None => return,
            },
            None => return,
        }
    }
}

/// Reloads the configuration; returns the keys that changed and need a restart.
///
/// # Errors
/// Everything that is wrong with the new one; the one in force stays.
pub fn again(daemon: &Daemon) -> Result<Vec<&'static str>, Vec<ConfigError>> {
    let Some(path) = &daemon.path else { return Ok(Vec::new()) };
    daemon.notify.reloading();
    let read = Config::load_again(path, board::SELECTED, &daemon.config.borrow());
    let result = read.and_then(|config| {
        take_certificates(daemon, path, &config)?;
        Ok(take(daemon, config))
    });
    if let Err(errors) = &result {
        // A renewal doesn't wait until the rest of the configuration is good.
        if let Some(server) = &daemon.tls {
            server.look(true);
        }
        for error in errors {
            log::error!("{error}");
        }
        log::error!("the configuration stays as it was: {} error(s) in the new one", errors.len());
    }
    daemon.notify.ready(&daemon.look(console::brief));
    result
}

/// Takes the certificates of another configuration; looks for new ones of the same if it has none.
fn take_certificates(daemon: &Daemon, path: &Path, config: &Config) -> Result<(), Vec<ConfigError>> {
    let Some(server) = &daemon.tls else { return Ok(()) };
    let Some(tls) = &config.tls else {
        server.look(true);
        return Ok(());
    };
    let error = |(line, (what, remedy))| ConfigError {
        file: path.to_owned(),
        line,
        what: format!("[tls] certificates: {what}"),
        remedy,
    };
    server.take(tls).map_err(|wrong| wrong.into_iter().map(error).collect())
}

/// Applies what can change while pages are connected; returns the keys that need a restart.
fn take(daemon: &Daemon, config: Config) -> Vec<&'static str> {
    let mut running = daemon.config.borrow_mut();
    let wanted = config::changes(&running, &config);
    let other_pages = running.pages.listen != config.pages.listen;
    let other_tls = tls_listen(&running) != tls_listen(&config);
    for (key, is_other, is_held, unit) in [
        ("pages.listen", other_pages, daemon.is_inherited, "sharelinkd.socket"),
        ("tls.listen", other_tls, daemon.is_tls_inherited, "sharelinkd-tls.socket"),
    ] {
        if is_held && is_other {
            log::warn!("{key} changed, but has no effect: the service manager holds the listeners ({unit})");
        }
    }
    // In whatever order: with `spread` a name changes it.
    let entries = |uplink: &config::Uplink| {
        let mut entries: Vec<_> = uplink.addresses.iter().map(ToString::to_string).collect();
        entries.sort_unstable();
        entries
    };
    let other_uplink = entries(&running.uplink) != entries(&config.uplink);
    let (was, will_be) = (&running.uplink, &config.uplink);
    for (key, is_other) in [
        ("uplink.secret", !other_uplink && was.secret != will_be.secret),
        ("[uplink.tls]", !other_uplink && without_notes(was) != without_notes(will_be)),
        ("uplink.name", was.name != will_be.name),
    ] {
        if is_other && daemon.relay.borrow().is_up() {
            log::warn!("{key} changed: takes effect with the next connection to the business server");
        }
    }
    let waits = [
        ("pages.listen", !daemon.is_inherited && other_pages),
        ("tls.listen", !daemon.is_tls_inherited && other_tls),
        ("pages.io_uring", running.pages.io_uring != config.pages.io_uring),
        ("[uplink] addresses, and order, secret, plaintext and tls with them,", other_uplink),
        ("the order of [uplink] addresses", !other_uplink && running.uplink.addresses != config.uplink.addresses),
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
        // A secret, or its absence, belongs to the addresses that it was configured with, and so
        // does TLS. The new secret must not go to the old addresses.
        let config::Uplink { addresses, order, secret, tls, plaintext, .. } = running.uplink.clone();
        uplink = config::Uplink { addresses, order, secret, tls, plaintext, ..uplink };
    } else {
        // The machine knows them by their places.
        uplink.addresses.clone_from(&running.uplink.addresses);
        uplink.order = running.uplink.order;
    }
    let kept = Config {
        uplink,
        tls: tls_kept(&running, config.tls),
        pages: config::Pages { listen: running.pages.listen.clone(), io_uring: running.pages.io_uring, ..config.pages },
        board: running.board,
        console: config::Console { control: config.console.control, ..running.console.clone() },
        metrics: running.metrics,
        ..config
    };
    let changes = config::changes(&running, &kept);
    *running = kept;
    for note in running.notes() {
        log::warn!("{note}");
    }
    let settings = settings(&running);
    drop(running);
    daemon.step(|relay, _| relay.reconfigure(settings));
    let later: Vec<&str> = wanted.iter().filter(|key| !changes.contains(key)).map(String::as_str).collect();
    let now = if changes.is_empty() { "nothing".to_owned() } else { changes.join(", ") };
    let later = if later.is_empty() { String::new() } else { format!("; not in effect: {}", later.join(", ")) };
    log::info!("configuration reloaded: {now} changed{later}");
    waits
}

/// `[uplink.tls]` as it is written: what its files hold is noted anew at each reading.
fn without_notes(uplink: &config::Uplink) -> Option<UplinkTls> {
    uplink.tls.clone().map(|tls| UplinkTls { notes: Vec::new(), ..tls })
}

/// Where pages connect by TLS; nowhere without TLS.
fn tls_listen(config: &Config) -> &[SocketAddr] {
    config.tls.as_ref().map_or(&[], |tls| &tls.listen)
}

/// The listeners that are open, with everything else as configured now. If TLS was off at the start
/// it stays off; if it is no longer configured, it goes on with the certificates that it has.
fn tls_kept(running: &Config, configured: Option<Tls>) -> Option<Tls> {
    let running = running.tls.as_ref()?;
    let configured = configured.unwrap_or_else(|| {
        let mut running = running.clone();
        // They are of the last reading.
        for files in &mut running.certificates {
            files.notes.clear();
        }
        running
    });
    Some(Tls { listen: running.listen.clone(), ..configured })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Surroundings;
    use crate::config::certificate_notes::Report;
    use board::HOST;

    #[test]
    fn a_remark_on_a_file_is_no_change_of_the_uplink() {
        let uplink = |note: &str, pin: &str| {
            let text = format!("[uplink.tls]\nca_file = \"ca\"\nname = \"b\"\npin = \"{pin}\"\n");
            let check_ca = |_: &Path| Ok(vec![note.to_owned()]);
            let around = Surroundings { check_ca: &check_ca, ..Surroundings::without_files("box") };
            Config::parse(&text, &HOST, &around).unwrap().uplink
        };
        let [one, two] = ["1", "2"].map(|digit| digit.repeat(64));
        assert_eq!(without_notes(&uplink("it expires soon", &one)), without_notes(&uplink("it expired", &one)));
        assert_ne!(without_notes(&uplink("", &one)), without_notes(&uplink("", &two)));
    }

    /// A configuration with TLS at these addresses; without TLS at none.
    fn config(listen: &[&str], version: &str) -> Config {
        let pair = "certificates = [{ certificate_file = \"a\", key_file = \"b\" }]";
        let tls = format!("[tls]\nlisten = {listen:?}\nmin_version = \"{version}\"\n{pair}\n");
        let around = Surroundings { check_pair: &|_, _| Ok(Report::default()), ..Surroundings::without_files("box") };
        Config::parse(if listen.is_empty() { "" } else { &tls }, &HOST, &around).unwrap()
    }

    #[test]
    fn a_reload_keeps_the_listeners_of_tls_and_takes_everything_else() {
        let (off, on) = (config(&[], "1.2"), config(&["127.0.0.1:443"], "1.2"));
        let elsewhere = config(&["127.0.0.1:444"], "1.3");
        assert_eq!(tls_kept(&on, elsewhere.tls.clone()), config(&["127.0.0.1:443"], "1.3").tls);
        assert_eq!(tls_kept(&on, None), on.tls, "its pages still come");
        assert_eq!(tls_kept(&off, elsewhere.tls.clone()), None, "nothing listens");
        assert_ne!(tls_listen(&on), tls_listen(&elsewhere));
        assert_eq!(tls_listen(&off), []);
    }
}
