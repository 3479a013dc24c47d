//! The bench's report, as a table or as JSON: medians over the runs, and ratios to the ceiling.

use serde_json::{Value, json};

use super::{Against, Figures, Mode, Options};

/// Renders the report of all runs.
pub fn render(options: &Options, relay: &[Figures], other: &[Figures]) -> String {
    let relay = rows(options, relay);
    let other = rows(options, other);
    let other_name = match options.against {
        Against::Nothing => "",
        Against::Ceiling => "ceiling",
        Against::Plain => "plain",
        Against::Quiet => "quiet",
    };
    let name = Mode::ALL.iter().find(|(_, mode)| *mode == options.mode).map_or("", |(name, _)| *name);
    if options.json {
        let mut report = json!({
            "mode": name, "pages": options.pages, "under_way": options.under_way, "size": options.size,
            "seconds": options.seconds, "runs": options.runs, "tls": options.tls, "resumed": options.resumes, "relay": object(&relay),
        });
        if let (false, Some(report)) = (other.is_empty(), report.as_object_mut()) {
            report.insert(other_name.into(), object(&other));
        }
        return format!("{report}\n");
    }
    let mut out = format!("{name}: {}\n\n{:<36}{:>12}", settings(options), "", "relay");
    if !other.is_empty() {
        out += &format!("{other_name:>12}{:>9}{:>17}", "ratio", "ratios of runs");
    }
    out.push('\n');
    for (index, (key, values)) in relay.iter().enumerate() {
        out += &format!("{:<36}{:>12}", label(key), number(median(values)));
        // No ratio where the other has no such value.
        if let Some((_, bare)) = other.get(index).filter(|(_, bare)| median(bare) > 0.0) {
            let ratios: Vec<f64> = values.iter().zip(bare).map(|(ours, bare)| ours / bare).collect();
            let spread =
                ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), ratio| (low.min(*ratio), high.max(*ratio)));
            let spread = format!("{:.2} to {:.2}", spread.0, spread.1);
            out += &format!("{:>12}{:>9.3}{spread:>17}", number(median(bare)), median(&ratios));
        }
        out.push('\n');
    }
    if options.mode != Mode::Idle && relay.iter().any(|(key, values)| *key == LOAD_BUSY && median(values) > 0.97) {
        out += "\nThe load generator was busy all the time: it may be the bottleneck, not the relay.\n";
    }
    out
}

/// The settings that matter in the mode.
fn settings(options: &Options) -> String {
    let Options { pages, under_way, size, seconds, rate, runs, .. } = options;
    let runs = if *runs == 1 { "1 run".to_owned() } else { format!("medians of {runs} runs") };
    let runs = match (options.tls, options.resumes) {
        (true, true) => format!("TLS resumed, {runs}"),
        (true, false) => format!("TLS, {runs}"),
        (false, _) => runs,
    };
    match options.mode {
        Mode::Flat | Mode::Stalled => format!("{pages} pages, {under_way} in flight, {size} B, {seconds} s, {runs}"),
        Mode::Rate | Mode::Flood => format!("{pages} pages, {rate} per second, {size} B, {seconds} s, {runs}"),
        Mode::Media => format!("{pages} pages, 1.2 Mbit/s each, {seconds} s, {runs}"),
        Mode::Idle => format!("{pages} pages, {runs}"),
        Mode::Arrivals => format!("{pages} pages, {under_way} at once, {runs}"),
    }
}

/// The row that shows whether the bench itself was the bottleneck.
const LOAD_BUSY: &str = "load generator busy, share";

