//! The command line: parses arguments into a [`Command`], and has the texts of help and version.
//!
//! Owns the commands and options, and their help. Refuses unknown ones, and suggests the closest
//! known one. Executes nothing: that is done by `main.rs`. Knows nothing of files, configurations
//! or sockets.

mod help;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use lexopt::Arg;

use self::help::{BENCH, BENCH_OPTIONS, CHECK, CONFIG, CONSOLE, DEMO, DROP_IN, HELP, RUN, STATUS, VERSION};
use sharelinkd::config::nearest;
use sharelinkd::terminal::{SOCKET, Way};
use sharelinkd::{bench, demo};

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve, with this configuration.
    Run(PathBuf),
    /// Validate this configuration and print its effect.
    Check(PathBuf),
    /// Print the commented default configuration.
    Config,
    /// Connect to a running relay's console; given words, run them as one command.
    Console(Way, Vec<String>),
    /// Print the status of the relay at this socket; as JSON if `true`.
    Status(PathBuf, bool),
    /// Print the drop-in unit file for this board, with this configuration.
    DropIn(Option<String>, Option<PathBuf>),
    /// Run relay and demo business server in one process.
    Demo(demo::Options),
    /// Measure the relay on this machine.
    Bench(bench::Options),
    /// Run the ceiling process of a bench, for this number of pages.
    BenchCeiling(usize),
    /// Print this help.
    Help(&'static str),
    /// Print version, board and target.
    Version,
}

/// A wrong command line: one line that says what is wrong and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

/// A command's name, the options that it takes, and its help.
struct About {
    name: &'static str,
    options: &'static [&'static str],
    help: &'static str,
}

const COMMANDS: [About; 10] = [
    About { name: "run", options: &["--config", "--help"], help: RUN },
    About { name: "check", options: &["--config", "--help"], help: CHECK },
    About { name: "config", options: &["--help"], help: CONFIG },
    About { name: "status", options: &["--socket", "--json", "--help"], help: STATUS },
    About { name: "console", options: &["--socket", "--serial", "--speed", "--help"], help: CONSOLE },
    About {
        name: "demo",
        options: &["--port", "--host-port", "--tls", "--listen", "--origin", "--uplink-tls", "--help"],
        help: DEMO,
    },
    About { name: "bench", options: &BENCH_OPTIONS, help: BENCH },
    About { name: "drop-in", options: &["--board", "--config", "--help"], help: DROP_IN },
    About { name: "help", options: &["--help"], help: HELP },
    About { name: "version", options: &["--help"], help: VERSION },
];

/// Parses the arguments, without the program's name.
///
/// # Errors
/// The first error.
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
        // Internal: started by the bench as its child process.
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
    let board = board::SELECTED;
    format!("sharelinkd {} (board {}, {})\n", env!("CARGO_PKG_VERSION"), board.name, board::TARGET)
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
    let (mut config, mut board, mut topic) = (None, None, None);
    let mut attached = Attached::default();
    let mut demo = demo::Options::default();
    let mut bench = Bench::default();
    while let Some(word) = next(parser)? {
        let option = match word {
            Word::Option(option) => option,
            Word::Value(value) if name == "help" && topic.is_none() => {
                topic = Some(value);
                continue;
            }
            Word::Value(value) if name == "console" => {
                attached.words.push(value);
                continue;
            }
            Word::Value(value) => return wrong(&format!("unexpected {value:?}: see `sharelinkd {name} --help`")),
        };
        match (name, option.as_str()) {
            (_, "-h" | "--help") => return Ok(Command::Help(about.help)),
            ("run" | "check" | "drop-in", "-c" | "--config") => {
                once(&mut config, "--config", PathBuf::from(value(parser, "--config", "--config FILE")?))?
            }
            ("drop-in", "--board") => {
                let name = value(parser, "--board", "--board NAME")?;
                once(&mut board, "--board", name.to_string_lossy().into_owned())?;
            }
            ("demo", "-p" | "--port") => once(&mut demo.pages_port, "--port", port(parser, "--port")?)?,
            ("demo", "--tls") => demo.tls = true,
            ("demo", "--listen") => once(&mut demo.listen, "--listen", ip(parser, "--listen")?)?,
            ("demo", "--host-port") => once(&mut demo.host_port, "--host-port", port(parser, "--host-port")?)?,
            ("demo", "--origin") => {
                let origin = value(parser, "--origin", "--origin https://app.example")?;
                demo.origins.push(origin.to_string_lossy().into_owned());
            }
            ("demo", "--uplink-tls") => {
                let directory = value(parser, "--uplink-tls", "--uplink-tls DIRECTORY")?;
                once(&mut demo.uplink_tls, "--uplink-tls", PathBuf::from(directory))?;
            }
            ("bench", option) if bench.take(parser, option)? => {}
            ("console" | "status", option) if attached.take(name, parser, option)? => {}
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
        ("drop-in", config) => Ok(Command::DropIn(board, config)),
        ("demo", _) => demo_command(demo),
        ("bench", _) => bench.command(),
        ("console", _) => attached.console(),
        ("status", _) => Ok(Command::Status(attached.socket(), attached.json)),
        ("config", _) => Ok(Command::Config),
        ("version", _) => Ok(Command::Version),
        _ => help_on(topic.as_deref()),
    }
}

