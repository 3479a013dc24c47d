//! The console's commands: names, usage, help.
//!
//! Parses a typed line into a [`Command`]. An unknown word is refused with the nearest known one,
//! and a command that is not permitted here (`control = false`) with the setting to change.
//! Executes nothing.

use log::LevelFilter;

use crate::config::nearest;

/// A command of an engineer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// List the commands, or describe one of them.
    Help(Option<&'static About>),
    /// Show the relay's status.
    Status,
    /// The same, as JSON.
    StatusJson,
    /// Show counts of pages.
    Pages,
    /// List all pages.
    PagesAll,
    /// List the slow pages.
    PagesSlow,
    /// Show one page in detail.
    Page(Row),
    /// List all topics.
    Topics,
    /// Show one topic in detail.
    Topic(u32),
    /// Show the connection to the business server.
    Uplink,
    /// List the certificates, and show counts of TLS for pages.
    Tls,
    /// Show the memory sum.
    Memory,
    /// Show the limits.
    Limits,
    /// Show all counters.
    Counters,
    /// List the last notable log lines.
    Events,
    /// Show the log level.
    Log,
    /// Set the log level.
    LogLevel(LevelFilter),
    /// Show each log line as it comes.
    LogTail,
    /// Show a status line every two seconds.
    Watch,
    /// Show version, board, target.
    Version,
    /// Close a page.
    Close(Row),
    /// End a topic.
    End(u32),
    /// Drain and exit.
    Drain,
    /// Reload the configuration.
    Reload,
    /// Leave the console.
    Quit,
}

/// A page by name: `#3.17`, or `#3` for any generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The index.
    pub index: u32,
    /// The generation, if it was given.
    pub generation: Option<u32>,
}

/// Help on a command.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its syntax.
    pub usage: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// Further hints, one a line.
    pub more: &'static str,
    /// Whether it changes something, which needs `control = true`.
    pub control: bool,
}

/// Every command, in the order of `help`.
pub const COMMANDS: [About; 19] = [
    about(
        "help",
        "help [COMMAND]",
        "this list, or help on one command",
        "Keys: Backspace, Ctrl-U, Ctrl-W, Ctrl-C (stop), arrows up and down.",
    ),
    about(
        "status",
        "status",
        "the relay's state: uplink, pages, memory, conditions",
        "Conditions have codes such as [U1]; docs/console.md has them all.",
    ),
    about(
        "pages",
        "pages [all | slow | #ID]",
        "connected pages: counts, all, the slow ones, or one",
        "`kernel` is data queued there, `idle` is time since the socket took any.\nA slow page's socket is full; the page is closed after stalled_ms.",
    ),
    about(
        "topics",
        "topics [NUMBER]",
        "topics held, or one with its rings and links",
        "The tracks' columns are the next sequence expected from the business server.",
    ),
    about(
        "uplink",
        "uplink",
        "the connection to the business server",
        "Addresses are tried in turn; the relay returns to the first once it answers.",
    ),
    about(
        "tls",
        "tls",
        "TLS for pages: handshakes, certificates with names and dates",
        "Fingerprints are SHA-256, of the certificate and of its public key (DER).",
    ),
    about(
        "memory",
        "memory",
        "the memory sum, term by term: limit, used, highest",
        "`-` is not counted. `process, resident` is the kernel's own figure.",
    ),
    about(
        "limits",
        "limits",
        "each limit: the board's, the configuration's, used, highest",
        "A configuration lowers limits and never raises them.",
    ),
    about(
        "counters",
        "counters",
        "everything counted since the start",
        "The metrics have the same figures by their Prometheus names.",
    ),
    about(
        "events",
        "events",
        "the last notable lines of the log",
        "`age` is since it came last, `count` how often it came in a row.",
    ),
    about(
        "log",
        "log [tail | off | error | warn | info | debug | trace]",
        "show or set the log level; follow the log",
        "A level set here lasts until the next reload or restart.",
    ),
    about(
        "watch",
        "watch",
        "a status line every two seconds, until a key is pressed",
        "`rate` is deliveries per second since the line before.",
    ),
    about("version", "version", "version, board and target", ""),
    control("close", "close #ID", "close one page with 1008", "The page client reconnects 30 to 60 s after 1008."),
    control(
        "end",
        "end NUMBER",
        "end one topic for all its pages",
        "Its pages get `end`; the business server gets Unsubscribe.",
    ),
    control(
        "drain",
        "drain",
        "close every page and exit",
        "As SIGTERM does: a service manager may start the relay again.",
    ),
    control(
        "reload",
        "reload",
        "reload the configuration",
        "As SIGHUP does: errors are shown, and then nothing is changed.",
    ),
    about("quit", "quit", "leave (over the socket); a new prompt (over the line)", "Ctrl-D does the same."),
    about("json", "json", "status as one line of JSON, for scripts", "What `sharelinkd status --json` prints."),
];

const fn about(name: &'static str, usage: &'static str, what: &'static str, more: &'static str) -> About {
    About { name, usage, what, more, control: false }
}

const fn control(name: &'static str, usage: &'static str, what: &'static str, more: &'static str) -> About {
    About { name, usage, what, more, control: true }
}

