//! The documents against the code, and the house rules against the tree.
//!
//! Whatever a document repeats (a limit, a key, a command, a dependency, a path, a frame in hex) is
//! compared with its source. A failure names the document and the words; decide which of the two is
//! wrong.

mod architecture;
mod cycles;
mod loops;
mod prose;
mod recipes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use board::HOST;
use sharelinkd::config::{Config, Surroundings};
use wire::{json, page, uplink};

/// Maximum lines of a file before its tests.
const LINES_MAX: usize = 450;
/// Longer files: their maximum, and why.
const LONG_FILES: [(&str, usize, &str); 4] = [
    ("crates/relay/src/log.rs", 640, "the ring, its index and its store can only be understood and checked together"),
    (
        "crates/relay/src/topic.rs",
        480,
        "the four tracks share what is expected, what is a hole and what can be decoded",
    ),
    ("crates/relay/src/transmit.rs", 600, "what is planned, gathered and committed must agree to the byte"),
    ("crates/wire/src/uplink.rs", 680, "the frames of both directions stand beside each other, as in the contract"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Our text files, by path from the root.
fn files(extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            if entry.file_type().unwrap().is_dir() {
                if !matches!(name.as_str(), "target" | "node_modules" | ".git" | "__pycache__") {
                    folders.push(path);
                }
                continue;
            }
            let path = path.into_os_string().into_string().unwrap();
            if extensions.iter().any(|extension| path.ends_with(extension)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whether a file is part of the product rather than of its tests.
fn is_source(path: &str) -> bool {
    let is_test = ["crates/", "hub/"].iter().any(|folder| path.starts_with(folder)) && path.contains("/tests");
    !is_test && ["src/", "crates/", "board/", "hub/"].iter().any(|folder| path.starts_with(folder))
}

fn documents() -> Vec<(String, String)> {
    let documents: Vec<_> = files(&[".md"]).into_iter().map(|path| (path.clone(), read(&path))).collect();
    assert!(documents.len() >= 9, "only {} documents were found", documents.len());
    documents
}

/// The text between backticks, including fenced blocks (without the language).
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').enumerate().filter(|(place, span)| place % 2 == 1 && !span.is_empty()).map(|(_, span)| span)
}

/// The fenced blocks in a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// The cells of a row of a Markdown table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap()
}

fn sharelinkd(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sharelinkd")).args(arguments).output().unwrap();
    assert!(output.status.success(), "sharelinkd {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_relative_link_leads_somewhere() {
    for (path, text) in documents() {
        let folder = Path::new(&path).parent().unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let images = text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let images = images.filter(|image| image.starts_with("docs/"));
        for link in links.chain(images) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() { root().join(&path) } else { root().join(folder).join(file) };
            assert!(target.exists(), "{path}: {link} is a broken link");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(headings.any(|heading| heading == anchor), "{path}: no heading has the anchor #{anchor}");
            }
        }
    }
}

/// A heading's anchor, as the usual renderers form it.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_path_in_a_document_is_there() {
    for (path, text) in documents() {
        for span in
            code(&text).filter(|span| !span.contains(char::is_whitespace) && !span.contains(['*', '…', '<', '{']))
        {
            let is_ours = ["src/", "crates/", "tests/", "board/", "docs/", "systemd/", "hub/"]
                .iter()
                .any(|folder| span.starts_with(folder));
            if is_ours {
                assert!(root().join(span).exists(), "{path}: there is no {span}");
            } else if let Some((room, file)) = span.split_once('/').filter(|_| span.ends_with(".rs")) {
                // A module by name: a crate, or a folder of the daemon.
                let places = [root().join("crates").join(room).join("src"), root().join("src").join(room)];
                let mut places = places.iter().filter(|place| place.is_dir()).peekable();
                let is_there = places.peek().is_none() || places.any(|place| place.join(file).exists());
                assert!(is_there, "{path}: there is no {span}");
            }
        }
    }
}

