//! The uplink's task: dials, reads frames into the machine, and writes the machine's frames to the
//! business server.
//!
//! One task, one connection, one buffer. It reads with a budget and then yields, so that TCP
//! back-pressure slows down a business server that publishes faster than pages can be served. An
//! error ends the connection with one log line; the machine decides when and where to dial next.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddrV6;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Once;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use smol::Timer;
use socket2::{Domain, SockRef};

use super::budget::Budget;
use super::stream::Stream;
use super::watchdog::Part;
use super::{Daemon, listen, socket_queues};
use crate::config::UplinkAddress;
use relay::fault::PeerError;
use wire::uplink::Deframer;

/// Kernel buffers of the uplink's socket, as requested (Linux doubles them).
const KERNEL_BUFFER_SIZE: usize = 128 * 1024;

/// Unsent bytes in the kernel, at most. More would delay requests for links, which queue behind
/// them.
const UNSENT_SIZE_MAX: u32 = 16 * 1024;
static NO_NOTSENT_LOWAT: Once = Once::new();

/// Timeout for probing the first address while another one is in use.
const KNOCK_TIME_MAX: Duration = Duration::from_secs(5);

/// Keeps the uplink connected for as long as the daemon runs.
pub async fn run(daemon: Rc<Daemon>) {
    let data_size_max = daemon.config.borrow().board.data_size_max() as usize;
    let mut deframer = Deframer::new(data_size_max);
    loop {
        let address = poll_fn(|context| poll_dial(&daemon, context)).await;
        let Some(mut address) = address else { continue };
        let mut ending = match dial(&daemon, &address).await {
            Ok(stream) => {
                deframer.reset();
                converse(&daemon, stream, &mut deframer).await
            }
            Err(ending) => ending,
        };
        while let Ending::Returns(stream, first) = ending {
            daemon.step(|relay, now| relay.handle_uplink_returned(now));
            log::info!("the business server at {first} answers again: back from {address}");
            address = first;
            deframer.reset();
            ending = converse(&daemon, stream, &mut deframer).await;
        }
        let (was_up, has_our_proof) = (daemon.relay.borrow().is_up(), daemon.relay.borrow().awaits_welcome());
        let level = if was_up { log::Level::Error } else { log::Level::Warn };
        let wait_ms = daemon.step(|relay, now| {
            relay.handle_uplink_lost(now);
            relay.uplink_deadline().since(now)
        });
        let hint = match ending {
            _ if was_up => "",
            Ending::Dial(_) | Ending::Fault(PeerError::Proof | PeerError::Version(_)) => "",
            // It sent its hello, as a business server does, and closed when it had our proof.
            Ending::Closed | Ending::Io(_) if has_our_proof => " (is uplink.secret the same on both sides?)",
            // The peer doesn't behave like a business server.
            _ => " (is that the business server's port?)",
        };
        let wait_s = format!("{}.{}", wait_ms / 1000, wait_ms % 1000 / 100);
        let line = format!("the business server at {address}: {ending}{hint}; the next try is in {wait_s} s");
        daemon.logged.borrow_mut().log(level, daemon.clock.now(), &line);
    }
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

async fn connect(address: &UplinkAddress) -> io::Result<Stream> {
    let stream = match address {
        UplinkAddress::Tcp(address) => Stream::connect_tcp(*address).await?,
        UplinkAddress::LinkLocal(ip, port, interface) => {
            let address = SocketAddrV6::new(*ip, *port, 0, index_of(interface)?);
            Stream::connect_tcp(address).await?
        }
        UplinkAddress::Unix(path) => Stream::connect_unix(path).await?,
    };
    prepare(&stream)?;
    Ok(stream)
}

/// The interface's number from the kernel, on each dial: it changes when the interface is removed
/// and comes back.
fn index_of(interface: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    name_to_index(&socket, interface).map_err(|error| match error {
        Errno::NODEV => io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}")),
        error => error.into(),
    })
}

/// Connects to an address and waits until the peer speaks, as a business server does first.
async fn knock(address: UplinkAddress) -> Option<Stream> {
    let answer = async {
        let stream = connect(&address).await.ok()?;
        poll_fn(|context| stream.poll_readable(context)).await.ok()?;
        matches!(stream.peek(), Ok(1..)).then_some(stream)
    };
    let late = async {
        Timer::after(KNOCK_TIME_MAX).await;
        None
    };
    smol::future::or(answer, late).await
}

