//! The shell: sockets, tasks, clock and signals around the pure machine.
//!
//! One process, one thread of tasks on a smol executor (async-io keeps one more thread, parked).
//! Tasks don't use channels: each mutates the machine in one `Daemon::step`, and the step wakes the
//! tasks that have work (the fan-out, the uplink's writer). The task that owns a socket pulls its
//! bytes from the machine. What prevents the start is a [`DaemonError`]. No input causes a panic.
//!
//! ```text
//! uplink.rs  -- frames -->  step  -- raises -->  fanout  -- writev -->  page sockets
//! pages.rs   -- frames -->  step  -- raises -->  uplink.rs (writes)
//! http.rs    -- upgrade -> pages.rs
//! ```

mod assets;
mod boundary;
mod budget;
mod card;
mod challenge;
pub mod connection;
mod console;
mod delivery;
mod dial;
mod ending;
mod error;
mod exchange;
mod fanout;
pub mod head;
mod heads;
mod http;
mod inherited;
mod line;
mod listen;
pub mod logging;
mod metrics;
mod options;
pub mod pages;
mod preview;
pub mod proc;
mod request;
pub mod resolve;
pub mod response;
mod sending;
mod serial;
mod signals;
mod socket_queues;
pub mod stream;
pub mod systemd;
pub mod tls;
mod upgrade;
mod uplink;
mod wake;
mod watchdog;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use smol::{LocalExecutor, Timer};

pub use self::error::DaemonError;
pub use self::exchange::{read_head, timely};
use self::fanout::Connections;
use self::inherited::Inherited;
pub use self::listen::listener;
use self::systemd::Notify;
use self::wake::{News, Signal};
use self::watchdog::{Part, Turns};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::console::{UplinkNotes, brief};
use relay::draft::Draft;
use relay::{Relay, Settings, time::Instant};

/// Interval of the machine's clock tick.
const TICK: Duration = Duration::from_millis(100);
/// Milliseconds that a shutdown waits for accepted HTTP requests to be answered before it drains.
/// By then the next relay owns the listener. Slower requests continue during the drain.
const HEADS_MS_MAX: u64 = 1_000;

