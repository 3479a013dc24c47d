//! The command line: arguments as a [`Command`], and the texts of help and version.
//!
//! Owns which commands and options there are and what they say for themselves. Refuses what it doesn't
//! know with the nearest thing that it does. Does nothing: `main.rs` carries commands out. Knows
//! nothing of files, configurations or sockets.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::Arg;
use sharelinkd::config::nearest;
use sharelinkd::{bench, demo};

/// What the user wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve, with this configuration.
    Run(PathBuf),
    /// Check this configuration and say what it means.
    Check(PathBuf),
    /// Print the commented default configuration.
    Config,
    /// Relay and demo business server in one process.
    Demo(demo::Options),
    /// Measure the relay on this machine.
    Bench(bench::Options),
    /// Be the ceiling of a bench, for so many pages.
    BenchCeiling(usize),
    /// Print this help.
    Help(&'static str),
    /// Print version, board and target.
    Version,
}

/// One line that says what is wrong with the arguments and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

/// A command's name, the options that it takes, and its help.
struct About {
    name: &'static str,
    options: &'static [&'static str],
    help: &'static str,
}

const COMMANDS: [About; 7] = [
    About { name: "run", options: &["--config", "--help"], help: RUN },
    About { name: "check", options: &["--config", "--help"], help: CHECK },
    About { name: "config", options: &["--help"], help: CONFIG },
    About { name: "demo", options: &["--port", "--host-port", "--origin", "--help"], help: DEMO },
    About { name: "bench", options: &BENCH_OPTIONS, help: BENCH },
    About { name: "help", options: &["--help"], help: HELP },
    About { name: "version", options: &["--help"], help: VERSION },
];

const HELP: &str = "\
sharelinkd shows a social app's live content on the web page behind a share
link.

Usage: sharelinkd COMMAND [OPTIONS]

Commands:
  demo      Relay and demo business server in one process: try this first
  config    Print a commented configuration to start from
  check     Check a configuration: its errors, or what it means and costs
  run       Serve
  bench     Measure what the relay costs on this machine
  help      Print this, or the help of a command: sharelinkd help run
  version   Print version, board and target

Options:
  -h, --help      Print this; behind a command, the help of that command
  -V, --version   Print version, board and target

Exit codes: 0 done, 1 could not be done (the last line says why), 64 wrong
arguments, 74 output failed, 78 wrong configuration.
";

const RUN: &str = "\
Serve pages and keep the uplink to the business server.

Usage: sharelinkd run --config FILE

Options:
  -c, --config FILE   The configuration, in TOML; `sharelinkd config` prints one
  -h, --help          Print this

SIGTERM drains and exits 0, SIGHUP reads the configuration again. Of a
configuration that is wrong every error is told with its line, and nothing
starts (exit 78).
";

const CHECK: &str = "\
Check a configuration as `run` would, start nothing, and print what it means:
every key with its value, and the relay's memory sum, term by term.

Usage: sharelinkd check --config FILE

Options:
  -c, --config FILE   The configuration
  -h, --help          Print this

Exits 0 where `run` would start, else 78 with every error on standard error.
";

const CONFIG: &str = "\
Print the configuration as shipped: every key with its default, commented.

Usage: sharelinkd config > sharelinkd.toml

Options:
  -h, --help   Print this
";

const DEMO: &str = "\
Run a relay and a demo business server in one process, connected by a real
uplink over loopback, with a room that lives by itself. Prints two addresses:
the share page, which viewers see, and the host page, which runs the room.

Usage: sharelinkd demo [--port N] [--host-port N] [--origin ORIGIN]...

Options:
  -p, --port N      Port of the share page, on loopback [default: 8080]
  --host-port N     Port of the host page, on loopback [default: 8081]
  --origin ORIGIN   Pages of this origin may connect too, such as your own
                    page's http://localhost:3000; may be given several times
  -h, --help        Print this

Port 0 takes any free one. Where a default port is taken, the next is used.
";

const BENCH_OPTIONS: [&str; 13] = [
    "--mode",
    "--pages",
    "--under-way",
    "--size",
    "--seconds",
    "--rate",
    "--runs",
    "--ceiling",
    "--json",
    "--relay",
    "--business",
    "--process",
    "--help",
];

const BENCH: &str = "\
Measure what the relay costs on this machine: starts one, is its business
server and its pages over the real protocols on loopback, and reports.

Usage: sharelinkd bench [--mode MODE] [OPTIONS]

Modes:
  flat       So many publications under way, as fast as pages get them [default]
  rate       So many publications a second: latency
  idle       Pages that are subscribed and get nothing: memory
  arrivals   Pages that arrive as fast as they can
  stalled    One page in a hundred reads nothing
  media      A stream of 1.2 Mbit/s to every page

