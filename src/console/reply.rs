//! Answers of a bounded, short text: status, uplink, memory, limits, counters, version.
//!
//! Fixed columns, at most 79 wide; sizes and times have units. A text has a few dozen lines
//! whatever the relay's state, and fits the output buffer. `list.rs` has the lists, which may be
//! long.

use core::fmt::Write as _;

use super::condition::{self, Condition};
use super::lines::Line;
use super::text::{percent, plain, span, within, wrapped};
use super::{TlsNotes, View, tls};
use crate::config::{LIMITS, PAGES_PER_ADDRESS_AUTO, Pin};
use board::{Known, Term, memory_sum, size_text};
use relay::InUse;

/// `version`: one line.
pub fn version(view: &View<'_>) -> String {
    format!("sharelinkd {}  board {}  {}\n", env!("CARGO_PKG_VERSION"), view.relay.board().name, board::TARGET)
}

/// The banner of a new console: version, board, addresses, memory sum.
pub fn banner(view: &View<'_>) -> String {
    let sum = memory_sum(view.relay.board());
    let mut out = version(view);
    let listening: Vec<String> = view.listening.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "pages at   {}", within(&listening.join(", "), 66));
    let addresses: Vec<String> = view.config.uplink.addresses.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "uplink to  {}", within(&plain(&addresses.join(", ")), 66));
    let _ = writeln!(
        out,
        "memory     at most {} of {}: process {}, kernel {}",
        size_text(sum.total()),
        size_text(view.relay.board().memory_budget),
        size_text(sum.process()),
        size_text(sum.kernel()),
    );
    let _ = writeln!(out, "`help` lists the commands");
    out
}

/// `status`.
pub fn status(view: &View<'_>) -> String {
    let (relay, board) = (view.relay, view.relay.board());
    let (used, highest) = (relay.in_use(), relay.highest());
    let conditions = condition::conditions(view);
    let mut out = String::new();
    let _ = writeln!(out, "health      {}", condition::health(view, &conditions).name());
    for condition in &conditions {
        write_condition(&mut out, condition);
    }
    let row = relay.uplink_row(view.now);
    let address = view.config.uplink.addresses.get(row.entry as usize).map_or(String::new(), plain);
    let since = row.for_ms.map_or(String::new(), |ms| format!(" for {}", span(ms)));
    let _ = writeln!(out, "uplink      {}{since}, {}", row.state, within(&address, 44));
    if let Some(tls) = &view.tls {
        for (at, piece) in wrapped(&tls::status(tls), STATUS_COLUMNS).enumerate() {
            let _ = writeln!(out, "{:<11} {piece}", if at == 0 { "tls" } else { "" });
        }
    }
    let _ = writeln!(out, "name        {}, up for {}", within(&plain(&view.config.uplink.name), 48), span(view.now.0));
    let _ = write!(out, "version     {}", version(view));
    let _ = writeln!(out, "{:<12}{:>10} {:>10} {:>10} {:>6}", "", "used", "limit", "highest", "used %");
    for (name, used, limit, highest) in [
        ("pages", used.pages, board.pages_max, highest.pages),
        ("topics", used.topics, board.topics_max, highest.topics),
        ("links", used.links, board.links_max, highest.links),
        ("blocks", used.blocks, board.blocks_max, highest.blocks),
    ] {
        let part = percent(used.into(), limit.into());
        let _ = writeln!(out, "{name:<12}{used:>10} {limit:>10} {highest:>10} {part:>5}%");
    }
    let sum = memory_sum(board);
    let process = (view.process)();
    for (name, used, limit, highest) in [
        ("resident", process.resident_size, sum.process(), process.resident_size_highest),
        ("in kernel", relay.kernel_size(), board.kernel_size_max, relay.kernel_size_highest()),
    ] {
        let part = percent(used, limit);
        let (used, limit, highest) = (size_text(used), size_text(limit), size_text(highest));
        let _ = writeln!(out, "{name:<12}{used:>10} {limit:>10} {highest:>10} {part:>5}%");
    }
    out
}

fn write_condition(out: &mut String, Condition { code, text }: &Condition) {
    for (at, piece) in wrapped(&plain(text), CONDITION_COLUMNS).enumerate() {
        let mark = if at == 0 { format!("[{code}]") } else { String::new() };
        let _ = writeln!(out, "{mark:<4} {piece}");
    }
}

