//! The uplink's task: dials, reads frames into the machine, and writes the machine's frames to the
//! business server.
//!
//! One task, one connection, one buffer. It reads with a budget and then yields, so that TCP
//! back-pressure slows down a business server that publishes faster than pages can be served. An
//! error ends the connection with one log line; the machine decides when and where to dial next.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use smol::Timer;

use super::budget::Budget;
use super::dial::{self, Avoided, NoTarget, Peer, Target};
use super::ending::Ending;
use super::line::{Client, Filled, Line};
use super::resolve::{Resolver, Unresolved};
use super::watchdog::Part;
use super::{Daemon, socket_queues};
use crate::config::{UplinkAddress, UplinkTls};
use crate::console::TlsNotes;
use relay::fault::PeerError;
use wire::uplink::Deframer;

/// Timeout for probing the first entry while another one is in use, once its addresses are known.
const KNOCK_TIME_MAX: Duration = Duration::from_secs(5);

/// Keeps the uplink connected for as long as the daemon runs.
pub async fn run(daemon: Rc<Daemon>) {
    let data_size_max = daemon.config.borrow().board.data_size_max() as usize;
    let mut deframer = Deframer::new(data_size_max).with_extensions();
    let mut avoided = Avoided::default();
    loop {
        let entry = poll_fn(|context| poll_dial(&daemon, context)).await;
        let Some(mut entry) = entry else { continue };
        let mut target = None;
        let mut ending = match dial(&daemon, &entry, &mut avoided).await {
            Ok((line, answered)) => {
                target = Some(answered);
                deframer.reset();
                converse(&daemon, line, &mut deframer, &mut avoided).await
            }
            Err(ending) => ending,
        };
        while let Ending::Moves(line, answered, place, next) = ending {
            daemon.step(|relay, now| relay.handle_uplink_moved(now, place));
            let (to, from) = (Peer(&next, Some(&answered)), Peer(&entry, target.as_ref()));
            if place == 0 {
                log::info!("the business server at {to} answers again: back from {from}");
            } else {
                log::info!("the business server at {to} answers: moved there from {from}");
            }
            (entry, target) = (next, Some(answered));
            deframer.reset();
            ending = converse(&daemon, line, &mut deframer, &mut avoided).await;
        }
        let was_up = daemon.relay.borrow().is_up();
        if let Some(target) = &target {
            if was_up { avoided.forget(target) } else { avoided.add(target) }
        }
        lose(&daemon, &Peer(&entry, target.as_ref()), &ending);
    }
}

/// The connection or the attempt is over: the machine plans the next one, and the log says why.
fn lose(daemon: &Daemon, peer: &Peer<'_>, ending: &Ending) {
    let (was_up, has_our_proof) = (daemon.relay.borrow().is_up(), daemon.relay.borrow().awaits_welcome());
    let level = if was_up { log::Level::Error } else { log::Level::Warn };
    let wait_ms = daemon.step(|relay, now| {
        relay.handle_uplink_lost(now);
        relay.uplink_deadline().since(now)
    });
    let hint = match ending {
        _ if was_up => "",
        Ending::NoTarget(_) | Ending::Dial(_) | Ending::Tls(_) => "",
        Ending::Fault(PeerError::Proof | PeerError::Version(_)) => "",
        // It sent its hello, as a business server does, and closed when it had our proof.
        Ending::Closed | Ending::Io(_) if has_our_proof => " (is uplink.secret the same on both sides?)",
        // Our certificate is the last that a server gets to see; not each one says why it closes.
        Ending::Closed | Ending::Io(_) => match &daemon.uplink_notes.borrow().tls {
            Some(TlsNotes { suite: Some(_), own: None, .. }) => {
                " (does it demand a certificate of the relay, which has none?)"
            }
            Some(TlsNotes { suite: Some(_), .. }) => " (does it trust the CA of the relay's certificate?)",
            _ => " (is that the business server's port?)",
        },
        // The peer doesn't behave like a business server.
        _ => " (is that the business server's port?)",
    };
    daemon.uplink_notes.borrow_mut().failure = Some(format!("{peer}: {ending}{hint}"));
    let wait_s = format!("{}.{}", wait_ms / 1000, wait_ms % 1000 / 100);
    let line = format!("the business server at {peer}: {ending}{hint}; the next try is in {wait_s} s");
    daemon.logged.borrow_mut().log(level, daemon.clock.now(), &line);
}

