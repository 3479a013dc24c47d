//! The verdict: whether the samples satisfy every condition, and whether a series grows.
//!
//! Owns the watched series and how much each may grow over the window after warm-up. Each violated
//! condition is a line of text; a soak without such lines has passed. Judges only: does not measure
//! or draw.

use std::fmt::Write as _;

use serde_json::Value;

use super::table::Table;
use super::trend::{self, Trend};
use super::watch::Options;

/// Seconds of a bin: half of the usual interval between two drops of the uplink.
const BIN_S: f64 = 30.0;
/// Seconds within which the relay must deliver while it has publications and the uplink is up.
const FLOW_S: f64 = 15.0;
/// Live heap blocks that may remain when all pages have left: the reactor and the executor keep
/// these, however many pages there were.
const REST_BLOCKS_MAX: f64 = 300.0;

/// Bytes of a block of the arena.
const BLOCK_SIZE: f64 = 4_096.0;
const LESS_ARENA: &str = "resident_less_arena";

/// A watched series.
pub struct Watched {
    pub name: &'static str,
    pub title: &'static str,
    /// By how much it may grow over the window.
    pub tolerance: f64,
}

/// The series that must not grow. About 100 000 pages come and go in half an hour: 1 MiB is 10
/// bytes for each.
pub const WATCHED: [Watched; 8] = [
    Watched { name: LESS_ARENA, title: "resident memory, without the arena's blocks", tolerance: 1_048_576.0 },
    Watched { name: "kernel", title: "kernel memory of the relay's sockets", tolerance: 2_097_152.0 },
    Watched { name: "descriptors", title: "open descriptors", tolerance: 100.0 },
    Watched { name: "heap_blocks", title: "live heap blocks", tolerance: 1_000.0 },
    Watched { name: "heap_size", title: "live heap bytes", tolerance: 524_288.0 },
    Watched { name: "subscriptions", title: "subscriptions", tolerance: 200.0 },
    Watched { name: "topics", title: "topics", tolerance: 5.0 },
    Watched { name: "links", title: "links", tolerance: 20.0 },
];

/// Counters that must not be 0, as proof that the soak exercised them.
const MOVED_ALWAYS: [&str; 8] = [
    "uplink_losses",
    "refused_full",
    "page_faults",
    "page_messages",
    "gaps_messages",
    "missed_messages",
    "frames_kept",
    "inits_repeated",
];
const MOVED_LONG: [&str; 6] =
    ["media_shed", "sends_limited", "closed_slow", "missed_video", "superseded", "requests_unanswered"];

/// What the relay holds while no page is connected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    pub rows: f64,
    pub descriptors: f64,
    pub heap_blocks: f64,
    pub resident: f64,
    pub kernel: f64,
}

/// Findings besides the samples.
#[derive(Debug, Default)]
pub struct Facts {
    pub complaints: Vec<String>,
    pub log_errors: Vec<String>,
    /// Injected faults: seconds and name.
    pub events: Vec<(f64, String)>,
    /// The load's last line of output.
    pub end: Value,
    /// Before the first page and after the last.
    pub rests: [Rest; 2],
    pub process_max: f64,
    pub kernel_max: f64,
}

impl Facts {
    /// Violations seen by pages; NaN if the load's last line has no number.
    fn wrong(&self) -> f64 {
        self.end["wrong"].as_f64().unwrap_or(f64::NAN)
    }
}

/// The verdict.
pub struct Judged {
    pub faults: Vec<String>,
    /// In the order of [`WATCHED`].
    pub trends: Vec<Option<Trend>>,
    pub text: String,
}