/// Runs the daemon until it is asked to stop; returns the process's exit code.
#[must_use]
pub fn run(config: Config, path: PathBuf) -> ExitCode {
    logging::init(config.log_level, Clock::start());
    last_words();
    // Where the kernel uses huge pages by default (Debian's for ARM), touching the first row of
    // each table would take 2 MiB. A failure has no other effect.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Must run before smol starts a thread: it changes the environment.
    let served = Inherited::take().and_then(|inherited| {
        let executor = Rc::new(LocalExecutor::new());
        let manager = (inherited, Notify::from_environment());
        // Spawned as a task, so that it is polled only when one of its own events woke it.
        let served = executor.spawn(serve_for(Rc::clone(&executor), config, Some(path), manager, |_| {}));
        smol::block_on(budget::run(&executor, served))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if log::log_enabled!(log::Level::Error) {
                log::error!("{error}");
            } else {
                // The reason for the failure is printed even when logging is off.
                eprintln!("sharelinkd: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Installs the panic hook: a panic is a bug, and is written to the log and to the serial line
/// before the process ends.
fn last_words() {
    panic::set_hook(Box::new(|panic| {
        let text = format!("sharelinkd {} panicked, which is a bug: {panic}", env!("CARGO_PKG_VERSION"));
        serial::last_words(&format!("\n[P1] {text}\n"));
        log::error!("{text}");
    }));
}

/// Serves on an executor until the process is asked to stop (SIGTERM, SIGINT) and every page is
/// gone. Calls `ready` once with the addresses that pages may connect to, those by TLS last.
///
/// # Errors
/// What could not be started; nothing is left running.
pub async fn serve(
    executor: Rc<LocalExecutor<'static>>,
    config: Config,
    path: Option<PathBuf>,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), DaemonError> {
    serve_for(executor, config, path, (Inherited::default(), Notify::default()), ready).await
}

/// The same under a service manager: uses the sockets that it passed, and notifies it of the
/// relay's state.
async fn serve_for(
    executor: Rc<LocalExecutor<'static>>,
    config: Config,
    path: Option<PathBuf>,
    (inherited, notify): (Inherited, Notify),
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), DaemonError> {
    let signals = signals::signals().map_err(DaemonError::Signals)?;
    let listeners = listen::bind(&config.pages.listen, inherited.pages, &config.board)?;
    let tls_addresses = config.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
    let (served, unserved) =
        if config.tls.is_some() { (inherited.tls, Vec::new()) } else { (Vec::new(), inherited.tls) };
    let mut tls_listeners = listen::bind(tls_addresses, served, &config.board)?;
    tls_listeners.unserved = unserved.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    drop(unserved);
    listen::share_backlog([&listeners, &tls_listeners], &config.board)?;
    let console = console::listener(&config, inherited.console)?;
    let metrics = match config.metrics {
        Some(address) => Some(metrics::bind(address).map_err(|error| DaemonError::Metrics(address, error))?),
        None => None,
    };
    listen::raise_descriptor_limit(&config.board);
    let daemon = Daemon::new(config, path, &listeners, &tls_listeners, notify)?;
    for note in daemon.config.borrow().notes() {
        log::warn!("{note}");
    }
    log::info!("sharelinkd {} on board {}, {}", env!("CARGO_PKG_VERSION"), board::SELECTED.name, memory_text(&daemon));
    let mut tasks = Vec::new();
    let sockets = listeners.sockets.iter().map(|socket| (socket, false));
    let sockets = sockets.chain(tls_listeners.sockets.iter().map(|socket| (socket, true)));
    let accepting: Vec<_> = sockets
        .map(|(socket, is_tls)| {
            let accepting = listen::accept(Rc::clone(&daemon), Rc::clone(&executor), Rc::clone(socket), is_tls);
            (executor.spawn(accepting), daemon.holds(is_tls))
        })
        .collect();
    tasks.push(executor.spawn(fanout::run(Rc::clone(&daemon))));
    tasks.push(executor.spawn(uplink::run(Rc::clone(&daemon))));
    tasks.push(executor.spawn(tick(Rc::clone(&daemon))));
    tasks.push(executor.spawn(watchdog::feed(Rc::clone(&daemon))));
    tasks.push(executor.spawn(tls::reload::watch(Rc::clone(&daemon), tls::reload::LOOK_EVERY)));
    if daemon.notify.is_connected() {
        tasks.push(executor.spawn(systemd::keep_status(Rc::clone(&daemon))));
    }
    if let Some(listener) = &console {
        let listener = Rc::clone(&listener.socket);
        tasks.push(executor.spawn(console::accept(Rc::clone(&daemon), Rc::clone(&executor), listener)));
    }
    if let Some(listener) = metrics {
        if let Ok(address) = listener.get_ref().local_addr() {
            log::info!("metrics are served at http://{address}/metrics");
        }
        tasks.push(executor.spawn(metrics::accept(Rc::clone(&daemon), Rc::clone(&executor), listener)));
    }
    if let Some(serial) = daemon.config.borrow().console.serial.clone() {
        tasks.push(executor.spawn(serial::run(Rc::clone(&daemon), serial)));
    }
    let mut list = addresses_text(&daemon.listening);
    if !daemon.tls_listening.is_empty() {
        list = format!("{list}, by TLS to {}", addresses_text(&daemon.tls_listening));
    }
    log_addresses_in_force(&daemon);
    if log::log_enabled!(log::Level::Info) {
        log::info!("ready: pages connect to {list}");
    } else if !daemon.notify.is_connected() {
        // A process that starts the relay waits for this line, so it is printed even when logging
        // is off.
        eprintln!("ready: pages connect to {list}");
    }
    daemon.notify.ready(&daemon.look(brief));
    ready(&[&daemon.listening[..], &daemon.tls_listening].concat());
    signals::until_told_to_end(&daemon, signals).await;
    daemon.notify.stopping(Duration::from_secs(daemon.config.borrow().pages.drain_s.into()));
    for (task, is_held) in accepting {
        // New connections now wait in the kernel's backlog for the next relay. Accepted here, they
        // would only be refused.
        if is_held {
            task.cancel().await;
        } else {
            tasks.push(task);
        }
    }
    if daemon.is_inherited || daemon.is_tls_inherited {
        answer_heads(&daemon).await;
    }
    drain(&daemon).await;
    serial::last_words("\nsharelinkd has ended\n");
    if let Some(path) = console.and_then(|console| console.path) {
        // If this fails, the next relay replaces the file.
        let _ = std::fs::remove_file(path);
    }
    for task in tasks {
        task.cancel().await;
    }
    Ok(())
}

fn addresses_text(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Logs which addresses are in force, when a unit file and the configuration name different ones.
fn log_addresses_in_force(daemon: &Daemon) {
    let config = daemon.config.borrow();
    if !daemon.tls_unserved.is_empty() {
        log::warn!(
            "nobody serves {}, where the service manager listens for pages by TLS (sharelinkd-tls.socket): TLS is off; {}",
            addresses_text(&daemon.tls_unserved),
            crate::console::TLS_UNSERVED
        );
    }
    let tls = config.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
    let kinds = [
        (daemon.is_inherited, &config.pages.listen[..], &daemon.listening, ("", "sharelinkd.socket", "pages.listen")),
        (daemon.is_tls_inherited, tls, &daemon.tls_listening, (" by TLS", "sharelinkd-tls.socket", "tls.listen")),
    ];
    for (is_inherited, written, held, (how, unit, key)) in kinds {
        if is_inherited && written != held {
            // Nobody wrote the default, so overriding it is not worth a warning.
            let level = if written == config::listen_default() { log::Level::Info } else { log::Level::Warn };
            let (held, written) = (addresses_text(held), addresses_text(written));
            log::log!(
                level,
                "pages connect{how} to {held}, where the service manager listens (ListenStream= in {unit}); \
                 {key} = {written} has no effect"
            );
        }
    }
}

/// Everything that the tasks share.
pub(crate) struct Daemon {
    relay: RefCell<Box<Relay>>,
    connections: RefCell<Connections>,
    draft: RefCell<Draft>,
    config: RefCell<Config>,
    /// The configuration file; none if the configuration came from no file.
    path: Option<PathBuf>,
    /// The addresses that pages connect to.
    listening: Vec<SocketAddr>,
    /// The addresses that pages connect to by TLS.
    tls_listening: Vec<SocketAddr>,
    /// Where the service manager passed listeners for pages by TLS, which is off; they are closed
    /// here, and stay open there. No reason to end: pages without TLS would lose their relay, and
    /// the service manager would repeat the start every 2 s.
    tls_unserved: Vec<SocketAddr>,
    /// TLS for pages; none if it is off.
    tls: Option<tls::Server>,
    /// Whether the service manager holds the listeners; then `pages.listen` has no effect.
    is_inherited: bool,
    /// The same of the listeners by TLS, and `tls.listen`.
    is_tls_inherited: bool,
    notify: Notify,
    turns: Turns,
    clock: Clock,
    /// Raised by `drain` at the console: shut down.
    end: Signal,
    /// Raised when pages have frames ahead.
    serve: Signal,
    /// Raised when the uplink has something to write or to decide.
    uplink: Signal,
    /// Wakes previews when one of them may have its card.
    previews: News,
    heads: RefCell<heads::Heads>,
    answers: RefCell<http::Answers>,
    scrapers: RefCell<heads::Heads>,
    logged: RefCell<logging::Repeats>,
    /// How names of the business server are resolved.
    resolver: resolve::Resolver,
    /// What the console shows of the uplink, besides the machine's own state.
    uplink_notes: RefCell<UplinkNotes>,
}

impl Daemon {
    fn new(
        config: Config,
        path: Option<PathBuf>,
        listeners: &listen::Listeners,
        tls_listeners: &listen::Listeners,
        notify: Notify,
    ) -> Result<Rc<Self>, DaemonError> {
        let clock = Clock::start();
        let tls = config.tls.as_ref().map(|tls| tls::Server::new(tls, &config.board, clock)).transpose()?;
        let seed = getrandom::u64().map_err(DaemonError::Random)?;
        let relay = Relay::new(&config.board, settings(&config), seed, clock.now());
        Ok(Rc::new(Self {
            connections: RefCell::new(Connections::new(config.board.pages_max)),
            heads: RefCell::new(heads::Heads::new(config.board.heads_max)),
            answers: RefCell::default(),
            scrapers: RefCell::new(heads::Heads::of_scrapers(board::METRICS_MAX)),
            relay: RefCell::new(relay),
            draft: RefCell::default(),
            config: RefCell::new(config),
            path,
            listening: listeners.addresses.clone(),
            tls_listening: tls_listeners.addresses.clone(),
            tls_unserved: tls_listeners.unserved.clone(),
            tls,
            is_inherited: listeners.are_inherited,
            is_tls_inherited: tls_listeners.are_inherited,
            notify,
            turns: Turns::default(),
            clock,
            end: Signal::default(),
            serve: Signal::default(),
            uplink: Signal::default(),
            previews: News::default(),
            logged: RefCell::default(),
            resolver: resolve::Resolver::default(),
            uplink_notes: RefCell::default(),
        }))
    }

    /// Whether the service manager holds the listeners of pages by TLS, or of those without.
    const fn holds(&self, is_tls: bool) -> bool {
        if is_tls { self.is_tls_inherited } else { self.is_inherited }
    }

    /// The only way to mutate the machine: checks its bounds, logs its events, and wakes the tasks
    /// that have work now.
    fn step<T>(&self, mutate: impl FnOnce(&mut Relay, Instant) -> T) -> T {
        let now = self.clock.now();
        let mut relay = self.relay.borrow_mut();
        let (queued, preview_news) = (relay.uplink_queued(), relay.preview_news());
        let result = mutate(&mut relay, now);
        relay.check_bounds();
        while let Some(event) = relay.poll_event() {
            let level = if event.is_warning() { log::Level::Warn } else { log::Level::Info };
            self.logged.borrow_mut().log(level, now, &event);
        }
        if relay.has_pages_to_serve() {
            self.serve.raise();
        }
        if relay.preview_news() != preview_news {
            self.previews.wake_all();
        }
        // Bytes queued earlier have the uplink's task waiting already, for room in its socket.
        if relay.uplink_queued() > queued {
            self.uplink.raise();
        }
        result
    }
}

/// The part of the configuration that the machine needs.
fn settings(config: &Config) -> Settings {
    Settings {
        name: config.uplink.name.clone(),
        secret: config.uplink.secret.bytes().to_vec(),
        entries: u32::try_from(config.uplink.addresses.len()).unwrap_or(u32::MAX),
        dead_after_ms: u64::from(config.uplink.dead_after_s) * 1000,
        linger_ms: u64::from(config.uplink.linger_s) * 1000,
        pages_per_address: config.pages_per_address,
    }
}

fn memory_text(daemon: &Daemon) -> String {
    let config = daemon.config.borrow();
    let sum = board::memory_sum(&config.board);
    format!(
        "memory at most {}: process {}, kernel {}",
        board::size_text(sum.total()),
        board::size_text(sum.process()),
        board::size_text(sum.kernel())
    )
}

/// Advances the machine's time.
async fn tick(daemon: Rc<Daemon>) {
    loop {
        Timer::after(TICK).await;
        let wakes_uplink = daemon.step(|relay, now| {
            // Read first: `handle_timeout` sends a ping that is due, or finds no room for it; then
            // it is no longer due.
            let is_due = relay.uplink_deadline() <= now;
            relay.handle_timeout(now);
            is_due || relay.uplink_fault(now).is_some()
        });
        if wakes_uplink {
            daemon.uplink.raise();
        }
        socket_queues::measure(&daemon);
        daemon.logged.borrow_mut().flush(daemon.clock.now());
        daemon.turns.pass(Part::Tick);
    }
}

/// Lets requests accepted before the drain finish; waits at most `HEADS_MS_MAX`.
async fn answer_heads(daemon: &Daemon) {
    let end = daemon.clock.now().after(HEADS_MS_MAX);
    while daemon.heads.borrow().count() > 0 && daemon.clock.now() < end {
        Timer::after(TICK / 4).await;
    }
}

/// Drains: closes every page and waits until all are gone, or until `pages.drain_s` is over.
async fn drain(daemon: &Daemon) {
    daemon.step(|relay, now| relay.drain(now));
    let pages = daemon.relay.borrow().pages();
    log::info!("draining: {pages} page{} told to reconnect", if pages == 1 { "" } else { "s" });
    let end = daemon.clock.now().after(u64::from(daemon.config.borrow().pages.drain_s) * 1000);
    while daemon.relay.borrow().pages() > 0 && daemon.clock.now() < end {
        Timer::after(TICK / 4).await;
    }
    let left = daemon.relay.borrow().pages();
    if left > 0 {
        log::warn!("{left} pages did not answer and are cut off");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use board::HOST;
    use relay::rig::Rig;

    impl Daemon {
        /// A daemon around this machine, without sockets.
        pub(in crate::daemon) fn of(rig: Rig) -> Rc<Self> {
            let config = Config::of_defaults(&HOST).unwrap();
            let listeners = listen::Listeners::default();
            let daemon = Self::new(config, None, &listeners, &listeners, Notify::default()).unwrap();
            *daemon.relay.borrow_mut() = rig.relay;
            daemon
        }

        /// A daemon with this configuration and resolver, without listeners.
        pub(in crate::daemon) fn with(text: &str, resolver: resolve::Resolver) -> Rc<Self> {
            let config = Config::parse(text, &HOST, &config::Surroundings::without_files("box")).unwrap();
            let listeners = listen::Listeners::default();
            let mut daemon = Self::new(config, None, &listeners, &listeners, Notify::default()).unwrap();
            Rc::get_mut(&mut daemon).unwrap().resolver = resolver;
            daemon
        }
    }

    /// Runs itself in a child process that panics.
    #[test]
    fn a_panic_is_told_before_the_process_ends() {
        const PANICS: &str = "no test has this name";
        if std::env::args().any(|argument| argument == PANICS) {
            logging::init(log::LevelFilter::Info, Clock::start());
            last_words();
            panic!("on purpose");
        }
        let name = "daemon::tests::a_panic_is_told_before_the_process_ends";
        let mut again = Command::new(std::env::current_exe().unwrap());
        let ended = again.args(["--exact", name, "--nocapture", "--skip", PANICS]).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains("panicked, which is a bug"), "{said}");
        assert!(said.contains("on purpose") && said.contains("src/daemon/mod.rs"), "{said}");
    }
}
