//! The metrics: what the relay counts and holds, in Prometheus's text format (version 0.0.4).
//!
//! Pure: reads the machine through the console's [`View`], and what only the shell knows through
//! [`Figures`]; returns one text of bounded size. Owns the names, types and help texts, which
//! `docs/metrics.md` repeats. Labels are tracks, causes, codes, tables and the memory sum's terms:
//! their number is fixed at build time, and nothing is exported about a single page, topic or link.
//! Refuses nothing and counts nothing itself.

pub mod text;
mod tls;

use self::text::{Kind, Seconds, Text};
use crate::console::{self, View};
use board::{METRICS_SIZE, memory_sum};
use relay::traffic::BOUNDS_MS;
use relay::{CLOSE_CODES, InUse};
use wire::Track;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Values that only the shell and the kernel know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures<'a> {
    /// HTTP responses on the pages' port, by status.
    pub answers: &'a [(u16, u64)],
    /// Connections that are not pages yet.
    pub heads: u32,
    /// Such connections that were cut off to make room for others.
    pub heads_cut: u64,
    /// Processor time used, in milliseconds. This and the following are `None` if the kernel
    /// doesn't report them.
    pub cpu_ms: Option<u64>,
    /// Open file descriptors.
    pub descriptors: Option<u64>,
    /// When the process started, in milliseconds since 1970.
    pub started_ms: Option<u64>,
}

/// Renders all metrics, as of now.
#[must_use]
pub fn render(view: &View<'_>, figures: &Figures<'_>) -> String {
    let mut out = Text::with_capacity(METRICS_SIZE);
    whole(&mut out, view);
    pages(&mut out, view, figures);
    subscriptions(&mut out, view);
    publications(&mut out, view);
    deliveries(&mut out, view);
    uplink(&mut out, view);
    tls::render(&mut out, view.tls.as_ref());
    tables(&mut out, view);
    memory(&mut out, view);
    process(&mut out, view, figures);
    out.finish()
}

fn whole(out: &mut Text, view: &View<'_>) {
    out.family(
        "sharelinkd_build_info",
        Kind::Gauge,
        "1; the labels say which version was built for which board and target.",
    );
    let (version, board, target) = (env!("CARGO_PKG_VERSION"), view.relay.board().name, board::TARGET);
    out.row(&[("version", version), ("board", board), ("target", target)], 1);
    let conditions = console::conditions(view);
    out.family(
        "sharelinkd_condition",
        Kind::Gauge,
        "1 while the console reports this condition, else 0; docs/console.md lists the codes.",
    );
    for (code, _) in console::CODES {
        let is_found = conditions.iter().any(|condition| condition.code == code);
        out.row(&[("code", code)], u8::from(is_found));
    }
    out.gauge(
        "sharelinkd_draining",
        "1 while the relay drains and accepts no pages, else 0.",
        u8::from(view.relay.is_draining()),
    );
    out.counter(
        "sharelinkd_log_unwritten_lines_total",
        "Log lines that could not be written to standard error.",
        view.unwritten,
    );
    out.counter(
        "sharelinkd_events_lost_total",
        "Events not logged because one step produced too many.",
        view.relay.events_lost(),
    );
}

