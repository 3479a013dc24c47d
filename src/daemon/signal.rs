//! Telling tasks that there is work, without a channel: nothing is carried but the fact.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A flag that one task waits for and any other may raise. Raising it twice is raising it once.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises the flag and wakes the task that waits.
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

    /// Lowers the flag, and has the task woken when it is raised again.
    pub fn heed(&self, context: &Context<'_>) {
        self.raised.set(false);
        let _ = self.poll(context);
    }

    /// Whether the flag was raised, and lowers it; else the task is woken when it is.
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

/// News that several tasks wait for: each is woken, and looks for itself whether it is for it.
#[derive(Debug, Default)]
pub struct News(RefCell<Vec<Waker>>);

impl News {
    /// Wakes all that wait.
    pub fn tell(&self) {
        self.0.take().into_iter().for_each(Waker::wake);
    }

    /// Waits for the next news; never ready by itself.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.0.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