/// The arguments of `console` and `status`.
#[derive(Default)]
struct Attached {
    socket: Option<PathBuf>,
    serial: Option<PathBuf>,
    speed: Option<u32>,
    json: bool,
    words: Vec<String>,
}

impl Attached {
    /// Takes an option and its value; `false` if the command has no such option.
    fn take(&mut self, name: &str, parser: &mut lexopt::Parser, option: &str) -> Result<bool, UsageError> {
        match (name, option) {
            (_, "--socket") => once(&mut self.socket, "--socket", value(parser, "--socket", "--socket PATH")?.into())?,
            ("status", "--json") => self.json = true,
            ("console", "--serial") => {
                once(&mut self.serial, "--serial", value(parser, "--serial", "--serial /dev/ttyUSB0")?.into())?;
            }
            ("console", "--speed") => {
                let speed = number(parser, "--speed", 50..=4_000_000)?;
                once(&mut self.speed, "--speed", u32::try_from(speed).unwrap_or(SPEED))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| SOCKET.into())
    }

    fn console(self) -> Result<Command, UsageError> {
        let way = match (&self.serial, &self.socket, self.speed) {
            (Some(_), Some(_), _) => return wrong("--serial and --socket exclude each other: choose one"),
            (Some(serial), None, speed) => Way::Serial(serial.clone(), speed.unwrap_or(SPEED)),
            (None, _, Some(_)) => return wrong("--speed is only for a serial line: add --serial DEVICE"),
            (None, _, None) => Way::Socket(self.socket()),
        };
        if matches!(way, Way::Serial(..)) && !self.words.is_empty() {
            return wrong("a serial console is interactive only: omit the command, and type it there");
        }
        Ok(Command::Console(way, self.words))
    }
}

/// The default speed of a serial line, in bits per second.
const SPEED: u32 = 115_200;

/// The arguments of `bench`.
#[derive(Default)]
struct Bench {
    options: bench::Options,
    relay: Option<SocketAddr>,
    business: Option<SocketAddr>,
    processes: Vec<u32>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ceiling: bool,
    plain: bool,
}

impl Bench {
    /// Takes an option and its value; `false` if there is no such option.
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
            "--ceiling" => self.ceiling = true,
            "--plain" => self.plain = true,
            "--tls" => options.tls = true,
            "--certificate" => self.certificate = Some(value(parser, "--certificate", "--certificate FILE")?.into()),
            "--key" => self.key = Some(value(parser, "--key", "--key FILE")?.into()),
            "--suite" => options.suites = suites(parser)?,
            "--resumed" => options.resumes = true,
            "--json" => options.json = true,
            "--relay" => self.relay = Some(address(parser, "--relay")?),
            "--business" => self.business = Some(address(parser, "--business")?),
            "--process" => self.processes = processes(parser)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn command(mut self) -> Result<Command, UsageError> {
        self.options.attached = match (self.relay, self.business) {
            (Some(relay), Some(business)) => Some(bench::Attached { relay, business, processes: self.processes }),
            (None, None) if self.processes.is_empty() => None,
            _ => return wrong("to measure a running relay, give both --relay ADDRESS and --business ADDRESS"),
        };
        let mode = self.options.mode;
        let has_ceiling = matches!(mode, bench::Mode::Flat | bench::Mode::Rate | bench::Mode::Media);
        if self.ceiling && !has_ceiling {
            return wrong(
                "--ceiling is for the modes flat, rate and media: plain writes have no arrivals or stalled pages",
            );
        }
        let is_flood = mode == bench::Mode::Flood;
        let is_of_tls = is_flood || self.options.resumes || self.options.suites != bench::Suites::Both;
        if !self.options.tls && (self.plain || is_of_tls || self.certificate.is_some() || self.key.is_some()) {
            return wrong(
                "--plain, --certificate, --key, --suite, --resumed and the mode flood are for TLS: add --tls",
            );
        }
        if self.options.resumes && !matches!(mode, bench::Mode::Idle | bench::Mode::Arrivals) {
            return wrong("--resumed is for the modes idle and arrivals");
        }
        let attached = self.options.attached.is_some();
        if attached && (self.plain || self.certificate.is_some() || self.key.is_some()) {
            return wrong("--plain, --certificate and --key are for a relay that the bench starts: without --relay");
        }
        self.options.against = match (self.ceiling, self.plain, is_flood) {
            (false, false, false) => bench::Against::Nothing,
            (true, false, false) => bench::Against::Ceiling,
            (false, true, false) => bench::Against::Plain,
            (false, false, true) => bench::Against::Quiet,
            _ => return wrong("runs alternate with one thing: give --ceiling or --plain, and neither in mode flood"),
        };
        self.options.pair = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return wrong("--certificate FILE and --key FILE are a pair: give both"),
        };
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

fn help_on(topic: Option<&str>) -> Result<Command, UsageError> {
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
        None => {
            wrong(&format!("{option} {text:?} is not a port: write a number from 1 to 65535, or 0 for any free one"))
        }
    }
}

fn ip(parser: &mut lexopt::Parser, option: &str) -> Result<IpAddr, UsageError> {
    let text = value(parser, option, &format!("{option} 0.0.0.0"))?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(ip) => Ok(ip),
        None => wrong(&format!(
            "{option} {text:?} is not an IP address: write {option} 0.0.0.0 for this machine's own, or one of them"
        )),
    }
}