fn pages(out: &mut Text, view: &View<'_>, figures: &Figures<'_>) {
    let (relay, counters) = (view.relay, view.relay.counters());
    out.gauge("sharelinkd_pages", "Pages connected.", relay.pages());
    out.gauge("sharelinkd_pages_limit", "Maximum number of connected pages.", relay.board().pages_max);
    out.gauge("sharelinkd_pages_slow", "Pages whose sockets are full now.", relay.slow_pages());
    out.counter("sharelinkd_pages_opened_total", "Pages accepted.", counters.pages_opened);
    out.counter(
        "sharelinkd_pages_gone_total",
        "Pages whose connections have ended, for any reason.",
        counters.pages_closed,
    );
    let origin = figures.answers.iter().find(|(code, _)| *code == 403).map_or(0, |(_, count)| *count);
    out.labelled(
        "sharelinkd_pages_refused_total",
        Kind::Counter,
        "Pages refused: the table is full, their address has reached its limit, the relay drains, their origin is not allowed.",
        "cause",
        [
            ("full", counters.refused_full),
            ("address", counters.refused_address),
            ("draining", counters.refused_draining),
            ("origin", origin),
        ],
    );
    out.family(
        "sharelinkd_pages_closed_total",
        Kind::Counter,
        "Closing handshakes of pages that were started, by WebSocket close code; 1000 was started by the page.",
    );
    for (code, count) in CLOSE_CODES.iter().zip(counters.closed) {
        out.row(&[("code", &code.to_string())], count);
    }
    out.counter(
        "sharelinkd_pages_closed_slow_total",
        "Of them, pages that read nothing for too long, or were among the slowest when the kernel queued too much.",
        counters.closed_slow,
    );
    out.counter(
        "sharelinkd_pages_closed_for_memory_total",
        "Pages closed or cut off because the kernel queued too much for all pages.",
        counters.closed_for_memory,
    );
    out.counter("sharelinkd_pages_dead_total", "Pages cut off because they did not answer pings.", counters.dead);
    out.counter("sharelinkd_pages_cut_total", "Pages cut off without a close frame, for any reason.", counters.cut);
    let overtaken = view.relay.overtaken();
    out.counter(
        "sharelinkd_frames_kept_total",
        "Frames that a ring overwrote while pages were in the middle of them, and that were kept for these pages.",
        overtaken.kept,
    );
    out.counter(
        "sharelinkd_frames_lost_total",
        "Frames that a ring overwrote while pages were in the middle of them, and that could not be kept or were evicted: their pages were cut off.",
        overtaken.lost,
    );
    out.gauge("sharelinkd_heads", "Connections on the pages' port that are not pages (yet).", figures.heads);
    out.counter(
        "sharelinkd_heads_cut_total",
        "Such connections that were cut off to make room for others.",
        figures.heads_cut,
    );
    out.family(
        "sharelinkd_http_answers_total",
        Kind::Counter,
        "HTTP responses on the pages' port, by status; 101 is an accepted page.",
    );
    for (code, count) in figures.answers {
        out.row(&[("code", &code.to_string())], count);
    }
    out.counter("sharelinkd_page_frames_total", "Text and binary frames that pages sent.", counters.page_frames);
    out.counter(
        "sharelinkd_page_faults_total",
        "Frames from pages that were invalid, or not allowed.",
        counters.page_faults,
    );
    out.counter(
        "sharelinkd_page_messages_total",
        "Messages from pages that were forwarded to the business server.",
        counters.page_messages,
    );
    out.counter(
        "sharelinkd_page_messages_limited_total",
        "Messages from pages that were rate-limited.",
        counters.sends_limited,
    );
    out.counter(
        "sharelinkd_receipts_dropped_total",
        "Answers to messages from pages that had no room: the page sends its message again.",
        counters.receipts_dropped,
    );
}

fn subscriptions(out: &mut Text, view: &View<'_>) {
    let counters = view.relay.counters();
    out.counter("sharelinkd_subscriptions_asked_total", "Subscribe requests from pages.", counters.asked);
    out.counter("sharelinkd_subscriptions_granted_total", "Subscriptions granted.", counters.subscribed);
    out.counter(
        "sharelinkd_subscriptions_denied_total",
        "Subscriptions denied, by the business server or for lack of capacity.",
        counters.denied,
    );
    out.counter(
        "sharelinkd_subscriptions_limited_total",
        "Of them, denied by the rate limit of the page or its address.",
        counters.asks_limited,
    );
}

fn publications(out: &mut Text, view: &View<'_>) {
    let counters = view.relay.counters();
    out.by_track(
        "sharelinkd_publications_total",
        "Publications accepted from the business server, by track.",
        counters.published,
    );
    out.labelled(
        "sharelinkd_publications_dropped_total",
        Kind::Counter,
        "Publications not accepted: they can't be shown (the log says why), were already published, or belong to no accepted topic.",
        "cause",
        [
            ("unusable", counters.dropped),
            ("superfluous", counters.superfluous),
            ("unknown_topic", counters.unknown_topic),
        ],
    );
    out.counter(
        "sharelinkd_media_shed_total",
        "Media frames evicted early because the arena was full.",
        counters.media_shed,
    );
}

