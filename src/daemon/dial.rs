//! Dialling the business server: from an entry of `uplink.addresses` to a connected stream.
//!
//! Owns the order in which the addresses of one entry are tried, and when the next one is (RFC
//! 8305): a name may have several, and one that doesn't answer must not cost the whole dial. Which
//! entry is dialled, and for how long, is the machine's. Sets the socket options. Doesn't know what
//! is said on the connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Once;
use std::task::Poll;
use std::time::Duration;

use smol::Timer;
use socket2::{Domain, SockRef};

use super::listen;
use super::resolve::{Resolver, Unresolved, index_of};
use super::stream::Stream;
use crate::config::UplinkAddress;

/// Kernel buffers of the uplink's socket, as requested (Linux doubles them).
const KERNEL_BUFFER_SIZE: usize = 128 * 1024;

/// Unsent bytes in the kernel, at most. More would delay requests for links, which queue behind
/// them.
const UNSENT_SIZE_MAX: u32 = 16 * 1024;
static NO_NOTSENT_LOWAT: Once = Once::new();

/// While no address of an entry has answered, the next one is tried after this time: the 16 of a
/// name fit into a dial.
const NEXT_AFTER: Duration = Duration::from_millis(NEXT_AFTER_MS);
const NEXT_AFTER_MS: u64 = 250;
const _: () = assert!(16 * NEXT_AFTER_MS < relay::DIAL_MS_MAX);
/// Addresses that are tried at the same time: a fifth takes the place of the first, which has had a
/// second. Each takes a descriptor.
const ATTEMPTS_MAX: usize = 4;
/// Addresses to avoid that are remembered, for all entries: those that answered, and then failed.
const AVOIDED_MAX: usize = 64;

/// One address of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why an entry has no address to dial.
#[derive(Debug)]
pub enum NoTarget {
    /// The name of the host.
    Name(Unresolved),
    /// The interface.
    Interface(io::Error),
}

/// The addresses of an entry, in the order in which they are tried.
///
/// # Errors
/// A name, or an interface, that isn't there.
pub async fn targets(resolver: &Resolver, entry: &UplinkAddress) -> Result<Vec<Target>, NoTarget> {
    Ok(match entry {
        UplinkAddress::Tcp(address) => vec![Target::Tcp(*address)],
        UplinkAddress::LinkLocal(ip, port, interface) => {
            let index = index_of(interface).map_err(NoTarget::Interface)?;
            vec![Target::Tcp(SocketAddrV6::new(*ip, *port, 0, index).into())]
        }
        UplinkAddress::Name(name, port) => {
            let ips = resolver.resolve(name).await.map_err(NoTarget::Name)?;
            ips.into_iter().map(|ip| Target::Tcp((ip, *port).into())).collect()
        }
        UplinkAddress::Unix(path) => vec![Target::Unix(path.clone())],
    })
}

type Attempt = Pin<Box<dyn Future<Output = Result<(Stream, Target), (Target, io::Error)>>>>;

