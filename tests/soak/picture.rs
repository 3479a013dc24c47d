//! The picture: one SVG, drawn here, of everything that was sampled.
//!
//! Owns the layout: the faults in lanes at the top, then a panel for each series that must not
//! grow, then the throughput, then the rate of every counter. A pale band spans minimum and maximum
//! of an interval, the line is its median. Decides nothing.

use std::fmt::Write as _;

use super::table::Table;
use super::trend::median;
use super::verdict::{Facts, Judged, WATCHED, series};
use super::watch::Options;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 76.0;
const PLOT: f64 = WIDTH - LEFT - 20.0;
const PANEL: f64 = 74.0;
const GAP: f64 = 34.0;
/// Points of a line.
const POINTS: usize = 190;
const SPARKS: usize = 64;
const COLORS: [&str; 4] = ["#2b6cb0", "#c05621", "#2f855a", "#805ad5"];
/// The faults of each lane, by the load's names.
const LANES: [(&str, &[&str]); 4] = [
    ("uplink dropped", &["closed", "reset", "cut in mid-frame", "garbage"]),
    ("falls silent", &["silent"]),
    ("moves away", &["moved"]),
    ("new epochs", &["new epoch"]),
];

/// One line of a panel: its name, its samples, its colour.
type Line<'a> = (&'a str, Vec<(f64, f64)>, &'a str);

struct Sheet {
    out: String,
    y: f64,
    /// Seconds: of everything, of the soak itself, of its warm-up.
    end: f64,
    over: f64,
    warm_up: f64,
}

/// Draws a soak.
pub fn draw(options: &Options, table: &Table, facts: &Facts, judged: &Judged) -> String {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let (over, warm_up) = (options.seconds as f64, options.warm_up_s() as f64);
    let mut sheet = Sheet { out: String::new(), y: 64.0, end: table.end().max(1.0), over, warm_up };
    sheet.lanes(table, facts);
    for (watched, trend) in WATCHED.iter().zip(&judged.trends) {
        let note = trend.map_or(String::new(), |trend| {
            let word = if trend.grows() { "GROWS" } else { "does not grow" };
            format!("{word}: {} over the window, {} tolerated", signed(trend.growth), short(trend.tolerance))
        });
        let is_bad = trend.is_some_and(|trend| trend.grows());
        let line = ("", series(table, watched.name), COLORS[0]);
        sheet.panel(watched.title, &note, is_bad, &[line], watched.tolerance);
    }
    let rates = |prefix: &str, names: [&'static str; 4]| -> Vec<Line<'static>> {
        let lines = names.iter().zip(COLORS);
        lines.map(|(name, color)| (*name, table.rate(&format!("{prefix}{name}")), color)).collect()
    };
    let tracks = ["state", "messages", "audio", "video"];
    sheet.panel(
        "pages in the table",
        &format!("{} places", options.pages),
        false,
        &[("", table.column("pages"), COLORS[0])],
        0.0,
    );
    let note = "bounded by the rings' limits; a new epoch empties them; none are left at the end";
    sheet.panel("blocks of the arena in use", note, false, &[("", table.column("blocks"), COLORS[0])], 0.0);
    sheet.panel("deliveries a second", "", false, &rates("counter_deliveries_", tracks), 0.0);
    sheet.panel("reported as missing, a second", "", false, &rates("counter_missed_", tracks), 0.0);
    sheet.panel(
        "pages that come and go, a second",
        "",
        false,
        &rates("counter_", ["pages_opened", "pages_closed", "refused_full", "cut"]),
        0.0,
    );
    let late = [("console", table.column("console_ms"), COLORS[0]), ("watcher", table.column("late_ms"), COLORS[1])];
    let note = "the watcher's own lateness is the machine's";
    sheet.panel("the console's two answers, ms", note, false, &late, 0.0);
    sheet.counters(table);
    let height = sheet.y + 16.0;
    let word = if judged.is_good() { "passed" } else { "FAILED" };
    let title = format!("sharelinkd soak: {} s, {} places in the table: {word}", options.seconds, options.pages);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"16\" y=\"46\" fill=\"#666\">pale band: minimum and maximum, line: median; shaded: warm-up, not judged; at the end all pages leave</text>\n\
         {}</svg>\n",
        sheet.out
    )
}

impl Sheet {
    fn x(&self, at: f64) -> f64 {
        LEFT + PLOT * (at / self.end).clamp(0.0, 1.0)
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(text);
        self.out.push('\n');
    }

