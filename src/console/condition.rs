//! Conditions: what an operator should look at now, each with a code that can be cited.
//!
//! Derived from the machine and the shell at the moment of asking; nothing is remembered here. From them follows how
//! the relay is as a whole: healthy (none), degraded (some), down (draining: no new page is served).

use super::View;
use super::text::{percent, span};
use board::size_text;

/// How the relay is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing to look at.
    Healthy,
    /// It serves, and something is to be looked at.
    Degraded,
    /// It serves no new pages.
    Down,
}

impl Health {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The code, without its brackets.
    pub code: &'static str,
    /// What it is, with figures.
    pub text: String,
}

/// Every code with its meaning and what to do; `docs/console.md` has the same table.
pub const CODES: [(&str, &str); 9] = [
    ("U1", "the business server is not connected"),
    ("D1", "the relay drains"),
    ("T1", "a table is nearly full"),
    ("A1", "media forget their history early"),
    ("K1", "much waits in the kernel"),
    ("S1", "slow pages"),
    ("F1", "too few descriptors"),
    ("L1", "log lines were not written"),
    ("M1", "more memory is resident than the sum allows"),
];

/// A table counts as nearly full from so many percents on.
const FULL_PERCENT: u64 = 90;

/// Fewer slow pages than this are no condition, whatever part they are: phones in tunnels.
const SLOW_PAGES_MIN: u32 = 10;

/// What there is to look at now; the worst first.
#[must_use]
pub fn conditions(view: &View<'_>) -> Vec<Condition> {
    let (relay, board) = (view.relay, view.relay.board());
    let mut found = Vec::new();
    let mut add = |code, text| found.push(Condition { code, text });
    if relay.is_draining() {
        add("D1", "the relay drains: no page is let in".to_owned());
    }
    if !relay.is_up() {
        let row = relay.uplink_row(view.now);
        let next = row.retry_ms.map_or(String::new(), |ms| format!(", next try in {}", span(ms)));
        add("U1", format!("the business server is not connected ({}{next})", row.state));
    }
    let used = relay.in_use();
    for (name, used, max) in [
        ("pages", used.pages, board.pages_max),
        ("subscriptions", used.subscriptions, board.subscriptions_max),
        ("topics", used.topics, board.topics_max),
        ("links", used.links, board.links_max),
    ] {
        // The smallest tables are full when they are in use at all.
        if percent(used.into(), max.into()) >= FULL_PERCENT && max >= 10 || used >= max {
            add("T1", format!("{used} of {max} {name} are in use"));
        }
    }
    if relay.is_media_short() {
        let free = board.blocks_max - used.blocks;
        add("A1", format!("media forget their history early: {free} blocks are free, kept for state and messages"));
    }
    // Of the cap where the slowest go: the board's own bound, which is beyond it, is never reached.
    let (kernel, cap) = (relay.kernel_size(), relay.kernel_cap());
    if percent(kernel, cap) >= FULL_PERCENT {
        let (kernel, cap) = (size_text(kernel), size_text(cap));
        add("K1", format!("{kernel} of {cap} wait in the kernel: the slowest pages are cut off"));
    }
    let slow = relay.slow_pages();
    if slow >= SLOW_PAGES_MIN && percent(slow.into(), used.pages.into()) >= 10 {
        add("S1", format!("{slow} of {} pages are slow: is the network towards them full?", used.pages));
    }
    let process = (view.process)();
    let needed = board::descriptors(board);
    if process.descriptors_max != 0 && process.descriptors_max < needed {
        add("F1", format!("{} open files are allowed, {needed} are needed: LimitNOFILE", process.descriptors_max));
    }
    if view.unwritten > 0 {
        add("L1", format!("{} lines of the log were not written: standard error takes none", view.unwritten));
    }
    let allowed = board::memory_sum(board).process();
    if process.resident_size > allowed {
        let (resident, allowed) = (size_text(process.resident_size), size_text(allowed));
        add("M1", format!("{resident} are resident, the sum allows {allowed}: tell the developers"));
    }
    found
}

/// How the relay is as a whole.
#[must_use]
pub fn health(view: &View<'_>, conditions: &[Condition]) -> Health {
    if view.relay.is_draining() {
        Health::Down
    } else if conditions.is_empty() {
        Health::Healthy
    } else {
        Health::Degraded
    }
}
