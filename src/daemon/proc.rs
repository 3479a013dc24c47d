//! What the process is to the kernel: `/proc/self` and the descriptor limit. Both are memory, not a disk: nothing blocks.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::console::Process;

/// Asks the kernel; what it doesn't say is 0.
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