    /// When each fault occurred.
    fn lanes(&mut self, table: &Table, facts: &Facts) {
        for (number, (name, words)) in LANES.iter().enumerate() {
            let y = self.y + f64::from(u32::try_from(number).unwrap_or(0)) * 14.0;
            let (color, begin) = (COLORS[number % COLORS.len()], LEFT + 30.0);
            self.put(format_args!(
                "<text x=\"{begin:.0}\" y=\"{:.0}\" text-anchor=\"end\" font-size=\"10\">{name}</text>",
                y + 10.0
            ));
            let mut path = String::new();
            for (at, _) in facts.events.iter().filter(|(_, event)| words.contains(&event.as_str())) {
                let _ = write!(path, "M{:.1} {:.0}v10", self.x(*at).max(begin + 4.0), y + 1.0);
            }
            self.put(format_args!("<path d=\"{path}\" stroke=\"{color}\" stroke-width=\"2\"/>"));
        }
        self.y += 58.0;
        let mut path = String::new();
        for (at, _) in table.column("up").iter().filter(|(_, up)| *up == 0.0) {
            let _ = write!(path, "M{:.1} {:.0}v6", self.x(*at).max(LEFT + 34.0), self.y);
        }
        let y = self.y + 6.0;
        self.put(format_args!(
            "<text x=\"{:.0}\" y=\"{y:.0}\" text-anchor=\"end\" font-size=\"10\">uplink down</text>",
            LEFT + 30.0
        ));
        self.put(format_args!("<path d=\"{path}\" stroke=\"#e53e3e\" stroke-width=\"1.2\"/>"));
        self.y += 22.0;
    }

