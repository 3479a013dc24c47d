//! `sharelink-hub dev`: hub and relay on this machine, for the first five minutes.
//!
//! The hub runs in this process, on the engine `memory` and with admission `dev`; the relay is a
//! child process, this same program. Both listen on loopback alone. Owns the child: it ends with
//! this process, whatever ends that, and its end is this one's. Key and secret are random, and
//! nothing is kept: the relay's configuration lies in a private directory until it has read it.

use std::{
    fs::{DirBuilder, OpenOptions, remove_dir_all},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use hub::{
    Name,
    call::{Answer, Call},
};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sharelinkd::config::{Surroundings, render::Quoted};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::{sleep, timeout},
};

use crate::{
    client::KEY_VARIABLE,
    config::Config,
    http::new_studio,
    logging,
    run::{Asked, Running, Signals, block_on},
    secrets::{random_key, random_secret},
};

/// The default port of the share pages.
pub const PAGES_PORT: u16 = 8080;
/// The default port of the API.
pub const API_PORT: u16 = 8090;
/// The hidden command by which the child is started.
pub const RELAY: &str = "dev-relay";
/// The topic that is named in what is printed; every other one is there too.
const TOPIC: &str = "demo";
/// The relay has this time to start, and to end.
const START_TIME: Duration = Duration::from_secs(20);
const END_TIME: Duration = Duration::from_secs(5);
/// How the child knows whose it is.
const PARENT_VARIABLE: &str = "SHARELINK_DEV_PARENT";
/// The line by which a relay says that it serves.
const READY: &str = "ready: pages connect to ";

/// The options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The share pages' port; 0 is any free one.
    pub pages_port: u16,
    /// The API's port, likewise.
    pub api_port: u16,
    /// Whether to print one line of JSON.
    pub is_json: bool,
}

/// Runs hub and relay until Ctrl-C or SIGTERM.
pub fn run(options: &Options) -> ExitCode {
    match block_on(develop(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sharelink-hub dev: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the child's relay, with the configuration at this path.
pub fn relay(path: PathBuf) -> ExitCode {
    // The process ends with the thread that has started it: the parent's first, which lasts.
    let is_bound = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    // The parent may have ended before that.
    let parent = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse().ok());
    let is_own = parent.is_some() && getppid().map(Pid::as_raw_nonzero).map(i32::from) == parent;
    if !is_bound || !is_own {
        eprintln!("sharelink-hub: {RELAY} is started by `sharelink-hub dev` alone");
        return ExitCode::FAILURE;
    }
    match sharelinkd::config::Config::load(&path, board::SELECTED) {
        Ok(config) => sharelinkd::daemon::run(config, path),
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            ExitCode::FAILURE
        }
    }
}

async fn develop(options: &Options) -> Result<(), String> {
    let key = random_key()?;
    let secret = random_secret()?;
    let config = config(options.api_port, &key, &secret)?;
    logging::set(config.log);
    let mut signals = Signals::new().map_err(|error| format!("can't install signal handlers: {error}"))?;
    let ports = [("share pages", options.pages_port, "--port"), ("API", options.api_port, "--api-port")];
    let taken = ports.into_iter().filter_map(|(whose, port, option)| {
        let error = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err()?;
        Some(taken(whose, port, option, &error))
    });
    let taken: Vec<String> = taken.collect();
    if !taken.is_empty() {
        return Err(taken.join("\nsharelink-hub dev: "));
    }
    let mut running = Running::start(config)?;
    let [api, uplink] = [&running.api, &running.uplink].map(|addresses| addresses.first().copied());
    let (Some(api), Some(uplink)) = (api, uplink) else { return Err("there is no listener".to_owned()) };
    let mut relay = Relay::start(options.pages_port, uplink, &secret)?;
    let result = async {
        let started = async {
            let pages = relay.ready().await?;
            connected(&running).await;
            Ok::<_, String>(pages)
        };
        let pages: SocketAddr = tokio::select! {
            started = timeout(START_TIME, started) => {
                started.map_err(|_| format!("the relay did not start within {} s", START_TIME.as_secs()))??
            }
            () = ended(&mut signals) => return Ok(()),
        };
        running.set_pages_url(&format!("http://{pages}"));
        let topic = Name::new(TOPIC).ok_or("the topic has no name")?;
        let studio = new_studio(&running.shared, topic).map_err(|error| error.to_string())?;
        announce(options.is_json, &Place { pages, api, uplink, key: &key, studio: &studio });
        tokio::select! {
            why = relay.forward() => Err(why),
            () = ended(&mut signals) => Ok(()),
        }
    }
    .await;
    relay.end().await;
    running.end().await;
    result
}

/// Waits for the signal to end. There is no file to reload.
async fn ended(signals: &mut Signals) {
    while signals.next().await != Asked::End {}
}

fn taken(whose: &str, port: u16, option: &str, error: &io::Error) -> String {
    let why = if error.kind() == io::ErrorKind::AddrInUse {
        "another program listens there".to_owned()
    } else {
        error.to_string()
    };
    format!(
        "port {port} for the {whose} can't be used: {why}; choose another with {option} N, or {option} 0 for any free one"
    )
}

/// The hub's configuration.
fn config(port: u16, key: &str, secret: &str) -> Result<Config, String> {
    let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        "[api]\nlisten = \"127.0.0.1:{port}\"\n\
         keys = [{{ name = \"dev\", hash = \"sha256:{hash}\", scopes = \"publish read admin ingest\", topics = \"\" }}]\n\
         [uplink]\nlisten = \"127.0.0.1:0\"\nsecret = {}\n[links]\nadmission = \"dev\"\n[log]\nlevel = \"warn\"\n",
        Quoted(&secret)
    );
    Config::parse(&text, &Surroundings::without_files("dev"))
        .map_err(|problems| problems.iter().map(|it| format!("{}; {}", it.what, it.remedy)).collect())
}

