//! Listening: binds the pages' addresses, or adopts the service manager's listeners; accepts in
//! batches.
//!
//! Every connection begins as an HTTP request in one of a fixed number of places; `heads.rs` evicts
//! when they run short. The kernel's backlog is a FIFO, so it is emptied quickly: accepting waits
//! only while every place has an answer that makes progress. Some descriptors are reserved for the
//! console and the uplink. A kernel without some TCP option is supported; the log names the option.

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
use crate::config::Pages;
use board::Board;

/// Connections accepted in one turn. As many may be evicted for them, and close when they get their
/// turn.
const BATCH: usize = 16;
/// Pause of accepting when descriptors or memory have run out.
const REST: Duration = Duration::from_millis(100);
/// Poll interval for a free place.
const PLACE_WAIT: Duration = Duration::from_millis(5);

/// The pages' listeners of one kind.
#[derive(Default)]
pub struct Listeners {
    /// In the order of `addresses`.
    pub sockets: Vec<Rc<Async<TcpListener>>>,
    /// Their actual addresses (port 0 picks any).
    pub addresses: Vec<SocketAddr>,
    /// The service manager holds them too and keeps them open after this relay: during a drain new
    /// connections are left to the next relay.
    pub are_inherited: bool,
    /// Where the service manager listens for pages of a kind that is off: closed here.
    pub unserved: Vec<SocketAddr>,
}

/// Binds these addresses, or adopts the inherited listeners instead.
pub fn bind(addresses: &[SocketAddr], inherited: Vec<TcpListener>, board: &Board) -> Result<Listeners, DaemonError> {
    let mut listeners = Listeners { are_inherited: !inherited.is_empty(), ..Listeners::default() };
    let mut add = |listener: Async<TcpListener>, address| {
        listeners.addresses.push(listener.get_ref().local_addr().unwrap_or(address));
        listeners.sockets.push(Rc::new(listener));
    };
    if inherited.is_empty() {
        for &address in addresses {
            add(listener(address, board).map_err(|error| DaemonError::Listen(address, error))?, address);
        }
    }
    for socket in inherited {
        let address = socket.local_addr().map_err(DaemonError::Passed)?;
        add(adopted(socket, board).map_err(|error| DaemonError::Listen(address, error))?, address);
    }
    Ok(listeners)
}

/// Divides the board's backlog among all listeners: the memory sum counts it once.
pub fn share_backlog(kinds: [&Listeners; 2], board: &Board) -> Result<(), DaemonError> {
    let sockets: Vec<_> = kinds.iter().flat_map(|kind| &kind.sockets).collect();
    let share = (board.backlog_max as usize / sockets.len().max(1)).max(1);
    for socket in sockets.iter().filter(|_| sockets.len() > 1) {
        let address = socket.get_ref().local_addr().map_err(DaemonError::Passed)?;
        // A second `listen` only changes the backlog.
        let shared = SockRef::from(socket.get_ref()).listen(i32::try_from(share).unwrap_or(i32::MAX));
        shared.map_err(|error| DaemonError::Listen(address, error))?;
    }
    Ok(())
}

/// Gives an inherited listener the options of our own: the unit file can't set all of them, and
/// doesn't know the board.
fn adopted(socket: TcpListener, board: &Board) -> io::Result<Async<TcpListener>> {
    let socket = Socket::from(socket);
    prepare(&socket, board)?;
    // A second `listen` only changes the backlog.
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
        // One family for each listener: a configuration that wants both lists both.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    prepare(&socket, board)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(board.backlog_max).unwrap_or(i32::MAX))?;
    Async::new(socket.into())
}

/// Sets the options of the pages' sockets. Accepted sockets inherit them from the listener, so the
/// window is right from the first packet, and there is no system call for each connection.
fn prepare(socket: &Socket, board: &Board) -> io::Result<()> {
    socket.set_send_buffer_size(board.send_buffer_size as usize)?;
    socket.set_recv_buffer_size(board.receive_buffer_size as usize)?;
    // Without it, one stalled peer was seen to delay others by rounds of 40 ms.
    socket.set_tcp_nodelay(true)?;
    let unsent = socket.set_tcp_notsent_lowat(board.notsent_size_max);
    optional(unsent, "TCP_NOTSENT_LOWAT", "a slow page skips later, after what its socket holds", &NO_NOTSENT_LOWAT)?;
    let timeout = Duration::from_millis(board.user_timeout_ms.into());
    let timeout = socket.set_tcp_user_timeout(Some(timeout));
    optional(timeout, "TCP_USER_TIMEOUT", "a page whose connection is cut is detected later", &NO_USER_TIMEOUT)?;
    let deferred = options::set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, DEFERRED_S);
    optional(deferred, "TCP_DEFER_ACCEPT", "a silent connection takes an HTTP place", &NO_DEFER_ACCEPT)?;
    // SO_LINGER of 0: dropping a socket discards its queues. Otherwise the kernel would keep them,
    // uncounted, for as long as a peer doesn't read. An orderly close waits for the peer to close
    // first.
    socket.set_linger(Some(Duration::ZERO))
}

/// The kernel hands over a connection when its request has arrived, or after about this many
/// seconds; a silent one takes no place until then. The shortest that the kernel supports.
const DEFERRED_S: u32 = 1;

static NO_DEFER_ACCEPT: Once = Once::new();
static NO_NOTSENT_LOWAT: Once = Once::new();
static NO_USER_TIMEOUT: Once = Once::new();