/// Columns of a condition's text, behind its code.
const CONDITION_COLUMNS: usize = 74;

/// `json`: the status as one line.
pub fn json(view: &View<'_>) -> String {
    let (relay, board) = (view.relay, view.relay.board());
    let (used, highest) = (relay.in_use(), relay.highest());
    let conditions = condition::conditions(view);
    let health = condition::health(view, &conditions);
    let row = relay.uplink_row(view.now);
    let address = view.config.uplink.addresses.get(row.entry as usize).map(ToString::to_string);
    let table =
        |used: u32, limit: u32, highest: u32| serde_json::json!({"used": used, "limit": limit, "highest": highest});
    let sum = memory_sum(board);
    let process = (view.process)();
    let conditions: Vec<serde_json::Value> =
        conditions.iter().map(|found| serde_json::json!({"code": found.code, "text": found.text})).collect();
    let value = serde_json::json!({
        "health": health.name(),
        "version": env!("CARGO_PKG_VERSION"),
        "board": board.name,
        "target": board::TARGET,
        "name": view.config.uplink.name,
        "uptime_s": view.now.0 / 1000,
        "draining": relay.is_draining(),
        "uplink": {"up": relay.is_up(), "state": row.state, "address": address, "connections": row.connections},
        "pages": table(used.pages, board.pages_max, highest.pages),
        "subscriptions": table(used.subscriptions, board.subscriptions_max, highest.subscriptions),
        "topics": table(used.topics, board.topics_max, highest.topics),
        "links": table(used.links, board.links_max, highest.links),
        "blocks": table(used.blocks, board.blocks_max, highest.blocks),
        "memory": {
            "resident_bytes": process.resident_size,
            "process_limit_bytes": sum.process(),
            "kernel_bytes": relay.kernel_size(),
            "kernel_limit_bytes": board.kernel_size_max,
        },
        "conditions": conditions,
        "tls": view.tls.as_ref().map(tls::json),
    });
    ascii(&value.to_string()) + "\n"
}

