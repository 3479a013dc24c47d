//! Share links with their grants, for a business server that knows all links in advance.
//!
//! Owns the table. A business server that checks links elsewhere answers
//! [`Event::Asked`](super::Event::Asked) itself.

use std::collections::HashMap;

use wire::{is_link, uplink::Grant};

/// The topic and the grant of each link.
#[derive(Debug, Default)]
pub struct Links {
    rows: HashMap<String, (u32, Grant)>,
}

impl Links {
    /// Adds a link to a topic. `false` if it is not a share link (1 to 128 bytes of `A-Z a-z 0-9 -
    /// _ . ~`).
    #[must_use]
    pub fn allow(&mut self, link: &str, topic: u32, grant: Grant) -> bool {
        let is_link = is_link(link);
        if is_link {
            self.rows.insert(link.to_owned(), (topic, grant));
        }
        is_link
    }

    /// Removes a link. Returns whether it existed.
    pub fn forget(&mut self, link: &str) -> bool {
        self.rows.remove(link).is_some()
    }

    /// The topic and the grant of a link.
    #[must_use]
    pub fn find(&self, link: &str) -> Option<(u32, Grant)> {
        self.rows.get(link).copied()
    }
}
