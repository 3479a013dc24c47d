//! What goes wrong with the webhook, in the log: the same complaint at most once in 10 s.
//!
//! Owns when each was logged last, and how often it came since. Bounded: where there are too many
//! different ones, a new one waits until the time of an old one is over. Knows no secrets: who
//! complains leaves them out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The same complaint is logged at most once in this time.
const INTERVAL: Duration = Duration::from_secs(10);
/// Different complaints that are remembered.
const COUNT_MAX: usize = 32;

/// The complaints about one webhook.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<BTreeMap<String, Logged>>);

#[derive(Debug)]
struct Logged {
    at: Duration,
    repeats: u64,
}

impl Complaints {
    /// Logs a complaint, unless the same was logged just before. `example` says about what; it may
    /// differ where the complaint is the same.
    pub fn say(&self, now: Duration, what: &str, example: &str) {
        match self.admit(now, what) {
            None => {}
            Some(0) => log::warn!("webhook: {what}{example}"),
            Some(repeats) => log::warn!("webhook: {what}{example}; {repeats} more of these since the last such line"),
        }
    }

    /// Whether to log this complaint now: how often it came since it was logged last.
    fn admit(&self, now: Duration, what: &str) -> Option<u64> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |row: &Logged| now >= row.at.saturating_add(INTERVAL);
        if let Some(row) = rows.get_mut(what) {
            if is_over(row) {
                row.at = now;
                return Some(core::mem::take(&mut row.repeats));
            }
            row.repeats += 1;
            return None;
        }
        if rows.len() >= COUNT_MAX {
            rows.retain(|_, row| !is_over(row));
        }
        (rows.len() < COUNT_MAX).then(|| {
            rows.insert(what.to_owned(), Logged { at: now, repeats: 0 });
            0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_logged_once_in_10_s_with_a_count() {
        let complaints = Complaints::default();
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(complaints.admit(at(0), "silence"), Some(0));
        assert_eq!(complaints.admit(at(1), "nonsense"), Some(0));
        for ms in [1, 5_000, 9_999] {
            assert_eq!(complaints.admit(at(ms), "silence"), None);
        }
        assert_eq!(complaints.admit(at(10_000), "silence"), Some(3));
        assert_eq!(complaints.admit(at(20_000), "silence"), Some(0));
    }

    #[test]
    fn however_many_different_ones_there_are_few_are_kept() {
        let complaints = Complaints::default();
        let logged = (0..1000).filter(|n| complaints.admit(Duration::ZERO, &n.to_string()).is_some()).count();
        assert_eq!(logged, COUNT_MAX);
        assert_eq!(complaints.admit(INTERVAL, "new"), Some(0));
        assert_eq!(complaints.0.lock().unwrap().len(), 1);
    }
}
