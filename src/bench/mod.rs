//! `sharelinkd bench`: a load generator, for operators who must size their machines.
//!
//! Starts a relay as a child process, acts as its business server and its pages over the real
//! protocols on loopback, and reports the relay's cost. With `--ceiling` it alternates, on the same
//! cores, with the minimum that any relay must do (`ceiling.rs`): ratios to it hardly depend on the
//! machine. With `--tls` pages connect by TLS, and the other may be a relay without it. One thread,
//! one epoll loop. If there are two cores, the measured process has its own.

mod ceiling;
mod clock;
mod flood;
mod histogram;
mod load;
mod options;
mod probe;
mod report;
mod source;
mod target;
pub mod tls;
mod uplink;

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub use ceiling::run as run_ceiling;
use flood::Flood;
pub use load::header;
use load::{Load, WINDOW_MAX};
pub use options::{Against, Attached, Mode, Options};
use probe::Probe;
use target::Target;
pub use target::{Cpu, cpu, queued, resident};
use tls::Client;
pub use tls::Suites;
use uplink::{LINK, Uplink};

use crate::authority::{Authority, Files};
use wire::Track;
use wire::uplink::Part;

/// The size of a media chunk, in bytes: four per second are 1.2 Mbit/s.
const MEDIA_SIZE: usize = 37_500;
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes; more than the message ring of a topic holds on any board.
const RING_SIZE: u64 = 512 * 1024;
/// The most pages that connect before arrivals are measured.
const FIRST_MAX: usize = 256;
/// The warm-up before each run.
const WARM_UP: Duration = Duration::from_millis(500);

/// The results of one run.
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
    pub handshakes_per_s: f64,
    pub latency: [u64; 4],
    pub memory_before: u64,
    pub memory_after: u64,
    pub kernel_before: Option<u64>,
    pub kernel_after: Option<u64>,
}

/// Runs the bench and prints its report.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => fail(&format!("{lost} messages were lost without a gap notice")),
        Err(error) => fail(&error),
    }
}

/// Measures and reports. Returns how many messages were lost without a gap notice.
fn measure(options: &Options) -> Result<u64, String> {
    let pages_max = board::SELECTED.pages_max as usize;
    if options.attached.is_none() && options.pages > pages_max {
        let name = board::SELECTED.name;
        return Err(format!(
            "the board {name} allows {pages_max} pages: take fewer (--pages), or build for another board"
        ));
    }
    raise_descriptor_limit(options.pages)?;
    // Kept until the last run is over: it removes its files.
    let made = (options.tls && options.pair.is_none() && options.attached.is_none()).then(certificate).transpose()?;
    let pair = match (&made, &options.pair) {
        (Some(Files { certificate, key, .. }), _) | (None, Some((certificate, key))) => Some((&**certificate, &**key)),
        (None, None) => None,
    };
    target::pin(None, 1);
    let (mut relay, mut other) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        relay.push(measure_relay(options, pair, options.mode == Mode::Flood)?);
        match options.against {
            Against::Nothing => {}
            Against::Ceiling => other.push(measure_ceiling(options)?),
            Against::Plain => other.push(measure_relay(&Options { tls: false, ..options.clone() }, None, false)?),
            Against::Quiet => other.push(measure_relay(options, pair, false)?),
        }
    }
    let report = report::render(options, &relay, &other);
    io::stdout().write_all(report.as_bytes()).map_err(|error| format!("standard output: {error}"))?;
    Ok(relay.iter().map(|figures| figures.lost).sum())
}

/// A pair of this run's own: an ECDSA key on P-256.
fn certificate() -> Result<Files, String> {
    let issued = Authority::new("sharelinkd bench").and_then(|authority| authority.issue(&["127.0.0.1".to_owned()]));
    issued.map_err(|error| format!("{error}: name a pair with --certificate FILE and --key FILE"))
}

fn fail(error: &str) -> ExitCode {
    eprintln!("sharelinkd bench: {error}");
    ExitCode::FAILURE
}

/// Raises the soft limit of open files to the hard limit. An error if that is too low for the
/// pages.
fn raise_descriptor_limit(pages: usize) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = pages as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    match limit.maximum {
        Some(maximum) if maximum < needed => Err(format!(
            "{pages} pages need {needed} open files, but the limit is {maximum}: raise it (ulimit -Hn) or take fewer pages"
        )),
        _ => Ok(()),
    }
}

/// The sender of publications: through the relay, or the ceiling.
trait Publisher {
    fn publish(&mut self, sequence: u64) -> Result<(), String>;
    fn flush(&mut self) -> Result<(), String>;
    fn attend(&mut self) -> Result<(), String>;
}

