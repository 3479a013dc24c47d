//! Conditions: what an operator should look at now, each with a code to cite.
//!
//! Derived from the machine and the shell on each call; nothing is stored. They determine the
//! health of the relay: healthy (no condition), degraded (some), down (draining: no new page is
//! served).

use super::text::{percent, span};
use super::{View, tls};
use board::size_text;

/// The health of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No condition.
    Healthy,
    /// It serves, with at least one condition.
    Degraded,
    /// It serves no new pages.
    Down,
}

impl Health {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The code, without its brackets.
    pub code: &'static str,
    /// Description, with figures.
    pub text: String,
}

/// Every code with its meaning; `docs/console.md` has the same table, with what to do.
pub const CODES: [(&str, &str); 18] = [
    ("U1", "the business server is not connected"),
    ("U2", "a name in uplink.addresses does not resolve"),
    ("U3", "the clock was never set, and certificates have dates"),
    ("C1", "a certificate has expired, or is not valid yet"),
    ("C2", "a certificate expires within 3 days, or a 16th of its life if that is shorter"),
    ("C3", "the files of a certificate can't be used"),
    ("C4", "a certificate expires within 14 days, or a quarter of its life if that is shorter"),
    ("C5", "whether certificates have expired is not known"),
    ("C6", "a certificate has a kind of key that is slow on this processor"),
    ("C7", "the service manager listens for pages by TLS, which is off"),
    ("D1", "the relay is draining"),
    ("T1", "a table is nearly full"),
    ("A1", "media history is evicted early"),
    ("K1", "socket memory is nearly full"),
    ("S1", "many pages are slow"),
    ("F1", "the limit of open files is too low"),
    ("L1", "log lines were not written"),
    ("M1", "resident memory exceeds the memory sum"),
];

/// What to do about listeners by TLS that nobody serves.
pub const TLS_UNSERVED: &str =
    "set tls.listen, or run `systemctl disable --now sharelinkd-tls.socket`; then `systemctl restart sharelinkd`";

/// Use of a table from which it counts as nearly full, in percent.
const FULL_PERCENT: u64 = 90;

/// Fewer slow pages than this are no condition, whatever their share: they may be phones in a
/// tunnel.
const SLOW_PAGES_MIN: u32 = 10;

/// The conditions now, the worst first.
#[must_use]
pub fn conditions(view: &View<'_>) -> Vec<Condition> {
    let (relay, board) = (view.relay, view.relay.board());
    let mut found = Vec::new();
    let mut add = |code, text| found.push(Condition { code, text });
    if relay.is_draining() {
        add("D1", "the relay is draining: no new page is admitted".to_owned());
    }
    if !relay.is_up() {
        let row = relay.uplink_row(view.now);
        let next = row.retry_ms.map_or(String::new(), |ms| format!(", next try in {}", span(ms)));
        add("U1", format!("the business server is not connected ({}{next})", row.state));
    }
    for (entry, why) in &view.uplink.unresolved {
        add("U2", format!("{entry} does not resolve: {why}"));
    }
    if view.uplink.is_clock_unset && view.config.uplink.tls.as_ref().is_some_and(|tls| tls.ca_file.is_some()) {
        let what = "the clock was never set: the business server's certificate is checked against the time of this";
        add("U3", format!("{what} program's source, and may be newer"));
    }
    for (code, text) in view.tls.iter().flat_map(tls::conditions) {
        add(code, text);
    }
    if !view.tls_unserved.is_empty() {
        let held: Vec<_> = view.tls_unserved.iter().map(ToString::to_string).collect();
        add(
            "C7",
            format!(
                "the service manager listens at {} for pages by TLS, which is off: {TLS_UNSERVED}",
                held.join(", ")
            ),
        );
    }
    let used = relay.in_use();
    for (name, used, max) in [
        ("pages", used.pages, board.pages_max),
        ("subscriptions", used.subscriptions, board.subscriptions_max),
        ("topics", used.topics, board.topics_max),
        ("links", used.links, board.links_max),
    ] {
        // A table of fewer than ten rows counts only when it is full.
        if percent(used.into(), max.into()) >= FULL_PERCENT && max >= 10 || used >= max {
            add("T1", format!("{used} of {max} {name} are in use"));
        }
    }
    if relay.is_media_short() {
        let free = board.blocks_max - used.blocks;
        add("A1", format!("media history is evicted early: {free} blocks are free, reserved for state and messages"));
    }
    // Relative to the cap at which the slowest pages are cut. The board's own limit is above it and
    // is never reached.
    let (kernel, cap) = (relay.kernel_size(), relay.kernel_cap());
    if percent(kernel, cap) >= FULL_PERCENT {
        let (kernel, cap) = (size_text(kernel), size_text(cap));
        add("K1", format!("{kernel} of {cap} of socket memory are in use: the slowest pages are cut off"));
    }
    let slow = relay.slow_pages();
    if slow >= SLOW_PAGES_MIN && percent(slow.into(), used.pages.into()) >= 10 {
        add("S1", format!("{slow} of {} pages are slow: is the network towards them saturated?", used.pages));
    }
    let process = (view.process)();
    let needed = board::descriptors(board);
    if process.descriptors_max != 0 && process.descriptors_max < needed {
        add(
            "F1",
            format!("{} open files are allowed, {needed} are needed: raise LimitNOFILE", process.descriptors_max),
        );
    }
    if view.unwritten > 0 {
        add("L1", format!("{} log lines were not written: standard error was blocked", view.unwritten));
    }
    let allowed = board::memory_sum(board).process();
    if process.resident_size > allowed {
        let (resident, allowed) = (size_text(process.resident_size), size_text(allowed));
        add("M1", format!("resident memory is {resident}, the memory sum allows {allowed}: report this bug"));
    }
    found
}

/// The health of the relay, given its conditions.
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
