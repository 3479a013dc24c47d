//! The subscriptions that wait for a link, in the order in which they came, and how many of them a grant covers.
//!
//! A shared grant admits everybody who waits when it comes, a few in each turn. Who is covered is one number: each
//! subscription takes a ticket as it begins to wait, and a grant covers the tickets before the next one. Owns the ring,
//! the tickets and what is covered. Doesn't know grants.

use super::{
    ring::{InRing, Ring},
    table::Table,
};

/// More tickets than are taken while one subscription waits, which is 10 s at most.
const TICKETS_MAX: u32 = 1 << 30;

/// The subscriptions that wait for a link.
#[derive(Debug)]
pub struct Waiting {
    ring: Ring,
    next_ticket: u32,
    covered_to: u32,
}

impl Waiting {
    /// Nobody waits.
    pub const NOBODY: Self = Self { ring: Ring::EMPTY, next_ticket: 0, covered_to: 0 };

    /// Those that wait, the longest waiting first.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// A subscription begins to wait; its ticket.
    pub(super) fn join(&mut self, rows: &mut Table<impl InRing>, index: u32) -> u32 {
        self.ring.join(rows, index);
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        if ticket.wrapping_sub(self.covered_to) > TICKETS_MAX {
            // Nobody has waited since then: numbers may wrap.
            self.uncover();
        }
        ticket
    }

    /// A subscription waits no longer.
    pub(super) fn leave(&mut self, rows: &mut Table<impl InRing>, index: u32) {
        self.ring.leave(rows, index);
    }

    /// Whether the grant covers a waiting subscription.
    #[must_use]
    pub const fn covers(&self, ticket: u32) -> bool {
        ticket.wrapping_sub(self.covered_to) > u32::MAX / 2
    }

    /// A shared grant covers everybody that waits now.
    pub const fn cover(&mut self) {
        self.covered_to = self.next_ticket;
    }

    /// No grant covers those that wait any more: they are asked for anew.
    pub const fn uncover(&mut self) {
        self.covered_to = self.next_ticket.wrapping_sub(TICKETS_MAX);
    }
}