struct Relayed {
    uplink: Uplink,
    data: Vec<u8>,
    track: Track,
}

impl Publisher for Relayed {
    fn publish(&mut self, sequence: u64) -> Result<(), String> {
        let part = match self.track {
            Track::State | Track::Messages => Part::Whole,
            // A group per second, a chunk every quarter second.
            Track::Audio | Track::Video if sequence % 4 == 2 => Part::Start,
            Track::Audio | Track::Video if sequence == 1 => Part::Init { mime: "video/webm" },
            Track::Audio | Track::Video => Part::Continue,
        };
        self.uplink.publish(self.track, part, &self.data)
    }

    fn flush(&mut self) -> Result<(), String> {
        self.uplink.flush()
    }

    fn attend(&mut self) -> Result<(), String> {
        self.uplink.attend()
    }
}

/// The ceiling's control connection: one byte triggers one publication.
struct Bare(TcpStream, Vec<u8>);

impl Publisher for Bare {
    fn publish(&mut self, _: u64) -> Result<(), String> {
        self.1.push(0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        self.0.write_all(&self.1).map_err(|error| format!("ceiling: {error}"))?;
        self.1.clear();
        Ok(())
    }

    fn attend(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// One run with a relay: by TLS with this pair, if pages are to connect by TLS.
fn measure_relay(options: &Options, pair: Option<(&Path, &Path)>, is_flooded: bool) -> Result<Figures, String> {
    let wanted = options.attached.as_ref().map_or(([127, 0, 0, 1], 0).into(), |attached| attached.business);
    let listener = TcpListener::bind(wanted).map_err(|error| format!("can't listen on {wanted}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let mut relay = match &options.attached {
        Some(attached) => Target::attached(attached),
        None => Target::relay(address, Some(0), pair)?,
    };
    let uplink = Uplink::meet(&listener)?;
    // One more: the probe.
    let tickets = if options.resumes { options.pages + 1 } else { 0 };
    let client = options.tls.then(|| Client::meet(relay.address, options.suites, tickets)).transpose()?;
    let track = if options.mode == Mode::Media { Track::Video } else { Track::Messages };
    let data = if options.mode == Mode::Media { vec![0x5a; MEDIA_SIZE] } else { message(options.size) };
    let mut publisher = Relayed { uplink, data, track };
    let mut load = Load::new(client.clone())?;
    let flood = client.as_ref().filter(|_| is_flooded);
    let figures = measure_pages(options, &relay, &mut publisher, &mut load, (client.as_ref(), flood));
    // Close the pages first, then the relay, and the business server last, so that the relay logs
    // no warnings.
    drop(load);
    relay.end();
    figures
}

fn measure_pages(
    options: &Options,
    relay: &Target,
    publisher: &mut Relayed,
    load: &mut Load,
    (client, flood): (Option<&Client>, Option<&Client>),
) -> Result<Figures, String> {
    let at_once = if options.mode == Mode::Arrivals { options.under_way } else { 1 };
    let (probe, first) = match options.mode {
        Mode::Idle | Mode::Arrivals => {
            // The first pages' one-off costs are not counted per page: program text, and the heap
            // of handshakes that are under way at once.
            let first = (options.pages / 4).min(FIRST_MAX);
            arrive(load, publisher, relay, (first, at_once))?;
            (Some(Probe::start(relay.address, client)?), first)
        }
        _ => (None, 0),
    };
    let (memory_before, kernel_before) = (relay.memory(), relay.kernel());
    let (cpu_before, start) = (relay.cpu(), clock::now());
    let counted = options.pages.saturating_sub(first);
    arrive(load, publisher, relay, (counted, at_once))?;
    let arrived = Figures {
        seconds: start.elapsed().as_secs_f64(),
        arrivals: counted as u64,
        cpu: relay.cpu().since(cpu_before),
        memory_before,
        kernel_before,
        ..Figures::default()
    };
    if let Some(probe) = probe {
        let latency = probe.end()?;
        std::thread::sleep(Duration::from_millis(500));
        let latency = [latency.share_us(0.5), latency.share_us(0.99), latency.share_us(0.999), latency.max_us()];
        return Ok(Figures { memory_after: relay.memory(), kernel_after: relay.kernel(), latency, ..arrived });
    }
    if options.mode == Mode::Stalled {
        for page in (0..options.pages).step_by(100) {
            load.stall(page);
        }
    }
    let flood = flood.map(|client| Flood::start(relay.address, client)).transpose()?;
    let figures = drive(load, publisher, relay, options)?;
    let handshakes_per_s = flood.map_or(Ok(0.0), Flood::end)?;
    Ok(Figures { handshakes_per_s, ..figures })
}

fn measure_ceiling(options: &Options) -> Result<Figures, String> {
    let ceiling = Target::ceiling(options.pages, Some(0))?;
    let mut load = Load::new(None)?;
    for _ in 0..options.pages {
        load.connect(ceiling.address, None)?;
    }
    let mut control = TcpStream::connect(ceiling.address).map_err(|error| error.to_string())?;
    let _ = control.set_nodelay(true);
    let data = message(if options.mode == Mode::Media { MEDIA_SIZE } else { options.size });
    let parts = [&br#"{"type":"message","topic":1,"sequence":"#[..], &[br#","data":"#, &data[..], b"}"].concat()];
    for part in parts {
        let size = u32::try_from(part.len()).unwrap_or_default().to_le_bytes();
        control.write_all(&[&size, part].concat()).map_err(|error| error.to_string())?;
    }
    drive(&mut load, &mut Bare(control, Vec::new()), &ceiling, options)
}

/// A message whose frame has about `size` bytes.
fn message(size: usize) -> Vec<u8> {
    let text = "x".repeat(size.saturating_sub(75));
    format!(r#"{{"from":"bench","text":"{text}"}}"#).into_bytes()
}

/// Connects pages, of which `at_once` connect at the same time, and waits until each is subscribed.
fn arrive(
    load: &mut Load,
    publisher: &mut Relayed,
    relay: &Target,
    (pages, at_once): (usize, usize),
) -> Result<(), String> {
    let before = load.seen.notices;
    let wanted = before + pages as u64;
    let mut under_way = Vec::with_capacity(at_once);
    for count in 0..pages {
        while under_way.len() < at_once.min(pages - count) {
            under_way.push(load.begin(relay.address)?);
        }
        // Never empty: a connection is begun for each that is finished.
        load.finish(under_way.remove(0), relay.address, Some(LINK))?;
        if count % 64 == 63 {
            load.turn(Duration::ZERO)?;
            publisher.attend()?;
        }
    }
    let end = clock::now() + PATIENCE;
    while load.seen.notices < wanted {
        if clock::now() > end {
            return Err(format!(
                "only {} of {pages} pages were subscribed, 30 s after the last one had connected",
                load.seen.notices - before
            ));
        }
        publisher.attend()?;
        load.turn(Duration::from_millis(5))?;
    }
    Ok(())
}

/// Publishes and reads for the duration of a run.
fn drive(
    load: &mut Load,
    publisher: &mut dyn Publisher,
    target: &Target,
    options: &Options,
) -> Result<Figures, String> {
    let every = match options.mode {
        Mode::Rate | Mode::Flood => {
            Some(Duration::from_secs(1) / u32::try_from(options.rate.max(1)).unwrap_or(u32::MAX))
        }
        Mode::Media => Some(Duration::from_millis(250)),
        _ => None,
    };
    let window = options.under_way.min(WINDOW_MAX) as u64;
    let readers = load.readers();
    let (mut sent, mut done) = (0, 0);
    let warm = clock::now() + WARM_UP;
    // Read before the first publication, because it is slow.
    let mut figures = Figures { kernel_before: target.kernel(), ..Figures::default() };
    let mut begun = None;
    let mut due = clock::now();
    loop {
        let now = clock::now();
        // The first reading of memory comes after the message ring has been filled once, when its
        // pages are resident.
        let is_touched = options.mode != Mode::Stalled || sent * options.size as u64 >= RING_SIZE;
        if begun.is_none() && now >= warm && is_touched {
            drop(std::mem::take(&mut load.seen.latency));
            figures.memory_before = target.memory();
            begun = Some((now, target.cpu(), target::cpu(std::process::id()), load.seen.deliveries, load.seen.bytes));
        }
        let end = begun.map(|(start, ..)| start + Duration::from_secs(options.seconds));
        let is_over = end.is_some_and(|end| now >= end);
        if is_over && (done == sent || end.is_some_and(|end| now >= end + PATIENCE)) {
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
            publisher.publish(sent)?;
            published = true;
        }
        if published {
            publisher.flush()?;
        }
        publisher.attend()?;
        load.turn(Duration::from_micros(500))?;
        // Pages don't count init segments, which are repeated. So the first media publication, the
        // init segment, is considered done at once.
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
        kernel_after: target.kernel(),
        ..figures
    })
}
