//! The watcher: starts relay and load, samples the relay once a second, and stops both in order.
//!
//! Owns the two processes, the relay's configuration (which it changes and reloads, sometimes with
//! an invalid one), and the table of samples. `verdict.rs` judges them, `picture.rs` draws them. It
//! uses only interfaces that an operator has.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use sharelinkd::config::Pin;
use sharelinkd::daemon::tls::pin;

use super::business::{Calendar, SECRET};
use super::clock;
use super::load::Plan;
use super::picture;
use super::probe::Probe;
use super::table::Table;
use super::verdict::{self, Facts, Rest};

/// A soak shorter than this (seconds) is compressed, and its trends are not judged.
const LONG_S: u64 = 420;
/// Interval between two reloads of the configuration, seconds.
const RELOAD_S: u64 = 45;
/// Interval between two samples of the kernel's queues, seconds: `ss` prints a long list.
const KERNEL_S: u64 = 5;
/// Blocks of the arena: slightly more than the guarantee of state and messages, so that media are
/// shed within minutes.
const ARENA_BLOCKS: u32 = 20_000;
/// Timeout of the console, seconds.
const SILENCE_S: f64 = 30.0;
/// Errors in the log that the soak provokes: lost uplinks, an invalid configuration.
const EXPECTED: [&str; 3] = ["the business server at ", "relay.toml", "the configuration stays as it was"];
/// Certificates that are in use in turn.
const CERTIFICATES: usize = 4;
/// A long soak changes the certificate this often.
const SWAP: Duration = Duration::from_secs(60);
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(150);

/// The command line.
#[derive(Clone, Debug)]
pub struct Options {
    pub seconds: u64,
    /// Whether pages connect by TLS, with a certificate that is swapped all the time.
    pub is_secure: bool,
    pub warm_up: Option<u64>,
    /// Places in the table.
    pub pages: u32,
    /// Planted leak: bytes for each page that leaves.
    pub leak: u64,
    pub seed: u64,
    pub out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 1_800,
            is_secure: false,
            warm_up: None,
            pages: 10_000,
            leak: 0,
            seed: 1,
            out: PathBuf::from("target/soak"),
        }
    }
}

impl Options {
    pub fn is_long(&self) -> bool {
        self.seconds >= LONG_S
    }

    /// Seconds until the table, the rings and the kernel's queues are as full as they get, and each
    /// fault has occurred once.
    pub fn warm_up_s(&self) -> u64 {
        self.warm_up.unwrap_or(if self.is_long() { (self.seconds / 4).min(300) } else { self.seconds / 4 })
    }

    pub fn plan(&self) -> Plan {
        let calendar = if self.is_long() {
            let hot_ms = [250, 25, 100, 50];
            Calendar {
                hot_ms,
                fill_s: 70,
                drop_s: 60,
                epoch_s: 200,
                freeze_s: 420,
                move_s: 300,
                revoke_s: 12,
                end_s: 30,
            }
        } else {
            // Rings are overtaken within seconds. No connection falls silent: the relay's timeout
            // is 30 s.
            let hot_ms = [100, 6, 40, 25];
            Calendar {
                hot_ms,
                fill_s: 0,
                drop_s: 13,
                epoch_s: 17,
                freeze_s: 100_000,
                move_s: 25,
                revoke_s: 2,
                end_s: 4,
            }
        };
        let stay_s = if self.is_long() { 200 } else { 15 };
        Plan { pages: self.pages, stay_s, calendar, seed: self.seed }
    }
}

/// A child process, killed when dropped.
struct Ours(Child);

