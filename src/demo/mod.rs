//! `sharelinkd demo`: a relay and a demo business server in one process, joined by a real uplink.
//!
//! The business server is the library `crates/business`; `stage.rs` with `script.rs`, `lines.rs` and `clip.rs` is the
//! room that lives in it; `host.rs` is the page from which a host runs the room. `crates/media` splits what a browser records.
//! This file binds the ports, starts everything on one executor and says where it is.
//! The daemon is started as `run` starts it and does not know that this is a demo.

use std::{
    future::pending,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use futures_lite::FutureExt as _;
use smol::{Async, LocalExecutor, Timer};

pub mod clip;
mod clock;
mod host;
mod lines;
mod script;
mod stage;
mod watchers;

use crate::{
    config::{Config, Surroundings},
    daemon,
};
use business::{Settings, serve::Server};
use stage::Stage;

/// What the demo is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The share page's port, on loopback: 0 for any free one; none for the usual one or, where that is taken, the next.
    pub pages_port: Option<u16>,
    /// The host page's port, in the same way.
    pub host_port: Option<u16>,
    /// Origins besides the demo's own whose pages may connect.
    pub origins: Vec<String>,
}

/// The usual port of the share page.
pub const PAGES_PORT: u16 = 8080;
/// The usual port of the host page.
pub const HOST_PORT: u16 = 8081;
/// Where a port is taken, so many after it are tried.
const PORTS_TRIED: u16 = 20;
/// The relay is connected within milliseconds; after so long something is wrong.
const RELAY_LIMIT: Duration = Duration::from_secs(10);

/// Runs the demo until Ctrl-C.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    // A constant of the build: where it is false, nothing of the demo is linked in.
    if !board::SELECTED.demo {
        eprintln!(
            "sharelinkd demo: a binary for the board {} has no demo; run it on another machine, and point this relay's [uplink] addresses at a business server",
            board::SELECTED.name
        );
        return ExitCode::FAILURE;
    }
    // Warnings go to standard error; a log that was started already stays as it is.
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
    // What was asked for comes first: where it can't be had, nothing else needs telling.
    if options.pages_port.is_some() {
        drop(listen(options.pages_port, PAGES_PORT, 0, "--port")?);
    }
    let host_listener = listen(options.host_port, HOST_PORT, options.pages_port.unwrap_or(PAGES_PORT), "--host-port")?;
    let host = address(&host_listener)?;
    // The relay binds its own listener; this one only finds out which port is free.
    let pages = address(&listen(options.pages_port, PAGES_PORT, host.port(), "--port")?)?;
    let uplink_listener = listen(Some(0), 0, 0, "")?;
    let uplink = address(&uplink_listener)?;
    let share = format!("http://{pages}/s/{}", stage::LINK);

    let secret = secret()?;
    let unknown_link = format!("这个演示只有一个房间：/s/{0} · This demo has one room: /s/{0}", stage::LINK);
    let business = Server::new(Settings { secret: secret.clone().into_bytes(), ..Settings::default() }, &unknown_link);
    let stage = Stage::new(Rc::clone(&business), share.clone()).map_err(|error| error.to_string())?;

    let business_server = async {
        let served = Rc::clone(&business).serve(non_blocking(uplink_listener)?).await;
        Err(format!("the business server has stopped: {served:?}"))
    };
    let host_server = async {
        let served = host::serve(Rc::clone(&stage), non_blocking(host_listener)?).await;
        Err(format!("the host page has stopped: {served:?}"))
    };
    let room = async {
        stage.talk().or(stage.play()).or(stage.listen()).await;
        Err("the room has stopped".to_owned())
    };
    let told = async {
        tell(&business, &share, host).await?;
        pending().await
    };
    // What ends first ends the demo: the relay by Ctrl-C, once it has said goodbye to its pages, or a failure.
    let relay = relay(executor, pages, uplink, &secret, &options.origins);
    let servers = Box::pin(business_server).or(Box::pin(host_server)).or(Box::pin(room));
    Box::pin(relay).or(servers).or(Box::pin(told)).await
}

/// The relay, started as `sharelinkd run` starts it, until a signal ends it.
async fn relay(
    executor: Rc<LocalExecutor<'static>>,
    pages: SocketAddr,
    uplink: SocketAddr,
    secret: &str,
    origins: &[String],
) -> Result<(), String> {
    // Debug's quotes and escapes are TOML's for whatever an origin may have in it.
    let text = format!(
        "[pages]\nlisten = \"{pages}\"\norigins = {origins:?}\n[uplink]\naddresses = [\"{uplink}\"]\nsecret = \"{secret}\"\n"
    );
    let no_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let around = Surroundings { read_secret: &no_file, hostname: "demo", runtime_directory: None };
    let config = Config::parse(&text, board::SELECTED, &around).map_err(|problems| {
        problems.iter().map(|it| format!("{}; {}", it.what, it.remedy)).collect::<Vec<_>>().join("\n")
    })?;
    // The one call into the daemon.
    daemon::serve(executor, config, None, |_| {}).await.map_err(|error| error.to_string())
}

/// Waits until the relay is connected, then says where everything is and how it ends.
async fn tell(business: &Server, share: &str, host: SocketAddr) -> Result<(), String> {
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
    let host = format!("http://{host}/");
    let columns = share.len().max(host.len());
    say(&format!(
        "\nA room is live. Open both, side by side:\n\n\
         \x20 share page   {share:<columns$}   (what viewers see)\n\
         \x20 host page    {host:<columns$}   (where you run the room)\n\n\
         Press Ctrl-C to stop."
    ));
    Ok(())
}

/// Tells whoever reads the output. The room lives on where nobody does any more (`| head`).
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A listener on loopback: on the port that was chosen, else on the usual one or the next that is free and isn't `other`.
fn listen(chosen: Option<u16>, usual: u16, other: u16, option: &str) -> Result<TcpListener, String> {
    let port = chosen.unwrap_or(usual);
    let last = if chosen.is_some() { port } else { port.saturating_add(PORTS_TRIED) };
    for tried in port..=last {
        if tried == other && tried != 0 {
            continue;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, tried)) {
            Ok(listener) => {
                if tried != port {
                    say(&format!("Port {port} is taken: {tried} is used instead ({option} N chooses another)."));
                }
                return Ok(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && chosen.is_none() => {}
            Err(error) => {
                return Err(format!("can't listen on 127.0.0.1:{tried}: {error}; choose another with {option} N"));
            }
        }
    }
    Err(format!("the ports {port} to {last} are all taken; choose another with {option} N"))
}

fn non_blocking(listener: TcpListener) -> Result<Async<TcpListener>, String> {
    Async::new(listener).map_err(|error| error.to_string())
}

fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

/// A secret for this run alone: 32 random bytes in hexadecimal digits.
fn secret() -> Result<String, String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_gives_way_to_the_next() {
        let taken = listen(Some(0), 0, 0, "--port").unwrap();
        let port = address(&taken).unwrap().port();
        if port > u16::MAX - PORTS_TRIED {
            return;
        }
        let next = address(&listen(None, port, 0, "--port").unwrap()).unwrap().port();
        assert!(next > port && next <= port + PORTS_TRIED);
        let other = address(&listen(None, port, next, "--port").unwrap()).unwrap().port();
        assert!(other != port && other != next);
    }

    #[test]
    fn secrets_differ() {
        let (one, two) = (secret().unwrap(), secret().unwrap());
        assert!(one != two && one.len() == 64);
    }
}