/// Parses a line; `None` if it is empty.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn parse(line: &str, may_control: bool) -> Result<Option<Command>, String> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return Ok(None) };
    let word = words.next();
    if words.next().is_some() {
        return Err(format!("[E2] too many words: {}", usage(name)));
    }
    let name = if name == "?" { "help" } else { name };
    let about = named(name)?;
    if about.control && !may_control {
        return Err("[E4] this console is read-only: `control = true` in [console] allows changes".to_owned());
    }
    if let ("help", Some(word)) = (name, word) {
        return named(word).map(|about| Some(Command::Help(Some(about))));
    }
    command(about, word).map(Some).ok_or_else(|| format!("[E2] {}", usage(name)))
}

fn named(name: &str) -> Result<&'static About, String> {
    COMMANDS.iter().find(|about| about.name == name).ok_or_else(|| {
        match nearest(name, COMMANDS.iter().map(|about| about.name)) {
            Some(near) => format!("[E1] unknown command: did you mean `{near}`?"),
            None => "[E1] unknown command: `help` lists them".to_owned(),
        }
    })
}

/// `help`: all commands that are permitted here, or details of one.
pub fn help(about: Option<&About>, may_control: bool) -> String {
    let mut out = String::new();
    match about {
        Some(about) => {
            out = format!("{}\n  {}\n", about.usage, about.what);
            for line in about.more.lines() {
                out.push_str(&format!("  {line}\n"));
            }
            if about.control && !may_control {
                out.push_str("  Not permitted here: control = true in [console] allows it.\n");
            }
        }
        None => {
            for about in COMMANDS.iter().filter(|about| may_control || !about.control) {
                out.push_str(&format!("{:<10}{}\n", about.name, about.what));
            }
            out.push_str("`help COMMAND` describes one of them.\n");
        }
    }
    out
}

fn usage(name: &str) -> String {
    match COMMANDS.iter().find(|about| about.name == name) {
        Some(about) => format!("write `{}`", about.usage),
        None => "`help` lists the commands".to_owned(),
    }
}

fn command(about: &'static About, word: Option<&str>) -> Option<Command> {
    Some(match (about.name, word) {
        ("help", None) => Command::Help(None),
        ("status", None) => Command::Status,
        ("json", None) => Command::StatusJson,
        ("pages", None) => Command::Pages,
        ("pages", Some("all")) => Command::PagesAll,
        ("pages", Some("slow")) => Command::PagesSlow,
        ("pages", Some(word)) => Command::Page(row(word)?),
        ("topics", None) => Command::Topics,
        ("topics", Some(word)) => Command::Topic(word.parse().ok()?),
        ("uplink", None) => Command::Uplink,
        ("tls", None) => Command::Tls,
        ("memory", None) => Command::Memory,
        ("limits", None) => Command::Limits,
        ("counters", None) => Command::Counters,
        ("events", None) => Command::Events,
        ("log", None) => Command::Log,
        ("log", Some("tail")) => Command::LogTail,
        ("log", Some(word)) => Command::LogLevel(word.parse().ok()?),
        ("watch", None) => Command::Watch,
        ("version", None) => Command::Version,
        ("close", Some(word)) => Command::Close(row(word)?),
        ("end", Some(word)) => Command::End(word.parse().ok()?),
        ("drain", None) => Command::Drain,
        ("reload", None) => Command::Reload,
        ("quit", None) => Command::Quit,
        _ => return None,
    })
}

fn row(word: &str) -> Option<Row> {
    let word = word.strip_prefix('#').unwrap_or(word);
    let (index, generation) = match word.split_once('.') {
        Some((index, generation)) => (index, Some(generation.parse().ok()?)),
        None => (word, None),
    };
    Some(Row { index: index.parse().ok()?, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        for (line, command) in [
            ("status", Command::Status),
            ("  pages  all ", Command::PagesAll),
            ("pages #3.17", Command::Page(Row { index: 3, generation: Some(17) })),
            ("close 3", Command::Close(Row { index: 3, generation: None })),
            ("topics 4294967295", Command::Topic(u32::MAX)),
            ("log debug", Command::LogLevel(LevelFilter::Debug)),
            ("?", Command::Help(None)),
        ] {
            assert_eq!(parse(line, true), Ok(Some(command)), "{line}");
        }
        assert_eq!(parse(" ", true), Ok(None));
        assert!(matches!(parse("help close", false), Ok(Some(Command::Help(Some(about)))) if about.name == "close"));
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_write() {
        for (line, text) in [
            ("stauts", "[E1] unknown command: did you mean `status`?"),
            ("xyzzy", "[E1] unknown command: `help` lists them"),
            ("pages some", "[E2] write `pages [all | slow | #ID]`"),
            ("pages #-1", "[E2] write `pages"),
            ("topics 4294967296", "[E2] write `topics [NUMBER]`"),
            ("status now", "[E2] write `status`"),
            ("log tail 5", "[E2] too many words"),
            ("help me", "[E1] unknown command"),
            ("close", "[E2] write `close #ID`"),
        ] {
            assert!(parse(line, true).is_err_and(|error| error.contains(text)), "{line}: {:?}", parse(line, true));
        }
        for about in COMMANDS.iter().filter(|about| about.control) {
            assert!(parse(about.name, false).is_err_and(|error| error.starts_with("[E4] ")), "{}", about.name);
        }
    }

    #[test]
    fn help_fits_the_screen() {
        for about in &COMMANDS {
            assert!(
                about.usage.starts_with(about.name) && about.name.len() <= 8 && about.what.len() <= 64,
                "{}",
                about.name
            );
            assert!(about.more.lines().all(|line| line.len() <= 77), "{}", about.name);
            assert!(parse(about.name, true).is_ok() || matches!(about.name, "close" | "end"), "{}", about.name);
        }
    }
}
