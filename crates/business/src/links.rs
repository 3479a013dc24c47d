//! Share links and what each allows, for a business server that knows them all beforehand.
//!
//! Owns the table. One whose links are checked elsewhere answers [`Event::Asked`](super::Event::Asked) by itself.

use std::collections::HashMap;

use wire::{LINK_SIZE_MAX, uplink::Grant};

/// Which topic a link leads to, and what it allows.
#[derive(Debug, Default)]
pub struct Links {
    rows: HashMap<String, (u32, Grant)>,
}

impl Links {
    /// Lets a link lead to a topic.
    pub fn allow(&mut self, link: &str, topic: u32, grant: Grant) {
        debug_assert!(link.len() <= LINK_SIZE_MAX);
        self.rows.insert(link.to_owned(), (topic, grant));
    }

    /// Forgets a link; whether there was one.
    pub fn forget(&mut self, link: &str) -> bool {
        self.rows.remove(link).is_some()
    }

    /// Where a link leads, and what it allows.
    #[must_use]
    pub fn find(&self, link: &str) -> Option<(u32, Grant)> {
        self.rows.get(link).copied()
    }
}
