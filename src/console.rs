//! The console: what an engineer types on a serial line or over the Unix socket, and what is answered.
//!
//! Pure: takes bytes, gives bytes, reads the machine through a [`View`], and hands what is to be *done* out as a
//! [`Request`]. Owns echo and line editing, the commands, and the texts of all answers: fixed columns, at most 79
//! wide, plain ASCII, no escape codes. Output waits in a buffer of 8 KiB. A long answer is written as the
//! line takes it, row by row; what comes by itself (`watch`, `log tail`) is dropped and counted where the line takes
//! none. So a slow or stuck line costs that line only. Never shows more than the first four bytes of a link.
//!
//! ```text
//! bytes -> editor.rs -> command.rs -> answer.rs, list.rs -> out -> bytes
//!                            |
//!                         Request -> the shell
//! ```

mod answer;
mod brief;
mod command;
mod condition;
mod editor;
mod lines;
mod list;
mod out;
mod text;
#[cfg(test)]
mod transcripts;
mod view;

use std::collections::VecDeque;

pub use self::brief::brief;
pub use self::command::COMMANDS;
use self::command::Command;
pub use self::condition::{CODES, Condition, Health, conditions};
use self::editor::{Editor, LINE_SIZE_MAX as TYPED_SIZE_MAX, Spoiled, Typed};
pub use self::lines::{LINE_SIZE_MAX, LINES_MAX, Lines};
use self::list::{Kind, List, Next};
pub use self::out::OUT_SIZE_MAX;
use self::out::Out;
pub use self::view::{Process, Request, View};
use relay::time::Instant;

/// Keys that were typed while an answer was written.
const AHEAD_SIZE_MAX: usize = 256;
/// `watch` tells a line every so many milliseconds.
const WATCH_MS: u64 = 2_000;
/// And its columns' names again after so many lines.
const WATCH_LINES: u32 = 20;
/// `log tail` looks for new lines so often.
const TAIL_MS: u64 = 200;
const PROMPT: &str = "sharelinkd> ";
const CTRL_C: u8 = 0x03;

/// What is going on besides typing.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Prompt,
    Listing(List),
    Watch {
        next: Instant,
        since: Instant,
        deliveries: u64,
        lines: u32,
    },
    Tail {
        next: Instant,
        after: u64,
    },
    /// A request was handed out: its answer comes.
    Asked,
}

/// One engineer's console.
#[derive(Debug)]
pub struct Console {
    editor: Editor,
    mode: Mode,
    out: Out,
    ahead: VecDeque<u8>,
    request: Option<Request>,
    /// One line is answered, without echo and prompt; then it is over.
    is_once: bool,
    is_over: bool,
    leaves: bool,
    is_begun: bool,
    /// Whoever types has gone: it is over once everything is answered.
    has_ended: bool,
}

/// A connection whose first byte is this one is for a program: it asks one line and gets the answer alone.
pub const ONCE: u8 = b'@';

impl Console {
    /// A console. `leaves`: somebody can go from it (a socket, not a line).
    #[must_use]
    pub fn new(leaves: bool) -> Self {
        Self {
            editor: Editor::default(),
            mode: Mode::Prompt,
            out: Out::new(),
            ahead: VecDeque::new(),
            request: None,
            is_once: false,
            is_over: false,
            leaves,
            is_begun: false,
            has_ended: false,
        }
    }

    /// Says who speaks, and asks for a command. A socket waits with that for the first byte, or for [`Self::greet`].
    pub fn greet(&mut self, view: &View<'_>) {
        if !self.is_begun {
            self.is_begun = true;
            self.out.say("\n");
            self.out.say(&answer::banner(view));
            self.prompt();
        }
    }

    /// Bytes came.
    pub fn handle_input(&mut self, view: &View<'_>, mut bytes: &[u8]) {
        if !self.is_begun
            && self.leaves
            && let Some((&ONCE, rest)) = bytes.split_first()
        {
            (self.is_once, self.is_begun, bytes) = (true, true, rest);
            self.out.ends = "\n";
        }
        self.greet(view);
        for &byte in bytes {
            self.type_in(view, byte);
        }
        self.go_on(view);
    }