async fn dial(daemon: &Daemon, address: &UplinkAddress) -> Result<Stream, Ending> {
    let given_up = async {
        loop {
            daemon.uplink.wait().await;
            daemon.turns.pass(Part::Uplink);
            let now = daemon.clock.now();
            if daemon.relay.borrow().uplink_fault(now).is_some() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    smol::future::or(connect(address), given_up).await.map_err(Ending::Dial)
}

/// Why a connection, or an attempt, ended.
enum Ending {
    Dial(io::Error),
    Io(io::Error),
    Closed,
    Fault(PeerError),
    /// The first address answers again, on this connection.
    Returns(Stream, UplinkAddress),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dial(error) if error.kind() == io::ErrorKind::TimedOut => f.write_str("it did not answer within 5 s"),
            Self::Dial(error) => write!(f, "it can't be reached: {error}"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Fault(fault) => write!(f, "the connection was ended: {fault}"),
            Self::Returns(_, first) => write!(f, "{first} answers again"),
        }
    }
}

/// Reads and writes until the connection ends.
async fn converse(daemon: &Daemon, stream: Stream, deframer: &mut Deframer) -> Ending {
    let mut nonce = [0; 16];
    if let Err(error) = getrandom::fill(&mut nonce) {
        return Ending::Io(io::Error::other(error));
    }
    daemon.step(|relay, now| relay.handle_uplink_connected(now, nonce));
    let mut knocking: Option<Pin<Box<dyn Future<Output = Option<Stream>>>>> = None;
    let mut is_behind = false;
    // Unread bytes in the kernel at the last look; none while the uplink is not quiet.
    let mut untaken = None;
    poll_fn(|context| {
        daemon.turns.pass(Part::Uplink);
        let mut budget = Budget::UPLINK_TURN;
        // The order matters: pending frames are written before more are read.
        daemon.uplink.rearm(context);
        let now = daemon.clock.now();
        let is_quiet = daemon.relay.borrow().is_uplink_quiet(now);
        if is_quiet && takes(untaken, socket_queues::untaken(&stream)) {
            daemon.step(|relay, now| relay.uplink_took(now));
        }
        let fault = daemon.relay.borrow().uplink_fault(daemon.clock.now());
        if let Some(fault) = fault {
            return Poll::Ready(Ending::Fault(fault));
        }
        if let Err(ending) = write(daemon, &stream, &mut budget, context) {
            return Poll::Ready(ending);
        }
        untaken = if is_quiet { socket_queues::untaken(&stream) } else { None };
        if let Some(ending) = poll_return(daemon, &mut knocking, context) {
            return Poll::Ready(ending);
        }
        match poll_frames(daemon, &stream, deframer, &mut is_behind, &mut budget, context) {
            // Pages first: reading on at once would only make them skip.
            Ok(Poll::Ready(())) => context.waker().wake_by_ref(),
            Ok(Poll::Pending) => {}
            Err(ending) => return Poll::Ready(ending),
        }
        Poll::Pending
    })
    .await
}

/// Whether the business server reads. A peer's kernel takes bytes even if its program hangs, so
/// only a queue that shrinks without becoming empty proves it.
fn takes(before: Option<u32>, now: Option<u32>) -> bool {
    before.zip(now).is_some_and(|(before, now)| 0 < now && now < before)
}

/// Probes the first address if the machine requests it; returns the end of this connection once
/// that address answers.
fn poll_return(
    daemon: &Daemon,
    knocking: &mut Option<Pin<Box<dyn Future<Output = Option<Stream>>>>>,
    context: &mut Context<'_>,
) -> Option<Ending> {
    let first = daemon.config.borrow().uplink.addresses.first()?.clone();
    if knocking.is_none() && daemon.step(|relay, now| relay.poll_return(now)) {
        *knocking = Some(Box::pin(knock(first.clone())));
    }
    let Poll::Ready(answer) = knocking.as_mut()?.as_mut().poll(context) else { return None };
    *knocking = None;
    answer.map(|stream| Ending::Returns(stream, first))
}

/// Handles the frames left by the turn before (`is_behind`), then those that have arrived; ready if
/// more may be left.
fn poll_frames(
    daemon: &Daemon,
    stream: &Stream,
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
    match stream.read(budget.clip(deframer.space())) {
        Ok(0) => Err(Ending::Closed),
        Ok(size) => {
            budget.take(size);
            deframer.filled(size);
            *is_behind = handle(daemon, deframer, size, budget)?;
            Ok(Poll::Ready(()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_readable(context) {
            Poll::Ready(ready) => ready.map(Poll::Ready).map_err(Ending::Io),
            Poll::Pending => Ok(Poll::Pending),
        },
        Err(error) => Err(Ending::Io(error)),
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

fn write(daemon: &Daemon, stream: &Stream, budget: &mut Budget, context: &mut Context<'_>) -> Result<(), Ending> {
    while !budget.is_spent() {
        budget.step();
        let written = match daemon.relay.borrow().uplink_transmit() {
            [] => return Ok(()),
            bytes => stream.write(bytes),
        };
        match written {
            Ok(size) => daemon.step(|relay, now| relay.uplink_wrote(now, size)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_writable(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(Ending::Io(error)),
                Poll::Pending => return Ok(()),
            },
            Err(error) => return Err(Ending::Io(error)),
        }
    }
    context.waker().wake_by_ref();
    Ok(())
}

/// Sets the socket options of an uplink connection.
fn prepare(stream: &Stream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if socket.domain()? != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
        let unsent = socket.set_tcp_notsent_lowat(UNSENT_SIZE_MAX);
        let consequence = "a business server that reads slowly answers later";
        listen::optional(unsent, "TCP_NOTSENT_LOWAT on the uplink", consequence, &NO_NOTSENT_LOWAT)?;
    }
    socket.set_recv_buffer_size(KERNEL_BUFFER_SIZE)?;
    socket.set_send_buffer_size(KERNEL_BUFFER_SIZE)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

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
    fn the_kernel_says_what_a_peer_has_not_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tcp = (Stream::new(near).unwrap(), Stream::new(listener.accept().unwrap().0).unwrap());
        let (near, far) = UnixStream::pair().unwrap();
        let unix = (Stream::new(near).unwrap(), Stream::new(far).unwrap());
        for (near, far) in [tcp, unix] {
            prepare(&near).unwrap();
            // Until both kernels' buffers are full.
            while near.write(&[0; 4096]).is_ok() {}
            let before = socket_queues::untaken(&near);
            assert!(before > Some(4096), "{before:?}");
            // Read a part of it.
            let mut nowhere = [0; 4096];
            while !super::takes(before, socket_queues::untaken(&near)) {
                let _ = far.read(&mut nowhere);
            }
        }
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
