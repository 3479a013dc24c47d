//! The measured process, a relay or the ceiling, and what the kernel reports about it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Attached;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Timeout for the process to exit, in steps of 10 ms.
const END_STEPS: usize = 500;
const END_STEP: Duration = Duration::from_millis(10);

/// A process that accepts pages.
pub struct Target {
    /// Set if the bench started it.
    child: Option<Child>,
    /// Those that are measured; none if it is on another machine.
    processes: Vec<u32>,
    config: Option<PathBuf>,
    /// Where pages connect.
    pub address: SocketAddr,
}

/// Processor time in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// In user mode.
    pub user_ms: f64,
    /// In the kernel.
    pub system_ms: f64,
    /// Both, measured by the scheduler with higher resolution.
    pub total_ms: f64,
}

impl Cpu {
    /// The sum.
    fn plus(self, other: Self) -> Self {
        Self {
            user_ms: self.user_ms + other.user_ms,
            system_ms: self.system_ms + other.system_ms,
            total_ms: self.total_ms + other.total_ms,
        }
    }

    /// The difference from an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user_ms: self.user_ms - earlier.user_ms,
            system_ms: self.system_ms - earlier.system_ms,
            total_ms: self.total_ms - earlier.total_ms,
        }
    }
}

impl Target {
    /// Starts a relay whose business server listens at `business`, with this pair of certificate
    /// and key if pages are to connect by TLS.
    pub fn relay(business: SocketAddr, core: Option<usize>, pair: Option<(&Path, &Path)>) -> Result<Self, String> {
        let tls = pair.map_or(String::new(), |(certificate, key)| {
            let [certificate, key] = [certificate, key].map(|file| file.display().to_string());
            // Debug quotes a path as TOML does.
            format!(
                "[tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ certificate_file = {certificate:?}, key_file = {key:?} }}]\n"
            )
        });
        let text = format!(
            "[pages]\nlisten = \"127.0.0.1:0\"\n{tls}[uplink]\naddresses = [\"{business}\"]\nlinger_s = 1\n[log]\nlevel = \"info\"\n"
        );
        let config = std::env::temp_dir().join(format!("sharelinkd-bench-{}.toml", std::process::id()));
        fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let mut command = program()?;
        command.args(["run", "--config"]).arg(&config);
        let mut target = Self::start(command, core)?;
        target.config = Some(config);
        Ok(target)
    }

    /// Starts the ceiling for this number of pages.
    pub fn ceiling(pages: usize, core: Option<usize>) -> Result<Self, String> {
        let mut command = program()?;
        command.args(["bench-ceiling", &pages.to_string()]);
        Self::start(command, core)
    }

    /// A relay that the bench did not start.
    pub fn attached(attached: &Attached) -> Self {
        Self { child: None, processes: attached.processes.clone(), config: None, address: attached.relay }
    }

    fn start(mut command: Command, core: Option<usize>) -> Result<Self, String> {
        let mut child =
            command.stderr(Stdio::piped()).spawn().map_err(|error| format!("can't start itself: {error}"))?;
        if let Some(core) = core {
            pin(Some(child.id()), core);
        }
        let log = child.stderr.take().ok_or("no log")?;
        let mut lines = BufReader::new(log).lines();
        let address = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some((_, addresses)) = line.split_once("ready: pages connect to ") {
                        // By TLS, if it has TLS.
                        let address = addresses.split_once(", by TLS to ").map_or(addresses, |(_, tls)| tls);
                        break address.parse().map_err(|error| format!("{address}: {error}"))?;
                    }
                }
                _ => return Err("the relay did not get ready".into()),
            }
        };
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains("WARN") || line.contains("ERROR")) {
                eprintln!("relay: {line}");
            }
        });
        Ok(Self { processes: vec![child.id()], child: Some(child), config: None, address })
    }

    /// Ends it by SIGTERM if the bench started it, so that a profiler can write its report; kills
    /// it after a timeout.
    pub fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(process) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(process, Signal::TERM);
        }
        for _ in 0..END_STEPS {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(END_STEP);
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Its processor time since its start.
    pub fn cpu(&self) -> Cpu {
        self.processes.iter().map(|process| cpu(*process)).fold(Cpu::default(), Cpu::plus)
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.processes.iter().map(|process| resident(*process)).sum()
    }

    /// Bytes queued in the kernel in its pages' sockets, in both directions; `None` if `ss` can't
    /// report them.
    pub fn kernel(&self) -> Option<u64> {
        queued(&format!("sport = :{}", self.address.port()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.end();
        if let Some(config) = &self.config {
            let _ = fs::remove_file(config);
        }
    }
}

fn program() -> Result<Command, String> {
    std::env::current_exe().map(Command::new).map_err(|error| format!("can't find itself: {error}"))
}

/// The resident memory of a process in bytes.
#[must_use]
pub fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Bytes queued in the kernel in the sockets selected by a filter of `ss`, in both directions;
/// `None` if `ss` can't report them.
#[must_use]
pub fn queued(filter: &str) -> Option<u64> {
    let output = Command::new("ss").args(["-tamnHO", filter]).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|text| text.contains("skmem:("))?;
    // r: receive queue; w: write queue; o: option memory; bl: backlog, received while the socket
    // was locked.
    let fields = text.lines().filter_map(|line| line.split_once("skmem:(")?.1.split(')').next());
    let held = fields.flat_map(|fields| fields.split(',')).filter_map(|field| {
        let (name, bytes) = field.split_at(field.find(|c: char| c.is_ascii_digit())?);
        matches!(name, "r" | "w" | "o" | "bl").then(|| bytes.parse::<u64>().ok()).flatten()
    });
    Some(held.sum())
}

/// The processor time of a process.
#[must_use]
pub fn cpu(process: u32) -> Cpu {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The fields after the name, which may contain any character; it ends at the last parenthesis.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    // utime and stime are fields 14 and 15 (see proc(5)), in ticks of 10 ms.
    let ticks = |field: usize| fields.get(field - 3).copied().unwrap_or(0.0) * 10.0;
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let total_ns: f64 = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .sum();
    Cpu { user_ms: ticks(14), system_ms: ticks(15), total_ms: total_ns / 1e6 }
}

/// Pins a process (or this thread) to one core. Does nothing without the permission.
pub fn pin(process: Option<u32>, core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    let process = process.and_then(|process| Pid::from_raw(i32::try_from(process).ok()?));
    let _ = sched_setaffinity(process, &cores);
}
