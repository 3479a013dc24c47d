//! The memory sum of a board: one term for each owner of memory, including sockets in the kernel.
//!
//! Owns the size of every row, slot and buffer that is multiplied by a board's limits; no other
//! place repeats these numbers. The code that defines a row asserts `const _: () =
//! assert!(size_of::<Session>() <= SESSION_SIZE)`. A size that `size_of` can't give was measured,
//! and its term says how. Refuses nothing: a rule in `rules.rs` compares the sum with the budget.
//! `board/build.rs` includes this file too, so it knows nothing of the machine.

use super::limits::{Board, TrackLimits};

/// One page's row in the session table: address, state, times, token buckets, pending notices.
pub const SESSION_SIZE: usize = 224;
/// One subscription: a cursor for each of the four tracks, its link, its topic, list links.
pub const SUBSCRIPTION_SIZE: usize = 112;
/// One share link: its text (128), grant, times, lists of waiting and of admitted subscriptions.
pub const LINK_SIZE: usize = 368;
/// One topic's row: the state of six rings, epoch, timers, the list of its subscriptions, the
/// publication being timed.
pub const TOPIC_SIZE: usize = 1056;
/// One frame's entry in the index of its ring.
pub const INDEX_ROW_SIZE: usize = 16;
/// One entry of a ring's block directory, and of the arena's list of free blocks.
pub const BLOCK_ENTRY_SIZE: usize = 4;
/// One pending request.
pub const REQUEST_SIZE: usize = 96;
/// One request that timed out, remembered for a late answer.
pub const UNANSWERED_SIZE: usize = 96;
/// One page that was denied by name.
pub const DENIAL_SIZE: usize = 72;
/// One answer to a page's message that waits for the page's socket.
pub const RECEIPT_SIZE: usize = 24;
/// One page's number, to find it by.
pub const NUMBER_SIZE: usize = 4;
/// One pending preview.
pub const PREVIEW_SIZE: usize = 32;
/// One reason that still has to be sent: 256 bytes and a count.
pub const TEXT_SIZE: usize = 272;
/// One network that pages connect from: its address, the number of its pages, and a bucket head of
/// the hash table.
pub const NETWORK_SIZE: usize = 40;
/// One `Origin` of pages: 256 bytes and a count, and a bucket head of the hash table.
pub const ORIGIN_SIZE: usize = 296;
/// One token bucket: of an address's subscriptions, or of its TLS handshakes.
pub const ADDRESS_SIZE: usize = 8;
/// One page's row in the fan-out's table of sockets.
pub const CONNECTION_SIZE: usize = 8;
/// One frame that pages are in the middle of. A page is in at most one.
pub const BEGUN_SIZE: usize = 56;