#[test]
fn every_symbol_in_the_architecture_is_in_the_code() {
    let mut sources = String::new();
    for path in files(&[".rs", ".toml"]).iter().filter(|path| *path != "tests/suite/documents.rs") {
        sources.push_str(&read(path));
    }
    let text = read("ARCHITECTURE.md");
    let is_symbol = |span: &&str| {
        let is_word = span.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '*'));
        is_word && (span.contains('_') || span.contains("::")) && !span.starts_with(char::is_numeric)
    };
    let mut count = 0;
    for span in code(&text).filter(is_symbol) {
        let symbol = span.rsplit("::").next().unwrap().trim_end_matches('*');
        assert!(sources.contains(symbol), "ARCHITECTURE.md: {span} is not in the code");
        count += 1;
    }
    assert!(count > 20, "only {count} symbols were found");
}

/// What `docs/reliability.md` cites: tests by sentence or function, words of the log, conditions,
/// counters.
#[test]
fn every_fault_is_proved_by_an_existing_test() {
    let text = read("docs/reliability.md");
    let (mut functions, mut sources) = (String::new(), String::new());
    for path in files(&[".rs"]).iter().filter(|path| *path != "tests/suite/documents.rs") {
        let source = read(path);
        functions.push_str(&source);
        if is_source(path) {
            sources.push_str(&source);
        }
    }
    let faults = text.split("\n## Does the simulation find bugs?\n").next().unwrap();
    let rows = faults.lines().filter_map(cells).filter(|row| row.len() == 4 && !row[0].starts_with("---"));
    let (mut sentences, mut names) = (0, 0);
    for row in rows.filter(|row| row[3] != "proved by") {
        let cited: Vec<&str> = code(row[3]).collect();
        assert!(!cited.is_empty(), "nothing proves: {}", row[0]);
        for cited in cited {
            if let Some((file, sentence)) = cited.split_once(": ") {
                let folder = if file.starts_with("hub_") { "hub" } else { "conformance" };
                let tests = read(&format!("tests/{folder}/test_{file}.py"));
                // A decorator, or a function that makes tests.
                assert!(tests.contains(&format!("(\"{sentence}\"")), "test_{file}.py has no test {sentence:?}");
                sentences += 1;
            } else if cited.contains('_') && cited.len() > 12 {
                assert!(functions.contains(&format!("fn {cited}() {{")), "there is no test {cited}");
                names += 1;
            } else {
                assert!(
                    root().join("tests/fuzz/fuzz_targets").join(format!("{cited}.rs")).exists(),
                    "no target {cited}"
                );
            }
        }
        for words in row[2].split('"').skip(1).step_by(2) {
            assert!(sources.contains(words), "no source contains {words:?}");
        }
        for counter in row[2].split("counter `").skip(1).filter_map(|rest| rest.split('`').next()) {
            let is_one = relay::Counters::default().rows().iter().any(|(name, _)| *name == counter);
            assert!(is_one, "there is no counter {counter}");
        }
        for condition in row[2].split("`[").skip(1).filter_map(|rest| rest.split(']').next()) {
            assert!(sharelinkd::console::CODES.iter().any(|(code, _)| *code == condition), "no condition {condition}");
        }
    }
    assert!(sentences > 40 && names >= 6, "{sentences} sentences and {names} functions were found");
}

#[test]
fn every_command_and_option_in_a_document_exists() {
    let help = sharelinkd(&["--help"]);
    let listed = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let commands: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut count = 0;
    let mut check = |path: &str, call: &str| {
        let call = call.split(['#', '>', '|']).next().unwrap();
        let words: Vec<&str> = call.split_whitespace().collect();
        let [first, rest @ ..] = words.as_slice() else { return };
        if first.starts_with('-') {
            assert!(help.contains(first), "{path}: there is no option {first}");
        } else if first.bytes().all(|byte| byte.is_ascii_lowercase()) {
            assert!(commands.contains(first), "{path}: there is no command {first:?}");
            let help = sharelinkd(&[first, "--help"]);
            let known: Vec<&str> = help.split([' ', ',', '\n', ']']).collect();
            for option in rest.iter().filter(|word| word.starts_with('-')) {
                assert!(known.contains(option), "{path}: {first} has no option {option}");
            }
            count += 1;
        }
    };
    for (path, text) in documents() {
        // Python's module has the program's name.
        for line in code(&text).flat_map(str::lines).filter(|line| !line.starts_with("from sharelinkd import ")) {
            let calls = line.split("sharelinkd ").skip(1).chain(line.split("cargo run --release -- ").skip(1));
            calls.for_each(|call| check(&path, call));
        }
    }
    for line in read("systemd/sharelinkd.service").lines().filter(|line| line.starts_with("Exec")) {
        line.split("/usr/bin/sharelinkd ").skip(1).for_each(|call| check("systemd/sharelinkd.service", call));
    }
    assert!(count >= 8, "only {count} calls were found");
}

