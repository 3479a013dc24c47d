//! Writes to sockets without waiting: to one page by a call of its own, or to many pages by one
//! call for all (io_uring), if the kernel supports and allows it and the configuration enables it.
//!
//! Owns the ring for such a batch. Nothing is in flight between two calls: each request carries
//! `MSG_DONTWAIT`, so the kernel has completed all of them when the call returns, and none outlives
//! its bytes. After an error the ring is dropped, and a batch is a loop from then on. Doesn't know
//! pages.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use relay::transmit::{SLICES_MAX, Slices};
use rustix::io::Errno;
use rustix::net::SendFlags;

pub use self::batch::Batch;

/// Bytes that a socket took; 0 if it is full.
pub type Taken = Result<usize, Errno>;

/// Sockets of one batch, at most: about 1.2 ms in the kernel, during which nothing else runs.
/// Smaller batches gain less, larger ones a little more: a batch of 64 sockets costs 0.92 of as
/// many calls, one of 1 000 costs 0.84 (docs/performance.md).
pub const BATCH_SIZE_MAX: usize = 256;

/// One `writev`, as a direct system call: the C library would check for thread cancellation at each
/// call.
pub fn send_slices(socket: BorrowedFd<'_>, slices: &Slices<'_>) -> Taken {
    match slices.as_slice() {
        // Most deliveries are one slice, and `send` is the kernel's shorter path.
        [slice] => send(socket, slice),
        slices => {
            let slices: heapless::Vec<_, SLICES_MAX> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            again(|| rustix::io::writev(socket, &slices))
        }
    }
}

/// One `send`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Taken {
    again(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
}

fn again(call: impl Fn() -> Taken) -> Taken {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            result => return result,
        }
    }
}

/// What each socket of a batch took, in order.
pub type TakenByEach = heapless::Vec<Taken, BATCH_SIZE_MAX>;

/// A socket, and the bytes for it.
pub type Parcel<'a> = (BorrowedFd<'a>, &'a [u8]);

