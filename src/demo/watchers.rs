//! The host pages that watch: what they are told, each by a queue of its own.
//!
//! Bounded in number and in what waits for each: a page that doesn't read is let go, and comes back
//! by itself. Knows neither sockets nor what a note says.

use std::{cell::RefCell, rc::Rc};

use smol::channel;

/// Notes that may wait for one page; a page that comes gets some fifty at once.
const NOTES_MAX: usize = 512;
/// Pages at the same time.
pub const WATCHERS_MAX: usize = 16;

/// A line of JSON for a host page.
pub type Note = Rc<str>;

/// Everybody who watches.
#[derive(Debug, Default)]
pub struct Watchers {
    queues: RefCell<Vec<channel::Sender<Note>>>,
}

impl Watchers {
    /// A page begins to watch: `first` are its first notes. `None` where too many do.
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

    /// Tells everybody; whoever has no room left is let go.
    pub fn tell(&self, note: &Note) {
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
    fn a_page_that_does_not_read_is_let_go() {
        let watchers = Watchers::default();
        let (reads, stays_away) = (watchers.add([]), watchers.add(["first".into()]));
        for _ in 0..NOTES_MAX + 10 {
            watchers.tell(&"note".into());
            assert!(reads.as_ref().is_some_and(|reads| reads.try_recv().is_ok()));
        }
        assert!(stays_away.is_some_and(|queue| queue.is_closed() && queue.len() == NOTES_MAX));
        assert_eq!(watchers.queues.borrow().len(), 1);
    }

    #[test]
    fn there_is_an_end_to_pages_and_places_come_free() {
        let watchers = Watchers::default();
        let held: Vec<_> = (0..WATCHERS_MAX + 3).filter_map(|_| watchers.add([])).collect();
        assert_eq!(held.len(), WATCHERS_MAX);
        drop(held);
        assert!(watchers.add([]).is_some());
    }
}
