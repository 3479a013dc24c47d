//! What a task may take from its socket in one turn: bytes and steps.
//!
//! There is one thread of tasks, so a peer that sends as fast as it is read would monopolise it.
//! Every loop over a socket therefore takes its reads, and the work that each causes, from a
//! [`Budget`], and yields once that is spent; `tests/suite/documents.rs` finds a loop over a read
//! without one. Owns the sizes, the pause of a peer that floods, and how often the reactor is
//! polled between turns ([`run`]). Knows no sockets.

use std::future::Future;
use std::time::Duration;

use smol::{LocalExecutor, Timer, future};

/// Bytes read in one turn from a page, a request, or a peer after its answer: twice a page's
/// longest message. As many empty frames as fit, 1 365, take about 60 µs.
pub const SIZE: u32 = 8 * 1024;
/// Steps of a turn: a page's frame with its answer, a read, a write, a console command. About 3 µs
/// each.
pub const STEPS: u32 = 16;
/// Bytes that a read of TLS counts at least: 16 records in a turn. Each costs two system calls and
/// a key's expansion, about 4 µs, even if it has one byte or none.
pub const RECORD_SIZE_MIN: usize = 512;
/// Pause before a page, or a peer after its answer, is read again when it sent more than one turn
/// holds; TCP back-pressure stops it meanwhile. So a flood costs a few percent of the processor (60
/// µs in 50 ms) instead of all of it. What a page client sends fits into one turn; a flood gets
/// through at 160 KB and 320 frames a second.
pub const REST: Duration = Duration::from_millis(50);
/// Bytes read in one turn from the uplink: the kernel's buffer holds a few times that. Less would
/// cost throughput; TCP back-pressure holds the rest until pages had their turn.
pub const UPLINK_SIZE: u32 = 64 * 1024;
/// Frames handled in one turn of the uplink, and writes to it. [`UPLINK_SIZE`] may hold ten
/// thousand frames of 6 bytes, which would take some milliseconds; it holds fewer usual messages
/// than this.
pub const UPLINK_STEPS: u32 = 256;
/// Turns of tasks between two polls of the reactor, at most. A flooding peer's task is always
/// ready: with three of them, at 50 µs a turn, events of other sockets wait 0.4 ms. A poll costs
/// about 1 µs.
const TURNS_PER_LOOK: usize = 8;

/// What is left of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    size: u32,
    steps: u32,
}

impl Budget {
    /// One turn of anything but the uplink.
    pub const TURN: Self = Self { size: SIZE, steps: STEPS };
    /// One turn of the uplink.
    pub const UPLINK_TURN: Self = Self { size: UPLINK_SIZE, steps: UPLINK_STEPS };

    /// The part of `into` that may be filled; empty once the bytes are spent.
    pub fn clip<'a>(&self, into: &'a mut [u8]) -> &'a mut [u8] {
        let size = into.len().min(self.size as usize);
        into.get_mut(..size).unwrap_or_default()
    }

    /// Counts `size` bytes as read.
    pub fn take(&mut self, size: usize) {
        self.size = self.size.saturating_sub(u32::try_from(size).unwrap_or(u32::MAX));
    }

    /// Counts one step: work whose cost hardly depends on its bytes.
    pub const fn step(&mut self) {
        self.steps = self.steps.saturating_sub(1);
    }

    /// Whether a step is left, regardless of the bytes.
    pub const fn has_steps(&self) -> bool {
        self.steps > 0
    }

    /// Whether the turn is over.
    pub const fn is_spent(&self) -> bool {
        self.size == 0 || self.steps == 0
    }

    /// Takes a step; yields for a new turn first if this one is spent.
    pub async fn next_step(&mut self) {
        if self.is_spent() {
            self.next_turn().await;
        }
        self.step();
    }

    /// Yields to the other tasks, then begins a new turn.
    pub async fn next_turn(&mut self) {
        future::yield_now().await;
        *self = Self::TURN;
    }

    /// Takes a step of reading from an untrusted peer; pauses for [`REST`] first if the turn is
    /// spent.
    pub async fn next_read(&mut self) {
        if self.is_spent() {
            Timer::after(REST).await;
            *self = Self::TURN;
        }
        self.step();
    }
}

/// Runs an executor's tasks until `end`. [`LocalExecutor::run`] would poll the reactor only every
/// 200 turns while some task is always ready.
pub async fn run<T>(executor: &LocalExecutor<'_>, end: impl Future<Output = T>) -> T {
    let turns = async {
        loop {
            executor.tick().await;
            let mut count = 1;
            while count < TURNS_PER_LOOK && executor.try_tick() {
                count += 1;
            }
            if count == TURNS_PER_LOOK {
                future::yield_now().await;
            }
        }
    };
    future::or(end, turns).await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_turn_ends_with_its_bytes_or_its_steps() {
        let mut budget = Budget::TURN;
        let size = SIZE as usize;
        let mut into = vec![0; 2 * size];
        assert_eq!(budget.clip(&mut into).len(), size);
        budget.take(size - 1);
        assert_eq!(budget.clip(&mut into).len(), 1);
        assert!(!budget.is_spent());
        budget.take(1);
        assert!(budget.is_spent() && budget.clip(&mut into).is_empty());
        budget = Budget::TURN;
        (0..STEPS - 1).for_each(|_| budget.step());
        assert!(!budget.is_spent());
        budget.step();
        assert!(budget.is_spent());
    }

    #[test]
    fn others_have_their_turn_between_two_turns_of_steps() {
        let executor = LocalExecutor::new();
        let steps = Rc::new(Cell::new(0));
        let counted = Rc::clone(&steps);
        let _steps = executor.spawn(async move {
            let mut budget = Budget::TURN;
            loop {
                budget.next_step().await;
                counted.set(counted.get() + 1);
            }
        });
        for turn in 1..=3 {
            assert!(executor.try_tick());
            assert_eq!(steps.get(), turn * STEPS);
        }
    }

    #[test]
    fn the_reactor_is_asked_however_ready_a_task_is() {
        let executor = LocalExecutor::new();
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let _floods = executor.spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                future::yield_now().await;
            }
        });
        let mut running = pin!(run(&executor, future::pending::<()>()));
        for looks in 1..=3 {
            // The reactor is polled between two polls of this future.
            assert!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(turns.get(), looks * TURNS_PER_LOOK);
        }
    }
}
