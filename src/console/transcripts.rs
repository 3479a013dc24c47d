//! Plays the manual's transcripts: every block of `docs/console.md` that begins with a prompt is
//! typed, and the answer compared.
//!
//! `SHARELINKD_TRANSCRIPTS=write cargo test transcripts` writes the present answers into the
//! manual; review the diff.

#![cfg(test)]

use std::fs;
use std::path::Path;

use log::{Level, LevelFilter};

use super::{CODES, COMMANDS, Console, Lines, PROMPT, PagesTls, Process, Request, TlsCounts, UplinkNotes, View};
use crate::certificate::{Served, Summary};
use crate::config::{Config, Surroundings};
use board::HOST;
use relay::rig::{Rig, SHARED};
use relay::time::Instant;
use wire::Track;
use wire::uplink::Part;

/// A box in use: an uplink, a topic with two pages, one of them slow, and a link that waits for its
/// answer.
struct Evening {
    rig: Rig,
    config: Config,
    lines: Lines,
    uplink: UplinkNotes,
    served: Vec<Served>,
}

impl Evening {
    fn begin() -> Self {
        let around = Surroundings::without_files("gate-7");
        let text = "[pages]\nlisten = \"0.0.0.0:8080\"\n[uplink]\naddresses = [\"10.0.0.9:7400\", \"10.0.0.10:7400\"]\nplaintext = true\n\
                    secret = \"a secret that is long\"\n[console]\ncontrol = true\n[limits]\npages = 4000\n";
        let config = Config::parse(text, &HOST, &around).unwrap();
        let mut rig = Rig::up(&config.board);
        let mut lines = Lines::default();
        let mut note = |now: Instant, level, text: &str| lines.add(now, level, format_args!("{text}"));
        note(Instant(0), Level::Info, "ready: pages connect to 0.0.0.0:8080");
        note(Instant(400), Level::Info, "the business server is connected");
        let first = rig.viewer();
        let second = rig.page();
        rig.subscribe(second, 1, "link");
        rig.read(second);
        rig.publish(7, Track::State, 1, Part::Whole, br#"{"title":"An evening"}"#);
        rig.publish(7, Track::Video, 1, Part::Init { mime: "video/webm" }, &[1; 700]);
        rig.publish(7, Track::Video, 2, Part::Start, &[2; 20_000]);
        rig.messages(1..=41);
        rig.read(first);
        rig.take(second, 5_000);
        rig.relay.blocked(second);
        rig.pass(12_300);
        for _ in 0..3 {
            note(
                rig.now,
                Level::Warn,
                "publication 42 on messages of topic 7 was dropped: its data is not one JSON value in UTF-8",
            );
        }
        rig.pass(2_000);
        rig.read(first);
        let third = rig.page();
        rig.subscribe(third, 1, "another-link");
        let _ = (rig.said(), SHARED);
        let served = [
            ("/etc/sharelinkd/tls/fullchain.pem", &include_bytes!("../../crates/tls/testdata/server.der")[..]),
            ("/etc/sharelinkd/tls/odd.pem", include_bytes!("../../crates/tls/testdata/odd.der")),
        ];
        let served = served.map(|(file, certificate)| Served {
            file: file.to_owned(),
            summary: Some(Summary::of([certificate].into_iter()).unwrap()),
            trouble: None,
        });
        Self { rig, config, lines, uplink: UplinkNotes::default(), served: served.into() }
    }

    fn look<T>(&self, see: impl FnOnce(&View<'_>) -> T) -> T {
        let process =
            || Process { resident_size: 4_100_000, resident_size_highest: 4_300_000, descriptors_max: 16_384 };
        see(&View {
            relay: &self.rig.relay,
            now: self.rig.now,
            config: &self.config,
            built: &HOST,
            listening: &self.config.pages.listen,
            lines: &self.lines,
            log_level: LevelFilter::Info,
            unwritten: 0,
            uplink: &self.uplink,
            tls_unserved: &[],
            tls: Some(PagesTls {
                listening: &["0.0.0.0:443".parse().unwrap()],
                certificates: &self.served,
                counts: TlsCounts { full: 3, resumed: 7, reloads: 1, half_records: 2, ..TlsCounts::default() },
                now_s: Some(1_795_000_000),
                is_slow: false,
            }),
            process: &process,
        })
    }

    /// Types a line; returns the output up to the next prompt.
    fn type_in(&mut self, console: &mut Console, line: &str) -> String {
        self.look(|view| console.handle_input(view, format!("{line}\r").as_bytes()));
        let mut said = Vec::new();
        for turn in 0..200 {
            said.extend_from_slice(console.transmit());
            let size = console.transmit().len();
            self.look(|view| console.wrote(view, size));
            if let Some(request) = console.poll_request() {
                let answer = self.carry_out(request);
                self.look(|view| console.handle_answer(view, &answer));
            }
            if line == "watch" && turn <= 5 {
                self.rig.pass(1_000);
                if turn == 5 {
                    self.look(|view| console.handle_input(view, b" "));
                }
            }
            self.look(|view| console.handle_timeout(view));
        }
        let text =
            String::from_utf8(said).unwrap().replace("\r\n", "\n").replace(board::TARGET, "x86_64-unknown-linux-gnu");
        assert!(line == "json" || text.lines().all(|line| line.len() <= 80 && line.is_ascii()), "{text}");
        format!("{PROMPT}{}", text.strip_suffix(PROMPT).unwrap_or_else(|| panic!("no prompt behind {text:?}")))
    }

    /// As the shell would, but without ending it.
    fn carry_out(&mut self, request: Request) -> String {
        let (relay, now) = (&mut self.rig.relay, self.rig.now);
        match request {
            Request::Close(id) => {
                assert!(relay.close_by_hand(now, id) && !relay.close_by_hand(now, id));
                format!("page {id} is being closed\n")
            }
            Request::End(number) => {
                let pages = relay.end_by_hand(now, number).unwrap();
                format!("topic {number} has ended; pages notified: {pages}\n")
            }
            Request::Drain => "draining: the relay closes its pages, then exits\n".to_owned(),
            Request::Reload => "configuration reloaded\n".to_owned(),
            Request::LogLevel(level) => format!("log level {}\n", level.as_str().to_ascii_lowercase()),
        }
    }
}

#[test]
fn the_manual_s_transcripts_are_what_the_console_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/console.md");
    let manual = fs::read_to_string(&path).unwrap();
    let writes = std::env::var("SHARELINKD_TRANSCRIPTS").is_ok_and(|value| value == "write");
    let mut evening = Evening::begin();
    let mut console = Console::new(false);
    evening.look(|view| console.greet(view));
    console.transmit().to_vec();
    let size = console.transmit().len();
    evening.look(|view| console.wrote(view, size));
    let mut written = String::new();
    let mut played = Vec::new();
    for (at, block) in manual.split("```").enumerate() {
        let Some(body) = block.strip_prefix("text\n").filter(|body| at % 2 == 1 && body.starts_with(PROMPT)) else {
            written += &format!("{}{block}", if at == 0 { "" } else { "```" });
            continue;
        };
        let line = body.lines().next().unwrap().strip_prefix(PROMPT).unwrap();
        let said = evening.type_in(&mut console, line);
        let said = said.lines().map(str::trim_end).fold(String::new(), |all, line| all + line + "\n");
        if !writes {
            assert_eq!(
                body, said,
                "docs/console.md: {line}; SHARELINKD_TRANSCRIPTS=write cargo test transcripts mends it"
            );
        }
        written += &format!("```text\n{said}");
        played.push(line.split(' ').next().unwrap().to_owned());
    }
    if writes {
        fs::write(&path, written).unwrap();
    }
    for about in &COMMANDS {
        assert!(played.iter().any(|name| name == about.name), "docs/console.md has no transcript of {}", about.name);
    }
    for (code, meaning) in CODES {
        assert!(manual.contains(&format!("| `[{code}]` | {meaning}")), "docs/console.md lacks [{code}]: {meaning}");
    }
}

#[test]
fn no_answer_shows_more_of_a_link_than_its_beginning() {
    let evening = Evening::begin();
    let mut console = Console::new(false);
    let mut all = String::new();
    for line in ["status", "pages all", "pages #2", "topics", "topics 7", "uplink", "events", "json"] {
        evening.look(|view| console.handle_input(view, format!("{line}\r").as_bytes()));
        while !console.transmit().is_empty() {
            all += &String::from_utf8_lossy(console.transmit());
            let size = console.transmit().len();
            evening.look(|view| console.wrote(view, size));
        }
    }
    assert!(all.contains("anot..") && !all.contains("anoth"), "{all}");
}

#[test]
fn a_long_list_is_whole_however_slowly_the_line_takes_it() {
    let mut evening = Evening::begin();
    for _ in 0..1_500 {
        evening.rig.page();
    }
    let mut console = Console::new(false);
    evening.look(|view| console.handle_input(view, b"pages all\r"));
    let mut said = Vec::new();
    // Queued behind the list, and carried out after it.
    evening.look(|view| console.handle_input(view, b"version\r"));
    while !console.transmit().is_empty() {
        let size = console.transmit().len().min(100);
        said.extend_from_slice(&console.transmit()[..size]);
        evening.look(|view| console.wrote(view, size));
    }
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with('#')).count(), 1_503);
    assert!(
        said.contains("1503 pages\r\n") && said.trim_end().ends_with("sharelinkd>") && said.contains("sharelinkd 0.")
    );
}

