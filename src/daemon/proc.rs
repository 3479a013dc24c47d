//! The process as the kernel sees it: `/proc/self` and the descriptor limit. Neither touches a
//! disk, so nothing blocks.

use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::console::Process;

/// Reads the process's memory and descriptor limit; 0 for what the kernel doesn't report.
pub fn process() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).map_or(0, |kib: u64| kib * 1024)
    };
    Process {
        resident_size: size("VmRSS:"),
        resident_size_highest: size("VmHWM:"),
        descriptors_max: getrlimit(Resource::Nofile).current.unwrap_or(0),
    }
}

/// Resource usage of the process, as far as the kernel reports it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time, user and system, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Start time in milliseconds since 1970 by the kernel's clock: setting the clock moves it.
    pub started_ms: Option<u64>,
}

/// Reads the resource usage.
pub fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The process's name, field 2, may contain spaces and ends with the last parenthesis; `rest`
    // begins with field 3.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).map(ms);
    // The boot time, which field 22 counts from. `/proc/stat` has it too, but not in the unit's
    // sandbox.
    let booted = ms_of(ClockId::Realtime).checked_sub(ms_of(ClockId::Boottime));
    Usage {
        cpu_ms: ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| user + system),
        descriptors: descriptors(),
        started_ms: ticks(STARTTIME).zip(booted).map(|(ms, booted)| booted.saturating_add(ms)),
    }
}

/// Fields of `/proc/self/stat`, counted from 1 (`proc(5)`).
const UTIME: usize = 14;
const STIME: usize = 15;
const STARTTIME: usize = 22;
/// A larger descriptor table is not counted one by one, which would take milliseconds.
const COUNTED_MAX: u64 = 1024;

fn ms_of(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1000).saturating_add(nanoseconds.unwrap_or_default() / 1_000_000)
}

fn ms(ticks: u64) -> u64 {
    ticks.saturating_mul(1000) / clock_ticks_per_second().max(1)
}

/// Linux 6.2 and later report the number as the directory's size. Older kernels: counted, if the
/// table is small.
fn descriptors() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let size: u64 = status.lines().find_map(|line| line.strip_prefix("FDSize:"))?.trim().parse().ok()?;
    if size > COUNTED_MAX {
        return None;
    }
    // Without the descriptor that reads the directory.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_used() {
        let usage = usage();
        assert!(usage.descriptors.unwrap() >= 3 && usage.cpu_ms.is_some());
        let now = std::process::Command::new("date").arg("+%s").output().unwrap();
        let now: u64 = String::from_utf8(now.stdout).unwrap().trim().parse().unwrap();
        let started = usage.started_ms.unwrap() / 1000;
        assert!(now.saturating_sub(started) < 24 * 3600 && started <= now + 2, "{started} {now}");
    }
}
