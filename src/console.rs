//! The console: an engineer's commands over a serial line or the Unix socket, and the answers.
//!
//! Pure: bytes in, bytes out. Reads the machine through a [`View`], and returns a [`Request`] for
//! anything that must be *done*. Owns echo and line editing, the commands, and the texts of all
//! answers: fixed columns, at most 79 wide, plain ASCII, no escape codes. Output waits in a buffer
//! of 8 KiB. A long answer is produced row by row as the line takes it. Output that comes by itself
//! (`watch`, `log tail`) is dropped and counted while the line is blocked. So a slow or stuck line
//! affects nobody else. Never shows more than the first four bytes of a link.
//!
//! ```text
//! bytes -> editor.rs -> command.rs -> reply.rs, list.rs -> out -> bytes
//!                            |
//!                         Request -> the shell
//! ```

mod brief;
mod command;
mod condition;
mod editor;
mod lines;
mod list;
mod out;
mod reply;
mod text;
mod tls;
#[cfg(test)]
mod transcripts;
mod view;

use std::collections::VecDeque;

pub use self::brief::brief;
pub use self::command::COMMANDS;
use self::command::Command;
pub use self::condition::{CODES, Condition, Health, TLS_UNSERVED, conditions};
use self::editor::{Editor, LINE_SIZE_MAX as TYPED_SIZE_MAX, Spoiled, Typed};
pub use self::lines::{LINE_SIZE_MAX, LINES_MAX, Lines};
use self::list::{Kind, List, Next};
pub use self::out::OUT_SIZE_MAX;
use self::out::Out;
pub use self::view::{PagesTls, Process, Request, TlsCounts, TlsNotes, UplinkNotes, View};
use relay::time::Instant;

/// Bytes typed ahead of an unfinished answer that are kept; the rest is dropped.
const AHEAD_SIZE_MAX: usize = 256;
/// Interval of `watch`, in milliseconds.
const WATCH_MS: u64 = 2_000;
/// Lines of `watch` after which its header is repeated.
const WATCH_LINES: u32 = 20;
/// Interval at which `log tail` looks for new lines, in milliseconds.
const TAIL_MS: u64 = 200;
const PROMPT: &str = "sharelinkd> ";
const CTRL_C: u8 = 0x03;

/// What the console is doing.
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
    /// A request was handed out, and its answer is awaited.
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
    /// Answers one command without echo and prompt, and is over then.
    is_once: bool,
    is_over: bool,
    leaves: bool,
    is_begun: bool,
    /// The input has ended: over once everything is answered.
    has_ended: bool,
}

/// First byte of a connection by a program: one command follows, and only its answer is returned.
pub const ONCE: u8 = b'@';

impl Console {
    /// A console. `leaves`: `quit` ends it (a socket); a serial line gets a new prompt instead.
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

    /// Writes the banner and a prompt. On a socket this happens at the first byte, or when the
    /// shell calls it.
    pub fn greet(&mut self, view: &View<'_>) {
        if !self.is_begun {
            self.is_begun = true;
            self.out.say("\n");
            self.out.say(&reply::banner(view));
            self.prompt();
        }
    }

    /// Handles input.
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