/// One idle page's connection, task and reactor source, with the allocator's overhead: measured as
/// 500 B.
pub const PAGE_TASK_SIZE: usize = 640;
/// One page's slot in the slabs of executor and reactor; doubled, because slabs grow by doubling.
pub const EXECUTOR_SLOT_SIZE: usize = 96;
/// A partly received frame from a page: in tungstenite's buffer, and assembled from fragments.
pub const PAGE_FRAME_SIZE: usize = 2 * 4096;
/// The share page with its meta tags: the largest response that is built for a single connection.
pub const SHARE_PAGE_SIZE: usize = 18 * 1024;
/// The page's files in plain, for peers that take no coding.
pub const PLAIN_FILES_SIZE: usize = 192 * 1024;
/// One HTTP connection that is not a page (yet): request head (8 KiB), response, place, task and
/// source.
pub const HEAD_SIZE: usize = 8192 + SHARE_PAGE_SIZE + 2048;
/// One TLS page's keys of both directions, and the record that its socket took in part.
pub const TLS_PAGE_SIZE: usize = 232;
/// The largest TLS record: a header, 16 KiB of plaintext, and what encryption may add (RFC 8446,
/// 5.2).
pub const TLS_RECORD_SIZE_MAX: usize = 5 + 16 * 1024 + 256;
/// One TLS connection in a place of the heads: rustls's state and its input, and half a record
/// once it has shaken hands.
pub const TLS_HEAD_SIZE: usize = 16 * 1024 + TLS_RECORD_SIZE_MAX;
/// Half a record that a page keeps, its place, and the allocator's overhead.
pub const TLS_HALF_RECORD_SIZE: usize = TLS_RECORD_SIZE_MAX + 128;
/// The thread's scratches: records of one batch that go out, one record that came in.
pub const TLS_SCRATCH_SIZE: usize = 256 * 1024 + 17 * 1024;
/// The maximum number of certificates.
pub const CERTIFICATES_MAX: usize = 8;
/// One certificate: its chain, the parsed key, what the console shows of it.
pub const CERTIFICATE_SIZE: usize = 17 * 1024;
/// A pair that is being read: a file, its decoded text, the bytes in it, at most 64 KiB each.
pub const CERTIFICATE_READ_SIZE: usize = 3 * 64 * 1024;
/// The keys of TLS tickets: those in force, their predecessors, and the next ones.
pub const TICKET_KEYS_SIZE: usize = 4 * 1024;
/// One uplink's TLS, of two while the first entry is probed: rustls's buffers (a handshake of 16
/// KiB at most, later a record in and one out), keys, certificates. Measured: 79 KB at most.
pub const UPLINK_TLS_SIZE: usize = 96 * 1024;
/// The uplink's input buffer beyond the largest publication: a frame's head, read-ahead, its own
/// fields.
pub const UPLINK_IN_EXTRA_SIZE: usize = 640 + 64 * 1024 + 64;
/// The rings of the last events and of the last log lines.
pub const EVENTS_SIZE: usize = 32 * 1024;
/// The maximum number of addresses that pages may connect to.
pub const LISTENERS_MAX: usize = 16;
/// The maximum number of engineers at the console's socket.
pub const CONSOLES_MAX: usize = 4;
/// One console: its output (8 KiB, and as much while an answer is built), its input line, its task.
pub const CONSOLE_SIZE: usize = 24 * 1024;
/// The maximum number of concurrent scrapers of the metrics.
pub const METRICS_MAX: u32 = 2;
/// The maximum size of the metrics as text, whatever their values.
pub const METRICS_SIZE: usize = 32 * 1024;
/// One scraper's further memory: a request head, its task.
pub const SCRAPER_SIZE: usize = 8192 + 2048;
/// The listen backlog for scrapers.
pub const METRICS_BACKLOG: usize = 4;
/// `SO_SNDBUF` of a scraper's socket, as requested (Linux doubles it).
pub const METRICS_SEND_SIZE: usize = 16 * 1024;
/// `SO_RCVBUF` of a scraper's socket, likewise.
pub const METRICS_RECEIVE_SIZE: usize = 4 * 1024;
/// The parsed configuration (the file has at most 64 KiB), and its successor during a reload.
pub const CONFIG_SIZE: usize = 4 * 64 * 1024;

/// Resident code and constants of the binary and of the C library.
pub const CODE_SIZE: usize = 4 * 1024 * 1024;
/// Resident stacks of the one thread and of async-io's helper, and the allocator's own state.
pub const STACKS_SIZE: usize = 1024 * 1024;

/// The memory that the fan-out's io_uring shares with the kernel: 256 requests of 64 bytes, 512
/// completions of 16, the queues.
pub const RING_SIZE: usize = 32 * 1024;

/// The kernel's objects for the io_uring: 256 requests of 256 bytes (slab io_kiocb, Linux 6.18),
/// kept for the next batch, and the ring itself.
pub const KERNEL_RING_SIZE: usize = 96 * 1024;
/// The kernel's objects for one open TCP socket with nothing queued.
pub const KERNEL_SOCKET_SIZE: usize = 4096;
/// Other sockets that may be open: listeners, uplink, console, metrics, a refused page.
pub const KERNEL_SOCKETS_EXTRA: u64 = 28;
/// The uplink socket's two queues in the kernel, as limited by its socket options.
pub const KERNEL_UPLINK_SIZE: usize = 512 * 1024;