#[test]
fn every_configuration_in_a_document_is_good() {
    let around = Surroundings {
        read_secret: &|_| Ok(b"secret".to_vec()),
        check_pair: &|_, _| Ok(sharelinkd::config::certificate_notes::Report::default()),
        ..Surroundings::without_files("box")
    };
    let mut count = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "toml").into_iter().filter(|block| block.contains("[pages]")) {
            if let Err(problems) = Config::parse(block, &HOST, &around) {
                panic!("{path}: {problems:#?}");
            }
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} configurations were found");
}

#[test]
fn every_key_in_a_document_is_in_the_configuration() {
    let shipped = Config::default_text();
    let mut keys = BTreeSet::new();
    let mut section = "";
    for line in shipped.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(format!("{section}.{}", key.trim_start_matches('#')));
        }
    }
    // In a comment of the shipped file, since only one of the two keys may be set.
    assert!(shipped.contains("secret_file = "));
    keys.insert("uplink.secret_file".to_owned());
    // A limit of the board whose table is named like a section.
    keys.insert("uplink.uplink_out_size".to_owned());
    let sections = ["pages", "tls", "uplink", "console", "metrics", "limits", "log"];
    for (path, text) in documents() {
        for span in code(&text) {
            let Some((section, key)) = span.split_once('.') else { continue };
            let is_key =
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !matches!(key, "rs" | "py");
            if sections.contains(&section) && is_key && !key.is_empty() {
                assert!(keys.contains(span), "{path}: {span} is not a configuration key");
            }
        }
    }
}

/// The options in a text.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

#[test]
fn the_manual_page_is_the_help() {
    let text = read("docs/sharelinkd.8.md");
    let help = sharelinkd(&["--help"]);
    let listed = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let mut told = help.clone();
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(text.contains(&format!("**sharelinkd {name}**")), "the synopsis lacks {name}");
        assert!(text.contains(&format!("\n**{name}**\n: ")), "{name} is not described");
        told.push_str(&sharelinkd(&[name, "--help"]));
    }
    let (told, known) = (options(&told), options(&text));
    assert!(told.len() > 20, "only {told:?}");
    assert_eq!(told, known, "the helps' options, and the manual page's");
    for option in told {
        assert!(text.contains(&format!("**{option}**")), "{option} has no entry");
    }
    // Each exit code in the help has its entry.
    let codes = help.split("Exit codes:").nth(1).unwrap();
    let codes: BTreeSet<&str> = codes.split([' ', ',', ';', '\n']).filter(|word| word.parse::<u8>().is_ok()).collect();
    assert_eq!(codes.len(), 7, "{codes:?}");
    for code in codes {
        assert!(text.contains(&format!("\n**{code}**\n: ")), "exit code {code}");
    }
    for path in ["systemd/sharelinkd.service", "systemd/sharelinkd.socket", "systemd/sharelinkd-console.socket"] {
        let name = path.split('/').next_back().unwrap();
        assert!(root().join(path).exists() && text.contains(&format!("**{name}**")), "{name}");
    }
    // Environment variables that are read by name.
    for path in files(&[".rs"]).iter().filter(|path| path.starts_with("src/daemon/") || *path == "src/config.rs") {
        let text_of_file = read(path);
        let source = untested(&text_of_file).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        for name in source.split("env::var").skip(1).filter_map(|rest| rest.split('"').nth(1)) {
            assert!(text.contains(&format!("**{name}**")), "{path} reads {name}");
        }
    }
}