    /// Handles the passing of time: call it when [`poll_timeout`](Self::poll_timeout) is due, or
    /// earlier.
    pub fn handle_timeout(&mut self, view: &View<'_>) {
        match self.mode {
            Mode::Watch { next, since, deliveries, lines } if next <= view.now => {
                if lines.is_multiple_of(WATCH_LINES) {
                    self.out.offer(&reply::watch_head(), 0);
                }
                self.out.offer(&reply::watch(view, deliveries, view.now.since(since)), 1);
                self.mode = Mode::Watch {
                    next: view.now.after(WATCH_MS),
                    since: view.now,
                    deliveries: view.relay.counters().deliveries.iter().sum(),
                    lines: lines + 1,
                };
            }
            Mode::Tail { next, mut after } if next <= view.now => {
                while let Some(line) = view.lines.after(after) {
                    // The numbers between belong to repeats of this line, or to lines that the ring
                    // has lost.
                    let between = line.number - after - 1;
                    let like_it = between.min(line.count - 1);
                    self.out.missed(between - like_it);
                    self.out.offer(&reply::log_line(line, like_it), 1 + like_it);
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
            // A list is being searched: call again at once.
            Mode::Listing(_) if self.out.has_room() => Some(Instant(0)),
            _ => None,
        }
    }

    /// Handles the end of input. Commands before it are still answered; `watch` and `log tail` end.
    pub fn handle_end(&mut self, view: &View<'_>) {
        self.has_ended = true;
        if self.is_once {
            // The last line's LF is optional.
            self.type_in(view, b'\n');
        }
        if matches!(self.mode, Mode::Watch { .. } | Mode::Tail { .. }) {
            self.finish();
        }
        self.go_on(view);
    }

    /// A request to carry out; [`handle_answer`](Self::handle_answer) must follow.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// Handles the answer to a request.
    pub fn handle_answer(&mut self, view: &View<'_>, text: &str) {
        // The errors of a configuration may not all fit.
        self.out.say_whole(text);
        self.finish();
        self.go_on(view);
    }

    /// Output to write.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.out.waiting()
    }

    /// Reports that `size` bytes of the output were written.
    pub fn wrote(&mut self, view: &View<'_>, size: usize) {
        self.out.wrote(size);
        self.go_on(view);
    }

    /// Whether `quit` ends it: a socket, not a serial line.
    #[must_use]
    pub const fn may_leave(&self) -> bool {
        self.leaves
    }

    /// Whether it ends once its output is written.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes a byte now, or queues it behind those that wait. Ctrl-C discards the queue and is
    /// taken at once.
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
            // A command runs only when there is room for its answer; input waits until then.
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
                            Spoiled::Noise => "[E9] noise in that line: nothing was done\n".to_owned(),
                        });
                        self.finish();
                    }
                }
            }
            // Any key ends what never ends by itself; only Ctrl-C ends a list.
            Mode::Watch { .. } | Mode::Tail { .. } => {
                self.out.report_dropped();
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
            Err(error) => {
                self.out.say(&error);
                self.out.say("\n");
                return self.finish();
            }
        };
        let text = match command {
            Command::Help(about) => command::help(about, view.config.console.control),
            Command::Status => reply::status(view),
            Command::StatusJson => {
                // A program parses it, so it is not cut.
                self.out.put(reply::json(view).as_bytes());
                return self.finish();
            }
            Command::Pages => list::pages(view),
            Command::PagesAll => return self.list(Kind::Pages),
            Command::PagesSlow => return self.list(Kind::SlowPages),
            Command::Page(row) => text_of(list::page(view, row)),
            Command::Topics => return self.list(Kind::Topics),
            Command::Topic(number) => text_of(list::topic(view, number)),
            Command::Uplink => reply::uplink(view),
            Command::Tls => return self.list(Kind::Certificates),
            Command::Memory => reply::memory(view),
            Command::Limits => reply::limits(view),
            Command::Counters => reply::counters(view),
            Command::Events => return self.list(Kind::Events),
            Command::Log => reply::log_level(view),
            Command::Version => reply::version(view),
            Command::LogLevel(level) => return self.ask(Request::LogLevel(level)),
            Command::LogTail if !self.is_once => {
                self.mode = Mode::Tail { next: view.now, after: view.lines.newest() };
                return self.out.say("following the log: any key stops it\n");
            }
            Command::Watch if !self.is_once => {
                let deliveries = view.relay.counters().deliveries.iter().sum();
                self.mode = Mode::Watch { next: view.now, since: view.now, deliveries, lines: 0 };
                return;
            }
            Command::LogTail | Command::Watch => {
                "[E5] this runs until a key is pressed: not available to a program\n".to_owned()
            }
            Command::Close(row) => match list::find(view, row) {
                Ok(page) => return self.ask(Request::Close(page.id)),
                Err(error) => format!("{error}\n"),
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

    /// Continues a list as far as there is room, and then takes the queued input.
    fn go_on(&mut self, view: &View<'_>) {
        while self.out.has_room() && !self.is_over {
            match self.mode {
                Mode::Listing(mut list) => {
                    let next = list.next(view);
                    self.mode = Mode::Listing(list);
                    match next {
                        Next::Line(line) => self.out.say(&line),
                        // Yields to the relay; `poll_timeout` asks for the next call.
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
                // Input typed ahead ends `watch` as any key does.
                Mode::Watch { .. } | Mode::Tail { .. } => match self.ahead.pop_front() {
                    Some(byte) => self.take(view, byte),
                    None if self.has_ended => self.finish(),
                    None => return,
                },
                Mode::Asked => return,
            }
        }
    }

    /// Ends an answer.
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

fn text_of(answer: Result<String, String>) -> String {
    answer.unwrap_or_else(|error| format!("{error}\n"))
}