/// Waits until the machine requests a dial.
fn poll_dial(daemon: &Daemon, context: &Context<'_>) -> Poll<Option<UplinkAddress>> {
    daemon.turns.pass(Part::Uplink);
    daemon.uplink.rearm(context);
    match daemon.step(|relay, now| relay.poll_dial(now)) {
        Some(place) => Poll::Ready(daemon.config.borrow().uplink.addresses.get(place).cloned()),
        None => Poll::Pending,
    }
}

/// Finds the entry's addresses, and connects to one of them.
async fn dial(daemon: &Daemon, entry: &UplinkAddress, avoided: &mut Avoided) -> Result<(Line, Target), Ending> {
    if matches!(entry, UplinkAddress::Name(..)) {
        daemon.step(|relay, now| relay.handle_uplink_resolving(now));
    }
    let late = async {
        given_up(daemon).await;
        Err(NoTarget::Name(Unresolved::Late))
    };
    let targets = smol::future::or(dial::targets(&daemon.resolver, entry), late).await;
    note(daemon, entry, &targets);
    let mut targets = targets.map_err(Ending::NoTarget)?;
    let tls = daemon.config.borrow().uplink.tls.as_ref().map(|tls| Client::begin(tls, entry)).transpose();
    let tls = tls.map_err(Ending::Tls)?;
    daemon.step(|relay, now| relay.handle_uplink_resolved(now));
    avoided.put_last(&mut targets);
    let late = async {
        given_up(daemon).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let (stream, target) = smol::future::or(dial::connect(targets), late).await.map_err(Ending::Dial)?;
    Ok((Line::new(stream, tls), target))
}

/// Waits until the machine gives the dial up.
async fn given_up(daemon: &Daemon) {
    loop {
        daemon.uplink.wait().await;
        daemon.turns.pass(Part::Uplink);
        let now = daemon.clock.now();
        if daemon.relay.borrow().uplink_fault(now).is_some() {
            return;
        }
    }
}

/// Notes for the console whether an entry's name resolves.
fn note(daemon: &Daemon, entry: &UplinkAddress, found: &Result<Vec<Target>, NoTarget>) {
    let mut notes = daemon.uplink_notes.borrow_mut();
    let entry = entry.to_string();
    notes.unresolved.retain(|(other, _)| *other != entry);
    if let Err(NoTarget::Name(why)) = found {
        notes.unresolved.push((entry, why.to_string()));
    }
}

/// Of the entries whose names don't resolve, only the first is looked up while the uplink has a
/// connection; what is known of the others no longer counts.
fn forget_names(daemon: &Daemon) {
    let first = daemon.config.borrow().uplink.addresses.first().map(ToString::to_string);
    daemon.uplink_notes.borrow_mut().unresolved.retain(|(entry, _)| Some(entry) == first.as_ref());
}

/// What came of a knock: the entry's addresses, and the line if a business server spoke on it, or
/// the address that answered and then failed, and why.
type Knocked = (Result<Vec<Target>, NoTarget>, Result<(Line, Target), (Option<Target>, Ending)>);

/// Connects to an entry and waits until the peer speaks, as a business server does first.
async fn knock(resolver: Resolver, entry: UplinkAddress, tls: Option<UplinkTls>, mut avoided: Avoided) -> Knocked {
    let targets = dial::targets(&resolver, &entry).await;
    let mut found = match &targets {
        Ok(found) => found.clone(),
        // The console has it from the first half.
        Err(_) => return (targets, Err((None, Ending::Closed))),
    };
    avoided.put_last(&mut found);
    let mut answered = None;
    let answer = async {
        let tls = tls.map(|tls| Client::begin(&tls, &entry)).transpose().map_err(Ending::Tls)?;
        let (stream, target) = dial::connect(found).await.map_err(Ending::Dial)?;
        let mut line = Line::new(stream, tls);
        answered = Some(target.clone());
        poll_fn(|context| poll_spoken(&mut line, context)).await.map(|()| (line, target))
    };
    let late = async {
        Timer::after(KNOCK_TIME_MAX).await;
        Err(Ending::Dial(io::ErrorKind::TimedOut.into()))
    };
    let answer = smol::future::or(answer, late).await;
    (targets, answer.map_err(|why| (answered, why)))
}

/// Whether the peer speaks: ready once it did, or the connection is over.
fn poll_spoken(line: &mut Line, context: &mut Context<'_>) -> Poll<Result<(), Ending>> {
    let mut budget = Budget::TURN;
    match line.fill(&mut budget) {
        Ok(Filled::Data) => return Poll::Ready(Ok(())),
        Ok(Filled::Closed) => return Poll::Ready(Err(Ending::Closed)),
        Err(fault) => return Poll::Ready(Err(fault.into())),
        Ok(Filled::Spent) => context.waker().wake_by_ref(),
        Ok(Filled::Nothing) => match line.poll_readable(context) {
            Poll::Ready(Ok(())) => context.waker().wake_by_ref(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Ending::Io(error))),
            Poll::Pending => {}
        },
    }
    match flush(line, context) {
        Ok(()) => Poll::Pending,
        Err(ending) => Poll::Ready(Err(ending)),
    }
}

