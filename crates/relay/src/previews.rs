//! The table of previews: clients that wait for a link's card.
//!
//! Owns the rows, how many of them wait for each link ([`Previewers`]), and when previews rest. A
//! row and its link's count change together. Doesn't know cards, nor when a wait is over: that is
//! `preview.rs`.

use super::{
    table::{Id, Table},
    time::Instant,
};
use board::Board;

/// Previews may hold at most one row in this many of a table.
const SHARE: u32 = 8;

/// The previews that wait.
#[derive(Debug)]
pub struct Previews {
    rows: Table<Preview>,
    news: u64,
    rest_until: Instant,
}

/// Previews that wait for one link.
#[derive(Debug)]
pub struct Previewers {
    count: u32,
}

/// A client that waits for a link's card.
#[derive(Debug)]
pub struct Preview {
    link: u32,
    until: Instant,
    asked: bool,
}

impl Previewers {
    /// No preview waits.
    pub const NOBODY: Self = Self { count: 0 };

    /// Whether no preview waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Preview {
    /// The link's row.
    #[must_use]
    pub const fn link(&self) -> u32 {
        self.link
    }

    /// How long it waits.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Whether the link was requested after the preview began to wait, or was in flight then.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        self.asked
    }
}

impl Previews {
    /// An empty table for the board's previews.
    #[must_use]
    pub fn new(board: &Board) -> Self {
        Self { rows: Table::new(previews_max(board)), news: 0, rest_until: Instant(0) }
    }

    /// Whether no preview waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether no more previews may wait.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// The preview of a name, while it waits.
    #[must_use]
    pub fn get(&self, preview: Id<Preview>) -> Option<&Preview> {
        self.rows.resolve(preview).map(|index| &self.rows[index])
    }

    /// A preview begins to wait. `previewers` are its link's. `None` if no more may wait.
    pub fn insert(
        &mut self,
        link: u32,
        until: Instant,
        asked: bool,
        previewers: &mut Previewers,
    ) -> Option<Id<Preview>> {
        let index = self.rows.insert(Preview { link, until, asked }).ok()?;
        previewers.count += 1;
        self.rows.id(index)
    }

    /// A preview waits no longer. `previewers` gives those of its link.
    pub fn remove<'a>(
        &mut self,
        preview: Id<Preview>,
        previewers: impl FnOnce(u32) -> &'a mut Previewers,
    ) -> Option<Preview> {
        let row = self.rows.resolve(preview).and_then(|index| self.rows.remove(index))?;
        previewers(row.link).count -= 1;
        Some(row)
    }

    /// Previews stand at indices below this.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.rows.end()
    }

    /// The link of the preview at an index, if that was not requested for it yet.
    #[must_use]
    pub fn unasked(&self, index: u32) -> Option<u32> {
        self.rows.get(index).filter(|row| !row.asked).map(|row| row.link)
    }

    /// The link of the preview at an index is requested now.
    pub fn set_asked(&mut self, index: u32) {
        if let Some(row) = self.rows.get_mut(index) {
            row.asked = true;
        }
    }

    /// A preview may be over.
    pub const fn add_news(&mut self) {
        self.news += 1;
    }

    /// Grows whenever a preview may be over.
    #[must_use]
    pub const fn news(&self) -> u64 {
        self.news
    }

    /// Whether no preview waits now, because the last one waited in vain.
    #[must_use]
    pub fn is_at_rest(&self, now: Instant) -> bool {
        now < self.rest_until
    }

    /// A preview waited in vain: none waits before this time.
    pub const fn rest_until(&mut self, until: Instant) {
        self.rest_until = until;
    }

    /// Checks the table's size.
    ///
    /// # Panics
    /// If it has grown.
    pub fn check_size(&self, board: &Board) {
        self.rows.check_size("previews", previews_max(board));
    }

    /// Checks that a link counts its previews correctly. For tests.
    ///
    /// # Panics
    /// If it doesn't.
    pub fn check(&self, link: u32, previewers: &Previewers) {
        let count = self.rows.iter().filter(|(_, preview)| preview.link == link).count();
        assert_eq!(previewers.count as usize, count, "link {link} counts its previews wrongly");
    }
}

/// How many previews may wait at the same time.
#[must_use]
pub const fn previews_max(board: &Board) -> u32 {
    let of_heads = share(board.heads_max);
    let of_links = share(board.links_max);
    if of_heads < of_links { of_heads } else { of_links }
}

/// The previews' share of a table's rows.
#[must_use]
pub const fn share(of: u32) -> u32 {
    if of < SHARE { 1 } else { of / SHARE }
}
