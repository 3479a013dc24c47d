//! Share links and what each allows, for a business server that knows them all beforehand.
//!
//! Owns the table. One whose links are checked elsewhere answers [`Event::Asked`](super::Event::Asked) by itself.

use std::collections::HashMap;

use wire::{is_link, uplink::Grant};

/// Which topic a link leads to, and what it allows.
#[derive(Debug, Default)]
pub struct Links {
    rows: HashMap<String, (u32, Grant)>,
}

impl Links {
    /// Lets a link lead to a topic. One that is no share link has no page, and leads nowhere.
    pub fn allow(&mut self, link: &str, topic: u32, grant: Grant) {
        if !is_link(link) {
            return;
        }
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
