//! The console's commands: what there is, how each is written, what each says of itself.
//!
//! Reads a typed line into a [`Command`]. Refuses what it doesn't know with the nearest thing that it does, and what may
//! not be done here (`control = false`) with where that is changed. Carries nothing out.

use log::LevelFilter;

use crate::config::nearest;

/// What an engineer wants to know, or wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// What commands there are, or about one of them.
    Help(Option<&'static About>),
    /// How the relay is.
    Status,
    /// The same, as JSON.
    StatusJson,
    /// How many pages do what.
    Pages,
    /// A line for each page.
    PagesAll,
    /// A line for each page that is slow.
    PagesSlow,
    /// All of one page.
    Page(Row),
    /// A line for each topic.
    Topics,
    /// All of one topic.
    Topic(u32),
    /// The connection to the business server.
    Uplink,
    /// The memory sum.
    Memory,
    /// The board's limits.
    Limits,
    /// Everything counted.
    Counters,
    /// What was notable.
    Events,
    /// Which lines are logged.
    Log,
    /// Log these lines from now on.
    LogLevel(LevelFilter),
    /// Show each line as it comes.
    LogTail,
    /// A status line every two seconds.
    Watch,
    /// Version, board, target.
    Version,
    /// Close a page.
    Close(Row),
    /// End a topic.
    End(u32),
    /// Go away.
    Drain,
    /// Read the configuration again.
    Reload,
    /// Leave the console.
    Quit,
}

/// A row as it is named: `#3.17`, or `#3` whatever its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The index.
    pub index: u32,
    /// The generation, where it was named.
    pub generation: Option<u32>,
}

/// What a command says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// What one should know besides, line by line.
    pub more: &'static str,
    /// Whether it changes something: then the configuration must allow it.
    pub control: bool,
}

/// Every command, in the order of `help`.
pub const COMMANDS: [About; 18] = [
    about(
        "help",
        "help [COMMAND]",
        "this list, or about one command",
        "Keys: Backspace, Ctrl-U, Ctrl-W, Ctrl-C (stop), arrows up and down.",
    ),
    about(
        "status",
        "status",
        "how the relay is: uplink, pages, memory, conditions",
        "Conditions have codes such as [U1]; docs/console.md has them all.",
    ),
    about(
        "pages",
        "pages [all | slow | #ID]",
        "pages connected: how many, each, the slow ones, or one",
        "`kernel` is what waits there for the page, `idle` is since its socket took\nsomething. A slow page's socket takes no more; after stalled_ms it is closed.",
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
        "Addresses are tried in turn; the first is gone back to when it speaks again.",
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
        "which lines are logged; change that; follow them",
        "A level that is set here lasts until the next reload or restart.",
    ),
    about(
        "watch",
        "watch",
        "a status line every two seconds, until a key",
        "`rate` is deliveries since the line before.",
    ),
    about("version", "version", "version, board and target", ""),
    control(
        "close",
        "close #ID",
        "close one page with 1008",
        "The page client doesn't come back by itself after 1008.",
    ),
    control(
        "end",
        "end NUMBER",
        "end one topic for all its pages",
        "Its pages get `end`; the business server gets Unsubscribe.",
    ),
    control(
        "drain",
        "drain",
        "send every page away and end",
        "As SIGTERM does: a service manager may start the relay again.",
    ),
    control(
        "reload",
        "reload",
        "read the configuration again",
        "As SIGHUP does: what is wrong is told and nothing is changed.",
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

/// Reads a line; `None` where it is empty.
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
        return Err("[E4] this console only looks: `control = true` in [console] allows it to change things".to_owned());
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

/// The answer of `help`: every command that may be given here, or about one.
pub fn help(about: Option<&About>, may_control: bool) -> String {
    let mut out = String::new();
    match about {
        Some(about) => {
            out = format!("{}\n  {}\n", about.usage, about.what);
            for line in about.more.lines() {
                out.push_str(&format!("  {line}\n"));
            }
            if about.control && !may_control {
                out.push_str("  Not here: control = true in [console] allows it.\n");
            }
        }
        None => {
            for about in COMMANDS.iter().filter(|about| may_control || !about.control) {
                out.push_str(&format!("{:<10}{}\n", about.name, about.what));
            }
            out.push_str("`help COMMAND` says more of one.\n");
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
            assert!(parse(line, true).is_err_and(|told| told.contains(text)), "{line}: {:?}", parse(line, true));
        }
        for about in COMMANDS.iter().filter(|about| about.control) {
            assert!(parse(about.name, false).is_err_and(|told| told.starts_with("[E4] ")), "{}", about.name);
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