/// Connects to the first target that answers; the others are tried in their order, each after
/// [`NEXT_AFTER`] or once an earlier one failed. At least one.
///
/// # Errors
/// That of the first target that failed for a reason of its own, or else of the last one: that
/// there is no way to an address says little if there are others.
pub async fn connect(targets: Vec<Target>) -> io::Result<(Stream, Target)> {
    let is_one = targets.len() == 1;
    let mut rest = targets.into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut next = Timer::never();
    let mut fault = io::Error::from(io::ErrorKind::AddrNotAvailable);
    poll_fn(|context| {
        loop {
            let count = attempts.len();
            let mut index = 0;
            while let Some(attempt) = attempts.get_mut(index) {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(Ok(found)) => return Poll::Ready(Ok(found)),
                    Poll::Ready(Err((target, error))) => {
                        if !says_something(&fault) {
                            fault = if is_one { error } else { named(&target, &error) };
                        }
                        drop(attempts.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            let is_due = attempts.len() < count || Pin::new(&mut next).poll(context).is_ready();
            if !attempts.is_empty() && !is_due {
                return Poll::Pending;
            }
            match rest.next() {
                Some(target) => {
                    if attempts.len() == ATTEMPTS_MAX {
                        drop(attempts.remove(0));
                    }
                    attempts.push(Box::pin(open(target)));
                    next = Timer::after(NEXT_AFTER);
                }
                None if attempts.is_empty() => {
                    return Poll::Ready(Err(std::mem::replace(&mut fault, io::ErrorKind::Other.into())));
                }
                None => {
                    next = Timer::never();
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

async fn open(target: Target) -> Result<(Stream, Target), (Target, io::Error)> {
    let opened = match &target {
        Target::Tcp(address) => Stream::connect_tcp(*address).await,
        Target::Unix(path) => Stream::connect_unix(path).await,
    };
    match opened.and_then(|stream| prepare(&stream).map(|()| stream)) {
        Ok(stream) => Ok((stream, target)),
        Err(error) => Err((target, error)),
    }
}

/// Whether an error says more than that there is no way to an address.
fn says_something(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    !matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable)
}

/// An error with the address that it is of.
fn named(target: &Target, error: &io::Error) -> io::Error {
    match target {
        Target::Tcp(address) => io::Error::new(error.kind(), format!("{}: {error}", address.ip())),
        Target::Unix(path) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
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

/// Addresses that answered and then failed before the uplink was up. They are tried last, so that
/// one bad address of a name doesn't hide the others.
#[derive(Clone, Debug, Default)]
pub struct Avoided(Vec<Target>);

impl Avoided {
    /// Moves the addresses to avoid behind the others. If there are no others, they are avoided no
    /// longer: each has had its turn.
    pub fn put_last(&mut self, targets: &mut [Target]) {
        if targets.iter().all(|target| self.0.contains(target)) {
            self.0.retain(|avoided| !targets.contains(avoided));
        }
        targets.sort_by_key(|target| self.0.contains(target));
    }

    /// The handshake with this address failed.
    pub fn add(&mut self, target: &Target) {
        if self.0.len() >= AVOIDED_MAX {
            self.0.remove(0);
        }
        if !self.0.contains(target) {
            self.0.push(target.clone());
        }
    }

    /// The uplink was up at this address.
    pub fn forget(&mut self, target: &Target) {
        self.0.retain(|avoided| avoided != target);
    }
}

/// An entry with the address that answered, as the log has it.
pub struct Peer<'a>(pub &'a UplinkAddress, pub Option<&'a Target>);

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(entry @ UplinkAddress::Name(..), Some(Target::Tcp(address))) => {
                write!(f, "{entry} ({})", address.ip())
            }
            Self(entry, _) => write!(f, "{entry}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::super::socket_queues;
    use super::*;

    /// An address that doesn't answer: its backlog of one is taken.
    fn silent() -> (TcpListener, Vec<TcpStream>, Target) {
        let socket = socket2::Socket::new(Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let fill = |_| {
            let socket = socket2::Socket::new(Domain::IPV4, socket2::Type::STREAM.nonblocking(), None).unwrap();
            let _ = socket.connect(&address.into());
            TcpStream::from(socket)
        };
        (listener, (0..4).map(fill).collect(), Target::Tcp(address))
    }

    /// An address that refuses: bound, but not listened on.
    fn closed() -> (socket2::Socket, Target) {
        let socket = socket2::Socket::new(Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, Target::Tcp(address))
    }

    #[test]
    fn the_first_address_that_answers_is_taken_and_silence_costs_a_quarter_of_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = Target::Tcp(listener.local_addr().unwrap());
        let (_listener, _taken, silent) = silent();
        let ((_one, closed), (_other, also_closed)) = (closed(), closed());
        for targets in [
            vec![good.clone(), closed.clone()],
            vec![closed.clone(), good.clone()],
            vec![silent.clone(), good.clone()],
            vec![closed.clone(), silent.clone(), also_closed.clone(), silent.clone(), good.clone()],
            vec![Target::Unix("/nowhere/b".into()), good.clone()],
        ] {
            let (_, found) = smol::block_on(connect(targets.clone())).unwrap();
            assert_eq!(found, good, "{targets:?}");
        }
        // More are silent than are tried at the same time; the last is found within a dial's time.
        let many = [vec![silent; ATTEMPTS_MAX + 1], vec![good.clone()]].concat();
        let late = async {
            Timer::after(Duration::from_millis(relay::DIAL_MS_MAX)).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        assert_eq!(smol::block_on(smol::future::or(connect(many), late)).unwrap().1, good);
        // There is no way by TCP to a broadcast address.
        let nowhere = Target::Tcp(SocketAddr::from(([255, 255, 255, 255], 9)));
        for targets in [vec![closed.clone(), nowhere.clone()], vec![nowhere, closed.clone(), also_closed]] {
            let error = smol::block_on(connect(targets)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
            assert!(error.to_string().starts_with("127.0.0.1: "), "{error}");
        }
        assert!(smol::block_on(connect(Vec::new())).is_err());
    }

    #[test]
    fn an_address_that_fails_after_it_answered_has_its_next_turn_after_the_others() {
        let [a, b, c] = [1, 2, 3].map(|port| Target::Tcp(SocketAddr::from(([10, 0, 0, 1], port))));
        let mut avoided = Avoided::default();
        let order = |avoided: &mut Avoided| {
            let mut targets = vec![a.clone(), b.clone(), c.clone()];
            avoided.put_last(&mut targets);
            targets
        };
        for expected in [&a, &b, &c, &a] {
            let targets = order(&mut avoided);
            assert_eq!(targets[0], *expected);
            avoided.add(&targets[0]);
        }
        assert_eq!(order(&mut avoided), [b.clone(), c.clone(), a.clone()]);
        avoided.forget(&a);
        assert_eq!(order(&mut avoided), [a.clone(), b.clone(), c.clone()]);
        (0..1_000).for_each(|port| avoided.add(&Target::Tcp(SocketAddr::from(([10, 0, 0, 2], port)))));
        assert_eq!(avoided.0.len(), AVOIDED_MAX);
    }

    #[test]
    fn the_kernel_says_what_a_peer_has_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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
            while socket_queues::untaken(&near) >= before {
                let _ = far.read(&mut nowhere);
            }
        }
    }
}
