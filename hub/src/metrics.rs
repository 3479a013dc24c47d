//! What the hub counts and holds, in Prometheus's text format.
//!
//! Pure: [`Figures`] in, one text out. Owns the names, types and help texts, which
//! `docs/hub-metrics.md` repeats. Nothing is about a single topic, link, key or relay, so the
//! number of rows is known when the hub is built. Counts nothing itself and refuses nothing.

use hub::counters::Counters;
use sharelinkd::{
    console::Process,
    daemon::proc::Usage,
    metrics::text::{Kind, Seconds, Text},
};

/// Room for the text, in bytes: more than it needs.
const SIZE: usize = 12 << 10;

/// What is in use, and its limit.
pub type Row = (&'static str, u64, u64);

/// All figures, as of now.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What the machine counted.
    pub counters: Counters,
    /// Relays are served: the engine answers.
    pub serves: bool,
    /// The webhook `subscribe` rests after too many calls without an answer.
    pub webhook_rests: bool,
    /// Relays that are connected.
    pub relays: u64,
    /// Subscriptions of pages, over all relays.
    pub pages: u64,
    /// Topics that relays hold.
    pub topics: u64,
    /// Events for the webhook that were dropped.
    pub events_dropped: u64,
    /// Answers of the API, by status; 0 is every other one.
    pub answers: Vec<(u16, u64)>,
    /// Tables: what it is, how much is in use, the limit.
    pub tables: Vec<Row>,
    /// The process's memory and descriptor limit.
    pub process: Process,
    /// What it has used.
    pub usage: Usage,
}

/// Renders all metrics.
pub fn render(figures: &Figures) -> String {
    let mut out = Text::with_capacity(SIZE);
    whole(&mut out, figures);
    links(&mut out, figures);
    publications(&mut out, figures);
    api(&mut out, figures);
    process(&mut out, figures);
    out.finish()
}