impl Ours {
    fn start(words: &[String], log: Option<&Path>) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        if log.is_some() {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|error| format!("can't start {words:?}: {error}"))?;
        if let Some((mut from, log)) = child.stderr.take().zip(log) {
            // Through a pipe, as under a service manager: a slow disk does not block the relay.
            let mut file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
            std::thread::spawn(move || std::io::copy(&mut from, &mut file));
        }
        Ok(Self(child))
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(process, signal);
        }
    }

    fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.0.stdin {
            let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        }
    }

    /// Waits for its exit; whether it succeeded, `None` on a timeout.
    fn wait(&mut self, patience: Duration) -> Option<bool> {
        let end = clock::now() + patience;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Some(status.success()),
                Ok(None) if clock::now() < end => std::thread::sleep(Duration::from_millis(50)),
                _ => return None,
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process's output: the last line, and the events of all lines.
#[derive(Default)]
struct Heard {
    last: String,
    /// The process has closed its output.
    is_over: bool,
    /// Faults that the load injected.
    events: Vec<String>,
}

fn hear(child: &mut Child) -> Result<Arc<Mutex<Heard>>, String> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let shared = Arc::clone(&heard);
    let out = child.stdout.take().ok_or("no output")?;
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let Ok(mut heard) = shared.lock() else { return };
            if line.contains(r#""events":["#)
                && let Ok(value) = serde_json::from_str::<Value>(&line)
            {
                let events = value["events"].as_array().into_iter().flatten();
                heard.events.extend(events.filter_map(Value::as_str).map(str::to_owned));
            }
            heard.last = line;
        }
        if let Ok(mut heard) = shared.lock() {
            heard.is_over = true;
        }
    });
    Ok(heard)
}

fn last(heard: &Mutex<Heard>) -> String {
    heard.lock().map_or(String::new(), |heard| heard.last.clone())
}