    /// The vertical axis. For throughput: zero to the maximum. For a series that must not grow: its
    /// range after warm-up, and at least four times its tolerance.
    fn range(&self, lines: &[Line<'_>], tolerance: f64) -> (f64, f64) {
        let from = if tolerance > 0.0 { self.warm_up } else { 0.0 };
        let within = |cells: &[(f64, f64)]| -> Vec<(f64, f64)> {
            cells.iter().copied().filter(|cell| (from..self.over).contains(&cell.0)).collect()
        };
        // Without a band only medians are drawn.
        let drawn = |cells: &[(f64, f64)]| -> Vec<f64> {
            match lines.len() {
                1 => within(cells).into_iter().map(|cell| cell.1).collect(),
                _ => parts(&within(cells), self.end, POINTS).into_iter().map(|part| part.middle).collect(),
            }
        };
        let values = lines.iter().flat_map(|line| drawn(&line.1));
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let room = (4.0 * tolerance - (most - least)).max(0.0) / 2.0;
        if tolerance == 0.0 || least - room < most / 3.0 || !least.is_finite() {
            return (0.0, nice(most.max(4.0 * tolerance)));
        }
        let step = nice((most - least + 2.0 * room) / 2.0);
        let bottom = ((least - room) / step * 4.0).floor() * step / 4.0;
        (bottom, bottom + 2.0 * step * if bottom + 2.0 * step < most { 1.25 } else { 1.0 })
    }

    fn panel(&mut self, title: &str, note: &str, is_bad: bool, lines: &[Line<'_>], tolerance: f64) {
        let (bottom, top) = self.range(lines, tolerance);
        self.y += GAP - 12.0;
        let (y, base) = (self.y, self.y + PANEL);
        let (left, right, color) = (LEFT, LEFT + PLOT, if is_bad { "#c53030" } else { "#666" });
        self.put(format_args!("<text x=\"{left}\" y=\"{:.0}\" font-weight=\"bold\">{title}</text>", y - 5.0));
        self.put(format_args!(
            "<text x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\" fill=\"{color}\">{note}</text>",
            y - 5.0
        ));
        let mut at = LEFT + 290.0;
        for (name, _, color) in lines.iter().filter(|line| !line.0.is_empty()) {
            self.put(format_args!("<path d=\"M{at:.0} {:.0}h14\" stroke=\"{color}\" stroke-width=\"2\"/><text x=\"{:.0}\" y=\"{:.0}\">{name}</text>", y - 9.0, at + 18.0, y - 5.0));
            at += 40.0 + 6.6 * f64::from(u32::try_from(name.len()).unwrap_or(0));
        }
        self.put(format_args!(
            "<rect x=\"{left}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#f2f4f7\"/>",
            self.x(self.warm_up) - LEFT
        ));
        for part in [0.0, 0.5, 1.0] {
            let (line, label) = (base - PANEL * part, label(bottom + (top - bottom) * part, top - bottom));
            self.put(format_args!("<path d=\"M{left} {line:.1}h{PLOT}\" stroke=\"#dde1e6\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\" font-size=\"10\">{label}</text>", LEFT - 6.0, line + 3.5));
        }
        for (_, cells, color) in lines {
            // A watched series is judged until the pages leave.
            let cells: Vec<_> = cells.iter().copied().filter(|cell| tolerance == 0.0 || cell.0 < self.over).collect();
            let parts = parts(&cells, self.end, POINTS);
            let end = self.end;
            let x = |at: f64| LEFT + PLOT * at / end;
            let spot = |(at, value): (f64, f64)| {
                format!("{:.1} {:.1}", x(at), base - PANEL * ((value - bottom) / (top - bottom)).clamp(0.0, 1.0))
            };
            if lines.len() == 1 {
                let up = parts.iter().map(|part| spot((part.at, part.most)));
                let down = parts.iter().rev().map(|part| spot((part.at, part.least)));
                let band = up.chain(down).collect::<Vec<_>>().join("L");
                self.put(format_args!("<path d=\"M{band}Z\" fill=\"{color}\" fill-opacity=\".22\"/>"));
            }
            let line = parts.iter().map(|part| spot((part.at, part.middle))).collect::<Vec<_>>().join("L");
            if !line.is_empty() {
                self.put(format_args!("<path d=\"M{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.3\"/>"));
            }
        }
        self.y = base;
        self.times();
    }

    /// The time axis below a panel.
    fn times(&mut self) {
        let step = [10.0, 60.0, 300.0, 600.0, 3_600.0, 14_400.0]
            .into_iter()
            .find(|step| self.end / step <= 12.0)
            .unwrap_or(86_400.0);
        let mut at = 0.0;
        let mut out = String::new();
        while at <= self.end {
            let label = if step < 60.0 { format!("{at:.0} s") } else { format!("{:.0} min", at / 60.0) };
            let _ = write!(
                out,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#888\" font-size=\"9\">{label}</text>",
                self.x(at),
                self.y + 11.0
            );
            at += step;
        }
        self.put(format_args!("{out}"));
        self.y += 12.0;
    }

    /// Every counter, small: its name, its total, its rate.
    fn counters(&mut self, table: &Table) {
        self.y += 34.0;
        let y = self.y - 8.0;
        self.put(format_args!(
            "<text x=\"16\" y=\"{y:.0}\" font-weight=\"bold\">every counter: total, and maximum rate</text>"
        ));
        let (columns, width, height) = (5_u32, (WIDTH - 32.0) / 5.0, 56.0);
        let names: Vec<&str> = table.names("counter_").collect();
        for (number, name) in (0..).zip(&names) {
            let (x, y) = (16.0 + f64::from(number % columns) * width, self.y + f64::from(number / columns) * height);
            let (rate, base) = (table.rate(name), y + 46.0);
            let top = rate.iter().filter(|cell| cell.0 < self.over).map(|cell| cell.1).fold(0.0, f64::max);
            let total = table.last(name).unwrap_or(0.0);
            let label = name.trim_start_matches("counter_");
            self.put(format_args!("<text x=\"{x:.0}\" y=\"{:.0}\" font-size=\"10\">{label}</text>", y + 10.0));
            self.put(format_args!(
                "<text x=\"{:.0}\" y=\"{:.0}\" font-size=\"10\" fill=\"#666\">{} ({}/s)</text>",
                x,
                y + 22.0,
                short(total),
                short(top)
            ));
            let spots = parts(&rate, self.end, SPARKS).into_iter().map(|part| {
                let x = x + (width - 16.0) * part.at / self.end;
                format!("{x:.0} {:.1}", base - 20.0 * if top > 0.0 { (part.most / top).clamp(0.0, 1.0) } else { 0.0 })
            });
            let line = spots.collect::<Vec<_>>().join("L");
            if !line.is_empty() {
                self.put(format_args!("<path d=\"M{line}\" fill=\"none\" stroke=\"{}\"/>", COLORS[0]));
            }
        }
        self.y += f64::from(u32::try_from(names.len()).unwrap_or(0).div_ceil(columns)) * height;
    }
}

struct Part {
    at: f64,
    least: f64,
    middle: f64,
    most: f64,
}

/// The samples in `count` equal intervals, without empty ones.
fn parts(cells: &[(f64, f64)], end: f64, count: usize) -> Vec<Part> {
    let width = end / f64::from(u32::try_from(count).unwrap_or(1));
    let mut found = Vec::new();
    let mut from = 0.0;
    while from < end {
        let held: Vec<f64> =
            cells.iter().filter(|(at, _)| (from..from + width).contains(at)).map(|cell| cell.1).collect();
        let (least, most) =
            (held.iter().copied().fold(f64::INFINITY, f64::min), held.iter().copied().fold(0.0, f64::max));
        if let Some(middle) = median(held) {
            found.push(Part { at: from + width / 2.0, least, middle, most });
        }
        from += width;
    }
    found
}

/// The next round number.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let ten = 10_f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|part| part * ten)
        .find(|top| *top >= value)
        .unwrap_or(value)
}

/// A number in few letters.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.1} G", value / 1e9),
        size if size >= 1e6 => format!("{:.1} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 10.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

/// A number at an axis with this span.
fn label(value: f64, span: f64) -> String {
    match (value.abs(), span) {
        (size, span) if size >= 1e6 && span < 1e7 => format!("{:.2} M", value / 1e6),
        (size, span) if size >= 1e4 && span < 1e4 => format!("{:.1} k", value / 1e3),
        _ => short(value),
    }
}

fn signed(value: f64) -> String {
    if value >= 0.0 { format!("+{}", short(value)) } else { short(value) }
}
