//! The console in front of a machine in some state: keys arrive in pieces of any size, the line
//! takes any number of bytes, time passes, requests get any answer.
//!
//! In every case: the buffer's bound, plain ASCII, nothing wider than a screen, only the beginning
//! of a link, a prompt after Ctrl-C, and the same output however the input is split. A program gets
//! no echo, no prompt, and an end.

use board::TINY;
use log::{Level, LevelFilter};
use relay::time::Instant;
use sharelinkd::certificate::{Served, Summary};
use sharelinkd::config::{Config, Surroundings};
use sharelinkd::console::{
    Console, Lines, ONCE, OUT_SIZE_MAX, PagesTls, Process, Request, TlsCounts, UplinkNotes, View,
};

use super::machine::{Script, World};

const PROMPT: &str = "sharelinkd> ";
/// A screen's columns.
const COLUMNS: usize = 80;
/// A key that every link has as its fifth byte, and that the console never prints on its own.
const SECRET: u8 = b'~';
const CTRL_C: u8 = 0x03;
/// Maximum operations: more make a run slow and find nothing else.
const OPERATIONS_MAX: usize = 400;

/// What the console reads besides the machine.
struct Around {
    world: World,
    config: Config,
    lines: Lines,
    now: Instant,
    process: Process,
    served: Vec<Served>,
}

/// One operation on the console, decoded before it runs, so that it can run twice.
enum Operation {
    Type(Vec<u8>),
    Take(usize),
    Pass(u64),
    Log(Level, String),
    Answer(String),
}

/// A session at the console.
pub fn console(data: &[u8]) {
    let mut script = Script(data);
    let flags = script.below(255);
    let (is_socket, may_control, is_once) = (flags & 1 != 0, flags & 2 != 0, flags & 5 == 5);
    let size = usize::from(script.below(255));
    let operations_of_machine = script.bytes(size);
    let mut operations: Vec<Operation> = Vec::new();
    while operations.len() < OPERATIONS_MAX {
        let Some(operation) = script.byte() else { break };
        operations.push(read(operation, &mut script));
    }
    let begin = || Around {
        world: World::run(&operations_of_machine),
        config: config(may_control),
        lines: Lines::default(),
        now: Instant(1_000_000),
        process: Process {
            resident_size: u64::from(flags) << 15,
            resident_size_highest: 1 << 24,
            descriptors_max: flags.into(),
        },
        served: served(),
    };
    let whole = Session::play(begin(), &operations, is_socket, is_once, usize::MAX);
    let cut = Session::play(begin(), &operations, is_socket, is_once, 1);
    assert_eq!(text(&whole.said), text(&cut.said), "the output depends on how the keys are split");
    assert!(is_once || data.contains(&SECRET) || !whole.said.contains(&SECRET), "a link: {}", text(&whole.said));
}

fn read(operation: u8, script: &mut Script<'_>) -> Operation {
    // Whole commands, since random bytes rarely make one.
    const COMMANDS: [&str; 24] = [
        "help\r",
        "status\r",
        "json\r",
        "pages\r",
        "pages all\r",
        "pages slow\n",
        "pages #1\r\n",
        "topics\r",
        "topics 1\r",
        "uplink\r",
        "memory\r",
        "limits\r",
        "counters\r",
        "events\r",
        "log\r",
        "log tail\r",
        "log debug\r",
        "watch\r",
        "version\r",
        "close #1\r",
        "end 1\r",
        "drain\r",
        "reload\r",
        "quit\r",
    ];
    match operation % 8 {
        // Apart from the others, whose numbers are in the corpus.
        0 | 1 if operation >= 248 => Operation::Type(b"tls\r".to_vec()),
        0 | 1 => Operation::Type(COMMANDS[usize::from(script.below(24))].as_bytes().to_vec()),
        2 => {
            let size = usize::from(script.below(100));
            Operation::Type(script.bytes(size))
        }
        3 => Operation::Take(usize::from(script.below(255)) * 40),
        4 => Operation::Take(usize::MAX),
        5 => Operation::Pass(u64::from(script.below(255)) * 50),
        6 => {
            let size = usize::from(script.below(255));
            let level = [Level::Error, Level::Warn, Level::Info, Level::Debug][size % 4];
            let text = String::from_utf8_lossy(&script.bytes(size % 8)).repeat(1 + size);
            Operation::Log(level, text)
        }
        _ => {
            let size = usize::from(script.below(255));
            let line = String::from_utf8_lossy(&script.bytes(size % 16)).replace(|c| !matches!(c, ' '..='~'), "?");
            Operation::Answer(format!("{line}\n").repeat(1 + size))
        }
    }
}

fn config(may_control: bool) -> Config {
    let text = format!(
        "[uplink]\naddresses = [\"127.0.0.1:7400\", \"unix:/run/business.sock\"]\nname = \"gate é\"\n[console]\ncontrol = {may_control}\n"
    );
    let around = Surroundings { read_secret: &|_| Ok(Vec::new()), ..Surroundings::without_files("box") };
    Config::parse(&text, &TINY, &around).expect("a configuration that is good")
}

