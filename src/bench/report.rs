//! The bench's report: a table, or JSON; medians over the runs, and ratios to the ceiling.

use serde_json::{Value, json};

use super::{Figures, Mode, Options};

/// The report of all runs.
pub fn render(options: Options, relay: &[Figures], ceiling: &[Figures]) -> String {
    let relay = rows(options, relay);
    let ceiling = rows(options, ceiling);
    let name = Mode::ALL.iter().find(|(_, mode)| *mode == options.mode).map_or("", |(name, _)| *name);
    if options.json {
        let mut report = json!({
            "mode": name, "pages": options.pages, "under_way": options.under_way, "size": options.size,
            "seconds": options.seconds, "runs": options.runs, "relay": object(&relay),
        });
        if let (false, Some(report)) = (ceiling.is_empty(), report.as_object_mut()) {
            report.insert("ceiling".into(), object(&ceiling));
        }
        return format!("{report}\n");
    }
    let mut out = format!(
        "{name}: {} pages, {} under way, {} B, {} s, {} run(s)\n\n{:<34}{:>12}",
        options.pages, options.under_way, options.size, options.seconds, options.runs, "", "relay"
    );
    if !ceiling.is_empty() {
        out += &format!("{:>12}{:>9}{:>17}", "ceiling", "ratio", "ratios of runs");
    }
    out.push('\n');
    for (index, (label, values)) in relay.iter().enumerate() {
        out += &format!("{label:<34}{:>12}", number(median(values)));
        // A ratio says nothing where the ceiling does nothing of the kind.
        if let Some((_, bare)) = ceiling.get(index).filter(|(_, bare)| median(bare) > 0.0) {
            let ratios: Vec<f64> = values.iter().zip(bare).map(|(ours, bare)| ours / bare).collect();
            let spread =
                ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), ratio| (low.min(*ratio), high.max(*ratio)));
            let spread = format!("{:.2} to {:.2}", spread.0, spread.1);
            out += &format!("{:>12}{:>9.3}{spread:>17}", number(median(bare)), median(&ratios));
        }
        out.push('\n');
    }
    out
}

type Rows = Vec<(&'static str, Vec<f64>)>;

fn rows(options: Options, runs: &[Figures]) -> Rows {
    if runs.is_empty() {
        return Vec::new();
    }
    let row = |label, of: &dyn Fn(&Figures) -> f64| (label, runs.iter().map(of).collect::<Vec<_>>());
    let each = |figures: &Figures, ms: f64| ms * 1000.0 / figures.deliveries.max(1) as f64;
    if matches!(options.mode, Mode::Idle | Mode::Arrivals) {
        return vec![
            row("arrivals a second", &|f| f.arrivals as f64 / f.seconds),
            row("processor for each arrival, us", &|f| f.cpu.total_ms * 1000.0 / f.arrivals.max(1) as f64),
            row("  in user mode, us", &|f| f.cpu.user_ms * 1000.0 / f.arrivals.max(1) as f64),
            row("user memory for each page, B", &|f| {
                f.memory_after.saturating_sub(f.memory_before) as f64 / f.arrivals.max(1) as f64
            }),
        ];
    }
    vec![
        row("processor for each delivery, us", &|f| each(f, f.cpu.total_ms)),
        row("  in user mode, us", &|f| each(f, f.cpu.user_ms)),
        row("  in the kernel, us", &|f| each(f, f.cpu.system_ms)),
        row("deliveries a second", &|f| f.deliveries as f64 / f.seconds),
        row("MB a second", &|f| f.bytes as f64 / 1e6 / f.seconds),
        row("latency p50, us", &|f| f.latency[0] as f64),
        row("latency p99, us", &|f| f.latency[1] as f64),
        row("latency p99.9, us", &|f| f.latency[2] as f64),
        row("latency max, us", &|f| f.latency[3] as f64),
        row("processor busy, share", &|f| f.cpu.total_ms / 1000.0 / f.seconds),
        row("load generator busy, share", &|f| f.load_cpu.total_ms / 1000.0 / f.seconds),
        row("growth of RSS, KiB", &|f| f.memory_after.saturating_sub(f.memory_before) as f64 / 1024.0),
        row("told as gaps", &|f| f.gaps as f64),
        row("lost and not told", &|f| f.lost as f64),
    ]
}

fn object(rows: &Rows) -> Value {
    let pairs = rows.iter().map(|(label, values)| (label.trim().to_owned(), json!(median(values))));
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
