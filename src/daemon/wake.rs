//! Wakes tasks that have work, without a channel: a signal carries no data.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A flag that one task waits for and any other may raise. Raising it twice has the effect of once.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises the flag and wakes the waiting task.
    pub fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until the flag is raised, and lowers it.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Lowers the flag, and registers the task to be woken when it is raised.
    pub fn rearm(&self, context: &Context<'_>) {
        self.raised.set(false);
        let _ = self.poll(context);
    }

    /// Ready if the flag was raised, and lowers it; otherwise registers the task.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// An event that several tasks wait for. All are woken, and each checks whether it concerns them.
#[derive(Debug, Default)]
pub struct News(RefCell<Vec<Waker>>);

impl News {
    /// Wakes all waiting tasks.
    pub fn wake_all(&self) {
        self.0.take().into_iter().for_each(Waker::wake);
    }

    /// Registers the task for the next event; never ready by itself.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.0.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