/// The values of a board file by `section.key`.
fn board_values(text: &str) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(|line| line.split('#').next().unwrap().trim()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.split_once('=')
            && let Ok(value) = value.trim().replace('_', "").parse()
        {
            values.insert(format!("{section}{}", key.trim()), value);
        }
    }
    values
}

/// The limits that a configuration may lower, as `check` prints them.
fn lowerable() -> BTreeSet<String> {
    let printed = sharelinkd(&["check", "--config", root().join("systemd/sharelinkd.toml").to_str().unwrap()]);
    let lines = printed.split("[limits]").nth(1).unwrap().lines().skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned()).collect()
}

#[test]
fn the_shipped_configuration_names_every_limit() {
    let shipped = Config::default_text();
    let named = shipped.split("never raised: ").nth(1).unwrap().split(".\n").next().unwrap().replace("\n#", " ");
    let mut named: BTreeSet<String> = named.split(',').map(|key| key.trim().to_owned()).collect();
    named.insert("pages_per_address".to_owned());
    assert_eq!(named, lowerable(), "systemd/sharelinkd.toml");
}

#[test]
fn the_limits_in_the_protocol_are_the_host_boards() {
    let board = board_values(&read("board/host.toml"));
    assert_eq!(board.get("tables.pages_max"), Some(&u64::from(HOST.pages_max)));
    let text = read("docs/protocol.md");
    let lowerable = lowerable();
    let mut count = 0;
    for row in
        section(&text, "Limits").lines().filter_map(cells).filter(|row| row.len() == 4 && row[2].starts_with('`'))
    {
        let key = row[2].trim_matches('`');
        let value: u64 = row[1].replace(' ', "").parse().unwrap_or_else(|_| panic!("{row:?} has no number"));
        assert_eq!(board.get(key), Some(&value), "docs/protocol.md: {key}");
        let lowered = row[3].trim_matches('`');
        assert!(lowered.is_empty() || lowerable.contains(lowered), "docs/protocol.md: [limits] has no {lowered}");
        count += 1;
    }
    assert!(count >= 25, "only {count} limits were found");
    // Numbers in the running text, each with its unit.
    for (words, value) in [
        ("At most {} *(board)* are under way", u64::from(HOST.requests_max)),
        ("The last {} *(board)* of these are remembered", u64::from(HOST.requests_max)),
        ("It is pinged every {} s", u64::from(HOST.ping_ms / 1000)),
        ("goes out when nothing else did for {} s", u64::from(HOST.alive_ms / 1000)),
        ("which nothing came for {} s *(board)* is dead", u64::from(HOST.dead_ms / 1000)),
        ("it stays, for {} s *(board)* from its upgrade", u64::from(HOST.unsubscribed_ms_max / 1000)),
        ("is closed {} s *(board)* later", u64::from(HOST.unsubscribed_ms_max / 1000)),
        ("subscribe to something within {} s of its upgrade", u64::from(HOST.first_subscribe_ms_max / 1000)),
        ("takes nothing for {} s *(board)*", u64::from(HOST.stalled_ms_max / 1000)),
        ("is whole within {} s *(board)*", u64::from(HOST.head_ms_max / 1000)),
        ("close frame within {} s *(board)*", u64::from(HOST.close_ms_max / 1000)),
        ("once that is {} s old *(board)*", u64::from(HOST.media_lag_ms_max / 1000)),
    ] {
        let words = words.replace("{}", &value.to_string());
        assert!(text.contains(&words), "docs/protocol.md does not contain {words:?}");
    }
    assert!(text.contains(&format!("`uplink.linger_s` ({} s", 30)) && Config::default_text().contains("linger_s = 30"));
}