/// Reads and writes until the connection ends.
async fn converse(daemon: &Daemon, mut line: Line, deframer: &mut Deframer, avoided: &mut Avoided) -> Ending {
    let mut nonce = [0; 16];
    if let Err(error) = getrandom::fill(&mut nonce) {
        return Ending::Io(io::Error::other(error));
    }
    daemon.step(|relay, now| relay.handle_uplink_connected(now, nonce));
    let mut knocking = None;
    let mut is_behind = false;
    // Unread bytes in the kernel at the last look; none while the uplink is not quiet.
    let mut untaken = None;
    note_tls(daemon, &line);
    forget_names(daemon);
    let ending = poll_fn(|context| {
        daemon.turns.pass(Part::Uplink);
        let mut budget = Budget::UPLINK_TURN;
        // The order matters: pending frames are written before more are read.
        daemon.uplink.rearm(context);
        let now = daemon.clock.now();
        let is_quiet = daemon.relay.borrow().is_uplink_quiet(now);
        if is_quiet && takes(untaken, socket_queues::untaken(line.stream())) {
            daemon.step(|relay, now| relay.uplink_took(now));
        }
        let fault = daemon.relay.borrow().uplink_fault(daemon.clock.now());
        if let Some(fault) = fault {
            return Poll::Ready(Ending::Fault(fault));
        }
        if let Err(ending) = write(daemon, &mut line, &mut budget, context) {
            return Poll::Ready(ending);
        }
        untaken = if is_quiet { socket_queues::untaken(line.stream()) } else { None };
        if let Some(ending) = poll_knock(daemon, &mut knocking, avoided, context) {
            return Poll::Ready(ending);
        }
        match poll_frames(daemon, &mut line, deframer, &mut is_behind, &mut budget, context) {
            // Pages first: reading on at once would only make them skip.
            Ok(Poll::Ready(())) => context.waker().wake_by_ref(),
            Ok(Poll::Pending) => {}
            Err(ending) => return Poll::Ready(ending),
        }
        // TLS answers to what was read.
        match flush(&mut line, context) {
            Ok(()) => Poll::Pending,
            Err(ending) => Poll::Ready(ending),
        }
    })
    .await;
    note_tls(daemon, &line);
    line.close();
    ending
}

/// Notes for the console what is known of the connection's TLS; once its handshake is done, the log
/// has it too.
fn note_tls(daemon: &Daemon, line: &Line) {
    let now = line.tls().map(|tls| TlsNotes { suite: tls.suite(), own: tls.own(), shown: tls.shown() });
    let mut notes = daemon.uplink_notes.borrow_mut();
    if now != notes.tls {
        if let Some(TlsNotes { suite: Some(suite), shown: Some(shown), .. }) = &now {
            log::info!("the business server speaks TLS ({suite}), its key is {shown}");
        }
        notes.tls = now;
    }
}

