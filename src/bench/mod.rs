//! `sharelinkd bench`: a load generator, since operators must size their boxes.
//!
//! It starts a relay as a child process, is its business server and its pages over the real protocols on
//! loopback, and reports what the relay took for it. With `--ceiling` it runs, in turn and on the same
//! cores, the least that any relay could do (`ceiling.rs`): ratios to it don't depend on the machine.
//! One thread, one epoll loop; the measured process has a core of its own where there are two.

mod business;
mod ceiling;
mod clock;
mod histogram;
mod load;
mod report;
mod target;

use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use business::{Business, LINK};
pub use ceiling::run as run_ceiling;
use load::{Load, WINDOW_MAX};
use target::{Cpu, Target};

use crate::wire::Track;
use crate::wire::uplink::Part;

/// Digits of a sequence in the ceiling's frame.
const SEQUENCE_DIGITS: usize = 12;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a run warms up.
const WARM_UP: Duration = Duration::from_millis(500);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// So many publications under way, as fast as they reach every page.
    Flat,
    /// So many publications a second.
    Rate,
    /// Pages that are subscribed and get nothing.
    Idle,
    /// Pages that arrive as fast as they can.
    Arrivals,
    /// One page in a hundred reads nothing.
    Stalled,
    /// A stream of 1.2 Mbit/s to every page.
    Media,
}

impl Mode {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 6] = [
        ("flat", Self::Flat),
        ("rate", Self::Rate),
        ("idle", Self::Idle),
        ("arrivals", Self::Arrivals),
        ("stalled", Self::Stalled),
        ("media", Self::Media),
    ];
}

/// How it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What.
    pub mode: Mode,
    /// Pages.
    pub pages: usize,
    /// Publications under way.
    pub under_way: usize,
    /// Bytes of a publication's frame.
    pub size: usize,
    /// Seconds of a run.
    pub seconds: u64,
    /// Publications a second.
    pub rate: u64,
    /// Runs, of which the median is reported.
    pub runs: usize,
    /// Measure the ceiling too.
    pub ceiling: bool,
    /// Report as JSON.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Flat,
            pages: 1_000,
            under_way: 1,
            size: 200,
            seconds: 5,
            rate: 100,
            runs: 1,
            ceiling: false,
            json: false,
        }
    }
}

/// What one run found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub seconds: f64,
    pub deliveries: u64,
    pub bytes: u64,
    pub lost: u64,
    pub gaps: u64,
    pub cpu: Cpu,
    pub load_cpu: Cpu,
    pub arrivals: u64,
    pub latency: [u64; 4],
    pub memory_before: u64,
    pub memory_after: u64,
}

/// Runs the bench and prints what it found.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    raise_descriptor_limit();
    target::pin(None, 1);
    let mut relay = Vec::new();
    let mut ceiling = Vec::new();
    for _ in 0..options.runs {
        match measure_relay(options) {
            Ok(figures) => relay.push(figures),
            Err(error) => return fail(&error),
        }
        if options.ceiling {
            match measure_ceiling(options) {
                Ok(figures) => ceiling.push(figures),
                Err(error) => return fail(&error),
            }
        }
    }
    print!("{}", report::render(options, &relay, &ceiling));
    let untold: u64 = relay.iter().map(|figures| figures.lost).sum();
    if untold > 0 { fail(&format!("{untold} messages were lost and not told")) } else { ExitCode::SUCCESS }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("sharelinkd bench: {error}");
    ExitCode::FAILURE
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Something that can be published to, whoever it is.
trait Publisher {
    fn publish(&mut self, sequence: u64);
    fn flush(&mut self) -> Result<(), String>;
    fn attend(&mut self) -> Result<(), String>;
}

struct Relayed {
    business: Business,
    data: Vec<u8>,
    track: Track,
}