#[test]
fn the_fixed_limits_in_the_protocol_are_the_wires() {
    let text = read("docs/protocol.md");
    let rows: BTreeMap<&str, u64> = section(&text, "Limits")
        .lines()
        .filter_map(cells)
        .filter(|row| row.len() == 2)
        .filter_map(|row| Some((row[0], row[1].replace(' ', "").parse().ok()?)))
        .collect();
    let limits = [
        ("length of an uplink frame", uplink::FRAME_SIZE_MAX),
        ("data of a publication", wire::DATA_SIZE_MAX),
        ("share link", wire::LINK_SIZE_MAX),
        ("reason, relay's name", wire::REASON_SIZE_MAX),
        ("MIME type", wire::MIME_SIZE_MAX),
        ("what a page sends in one `send`, in UTF-8", wire::PAGE_DATA_SIZE_MAX),
        ("a page's own message", page::PAGE_FRAME_SIZE_MAX),
        ("the same in frames, empty ones included (1008)", page::PAGE_FRAGMENTS_MAX as usize),
        ("nesting of JSON in `state` and `messages` (levels)", json::DEPTH_MAX),
    ];
    assert_eq!(rows.len(), limits.len(), "{rows:?}");
    for (name, value) in limits {
        assert_eq!(rows.get(name), Some(&(value as u64)), "docs/protocol.md: {name}");
    }
    assert!(text.contains(page::SUBPROTOCOL) && uplink::VERSION == 1 && text.contains("The uplink, version 1"));
    assert!(text.contains("below 2^53") && wire::SEQUENCE_END == 1 << 53);
}

/// The value of a key in the case with this name.
fn case<'a>(vectors: &'a str, name: &str, key: &str) -> &'a str {
    let mut cases = vectors.split("\n\n").filter(|case| case.lines().any(|line| line == format!("name: {name}")));
    let case = cases.next().unwrap_or_else(|| panic!("no vector {name}"));
    let key = format!("{key}: ");
    case.lines().find_map(|line| line.strip_prefix(&key)).unwrap_or_else(|| panic!("{name} has no {key}"))
}

#[test]
fn the_worked_examples_are_the_vectors() {
    let text = read("docs/protocol.md");
    let uplink =
        [read("tests/vectors/uplink-v1/to-relay.txt"), read("tests/vectors/uplink-v1/to-business.txt")].concat();
    let media = read("tests/vectors/page-v1/media.txt");
    let mut count = 0;
    for rest in text.split("(vector \"").skip(1) {
        let (name, rest) = rest.split_once('"').unwrap();
        let expected = if rest.starts_with(" of") { case(&media, name, "frame") } else { case(&uplink, name, "hex") };
        let block = rest.split("```").nth(1).unwrap();
        // Hex digits, two spaces, and then the explanation.
        let hex: String = block.lines().filter_map(|line| line.trim_start().split("  ").next()).collect();
        assert_eq!(hex.replace(' ', ""), expected.replace(' ', ""), "docs/protocol.md: {name}");
        count += 1;
    }
    assert_eq!(count, 5);
    let handshake = read("tests/vectors/uplink-v1/handshake.txt");
    assert_eq!(case(&handshake, "short secret", "secret"), "736563726574");
    for key in ["challenge_nonce", "hello_nonce", "hello_proof", "welcome_proof"] {
        let value = case(&handshake, "short secret", key);
        assert!(text.contains(value), "docs/protocol.md lacks {key} {value}");
    }
}

/// The dependencies below a heading of any manifest of the workspace (also those for one target
/// only), without our own crates.
fn manifests(heading: &str, of_hub: bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let is_hubs = |path: &str| path.starts_with("hub/") || path.starts_with("crates/hub/");
    let manifests = files(&["Cargo.toml"]);
    for path in manifests.iter().filter(|path| !path.starts_with("tests/") && is_hubs(path) == of_hub) {
        let mut is_inside = false;
        for line in read(path).lines() {
            if line.starts_with('[') {
                is_inside = line == format!("[{heading}]")
                    || (line.starts_with("[target.") && line.ends_with(&format!(".{heading}]")));
            } else if let (true, Some((name, _))) = (is_inside, line.split_once(" = ")) {
                names.insert(name.trim_end_matches(".workspace").to_owned());
            }
        }
    }
    names.retain(|name| name != "board" && name != "sharelinkd" && !root().join("crates").join(name).exists());
    names
}