/// Whether the business server reads. A peer's kernel takes bytes even if its program hangs, so
/// only a queue that shrinks without becoming empty proves it.
fn takes(before: Option<u32>, now: Option<u32>) -> bool {
    before.zip(now).is_some_and(|(before, now)| 0 < now && now < before)
}

/// A knock under way: the entry's rank, the entry, and what comes of it.
struct Knocking {
    place: usize,
    entry: UplinkAddress,
    future: Pin<Box<dyn Future<Output = Knocked>>>,
}

/// Probes an entry if the machine requests it; returns the end of this connection once that entry
/// answers.
fn poll_knock(
    daemon: &Daemon,
    knocking: &mut Option<Knocking>,
    avoided: &mut Avoided,
    context: &mut Context<'_>,
) -> Option<Ending> {
    if knocking.is_none()
        && let Some(place) = daemon.step(|relay, now| relay.poll_knock(now))
    {
        let entry = daemon.config.borrow().uplink.addresses.get(place)?.clone();
        let tls = daemon.config.borrow().uplink.tls.clone();
        let future = Box::pin(knock(daemon.resolver.clone(), entry.clone(), tls, avoided.clone()));
        *knocking = Some(Knocking { place, entry, future });
    }
    let Poll::Ready((targets, answer)) = knocking.as_mut()?.future.as_mut().poll(context) else { return None };
    let Knocking { place, entry, .. } = knocking.take()?;
    note(daemon, &entry, &targets);
    match answer {
        Ok((line, target)) => Some(Ending::Moves(line, target, place, entry)),
        Err((answered, why)) => {
            if let Some(target) = &answered {
                avoided.add(target);
            }
            // That it is still away is no news; that it is there and can't be used is.
            if matches!(why, Ending::Tls(_)) {
                let peer = Peer(&entry, answered.as_ref());
                let verb = if place == 0 { "returned" } else { "moved" };
                let line = format!("the business server at {peer} can't be {verb} to: {why}");
                daemon.logged.borrow_mut().log(log::Level::Warn, daemon.clock.now(), &line);
            }
            None
        }
    }
}

/// Handles the frames left by the turn before (`is_behind`), then those that have arrived; ready if
/// more may be left.
fn poll_frames(
    daemon: &Daemon,
    line: &mut Line,
    deframer: &mut Deframer,
    is_behind: &mut bool,
    budget: &mut Budget,
    context: &mut Context<'_>,
) -> Result<Poll<()>, Ending> {
    if *is_behind {
        *is_behind = handle(daemon, deframer, 0, budget)?;
    }
    if *is_behind || budget.is_spent() {
        return Ok(Poll::Ready(()));
    }
    let read = line.read(deframer.space(), budget);
    if line.take_heard() {
        // Part of a record is a sign of life, as part of a frame is.
        daemon.step(|relay, now| relay.uplink_took(now));
        if !daemon.relay.borrow().is_up() {
            note_tls(daemon, line);
        }
    }
    match read? {
        (Filled::Closed, _) => Err(Ending::Closed),
        (Filled::Data, size) => {
            deframer.filled(size);
            *is_behind = handle(daemon, deframer, size, budget)?;
            Ok(Poll::Ready(()))
        }
        (Filled::Spent, _) => Ok(Poll::Ready(())),
        (Filled::Nothing, _) => match line.poll_readable(context) {
            Poll::Ready(ready) => ready.map(Poll::Ready).map_err(Ending::Io),
            Poll::Pending => Ok(Poll::Pending),
        },
    }
}

