//! `sharelink-hub run`: the hub on its sockets, from the start to a signal.
//!
//! Owns the listeners and the tasks, the order of start and end, and the signals. What a reload
//! changes is in `run/reload.rs`. Decides nothing about topics, links or relays. `dev` starts the
//! same hub.

mod reload;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::RootCertStore;
use sharelinkd::daemon::systemd::Notify;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::Config,
    http, logging, relays,
    revocations::Revocations,
    secrets,
    shared::{Shared, moment_us},
    tls, webhook,
};

/// Requests under way have this time at the end, and relays this time after them.
const REQUESTS_TIME: Duration = Duration::from_secs(5);
const RELAYS_TIME: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted: the kernel may have a lower limit.
const BACKLOG: u32 = 1024;

/// A hub that runs.
pub struct Running {
    /// The machine.
    pub shared: Arc<Shared>,
    /// Where the API is.
    pub api: Vec<SocketAddr>,
    /// Where relays connect.
    pub uplink: Vec<SocketAddr>,
    /// The configuration in force.
    config: Config,
    http: watch::Sender<Arc<http::Settings>>,
    webhook: watch::Sender<Option<Arc<webhook::Settings>>>,
    api_tls: watch::Sender<Option<TlsAcceptor>>,
    uplink_tls: watch::Sender<Option<TlsAcceptor>>,
    api_tasks: Vec<JoinHandle<()>>,
    uplink_tasks: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Runs the hub until it is asked to end; returns the process's exit code.
pub fn run(config: Config, path: PathBuf) -> ExitCode {
    logging::set(config.log);
    match block_on(serve(config, path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if log::log_enabled!(log::Level::Error) {
                log::error!("{error}");
            } else {
                eprintln!("sharelink-hub: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a future on a runtime of its own.
///
/// # Errors
/// The future's, or why there is no runtime.
pub fn block_on(future: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("can't start: {error}"))?;
    let result = runtime.block_on(future);
    // What still looks up a name is not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, path: PathBuf) -> Result<(), String> {
    let notify = Notify::from_environment();
    let mut signals = Signals::new().map_err(|error| format!("can't install signal handlers: {error}"))?;
    let mut running = Running::start(config)?;
    for note in running.config.notes() {
        log::warn!("{note}");
    }
    let ready = running.ready();
    if log::log_enabled!(log::Level::Info) {
        log::info!("{ready}");
    } else if !notify.is_connected() {
        // A process that starts the hub waits for this line, so it is printed even when logging is
        // off.
        eprintln!("{ready}");
    }
    notify.ready(&ready);
    while signals.next().await == Asked::Reload {
        notify.reloading();
        running.reload(&path);
        notify.ready(&running.ready());
    }
    notify.stopping(REQUESTS_TIME + RELAYS_TIME);
    running.end().await;
    Ok(())
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Reload the configuration.
    Reload,
    /// End.
    End,
}

/// The signals that the hub handles.
pub struct Signals {
    hangup: Signal,
    end: [Signal; 2],
    ignored: [Signal; 2],
}

impl Signals {
    /// Handles them from now on.
    ///
    /// # Errors
    /// The system's own.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            end: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            ignored: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for the next one that asks for something.
    pub async fn next(&mut self) -> Asked {
        let Self { hangup, end: [terminate, interrupt], ignored: [one, two] } = self;
        loop {
            tokio::select! {
                _ = hangup.recv() => return Asked::Reload,
                _ = terminate.recv() => return Asked::End,
                _ = interrupt.recv() => return Asked::End,
                _ = one.recv() => {}
                _ = two.recv() => {}
            }
            log::warn!("a signal is ignored: SIGHUP reloads the configuration, SIGTERM ends the hub");
        }
    }
}

impl Running {
    /// Binds the listeners and starts all tasks.
    ///
    /// # Errors
    /// What could not be started; nothing is left running.
    pub fn start(config: Config) -> Result<Self, String> {
        let api = bind("api", &config.api.listen)?;
        let uplink = bind("uplink", &config.uplink.listen)?;
        let parts = Parts::of(&config, None).map_err(|(what, remedy)| format!("{what}; {remedy}"))?;
        raise_descriptor_limit();
        let random = secrets::random()?;
        let kept = config.revocations_file.as_deref().map(|path| {
            let opened = Revocations::open(path, moment_us() / 1_000_000);
            opened.map_err(|error| format!("[topics] revocations_file {}: {error}", path.display()))
        });
        let (shared, outgoing) = Shared::new(config.hub(&random), config.numbers.engine(), kept.transpose()?);
        let (http, http_settings) = watch::channel(Arc::new(config.http()));
        let (webhook, webhook_settings) = watch::channel(parts.webhook);
        let (api_tls, api_acceptor) = watch::channel(parts.api_tls);
        let (uplink_tls, uplink_acceptor) = watch::channel(parts.uplink_tls);
        let addresses = |listeners: &[TcpListener]| listeners.iter().flat_map(TcpListener::local_addr).collect();
        let (api_addresses, uplink_addresses) = (addresses(&api), addresses(&uplink));
        let tasks = vec![
            tokio::spawn(logging::keep_on()),
            tokio::spawn({
                let shared = Arc::clone(&shared);
                async move { shared.keep_time().await }
            }),
            tokio::spawn(webhook::serve(Arc::clone(&shared), webhook_settings, outgoing)),
        ];
        let serve = |listener| relays::serve(Arc::clone(&shared), listener, uplink_acceptor.clone());
        let uplink_tasks = uplink.into_iter().map(|listener| tokio::spawn(serve(listener))).collect();
        // Its limits are over all listeners.
        let of_api = http::Api::new(
            Arc::clone(&shared),
            http_settings,
            usize::try_from(config.numbers.streams).unwrap_or(usize::MAX),
        );
        let serve = |listener| http::serve(Arc::clone(&of_api), listener, api_acceptor.clone());
        let api_tasks = api.into_iter().map(|listener| tokio::spawn(serve(listener))).collect();
        Ok(Self {
            shared,
            api: api_addresses,
            uplink: uplink_addresses,
            config,
            http,
            webhook,
            api_tls,
            uplink_tls,
            api_tasks,
            uplink_tasks,
            tasks,
        })
    }

    /// The line that says that it serves.
    pub fn ready(&self) -> String {
        let list = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let by = |certificate: bool| if certificate { " by TLS" } else { "" };
        format!(
            "ready: the API is at {}{}, relays connect to {}{}",
            list(&self.api),
            by(self.config.api.certificate.is_some()),
            list(&self.uplink),
            by(self.config.uplink.certificate.is_some())
        )
    }

    /// Changes the URL of the share pages.
    pub fn set_pages_url(&mut self, url: &str) {
        self.config.links.pages_url = Some(url.to_owned());
        self.http.send_replace(Arc::new(self.config.http()));
    }

    /// Stops accepting, lets requests under way finish, then relays take what was acknowledged.
    pub async fn end(self) {
        self.uplink_tasks.iter().for_each(JoinHandle::abort);
        // That is how the API's tasks learn it.
        drop(self.http);
        let mut api_tasks = self.api_tasks;
        let requests = async {
            for task in &mut api_tasks {
                let _ = task.await;
            }
        };
        if timeout(REQUESTS_TIME, requests).await.is_err() {
            log::warn!("requests are still under way after {} s: they are cut off", REQUESTS_TIME.as_secs());
        }
        if timeout(RELAYS_TIME, self.shared.end_relays()).await.is_err() {
            log::warn!("relays are still connected after {} s: they are cut off", RELAYS_TIME.as_secs());
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        log::info!("ended");
    }
}

/// What is made of the files that the configuration names.
struct Parts {
    webhook: Option<Arc<webhook::Settings>>,
    api_tls: Option<TlsAcceptor>,
    uplink_tls: Option<TlsAcceptor>,
}

impl Parts {
    /// With the system's CAs that are known, for where they can't be read now.
    fn of(config: &Config, known: Option<Arc<RootCertStore>>) -> Result<Self, sharelinkd::config::Wrong> {
        Ok(Self {
            webhook: config.webhook(known)?,
            api_tls: tls::api(config.api.certificate.as_ref())?,
            uplink_tls: tls::uplink(
                config.uplink.certificate.as_ref(),
                config.uplink.ca_file.as_deref().map(Path::new),
            )?,
        })
    }
}

fn bind(section: &str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    addresses.iter().map(|address| listener(*address).map_err(|error| refused(section, *address, &error))).collect()
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Why an address can't be listened on, with the remedy.
pub fn refused(section: &str, address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it, or choose another port".to_owned(),
        io::ErrorKind::PermissionDenied => "a port below 1024 needs root or CAP_NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine doesn't have that address".to_owned(),
        _ => error.to_string(),
    };
    format!("[{section}] listen: can't listen on {address}: {remedy}")
}

/// Each connection has a descriptor; the usual soft limit is 1024.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::warn!("the limit of open files can't be raised: {error}");
    }
}