fn whole(out: &mut Text, figures: &Figures) {
    out.family("sharelink_hub_build_info", Kind::Gauge, "1; the label says which version it is.");
    out.row(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let serving = "1 while relays are served; 0 while the engine does not answer.";
    out.gauge("sharelink_hub_serving", serving, u8::from(figures.serves));
    out.gauge("sharelink_hub_relays", "Relays that are connected.", figures.relays);
    out.gauge("sharelink_hub_pages", "Subscriptions of pages, over all relays and topics.", figures.pages);
    out.gauge("sharelink_hub_topics_held", "Topics that relays hold.", figures.topics);
    let used = figures.tables.iter().map(|(of, used, _)| (*of, *used));
    out.labelled("sharelink_hub_used", Kind::Gauge, "What is in use of each limit.", "of", used);
    let limits = figures.tables.iter().map(|(of, _, limit)| (*of, *limit));
    out.labelled("sharelink_hub_limit", Kind::Gauge, "The limits, of the configuration.", "of", limits);
}

fn links(out: &mut Text, figures: &Figures) {
    let Counters { asked, accepted, denied, unanswered, subscribes, subscribes_failed, .. } = figures.counters;
    out.counter("sharelink_hub_links_asked_total", "Requests of relays to admit a link.", asked);
    let decided = [("accepted", accepted), ("denied", denied), ("unanswered", unanswered)];
    let help = "What they got. Unanswered: something was full, or nobody had an answer; relays ask again.";
    out.labelled("sharelink_hub_links_decided_total", Kind::Counter, help, "decision", decided);
    out.counter("sharelink_hub_webhook_subscribes_total", "Calls of the webhook `subscribe`.", subscribes);
    let help = "Of them, those without an answer that can be used.";
    out.counter("sharelink_hub_webhook_subscribes_failed_total", help, subscribes_failed);
    let help = "1 while the webhook `subscribe` rests after too many calls without an answer, else 0.";
    out.gauge("sharelink_hub_webhook_resting", help, u8::from(figures.webhook_rests));
    let help = "Events for the webhook that were dropped, because it was too slow or away.";
    out.counter("sharelink_hub_events_dropped_total", help, figures.events_dropped);
}

fn publications(out: &mut Text, figures: &Figures) {
    let Counters { published, read, page_messages, engine_failures, collisions, unkept, epochs_lost, .. } =
        figures.counters;
    let help = "Publications that came in here: by the API, and chunks of picture and sound.";
    out.counter("sharelink_hub_publications_total", help, published);
    let help = "Publications that were read from the engine.";
    out.counter("sharelink_hub_engine_read_total", help, read);
    let help = "Requests that the engine could not answer.";
    out.counter("sharelink_hub_engine_failures_total", help, engine_failures);
    let help = "Epochs that began anew under relays, because the engine had lost a topic.";
    out.counter("sharelink_hub_epochs_lost_total", help, epochs_lost);
    let help = "Publications that found no room in the rings for relays.";
    out.counter("sharelink_hub_publications_unkept_total", help, unkept);
    let help = "Topics that were refused, because another one had their number.";
    out.counter("sharelink_hub_topic_collisions_total", help, collisions);
    out.counter("sharelink_hub_page_messages_total", "Messages from pages.", page_messages);
}

fn api(out: &mut Text, figures: &Figures) {
    out.family("sharelink_hub_http_answers_total", Kind::Counter, "Answers of the API, by status.");
    for (code, count) in &figures.answers {
        let code = if *code == 0 { "other".to_owned() } else { code.to_string() };
        out.row(&[("code", &code)], count);
    }
}

/// The names are those of Prometheus's own client libraries. What the kernel doesn't report is left
/// out.
fn process(out: &mut Text, figures: &Figures) {
    let Process { resident_size, descriptors_max, .. } = figures.process;
    if let Some(ms) = figures.usage.cpu_ms {
        let help = "Processor time used by the process, user and system, in seconds.";
        out.counter("process_cpu_seconds_total", help, Seconds(ms));
    }
    if resident_size > 0 {
        out.gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes.", resident_size);
    }
    if let Some(count) = figures.usage.descriptors {
        out.gauge("process_open_fds", "Open file descriptors of the process.", count);
    }
    if descriptors_max > 0 {
        out.gauge("process_max_fds", "Limit of the process's open file descriptors.", descriptors_max);
    }
    if let Some(ms) = figures.usage.started_ms {
        let help = "Start time of the process, in seconds since 1970 by the kernel's clock.";
        out.gauge("process_start_time_seconds", help, Seconds(ms));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A figure for everything.
    fn figures() -> Figures {
        Figures {
            counters: Counters {
                asked: 7,
                accepted: 4,
                denied: 2,
                unanswered: 1,
                published: 12,
                ..Counters::default()
            },
            serves: true,
            relays: 2,
            pages: 1_000,
            answers: vec![(200, 9), (429, 1)],
            tables: vec![("connections", 3, 1024), ("streams", 1, 64)],
            process: Process { resident_size: 1 << 20, resident_size_highest: 1 << 21, descriptors_max: 1024 },
            usage: Usage { cpu_ms: Some(1_250), descriptors: Some(9), started_ms: Some(1_700_000_000_120) },
            ..Figures::default()
        }
    }

    #[test]
    fn every_figure_is_in_the_text_once() {
        let text = render(&figures());
        for row in [
            "sharelink_hub_serving 1",
            "sharelink_hub_pages 1000",
            "sharelink_hub_used{of=\"streams\"} 1",
            "sharelink_hub_limit{of=\"connections\"} 1024",
            "sharelink_hub_links_decided_total{decision=\"denied\"} 2",
            "sharelink_hub_publications_total 12",
            "sharelink_hub_http_answers_total{code=\"429\"} 1",
            "process_cpu_seconds_total 1.25",
            "process_start_time_seconds 1700000000.12",
        ] {
            assert_eq!(text.lines().filter(|line| *line == row).count(), 1, "{row}:\n{text}");
        }
        assert!(text.len() < SIZE / 2, "{} bytes", text.len());
    }

    #[test]
    fn the_manual_has_the_same_metrics() {
        let manual = include_str!("../../docs/hub-metrics.md");
        let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
        let rows = manual.lines().filter(|line| line.starts_with("| `")).map(cells);
        let told: BTreeMap<String, (String, String)> =
            rows.map(|row| (row[1].trim_matches('`').to_owned(), (row[2].clone(), row[4].clone()))).collect();
        let text = render(&figures());
        let mut real = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = line.split_once(' ').unwrap();
            let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
            real.insert(name.to_owned(), (kind.to_owned(), help.to_owned()));
        }
        assert_eq!(told, real);
    }
}
