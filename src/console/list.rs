//! Answers that may be long: pages, topics and events, produced line by line as the output takes
//! them.
//!
//! A list is an index into a table. Pages come and go between two lines, and no row is kept for
//! later. One page or one topic in detail is a short text.

use core::fmt::Write as _;

use super::command::Row;
use super::text::{link, plain, sequence, span, within, wrapped};
use super::{View, tls};
use board::size_text;
use relay::inspect::{PageRow, PageState};
use wire::Track;

/// A list that is being shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    kind: Kind,
    /// The next index to look at; for events, the number of the last one shown.
    next: u64,
    shown: u32,
    has_head: bool,
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every page.
    Pages,
    /// The pages whose sockets are full.
    SlowPages,
    /// Every topic.
    Topics,
    /// The last notable lines of the log.
    Events,
    /// The certificates that pages are served with.
    Certificates,
}

/// Rows examined for one line, at most: searching a long table must not block the relay.
const LOOKS_MAX: u32 = 256;

/// Columns of an event's text, which continues on further lines.
const EVENT_COLUMNS: usize = 56;

/// The next part of a list.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line.
    Line(String),
    /// Nothing yet: the search goes on.
    Looking,
    /// The end.
    Done,
}

impl List {
    /// A list from its beginning.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, next: 0, shown: 0, has_head: false }
    }

    /// The next line.
    pub fn next(&mut self, view: &View<'_>) -> Next {
        if !self.has_head {
            self.has_head = true;
            return Next::Line(self.head(view));
        }
        let end = match self.kind {
            Kind::Pages | Kind::SlowPages => view.relay.pages_end(),
            Kind::Topics => view.relay.topics_end(),
            Kind::Events => return self.next_event(view),
            Kind::Certificates => return self.next_certificate(view),
        };
        for _ in 0..LOOKS_MAX {
            let Some(index) = u32::try_from(self.next).ok().filter(|next| *next < end) else { return Next::Done };
            self.next += 1;
            let line = match self.kind {
                Kind::Topics => topic_line(view, index),
                _ => view
                    .relay
                    .page_row(view.now, index)
                    .filter(|row| self.kind == Kind::Pages || row.state == PageState::Slow)
                    .map(|row| page_line(&row)),
            };
            if let Some(line) = line {
                self.shown += 1;
                return Next::Line(line);
            }
        }
        Next::Looking
    }

    fn next_event(&mut self, view: &View<'_>) -> Next {
        let lines = core::iter::successors(view.lines.after(self.next), |line| view.lines.after(line.number));
        let Some(line) = lines.into_iter().find(|line| line.level <= log::Level::Info) else { return Next::Done };
        (self.next, self.shown) = (line.number, self.shown + 1);
        let (age, text) = (span(view.now.since(line.at)), plain(&line.text));
        let mut out = String::new();
        for (at, piece) in wrapped(&text, EVENT_COLUMNS).enumerate() {
            let _ = match at {
                0 => writeln!(out, "{age:>9} {:>6} {:<5} {piece}", line.count, line.level),
                _ => writeln!(out, "{:>22} {piece}", ""),
            };
        }
        Next::Line(out)
    }

    fn next_certificate(&mut self, view: &View<'_>) -> Next {
        let index = usize::try_from(self.next).unwrap_or(usize::MAX);
        let Some(rows) = view.tls.as_ref().and_then(|tls| tls::certificate(tls, index)) else { return Next::Done };
        (self.next, self.shown) = (self.next + 1, self.shown + 1);
        Next::Line(rows)
    }

    /// The last line, with the count.
    #[must_use]
    pub fn foot(&self) -> String {
        let name = match self.kind {
            Kind::Pages => "page",
            Kind::SlowPages => "slow page",
            Kind::Topics => "topic",
            Kind::Events => "event",
            Kind::Certificates => "certificate",
        };
        format!("{} {name}{}\n", self.shown, if self.shown == 1 { "" } else { "s" })
    }

    fn head(&self, view: &View<'_>) -> String {
        match self.kind {
            Kind::Certificates => tls::head(view.tls.as_ref()),
            Kind::Topics => format!(
                "{:>10} {:>6} {:>5} {:>6} {:>12} {:>12} {:>9} {:>9}\n",
                "topic", "pages", "links", "blocks", "state", "messages", "audio", "video"
            ),
            Kind::Events => format!("{:>9} {:>6} {:<5} {}\n", "age", "count", "level", "event"),
            Kind::Pages | Kind::SlowPages => format!(
                "{:<14} {:>10} {:>6} {:>9} {:>9} {:>10} {:<11}\n",
                "page", "number", "topics", "open", "idle", "kernel", "state"
            ),
        }
    }
}

fn page_line(row: &PageRow<'_>) -> String {
    let half = if row.is_half { ", half" } else { "" };
    format!(
        "{:<14} {:>10} {:>6} {:>9} {:>9} {:>10} {:<11}\n",
        row.id.to_string(),
        row.number,
        row.subscriptions,
        span(row.open_ms),
        span(row.wrote_ms),
        size_text(row.kernel_size.into()),
        format!("{}{half}", state(row.state)),
    )
}

fn state(state: PageState) -> String {
    match state {
        PageState::New => "new".to_owned(),
        PageState::Live => "live".to_owned(),
        PageState::Slow => "slow".to_owned(),
        PageState::Closing(code) => format!("closing {code}"),
        PageState::Cut => "cut".to_owned(),
    }
}