#[test]
fn ctrl_c_ends_a_long_list_and_a_stuck_line_holds_nothing_up() {
    let mut evening = Evening::begin();
    for _ in 0..1_500 {
        evening.rig.page();
    }
    let mut console = Console::new(false);
    evening.look(|view| console.handle_input(view, b"pages all\r"));
    assert!(console.transmit().len() <= super::out::OUT_SIZE_MAX && console.poll_timeout().is_none());
    for _ in 0..100 {
        evening.look(|view| console.handle_input(view, &[b'x'; 100]));
        evening.look(|view| console.handle_timeout(view));
    }
    assert!(console.transmit().len() <= super::out::OUT_SIZE_MAX);
    evening.look(|view| console.handle_input(view, b"\x03"));
    let text = String::from_utf8_lossy(console.transmit()).into_owned();
    assert!(text.contains("^C"), "{}", &text[text.len() - 200..]);
}

#[test]
fn a_program_asks_one_line_and_gets_the_answer_alone() {
    let evening = Evening::begin();
    for (asked, answer) in [("@version\n", "sharelinkd 0."), ("@nonsense\r\n", "[E1] "), ("@watch\n", "[E5] ")] {
        let mut console = Console::new(true);
        evening.look(|view| console.handle_input(view, asked.as_bytes()));
        let text = String::from_utf8_lossy(console.transmit()).into_owned();
        assert!(
            text.starts_with(answer) && text.ends_with('\n') && !text.contains('\r') && !text.contains(PROMPT),
            "{text:?}"
        );
        assert!(console.is_over());
    }
    let mut console = Console::new(true);
    evening.look(|view| console.handle_input(view, b"@status\x03"));
    assert!(console.is_over() && console.transmit().is_empty(), "a prompt for a program");
    let mut evening = evening;
    evening.config.uplink.name = "gate \u{7f} 門 \u{1d11e}".to_owned();
    let mut console = Console::new(true);
    evening.look(|view| console.handle_input(view, b"@json\n"));
    assert!(console.transmit().iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "not every line carries it");
    let value: serde_json::Value = serde_json::from_slice(console.transmit()).unwrap();
    assert_eq!(value["pages"]["used"], 3);
    assert_eq!(value["health"], "healthy");
    assert_eq!(value["name"], evening.config.uplink.name);
}