#[test]
fn the_dependencies_are_the_manifests() {
    let text = read("docs/dependencies.md");
    let (relay, hub) = text.split_once("| crate of the hub |").unwrap();
    let rows = |text: &str| -> BTreeMap<String, (usize, usize)> {
        let rows = text.lines().filter_map(cells).filter(|row| row.len() == 4 && row[0].starts_with('`'));
        rows.map(|row| (row[0].trim_matches('`').to_owned(), (row[1].parse().unwrap(), row[2].parse().unwrap())))
            .collect()
    };
    let (relay, hub) = (rows(relay), rows(hub));
    let relays = manifests("dependencies", false);
    let hubs: BTreeSet<_> = manifests("dependencies", true).difference(&relays).cloned().collect();
    assert_eq!(relay.keys().cloned().collect::<BTreeSet<_>>(), relays);
    assert_eq!(hub.keys().cloned().collect::<BTreeSet<_>>(), hubs);
    for of_hub in [false, true] {
        for name in manifests("dev-dependencies", of_hub).union(&manifests("build-dependencies", of_hub)) {
            assert!(text.contains(&format!("`{name}`")), "docs/dependencies.md does not name {name}");
        }
    }
    let what = "docs/dependencies.md: crates below each dependency, and those that only it brings";
    assert_eq!(costs("sharelinkd"), relay, "{what}");
    let mut costs = costs("sharelink-hub");
    costs.retain(|name, _| hubs.contains(name));
    assert_eq!(costs, hub, "{what}");
}

/// For each dependency of our crates: the crates that it brings, and those that only it brings.
fn costs(of: &str) -> BTreeMap<String, (usize, usize)> {
    let options = ["tree", "-e", "normal", "--prefix", "depth", "--no-dedupe", "--locked", "--offline"];
    let output = Command::new(env!("CARGO"))
        .args(options)
        .args(["--target", "x86_64-unknown-linux-gnu", "--package", of])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut below = BTreeMap::<String, BTreeSet<String>>::new();
    // The external crate that the following lines belong to, and its depth.
    let mut direct = None;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (depth, name) = line.split_at(line.find(|c: char| !c.is_ascii_digit()).unwrap());
        let depth: usize = depth.parse().unwrap();
        if direct.as_ref().is_none_or(|(at, _)| depth <= *at) {
            let crate_name = name.split(' ').next().unwrap();
            let is_ours =
                ["sharelinkd", "sharelink-hub"].contains(&crate_name) || crate_name.starts_with("sharelinkd-");
            direct = (!is_ours).then(|| (depth, crate_name.to_owned()));
        }
        if let Some((_, direct)) = &direct {
            let crate_and_version = name.split(' ').take(2).collect::<Vec<_>>().join(" ");
            below.entry(direct.clone()).or_default().insert(crate_and_version);
        }
    }
    let alone = |name: &String, crates: &BTreeSet<String>| {
        let others: BTreeSet<_> =
            below.iter().filter(|(other, _)| *other != name).flat_map(|(_, crates)| crates).collect();
        crates.iter().filter(|name| !others.contains(name)).count()
    };
    below.iter().map(|(name, crates)| (name.clone(), (crates.len(), alone(name, crates)))).collect()
}

/// The hub uses it with another runtime than the daemon's.
#[test]
fn the_business_library_brings_no_runtime() {
    let options = ["tree", "-p", "sharelinkd-business", "-e", "normal", "--prefix", "none", "--locked", "--offline"];
    let output = Command::new(env!("CARGO")).args(options).current_dir(root()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("sharelinkd-wire ")), "{text}");
    for name in ["smol", "tokio", "async-io", "libc", "rustix"] {
        assert!(!text.lines().any(|line| line.starts_with(&format!("{name} "))), "{text}");
    }
}