/// Each row: its key in JSON, indented if it is part of the row above, and its value in each run.
type Rows = Vec<(&'static str, Vec<f64>)>;

/// The row's label in the table. The keys are part of the JSON format and stay as they are.
fn label(key: &'static str) -> &'static str {
    match key {
        "arrivals a second" => "arrivals per second",
        "processor for each arrival, us" => "processor time per arrival, us",
        "user memory for each page, B" => "user memory per page, B",
        "queued in the kernel for each, B" => "queued in the kernel per page, B",
        "a page's pong meanwhile, p50, us" => "pong latency meanwhile, p50, us",
        "a page's pong meanwhile, p99, us" => "pong latency meanwhile, p99, us",
        "a page's pong meanwhile, max, us" => "pong latency meanwhile, max, us",
        "processor for each delivery, us" => "processor time per delivery, us",
        "deliveries a second" => "deliveries per second",
        "MB a second" => "MB per second",
        "MB in all" => "MB in total",
        "handshakes of the flood a second" => "handshakes of the flood per second",
        "told as gaps" => "missed with a gap notice",
        "lost and not told" => "lost without a gap notice",
        _ => key,
    }
}

fn rows(options: &Options, runs: &[Figures]) -> Rows {
    if runs.is_empty() {
        return Vec::new();
    }
    let row = |key, of: &dyn Fn(&Figures) -> f64| (key, runs.iter().map(of).collect::<Vec<_>>());
    let each = |figures: &Figures, ms: f64| ms * 1000.0 / figures.deliveries.max(1) as f64;
    // A relay on another machine is known only by what it sends.
    let has_process = options.attached.as_ref().is_none_or(|attached| !attached.processes.is_empty());
    let has_kernel = runs.iter().all(|run| run.kernel_before.is_some() && run.kernel_after.is_some());
    let kernel = |f: &Figures| f.kernel_after.unwrap_or(0).saturating_sub(f.kernel_before.unwrap_or(0)) as f64;
    let resident = |f: &Figures| f.memory_after.saturating_sub(f.memory_before) as f64;
    let mut rows = Vec::new();
    if matches!(options.mode, Mode::Idle | Mode::Arrivals) {
        let each = |figures: &Figures, value: f64| value / figures.arrivals.max(1) as f64;
        rows.push(row("arrivals a second", &|f| f.arrivals as f64 / f.seconds));
        if has_process {
            rows.push(row("processor for each arrival, us", &|f| each(f, f.cpu.total_ms * 1000.0)));
            rows.push(row("  in user mode, us", &|f| each(f, f.cpu.user_ms * 1000.0)));
            rows.push(row("user memory for each page, B", &|f| each(f, resident(f))));
        }
        if has_kernel {
            rows.push(row("queued in the kernel for each, B", &|f| each(f, kernel(f))));
        }
        rows.push(row("a page's pong meanwhile, p50, us", &|f| f.latency[0] as f64));
        rows.push(row("a page's pong meanwhile, p99, us", &|f| f.latency[1] as f64));
        rows.push(row("a page's pong meanwhile, max, us", &|f| f.latency[3] as f64));
        return rows;
    }
    if has_process {
        rows.push(row("processor for each delivery, us", &|f| each(f, f.cpu.total_ms)));
        rows.push(row("  in user mode, us", &|f| each(f, f.cpu.user_ms)));
        rows.push(row("  in the kernel, us", &|f| each(f, f.cpu.system_ms)));
    }
    rows.push(row("deliveries a second", &|f| f.deliveries as f64 / f.seconds));
    rows.push(row("MB a second", &|f| f.bytes as f64 / 1e6 / f.seconds));
    rows.push(row("MB in all", &|f| f.bytes as f64 / 1e6));
    rows.push(row("latency p50, us", &|f| f.latency[0] as f64));
    rows.push(row("latency p99, us", &|f| f.latency[1] as f64));
    rows.push(row("latency p99.9, us", &|f| f.latency[2] as f64));
    rows.push(row("latency max, us", &|f| f.latency[3] as f64));
    if has_process {
        rows.push(row("processor busy, share", &|f| f.cpu.total_ms / 1000.0 / f.seconds));
    }
    rows.push(row(LOAD_BUSY, &|f| f.load_cpu.total_ms / 1000.0 / f.seconds));
    if has_process {
        rows.push(row("growth of RSS, KiB", &|f| resident(f) / 1024.0));
    }
    if has_kernel {
        rows.push(row("growth of queues in the kernel, KiB", &|f| kernel(f) / 1024.0));
    }
    if options.mode == Mode::Flood {
        rows.push(row("handshakes of the flood a second", &|f| f.handshakes_per_s));
    }
    rows.push(row("told as gaps", &|f| f.gaps as f64));
    rows.push(row("lost and not told", &|f| f.lost as f64));
    rows
}

fn object(rows: &Rows) -> Value {
    let pairs = rows.iter().map(|(key, values)| (key.trim().to_owned(), json!(median(values))));
    Value::Object(pairs.collect())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => (value + sorted.get(middle - 1).unwrap_or(value)) / 2.0,
        _ => 0.0,
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