/// How the size of a term is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A row of a table, tied to its `size_of` by a compile-time assertion.
    Row,
    /// A buffer of exactly this size.
    Buffer,
    /// Measured; the term's note says how.
    Measured,
    /// Enforced at run time, by closing the slowest pages.
    Cap,
}

impl Known {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Buffer => "buffer",
            Self::Measured => "measured",
            Self::Cap => "cap",
        }
    }
}

/// One owner's part of the memory sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The owner, in at most 24 characters.
    pub name: &'static str,
    /// The maximum number of items.
    pub count: u64,
    /// The size of each, in bytes.
    pub size: u64,
    /// How the size is known.
    pub known: Known,
    /// Whether the memory is the kernel's, for sockets, and not the process's own.
    pub kernel: bool,
    /// The source of the numbers, in one line.
    pub note: &'static str,
}

impl Term {
    /// The size of all items, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.size)
    }
}

/// The number of terms of the memory sum.
pub const TERM_COUNT: usize = 46;

/// The maximum memory of the process and its sockets, term by term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySum {
    /// One term for each owner.
    pub terms: [Term; TERM_COUNT],
}

impl MemorySum {
    /// Bytes of all terms.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.process().saturating_add(self.kernel())
    }

    /// Bytes of the process's own terms.
    #[must_use]
    pub const fn process(&self) -> u64 {
        self.part(false)
    }

    /// Bytes of the kernel's terms.
    #[must_use]
    pub const fn kernel(&self) -> u64 {
        self.part(true)
    }

    const fn part(&self, kernel: bool) -> u64 {
        let mut sum: u64 = 0;
        let mut index = 0;
        while index < TERM_COUNT {
            if self.terms[index].kernel == kernel {
                sum = sum.saturating_add(self.terms[index].bytes());
            }
            index += 1;
        }
        sum
    }
}