/// Waits until the relay has connected to the hub.
async fn connected(running: &Running) {
    loop {
        if let Answer::Fleet(fleet) = running.shared.call(Call::Fleet).await
            && !fleet.relays.is_empty()
        {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The child.
struct Relay {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// The last line that it has written.
    last: String,
    /// Its configuration, until it has read it.
    directory: Option<Directory>,
}

impl Relay {
    fn start(port: u16, uplink: SocketAddr, secret: &str) -> Result<Self, String> {
        let text = format!(
            "[pages]\nlisten = \"127.0.0.1:{port}\"\ndrain_s = 1\n[uplink]\naddresses = [\"{uplink}\"]\nsecret = {}\n\
             name = \"dev\"\n[console]\nserial = \"off\"\nsocket = \"off\"\n[log]\nlevel = \"warn\"\n",
            Quoted(&secret)
        );
        let directory = Directory::new()?;
        let path = directory.write("relay.toml", &text)?;
        let program = std::env::current_exe().map_err(|error| format!("can't find this program: {error}"))?;
        let child = Command::new(program)
            .arg(RELAY)
            .arg(path)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the parent, which ends it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| format!("the relay can't be started: {error}"))?;
        let stderr = child.stderr.take().ok_or("the relay has no standard error")?;
        Ok(Self { child, lines: BufReader::new(stderr).lines(), last: String::new(), directory: Some(directory) })
    }

    /// Waits until it serves pages, and returns where.
    async fn ready(&mut self) -> Result<SocketAddr, String> {
        while let Some(line) = self.line().await {
            if let Some(address) = line.strip_prefix(READY) {
                // Whatever ends this process, the secret in it is not left behind.
                self.directory = None;
                return address.parse().map_err(|_| format!("the relay says {line:?}"));
            }
            eprintln!("relay: {line}");
        }
        Err(self.why().await)
    }

    /// Forwards what it logs until it has ended; returns why.
    async fn forward(&mut self) -> String {
        while let Some(line) = self.line().await {
            eprintln!("relay: {line}");
        }
        self.why().await
    }

    async fn line(&mut self) -> Option<String> {
        let line = self.lines.next_line().await.ok().flatten()?;
        self.last.clone_from(&line);
        Some(line)
    }

    async fn why(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let last = if self.last.is_empty() { "it said nothing" } else { &self.last };
        format!("the relay has ended ({how}): {last}")
    }

    /// Asks it to end, and sees to it.
    async fn end(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // Not waited for yet, so the number is its own.
        if let Some(id) = id {
            let _ = kill_process(id, Signal::TERM);
        }
        if timeout(END_TIME, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// A private directory, removed with this value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, String> {
        let number = getrandom::u64().map_err(|error| error.to_string())?;
        let path = std::env::temp_dir().join(format!("sharelink-hub-{number:016x}"));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| format!("{}: {error}", Path::new(&path).display())).map(|()| path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = remove_dir_all(&self.0);
    }
}

/// Where everything is.
struct Place<'a> {
    pages: SocketAddr,
    api: SocketAddr,
    uplink: SocketAddr,
    key: &'a str,
    /// A path of the API.
    studio: &'a str,
}

fn announce(is_json: bool, place: &Place<'_>) {
    let Place { pages, api, uplink, key, studio } = place;
    let share = format!("http://{pages}/s/{TOPIC}");
    let text = if is_json {
        json!({
            "share": share, "api": format!("http://{api}"), "key": key, "topic": TOPIC, "uplink": uplink.to_string(),
            "studio": format!("http://{api}{studio}"),
        })
        .to_string()
    } else {
        text(&share, &format!("http://{api}"), key, studio)
    };
    // It goes on if the reader has gone.
    let mut out = io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn text(share: &str, api: &str, key: &str, studio: &str) -> String {
    let headers = format!("-H \"Authorization: Bearer ${KEY_VARIABLE}\" -H 'Content-Type: application/json'");
    let other = if api.ends_with(&format!(":{API_PORT}")) { String::new() } else { format!(" --api {api}") };
    let live = api.replacen("://", &format!("://x:${KEY_VARIABLE}@"), 1);
    format!(
        "\nA hub and a relay are running. Open the share page:\n\n  {share}\n\n\
         Go live with a camera, in the browser:\n\n  {api}{studio}\n\n\
         Then paste into another terminal. The first line is the key, which may do everything:\n\n\
         \x20 export {KEY_VARIABLE}={key}\n\n\
         Say something:\n\n\
         \x20 curl -sS {headers} \\\n    -d '{{\"text\":\"hello\",\"from\":\"Ann\"}}' {api}/v1/topics/{TOPIC}/messages\n\n\
         Set the title:\n\n\
         \x20 curl -sS -X PUT {headers} \\\n    -d '{{\"title\":\"My room\",\"host\":\"Ann\"}}' {api}/v1/topics/{TOPIC}/state\n\n\
         Go live with a test picture, by ffmpeg:\n\n\
         \x20 ffmpeg -re -f lavfi -i testsrc2=size=640x360:rate=30 -f lavfi -i sine=440 \\\n    \
         -c:v libx264 -preset veryfast -tune zerolatency -g 30 -pix_fmt yuv420p -c:a aac \\\n    \
         -f mp4 -movflags +frag_keyframe+empty_moov+default_base_moof -frag_duration 100000 \\\n    \
         -flush_packets 1 -method PUT -auth_type basic -send_expect_100 1 \\\n    {live}/v1/topics/{TOPIC}/media\n\n\
         The same in short, and who is connected:\n\n\
         \x20 sharelink-hub say{other} {TOPIC} 'hello again'\n  sharelink-hub status{other}\n\n\
         Every other topic of letters, digits and - _ . ~ is there too: its name is its link.\n\
         Press Ctrl-C to stop."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_to_paste_show_errors_and_no_progress() {
        let text = text("http://a/s/demo", "http://a", "slk_a", "/studio");
        let calls: Vec<&str> = text.lines().filter(|line| line.contains("curl ")).collect();
        assert!(calls.len() == 2 && calls.iter().all(|line| line.contains(" curl -sS ")), "{calls:#?}");
        for document in
            [include_str!("../../docs/api.md"), include_str!("../../docs/hub.md"), include_str!("../../docs/ingest.md")]
        {
            let calls = document.lines().filter(|line| line.trim_start().starts_with("curl -"));
            calls.for_each(|line| assert!(line.contains("curl -sS"), "{line}"));
        }
    }
}
