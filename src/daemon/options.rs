//! Socket options that no safe API offers: neither std nor rustix nor socket2.
//!
//! Holds two of the crate's three `unsafe` calls, `getsockopt` and `setsockopt` on 32-bit words.
//! Guarantees that the kernel reads and writes within the given words. The caller knows what an
//! option means, and what to do if the kernel lacks it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Reads a socket option into words; returns the number of bytes that the kernel wrote.
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

/// Sets a socket option of one word.
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
