//! Listening: binds the pages' addresses, or takes the listeners that the service manager holds; accepts in batches.
//!
//! Every connection begins as an HTTP request head in one of a fixed number of places, and `heads.rs` says who gives one
//! where they are short. The kernel's queue is first come, first served, so it is emptied quickly: accepting waits only
//! while every place has an answer that makes progress. Descriptors are never used up: the console and the uplink get
//! theirs. A kernel that lacks an option of TCP is served with all the same, and a line in the log names it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smol::{Async, LocalExecutor, Timer, future};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::stream::Stream;
use super::{Daemon, DaemonError, heads, http, options};
use crate::config::{Config, Pages};
use board::Board;

/// Connections accepted in one turn: as many may lose their places to them, and go when others have had their turn.
const BATCH: usize = 16;
/// How long accepting rests when descriptors or memory have run out.
const REST: Duration = Duration::from_millis(100);
/// How long accepting waits before it looks for a place again.
const PLACE_WAIT: Duration = Duration::from_millis(5);

/// Where pages connect.
pub struct Listeners {
    /// In the order of their addresses.
    pub sockets: Vec<Rc<Async<TcpListener>>>,
    /// As they came out (port 0 takes any).
    pub addresses: Vec<SocketAddr>,
    /// The service manager holds them too, and goes on when this relay ends: then no connection is taken any more that
    /// the next one can serve.
    pub are_inherited: bool,
}

/// Binds every configured address; none where the service manager passed listeners on.
pub fn bind(config: &Config, inherited: Vec<TcpListener>) -> Result<Listeners, DaemonError> {
    let mut listeners = Listeners { sockets: Vec::new(), addresses: Vec::new(), are_inherited: !inherited.is_empty() };
    let mut add = |listener: Async<TcpListener>, address| {
        listeners.addresses.push(listener.get_ref().local_addr().unwrap_or(address));
        listeners.sockets.push(Rc::new(listener));
    };
    if inherited.is_empty() {
        for &address in &config.pages.listen {
            add(listener(address, &config.board).map_err(|error| DaemonError::Listen(address, error))?, address);
        }
    }
    for socket in inherited {
        let address = socket.local_addr().map_err(DaemonError::Passed)?;
        add(adopted(socket, &config.board).map_err(|error| DaemonError::Listen(address, error))?, address);
    }
    Ok(listeners)
}

/// Makes a listener that was passed on what our own are: the unit knows neither the board nor all of the options.
fn adopted(socket: TcpListener, board: &Board) -> io::Result<Async<TcpListener>> {
    let socket = Socket::from(socket);
    prepare(&socket, board)?;
    // Again: it changes the backlog alone.
    socket.listen(i32::try_from(board.backlog_max).unwrap_or(i32::MAX))?;
    Async::new(socket.into())
}

/// A listener whose accepted sockets have the board's options.
///
/// # Errors
/// The system's own.
pub fn listener(address: SocketAddr, board: &Board) -> io::Result<Async<TcpListener>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // One listener, one family: both are wanted where both are written.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    prepare(&socket, board)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(board.backlog_max).unwrap_or(i32::MAX))?;
    Async::new(socket.into())
}

/// The options of the pages' sockets. Accepted ones inherit all of it from their listener: the window is right from the first
/// packet on, and no call is made for each.
fn prepare(socket: &Socket, board: &Board) -> io::Result<()> {
    socket.set_send_buffer_size(board.send_buffer_size as usize)?;
    socket.set_recv_buffer_size(board.receive_buffer_size as usize)?;
    // Without it one stalled peer was seen to delay others in rounds of 40 ms.
    socket.set_tcp_nodelay(true)?;
    let unsent = socket.set_tcp_notsent_lowat(board.notsent_size_max);
    optional(unsent, "TCP_NOTSENT_LOWAT", "a slow page skips later, by what its socket holds", &NO_NOTSENT_LOWAT)?;
    let timeout = Duration::from_millis(board.user_timeout_ms.into());
    let timeout = socket.set_tcp_user_timeout(Some(timeout));
    optional(timeout, "TCP_USER_TIMEOUT", "a page whose line is cut is given up later", &NO_USER_TIMEOUT)?;
    let deferred = options::set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, DEFERRED_S);
    optional(deferred, "TCP_DEFER_ACCEPT", "a connection that says nothing takes a place", &NO_DEFER_ACCEPT)?;
    // SO_LINGER of 0: a socket that is dropped takes its queues with it. The kernel would keep them, uncounted, for as long as
    // a peer that doesn't read likes. Whoever ends in good order waits for the peer's end first.
    socket.set_linger(Some(Duration::ZERO))
}