fn topic_line(view: &View<'_>, index: u32) -> Option<String> {
    let row = view.relay.topic_at(view.now, index)?;
    let blocks: u32 = row.rings.iter().map(|ring| ring.blocks).sum();
    let [state, messages, audio, video] = row.next.map(sequence);
    Some(format!(
        "{:>10} {:>6} {:>5} {blocks:>6} {state:>12} {messages:>12} {audio:>9} {video:>9}\n",
        row.number, row.pages, row.links
    ))
}

/// `pages`: the counts.
pub fn pages(view: &View<'_>) -> String {
    let (relay, board) = (view.relay, view.relay.board());
    let mut out = String::new();
    for (name, number) in [
        ("connected", u64::from(relay.pages())),
        ("limit", board.pages_max.into()),
        ("highest", relay.highest().pages.into()),
        ("slow", relay.slow_pages().into()),
        ("subscriptions", relay.in_use().subscriptions.into()),
        ("opened so far", relay.counters().pages_opened),
        ("closed so far", relay.counters().pages_closed),
    ] {
        let _ = writeln!(out, "{name:<15} {number:>10}");
    }
    let _ = writeln!(out, "{:<15} {:>10}", "in the kernel", size_text(relay.kernel_size()));
    out
}

/// `pages #ID`: one page in detail.
///
/// # Errors
/// There is no such page.
pub fn page(view: &View<'_>, wanted: Row) -> Result<String, String> {
    let row = find(view, wanted)?;
    let mut out = format!("page {}  number {}  {}\n", row.id, row.number, state(row.state));
    let _ = writeln!(out, "address     {}", row.address);
    let _ = writeln!(
        out,
        "origin      {}",
        if row.origin.is_empty() { "-".to_owned() } else { within(&plain(&row.origin), 60) }
    );
    let _ =
        writeln!(out, "open {}, heard {} ago, wrote {} ago", span(row.open_ms), span(row.heard_ms), span(row.wrote_ms));
    let half = if row.is_half { "; a frame is half written" } else { "" };
    let _ = writeln!(out, "kernel {}, faults {}{half}", size_text(row.kernel_size.into()), row.faults);
    let _ = writeln!(
        out,
        "{:>10} {:<8} {:<8} {:>11} {:>12} {:>12} {:>12}",
        "topic", "link", "stage", "state", "messages", "audio", "video"
    );
    for subscription in view.relay.subscription_rows(wanted.index) {
        let [state, messages, audio, video] = subscription.next.map(sequence);
        let topic = subscription.topic.map_or("-".to_owned(), |topic| topic.to_string());
        let link = subscription.link.as_ref().map_or("-".to_owned(), link);
        let _ = writeln!(
            out,
            "{topic:>10} {link:<8} {:<8} {state:>11} {messages:>12} {audio:>12} {video:>12}",
            subscription.stage
        );
    }
    Ok(out)
}

/// The page of this name.
///
/// # Errors
/// The page is gone; the text names the one that has its place now.
pub fn find<'a>(view: &'a View<'_>, wanted: Row) -> Result<PageRow<'a>, String> {
    let Row { index, generation } = wanted;
    match view.relay.page_row(view.now, index) {
        Some(row) if generation.is_none_or(|generation| row.id.to_string() == format!("#{index}.{generation}")) => {
            Ok(row)
        }
        Some(row) => Err(format!("[E3] that page is gone; its place has {} now", row.id)),
        None => Err(format!("[E3] no page #{index}: `pages all` lists them")),
    }
}

/// `topics NUMBER`: one topic in detail.
///
/// # Errors
/// The topic is not held.
pub fn topic(view: &View<'_>, number: u32) -> Result<String, String> {
    let missing = || format!("[E3] no topic {number}: `topics` lists them");
    let index = view.relay.topic_index(number).ok_or_else(missing)?;
    let row = view.relay.topic_at(view.now, index).ok_or_else(missing)?;
    let mut out = format!("topic {number}  epoch {}  pages {}  links {}\n", row.epoch, row.pages, row.links);
    if let Some(ms) = row.lingers_ms {
        let _ = writeln!(out, "no page is left: the topic is dropped in {}", span(ms));
    }
    if !row.is_accepted {
        let _ = writeln!(out, "not accepted again since the business server was lost");
    }
    let _ = writeln!(out, "{:<12} {:>12} {:>8} {:>11} {:>8}", "track", "next", "frames", "held", "blocks");
    let names = Track::ALL.iter().map(|track| track.name()).chain(["audio init", "video init"]);
    for (at, (name, ring)) in names.zip(row.rings).enumerate() {
        let next = row.next.get(at).map_or("-".to_owned(), |next| sequence(*next));
        let _ =
            writeln!(out, "{name:<12} {next:>12} {:>8} {:>11} {:>8}", ring.frames, size_text(ring.size), ring.blocks);
    }
    let links: Vec<String> = view
        .relay
        .topic_links(index)
        .take(LINKS_SHOWN_MAX)
        .map(|(shown, shared)| format!("{}{}", link(&shown), if shared { "" } else { " (one page each)" }))
        .collect();
    let more = if row.links as usize > LINKS_SHOWN_MAX { " ..." } else { "" };
    let _ = writeln!(out, "links       {}{more}", links.join(" "));
    Ok(out)
}

/// Links shown of a topic, at most.
const LINKS_SHOWN_MAX: usize = 4;
