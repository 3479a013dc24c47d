//! Texts that several rows share: the business server's reasons.
//!
//! A pool of fixed capacity that keeps each text once, with a reference count. A full pool takes no
//! further text: the relay then gives a reason of its own instead.

use alloc::vec::Vec;
use heapless::String;

use wire::REASON_SIZE_MAX;

/// A pool of shared texts.
#[derive(Debug)]
pub struct Texts {
    rows: Vec<Text>,
    capacity: u32,
}

#[derive(Debug)]
struct Text {
    uses: u32,
    text: String<REASON_SIZE_MAX>,
}

/// A text in a pool: return it with [`Texts::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextId(u16);

/// Why something ended, in the relay's own words or the business server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The relay's own.
    Own(&'static str),
    /// The business server's.
    Given(TextId),
}

impl Texts {
    /// Bytes of one row.
    pub const ROW_SIZE: usize = size_of::<Text>();

    /// An empty pool.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { rows: Vec::with_capacity(capacity as usize), capacity }
    }

    /// Keeps a text, cut to 256 bytes, and adds a use of it; `None` if the pool is full.
    pub fn keep(&mut self, text: &str) -> Option<TextId> {
        let text = shortened(text, REASON_SIZE_MAX);
        let same = self.rows.iter().position(|row| row.uses > 0 && row.text == text);
        let index = match same.or_else(|| self.rows.iter().position(|row| row.uses == 0)) {
            Some(index) => index,
            None if self.rows.len() < self.capacity as usize => {
                self.rows.push(Text { uses: 0, text: String::new() });
                self.rows.len() - 1
            }
            None => return None,
        };
        let row = self.rows.get_mut(index)?;
        if row.uses == 0 {
            row.text.clear();
            row.text.push_str(text).ok()?;
        }
        row.uses += 1;
        u16::try_from(index).ok().map(TextId)
    }

    /// Adds a use of a text.
    pub fn retain(&mut self, id: TextId) {
        if let Some(row) = self.rows.get_mut(usize::from(id.0)) {
            row.uses += 1;
        }
    }

    /// Releases a use of a text.
    pub fn release(&mut self, id: TextId) {
        if let Some(row) = self.rows.get_mut(usize::from(id.0)) {
            debug_assert!(row.uses > 0, "a text was released twice");
            row.uses = row.uses.saturating_sub(1);
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self, id: TextId) -> &str {
        self.rows.get(usize::from(id.0)).map_or("", |row| row.text.as_str())
    }

    /// A reason as text.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> &str {
        match reason {
            Reason::Own(text) => text,
            Reason::Given(id) => self.text(id),
        }
    }

    /// Keeps a reason of the business server, or returns `otherwise` if the pool is full.
    pub fn keep_reason(&mut self, text: &str, otherwise: &'static str) -> Reason {
        self.keep(text).map_or(Reason::Own(otherwise), Reason::Given)
    }

    /// Adds a use of a reason.
    pub fn retain_reason(&mut self, reason: Reason) -> Reason {
        if let Reason::Given(id) = reason {
            self.retain(id);
        }
        reason
    }

    /// Releases a use of a reason.
    pub fn release_reason(&mut self, reason: Reason) {
        if let Reason::Given(id) = reason {
            self.release(id);
        }
    }

    /// The texts' reference counts.
    pub fn uses(&self) -> impl Iterator<Item = (TextId, u32)> {
        (0..).zip(&self.rows).map(|(index, row)| (TextId(index), row.uses))
    }

    /// The number of texts in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.iter().filter(|row| row.uses > 0).count()
    }

    /// Whether no text is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The longest prefix of a text that has at most `size_max` bytes and splits no character.
#[must_use]
pub fn shortened(text: &str, size_max: usize) -> &str {
    let end = text.floor_char_boundary(size_max);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_kept_once_and_counted() {
        let mut texts = Texts::new(1);
        let a = texts.keep("closed").unwrap();
        assert_eq!(texts.keep("closed"), Some(a));
        assert_eq!(texts.keep("other"), None);
        assert_eq!(texts.keep_reason("other", "over"), Reason::Own("over"));
        texts.release(a);
        assert_eq!(texts.text(a), "closed");
        texts.release(a);
        assert!(texts.is_empty());
        let b = texts.keep("other").unwrap();
        assert_eq!(texts.text(b), "other");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "你".repeat(100);
        assert_eq!(shortened(&long, 256).len(), 255);
        let mut texts = Texts::new(1);
        let id = texts.keep(&long).unwrap();
        assert_eq!(texts.text(id).len(), 255);
    }
}