/// JSON with an escape for each character that is not printable ASCII, since a serial line may not
/// carry it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 1);
    for letter in json.chars() {
        if matches!(letter, ' '..='~') {
            out.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// One line of `watch`.
pub fn watch(view: &View<'_>, deliveries_before: u64, ms: u64) -> String {
    let (relay, used) = (view.relay, view.relay.in_use());
    let counters = relay.counters();
    let deliveries: u64 = counters.deliveries.iter().sum();
    let rate = deliveries.saturating_sub(deliveries_before).saturating_mul(1000) / ms.max(1);
    let (resident, kernel) = ((view.process)().resident_size, relay.kernel_size());
    format!(
        "{:<9} {:>7} {:>5} {:>7} {:>9} {:>9} {:>10} {:>9} {:>5}\n",
        relay.uplink_row(view.now).state,
        used.pages,
        relay.slow_pages(),
        used.topics,
        rate,
        counters.missed.iter().sum::<u64>(),
        size_text(resident),
        size_text(kernel),
        condition::conditions(view).len()
    )
}

/// The header of `watch`.
pub fn watch_head() -> String {
    format!(
        "{:<9} {:>7} {:>5} {:>7} {:>9} {:>9} {:>10} {:>9} {:>5}\n",
        "uplink", "pages", "slow", "topics", "rate /s", "missed", "resident", "kernel", "cond."
    )
}

/// `uplink`.
pub fn uplink(view: &View<'_>) -> String {
    let (relay, row) = (view.relay, view.relay.uplink_row(view.now));
    let counters = relay.counters();
    let mut out = String::new();
    let _ = writeln!(out, "{:<17} {:>10}", "state", row.state);
    let since = if relay.is_up() { "up for" } else { "trying for" };
    for (name, ms) in [(since, row.for_ms), ("next try in", row.retry_ms), ("first entry in", row.return_ms)] {
        if let Some(ms) = ms {
            let _ = writeln!(out, "{name:<17} {:>10}", span(ms));
        }
    }
    let heard = if relay.is_up() { span(row.heard_ms) } else { "-".to_owned() };
    let _ = writeln!(out, "{:<17} {heard:>10}", "last heard ago");
    for (name, number) in [
        ("connections", row.connections),
        ("dials", counters.dials),
        ("losses", counters.uplink_losses),
        ("failures in a row", row.failures.into()),
        ("requests waiting", relay.in_use().requests.into()),
        ("bytes to write", row.out_size as u64),
    ] {
        let _ = writeln!(out, "{name:<17} {number:>10}");
    }
    for (index, entry) in view.config.uplink.addresses.iter().enumerate() {
        let mark = match (index == row.entry as usize, relay.is_up()) {
            (true, true) => "in use",
            (true, false) => "tried",
            (false, _) => "",
        };
        let _ = writeln!(out, "entry {:<11} {mark:>10}  {}", index + 1, within(&plain(entry), 50));
    }
    if let Some(TlsNotes { suite, own, shown }) = &view.uplink.tls {
        let text = |pin: &Option<Pin>| pin.map_or_else(|| "-".to_owned(), |pin| pin.to_string());
        let _ = writeln!(out, "TLS        {}", suite.unwrap_or("-"));
        let _ = writeln!(out, "our key    {}\nits key    {}", text(own), text(shown));
    }
    if !relay.is_up() {
        let _ = writeln!(out, "[U1] the business server is not connected");
        for (at, piece) in wrapped(&plain(&view.uplink.failure.as_deref().unwrap_or("")), FAILURE_COLUMNS).enumerate() {
            let _ = writeln!(out, "{:<4} {piece}", if at == 0 { "why:" } else { "" });
        }
    }
    for found in condition::conditions(view).iter().filter(|found| found.code.starts_with('U') && found.code != "U1") {
        write_condition(&mut out, found);
    }
    out
}

/// Columns of a row of `status` behind its label.
const STATUS_COLUMNS: usize = 67;
/// Columns of the reason why it is not connected, behind its label.
const FAILURE_COLUMNS: usize = 74;

/// `memory`: the sum term by term.
pub fn memory(view: &View<'_>) -> String {
    let (relay, board) = (view.relay, view.relay.board());
    let sum = memory_sum(board);
    let mut out = format!("{:<26} {:>12} {:>12} {:>12}  {}\n", "memory", "limit", "used", "highest", "known by");
    let (used, highest) = (relay.in_use(), relay.highest());
    let mut rows = |name: &str, limit: u64, used: Option<u64>, highest: Option<u64>, known: &str| {
        let text = |size: Option<u64>| size.map_or("-".to_owned(), size_text);
        let _ = writeln!(out, "{name:<26} {:>12} {:>12} {:>12}  {known}", size_text(limit), text(used), text(highest));
    };
    for term in &sum.terms {
        let (now, most) = match term.name {
            "kernel queues" => (Some(relay.kernel_size()), Some(relay.kernel_size_highest())),
            "TLS half records" => (view.tls.as_ref().map(|tls| tls.counts.half_records as u64 * term.size), None),
            _ => (in_use(view, term, &used), in_use(view, term, &highest)),
        };
        rows(term.name, term.bytes(), now, most, term.known.name());
    }
    let process = (view.process)();
    rows(
        "process, resident",
        sum.process(),
        Some(process.resident_size),
        Some(process.resident_size_highest),
        "the kernel",
    );
    rows("kernel", sum.kernel(), None, None, "sum");
    rows("all", sum.total(), None, None, "sum");
    rows("budget", board.memory_budget, None, None, "board");
    out
}

/// Bytes that a term's used rows take; `None` if the relay doesn't count them.
fn in_use(view: &View<'_>, term: &Term, rows: &InUse) -> Option<u64> {
    let (reasons, origins) = view.relay.texts_in_use();
    let pages = u64::from(rows.pages);
    let topics = u64::from(rows.topics);
    let limits = view.relay.board();
    let per_topic = term.count.checked_div(limits.topics_max.into()).unwrap_or(0);
    let count = match term.name {
        "session rows" | "connection rows" | "page tasks" | "executor and reactor" => pages,
        "subscription rows" => rows.subscriptions.into(),
        "link rows" => rows.links.into(),
        "topic rows" => topics,
        "frame index" | "block directories" => topics * per_topic,
        "request rows" => rows.requests.into(),
        "reasons" => reasons as u64,
        "networks" => view.relay.networks().into(),
        "origins" => origins as u64,
        "begun frames" => rows.begun_frames.into(),
        "kept frames" => rows.kept_blocks.into(),
        "arena" => rows.blocks.into(),
        "kernel sockets" => pages,
        // Allocated only with TLS.
        "TLS scratches" | "certificates, tickets" if view.tls.is_none() => return None,
        "TLS address buckets" if view.tls.is_some() => term.count,
        // Made when a peer asks for it.
        "files in plain" => return None,
        // Allocated as a whole at start.
        _ if term.known == Known::Buffer && term.count == 1 => 1,
        "arena free list" | "address buckets" => term.count,
        _ => return None,
    };
    Some(count.saturating_mul(term.size))
}

/// `limits`.
pub fn limits(view: &View<'_>) -> String {
    let (built, board) = (view.built, view.relay.board());
    let (used, highest) = (view.relay.in_use(), view.relay.highest());
    let mut out = String::new();
    let mut row = |key: &str, unit: &str, figures: [&str; 4]| {
        let [of_board, configured, used, highest] = figures;
        let _ = writeln!(out, "{key:<20} {unit:<4} {of_board:>12} {configured:>12} {used:>12} {highest:>12}");
    };
    row("limit", "unit", ["board", "configured", "used", "highest"]);
    for limit in &LIMITS {
        let now = |rows: &InUse| match limit.key {
            "pages" => rows.pages.to_string(),
            "topics" => rows.topics.to_string(),
            "subscriptions" => rows.subscriptions.to_string(),
            "links" => rows.links.to_string(),
            "requests" => rows.requests.to_string(),
            "arena_blocks" => rows.blocks.to_string(),
            _ => "-".to_owned(),
        };
        let (now, most) = match limit.key {
            "kernel_size" => (view.relay.kernel_size().to_string(), view.relay.kernel_size_highest().to_string()),
            _ => (now(&used), now(&highest)),
        };
        let (of_board, configured) = ((limit.of)(built).to_string(), (limit.of)(board).to_string());
        row(limit.key, unit(limit.key), [&of_board, &configured, &now, &most]);
    }
    let most = match view.config.pages_per_address {
        None => PAGES_PER_ADDRESS_AUTO.to_owned(),
        Some(0) => "none".to_owned(),
        Some(most) => most.to_string(),
    };
    row("pages_per_address", "", ["none", &most, "-", "-"]);
    out
}

/// The unit in a limit's name; empty for a count.
fn unit(key: &str) -> &'static str {
    match key.rsplit_once('_') {
        Some((_, "ms")) => "ms",
        Some((_, "size")) => "B",
        Some(("address_asks_per", "s")) => "/s",
        _ => "",
    }
}

/// `counters`: two columns of names and numbers.
pub fn counters(view: &View<'_>) -> String {
    let mut out = String::new();
    let overtaken = view.relay.overtaken();
    let overtaken = [("frames_kept", overtaken.kept), ("frames_lost", overtaken.lost)];
    let rows: Vec<_> = view.relay.counters().rows().into_iter().chain(overtaken).collect();
    for pair in rows.chunks(2) {
        for (at, (name, number)) in pair.iter().enumerate() {
            let _ = write!(out, "{}{name:<24} {number:>13}", if at == 0 { "" } else { "  " });
        }
        out.push('\n');
    }
    out
}

/// `log`: the level, and the lines lost.
pub fn log_level(view: &View<'_>) -> String {
    format!("log level {}; {} lines were not written\n", view.log_level.as_str().to_ascii_lowercase(), view.unwritten)
}

/// A line of `log tail`: its level and text, wrapped, and how many similar lines came before it.
pub fn log_line(line: &Line, like_it: u64) -> String {
    let mut out = String::new();
    let text = match like_it {
        0 => plain(&line.text),
        _ => format!("{} (and {like_it} like it before)", plain(&line.text)),
    };
    for (at, piece) in wrapped(&text, TAIL_COLUMNS).enumerate() {
        let level = if at == 0 { line.level.as_str() } else { "" };
        let _ = writeln!(out, "{level:<5} {piece}");
    }
    out
}

/// Columns of a line's text in `log tail`.
const TAIL_COLUMNS: usize = 73;