fn send_each<'a>(parcels: impl Iterator<Item = Parcel<'a>>, taken: &mut TakenByEach) {
    taken.clear();
    taken.extend(parcels.take(BATCH_SIZE_MAX).map(|(socket, bytes)| send(socket, bytes)));
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod batch {
    use std::io;
    use std::os::fd::AsRawFd;

    use io_uring::{IoUring, Probe, opcode, types::Fd};
    use rustix::io::Errno;

    use super::{BATCH_SIZE_MAX, Parcel, Taken, TakenByEach, send, send_each};

    /// Entries of the ring, a power of two.
    const ENTRIES: u32 = 256;
    const _: () = assert!(ENTRIES as usize == BATCH_SIZE_MAX);

    /// Marks a request that the kernel has not completed.
    const NOT_YET: Taken = Err(Errno::INPROGRESS);

    /// Sends to many sockets.
    pub struct Batch {
        pub(super) ring: Option<IoUring>,
    }

    impl Batch {
        /// Uses a ring if one is wanted and the kernel provides it, else a loop.
        pub fn open(wants_ring: bool) -> Self {
            let ring =
                if wants_ring { ring().inspect_err(|error| log::debug!("no io_uring: {error}")).ok() } else { None };
            Self { ring }
        }

        /// Sends to each socket its bytes, to at most [`BATCH_SIZE_MAX`], without waiting. `false`
        /// if the kernel may still read the bytes of those with an error: the ring failed.
        pub fn send<'a>(&mut self, parcels: impl Iterator<Item = Parcel<'a>> + Clone, taken: &mut TakenByEach) -> bool {
            let Some(ring) = &mut self.ring else {
                send_each(parcels, taken);
                return true;
            };
            taken.clear();
            let Err(error) = send_by(ring, parcels.clone(), taken) else { return true };
            log::warn!("io_uring failed; from now on each page is written to by a call of its own: {error}");
            let is_over =
                ring.submission().len() + taken.iter().filter(|taken| **taken != NOT_YET).count() == taken.len();
            self.ring = None;
            if is_over {
                // Requests that the kernel did not take were not sent; dropping the ring discarded
                // them.
                for (taken, (socket, bytes)) in taken.iter_mut().zip(parcels).filter(|(taken, _)| **taken == NOT_YET) {
                    *taken = send(socket, bytes);
                }
            }
            is_over
        }
    }

    fn ring() -> io::Result<IoUring> {
        let ring = IoUring::builder().dontfork().build(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if probe.is_supported(opcode::Send::CODE) { Ok(ring) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Submits one send for each socket and waits until all are completed.
    ///
    /// # Errors
    /// The ring's own; what was not completed is left as [`NOT_YET`].
    fn send_by<'a>(
        ring: &mut IoUring,
        parcels: impl Iterator<Item = Parcel<'a>>,
        taken: &mut TakenByEach,
    ) -> io::Result<()> {
        let mut requests = ring.submission();
        for (index, (socket, bytes)) in parcels.take(BATCH_SIZE_MAX).enumerate() {
            let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let request = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), size)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(index as u64);
            #[expect(
                unsafe_code,
                reason = "the kernel reads `bytes` until the request is done, which is before this returns"
            )]
            let pushed = unsafe { requests.push(&request) };
            pushed.map_err(io::Error::other)?;
            let _ = taken.push(NOT_YET);
        }
        drop(requests);
        let mut left = taken.len();
        while left > 0 {
            let waited = ring.submit_and_wait(left);
            for done in ring.completion() {
                let place = usize::try_from(done.user_data()).ok().and_then(|index| taken.get_mut(index));
                if let Some(place) = place.filter(|place| **place == NOT_YET) {
                    *place = result(done.result());
                    left -= 1;
                }
            }
            match waited {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Result of a request: bytes, or a negative error number.
    fn result(result: i32) -> Taken {
        if result == -libc::EAGAIN || result == -libc::EINTR {
            return Ok(0);
        }
        usize::try_from(result).map_err(|_| Errno::from_raw_os_error(result.saturating_neg()))
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod batch {
    use super::{Parcel, TakenByEach, send_each};

    /// Sends to many sockets.
    pub struct Batch;

    impl Batch {
        /// Always a loop: the io_uring crate doesn't support this processor.
        pub fn open(_wants_ring: bool) -> Self {
            Self
        }

        /// Sends to each socket its bytes, to at most [`super::BATCH_SIZE_MAX`], without waiting.
        pub fn send<'a>(&mut self, parcels: impl Iterator<Item = Parcel<'a>> + Clone, taken: &mut TakenByEach) -> bool {
            send_each(parcels, taken);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    #[test]
    fn each_socket_takes_what_it_can_and_none_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for wants_ring in [true, false] {
            let mut batch = Batch::open(wants_ring);
            let mut taken = TakenByEach::new();
            let pairs: Vec<_> = (0..40).map(|_| pair(&listener)).collect();
            // Socket 3 is full, 4 has room for a part, 5 is shut down for writing.
            let bytes = vec![7; 30_000];
            let settled = std::time::Duration::from_millis(50);
            // The kernel may still be moving data to the peer, which frees room again.
            for round in 0.. {
                let mut sent = 0;
                while let Some(size) = send(pairs[3].0.as_fd(), &bytes).ok().filter(|size| *size > 0) {
                    sent += size;
                }
                if round > 0 && sent == 0 {
                    break;
                }
                std::thread::sleep(settled);
            }
            while send(pairs[4].0.as_fd(), &bytes).unwrap() == bytes.len() {}
            let mut nowhere = vec![0; 20 * bytes.len()];
            let room = (&pairs[4].1).read(&mut nowhere).unwrap();
            assert!(room > 0);
            pairs[5].0.shutdown(std::net::Shutdown::Write).unwrap();
            for _ in 0..3 {
                batch.send(pairs.iter().map(|(near, _)| (near.as_fd(), &bytes[..])), &mut taken);
                assert_eq!(taken.len(), pairs.len());
                assert_eq!(taken[3], Ok(0), "ring: {wants_ring}");
                assert_eq!(taken[5], Err(Errno::PIPE));
            }
            for (at, (_, far)) in pairs.iter().enumerate().filter(|(at, _)| !(3..=5).contains(at)) {
                assert_eq!(taken[at], Ok(bytes.len()));
                let mut read = vec![0; 3 * bytes.len()];
                (&*far).read_exact(&mut read).unwrap();
                assert!(read.iter().all(|byte| *byte == 7), "socket {at}");
            }
        }
    }

    #[test]
    fn a_batch_of_the_most_and_of_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (near, mut far) = pair(&listener);
        for wants_ring in [true, false] {
            let mut batch = Batch::open(wants_ring);
            let mut taken = TakenByEach::new();
            batch.send(std::iter::empty(), &mut taken);
            assert!(taken.is_empty());
            // One more than fits is left out.
            batch.send(std::iter::repeat_n((near.as_fd(), &b"xyz"[..]), BATCH_SIZE_MAX + 1), &mut taken);
            assert!(taken.len() == BATCH_SIZE_MAX && taken.iter().all(|taken| *taken == Ok(3)));
            let mut read = [0; 3 * BATCH_SIZE_MAX];
            far.read_exact(&mut read).unwrap();
            assert!(read.chunks(3).all(|piece| piece == b"xyz"));
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn a_ring_that_fails_is_given_up_and_nobody_misses_a_byte_or_gets_it_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..40).map(|_| pair(&listener)).collect();
        // The kernel refuses to enter a ring that is still disabled.
        let Ok(ring) = io_uring::IoUring::builder().setup_r_disabled().build(256) else {
            assert!(Batch::open(true).ring.is_none(), "this kernel has rings, but none that begins disabled");
            return;
        };
        let mut batch = Batch { ring: Some(ring) };
        let mut taken = TakenByEach::new();
        for piece in [b"one", b"two"] {
            assert!(batch.send(pairs.iter().map(|(near, _)| (near.as_fd(), &piece[..])), &mut taken));
            assert!(taken.len() == pairs.len() && taken.iter().all(|taken| *taken == Ok(3)), "{taken:?}");
            assert!(batch.ring.is_none());
        }
        for (near, far) in pairs {
            drop(near);
            let mut read = Vec::new();
            (&far).read_to_end(&mut read).unwrap();
            assert_eq!(read, b"onetwo");
        }
    }
}