impl Judged {
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A watched series.
pub fn series(table: &Table, name: &str) -> Vec<(f64, f64)> {
    if name != LESS_ARENA {
        return table.column(name);
    }
    // A block of the arena is touched when it is first used, so that this part follows the
    // high-water mark of the blocks.
    let highest = table.column("blocks_highest");
    let mut at = highest.iter().peekable();
    let mut level = 0.0;
    let less = table.column("resident").into_iter().map(|(time, size)| {
        while let Some(cell) = at.next_if(|cell| cell.0 <= time) {
            level = cell.1;
        }
        (time, size - BLOCK_SIZE * level)
    });
    less.collect()
}

/// Judges a soak.
pub fn judge(options: &Options, table: &Table, facts: &Facts) -> Judged {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let (warm_up, end) = (options.warm_up_s() as f64, options.seconds as f64);
    let after = |name: &str| -> Vec<(f64, f64)> {
        series(table, name).into_iter().filter(|(at, _)| (warm_up..end).contains(at)).collect()
    };
    let mut faults = facts.complaints.clone();
    faults.extend(facts.log_errors.iter().map(|line| format!("the relay's log: {line}")));
    received(table, facts, &mut faults);
    bounds(options, table, facts, &mut faults);
    let pages = trend::median(after("pages").iter().map(|cell| cell.1).collect()).unwrap_or(0.0);
    if pages < 0.98 * f64::from(options.pages) {
        faults.push(format!("the table was not full: {pages:.0} of {} pages in the median", options.pages));
    }
    flow(table, warm_up, end, &mut faults);
    for name in MOVED_ALWAYS.iter().chain(MOVED_LONG.iter().filter(|_| options.is_long())) {
        if table.last(&format!("counter_{name}")).is_none_or(|count| count == 0.0) {
            faults.push(format!("the soak did not exercise {name}: it is 0"));
        }
    }
    rest(facts, &mut faults);
    let trends: Vec<Option<Trend>> = WATCHED
        .iter()
        .map(|watched| trend::judge(&after(watched.name), BIN_S, watched.tolerance).filter(|_| options.is_long()))
        .collect();
    for (watched, trend) in WATCHED.iter().zip(&trends) {
        if let Some(trend) = trend.filter(Trend::grows) {
            faults.push(format!("{} grow: by {:.0} over the window", watched.title, trend.growth));
        } else if trend.is_none() && options.is_long() {
            faults.push(format!("{}: too few samples to judge", watched.title));
        }
    }
    let text = text(options, table, facts, &trends, &faults);
    Judged { faults, trends, text }
}

/// What the pages received, and the counters.
fn received(table: &Table, facts: &Facts, faults: &mut Vec<String>) {
    let wrong = facts.wrong();
    let quoted = facts.end["quoted"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if wrong != 0.0 {
        faults.push(format!("{wrong:.0} violations were seen by pages"));
        faults.extend(quoted.map(str::to_owned));
    }
    if facts.end["receipts"].as_f64().unwrap_or(0.0) < 1.0 {
        faults.push("no page was told that its message was received".to_owned());
    }
    if facts.end["held_to_the_end"].as_f64().unwrap_or(0.0) < 1.0 {
        faults.push("no page was checked for the last message".to_owned());
    }
    for name in table.names("counter_") {
        if table.rate(name).iter().any(|cell| cell.1 < 0.0) {
            faults.push(format!("{name} went backwards"));
        }
    }
}

fn bounds(options: &Options, table: &Table, facts: &Facts, faults: &mut Vec<String>) {
    let most = |name: &str| table.column(name).iter().map(|cell| cell.1).fold(0.0, f64::max);
    for (name, max) in [
        ("resident", facts.process_max),
        ("kernel", facts.kernel_max),
        ("kernel_told", facts.kernel_max),
        ("pages", f64::from(options.pages)),
    ] {
        if most(name).is_nan() || most(name) > max || max.is_nan() {
            faults.push(format!("{name} reached {:.0}, the maximum is {max:.0}", most(name)));
        }
    }
}

/// There are deliveries while there are publications.
fn flow(table: &Table, warm_up: f64, end: f64, faults: &mut Vec<String>) {
    let sum = |prefix: &str| -> Vec<(f64, f64)> {
        let columns: Vec<Vec<(f64, f64)>> = table.names(prefix).map(|name| table.column(name)).collect();
        let Some(first) = columns.first() else { return Vec::new() };
        let all = first.iter().enumerate();
        all.map(|(row, (at, _))| (*at, columns.iter().filter_map(|cells| cells.get(row)).map(|cell| cell.1).sum()))
            .collect()
    };
    let (published, delivered, up) = (sum("counter_published_"), sum("counter_deliveries_"), table.column("up"));
    let mut stops = 0;
    let mut from = warm_up;
    while from + FLOW_S < end {
        let within = |cells: &[(f64, f64)]| -> Vec<f64> {
            cells.iter().filter(|(at, _)| (from..from + FLOW_S).contains(at)).map(|cell| cell.1).collect()
        };
        let grew = |cells: &[(f64, f64)]| within(cells).last() > within(cells).first();
        if within(&up).iter().all(|up| *up == 1.0) && grew(&published) && !grew(&delivered) {
            stops += 1;
        }
        from += 1.0;
    }
    if stops > 0 || published.is_empty() || delivered.is_empty() {
        faults.push(format!("nothing was delivered for {FLOW_S} s during publications, {stops} times"));
    }
}

/// What remains when all pages have left.
fn rest(facts: &Facts, faults: &mut Vec<String>) {
    let [before, after] = facts.rests;
    if after.rows != 0.0 {
        faults.push(format!("{:.0} rows remained in the tables", after.rows));
    }
    if after.descriptors > before.descriptors + 4.0 {
        faults.push(format!("{:.0} descriptors remained, {:.0} before", after.descriptors, before.descriptors));
    }
    let stayed = after.heap_blocks - before.heap_blocks;
    if stayed.is_nan() || stayed > REST_BLOCKS_MAX {
        faults.push(format!("{:.0} heap blocks remained, {:.0} before", after.heap_blocks, before.heap_blocks));
    }
    if after.kernel > 65_536.0 {
        faults.push(format!("{:.0} bytes remained in the kernel", after.kernel));
    }
}

fn text(options: &Options, table: &Table, facts: &Facts, trends: &[Option<Trend>], faults: &[String]) -> String {
    let mut out = String::new();
    let figure = |name: &str| table.last(name).unwrap_or(f64::NAN);
    let _ = writeln!(
        out,
        "\nsoak of {} s, {} places: {:.0} pages came and {:.0} went, {:.0} were refused; {:.0} publications, {:.0} frames to pages",
        options.seconds,
        options.pages,
        figure("counter_pages_opened"),
        figure("counter_pages_closed"),
        figure("counter_refused_full"),
        table.names("load_published_").map(figure).sum::<f64>(),
        figure("load_frames"),
    );
    let _ = writeln!(
        out,
        "{:.0} uplinks lost; {:.0} sequences reported missing; {:.0} violations; {} views checked for the last message; {:.1} % of a processor\n",
        figure("counter_uplink_losses"),
        figure("load_gapped"),
        facts.wrong(),
        facts.end["held_to_the_end"],
        100.0 * figure("processor") / table.column("processor").last().map_or(1.0, |cell| cell.0)
    );
    let [before, after] = facts.rests;
    let _ = writeln!(
        out,
        "at rest, before and after: heap blocks {:.0} {:.0}, descriptors {:.0} {:.0}, resident {:.1} MB {:.1} MB",
        before.heap_blocks,
        after.heap_blocks,
        before.descriptors,
        after.descriptors,
        before.resident / 1e6,
        after.resident / 1e6
    );
    if options.is_long() {
        let _ = writeln!(
            out,
            "\n{:<46}{:>13}{:>13}{:>11}{:>11}{:>8}",
            "after warm-up", "first", "last", "growth", "tolerated", "chance"
        );
        for (watched, trend) in WATCHED.iter().zip(trends) {
            let Some(trend) = trend else { continue };
            let verdict = if trend.grows() { "GROWS" } else { "" };
            let _ = writeln!(
                out,
                "{:<46}{:>13.0}{:>13.0}{:>11.0}{:>11.0}{:>8.1} {verdict}",
                watched.title, trend.first, trend.last, trend.growth, trend.tolerance, trend.deviate
            );
        }
    } else {
        let _ = writeln!(out, "\ntoo short to judge trends");
    }
    let _ = writeln!(out, "\n{}", if faults.is_empty() { "soak: passed" } else { "soak: FAILED" });
    for fault in faults {
        let _ = writeln!(out, "  {fault}");
    }
    out
}
