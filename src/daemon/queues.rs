//! What a socket holds in the kernel, asked of the kernel itself (`SO_MEMINFO`, Linux 4.12 and later).
//!
//! One of the crate's two `unsafe` calls: neither std nor rustix nor socket2 has it, `/proc/net/tcp` costs a line of text
//! for every socket of the machine, and the memory sum's largest term can't be kept without it.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use smol::Async;

use super::Daemon;

/// `SK_MEMINFO_WMEM_QUEUED` and `SK_MEMINFO_OPTMEM` of linux/sock_diag.h: what waits to go or to be acknowledged, options.
const GOING: [usize; 2] = [5, 6];
/// `SK_MEMINFO_RMEM_ALLOC` and `SK_MEMINFO_BACKLOG`: what came and waits, what came while the socket was held.
const COME: [usize; 2] = [0, 7];
/// Where `SO_MEMINFO` says what a TCP peer has not acknowledged: `SK_MEMINFO_WMEM_QUEUED`.
pub const TCP: usize = 5;
/// And what a peer at a Unix socket has not read: `SK_MEMINFO_WMEM_ALLOC`.
pub const UNIX: usize = 2;
/// `SK_MEMINFO_VARS`.
const VARS: usize = 9;

/// Reads what the machine wants to know, and lets it draw its conclusions.
pub fn measure(daemon: &Daemon) {
    let full = daemon.config.borrow().board.send_buffer_size.saturating_mul(2);
    loop {
        let Some(page) = daemon.relay.borrow_mut().poll_measure() else { break };
        let (going, come) = match daemon.connections.borrow().get(page).map(|connection| memory(&connection.stream)) {
            Some(Ok(held)) => held,
            // A kernel that doesn't say (qemu-user): a socket that takes no more counts as full.
            Some(Err(_)) if daemon.relay.borrow().is_blocked(page) => (full, 0),
            Some(Err(_)) | None => (0, 0),
        };
        daemon.relay.borrow_mut().handle_measured(page, going, come);
    }
    daemon.step(|relay, now| relay.handle_measures_done(now));
}

/// Bytes that wait for a socket's peer, with the kernel's own overhead: at least one where there are any. None where the
/// kernel doesn't say.
pub fn untaken(socket: &impl AsRawFd, of: usize) -> Option<u32> {
    meminfo(socket).ok()?.get(of).copied()
}

/// The bytes that a socket holds in the kernel, going and come, with the kernel's own overhead.
fn memory(stream: &Async<TcpStream>) -> io::Result<(u32, u32)> {
    let vars = meminfo(stream)?;
    let sum = |which: [usize; 2]| {
        which.iter().filter_map(|var| vars.get(*var)).fold(0, |sum: u32, bytes| sum.saturating_add(*bytes))
    };
    Ok((sum(GOING), sum(COME)))
}

fn meminfo(socket: &impl AsRawFd) -> io::Result<[u32; VARS]> {
    let mut vars = [0_u32; VARS];
    let mut size = libc::socklen_t::try_from(size_of_val(&vars)).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "SO_MEMINFO is in no safe API; the kernel writes at most `size` bytes into `vars`")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            vars.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(vars)
}