/// The memory sum of a board, or of a board lowered by a configuration.
#[must_use]
pub const fn memory_sum(board: &Board) -> MemorySum {
    use Known::{Buffer, Cap, Measured, Row};
    let pages = board.pages_max as u64;
    let topics = board.topics_max as u64;
    let heads = board.heads_max as u64 + 1; // one more, until it is decided which one gives way
    let seats = pages + 1; // one more, to refuse a page with a proper response
    MemorySum {
        terms: [
            // The machine's tables: fully allocated at start, never grown.
            own("session rows", seats, SESSION_SIZE, Row, "Session"),
            own("subscription rows", board.subscriptions_max as u64, SUBSCRIPTION_SIZE, Row, "Subscription"),
            own("link rows", board.links_max as u64, LINK_SIZE, Row, "Link"),
            own("topic rows", topics, TOPIC_SIZE, Row, "Topic"),
            own(
                "frame index",
                topics * frames_per_topic(board),
                INDEX_ROW_SIZE,
                Row,
                "a row for each frame of each ring",
            ),
            own(
                "block directories",
                topics * blocks_per_topic(board),
                BLOCK_ENTRY_SIZE,
                Row,
                "an entry for each block of each ring",
            ),
            own("arena free list", board.blocks_max as u64, BLOCK_ENTRY_SIZE, Row, "an entry for each block"),
            own("request rows", board.requests_max as u64, REQUEST_SIZE, Row, "Request"),
            own("given-up requests", board.requests_max as u64, UNANSWERED_SIZE, Row, "Unanswered"),
            own("denied pages", board.denials_max as u64, DENIAL_SIZE, Row, "Denials"),
            own("receipts", board.receipts_max() as u64, RECEIPT_SIZE, Row, "Receipts"),
            own("page numbers", pages, NUMBER_SIZE, Row, "u32"),
            own("previews", board.heads_max.div_ceil(8) as u64, PREVIEW_SIZE, Row, "Preview"),
            // A row for each page, so that neither table can run full before the page table.
            own("networks", pages, NETWORK_SIZE, Row, "Counted<Network>"),
            own("origins", pages, ORIGIN_SIZE, Row, "Counted<Origin>"),
            own("reasons", board.reasons_max as u64, TEXT_SIZE, Row, "Text"),
            own("address buckets", board.addresses_max as u64, ADDRESS_SIZE, Row, "Bucket"),
            own("connection rows", seats, CONNECTION_SIZE, Row, "the fan-out's"),
            own("begun frames", pages, BEGUN_SIZE, Row, "a row for each frame that pages are in the middle of"),
            // The only copy of everything published. Untouched blocks are not resident.
            own("arena", board.blocks_max as u64, board.block_size as usize, Buffer, "blocks of all rings"),
            own(
                "kept frames",
                board.kept_blocks_max as u64,
                board.block_size as usize + BLOCK_ENTRY_SIZE,
                Buffer,
                "blocks of frames overwritten in their ring while pages were in the middle of them",
            ),
            // The shell.
            own(
                "page tasks",
                seats,
                PAGE_TASK_SIZE,
                Measured,
                "RSS per idle subscribed page (876 B with 8000 pages, x86-64) minus rows and slabs",
            ),
            own(
                "executor and reactor",
                seats + heads + 64,
                EXECUTOR_SLOT_SIZE,
                Measured,
                "slabs and run queue of smol and async-io, grown by doubling; measured with the page tasks",
            ),
            own("page frames half read", pages, PAGE_FRAME_SIZE, Buffer, "tungstenite's sizes, both capped at 4 KiB"),
            own("HTTP heads and answers", heads, HEAD_SIZE, Buffer, "a request head, a response, a task"),
            own("files in plain", 1, PLAIN_FILES_SIZE, Buffer, "made when a peer asks for one"),
            own("TLS pages", seats, TLS_PAGE_SIZE, Row, "the box of a page's keys"),
            own(
                "TLS handshakes",
                heads,
                TLS_HEAD_SIZE,
                Buffer,
                "rustls and its input (at most 21 KB of heap were measured), then half a record",
            ),
            own(
                "TLS half records",
                board.half_records_max as u64,
                TLS_HALF_RECORD_SIZE,
                Buffer,
                "allocated while used; a page without one waits",
            ),
            own("TLS address buckets", board.addresses_max as u64, ADDRESS_SIZE, Row, "Bucket"),
            own("TLS scratches", 1, TLS_SCRATCH_SIZE, Buffer, "one for each direction, shared by all pages"),
            own(
                "certificates, tickets",
                1,
                2 * CERTIFICATES_MAX * CERTIFICATE_SIZE + CERTIFICATE_READ_SIZE + TICKET_KEYS_SIZE,
                Buffer,
                "two generations during a change, the pair being read, ticket keys",
            ),
            own(
                "uplink in",
                1,
                board.data_size_max() as usize + UPLINK_IN_EXTRA_SIZE,
                Buffer,
                "the largest publication, its header, read-ahead",
            ),
            own("uplink out", 1, board.uplink_out_size as usize, Buffer, "one buffer"),
            own("uplink TLS", 2, UPLINK_TLS_SIZE, Buffer, "rustls's, limited: one connection and one knock"),
            own("batch ring", 1, RING_SIZE, Buffer, "io_uring's mapped queues; none without io_uring"),
            own(
                "events and configuration",
                1,
                EVENTS_SIZE + CONFIG_SIZE,
                Buffer,
                "rings of the last events; the parsed file",
            ),
            own(
                "consoles",
                CONSOLES_MAX as u64 + 2,
                CONSOLE_SIZE,
                Buffer,
                "four engineers and a program at the socket, one on the serial line",
            ),
            own(
                "metrics",
                METRICS_MAX as u64,
                METRICS_SIZE + SCRAPER_SIZE,
                Buffer,
                "a text, a request head and a task for each scraper",
            ),
            own(
                "code and stacks",
                1,
                CODE_SIZE + STACKS_SIZE,
                Measured,
                "RSS at rest is 3.6 MiB, of it 3.2 MiB code (x86-64, glibc)",
            ),
            // The kernel. A fixed size for each socket that can be open at once ...
            sockets(
                "kernel sockets",
                seats + heads + board.backlog_max as u64 + KERNEL_SOCKETS_EXTRA,
                KERNEL_SOCKET_SIZE as u64,
                Measured,
                "slabs TCPv6 2496, inode 832, file 192, dentry 192, epoll 128 (Linux 6.18)",
            ),
            sockets(
                "kernel ring",
                1,
                KERNEL_RING_SIZE as u64,
                Measured,
                "slab io_kiocb 256 for 256 requests (Linux 6.18)",
            ),
            // ... one cap for everything queued in pages' sockets ...
            sockets(
                "kernel queues",
                1,
                board.kernel_size_max.saturating_add(KERNEL_UPLINK_SIZE as u64),
                Cap,
                "read from the kernel, above it the slowest pages are closed; plus the uplink's queues",
            ),
            // ... and the buffers of connections that are not pages yet, as doubled by Linux.
            sockets(
                "kernel heads",
                heads,
                2 * (board.send_buffer_size as u64 + board.receive_buffer_size as u64),
                Buffer,
                "SO_SNDBUF and SO_RCVBUF of a connection that is not a page",
            ),
            sockets(
                "kernel metrics",
                METRICS_MAX as u64 + METRICS_BACKLOG as u64 + 1,
                2 * (METRICS_SEND_SIZE + METRICS_RECEIVE_SIZE) as u64,
                Buffer,
                "SO_SNDBUF and SO_RCVBUF of a scraper, being served or waiting",
            ),
            sockets(
                "kernel backlog",
                board.backlog_max as u64,
                2 * board.receive_buffer_size as u64,
                Buffer,
                "SO_RCVBUF of a connection that is not accepted yet",
            ),
        ],
    }
}

