//! What a socket holds in the kernel (`SO_MEMINFO`, Linux 4.12 and later), and how much of its data
//! the peer has acknowledged (`TCP_INFO`, Linux 4.1 and later).
//!
//! Owns the meaning of the numbers in both. The first bounds the memory sum's largest term; the
//! second distinguishes an answer that a slow line takes from one that nobody takes.
//! `/proc/net/tcp` would cost a line of text for every socket of the box. Decides nothing: the
//! machine and `delivery.rs` do.

use std::io;
use std::os::fd::AsFd;

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use super::stream::Stream;
use super::{Daemon, options};

/// `SK_MEMINFO_WMEM_QUEUED` and `SK_MEMINFO_OPTMEM` of linux/sock_diag.h: data to send or to be
/// acknowledged, and options.
const GOING: [usize; 2] = [5, 6];
/// `SK_MEMINFO_RMEM_ALLOC` and `SK_MEMINFO_BACKLOG`: received data, and data that arrived while the
/// socket was locked.
const COME: [usize; 2] = [0, 7];
/// Index in `SO_MEMINFO` of what a TCP peer has not acknowledged: `SK_MEMINFO_WMEM_QUEUED`.
const TCP: usize = 5;
/// Index of what a peer at a Unix socket has not read: `SK_MEMINFO_WMEM_ALLOC`.
const UNIX: usize = 2;
/// `SK_MEMINFO_VARS`.
const VARS: usize = 9;
/// Words of `tcp_info` (linux/tcp.h) up to `tcpi_bytes_acked`, which takes the last two, in the
/// machine's byte order.
const INFO: usize = 32;

/// Measures the pages that the machine names; then the machine cuts pages if the kernel holds too
/// much.
pub fn measure(daemon: &Daemon) {
    let full = daemon.config.borrow().board.send_buffer_size.saturating_mul(2);
    loop {
        let Some(page) = daemon.relay.borrow_mut().poll_measure() else { break };
        let (going, come) = match daemon.connections.borrow().get(page).map(|connection| memory(&connection.stream)) {
            Some(Ok(held)) => held,
            // A kernel without it (qemu-user): a socket that is full counts as full.
            Some(Err(_)) if daemon.relay.borrow().is_blocked(page) => (full, 0),
            Some(Err(_)) | None => (0, 0),
        };
        daemon.relay.borrow_mut().handle_measured(page, going, come);
    }
    daemon.step(|relay, now| relay.handle_measures_done(now));
}

/// Bytes that wait for a stream's peer, with the kernel's overhead; not 0 while any wait. `None` if
/// the kernel doesn't report it.
pub fn untaken(stream: &Stream) -> Option<u32> {
    let of = if socket_domain(stream).ok()? == AddressFamily::UNIX { UNIX } else { TCP };
    meminfo(stream).ok()?.get(of).copied()
}

/// Bytes that a socket holds in the kernel, outgoing and incoming, with the kernel's overhead.
fn memory(stream: &Stream) -> io::Result<(u32, u32)> {
    let vars = meminfo(stream)?;
    let sum = |which: [usize; 2]| {
        which.iter().filter_map(|var| vars.get(*var)).fold(0, |sum: u32, bytes| sum.saturating_add(*bytes))
    };
    Ok((sum(GOING), sum(COME)))
}

fn meminfo(socket: &impl AsFd) -> io::Result<[u32; VARS]> {
    let mut vars = [0_u32; VARS];
    options::read(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut vars)?;
    Ok(vars)
}

/// Bytes that the peer's kernel has acknowledged since the connection began; our FIN counts as one.
/// `None` if the connection is over.
///
/// # Errors
/// The kernel doesn't report it.
pub fn acknowledged(stream: &Stream) -> io::Result<Option<u64>> {
    /// `TCP_CLOSE`, in the first byte of `tcp_info`.
    const CLOSED: u8 = 7;
    let mut info = [0_u32; INFO];
    if options::read(stream, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)? < size_of_val(&info) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let [first, .., low, high] = info;
    let [low, high] = if cfg!(target_endian = "little") { [low, high] } else { [high, low] };
    let [state, ..] = first.to_ne_bytes();
    Ok((state != CLOSED).then_some(u64::from(high) << 32 | u64::from(low)))
}
