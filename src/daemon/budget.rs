//! What one turn of a task may take from its socket before others have theirs: bytes and steps.
//!
//! There is one thread of tasks: a peer that sends as fast as it is read would keep it for itself. So whoever
//! loops over a socket takes what it reads, and each thing that it does with that, from a [`Budget`], and gives
//! its turn away once that is spent; `tests/suite/documents.rs` finds a loop over a read without one. Owns the
//! sizes, the rest of a peer that floods, and how often the reactor is asked between turns ([`run`]). Doesn't
//! know sockets.

use std::future::Future;
use std::time::Duration;

use smol::{LocalExecutor, Timer, future};

/// Bytes that a turn reads of a page, a request or what is said behind its answer: twice a page's longest message. 1 365 empty
/// frames, the most that it holds, take some 60 µs.
pub const SIZE: u32 = 8 * 1024;
/// Steps of a turn: frames of a page with what is answered to each, reads, writes, a console's commands. Some 3 µs each.
pub const STEPS: u32 = 16;
/// A page, and a peer behind its answer, that had more to say than a turn holds is not read for so long; TCP holds it back.
/// So a flood costs a few percent of the processor (60 µs in 50 ms), not what others leave. What a page client has to say fits
/// into one turn; whoever sends more gets through 160 KB and 320 frames a second.
pub const REST: Duration = Duration::from_millis(50);
/// Bytes that a turn reads of the uplink: the kernel's buffer holds a few times that. Less would cost throughput; what goes
/// beyond it is held back by TCP until pages had their turn.
pub const UPLINK_SIZE: u32 = 64 * 1024;
/// Frames of the uplink that a turn handles, and writes to it. [`UPLINK_SIZE`] may hold ten thousand of 6 bytes, which would be
/// some milliseconds; of usual messages it holds fewer than this.
pub const UPLINK_STEPS: u32 = 256;
/// Turns of tasks after which the reactor looks for what has come, at the latest. A flood is a task that is always ready: where
/// three of them have turns of 50 µs each, news of other sockets wait for 0.4 ms. Asking costs about 1 µs.
const TURNS_PER_LOOK: usize = 8;

/// What is left of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    size: u32,
    steps: u32,
}

impl Budget {
    /// A turn's, of whatever is no uplink.
    pub const TURN: Self = Self { size: SIZE, steps: STEPS };
    /// A turn's of the uplink.
    pub const UPLINK_TURN: Self = Self { size: UPLINK_SIZE, steps: UPLINK_STEPS };

    /// As much of `into` as may be read into; nothing where the bytes are spent.
    pub fn clip<'a>(&self, into: &'a mut [u8]) -> &'a mut [u8] {
        let size = into.len().min(self.size as usize);
        into.get_mut(..size).unwrap_or_default()
    }

    /// So many bytes were read.
    pub fn take(&mut self, size: usize) {
        self.size = self.size.saturating_sub(u32::try_from(size).unwrap_or(u32::MAX));
    }

    /// Something is done that costs about as much, however many bytes it is.
    pub const fn step(&mut self) {
        self.steps = self.steps.saturating_sub(1);
    }

    /// Whether there is a step left, whatever was read.
    pub const fn has_steps(&self) -> bool {
        self.steps > 0
    }

    /// Whether the turn is over.
    pub const fn is_spent(&self) -> bool {
        self.size == 0 || self.steps == 0
    }

    /// Takes a step of a turn; where there is none left, of the next one.
    pub async fn next_step(&mut self) {
        if self.is_spent() {
            self.next_turn().await;
        }
        self.step();
    }

    /// Others have their turn; then another one begins.
    pub async fn next_turn(&mut self) {
        future::yield_now().await;
        *self = Self::TURN;
    }

    /// Takes a step of a turn that reads from a stranger; where there is none left, he rests first.
    pub async fn next_read(&mut self) {
        if self.is_spent() {
            Timer::after(REST).await;
            *self = Self::TURN;
        }
        self.step();
    }
}

/// Runs an executor's tasks until `end`. As [`LocalExecutor::run`], which asks the reactor only after 200 turns where some
/// task is always ready.
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
            // What polls it asks the reactor in between.
            assert!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(turns.get(), looks * TURNS_PER_LOOK);
        }
    }
}