/// Handles `size` further bytes, and complete frames as far as the turn allows; returns whether
/// frames may be left.
fn handle(daemon: &Daemon, deframer: &mut Deframer, size: usize, budget: &mut Budget) -> Result<bool, Ending> {
    let handled = daemon.step(|relay, now| {
        relay.handle_uplink_read(now, size);
        while budget.has_steps() {
            budget.step();
            match deframer.next_frame().map_err(PeerError::Frame)? {
                Some(incoming) => relay.handle_uplink(now, incoming)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    });
    handled.map_err(Ending::Fault)
}

fn write(daemon: &Daemon, line: &mut Line, budget: &mut Budget, context: &mut Context<'_>) -> Result<(), Ending> {
    while !budget.is_spent() {
        budget.step();
        let written = match daemon.relay.borrow().uplink_transmit() {
            [] => return Ok(()),
            bytes => line.write(bytes),
        };
        match written {
            Ok(0) => match line.poll_writable(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(Ending::Io(error)),
                Poll::Pending => return Ok(()),
            },
            Ok(size) => daemon.step(|relay, now| relay.uplink_wrote(now, size)),
            Err(error) => return Err(Ending::Io(error)),
        }
    }
    context.waker().wake_by_ref();
    Ok(())
}

/// Sends what TLS has ready; if the socket is full, the task is woken when it no longer is.
fn flush(line: &mut Line, context: &mut Context<'_>) -> Result<(), Ending> {
    if line.flush().map_err(Ending::Io)? {
        return Ok(());
    }
    match line.poll_writable(context) {
        Poll::Ready(Ok(())) => context.waker().wake_by_ref(),
        Poll::Ready(Err(error)) => return Err(Ending::Io(error)),
        Poll::Pending => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::budget::UPLINK_STEPS;
    use super::*;
    use board::HOST;
    use relay::rig::Rig;
    use wire::uplink::{ToRelay, encode};

    #[test]
    fn only_what_waited_and_still_waits_shows_that_a_peer_reads() {
        let takes = |before, now| super::takes(Some(before), Some(now));
        assert!(takes(150_000, 80_000) && takes(2, 1));
        assert!(!takes(1_280, 0), "a ping that the kernel of a program that hangs has taken");
        assert!(!takes(80_000, 80_000) && !takes(80_000, 81_280));
        assert!(!super::takes(None, Some(1)) && !super::takes(Some(1), None));
    }

    #[test]
    fn a_name_is_looked_up_at_each_dial_and_one_that_is_missing_is_noted_and_passed_over() {
        use super::super::resolve::tests::{Fake, Text, answers_for};
        let names = Fake::new("127.0.0.1", 0);
        let settings = Text::new("uplink-names", "nameserver 127.0.0.1\n");
        let listener = smol::Async::<std::net::TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let port = listener.get_ref().local_addr().unwrap().port();
        let text = format!(
            "[uplink]\naddresses = [\"missing.example:1\", \"b.example:{port}\"]\nplaintext = true\nsecret = \"s\"\n"
        );
        let daemon = Daemon::with(&text, Resolver::with(&settings.0, names.port()));
        let dialled = async {
            // Each dial fails in the handshake, so that the next one follows.
            for _ in 0..3 {
                drop(listener.accept().await.unwrap());
            }
        };
        let running = smol::future::or(run(Rc::clone(&daemon)), super::super::tick(Rc::clone(&daemon)));
        let served = names.serve(|query| vec![answers_for("b.example.", [127, 0, 0, 1], query)], |_| Vec::new());
        smol::block_on(smol::future::or(dialled, smol::future::or(running, served)));
        assert!(names.asked.get() >= 9, "{} questions", names.asked.get());
        let noted = &daemon.uplink_notes.borrow().unresolved;
        assert_eq!(*noted, [("missing.example:1".to_owned(), "there is no such name".to_owned())]);
    }

    #[test]
    fn a_turn_handles_only_so_many_frames_however_small_they_are_and_the_next_ones_the_others() {
        const FRAMES: u32 = 10 * UPLINK_STEPS;
        let daemon = Daemon::of(Rig::up(&HOST));
        let mut deframer = Deframer::new(HOST.data_size_max() as usize);
        let mut size = 0;
        for _ in 0..FRAMES {
            size += encode(&ToRelay::Pong { nonce: 0 }, &mut deframer.space()[size..]).unwrap();
        }
        deframer.filled(size);
        let before = daemon.relay.borrow().counters().uplink_frames_in;
        let mut turns = 0;
        while handle(&daemon, &mut deframer, size, &mut Budget::UPLINK_TURN.clone()).is_ok_and(|is_behind| is_behind) {
            turns += 1;
            let handled = daemon.relay.borrow().counters().uplink_frames_in - before;
            assert_eq!(handled, turns * u64::from(UPLINK_STEPS));
        }
        assert_eq!(turns, 10);
    }
}