    /// Time passed: to be called when [`poll_timeout`](Self::poll_timeout) says so, or earlier.
    pub fn handle_timeout(&mut self, view: &View<'_>) {
        match self.mode {
            Mode::Watch { next, since, deliveries, lines } if next <= view.now => {
                if lines.is_multiple_of(WATCH_LINES) {
                    self.out.offer(&answer::watch_head(), 0);
                }
                self.out.offer(&answer::watch(view, deliveries, view.now.since(since)), 1);
                self.mode = Mode::Watch {
                    next: view.now.after(WATCH_MS),
                    since: view.now,
                    deliveries: view.relay.counters().deliveries.iter().sum(),
                    lines: lines + 1,
                };
            }
            Mode::Tail { next, mut after } if next <= view.now => {
                while let Some(line) = view.lines.after(after) {
                    // Those between are like it, or the ring had no room for them.
                    let between = line.number - after - 1;
                    let like_it = between.min(line.count - 1);
                    self.out.missed(between - like_it);
                    self.out.offer(&answer::log_line(line, like_it), 1 + like_it);
                    after = line.number;
                }
                self.mode = Mode::Tail { next: view.now.after(TAIL_MS), after };
            }
            _ => {}
        }
        self.go_on(view);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.mode {
            Mode::Watch { next, .. } | Mode::Tail { next, .. } => Some(next),
            // A table is being looked through.
            Mode::Listing(_) if self.out.has_room() => Some(Instant(0)),
            _ => None,
        }
    }

    /// Nothing more will be typed; what was asked for is still answered. What goes on by itself ends.
    pub fn handle_end(&mut self, view: &View<'_>) {
        self.has_ended = true;
        if self.is_once {
            // The line feed may be left away.
            self.type_in(view, b'\n');
        }
        if matches!(self.mode, Mode::Watch { .. } | Mode::Tail { .. }) {
            self.finish();
        }
        self.go_on(view);
    }

    /// What an engineer wants done; [`handle_answer`](Self::handle_answer) is owed.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// What came of a request.
    pub fn handle_answer(&mut self, view: &View<'_>, text: &str) {
        // All errors of a configuration may be more than there is room for.
        self.out.say_whole(text);
        self.finish();
        self.go_on(view);
    }