const fn own(name: &'static str, count: u64, size: usize, known: Known, note: &'static str) -> Term {
    Term { name, count, size: size as u64, known, kernel: false, note }
}

const fn sockets(name: &'static str, count: u64, size: u64, known: Known, note: &'static str) -> Term {
    Term { name, count, size, known, kernel: true, note }
}

/// Audio and video have a ring of init segments each.
const fn frames_per_topic(board: &Board) -> u64 {
    const fn frames(track: &TrackLimits) -> u64 {
        track.frames_max as u64
    }
    frames(&board.state)
        + frames(&board.messages)
        + frames(&board.audio)
        + frames(&board.video)
        + 2 * frames(&board.init)
}

const fn blocks_per_topic(board: &Board) -> u64 {
    board.state.blocks_max as u64 + board.messages.blocks_max as u64 + board.media_blocks_per_topic()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ALL, HOST};

    #[test]
    fn the_sum_is_the_sum_of_its_terms_and_within_budget() {
        for board in ALL {
            let sum = memory_sum(board);
            assert_eq!(sum.total(), sum.terms.iter().map(Term::bytes).sum::<u64>(), "{}", board.name);
            assert!(sum.total() <= board.memory_budget, "{}", board.name);
            assert!(sum.terms.iter().all(|term| term.bytes() > 0 && term.name.len() <= 24 && !term.note.is_empty()));
        }
    }

    #[test]
    fn an_idle_page_takes_at_most_1_5_kib() {
        // All user memory of a page with one subscription.
        const { assert!(SESSION_SIZE + SUBSCRIPTION_SIZE + CONNECTION_SIZE + PAGE_TASK_SIZE + EXECUTOR_SLOT_SIZE <= 1536) };
    }

    #[test]
    fn lowering_a_limit_lowers_the_sum() {
        let full = memory_sum(&HOST).total();
        let lowered = memory_sum(&Board { pages_max: 100, ..HOST }).total();
        assert!(lowered < full);
    }
}
