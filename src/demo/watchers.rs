//! The connected host pages, each with its own queue of notes.
//!
//! Owns the queues. The number of pages and the length of each queue are bounded. A page that
//! doesn't read is disconnected, and reconnects by itself. Knows neither sockets nor the content of
//! a note.

use std::{cell::RefCell, rc::Rc};

use smol::channel;

/// The capacity of one page's queue. A new page gets about fifty notes at once.
const NOTES_MAX: usize = 512;
/// The maximum number of connected pages.
pub const WATCHERS_MAX: usize = 16;

/// A line of JSON for a host page.
pub type Note = Rc<str>;

/// The queues of all connected host pages.
#[derive(Debug, Default)]
pub struct Watchers {
    queues: RefCell<Vec<channel::Sender<Note>>>,
}

impl Watchers {
    /// Adds a page, whose first notes are `first`. `None` if there are too many pages.
    pub fn add(&self, first: impl IntoIterator<Item = Note>) -> Option<channel::Receiver<Note>> {
        let mut queues = self.queues.borrow_mut();
        queues.retain(|queue| !queue.is_closed());
        if queues.len() >= WATCHERS_MAX {
            return None;
        }
        let (sender, receiver) = channel::bounded(NOTES_MAX);
        for note in first {
            let _ = sender.try_send(note);
        }
        queues.push(sender);
        Some(receiver)
    }

    /// Sends a note to all pages. Disconnects pages whose queue is full.
    pub fn send(&self, note: &Note) {
        self.queues.borrow_mut().retain(|queue| {
            let kept = queue.try_send(Rc::clone(note)).is_ok();
            if !kept {
                queue.close();
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_does_not_read_is_disconnected() {
        let watchers = Watchers::default();
        let (reads, stalled) = (watchers.add([]), watchers.add(["first".into()]));
        for _ in 0..NOTES_MAX + 10 {
            watchers.send(&"note".into());
            assert!(reads.as_ref().is_some_and(|reads| reads.try_recv().is_ok()));
        }
        assert!(stalled.is_some_and(|queue| queue.is_closed() && queue.len() == NOTES_MAX));
        assert_eq!(watchers.queues.borrow().len(), 1);
    }

    #[test]
    fn pages_are_limited_and_places_are_freed() {
        let watchers = Watchers::default();
        let held: Vec<_> = (0..WATCHERS_MAX + 3).filter_map(|_| watchers.add([])).collect();
        assert_eq!(held.len(), WATCHERS_MAX);
        drop(held);
        assert!(watchers.add([]).is_some());
    }
}