/// A certificate with many kinds of names, and files that can't be used.
fn served() -> Vec<Served> {
    let odd = include_bytes!("../../crates/tls/testdata/odd.der");
    let trouble = Some("key_file /k does not match certificate_file /é".to_owned());
    vec![Served { file: "/etc/é.pem".into(), summary: Summary::of([&odd[..]].into_iter()).ok(), trouble }]
}

/// A console and its output.
struct Session {
    console: Console,
    around: Around,
    said: Vec<u8>,
    /// A request waits for its answer.
    is_asked: bool,
}

impl Session {
    /// Runs the operations, with keys in pieces of this size, and then asks for a prompt.
    fn play(around: Around, operations: &[Operation], is_socket: bool, is_once: bool, piece: usize) -> Self {
        let mut session = Self { console: Console::new(is_socket), around, said: Vec::new(), is_asked: false };
        if is_once {
            session.press(&[ONCE], piece);
        } else {
            session.look(|console, view| console.greet(view));
        }
        for operation in operations {
            match operation {
                Operation::Type(keys) => session.press(keys, piece),
                Operation::Take(size) => session.take(*size),
                Operation::Pass(ms) => {
                    session.around.now = session.around.now.after(*ms);
                    session.look(|console, view| console.handle_timeout(view));
                }
                Operation::Log(level, line) => {
                    let now = session.around.now;
                    session.around.lines.add(now, *level, format_args!("{line}"));
                }
                Operation::Answer(answer) => session.answer(answer),
            }
        }
        session.end(is_once, piece);
        session
    }

    fn look(&mut self, tell: impl FnOnce(&mut Console, &View<'_>)) {
        let around = &self.around;
        let view = View {
            relay: &around.world.relay,
            now: around.now,
            config: &around.config,
            built: &TINY,
            listening: &around.config.pages.listen,
            lines: &around.lines,
            log_level: LevelFilter::Info,
            unwritten: around.process.descriptors_max / 100,
            uplink: &UplinkNotes {
                unresolved: vec![("b.example:7400".into(), "no answer".into())],
                ..UplinkNotes::default()
            },
            tls_unserved: &around.config.pages.listen,
            tls: Some(PagesTls {
                listening: &around.config.pages.listen,
                certificates: &around.served,
                counts: TlsCounts::default(),
                now_s: Some(around.process.descriptors_max.try_into().unwrap_or(0)),
                is_slow: true,
            }),
            process: &|| around.process,
        };
        tell(&mut self.console, &view);
        if let Some(request) = self.console.poll_request() {
            let may = around.config.console.control || matches!(request, Request::LogLevel(_));
            assert!(may && !self.is_asked, "{request:?}");
            self.is_asked = true;
        }
        assert!(self.console.transmit().len() <= OUT_SIZE_MAX, "{} bytes wait", self.console.transmit().len());
    }

    fn press(&mut self, keys: &[u8], piece: usize) {
        for keys in keys.chunks(piece) {
            self.look(|console, view| console.handle_input(view, keys));
        }
    }

    fn take(&mut self, size: usize) {
        let size = size.min(self.console.transmit().len());
        self.said.extend_from_slice(&self.console.transmit()[..size]);
        self.look(|console, view| console.wrote(view, size));
    }

    fn answer(&mut self, text: &str) {
        if std::mem::take(&mut self.is_asked) {
            self.look(|console, view| console.handle_answer(view, text));
        }
    }

    /// After any input: a prompt on Ctrl-C; for a program, or after the input's end, an end.
    fn end(&mut self, is_once: bool, piece: usize) {
        self.press(if is_once { b"\r" } else { &[CTRL_C] }, piece);
        // A list of everything takes fewer turns than this.
        for _ in 0..100 {
            self.take(usize::MAX);
            self.answer("done\n");
            self.around.now = self.around.now.after(1_000);
            self.look(|console, view| console.handle_timeout(view));
        }
        let said = text(&self.said);
        assert!(self.console.transmit().is_empty(), "the output never ends: {said}");
        if is_once {
            assert!(self.console.is_over() && !said.contains(PROMPT), "no end, or a prompt for a program: {said}");
        } else {
            assert!(self.console.is_over() || said.ends_with(PROMPT), "no prompt: {said}");
        }
        // When the input has ended, the console ends, whatever it was doing.
        self.press(b"log tail\r", piece);
        self.look(Console::handle_end);
        self.take(usize::MAX);
        assert!(self.console.is_over(), "it goes on after the end of its input");
        self.check_screen(is_once);
    }

    /// What a screen of 80 columns would show.
    fn check_screen(&self, is_once: bool) {
        let (mut column, mut is_json) = (0_usize, false);
        for (at, byte) in self.said.iter().enumerate() {
            let said = || text(&self.said[at.saturating_sub(200)..=at]);
            match byte {
                b'\n' => (column, is_json) = (0, false),
                b'\r' if !is_once => column = 0,
                0x08 if !is_once => column = column.checked_sub(1).expect("a backspace at the start of a line"),
                b' '..=b'~' => {
                    // One line of JSON is for scripts.
                    is_json |= column == 0 && *byte == b'{';
                    column += 1;
                    assert!(is_json || column <= COLUMNS, "wider than a screen: {}", said());
                }
                _ => panic!("{byte:#04x} is not safe on every serial line: {}", said()),
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