/// The relay's live heap blocks and bytes, as it last reported them.
fn heap(heard: &Mutex<Heard>) -> [f64; 2] {
    let line = last(heard);
    let mut numbers = line.split(' ').map(|number| number.parse().unwrap_or(f64::NAN));
    [(); 2].map(|()| numbers.next().unwrap_or(f64::NAN))
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T, String> {
    let end = clock::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        if clock::now() > end {
            return Err(format!("waited {PATIENCE:?} for {what}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A running soak.
struct Watch<'a> {
    options: &'a Options,
    load: Ours,
    load_heard: Arc<Mutex<Heard>>,
    relay: Ours,
    relay_heard: Arc<Mutex<Heard>>,
    probe: Probe,
    table: Table,
    began: Instant,
    facts: Facts,
    leaked_for: f64,
    answered_at: f64,
    reloads: u64,
    /// The keys of the certificates that are in use in turn.
    pins: Vec<Pin>,
    swaps: usize,
}

/// Runs a soak; whether it passed.
pub fn run(options: &Options) -> Result<bool, String> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let needed = u64::from(options.pages) * 11 / 10 + 600;
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Err(format!(
            "{needed} open files are needed, {:?} are allowed: raise the limit (ulimit -Hn)",
            limit.maximum
        ));
    }
    let named = |error: std::io::Error| format!("{}: {error}", options.out.display());
    fs::create_dir_all(&options.out).map_err(named)?;
    let options = &Options { out: fs::canonicalize(&options.out).map_err(named)?, ..options.clone() };
    let mut watch = Watch::start(options)?;
    let rest_before = watch.rest()?;
    let address = watch.probe.address;
    let pins: String = watch.pins.iter().map(|pin| format!(" {pin}")).collect();
    watch.load.say(&format!("{address}{pins}"));
    println!(
        "soak: {} s, {} of them warm-up; {} places in the table; the relay is process {} at {address}",
        options.seconds,
        options.warm_up_s(),
        options.pages,
        watch.probe.process
    );
    watch.watch_for(Duration::from_secs(options.seconds))?;
    println!("soak: publications stop; every page that reads must reach the last message");
    drop(watch.load.0.stdin.take());
    let ended = until("the load's end", || {
        watch.sample_in_time();
        watch.load.0.try_wait().ok().flatten()
    })?;
    // The process may be gone before its last line is read.
    until("the load's last line", || watch.load_heard.lock().ok()?.is_over.then_some(()))?;
    watch.facts.end = serde_json::from_str(&last(&watch.load_heard)).unwrap_or_default();
    if !ended.success() {
        watch.facts.complaints.push("the load ended with an error".to_owned());
    }
    println!("soak: all pages have left; the relay must return to its initial state");
    let rest_after = until("an empty table", || {
        watch.sample_in_time();
        watch.rest().ok().filter(|rest| rest.rows == 0.0)
    })?;
    watch.relay.signal(Signal::TERM);
    match watch.relay.wait(Duration::from_secs(30)) {
        Some(true) => {}
        other => watch.facts.complaints.push(format!("SIGTERM: the relay exited with {other:?}")),
    }
    watch.conclude([rest_before, rest_after])
}

impl<'a> Watch<'a> {
    fn start(options: &'a Options) -> Result<Self, String> {
        let words = [
            "load",
            "--seconds",
            &options.seconds.to_string(),
            "--pages",
            &options.pages.to_string(),
            "--seed",
            &options.seed.to_string(),
        ];
        let mut load = Ours::start(&words.map(str::to_owned), None)?;
        let load_heard = hear(&mut load.0)?;
        let business = until("the business server", || {
            let line = last(&load_heard);
            let (first, second) = line.split_once(' ')?;
            Some([first.parse().ok()?, second.parse().ok()?])
        })?;
        let (log, console) = (options.out.join("relay.log"), options.out.join("console.sock"));
        let config = options.out.join("relay.toml");
        let _ = fs::remove_file(&console);
        let pins = if options.is_secure { certificates(&options.out)? } else { Vec::new() };
        configure(options, business, 5)?;
        let words = ["relay".to_owned(), config.display().to_string()];
        let mut relay = Ours::start(&words, Some(&log))?;
        let relay_heard = hear(&mut relay.0)?;
        let address = until("the relay", || {
            let text = fs::read_to_string(&log).ok()?;
            let addresses = text.lines().find_map(|line| line.split_once("ready: pages connect to "))?.1.trim();
            // The one by TLS, if there is one.
            addresses.rsplit(' ').next()?.parse().ok()
        })?;
        let probe = Probe { process: relay.0.id(), address, business, console };
        until("the count of the heap", || heap(&relay_heard)[0].is_finite().then_some(()))?;
        Ok(Self {
            options,
            load,
            load_heard,
            relay,
            relay_heard,
            probe,
            table: Table::default(),
            began: clock::now(),
            facts: Facts::default(),
            leaked_for: 0.0,
            answered_at: 0.0,
            reloads: 0,
            pins,
            swaps: 0,
        })
    }

    fn watch_for(&mut self, time: Duration) -> Result<(), String> {
        self.began = clock::now();
        let mut next = self.began;
        let mut report_at = 30.0;
        let mut swap_at = self.began + SWAP;
        let mut reload_at = self.began + Duration::from_secs(RELOAD_S.min(self.options.seconds / 5));
        while self.began.elapsed() < time {
            next += Duration::from_secs(1);
            std::thread::sleep(next.saturating_duration_since(clock::now()));
            let late = clock::now().saturating_duration_since(next);
            self.sample();
            self.table.set("late_ms", late.as_secs_f64() * 1000.0);
            // If the machine was stalled, the missed samples are skipped.
            next = next.max(clock::now() - Duration::from_secs(1));
            let reloads = clock::now() >= reload_at;
            // A short soak swaps with each reload: it would not last until the relay looks again.
            let swaps = if self.options.is_long() { clock::now() >= swap_at } else { reloads };
            if self.options.is_secure && swaps {
                swap_at += SWAP;
                self.swaps += 1;
                install(&self.options.out, self.swaps % CERTIFICATES)?;
            }
            if reloads {
                reload_at += Duration::from_secs(RELOAD_S.min(self.options.seconds / 5));
                self.reload()?;
            }
            let at = self.began.elapsed().as_secs_f64();
            if at >= report_at {
                report_at += 30.0;
                self.report(at);
            }
            for (who, child) in [("load", &mut self.load.0), ("relay", &mut self.relay.0)] {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("the {who} exited unexpectedly: {status}; see {}", self.options.out.display()));
                }
            }
        }
        Ok(())
    }

    fn report(&self, at: f64) {
        let figure = |name: &str| self.table.last(name).unwrap_or(f64::NAN);
        println!(
            "soak: {at:>5.0} s  {:.0} pages  {:.1} MB resident  {:.1} MB in the kernel  {:.0} blocks  {:.0} violations",
            figure("pages"),
            figure("resident") / 1e6,
            figure("kernel") / 1e6,
            figure("heap_blocks"),
            figure("load_wrong")
        );
    }

    /// Samples if the last row is a second old.
    fn sample_in_time(&mut self) {
        if self.began.elapsed().as_secs_f64() >= self.table.end() + 1.0 {
            self.sample();
        }
    }

    /// Samples one row of the table. A console that does not answer is a complaint; the soak goes
    /// on.
    fn sample(&mut self) {
        let at = self.began.elapsed().as_secs_f64();
        self.table.begin(at);
        let table = &mut self.table;
        table.set("resident", self.probe.resident());
        table.set("processor", self.probe.processor());
        if let Some(descriptors) = self.probe.descriptors() {
            table.set("descriptors", descriptors);
        }
        let [blocks, size] = heap(&self.relay_heard);
        table.set("heap_blocks", blocks);
        table.set("heap_size", size);
        // Rows come once a second.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        if (at as u64).is_multiple_of(KERNEL_S)
            && let Some(kernel) = self.probe.kernel()
        {
            table.set("kernel", kernel);
        }
        let asked = clock::now();
        let answers = self.probe.state().and_then(|state| Ok((state, self.probe.counters()?)));
        table.set("console_ms", asked.elapsed().as_secs_f64() * 1000.0);
        match answers {
            Ok((state, counters)) => {
                self.answered_at = at;
                for name in ["pages", "subscriptions", "topics", "links", "blocks"] {
                    table.set(name, state[name]["used"].as_f64().unwrap_or(f64::NAN));
                }
                table.set("blocks_highest", state["blocks"]["highest"].as_f64().unwrap_or(f64::NAN));
                table.set("kernel_told", state["memory"]["kernel_bytes"].as_f64().unwrap_or(f64::NAN));
                table.set("up", if state["uplink"]["up"] == true { 1.0 } else { 0.0 });
                self.facts.process_max = state["memory"]["process_limit_bytes"].as_f64().unwrap_or(f64::NAN);
                self.facts.kernel_max = state["memory"]["kernel_limit_bytes"].as_f64().unwrap_or(f64::NAN);
                for (name, number) in counters {
                    table.set(&format!("counter_{name}"), number);
                }
            }
            // On a busy machine an answer may be late; only a longer silence is a fault.
            Err(error) if at > self.answered_at + SILENCE_S => {
                self.facts.complaints.push(format!("at {at:.0} s, and for {SILENCE_S} s: {error}"));
                self.answered_at = at;
            }
            Err(_) => {}
        }
        self.sample_load(at);
        self.leak();
    }

    fn sample_load(&mut self, at: f64) {
        let Ok(mut heard) = self.load_heard.lock() else { return };
        let events = std::mem::take(&mut heard.events);
        self.facts.events.extend(events.into_iter().map(|event| (at, event)));
        let Ok(value) = serde_json::from_str::<Value>(&heard.last) else { return };
        for (name, value) in value.as_object().into_iter().flatten() {
            if let Some(number) = value.as_f64() {
                self.table.set(&format!("load_{name}"), number);
            }
            for (track, number) in value.as_array().into_iter().flatten().enumerate() {
                if let Some(number) = number.as_f64() {
                    self.table.set(&format!("load_{name}_{track}"), number);
                }
            }
        }
    }

    /// Plants the leak for each page that has left.
    fn leak(&mut self) {
        let gone = self.table.last("counter_pages_closed").unwrap_or(0.0);
        if self.options.leak > 0 && gone > self.leaked_for {
            self.relay.say(&format!("{} {}", gone - self.leaked_for, self.options.leak));
            self.leaked_for = gone;
        }
    }

    /// Changes and reloads the configuration; every third one is invalid and must be rejected.
    fn reload(&mut self) -> Result<(), String> {
        self.reloads += 1;
        if self.reloads.is_multiple_of(3) {
            let path = self.options.out.join("relay.toml");
            fs::write(&path, "[pages]\nlisten = 7\n").map_err(|error| format!("{}: {error}", path.display()))?;
        } else {
            configure(self.options, self.probe.business, 5 + self.reloads % 3)?;
        }
        self.relay.signal(Signal::HUP);
        Ok(())
    }

    /// What the relay holds while no page is connected.
    fn rest(&self) -> Result<Rest, String> {
        let state = self.probe.state()?;
        let used = |name: &str| state[name]["used"].as_f64().unwrap_or(f64::NAN);
        Ok(Rest {
            rows: ["pages", "subscriptions", "topics", "blocks"].map(used).iter().sum(),
            descriptors: self.probe.descriptors().unwrap_or(f64::NAN),
            heap_blocks: heap(&self.relay_heard)[0],
            resident: self.probe.resident(),
            kernel: self.probe.kernel().unwrap_or(0.0),
        })
    }

    /// Judges the soak and writes the files; whether it passed.
    fn conclude(mut self, rests: [Rest; 2]) -> Result<bool, String> {
        let out = &self.options.out;
        let log = fs::read_to_string(out.join("relay.log")).unwrap_or_default();
        let keys = self.table.last("load_keys").unwrap_or(0.0);
        // Two of the first three reloads of a short soak are good ones.
        let expected = if self.options.is_long() { CERTIFICATES } else { 3 };
        if self.options.is_secure && keys < expected as f64 {
            self.facts.complaints.push(format!("pages saw {keys} of {CERTIFICATES} certificates, expected {expected}"));
        }
        self.facts.log_errors = log
            .lines()
            .filter(|line| line.contains("ERROR") && !EXPECTED.iter().any(|words| line.contains(words)))
            .map(str::to_owned)
            .collect();
        self.facts.rests = rests;
        let judged = verdict::judge(self.options, &self.table, &self.facts);
        let picture = picture::draw(self.options, &self.table, &self.facts, &judged);
        for (name, text) in [("soak.csv", self.table.text()), ("soak.svg", picture), ("soak.txt", judged.text.clone())]
        {
            let path = out.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        print!("{}", judged.text);
        println!("soak: picture {0}/soak.svg, samples {0}/soak.csv, the relay's log {0}/relay.log", out.display());
        Ok(judged.is_good())
    }
}

/// Makes the certificates and installs the first; their keys.
fn certificates(out: &Path) -> Result<Vec<Pin>, String> {
    let made = |number: usize| {
        let [file, key] = names(out, &number.to_string());
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
            .args(["-subj", "/CN=soak", "-out"])
            .arg(&file)
            .arg("-keyout")
            .arg(&key)
            .output()
            .map_err(|error| format!("openssl: {error}"))?;
        if !made.status.success() {
            return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
        }
        pin(&file, &key).map_err(|(what, _)| what)
    };
    let pins: Vec<Pin> = (0..CERTIFICATES).map(made).collect::<Result<_, _>>()?;
    install(out, 0)?;
    Ok(pins)
}

/// Chain and key with this name.
fn names(out: &Path, name: &str) -> [PathBuf; 2] {
    ["pem", "key"].map(|kind| out.join(format!("certificate-{name}.{kind}")))
}

/// Puts a pair in the place of the one in use, one file after the other, as ACME clients do.
fn install(out: &Path, number: usize) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", out.display());
    let (from, new, live) = (names(out, &number.to_string()), names(out, "new"), names(out, "live"));
    for ((from, new), live) in from.iter().zip(&new).zip(&live) {
        fs::copy(from, new).map_err(said)?;
        fs::rename(new, live).map_err(said)?;
    }
    Ok(())
}

fn configure(options: &Options, business: [SocketAddr; 2], linger_s: u64) -> Result<(), String> {
    let path = options.out.join("relay.toml");
    let console = options.out.join("console.sock");
    let [certificate, key] = names(&options.out, "live").map(|file| file.display().to_string());
    let tls = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ certificate_file = {certificate:?}, key_file = {key:?} }}]\n"
    );
    let tls = if options.is_secure { tls.as_str() } else { "" };
    let text = format!(
        "{tls}[pages]\nlisten = \"127.0.0.1:0\"\n[uplink]\naddresses = [\"{}\", \"{}\"]\nsecret = \"{SECRET}\"\nlinger_s = {linger_s}\n\
         [limits]\npages = {}\narena_blocks = {ARENA_BLOCKS}\n[console]\nsocket = \"{}\"\n",
        business[0],
        business[1],
        options.pages,
        console.display()
    );
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}