fn address(parser: &mut lexopt::Parser, option: &str) -> Result<SocketAddr, UsageError> {
    let text = value(parser, option, &format!("{option} 127.0.0.1:8080"))?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(address) => Ok(address),
        None => {
            wrong(&format!("{option} {text:?} is not an address and port: write for example {option} 127.0.0.1:8080"))
        }
    }
}

fn processes(parser: &mut lexopt::Parser) -> Result<Vec<u32>, UsageError> {
    let text = value(parser, "--process", "--process ID")?;
    let ids: Option<Result<Vec<u32>, _>> = text.to_str().map(|text| text.split(',').map(str::parse).collect());
    match ids {
        Some(Ok(ids)) if !ids.contains(&0) => Ok(ids),
        _ => wrong(&format!(
            "--process {text:?} is not a process's number, or several with commas: write --process 4711"
        )),
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

fn suites(parser: &mut lexopt::Parser) -> Result<bench::Suites, UsageError> {
    match value(parser, "--suite", "--suite chacha20")?.to_str() {
        Some("aes") => Ok(bench::Suites::Aes),
        Some("chacha20") => Ok(bench::Suites::Chacha20),
        _ => wrong("unknown suite: choose one of aes, chacha20"),
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
    use std::net::Ipv6Addr;

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
            parsed("demo --port 0 --host-port=0 --tls --listen :: --origin https://app.example --uplink-tls pki"),
            Ok(Command::Demo(demo::Options {
                pages_port: port,
                host_port: port,
                tls: true,
                listen: Some(Ipv6Addr::UNSPECIFIED.into()),
                origins,
                uplink_tls: Some("pki".into())
            }))
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
            ("demo --port 65536", "is not a port: write a number"),
            ("demo --listen eth0", "is not an IP address: write --listen 0.0.0.0"),
            ("demo --port 9081 --host-port 9081", "can't both have port 9081"),
            ("help rnu", "did you mean run?"),
        ];
        for (line, text) in cases {
            assert!(matches!(parsed(line), Err(error) if error.contains(text)), "{line}: {:?}", parsed(line));
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
