//! Turns for the only steps of the daemon that take a millisecond: those of a handshake.
//!
//! One step is taken at a time. Between two, the reactor is polled, and the other tasks have their
//! turn: so what arrives during a step is handled before the next. While pages have something to
//! be sent, a step that took some time is followed by as much time without one. The longest waiting
//! goes first; one that resumes an earlier session, which is cheaper, goes before others that have
//! not waited for [`PATIENCE_MS`]. Owns the queue. Knows no sockets and no TLS.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use rustix::event::{EventfdFlags, eventfd};
use smol::{Async, future};

use crate::clock::monotonic_us;

/// Milliseconds after which a full handshake is no longer overtaken by resumed ones.
const PATIENCE_MS: u64 = 250;

/// The queue for turns.
#[derive(Debug)]
pub struct Pacer {
    /// An event counter that is never read: it shows that the reactor was polled, by this thread or
    /// by async-io's own.
    polled: Async<OwnedFd>,
    waiting: RefCell<VecDeque<Rc<Waiting>>>,
    /// Whether a turn was given and is not over.
    is_taken: Cell<bool>,
    /// The next step begins no earlier while pages wait, in microseconds.
    rest_until_us: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    since_us: u64,
    is_resumed: bool,
    has_turn: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A turn: lasts until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    pacer: &'a Pacer,
    begun_us: u64,
}

impl Pacer {
    /// Nobody waits.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let polled = Async::new(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        Ok(Self { polled, waiting: RefCell::default(), is_taken: Cell::default(), rest_until_us: Cell::default() })
    }

    /// Waits for a turn. `have_pages` says whether pages have something to be sent.
    pub async fn turn(&self, is_resumed: bool, have_pages: impl Fn() -> bool) -> Turn<'_> {
        let (has_turn, waker) = (Cell::new(false), RefCell::default());
        let waiting = Rc::new(Waiting { since_us: monotonic_us(), is_resumed, has_turn, waker });
        self.waiting.borrow_mut().push_back(Rc::clone(&waiting));
        let queued = Queued { pacer: self, waiting: &waiting };
        self.give();
        poll_fn(|context| {
            if waiting.has_turn.get() {
                return Poll::Ready(());
            }
            *waiting.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        // A descriptor that is always readable is so once the reactor was polled. Whom that woke
        // goes first.
        let _ = poll_fn(|context| self.polled.poll_readable(context)).await;
        future::yield_now().await;
        while have_pages() {
            // The fan-out's turn, at least one.
            future::yield_now().await;
            if monotonic_us() >= self.rest_until_us.get() {
                break;
            }
        }
        waiting.has_turn.set(false);
        drop(queued);
        Turn { pacer: self, begun_us: monotonic_us() }
    }

    /// When the next step may begin while pages wait, in microseconds.
    #[cfg(test)]
    pub const fn rest_until(&self) -> u64 {
        self.rest_until_us.get()
    }

    /// Gives the turn to the next, if nobody has it.
    fn give(&self) {
        if self.is_taken.get() {
            return;
        }
        let now = monotonic_us();
        let mut waiting = self.waiting.borrow_mut();
        let is_patient = waiting.front().is_some_and(|first| now < first.since_us + PATIENCE_MS * 1000);
        let index = waiting.iter().position(|waiting| waiting.is_resumed && is_patient).unwrap_or(0);
        let Some(next) = waiting.remove(index) else { return };
        self.is_taken.set(true);
        next.has_turn.set(true);
        if let Some(waker) = next.waker.take() {
            waker.wake();
        }
    }
}

/// A place in the queue; one that is given up with a turn hands it on.
struct Queued<'a> {
    pacer: &'a Pacer,
    waiting: &'a Rc<Waiting>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pacer.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, self.waiting));
        if self.waiting.has_turn.get() {
            self.pacer.is_taken.set(false);
            self.pacer.give();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = monotonic_us();
        self.pacer.rest_until_us.set(now + (now - self.begun_us));
        self.pacer.is_taken.set(false);
        self.pacer.give();
    }
}

#[cfg(test)]
mod tests {
    use smol::LocalExecutor;

    use super::*;

    #[test]
    fn one_step_at_a_time_the_oldest_first_and_resumed_ones_before_it() {
        let pacer = Rc::new(Pacer::new().unwrap());
        let order = Rc::new(RefCell::new(Vec::new()));
        let executor = LocalExecutor::new();
        let tasks: Vec<_> = [(1, false), (2, false), (3, true), (4, false), (5, true)]
            .map(|(number, is_resumed)| {
                let (pacer, order) = (Rc::clone(&pacer), Rc::clone(&order));
                executor.spawn(async move {
                    let turn = pacer.turn(is_resumed, || false).await;
                    assert!(pacer.is_taken.get());
                    order.borrow_mut().push(number);
                    future::yield_now().await;
                    drop(turn);
                })
            })
            .into();
        smol::block_on(executor.run(async {
            for task in tasks {
                task.await
            }
        }));
        assert_eq!(*order.borrow(), [1, 3, 5, 2, 4]);
        assert!(!pacer.is_taken.get() && pacer.waiting.borrow().is_empty());
    }

    #[test]
    fn a_turn_that_is_given_up_goes_to_the_next() {
        let pacer = Pacer::new().unwrap();
        let executor = LocalExecutor::new();
        smol::block_on(executor.run(async {
            let first = pacer.turn(false, || false).await;
            let mut second = Box::pin(pacer.turn(false, || false));
            let mut third = Box::pin(pacer.turn(false, || false));
            assert!(future::poll_once(&mut second).await.is_none() && future::poll_once(&mut third).await.is_none());
            drop(first);
            // It has the turn and never takes it.
            drop(second);
            drop(third.await);
        }));
        assert!(!pacer.is_taken.get() && pacer.waiting.borrow().is_empty());
    }

    #[test]
    fn while_pages_wait_a_step_is_followed_by_as_much_time_without_one() {
        let pacer = Pacer::new().unwrap();
        smol::block_on(async {
            let turn = pacer.turn(false, || true).await;
            let begun = turn.begun_us;
            while monotonic_us() < begun + 2_000 {}
            drop(turn);
            let took = pacer.rest_until_us.get() - begun;
            assert!(took >= 4_000, "{took}");
            let next = pacer.turn(false, || true).await;
            assert!(next.begun_us >= begun + took);
            drop(next);
            pacer.rest_until_us.set(u64::MAX);
            drop(pacer.turn(false, || false).await);
        });
    }
}