    /// What is to be written.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.out.waiting()
    }

    /// So many bytes of it were.
    pub fn wrote(&mut self, view: &View<'_>, size: usize) {
        self.out.wrote(size);
        self.go_on(view);
    }

    /// Whether somebody can go from it: a socket, not a line.
    #[must_use]
    pub const fn may_leave(&self) -> bool {
        self.leaves
    }

    /// Whether nothing more comes, once everything was written.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// A key: taken now, or behind those that wait. Ctrl-C doesn't wait, and takes the others' place.
    fn type_in(&mut self, view: &View<'_>, byte: u8) {
        if byte == CTRL_C {
            self.ahead.clear();
        }
        if self.ahead.is_empty() {
            self.take(view, byte);
        } else if self.ahead.len() < AHEAD_SIZE_MAX {
            self.ahead.push_back(byte);
        }
        self.go_on(view);
    }

    fn take(&mut self, view: &View<'_>, byte: u8) {
        match self.mode {
            _ if self.is_over => {}
            // An answer is carried out where there is room for it: what is typed waits until then.
            Mode::Prompt if self.out.has_room() => {
                let mut echo = Vec::new();
                let typed = self.editor.take(byte, &mut echo);
                if !self.is_once {
                    self.out.put(&echo);
                }
                match typed {
                    Typed::Nothing => {}
                    Typed::GivenUp => self.finish(),
                    Typed::Leave => self.leave(),
                    Typed::Line(line) => self.carry_out(view, &line),
                    Typed::Spoiled(why) => {
                        self.out.say(&match why {
                            Spoiled::TooLong => {
                                format!("[E9] a line has at most {TYPED_SIZE_MAX} bytes: nothing was done\n")
                            }
                            Spoiled::Noise => "[E9] noise came into that line: nothing was done\n".to_owned(),
                        });
                        self.finish();
                    }
                }
            }
            // A key ends what would never end by itself; Ctrl-C ends what may be long.
            Mode::Watch { .. } | Mode::Tail { .. } => {
                self.out.tell_dropped();
                self.finish();
            }
            Mode::Listing(_) if byte == CTRL_C => {
                self.out.say("^C\n");
                self.finish();
            }
            Mode::Prompt | Mode::Listing(_) | Mode::Asked => self.ahead.push_front(byte),
        }
    }

    fn carry_out(&mut self, view: &View<'_>, line: &str) {
        let command = match command::parse(line, view.config.console.control) {
            Ok(Some(command)) => command,
            Ok(None) => return self.finish(),
            Err(told) => {
                self.out.say(&told);
                self.out.say("\n");
                return self.finish();
            }
        };
        let text = match command {
            Command::Help(about) => command::help(about, view.config.console.control),
            Command::Status => answer::status(view),
            Command::StatusJson => {
                // A program reads it: it is not cut.
                self.out.put(answer::json(view).as_bytes());
                return self.finish();
            }
            Command::Pages => list::pages(view),
            Command::PagesAll => return self.list(Kind::Pages),
            Command::PagesSlow => return self.list(Kind::SlowPages),
            Command::Page(row) => told(list::page(view, row)),
            Command::Topics => return self.list(Kind::Topics),
            Command::Topic(number) => told(list::topic(view, number)),
            Command::Uplink => answer::uplink(view),
            Command::Memory => answer::memory(view),
            Command::Limits => answer::limits(view),
            Command::Counters => answer::counters(view),
            Command::Events => return self.list(Kind::Events),
            Command::Log => answer::log_level(view),
            Command::Version => answer::version(view),
            Command::LogLevel(level) => return self.ask(Request::LogLevel(level)),
            Command::LogTail if !self.is_once => {
                self.mode = Mode::Tail { next: view.now, after: view.lines.newest() };
                return self.out.say("each line as it comes, until a key\n");
            }
            Command::Watch if !self.is_once => {
                let deliveries = view.relay.counters().deliveries.iter().sum();
                self.mode = Mode::Watch { next: view.now, since: view.now, deliveries, lines: 0 };
                return;
            }
            Command::LogTail | Command::Watch => "[E5] that goes on until a key: not from a program\n".to_owned(),
            Command::Close(row) => match list::find(view, row) {
                Ok(page) => return self.ask(Request::Close(page.id)),
                Err(told) => format!("{told}\n"),
            },
            Command::End(number) => return self.ask(Request::End(number)),
            Command::Drain => return self.ask(Request::Drain),
            Command::Reload => return self.ask(Request::Reload),
            Command::Quit => return self.leave(),
        };
        self.out.say(&text);
        self.finish();
    }

    fn ask(&mut self, request: Request) {
        self.request = Some(request);
        self.mode = Mode::Asked;
    }

    fn list(&mut self, kind: Kind) {
        self.mode = Mode::Listing(List::new(kind));
    }

    /// Goes on with what waits for room, and with what was typed meanwhile.
    fn go_on(&mut self, view: &View<'_>) {
        while self.out.has_room() && !self.is_over {
            match self.mode {
                Mode::Listing(mut list) => {
                    let next = list.next(view);
                    self.mode = Mode::Listing(list);
                    match next {
                        Next::Line(line) => self.out.say(&line),
                        // The relay has other things to do; `poll_timeout` brings it back.
                        Next::Looking => return,
                        Next::Done => {
                            self.out.say(&list.foot());
                            self.finish();
                        }
                    }
                }
                Mode::Prompt => match self.ahead.pop_front() {
                    Some(byte) => self.take(view, byte),
                    None => return self.is_over |= self.has_ended,
                },
                // What was typed behind `watch` ends it as any key does.
                Mode::Watch { .. } | Mode::Tail { .. } => match self.ahead.pop_front() {
                    Some(byte) => self.take(view, byte),
                    None if self.has_ended => self.finish(),
                    None => return,
                },
                Mode::Asked => return,
            }
        }
    }

    /// The answer is whole.
    fn finish(&mut self) {
        self.mode = Mode::Prompt;
        if self.is_once {
            self.is_over = true;
        } else {
            self.prompt();
        }
    }

    fn leave(&mut self) {
        self.out.say("\n");
        if self.leaves {
            self.is_over = true;
        } else {
            self.prompt();
        }
    }

    fn prompt(&mut self) {
        self.out.put(PROMPT.as_bytes());
    }
}

fn told(answer: Result<String, String>) -> String {
    answer.unwrap_or_else(|told| format!("{told}\n"))
}