Options:
  --mode MODE     What is measured
  --pages N       Pages [default: 1000]
  --under-way N   Publications under way at the same time [default: 1]
  --size N        Bytes of a publication's frame [default: 200]
  --seconds N     Length of a run [default: 5]
  --rate N        Publications a second, in mode rate [default: 100]
  --runs N        Runs, of which the medians are reported [default: 1]
  --ceiling       In turn with the relay, the least that any relay could do:
                  one thread that writes a ready frame to each socket
  --json          Report as JSON
  --relay ADDRESS
                  Measure the relay whose pages connect here, in place of one
                  of the bench's own
  --business ADDRESS
                  Be that relay's business server here: one of its
                  uplink.addresses; its secret must be empty
  --process ID    That relay's process, where it is on this machine: without
                  it nothing is known of its processor time and memory
  -h, --help      Print this

Examples:
  sharelinkd bench --under-way 4 --runs 5 --ceiling
  sharelinkd bench --mode idle --pages 8000
  sharelinkd bench --relay 192.0.2.7:8080 --business 0.0.0.0:7400

Fails where a message was lost and not told by a gap.
";

const VERSION: &str = "\
Print the version, the board that the relay was built for, and the target that
it was compiled for.

Usage: sharelinkd version
";

/// Reads arguments, the program's name excluded.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let name = match next(&mut parser)? {
        None => {
            return wrong("no command: `sharelinkd demo` shows what it does, `sharelinkd --help` lists all commands");
        }
        Some(Word::Option(option)) if option == "-h" || option == "--help" => return Ok(Command::Help(HELP)),
        Some(Word::Option(option)) if option == "-V" || option == "--version" => return Ok(Command::Version),
        Some(Word::Option(option)) => {
            let near = suggestion(&option, ["--help", "--version"]);
            return wrong(&format!("unknown option {option} before a command{near}"));
        }
        Some(Word::Value(name)) => name,
    };
    if name == "bench-ceiling" {
        // The bench's own child: for nobody to type.
        return number(&mut parser, "bench-ceiling", 1..=u64::MAX).map(|pages| Command::BenchCeiling(as_size(pages)));
    }
    let Some(about) = COMMANDS.iter().find(|about| about.name == name) else {
        let near = suggestion(&name, COMMANDS.iter().map(|about| about.name));
        return wrong(&format!("unknown command {name:?}{near}"));
    };
    options(about, &mut parser)
}

/// The line of `--version`.
#[must_use]
pub fn version() -> String {
    let board = sharelinkd::board::SELECTED;
    format!("sharelinkd {} (board {}, {})\n", env!("CARGO_PKG_VERSION"), board.name, sharelinkd::board::TARGET)
}

enum Word {
    Option(String),
    Value(String),
}

fn next(parser: &mut lexopt::Parser) -> Result<Option<Word>, UsageError> {
    let word = parser.next().map_err(|error| UsageError(format!("{error}: see `sharelinkd --help`")))?;
    Ok(word.map(|word| match word {
        Arg::Short(letter) => Word::Option(format!("-{letter}")),
        Arg::Long(name) => Word::Option(format!("--{name}")),
        Arg::Value(value) => Word::Value(value.to_string_lossy().into_owned()),
    }))
}

fn options(about: &'static About, parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let name = about.name;
    let (mut config, mut topic) = (None, None);
    let mut demo = demo::Options::default();
    let mut bench = Bench::default();
    while let Some(word) = next(parser)? {
        let option = match word {
            Word::Option(option) => option,
            Word::Value(value) if name == "help" && topic.is_none() => {
                topic = Some(value);
                continue;
            }
            Word::Value(value) => return wrong(&format!("unexpected {value:?}: see `sharelinkd {name} --help`")),
        };
        match (name, option.as_str()) {
            (_, "-h" | "--help") => return Ok(Command::Help(about.help)),
            ("run" | "check", "-c" | "--config") => {
                once(&mut config, "--config", PathBuf::from(value(parser, "--config", "--config FILE")?))?
            }
            ("demo", "-p" | "--port") => once(&mut demo.pages_port, "--port", port(parser, "--port")?)?,
            ("demo", "--host-port") => once(&mut demo.host_port, "--host-port", port(parser, "--host-port")?)?,
            ("demo", "--origin") => {
                let origin = value(parser, "--origin", "--origin https://app.example")?;
                demo.origins.push(origin.to_string_lossy().into_owned());
            }
            ("bench", option) if bench.take(parser, option)? => {}
            _ => {
                return match nearest(&option, about.options.iter().copied()) {
                    Some(near) => wrong(&format!("unknown option {option} of {name}: did you mean {near}?")),
                    None => wrong(&format!("unknown option {option} of {name}: see `sharelinkd {name} --help`")),
                };
            }
        }
    }
    match (name, config) {
        ("run", Some(config)) => Ok(Command::Run(config)),
        ("check", Some(config)) => Ok(Command::Check(config)),
        ("run" | "check", None) => {
            wrong(&format!("{name} needs --config FILE: `sharelinkd config > FILE` writes one to start from"))
        }
        ("demo", _) => demo_command(demo),
        ("bench", _) => bench.command(),
        ("config", _) => Ok(Command::Config),
        ("version", _) => Ok(Command::Version),
        _ => help(topic.as_deref()),
    }
}