#[test]
fn the_toolchain_and_the_licence_are_the_manifests() {
    let manifest = read("Cargo.toml");
    let version = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    for path in ["README.md", "CONTRIBUTING.md"] {
        assert!(read(path).contains(&format!("Rust {version} or later")), "{path}: the toolchain is {version}");
    }
    assert!(manifest.contains("license = \"MIT OR Apache-2.0\""));
    for (path, words) in
        [("LICENSE-MIT", "MIT License"), ("LICENSE-APACHE", "Apache License"), ("LICENSE", "LICENSE-APACHE")]
    {
        let text = read(path);
        assert!(text.contains(words) && text.contains("The sharelinkd authors"), "{path}");
    }
}

#[test]
fn nothing_names_a_machine_a_plan_or_a_debt() {
    // Split, so that this file does not contain them.
    let words = [
        concat!("../sha", "red"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("PROTO", "COL.md"),
    ];
    let endings =
        [".rs", ".md", ".toml", ".py", ".js", ".mjs", ".ts", ".css", ".html", ".sh", ".service", ".txt", "/run"];
    for path in files(&endings) {
        let text = read(&path);
        for word in words {
            assert!(!text.contains(word), "{path} has {word:?}");
        }
    }
}

/// Packages come from wherever the machine's own tools are configured to take them: nothing may
/// bypass a user's mirror.
#[test]
fn nothing_names_an_archive_or_a_registry() {
    // Split, so that this file does not contain them.
    let hosts = [
        concat!("deb.deb", "ian.org"),
        concat!("ftp.deb", "ian.org"),
        concat!("security.deb", "ian.org"),
        concat!("snapshot.deb", "ian.org"),
        concat!("archive.ubu", "ntu.com"),
        concat!("security.ubu", "ntu.com"),
        concat!("ports.ubu", "ntu.com"),
        concat!("py", "pi.org"),
        concat!("python", "hosted.org"),
        concat!("npm", "js.org"),
        concat!("npm", "js.com"),
        concat!("index.cra", "tes.io"),
        concat!("static.cra", "tes.io"),
        concat!("proxy.gol", "ang.org"),
        concat!("docker", ".io"),
        concat!("gh", "cr.io"),
        concat!("qu", "ay.io"),
    ];
    let mut count = 0;
    // All file names, including lists of sources and lock files.
    for path in files(&[""]) {
        let bytes = fs::read(root().join(&path)).unwrap();
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let named: Vec<_> = hosts.iter().filter(|host| text.contains(**host)).collect();
        assert!(named.is_empty(), "{path} names {named:?}: ask the machine's own tools (tests/machine/archive.py)");
        count += 1;
    }
    assert!(count > 300, "only {count} files were found");
}

/// The lines of a source file before its tests; none of a pure test file.
fn untested(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_test =
        ["#![cfg(test)]\n", "#![expect(clippy::unwrap_used"].iter().any(|mark| text.contains(&format!("\n{mark}")));
    (1..).zip(text.lines()).take_while(move |(_, line)| !is_test && !line.ends_with("mod tests {"))
}

#[test]
fn every_source_opens_with_a_head() {
    for path in files(&[".rs"]) {
        assert!(read(&path).starts_with("//! "), "{path} does not open with a //! head");
    }
}

#[test]
fn no_source_is_longer_than_it_needs_to_be() {
    for path in files(&[".rs"]).iter().filter(|path| is_source(path)) {
        let count = untested(&read(path)).count();
        match LONG_FILES.iter().find(|(long, ..)| long == path) {
            Some((_, count_max, why)) => {
                assert!(
                    count <= *count_max,
                    "{path} has {count} lines before its tests; {count_max} were allowed: {why}"
                );
                assert!(count > LINES_MAX, "{path} has only {count} lines: remove its exception");
            }
            None => assert!(count <= LINES_MAX, "{path} has {count} lines before its tests, {LINES_MAX} are allowed"),
        }
    }
    assert!(LONG_FILES.iter().all(|(path, ..)| root().join(path).exists()));
}

/// `tests/planted/run` checks that the simulation still finds them.
#[test]
fn the_planted_bugs_still_apply() {
    let patches = files(&[".patch"]);
    assert!(patches.len() >= 3);
    for patch in patches {
        // Outside a repository, git takes the paths literally.
        let fits = Command::new("git")
            .args(["--git-dir=/nowhere", "apply", "--check", &patch])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(fits.status.success(), "{patch}: {}", String::from_utf8_lossy(&fits.stderr));
    }
}

#[test]
fn three_calls_are_unsafe_and_no_other() {
    for path in files(&[".rs"]) {
        // Split, so that this line does not count.
        let count = read(&path).matches(concat!("un", "safe {")).count();
        let expected = match path.as_str() {
            "src/daemon/options.rs" => 2,
            "src/daemon/sending.rs" => 1,
            _ => 0,
        };
        assert_eq!(count, expected, "{path}");
    }
}

#[test]
fn no_source_unwraps_or_allows() {
    for path in files(&[".rs"]).iter().filter(|path| is_source(path)) {
        let text = read(path);
        for (number, line) in untested(&text).filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in [".unwrap()", ".expect("] {
                assert!(!line.contains(word), "{path}:{number}: {word} outside of tests");
            }
        }
        for (number, line) in (1..).zip(text.lines()) {
            let attribute = line.trim_start();
            let is_allow = ["#[allow(", "#![allow("].iter().any(|allow| attribute.starts_with(allow));
            assert!(!is_allow, "{path}:{number}: write #[expect(…, reason = \"…\")]");
        }
    }
}