/// All output for these keys, on a line that takes `size` bytes at a time.
fn said(evening: &Evening, console: &mut Console, keys: &[u8], size: usize) -> String {
    evening.look(|view| console.handle_input(view, keys));
    let mut said = Vec::new();
    while !console.transmit().is_empty() {
        let size = console.transmit().len().min(size);
        said.extend_from_slice(&console.transmit()[..size]);
        evening.look(|view| console.wrote(view, size));
        evening.look(|view| console.handle_timeout(view));
    }
    String::from_utf8(said).unwrap()
}

#[test]
fn every_short_answer_has_room_behind_what_waits_already() {
    let evening = Evening::begin();
    for line in [
        "help", "help log", "status", "json", "pages", "pages #0", "topics 7", "uplink", "tls", "memory", "limits",
        "counters",
    ] {
        let mut console = Console::new(false);
        let text = said(&evening, &mut console, format!("{line}\r").as_bytes(), usize::MAX);
        assert!(text.len() < super::out::OUT_SIZE_MAX - super::out::LOW_SIZE, "{line}: {} bytes", text.len());
    }
}

#[test]
fn keys_are_taken_in_their_order_however_they_come_and_ctrl_c_takes_the_place_of_those_that_wait() {
    let evening = Evening::begin();
    for keys in ["end 7\rlog tail\rqversion\r", "drain\rwatch\rqversion\r"] {
        let mut consoles = [Console::new(false), Console::new(false)];
        evening.look(|view| consoles[0].handle_input(view, keys.as_bytes()));
        for key in keys.bytes() {
            evening.look(|view| consoles[1].handle_input(view, &[key]));
        }
        for console in &mut consoles {
            assert!(console.poll_request().is_some());
            evening.look(|view| console.handle_answer(view, "done\n"));
            let text = String::from_utf8_lossy(console.transmit()).into_owned();
            // The next key ended the mode, and was not typed into a line.
            assert!(text.contains(&format!("{PROMPT}version\r\nsharelinkd 0.")), "{text}");
        }
        assert_eq!(consoles[0].transmit(), consoles[1].transmit());
    }
    let mut console = Console::new(false);
    evening.look(|view| console.handle_input(view, format!("drain\r{}\x03version\r", "x".repeat(500)).as_bytes()));
    evening.look(|view| console.handle_answer(view, "done\n"));
    let text = String::from_utf8_lossy(console.transmit()).into_owned();
    assert!(text.contains(&format!("done\r\n{PROMPT}^C\r\n{PROMPT}version\r\nsharelinkd 0.")), "{text}");
}

