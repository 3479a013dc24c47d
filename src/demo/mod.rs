//! `sharelinkd demo`: a relay and a demo business server in one process, joined by a real uplink.
//!
//! The business server is the library `crates/business`. `stage.rs` with `script.rs`, `lines.rs`
//! and `clip.rs` runs its room; `host.rs` serves the page from which a host controls the room;
//! `crates/media` splits a browser's recording. This file binds the ports, starts everything on one
//! executor and prints the addresses. The daemon is started as by `run`, and does not know that
//! this is a demo.

use std::{
    future::pending,
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use futures_lite::FutureExt as _;
use smol::{Async, LocalExecutor, Timer};
use socket2::{Domain, Protocol, Socket, Type};

pub mod clip;
mod clock;
mod host;
mod lines;
mod reach;
mod script;
mod stage;
mod uplink_tls;
mod watchers;

use crate::{
    config::{Config, Surroundings},
    daemon,
};
use business::{Limits, Settings, serve::Server};
use reach::{Reach, Secure};
use stage::Stage;

/// The options of the demo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The share page's port. 0 is any free one; `None` is the default or, if that is
    /// in use, the next free one.
    pub pages_port: Option<u16>,
    /// The host page's port, likewise.
    pub host_port: Option<u16>,
    /// Whether both pages are served by TLS.
    pub tls: bool,
    /// The address that both pages are served at; `None` is loopback.
    pub listen: Option<IpAddr>,
    /// Further origins whose pages may connect.
    pub origins: Vec<String>,
    /// The directory with the certificates for TLS on the uplink; `None` is without TLS.
    pub uplink_tls: Option<PathBuf>,
}

/// The default port of the share page.
pub const PAGES_PORT: u16 = 8080;
/// The default port of the host page.
pub const HOST_PORT: u16 = 8081;
/// If a default port is in use, this many of the following ones are tried.
const PORTS_TRIED: u16 = 20;
/// Timeout for the relay to connect, which normally takes milliseconds.
const RELAY_LIMIT: Duration = Duration::from_secs(10);