/// The words of `bench`.
#[derive(Default)]
struct Bench {
    options: bench::Options,
    relay: Option<SocketAddr>,
    business: Option<SocketAddr>,
    process: Option<u32>,
}

impl Bench {
    /// Takes an option and its value; `false` where there is no such option.
    fn take(&mut self, parser: &mut lexopt::Parser, option: &str) -> Result<bool, UsageError> {
        let options = &mut self.options;
        match option {
            "--mode" => options.mode = mode(parser)?,
            "--pages" => options.pages = as_size(number(parser, "--pages", 1..=1_000_000)?),
            "--under-way" => options.under_way = as_size(number(parser, "--under-way", 1..=1024)?),
            "--size" => options.size = as_size(number(parser, "--size", 100..=60_000)?),
            "--seconds" => options.seconds = number(parser, "--seconds", 1..=86_400)?,
            "--rate" => options.rate = number(parser, "--rate", 1..=1_000_000)?,
            "--runs" => options.runs = as_size(number(parser, "--runs", 1..=1000)?),
            "--ceiling" => options.ceiling = true,
            "--json" => options.json = true,
            "--relay" => self.relay = Some(address(parser, "--relay")?),
            "--business" => self.business = Some(address(parser, "--business")?),
            "--process" => {
                let process = number(parser, "--process", 1..=u64::from(u32::MAX))?;
                self.process = u32::try_from(process).ok();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn command(mut self) -> Result<Command, UsageError> {
        self.options.attached = match (self.relay, self.business) {
            (Some(relay), Some(business)) => Some(bench::Attached { relay, business, process: self.process }),
            (None, None) if self.process.is_none() => None,
            _ => return wrong("a relay that runs already needs both --relay ADDRESS and --business ADDRESS"),
        };
        let has_ceiling = matches!(self.options.mode, bench::Mode::Flat | bench::Mode::Rate | bench::Mode::Media);
        if self.options.ceiling && !has_ceiling {
            return wrong(
                "--ceiling is for the modes flat, rate and media: a bare write has no arrivals and no stalled pages",
            );
        }
        Ok(Command::Bench(self.options))
    }
}

fn demo_command(demo: demo::Options) -> Result<Command, UsageError> {
    match (demo.pages_port, demo.host_port) {
        (Some(pages), Some(host)) if pages == host && pages != 0 => wrong(&format!(
            "the share page and the host page can't both have port {pages}: choose another with --port or --host-port"
        )),
        _ => Ok(Command::Demo(demo)),
    }
}

fn help(topic: Option<&str>) -> Result<Command, UsageError> {
    let Some(topic) = topic else { return Ok(Command::Help(HELP)) };
    match COMMANDS.iter().find(|about| about.name == topic) {
        Some(about) => Ok(Command::Help(about.help)),
        None => wrong(&format!("no help on {topic:?}{}", suggestion(topic, COMMANDS.iter().map(|about| about.name)))),
    }
}

fn value(parser: &mut lexopt::Parser, name: &str, form: &str) -> Result<OsString, UsageError> {
    match parser.value() {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => wrong(&format!("{name} needs a value: write {form}")),
    }
}

fn port(parser: &mut lexopt::Parser, option: &str) -> Result<u16, UsageError> {
    let text = value(parser, option, &format!("{option} N"))?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(port) => Ok(port),
        None => wrong(&format!("{option} {text:?} is no port: write a number from 1 to 65535, or 0 for any free one")),
    }
}

fn address(parser: &mut lexopt::Parser, option: &str) -> Result<SocketAddr, UsageError> {
    let text = value(parser, option, &format!("{option} 127.0.0.1:8080"))?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(address) => Ok(address),
        None => wrong(&format!("{option} {text:?} is no address and port: write for example {option} 127.0.0.1:8080")),
    }
}

fn mode(parser: &mut lexopt::Parser) -> Result<bench::Mode, UsageError> {
    let text = value(parser, "--mode", "--mode flat")?.to_string_lossy().into_owned();
    match bench::Mode::ALL.iter().find(|(name, _)| *name == text) {
        Some((_, mode)) => Ok(*mode),
        None => {
            let modes = bench::Mode::ALL.map(|(name, _)| name);
            match nearest(&text, modes) {
                Some(near) => wrong(&format!("unknown mode {text:?}: did you mean {near}?")),
                None => wrong(&format!("unknown mode {text:?}: choose one of {}", modes.join(", "))),
            }
        }
    }
}

fn number(parser: &mut lexopt::Parser, option: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, UsageError> {
    let text = value(parser, option, &format!("{option} N"))?;
    match text.to_str().and_then(|text| text.parse().ok()).filter(|number| range.contains(number)) {
        Some(number) => Ok(number),
        None => wrong(&format!("{option} {text:?} is not a number from {} to {}", range.start(), range.end())),
    }
}

fn as_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn once<T>(place: &mut Option<T>, option: &str, value: T) -> Result<(), UsageError> {
    if place.replace(value).is_some() { wrong(&format!("{option} is given twice: keep one of them")) } else { Ok(()) }
}

fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(near) => format!(": did you mean {near}?"),
        None => ": see `sharelinkd --help`".to_owned(),
    }
}