#[test]
fn an_answer_from_the_shell_leaves_room_for_the_prompt() {
    let evening = Evening::begin();
    let mut console = Console::new(false);
    evening.look(|view| console.handle_input(view, b"reload\r"));
    evening.look(|view| console.handle_answer(view, &"sharelinkd.toml:1: unknown key; remove it\n".repeat(300)));
    let text = String::from_utf8_lossy(console.transmit()).into_owned();
    let shown = text.matches("unknown key").count();
    assert!(text.ends_with(&format!("\r\n[E6] {} more lines: see the log\r\n{PROMPT}", 300 - shown)), "{text}");
}

#[test]
fn commands_that_are_pasted_at_once_are_answered_whole_and_in_order() {
    let evening = Evening::begin();
    let mut console = Console::new(false);
    let text = said(&evening, &mut console, "memory\rcounters\revents\r".repeat(10).as_bytes(), 100);
    let rows: Vec<&str> = text.lines().collect();
    for (last, next) in [("budget ", "counters"), ("frames_kept ", "events"), ("3 events", "")] {
        let next = format!("{PROMPT}{next}");
        let good = rows.windows(2).filter(|pair| pair[0].starts_with(last) && pair[1].starts_with(&next));
        assert_eq!(good.count(), 10, "{last}: {text}");
    }
}

#[test]
fn the_events_are_whole_when_the_ring_is_full_of_long_lines() {
    let mut evening = Evening::begin();
    for number in 0..2 * super::LINES_MAX {
        let words = "words that have no end ".repeat(20);
        evening.lines.add(evening.rig.now, Level::Warn, format_args!("line {} of {words}", "i".repeat(number % 50)));
    }
    let mut console = Console::new(false);
    let text = said(&evening, &mut console, b"events\r", 500);
    assert_eq!(text.matches(" WARN  line ").count(), super::LINES_MAX);
    assert!(text.ends_with(&format!("{} events\r\n{PROMPT}", super::LINES_MAX)), "{}", &text[text.len() - 300..]);
    assert!(text.lines().all(|line| line.len() <= 79), "{text}");
}

#[test]
fn a_tail_counts_what_the_ring_had_no_room_for() {
    let mut evening = Evening::begin();
    let mut console = Console::new(false);
    let _ = said(&evening, &mut console, b"log tail\r", usize::MAX);
    for number in 0..super::LINES_MAX + 5 {
        evening.lines.add(evening.rig.now, Level::Warn, format_args!("line {}", "i".repeat(number)));
        evening.lines.add(evening.rig.now, Level::Warn, format_args!("line {}{number}", "i".repeat(number)));
    }
    evening.rig.pass(1_000);
    evening.look(|view| console.handle_timeout(view));
    let text = said(&evening, &mut console, b"q", usize::MAX);
    assert!(
        text.starts_with("[E6] 10 lines were dropped") && text.contains("WARN  line iiiii5 (and 1 like it"),
        "{text}"
    );
    assert_eq!(text.matches("WARN  line").count(), super::LINES_MAX);
}