/// Accepts the failure of a TCP option that the relay can do without. A kernel without it (an old
/// one, or one in user space) gets one log line that states the consequence.
///
/// # Errors
/// Any other error.
pub fn optional(result: io::Result<()>, name: &str, consequence: &str, logged: &Once) -> io::Result<()> {
    let Err(error) = &result else { return Ok(()) };
    let unknown = [Errno::NOPROTOOPT, Errno::OPNOTSUPP, Errno::NOSYS].map(|errno| Some(errno.raw_os_error()));
    if !unknown.contains(&error.raw_os_error()) {
        return result;
    }
    logged.call_once(|| log::warn!("this kernel has no {name} ({error}): {consequence}"));
    Ok(())
}

/// Raises the limit of open descriptors to what the pages need; logs a warning if that is not
/// allowed.
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

/// Accepts connections for as long as the daemon runs; by TLS if `is_tls`.
pub async fn accept(
    daemon: Rc<Daemon>,
    executor: Rc<LocalExecutor<'static>>,
    listener: Rc<Async<TcpListener>>,
    is_tls: bool,
) {
    // Connections may have queued in an inherited listener before its options were set.
    let mut are_waiting = daemon.holds(is_tls);
    loop {
        if let Err(error) = listener.readable().await {
            log::warn!("can't poll a listener: {error}");
            Timer::after(REST).await;
        }
        for number in 0..BATCH {
            if !has_descriptors(&daemon) {
                // A connection waits. An evicted one frees a descriptor too.
                if number == 0 && !daemon.heads.borrow_mut().cut_one(daemon.clock.now()) {
                    Timer::after(REST).await;
                }
                break;
            }
            if !daemon.heads.borrow_mut().has_room(daemon.clock.now()) {
                // Let the newest connections be read first: they may be answered at once.
                future::yield_now().await;
            }
            while !daemon.heads.borrow_mut().has_room(daemon.clock.now()) {
                Timer::after(PLACE_WAIT).await;
            }
            let taken = take(listener.get_ref(), are_waiting.then_some(&daemon.config.borrow().board));
            match taken {
                Ok((stream, address)) => begin(&daemon, &executor, stream, address, is_tls),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    are_waiting = false;
                    break;
                }
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    let now = daemon.clock.now();
                    let line = format!("can't accept connections now: {error}");
                    daemon.logged.borrow_mut().log(log::Level::Warn, now, &line);
                    Timer::after(REST).await;
                    break;
                }
            }
        }
        future::yield_now().await;
    }
}

/// Accepts one connection; sets its `options` if it may have queued before the listener had them.
fn take(listener: &TcpListener, options: Option<&Board>) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept()?;
    if let Some(board) = options {
        // An error means that the peer is gone, which the next read reports.
        let _ = prepare(&SockRef::from(&stream), board);
    }
    Ok((stream, address))
}

/// Whether one more connection leaves the reserved descriptors free. A flood of the pages' port
/// must not lock an engineer out of the console, or the relay out of its business server. HTTP
/// connections return theirs within the timeout for a head.
fn has_descriptors(daemon: &Daemon) -> bool {
    let Some(allowed) = getrlimit(Resource::Nofile).current else { return true };
    let used = u64::from(daemon.relay.borrow().pages()) + u64::from(daemon.heads.borrow().count());
    let has_some = used + board::DESCRIPTORS_EXTRA < allowed;
    if !has_some {
        let line = format!(
            "can't accept connections now: {allowed} open files are allowed, and the last {} \
             are reserved for the console and the business server",
            board::DESCRIPTORS_EXTRA
        );
        daemon.logged.borrow_mut().log(log::Level::Warn, daemon.clock.now(), &line);
    }
    has_some
}

/// Errors of `accept(2)` that concern one connection, which is gone.
fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn begin(
    daemon: &Rc<Daemon>,
    executor: &Rc<LocalExecutor<'static>>,
    stream: TcpStream,
    address: SocketAddr,
    is_tls: bool,
) {
    let stream = match Stream::new(stream) {
        Ok(stream) => stream,
        Err(error) => {
            log::debug!("a connection was dropped at once: {error}");
            return;
        }
    };
    // A dual-stack listener, which only a unit file can create, reports IPv4 addresses as
    // IPv4-mapped IPv6.
    let address = address.ip().to_canonical();
    let network = network(&daemon.config.borrow().pages, address);
    let place = daemon.heads.borrow_mut().enter(daemon.clock.now(), network);
    executor.spawn(http::serve(Rc::clone(daemon), Rc::clone(executor), place, stream, address, is_tls)).detach();
}

/// The network whose place a connection takes; none behind a trusted proxy, where each connection
/// is another viewer's.
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
            let logged = Once::new();
            optional(Err(io::Error::from_raw_os_error(errno.raw_os_error())), "AN_OPTION", "", &logged).unwrap();
            assert!(logged.is_completed());
        }
        let logged = Once::new();
        let refused = io::Error::from_raw_os_error(Errno::INVAL.raw_os_error());
        assert!(optional(Err(refused), "AN_OPTION", "", &logged).is_err() && !logged.is_completed());
    }

    #[test]
    fn an_accepted_socket_has_all_of_its_options_from_the_listener() {
        let listener = listener("127.0.0.1:0".parse().unwrap(), &board::HOST).unwrap();
        let mut peer = TcpStream::connect(listener.get_ref().local_addr().unwrap()).unwrap();
        // It is not handed over before that (TCP_DEFER_ACCEPT).
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
        let board = &board::HOST;
        let listeners = bind(&["127.0.0.1:0".parse().unwrap()], vec![passed], board).unwrap();
        let [socket] = &listeners.sockets[..] else { panic!("one was passed") };
        assert_eq!((&listeners.addresses[..], listeners.are_inherited), (&[address][..], true));
        let stream = accepted(socket, None);
        assert!(SockRef::from(&stream).linger().unwrap().is_none(), "it came too early");
        assert_has_all_options(&SockRef::from(&accepted(socket, Some(board))));
    }
}