/// Runs the demo until Ctrl-C.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    // A constant of the build: if it is false, the demo is not linked in.
    if !board::SELECTED.demo {
        eprintln!(
            "sharelinkd demo: a binary for the board {} has no demo; run it on another machine, and point this relay's [uplink] addresses at a business server",
            board::SELECTED.name
        );
        return ExitCode::FAILURE;
    }
    // Warnings go to standard error. A logger that is already installed is kept.
    if simple_logger::SimpleLogger::new().with_utc_timestamps().init().is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    let executor = Rc::new(LocalExecutor::new());
    match smol::block_on(executor.run(demo(Rc::clone(&executor), options))) {
        Ok(()) => {
            say("\nThe demo has stopped.");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("sharelinkd demo: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(executor: Rc<LocalExecutor<'static>>, options: Options) -> Result<(), String> {
    let reach = Reach::new(options.listen, options.tls)?;
    // Check a requested port first: if it is in use, print only that error.
    if options.pages_port.is_some() {
        drop(listen(reach.ip, options.pages_port, PAGES_PORT, 0, "--port")?);
    }
    let beside = options.pages_port.unwrap_or(PAGES_PORT);
    let host_listener = listen(reach.ip, options.host_port, HOST_PORT, beside, "--host-port")?;
    let host = address(&host_listener)?;
    // The relay binds its own listener; this one only finds out which port is free.
    let pages = address(&listen(reach.ip, options.pages_port, PAGES_PORT, host.port(), "--port")?)?;
    let uplink_listener = listen(Ipv4Addr::LOCALHOST.into(), Some(0), 0, 0, "")?;
    let uplink = address(&uplink_listener)?;
    let share = reach.link(pages.port(), &format!("/s/{}", stage::LINK));

    let tls = options.uplink_tls.as_deref().map(uplink_tls::load).transpose()?;
    let (server_tls, section) = tls.map_or((None, String::new()), |tls| (Some(tls.server), tls.section));
    let secret = secret()?;
    let unknown_link = format!("这个演示只有一个房间：/s/{0} · This demo has one room: /s/{0}", stage::LINK);
    let business = Server::new(settings(secret.clone().into_bytes()), &unknown_link);
    let stage = Stage::new(Rc::clone(&business), share.clone()).map_err(|error| error.to_string())?;

    let business_server = async {
        let (business, listener) = (Rc::clone(&business), non_blocking(uplink_listener)?);
        let served = match server_tls {
            Some(tls) => business.serve_tls(listener, tls).await,
            None => business.serve(listener).await,
        };
        Err(format!("the business server has stopped: {served:?}"))
    };
    let host_server = async {
        let door = host::Door::new(&reach);
        let served = host::serve(Rc::clone(&stage), door, non_blocking(host_listener)?).await;
        Err(format!("the host page has stopped: {served:?}"))
    };
    let room = async {
        stage.talk().or(stage.play()).or(stage.listen()).await;
        Err("the room has stopped".to_owned())
    };
    let announced = async {
        announce(&business, &reach, &share, host.port()).await?;
        pending().await
    };
    // The first to end ends the demo: the relay on Ctrl-C, after its drain, or any failure.
    let uplink = format!("addresses = [\"{uplink}\"]\nsecret = \"{secret}\"\n{section}");
    let relay = relay(executor, &reach, pages, &uplink, &options.origins);
    let servers = Box::pin(business_server).or(Box::pin(host_server)).or(Box::pin(room));
    Box::pin(relay).or(servers).or(Box::pin(announced)).await
}

/// The relay, started as `sharelinkd run` starts it, until a signal ends it.
async fn relay(
    executor: Rc<LocalExecutor<'static>>,
    reach: &Reach,
    pages: SocketAddr,
    uplink: &str,
    origins: &[String],
) -> Result<(), String> {
    // For every character that an origin or a path may contain, Debug quotes and escapes as TOML
    // does.
    let listen = match &reach.tls {
        Some(Secure { files, .. }) => format!(
            "[tls]\nlisten = \"{pages}\"\ncertificates = [{{ certificate_file = {:?}, key_file = {:?} }}]\n[pages]\nlisten = \"127.0.0.1:0\"",
            files.certificate.display().to_string(),
            files.key.display().to_string()
        ),
        None => format!("[pages]\nlisten = \"{pages}\""),
    };
    let text = format!("{listen}\norigins = {origins:?}\n[uplink]\n{uplink}");
    let around = Surroundings {
        check_pair: &crate::config::certificate_notes::check,
        check_client_pair: &crate::config::certificates::check_client,
        ..Surroundings::without_files("demo")
    };
    let config = Config::parse(&text, board::SELECTED, &around).map_err(|problems| {
        problems.iter().map(|it| format!("{}; {}", it.what, it.remedy)).collect::<Vec<_>>().join("\n")
    })?;
    // The one call into the daemon.
    daemon::serve(executor, config, None, |_| {}).await.map_err(|error| error.to_string())
}

/// Waits until the relay is connected, then prints the addresses and how to stop.
async fn announce(business: &Server, reach: &Reach, share: &str, host_port: u16) -> Result<(), String> {
    let connected = async {
        while business.relays() == 0 {
            Timer::after(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    let late = async {
        Timer::after(RELAY_LIMIT).await;
        Err(format!("the relay did not connect within {} s", RELAY_LIMIT.as_secs()))
    };
    connected.or(late).await?;
    let query = reach.key.as_ref().map_or(String::new(), |key| format!("?key={key}"));
    let host = reach.link(host_port, &format!("/{query}"));
    let columns = share.len().max(host.len());
    say(&format!(
        "\nA room is live. Open both, side by side:\n\n\
         \x20 share page   {share:<columns$}   (what viewers see)\n\
         \x20 host page    {host:<columns$}   (where you control the room)\n"
    ));
    if reach.is_public() {
        let titled = [("share page", share), ("host page: a phone can go live", &host)];
        say(&reach::codes(&titled, io::stdout().is_terminal()).unwrap_or_default());
    }
    if reach.tls.is_some() {
        let ca = reach.link(host_port, "/ca.crt");
        say(&format!(
            "Browsers warn of the certificate, since its CA is of this run alone. Go on all the same; where\n\
             that is not enough, as on iOS, install and trust the CA from {ca},\n\
             and remove it afterwards.\n"
        ));
    } else if reach.is_public() {
        say("Without --tls browsers have no camera for the host page, except on this machine.\n");
    }
    say("Press Ctrl-C to stop.");
    Ok(())
}

/// Prints to standard output. Ignores errors: the demo goes on if the reader has exited (`| head`).
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Binds a listener to the chosen port, or to the default one or the next that is free and
/// isn't `other`.
fn listen(ip: IpAddr, chosen: Option<u16>, default: u16, other: u16, option: &str) -> Result<TcpListener, String> {
    let port = chosen.unwrap_or(default);
    let last = if chosen.is_some() { port } else { port.saturating_add(PORTS_TRIED) };
    for tried in port..=last {
        if tried == other && tried != 0 {
            continue;
        }
        match bind(SocketAddr::from((ip, tried))) {
            Ok(listener) => {
                if tried != port {
                    say(&format!("Port {port} is in use; using {tried} instead ({option} N chooses another)."));
                }
                return Ok(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && chosen.is_none() => {}
            Err(error) => {
                let remedy = match error.kind() {
                    io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput => {
                        "give an address of this machine: --listen ADDRESS".to_owned()
                    }
                    _ => format!("choose another with {option} N"),
                };
                return Err(format!("can't listen on {}: {error}; {remedy}", SocketAddr::from((ip, tried))));
            }
        }
    }
    Err(format!("the ports {port} to {last} are all in use; choose another with {option} N"))
}

/// Binds one address family, as the relay does.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn non_blocking(listener: TcpListener) -> Result<Async<TcpListener>, String> {
    Async::new(listener).map_err(|error| error.to_string())
}

fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

/// A secret for this run only: 32 random bytes in hexadecimal digits.
fn secret() -> Result<String, String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("can't get random bytes from the system: {error}"))?;
    Ok(hex(&bytes))
}

/// Bytes as digits of 0-9 and a-f.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pages hear which of their messages came: this many of the last 10 minutes are known.
const RECEIPTS_MAX: usize = 10_000;

fn settings(secret: Vec<u8>) -> Settings {
    let limits = Limits { receipts_max: RECEIPTS_MAX, ..Limits::default() };
    Settings { secrets: vec![secret], limits, ..Settings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn if_a_port_is_in_use_the_next_one_is_taken() {
        let taken = listen(HERE, Some(0), 0, 0, "--port").unwrap();
        let port = address(&taken).unwrap().port();
        if port > u16::MAX - PORTS_TRIED {
            return;
        }
        let next = address(&listen(HERE, None, port, 0, "--port").unwrap()).unwrap().port();
        assert!(next > port && next <= port + PORTS_TRIED);
        let other = address(&listen(HERE, None, port, next, "--port").unwrap()).unwrap().port();
        assert!(other != port && other != next);
    }

    #[test]
    fn what_cannot_be_listened_on_is_said_with_its_remedy() {
        let taken = bind((HERE, 0).into()).unwrap();
        let error = listen(HERE, Some(address(&taken).unwrap().port()), 0, 0, "--port").unwrap_err();
        assert!(error.ends_with("choose another with --port N"), "{error}");
        // Reserved (RFC 1112): no machine has it.
        let error = listen("240.0.0.1".parse().unwrap(), Some(0), 0, 0, "--port").unwrap_err();
        assert!(error.ends_with("give an address of this machine: --listen ADDRESS"), "{error}");
        // Without IPv6 there is nothing to see.
        if let Ok(listener) = bind("[::]:0".parse().unwrap()) {
            assert!(socket2::SockRef::from(&listener).only_v6().unwrap(), "the relay's listener has one family too");
        }
    }

    #[test]
    fn secrets_differ() {
        let (one, two) = (secret().unwrap(), secret().unwrap());
        assert!(one != two && one.len() == 64);
    }
}