/// A connection is handed over when its request is there, or after about this time: one that says nothing costs no place
/// meanwhile. The least that the kernel knows.
const DEFERRED_S: u32 = 1;

static NO_DEFER_ACCEPT: Once = Once::new();
static NO_NOTSENT_LOWAT: Once = Once::new();
static NO_USER_TIMEOUT: Once = Once::new();

/// An option of TCP that the relay can do without: a kernel that doesn't have it (an old one, one in user space) is named
/// once, with what follows.
///
/// # Errors
/// Any other of the system's.
pub fn optional(result: io::Result<()>, name: &str, consequence: &str, told: &Once) -> io::Result<()> {
    let Err(error) = &result else { return Ok(()) };
    let unknown = [Errno::NOPROTOOPT, Errno::OPNOTSUPP, Errno::NOSYS].map(|errno| Some(errno.raw_os_error()));
    if !unknown.contains(&error.raw_os_error()) {
        return result;
    }
    told.call_once(|| log::warn!("this kernel has no {name} ({error}): {consequence}"));
    Ok(())
}

/// Allows the process as many descriptors as its pages need, or says how many it will do with.
pub fn raise_descriptor_limit(board: &Board) {
    let needed = board::descriptors(board);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), ..limit });
    if raised.is_err() || allowed < needed {
        log::warn!(
            "{needed} open files are needed for {} pages, {allowed} are allowed: raise LimitNOFILE in the unit \
             (or ulimit -Hn), or lower pages in [limits]",
            board.pages_max
        );
    }
}

/// Accepts for as long as the daemon runs.
pub async fn accept(daemon: Rc<Daemon>, executor: Rc<LocalExecutor<'static>>, listener: Rc<Async<TcpListener>>) {
    // What waited in a listener that was passed on may have come before its options were set.
    let mut are_waiting = daemon.is_inherited;
    loop {
        if let Err(error) = listener.readable().await {
            log::warn!("a listener can't be waited for: {error}");
            Timer::after(REST).await;
        }
        for number in 0..BATCH {
            if !has_descriptors(&daemon) {
                // Somebody waits: a place that is given up has a descriptor too.
                if number == 0 && !daemon.heads.borrow_mut().cut_one(daemon.clock.now()) {
                    Timer::after(REST).await;
                }
                break;
            }
            if !daemon.heads.borrow_mut().has_room(daemon.clock.now()) {
                // Those that have just come are looked at first: what they want may be there.
                future::yield_now().await;
            }
            while !daemon.heads.borrow_mut().has_room(daemon.clock.now()) {
                Timer::after(PLACE_WAIT).await;
            }
            let taken = take(listener.get_ref(), are_waiting.then_some(&daemon.config.borrow().board));
            match taken {
                Ok((stream, address)) => begin(&daemon, &executor, stream, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    are_waiting = false;
                    break;
                }
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    let now = daemon.clock.now();
                    let line = format!("no connection can be accepted for a moment: {error}");
                    daemon.logged.borrow_mut().log(log::Level::Warn, now, &line);
                    Timer::after(REST).await;
                    break;
                }
            }
        }
        future::yield_now().await;
    }
}

/// Accepts one; `options` where it may have come before its listener had them.
fn take(listener: &TcpListener, options: Option<&Board>) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept()?;
    if let Some(board) = options {
        // One that is gone already is found out when it is read.
        let _ = prepare(&SockRef::from(&stream), board);
    }
    Ok((stream, address))
}