#[test]
fn what_was_asked_is_answered_after_whoever_asked_has_ended_its_input() {
    let mut evening = Evening::begin();
    for _ in 0..500 {
        evening.rig.page();
    }
    for (asked, rows) in
        [("@pages all\n", 503), ("@pages all", 503), ("pages all\rtopics\rpages all\r", 1006), ("watch\r", 0)]
    {
        let mut console = Console::new(true);
        evening.look(|view| console.handle_input(view, asked.as_bytes()));
        evening.look(|view| console.handle_end(view));
        let text = said(&evening, &mut console, b"", 300);
        assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), rows, "{asked}");
        assert!(console.is_over(), "{asked}");
    }
}

#[test]
fn the_manual_shows_how_a_condition_looks() {
    let mut evening = Evening::begin();
    evening.rig.relay.handle_uplink_lost(evening.rig.now);
    let mut console = Console::new(false);
    let text = said(&evening, &mut console, b"status\r", usize::MAX).replace("\r\n", "\n");
    let begin = text.find("health ").unwrap();
    let shown = text[begin..].lines().take(3).map(|line| format!("{line}\n")).collect::<String>();
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/console.md")).unwrap();
    assert!(manual.contains(&format!("```\n{shown}```")), "docs/console.md lacks:\n{shown}");
}

#[test]
fn who_is_to_be_closed_is_who_was_there_when_it_was_asked_for() {
    let mut evening = Evening::begin();
    let mut console = Console::new(false);
    evening.look(|view| console.handle_input(view, b"close #0\r"));
    let Some(Request::Close(page)) = console.poll_request() else { panic!("nothing is asked for") };
    evening.rig.relay.handle_page_closed(evening.rig.now, page);
    let next = evening.rig.page();
    assert_eq!(next.index(), page.index());
    assert!(!evening.rig.relay.close_by_hand(evening.rig.now, page));
    assert!(evening.rig.relay.close_by_hand(evening.rig.now, next));
}

#[test]
fn a_name_that_does_not_resolve_is_a_condition_wherever_it_stands() {
    let mut evening = Evening::begin();
    let codes = |evening: &Evening| {
        evening.look(super::conditions).into_iter().filter(|it| it.code == "U2").collect::<Vec<_>>()
    };
    assert!(codes(&evening).is_empty());
    let long = format!("{}.example:7400", "x".repeat(200));
    for (entry, why) in [("b.example:7400", "there is no such name"), (&long, "the name has no address")] {
        evening.uplink.unresolved.push((entry.to_owned(), why.to_owned()));
    }
    let found = codes(&evening);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].text, "b.example:7400 does not resolve: there is no such name");
    let mut console = Console::new(false);
    let text = said(&evening, &mut console, b"uplink\r", usize::MAX).replace("\r\n", "\n");
    assert!(text.contains("[U2] b.example:7400 does not resolve: there is no such name\n"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 79), "{text}");
}

#[test]
fn too_few_descriptors_are_told_from_the_first_that_is_missing() {
    let evening = Evening::begin();
    let needed = board::descriptors(&evening.config.board);
    for (allowed, is_reported) in [(needed, false), (needed - 1, true)] {
        let process = || Process { descriptors_max: allowed, ..Process::default() };
        let codes =
            evening.look(|view| super::conditions(&View { process: &process, ..*view })).into_iter().map(|it| it.code);
        assert_eq!(codes.filter(|code| *code == "F1").count(), usize::from(is_reported), "{allowed} of {needed}");
    }
}

#[test]
fn memory_of_tls_counts_as_used_only_with_tls() {
    let evening = Evening::begin();
    for is_on in [true, false] {
        let text = evening.look(|view| super::reply::memory(&View { tls: view.tls.filter(|_| is_on), ..*view }));
        for term in ["TLS half records", "TLS address buckets", "TLS scratches", "certificates, tickets"] {
            let row = text.lines().find(|row| row.starts_with(term)).unwrap();
            let used = row[term.len()..].split_whitespace().nth(2).unwrap();
            assert_eq!(used != "-", is_on, "{row}");
        }
    }
}