#[test]
fn the_arithmetic_of_the_sizes_is_the_boards() {
    let text = read("docs/sizing.md");
    let rows: Vec<_> = text.lines().filter_map(cells).collect();
    let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes * 10) >> 20) % 10);
    for board in board::ALL.iter().filter(|board| board.name != "tiny") {
        let row = rows.iter().find(|row| row[0] == board.name).unwrap_or_else(|| panic!("no row for {}", board.name));
        let blocks = u64::from(board.blocks_max);
        let media = (blocks - board.guaranteed_blocks()) * u64::from(board.block_size);
        let expected = [
            board.pages_max.to_string(),
            board.topics_max.to_string(),
            mib(blocks * u64::from(board.block_size)),
            mib(media),
            format!("{} s", media / u64::from(board.topics_max) / (1_200_000 / 8)),
            mib(board.kernel_size_max),
            (board.kernel_size_max / 27_000).to_string(),
        ];
        assert_eq!(row[2..], expected, "docs/sizing.md: {}", board.name);
        // Below the point where Linux comes under memory pressure on the row's machine.
        let Some((size, unit)) = row[1].split_once(' ') else { panic!("{row:?}") };
        if let (Ok(size), true) = (size.parse::<u64>(), matches!(unit, "MiB" | "GiB")) {
            let box_size = size << if unit == "MiB" { 20 } else { 30 };
            assert!(board.kernel_size_max < box_size / 16, "{}", board.name);
        }
    }
    for row in rows.iter().filter(|row| row.len() == 4) {
        let number = |cell: &str| cell.replace(' ', "").parse::<u64>().ok();
        let (Some(rate), small, large) = (number(row[1]), number(row[2]), number(row[3])) else { continue };
        assert_eq!((small, large), (Some(95_000_000 / rate), Some(950_000_000 / rate)), "docs/sizing.md: {}", row[0]);
    }
    let measured = read("docs/performance.md");
    for figure in ["5.64 µs", "1.55 µs", "16.9 µs", "39 µs", "877 B", "27 KB"] {
        assert!(text.contains(figure) && measured.contains(figure), "{figure}");
    }
}

#[test]
fn the_packages_have_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("systemd/debian/changelog").starts_with(&format!("sharelinkd ({version}-1) ")));
    let manifest = read("hub/Cargo.toml");
    let version = manifest.split("\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(read("hub/debian/changelog").starts_with(&format!("sharelink-hub ({version}-1) ")));
}
