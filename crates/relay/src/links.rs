//! The table of links, found by name, and the queue of links whose waiting pages are being
//! admitted.
//!
//! Owns the rows, the index by hash of the name, and one fact that outlives a row: that a link was
//! accepted on this connection to the business server. Doesn't know when a link is in use (the
//! [`Link`] does), nor which pages may have a row for one (`admission.rs`).

use alloc::{collections::VecDeque, vec::Vec};

use heapless::String;

use super::{hash, link::Link, table::Table, time::Instant};

/// The table of links.
#[derive(Debug)]
pub struct Links {
    rows: Table<Link>,
    /// Rows by the hash of their name, sorted.
    hashes: Vec<(u64, u32)>,
    /// Hashes of links that were accepted on this connection and whose row was freed since, oldest
    /// first. The flag: accepted only by requests that name a page.
    accepted: VecDeque<(u64, bool)>,
    /// Links whose shared grant covers pages that still wait.
    admitting: VecDeque<u32>,
    seed: u64,
}

/// The rows, to read. Rows come and go only by the methods here.
impl core::ops::Deref for Links {
    type Target = Table<Link>;

    fn deref(&self) -> &Table<Link> {
        &self.rows
    }
}

impl Links {
    /// An empty table for `links_max` links.
    #[must_use]
    pub fn new(links_max: u32, seed: u64) -> Self {
        let rows = links_max as usize;
        Self {
            rows: Table::new(links_max),
            hashes: Vec::with_capacity(rows),
            accepted: VecDeque::with_capacity(rows),
            admitting: VecDeque::with_capacity(rows),
            seed,
        }
    }

    /// Bytes of one link, including its entries in the index and the two queues.
    pub const ROW_SIZE: usize =
        Table::<Link>::ROW_SIZE + size_of::<(u64, u32)>() + size_of::<u32>() + size_of::<(u64, bool)>();

    /// The link at an index, if there is one, mutably.
    #[must_use]
    pub fn get_mut(&mut self, link: u32) -> Option<&mut Link> {
        self.rows.get_mut(link)
    }

    /// The link with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u32> {
        let hash = hash(self.seed, name.as_bytes());
        let from = self.hashes.partition_point(|(other, _)| *other < hash);
        let same = self.hashes.iter().skip(from).take_while(|(other, _)| *other == hash);
        same.map(|(_, link)| *link).find(|link| self.rows[*link].name() == name)
    }

    /// Adds a row for a link that has none; `None` if the table is full. `connection` is the
    /// current one to the business server.
    pub fn insert(&mut self, now: Instant, name: &str, connection: u64) -> Option<u32> {
        let hash = hash(self.seed, name.as_bytes());
        let mut row = Link::new(String::try_from(name).ok()?, hash, now);
        if let Some(place) = self.accepted.iter().position(|(known, _)| *known == hash)
            && let Some((_, by_name)) = self.accepted.remove(place)
        {
            row.was_accepted(connection, by_name);
        }
        let link = self.rows.insert(row).ok()?;
        let place = self.hashes.partition_point(|known| *known < (hash, link));
        self.hashes.insert(place, (hash, link));
        Some(link)
    }

    /// Removes a link; whether it was accepted on `connection` outlives the row.
    pub fn remove(&mut self, link: u32, connection: u64) -> Option<Link> {
        let row = self.rows.remove(link)?;
        if let Ok(place) = self.hashes.binary_search(&(row.hash(), link)) {
            self.hashes.remove(place);
        }
        if row.is_by_name() || row.is_accepted_on(connection) {
            if self.accepted.len() >= self.rows.capacity() as usize {
                self.accepted.pop_front();
            }
            self.accepted.push_back((row.hash(), row.is_by_name()));
        }
        Some(row)
    }

    /// The uplink was lost: what was accepted on it no longer counts.
    pub fn forget_accepted(&mut self) {
        self.accepted.clear();
    }

    /// Queues a link whose waiting pages are to be admitted.
    pub fn push_admitting(&mut self, link: u32) {
        if !self.admitting.contains(&link) {
            self.admitting.push_back(link);
        }
    }

    /// The link whose pages are being admitted. Its row may be free.
    #[must_use]
    pub fn admitting(&self) -> Option<u32> {
        self.admitting.front().copied()
    }

    /// All pages of that link are admitted.
    pub fn pop_admitting(&mut self) {
        self.admitting.pop_front();
    }

    /// Checks sizes only.
    ///
    /// # Panics
    /// If a table has grown.
    pub fn check_size(&self, links_max: u32) {
        self.rows.check_size("links", links_max);
        assert!(self.accepted.len() <= links_max as usize, "BOUND: too many links remembered as accepted");
        assert!(self.admitting.len() <= links_max as usize, "BOUND: more links are admitting than exist");
    }

    /// Checks that each link is found by its name. For tests.
    ///
    /// # Panics
    /// If one is not found.
    pub fn check(&self, links_max: u32) {
        self.rows.check("links", links_max);
        assert_eq!(self.hashes.len(), self.rows.len() as usize, "links are indexed wrongly");
        for (link, row) in self.rows.iter() {
            assert_eq!(self.find(row.name()), Some(link), "link {link} is not found, or is there twice");
        }
    }
}

impl core::ops::Index<u32> for Links {
    type Output = Link;

    fn index(&self, link: u32) -> &Link {
        &self.rows[link]
    }
}

impl core::ops::IndexMut<u32> for Links {
    fn index_mut(&mut self, link: u32) -> &mut Link {
        &mut self.rows[link]
    }
}