impl Publisher for Relayed {
    fn publish(&mut self, sequence: u64) {
        let part = match self.track {
            Track::State | Track::Messages => Part::Whole,
            // A group a second, a chunk each quarter.
            Track::Audio | Track::Video if sequence % 4 == 2 => Part::Start,
            Track::Audio | Track::Video if sequence == 1 => Part::Init { mime: "video/webm" },
            Track::Audio | Track::Video => Part::Continue,
        };
        self.business.publish(self.track, sequence, part, &self.data);
    }

    fn flush(&mut self) -> Result<(), String> {
        self.business.flush()
    }

    fn attend(&mut self) -> Result<(), String> {
        self.business.answer()
    }
}

/// The ceiling's control connection: a byte for each publication.
struct Bare(TcpStream, Vec<u8>);

impl Publisher for Bare {
    fn publish(&mut self, _: u64) {
        self.1.push(0);
    }

    fn flush(&mut self) -> Result<(), String> {
        use std::io::Write;
        self.0.write_all(&self.1).map_err(|error| format!("ceiling: {error}"))?;
        self.1.clear();
        Ok(())
    }

    fn attend(&mut self) -> Result<(), String> {
        Ok(())
    }
}

fn measure_relay(options: Options) -> Result<Figures, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let relay = Target::relay(address, Some(0))?;
    let business = Business::meet(&listener)?;
    let track = if options.mode == Mode::Media { Track::Video } else { Track::Messages };
    // 1.2 Mbit/s in four chunks a second.
    let data = if options.mode == Mode::Media { vec![0x5a; 37_500] } else { message(options.size) };
    let mut publisher = Relayed { business, data, track };
    let mut load = Load::new()?;
    if matches!(options.mode, Mode::Idle | Mode::Arrivals) {
        // What the first page alone costs is the program's.
        arrive(&mut load, &mut publisher, &relay, 1)?;
    }
    let (memory_before, cpu_before, start) = (relay.memory(), relay.cpu(), clock::now());
    arrive(&mut load, &mut publisher, &relay, options.pages)?;
    let arrived = Figures {
        seconds: start.elapsed().as_secs_f64(),
        arrivals: options.pages as u64,
        cpu: relay.cpu().since(cpu_before),
        memory_before,
        ..Figures::default()
    };
    match options.mode {
        Mode::Arrivals | Mode::Idle => {
            std::thread::sleep(Duration::from_millis(500));
            Ok(Figures { memory_after: relay.memory(), ..arrived })
        }
        Mode::Stalled => {
            for page in (0..options.pages).step_by(100) {
                load.stall(page);
            }
            drive(&mut load, &mut publisher, &relay, options)
        }
        Mode::Flat | Mode::Rate | Mode::Media => drive(&mut load, &mut publisher, &relay, options),
    }
}

fn measure_ceiling(options: Options) -> Result<Figures, String> {
    use std::io::Write;
    let ceiling = Target::ceiling(options.pages, Some(0))?;
    let mut load = Load::new()?;
    for _ in 0..options.pages {
        load.connect(ceiling.address, None)?;
    }
    let mut control = TcpStream::connect(ceiling.address).map_err(|error| error.to_string())?;
    let _ = control.set_nodelay(true);
    let data = message(options.size);
    let head = r#"{"type":"message","topic":1,"sequence":"#;
    let digits = "0".repeat(SEQUENCE_DIGITS);
    let text = format!("{head}{digits},\"data\":{}}}", String::from_utf8_lossy(&data));
    let mut frame = match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(size @ 0..=125), _) => vec![0x81, size],
        (_, Ok(size)) => [vec![0x81, 126], size.to_be_bytes().to_vec()].concat(),
        _ => [vec![0x81, 127], (text.len() as u64).to_be_bytes().to_vec()].concat(),
    };
    let digits_at = frame.len() + head.len();
    frame.extend_from_slice(text.as_bytes());
    let number = |size: usize| u32::try_from(size).unwrap_or_default().to_le_bytes();
    let orders = [&number(frame.len())[..], &frame, &number(digits_at)].concat();
    control.write_all(&orders).map_err(|error| error.to_string())?;
    drive(&mut load, &mut Bare(control, Vec::new()), &ceiling, options)
}