fn deliveries(out: &mut Text, view: &View<'_>) {
    let (counters, traffic) = (view.relay.counters(), view.relay.traffic());
    out.by_track(
        "sharelinkd_deliveries_total",
        "Publications that pages' sockets began to accept, by track.",
        counters.deliveries,
    );
    out.by_track("sharelinkd_delivered_bytes_total", "Bytes of frames written to pages' sockets, by track, including repeated init segments and gap notices in a track's log.", traffic.sent);
    out.counter(
        "sharelinkd_sent_bytes_total",
        "Bytes of all frames written to pages' sockets, including notices, without pongs and close frames.",
        counters.bytes_sent,
    );
    out.counter(
        "sharelinkd_socket_writes_total",
        "Writes to pages' sockets that wrote at least one byte.",
        counters.writes,
    );
    out.counter("sharelinkd_socket_full_total", "Times that a page's socket was full.", counters.blocked);
    out.by_track("sharelinkd_gaps_total", "Gaps reported to pages, by track.", counters.gaps);
    out.by_track(
        "sharelinkd_missed_publications_total",
        "Publications reported to pages as missing, by track.",
        counters.missed,
    );
    out.counter(
        "sharelinkd_superseded_states_total",
        "States not sent to a page because a newer one replaced them.",
        counters.superseded,
    );
    out.counter("sharelinkd_repeated_inits_total", "Init segments sent to a page again.", counters.inits_repeated);
    out.family(
        "sharelinkd_delivery_latency_seconds",
        Kind::Histogram,
        "Time from reading a publication off the uplink to the fan-out's turn in which a page's socket accepted its first byte, in whole milliseconds. \
         One publication of each topic is measured at a time, to every page that had received everything before it.",
    );
    let mut below = 0;
    for (count, bound) in traffic.latency.counts.iter().zip(BOUNDS_MS.iter().map(Some).chain([None])) {
        below += count;
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |ms| Seconds(*ms).to_string());
        out.part("_bucket", &[("le", &bound)], below);
    }
    out.part("_sum", &[], Seconds(traffic.latency.sum_ms));
    out.part("_count", &[], below);
}

fn uplink(out: &mut Text, view: &View<'_>) {
    let (counters, row) = (view.relay.counters(), view.relay.uplink_row(view.now));
    out.gauge(
        "sharelinkd_uplink_up",
        "1 while the business server is connected, else 0.",
        u8::from(view.relay.is_up()),
    );
    let states = ["down", "dialing", "handshake", "up"];
    out.labelled(
        "sharelinkd_uplink_state",
        Kind::Gauge,
        "1 for the current state of the connection to the business server, 0 for the others.",
        "state",
        states.map(|state| (state, u64::from(state == row.state))),
    );
    out.counter("sharelinkd_uplink_dials_total", "Dial attempts to the business server.", counters.dials);
    out.counter(
        "sharelinkd_uplink_connections_total",
        "Connections whose handshake was completed; all but the first are reconnects.",
        row.connections,
    );
    out.counter(
        "sharelinkd_uplink_losses_total",
        "Connections that were lost after their handshake.",
        counters.uplink_losses,
    );
    out.gauge("sharelinkd_uplink_failures", "Consecutive failed dials, up to now.", row.failures);
    out.counter(
        "sharelinkd_uplink_received_frames_total",
        "Frames received from the business server.",
        counters.uplink_frames_in,
    );
    out.counter(
        "sharelinkd_uplink_received_bytes_total",
        "Bytes received from the business server.",
        counters.uplink_bytes_in,
    );
    out.counter("sharelinkd_uplink_sent_frames_total", "Frames queued for the business server.", row.sent);
    out.counter(
        "sharelinkd_uplink_sent_bytes_total",
        "Bytes written to the uplink's socket.",
        counters.uplink_bytes_out,
    );
    out.gauge("sharelinkd_uplink_queued_bytes", "Bytes waiting to be written to the business server.", row.out_size);
    out.counter("sharelinkd_uplink_requests_total", "Subscribe requests to the business server.", counters.requests);
    out.counter(
        "sharelinkd_uplink_requests_unanswered_total",
        "Of them, those that timed out without an answer.",
        counters.requests_unanswered,
    );
    out.counter(
        "sharelinkd_topics_refused_total",
        "Topics that were accepted but did not fit into the table.",
        counters.topics_refused,
    );
}