/// Whether one more connection leaves descriptors for what is no page: who floods the pages' port must not keep an engineer
/// from the console, or the relay from its business server. Heads give theirs back within the time for a head.
fn has_descriptors(daemon: &Daemon) -> bool {
    let Some(allowed) = getrlimit(Resource::Nofile).current else { return true };
    let used = u64::from(daemon.relay.borrow().pages()) + u64::from(daemon.heads.borrow().count());
    let has_some = used + board::DESCRIPTORS_EXTRA < allowed;
    if !has_some {
        let line = format!(
            "no connection can be accepted for a moment: {allowed} open files are allowed, and the last {} \
             are kept for the console and the business server",
            board::DESCRIPTORS_EXTRA
        );
        daemon.logged.borrow_mut().log(log::Level::Warn, daemon.clock.now(), &line);
    }
    has_some
}

/// Errors of `accept(2)` that are about the one connection, which is gone.
fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn begin(daemon: &Rc<Daemon>, executor: &Rc<LocalExecutor<'static>>, stream: TcpStream, address: SocketAddr) {
    let stream = match Stream::new(stream) {
        Ok(stream) => stream,
        Err(error) => {
            log::debug!("a connection was dropped at once: {error}");
            return;
        }
    };
    // A listener for both families, which only a unit makes, tells IPv4 addresses in an IPv6 form.
    let address = address.ip().to_canonical();
    let network = network(&daemon.config.borrow().pages, address);
    let place = daemon.heads.borrow_mut().enter(daemon.clock.now(), network);
    executor.spawn(http::serve(Rc::clone(daemon), Rc::clone(executor), place, stream, address)).detach();
}

/// Whose place a connection takes. Connections of a trusted proxy are many viewers': each counts for itself.
fn network(pages: &Pages, address: IpAddr) -> Option<IpAddr> {
    let is_proxy = pages.trusted_proxies.iter().any(|proxy| proxy.contains(address));
    (!is_proxy).then(|| heads::network(address))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn assert_has_all_options(socket: &SockRef<'_>) {
        let board = &board::HOST;
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), board.notsent_size_max);
        let timeout = Duration::from_millis(board.user_timeout_ms.into());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(timeout));
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * board.send_buffer_size as usize);
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * board.receive_buffer_size as usize);
    }

    fn accepted(listener: &Async<TcpListener>, options: Option<&Board>) -> TcpStream {
        smol::block_on(listener.readable()).unwrap();
        take(listener.get_ref(), options).unwrap().0
    }

    #[test]
    fn a_kernel_without_an_option_is_served_with_and_one_that_refuses_it_is_not() {
        for errno in [Errno::NOPROTOOPT, Errno::OPNOTSUPP] {
            let told = Once::new();
            optional(Err(io::Error::from_raw_os_error(errno.raw_os_error())), "AN_OPTION", "", &told).unwrap();
            assert!(told.is_completed());
        }
        let told = Once::new();
        let refused = io::Error::from_raw_os_error(Errno::INVAL.raw_os_error());
        assert!(optional(Err(refused), "AN_OPTION", "", &told).is_err() && !told.is_completed());
    }

    #[test]
    fn an_accepted_socket_has_all_of_its_options_from_the_listener() {
        let listener = listener("127.0.0.1:0".parse().unwrap(), &board::HOST).unwrap();
        let mut peer = TcpStream::connect(listener.get_ref().local_addr().unwrap()).unwrap();
        // Before that it is not handed over.
        peer.write_all(b"G").unwrap();
        assert_has_all_options(&SockRef::from(&accepted(&listener, None)));
    }

    #[test]
    fn a_listener_that_was_passed_on_is_as_our_own() {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = passed.local_addr().unwrap();
        let adopted = adopted(passed, &board::HOST).unwrap();
        assert!(SockRef::from(&adopted).nonblocking().unwrap());
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(b"G").unwrap();
        assert_has_all_options(&SockRef::from(&accepted(&adopted, None)));
    }

    #[test]
    fn one_that_waited_before_the_options_were_set_gets_them() {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = passed.local_addr().unwrap();
        let _peers = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let config = crate::config::Config::of_defaults(&board::HOST).unwrap();
        let listeners = bind(&config, vec![passed]).unwrap();
        let [socket] = &listeners.sockets[..] else { panic!("one was passed") };
        assert_eq!((&listeners.addresses[..], listeners.are_inherited), (&[address][..], true));
        let stream = accepted(socket, None);
        assert!(SockRef::from(&stream).linger().unwrap().is_none(), "it came too early");
        assert_has_all_options(&SockRef::from(&accepted(socket, Some(&config.board))));
    }
}
