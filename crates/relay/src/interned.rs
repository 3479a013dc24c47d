//! Reference-counted tables of keys that pages share.
//!
//! There are two of them: the networks that pages come from, and their origins. Each has a row for
//! every page that there can be, so a page's key always finds a row and never evicts another's. A
//! key is found by its hash, in chains of rows, never by a walk over the pages. Owns the counts;
//! what follows from them is decided in `pages.rs`.

use alloc::{vec, vec::Vec};
use core::net::{IpAddr, Ipv6Addr};

use heapless::String;

use super::{
    hash,
    table::{NONE, Table},
    texts::shortened,
};
use wire::REASON_SIZE_MAX;

/// A key that can be counted.
pub trait Key: PartialEq {
    /// The key's hash, with a secret seed.
    fn hash_with(&self, seed: u64) -> u64;
}

/// A table of keys with the number of their uses.
#[derive(Debug)]
pub struct Interned<K> {
    rows: Table<Row<K>>,
    heads: Vec<u32>,
    seed: u64,
}

#[derive(Debug)]
struct Row<K> {
    key: K,
    uses: u32,
    /// The next row in the chain of the same head.
    next: u32,
}

impl<K: Key> Interned<K> {
    /// The size of one row and its head, bytes.
    pub const ROW_SIZE: usize = Table::<Row<K>>::ROW_SIZE + size_of::<u32>();

    /// Creates an empty table.
    #[must_use]
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self { rows: Table::new(capacity), heads: vec![NONE; capacity as usize], seed }
    }

    /// Adds one use of a key, and a row if it is new. Returns the row, or `None` if the table is
    /// full.
    pub fn keep(&mut self, key: K) -> Option<u32> {
        if let Some(index) = self.find(&key) {
            self.rows[index].uses += 1;
            return Some(index);
        }
        let head = self.head(&key);
        let next = self.heads.get(head).copied()?;
        let index = self.rows.insert(Row { key, uses: 1, next }).ok()?;
        self.heads[head] = index;
        Some(index)
    }

    /// Releases one use of a row; the last one removes it.
    pub fn release(&mut self, index: u32) {
        let row = &mut self.rows[index];
        row.uses -= 1;
        if row.uses > 0 {
            return;
        }
        let next = row.next;
        let head = self.head(&self.rows[index].key);
        if self.heads[head] == index {
            self.heads[head] = next;
        } else {
            let mut before = self.heads[head];
            while self.rows[before].next != index {
                before = self.rows[before].next;
            }
            self.rows[before].next = next;
        }
        self.rows.remove(index);
    }

    /// How many uses a key has.
    #[must_use]
    pub fn uses(&self, key: &K) -> u32 {
        self.find(key).map_or(0, |index| self.rows[index].uses)
    }

    /// The key of a row.
    #[must_use]
    pub fn key(&self, index: u32) -> Option<&K> {
        self.rows.get(index).map(|row| &row.key)
    }

    /// The number of different keys.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.rows.len()
    }

    fn find(&self, key: &K) -> Option<u32> {
        let mut index = self.heads.get(self.head(key)).copied()?;
        while let Some(row) = self.rows.get(index) {
            if row.key == *key {
                return Some(index);
            }
            index = row.next;
        }
        None
    }

    fn head(&self, key: &K) -> usize {
        let heads = self.heads.len().max(1) as u64;
        usize::try_from(key.hash_with(self.seed) % heads).unwrap_or(0)
    }

    /// Checks that the table has not grown.
    ///
    /// # Panics
    /// If it has.
    pub fn check_size(&self, name: &str, max: u32) {
        self.rows.check_size(name, max);
        assert_eq!(self.heads.len(), self.rows.capacity() as usize, "BOUND: the heads of {name} have changed");
    }

    /// Checks the chains, and each row's uses against `used`: the rows in use, once for each use.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self, name: &str, max: u32, used: impl Iterator<Item = u32>) {
        self.check_size(name, max);
        self.rows.check(name, max);
        let mut uses = vec![0; self.rows.end() as usize];
        for index in used {
            assert!(self.rows.get(index).is_some(), "NAME: row {index} of {name} is in use and is gone");
            uses[index as usize] += 1;
        }
        for (index, row) in self.rows.iter() {
            assert_eq!(row.uses, uses[index as usize], "row {index} of {name} counts its uses wrongly");
            assert_eq!(self.find(&row.key), Some(index), "row {index} of {name} is not found, or is there twice");
        }
    }
}

/// The network that an address counts for: an IPv4 address itself, or the /64 of an IPv6 address,
/// the smallest block that a network assigns to a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            address => Self(address),
        }
    }
}

impl Key for Network {
    fn hash_with(&self, seed: u64) -> u64 {
        match self.0 {
            IpAddr::V4(address) => hash(seed, &address.octets()),
            IpAddr::V6(address) => hash(seed, &address.octets()),
        }
    }
}

/// An `Origin` header, shortened to [`REASON_SIZE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String<REASON_SIZE_MAX>);

impl Origin {
    /// An origin, shortened to at most 256 bytes at a character boundary.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(String::try_from(shortened(text, REASON_SIZE_MAX)).unwrap_or_default())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Key for Origin {
    fn hash_with(&self, seed: u64) -> u64 {
        hash(seed, self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn a_key_has_one_row_and_its_own_count_even_where_keys_share_a_head() {
        for seed in 0..20 {
            let mut table = Interned::new(3, seed);
            let [a, b, c] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(network);
            let [row_a, row_b, row_c] = [a, b, c].map(|key| table.keep(key).unwrap());
            assert_eq!(table.keep(a), Some(row_a));
            assert_eq!(table.keep(network("192.0.2.4")), None, "full");
            assert_eq!([a, b, c].map(|key| table.uses(&key)), [2, 1, 1]);
            table.check("networks", 3, [row_a, row_b, row_c, row_a].into_iter());
            table.release(row_b);
            assert_eq!((table.uses(&b), table.len()), (0, 2));
            table.check("networks", 3, [row_a, row_c, row_a].into_iter());
            table.release(row_a);
            table.release(row_a);
            table.release(row_c);
            assert_eq!(table.len(), 0);
        }
    }

    #[test]
    fn an_ipv6_address_counts_for_its_64_bits_of_network() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_ne!(network("0.0.0.0"), network("::"));
    }

    #[test]
    fn a_long_origin_is_cut_between_two_characters() {
        let origin = Origin::of(&"你".repeat(100));
        assert_eq!(origin.as_str().len(), 255);
    }
}