/// A message whose frame has about so many bytes.
fn message(size: usize) -> Vec<u8> {
    let text = "x".repeat(size.saturating_sub(75));
    format!(r#"{{"from":"bench","text":"{text}"}}"#).into_bytes()
}

/// Connects pages and waits until each is subscribed.
fn arrive(load: &mut Load, publisher: &mut Relayed, relay: &Target, pages: usize) -> Result<(), String> {
    let before = load.seen.notices;
    let wanted = before + pages as u64;
    let end = clock::now() + PATIENCE;
    for count in 0..pages {
        load.connect(relay.address, Some(LINK))?;
        if count % 64 == 63 {
            load.turn(Duration::ZERO)?;
            publisher.attend()?;
        }
    }
    while load.seen.notices < wanted {
        if clock::now() > end {
            return Err(format!("only {} of {pages} pages were subscribed in 30 s", load.seen.notices - before));
        }
        publisher.attend()?;
        load.turn(Duration::from_millis(5))?;
    }
    Ok(())
}

/// Publishes and reads for the time of a run.
fn drive(load: &mut Load, publisher: &mut dyn Publisher, target: &Target, options: Options) -> Result<Figures, String> {
    let every = match options.mode {
        Mode::Rate => Some(Duration::from_secs(1) / u32::try_from(options.rate.max(1)).unwrap_or(u32::MAX)),
        Mode::Media => Some(Duration::from_millis(250)),
        _ => None,
    };
    let window = options.under_way.min(WINDOW_MAX) as u64;
    let readers = load.readers();
    let (mut sent, mut done) = (0, 0);
    let warm = clock::now() + WARM_UP;
    let mut figures = Figures::default();
    let mut begun = None;
    let mut due = clock::now();
    loop {
        let now = clock::now();
        if begun.is_none() && now >= warm {
            let seen = std::mem::take(&mut load.seen.latency);
            drop(seen);
            figures.memory_before = target.memory();
            begun = Some((now, target.cpu(), target::cpu(std::process::id()), load.seen.deliveries, load.seen.bytes));
        }
        let is_over = begun.is_some_and(|(start, ..)| now >= start + Duration::from_secs(options.seconds));
        if is_over && (done == sent || now >= warm + Duration::from_secs(options.seconds) + PATIENCE) {
            break;
        }
        let mut published = false;
        while !is_over && sent - done < WINDOW_MAX as u64 / 2 {
            match every {
                None if sent - done >= window => break,
                Some(every) if now >= due => due += every,
                Some(_) => break,
                None => {}
            }
            sent += 1;
            load.seen.send(sent);
            publisher.publish(sent);
            published = true;
        }
        if published {
            publisher.flush()?;
        }
        publisher.attend()?;
        load.turn(Duration::from_micros(500))?;
        // An init segment is repeated to late pages and not counted: the first media publication is done at once.
        while done < sent && (load.seen.reached(done + 1) >= readers || (options.mode == Mode::Media && done == 0)) {
            done += 1;
        }
    }
    let (start, cpu, own, deliveries, bytes) = begun.ok_or("the run did not begin")?;
    if done < sent {
        return Err(format!(
            "publication {} reached only {} of {readers} pages",
            done + 1,
            load.seen.reached(done + 1)
        ));
    }
    let latency = &load.seen.latency;
    Ok(Figures {
        seconds: start.elapsed().as_secs_f64(),
        deliveries: load.seen.deliveries - deliveries,
        bytes: load.seen.bytes - bytes,
        lost: load.seen.lost,
        gaps: load.seen.gaps,
        cpu: target.cpu().since(cpu),
        load_cpu: target::cpu(std::process::id()).since(own),
        latency: [latency.share_us(0.5), latency.share_us(0.99), latency.share_us(0.999), latency.max_us()],
        memory_after: target.memory(),
        ..figures
    })
}