fn tables(out: &mut Text, view: &View<'_>) {
    let (relay, board) = (view.relay, view.relay.board());
    let (reasons, origins) = relay.texts_in_use();
    let texts = [("reasons", reasons as u64), ("origins", origins as u64)];
    let rows = |rows: InUse| {
        [
            ("pages", u64::from(rows.pages)),
            ("subscriptions", rows.subscriptions.into()),
            ("topics", rows.topics.into()),
            ("links", rows.links.into()),
            ("requests", rows.requests.into()),
            ("begun_frames", rows.begun_frames.into()),
            ("kept_blocks", rows.kept_blocks.into()),
        ]
    };
    let (used, highest) = (relay.in_use(), relay.highest());
    let limits = rows(InUse {
        pages: board.pages_max,
        subscriptions: board.subscriptions_max,
        topics: board.topics_max,
        links: board.links_max,
        requests: board.requests_max,
        begun_frames: board.pages_max,
        kept_blocks: board.kept_blocks_max,
        blocks: board.blocks_max,
    });
    let text_limits = [("reasons", u64::from(board.reasons_max)), ("origins", board.pages_max.into())];
    let (name, help) = ("sharelinkd_table_used", "Rows of each table that are in use.");
    out.labelled(name, Kind::Gauge, help, "table", rows(used).into_iter().chain(texts));
    let (name, help) = ("sharelinkd_table_limit", "Capacity of each table, in rows.");
    out.labelled(name, Kind::Gauge, help, "table", limits.into_iter().chain(text_limits));
    let (name, help) = ("sharelinkd_table_highest", "High-water mark of each table's rows in use since the start.");
    out.labelled(name, Kind::Gauge, help, "table", rows(highest));
    let block = u64::from(board.block_size);
    for (name, help, blocks) in [
        ("sharelinkd_arena_used_bytes", "Bytes of the arena's blocks that hold frames.", used.blocks),
        ("sharelinkd_arena_limit_bytes", "Capacity of the arena, in bytes of its blocks.", board.blocks_max),
        (
            "sharelinkd_arena_highest_bytes",
            "High-water mark of the arena's bytes in use since the start.",
            highest.blocks,
        ),
    ] {
        out.gauge(name, help, u64::from(blocks) * block);
    }
}

fn memory(out: &mut Text, view: &View<'_>) {
    let (relay, board) = (view.relay, view.relay.board());
    for (name, help, size) in [
        (
            "sharelinkd_kernel_queued_bytes",
            "Bytes queued in the kernel for all pages: an upper bound, the last measurement plus what was written since.",
            relay.kernel_size(),
        ),
        (
            "sharelinkd_kernel_queued_limit_bytes",
            "Limit of the bytes queued there; above seven eighths of it the slowest pages are closed.",
            board.kernel_size_max,
        ),
        (
            "sharelinkd_kernel_queued_highest_bytes",
            "High-water mark of the bytes queued there since the start.",
            relay.kernel_size_highest(),
        ),
    ] {
        out.gauge(name, help, size);
    }
    let sum = memory_sum(board);
    out.family("sharelinkd_memory_limit_bytes", Kind::Gauge, "The memory sum, term by term: the most that each owner may use. part is process for the process itself, kernel for its sockets.");
    for term in &sum.terms {
        let part = if term.kernel { "kernel" } else { "process" };
        out.row(&[("term", term.name), ("part", part)], term.bytes());
    }
    out.gauge("sharelinkd_memory_budget_bytes", "The board's budget for the whole memory sum.", board.memory_budget);
}

