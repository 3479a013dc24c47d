//! What the service manager is told about a board: memory, tasks, descriptors, and a serial device beyond the usual ones.
//!
//! Owns the drop-in that a package installs beside the unit, and the figures in it that are no field of the board. Pure text:
//! knows neither where it is written nor whether there is a service manager. The unit as shipped has board host's
//! figures; `tests/suite/service.rs` compares them.

use alloc::format;
use alloc::string::String;
use core::fmt::Write as _;

use super::limits::Board;
use super::sum::{CONSOLES_MAX, LISTENERS_MAX, METRICS_MAX};

/// Descriptors besides the pages': std's three, the reactor's three, two of the signals, the ring of the batches, two each of the
/// serial line and the uplink, the service manager's, a file that is read, and one to spare; the listeners; engineers and
/// scrapers, and one more of each who is told that there is no place.
pub const DESCRIPTORS_EXTRA: u64 =
    16 + (LISTENERS_MAX as u64 + 2) + (CONSOLES_MAX as u64 + 1) + (METRICS_MAX as u64 + 1);
/// The thread of tasks and the helper that async-io parks; `check` and `kill` during a reload; and as many to spare.
const TASKS_MAX: u32 = 8;
/// Serial drivers that the unit allows already (`DeviceAllow=char-…`).
const DRIVERS: [&str; 4] = ["ttyS", "ttyAMA", "ttyUSB", "ttyACM"];

/// Open files that the relay needs.
#[must_use]
pub const fn descriptors(board: &Board) -> u64 {
    board.pages_max as u64 + board.heads_max as u64 + DESCRIPTORS_EXTRA
}

/// The drop-in for `sharelinkd.service`; `serial` is the console's line, where it has one.
#[must_use]
pub fn drop_in(board: &Board, serial: Option<&str>) -> String {
    let mut text = format!("# What follows from board {}; `sharelinkd drop-in` printed it.\n", board.name);
    let tty = serial.and_then(tty);
    let _ = write!(
        text,
        "\n[Service]\nMemoryMax={}\nTasksMax={TASKS_MAX}\nLimitNOFILE={}\n",
        board.memory_budget,
        descriptors(board)
    );
    if let Some(serial) = serial.filter(|_| !tty.is_some_and(is_allowed)) {
        let _ = writeln!(text, "DeviceAllow={} rw", serial);
    }
    text
}

/// The name of a tty right below `/dev`, as its driver names it.
fn tty(device: &str) -> Option<&str> {
    let name = device.strip_prefix("/dev/")?;
    (name.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(name)
}

fn is_allowed(tty: &str) -> bool {
    DRIVERS.contains(&tty.trim_end_matches(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HOST, TINY};

    #[test]
    fn the_figures_are_the_boards() {
        for board in [&HOST, &TINY] {
            let text = drop_in(board, None);
            let has = |line: String| assert!(text.lines().any(|found| found == line), "{line}: {text}");
            has(format!("MemoryMax={}", board.memory_budget));
            has(format!("LimitNOFILE={}", board.pages_max + board.heads_max + 42));
            has("TasksMax=8".to_owned());
            assert!(!text.contains("[Unit]") && !text.contains("DeviceAllow"));
        }
    }

    #[test]
    fn a_serial_line_is_allowed() {
        assert_eq!(drop_in(&HOST, Some("/dev/ttyAMA0")), drop_in(&HOST, None), "the unit allows it already");
        for device in ["/dev/ttymxc3", "/dev/serial/by-id/usb-1"] {
            let text = drop_in(&HOST, Some(device));
            assert!(text.ends_with(&format!("\nDeviceAllow={device} rw\n")), "{text}");
        }
    }
}
