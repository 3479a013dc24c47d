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
    /// Lets a link lead to a topic. `false`: it is no share link (1 to 128 bytes of `A-Z a-z 0-9 - _ . ~`).
    #[must_use]
    pub fn allow(&mut self, link: &str, topic: u32, grant: Grant) -> bool {
        let is_link = is_link(link);
        if is_link {
            self.rows.insert(link.to_owned(), (topic, grant));
        }
        is_link
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