/// The names are those of Prometheus's own client libraries. Omits what the kernel doesn't report.
fn process(out: &mut Text, view: &View<'_>, figures: &Figures<'_>) {
    let kernel = (view.process)();
    if let Some(ms) = figures.cpu_ms {
        out.counter(
            "process_cpu_seconds_total",
            "Processor time used by the process, user and system, in seconds.",
            Seconds(ms),
        );
    }
    if kernel.resident_size > 0 {
        out.gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes.", kernel.resident_size);
    }
    if let Some(count) = figures.descriptors {
        out.gauge("process_open_fds", "Open file descriptors of the process.", count);
    }
    if kernel.descriptors_max > 0 {
        out.gauge("process_max_fds", "Limit of the process's open file descriptors.", kernel.descriptors_max);
    }
    if let Some(ms) = figures.started_ms {
        out.gauge(
            "process_start_time_seconds",
            "Start time of the process, in seconds since 1970 by the kernel's clock.",
            Seconds(ms),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;

    use log::LevelFilter;

    use super::*;
    use crate::certificate::{Served, Summary};
    use crate::config::{Config, Surroundings};
    use crate::console::{Lines, PagesTls, Process, TlsCounts, UplinkNotes};
    use board::HOST;
    use relay::rig::Rig;
    use wire::uplink::Part;

    fn scrape(rig: &Rig) -> String {
        let config = Config::parse("", &HOST, &Surroundings::without_files("box")).unwrap();
        let process =
            || Process { resident_size: 4_100_000, resident_size_highest: 4_300_000, descriptors_max: 16_384 };
        let summary = Summary::of([&include_bytes!("../crates/tls/testdata/server.der")[..]].into_iter()).ok();
        let served: Vec<_> = [summary, None]
            .into_iter()
            .cycle()
            .take(board::CERTIFICATES_MAX)
            .map(|summary| Served { file: "/x".to_owned(), summary, trouble: None })
            .collect();
        let view = View {
            relay: &rig.relay,
            now: rig.now,
            config: &config,
            built: &HOST,
            listening: &[],
            lines: &Lines::default(),
            log_level: LevelFilter::Info,
            unwritten: 3,
            uplink: &UplinkNotes::default(),
            tls_unserved: &[],
            tls: Some(PagesTls {
                listening: &[],
                certificates: &served,
                counts: TlsCounts { full: 5, resumed: 4, reloads: 3, reloads_failed: 2, ..TlsCounts::default() },
                now_s: Some(4_922_899_200 - 86_400),
                is_slow: false,
            }),
            process: &process,
        };
        let answers = crate::daemon::response::STATUSES.map(|(code, _)| (code, 7));
        let (cpu_ms, started_ms) = (Some(1_250), Some(1_700_000_000_120));
        render(&view, &Figures { answers: &answers, heads: 2, heads_cut: 1, cpu_ms, descriptors: Some(9), started_ms })
    }

    fn value(text: &str, row: &str) -> u64 {
        let found = text.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {row} in {text}")).parse().unwrap()
    }

    fn read(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn counters_show_what_happened() {
        let mut rig = Rig::up(&HOST);
        let pages = [rig.viewer(), rig.page()];
        rig.subscribe(pages[1], 1, "link");
        rig.read(pages[1]);
        rig.messages(1..=3);
        rig.publish(7, Track::State, 1, Part::Whole, b"no JSON");
        for page in pages {
            rig.read(page);
        }
        let text = scrape(&rig);
        for (row, expected) in [
            ("sharelinkd_pages", 2),
            ("sharelinkd_subscriptions_asked_total", 2),
            ("sharelinkd_publications_total{track=\"messages\"}", 3),
            ("sharelinkd_publications_dropped_total{cause=\"unusable\"}", 1),
            ("sharelinkd_deliveries_total{track=\"messages\"}", 6),
            ("sharelinkd_delivery_latency_seconds_bucket{le=\"0.001\"}", 2),
            ("sharelinkd_delivery_latency_seconds_bucket{le=\"+Inf\"}", 2),
            ("sharelinkd_delivery_latency_seconds_count", 2),
            ("sharelinkd_uplink_up", 1),
            ("sharelinkd_uplink_state{state=\"up\"}", 1),
            ("sharelinkd_uplink_state{state=\"down\"}", 0),
            ("sharelinkd_condition{code=\"L1\"}", 1),
            ("sharelinkd_condition{code=\"U1\"}", 0),
            ("sharelinkd_pages_refused_total{cause=\"origin\"}", 7),
            ("sharelinkd_tls_handshakes_total{kind=\"resumed\"}", 4),
            ("sharelinkd_tls_reloads_total{result=\"failed\"}", 2),
            ("sharelinkd_tls_certificate_expiry_seconds{certificate=\"1\"}", 86_400),
            ("sharelinkd_table_limit{table=\"pages\"}", u64::from(HOST.pages_max)),
        ] {
            assert_eq!(value(&text, row), expected, "{row}");
        }
        assert!(!text.contains("{certificate=\"2\"}"), "it can't be read");
        assert!(text.contains("\nprocess_cpu_seconds_total 1.25\n"));
        assert!(text.contains("\nprocess_start_time_seconds 1700000000.12\n"));
    }

    #[test]
    fn no_values_make_the_text_larger_than_its_term() {
        let text = scrape(&Rig::up(&HOST));
        let rows = text.lines().filter(|line| !line.starts_with('#')).count();
        // A number has at most 20 digits.
        assert!(text.len() + 20 * rows <= METRICS_SIZE, "{} bytes, {rows} rows", text.len());
    }

    /// Families by name: type and help.
    fn families(text: &str) -> BTreeMap<String, (String, String)> {
        let mut families = BTreeMap::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                let kind = lines.next().unwrap().rsplit(' ').next().unwrap().to_owned();
                assert!(families.insert(name.to_owned(), (kind, help.to_owned())).is_none(), "{name} twice");
            }
        }
        families
    }

    /// The labels of a family's rows, without those of a histogram's buckets.
    fn labels(text: &str, name: &str) -> String {
        let mut names = BTreeSet::new();
        for row in text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')) {
            names.extend(row.split("=\"").filter_map(|piece| piece.rsplit(['"', ',', '{']).next()));
        }
        names.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_lowercase()) && !name.is_empty()).fold(
            String::new(),
            |all, name| if all.is_empty() { format!("`{name}`") } else { format!("{all}, `{name}`") },
        )
    }

    #[test]
    fn the_manual_lists_every_metric_with_its_meaning_and_no_other() {
        let text = scrape(&Rig::up(&HOST));
        let families = families(&text);
        let manual = read("docs/metrics.md");
        let rows: BTreeSet<String> = manual.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
        let wanted: BTreeSet<String> = families
            .iter()
            .map(|(name, (kind, help))| format!("| `{name}` | {kind} | {} | {help} |", labels(&text, name)))
            .collect();
        let missing: Vec<_> = wanted.difference(&rows).collect();
        let extra: Vec<_> = rows.difference(&wanted).collect();
        assert!(missing.is_empty() && extra.is_empty(), "docs/metrics.md lacks {missing:#?} and has {extra:#?}");
    }

    #[test]
    fn dashboard_and_alerts_name_only_what_there_is() {
        let text = scrape(&Rig::up(&HOST));
        let families = families(&text);
        for (path, count_min) in [("docs/grafana.json", 30), ("docs/alerts.yml", 10), ("tests/metrics/alerts.yml", 8)] {
            let document = read(path).replace("\\\"", "\"");
            let mut used = BTreeSet::new();
            for prefix in ["sharelinkd_", "process_"] {
                for (at, _) in document.match_indices(prefix) {
                    let rest = &document[at..];
                    let name: &str = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                    if document[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
                        continue;
                    }
                    let family = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|ending| name.strip_suffix(ending).filter(|name| families.contains_key(*name)))
                        .unwrap_or(name);
                    assert!(families.contains_key(family), "{path}: there is no metric {name}");
                    used.insert(family.to_owned());
                    let Some(selector) = rest[name.len()..].strip_prefix('{') else { continue };
                    for pair in selector.split('}').next().unwrap().split(',') {
                        let Some((label, value)) = pair.trim().split_once("=\"") else { continue };
                        let value = value.trim_end_matches('"');
                        let is_ours = !matches!(label, "job" | "instance");
                        let is_there = text.lines().any(|line| {
                            line.starts_with(&format!("{name}{{")) && line.contains(&format!("{label}=\"{value}\""))
                        });
                        assert!(!is_ours || is_there, "{path}: {name} has no {label}=\"{value}\"");
                    }
                }
            }
            assert!(used.len() >= count_min, "{path} uses only {} metrics", used.len());
        }
        let alerts = read("docs/alerts.yml");
        for (code, _) in console::CODES {
            assert!(alerts.contains(&format!("[{code}]")), "docs/alerts.yml cites no [{code}]");
        }
    }
}
