//! The relay's status in one line, for the service manager's `STATUS=`: pages, topics, uplink,
//! memory, conditions.
//!
//! Figures are rounded coarsely, so that the line changes only when something did.

use super::View;
use super::condition;
use super::text::{plain, within};
use board::memory_sum;

/// The status line.
#[must_use]
pub fn brief(view: &View<'_>) -> String {
    let (relay, used) = (view.relay, view.relay.in_use());
    let row = relay.uplink_row(view.now);
    let address = view.config.uplink.addresses.get(row.entry as usize).map_or(String::new(), plain);
    let sum = memory_sum(relay.board());
    let resident = (view.process)().resident_size;
    let draining = if relay.is_draining() { "draining: " } else { "" };
    let codes: String = condition::conditions(view).iter().map(|found| format!(" [{}]", found.code)).collect();
    format!(
        "{draining}{} of {} pages, {} topics; uplink {} ({}); memory {} of {}, kernel {} of {} MiB{codes}",
        used.pages,
        relay.board().pages_max,
        used.topics,
        row.state,
        within(&address, 60),
        mebibytes(resident),
        mebibytes(sum.process()),
        mebibytes(relay.kernel_size()),
        mebibytes(sum.kernel()),
    )
}

/// Whole MiB, rounded up.
const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
