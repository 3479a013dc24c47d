//! Options of sockets that no safe API has: neither std nor rustix nor socket2.
//!
//! Two of the crate's three `unsafe` calls, `getsockopt` and `setsockopt` over words of 32 bits. Owns that the kernel reads
//! and writes within what it was given. What an option means, and what follows where the kernel doesn't have it, is the
//! caller's.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads an option of a socket into words; the bytes that the kernel wrote.
///
/// # Errors
/// The system's own.
pub fn read<const N: usize>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    into: &mut [u32; N],
) -> io::Result<usize> {
    let mut size = libc::socklen_t::try_from(size_of_val(into)).map_err(io::Error::other)?;
    let socket = socket.as_fd().as_raw_fd();
    #[expect(unsafe_code, reason = "the kernel writes at most `size` bytes into `into`, which lives until then")]
    let result = unsafe { libc::getsockopt(socket, level, name, into.as_mut_ptr().cast(), &raw mut size) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(size).map_err(io::Error::other)
}

/// Sets an option that is one word.
///
/// # Errors
/// The system's own.
pub fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    let socket = socket.as_fd().as_raw_fd();
    #[expect(unsafe_code, reason = "the kernel reads `size` bytes of `value`, which lives until then")]
    let result = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