fn wrong<T>(text: &str) -> Result<T, UsageError> {
    Err(UsageError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|UsageError(text)| text)
    }

    #[test]
    fn commands_are_read() {
        assert_eq!(parsed("run --config a.toml"), Ok(Command::Run("a.toml".into())));
        assert_eq!(parsed("run --config=a.toml"), Ok(Command::Run("a.toml".into())));
        assert_eq!(parsed("check -c a.toml"), Ok(Command::Check("a.toml".into())));
        assert_eq!(parsed("config"), Ok(Command::Config));
        assert_eq!(parsed("demo"), Ok(Command::Demo(demo::Options::default())));
        let (port, origins) = (Some(0), vec!["https://app.example".to_owned()]);
        assert_eq!(
            parsed("demo --port 0 --host-port=0 --origin https://app.example"),
            Ok(Command::Demo(demo::Options { pages_port: port, host_port: port, origins }))
        );
        for line in ["--version", "-V", "version"] {
            assert_eq!(parsed(line), Ok(Command::Version), "{line}");
        }
        for line in ["--help", "-h", "help", "help help"] {
            assert_eq!(parsed(line), Ok(Command::Help(HELP)), "{line}");
        }
        for line in ["run --help", "run -c x -h", "help run"] {
            assert_eq!(parsed(line), Ok(Command::Help(RUN)), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_write() {
        let cases = [
            ("", "no command: `sharelinkd demo`"),
            ("rnu", "unknown command \"rnu\": did you mean run?"),
            ("frobnicate", "unknown command \"frobnicate\": see `sharelinkd --help`"),
            ("--hepl", "did you mean --help?"),
            ("run", "`sharelinkd config > FILE`"),
            ("run --config", "write --config FILE"),
            ("run --conifg x", "did you mean --config?"),
            ("run --config a --config b", "given twice"),
            ("run a.toml", "unexpected \"a.toml\""),
            ("config --port 1", "unknown option --port of config"),
            ("demo --port 65536", "is no port: write a number"),
            ("demo --port 9081 --host-port 9081", "can't both have port 9081"),
            ("help rnu", "did you mean run?"),
        ];
        for (line, text) in cases {
            assert!(matches!(parsed(line), Err(told) if told.contains(text)), "{line}: {:?}", parsed(line));
        }
    }

    #[test]
    fn every_command_and_option_is_in_its_help() {
        for about in &COMMANDS {
            assert!(HELP.contains(&format!("\n  {:<10}", about.name)), "{}", about.name);
            assert!(
                about.name == "version" || about.options.iter().all(|option| about.help.contains(option)),
                "{}",
                about.name
            );
            assert!(about.help.lines().all(|line| line.len() <= 80) && about.help.ends_with('\n'));
        }
        assert!(
            DEMO.contains(&format!("[default: {}]", demo::PAGES_PORT))
                && DEMO.contains(&format!("[default: {}]", demo::HOST_PORT))
        );
    }

    #[test]
    fn the_version_names_board_and_target() {
        let text = version();
        assert!(text.starts_with("sharelinkd ") && text.contains("(board ") && text.ends_with(")\n"), "{text}");
    }
}
