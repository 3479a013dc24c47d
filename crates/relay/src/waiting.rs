//! The subscriptions that wait for a link, in order of arrival, and how many of them a grant
//! covers.
//!
//! A shared grant admits all subscriptions that wait when it arrives, a batch per turn. A single
//! number marks the covered ones: each subscription takes a ticket when it begins to wait, and a
//! grant covers all tickets before the next one. Owns the ring, the tickets and that number.
//! Doesn't know grants.

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
    /// None.
    pub const NOBODY: Self = Self { ring: Ring::EMPTY, next_ticket: 0, covered_to: 0 };

    /// The waiting subscriptions, longest waiting first.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Adds a subscription and returns its ticket.
    pub(super) fn join(&mut self, rows: &mut Table<impl InRing>, index: u32) -> u32 {
        self.ring.join(rows, index);
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        if ticket.wrapping_sub(self.covered_to) > TICKETS_MAX {
            // No ticket that old is waiting any more: move the mark, so that numbers may wrap
            // around.
            self.uncover();
        }
        ticket
    }

    /// Removes a subscription that no longer waits.
    pub(super) fn leave(&mut self, rows: &mut Table<impl InRing>, index: u32) {
        self.ring.leave(rows, index);
    }

    /// Whether the grant covers the ticket of a waiting subscription.
    #[must_use]
    pub const fn covers(&self, ticket: u32) -> bool {
        ticket.wrapping_sub(self.covered_to) > u32::MAX / 2
    }

    /// A shared grant covers all subscriptions that wait now.
    pub const fn cover(&mut self) {
        self.covered_to = self.next_ticket;
    }

    /// No grant covers the waiting subscriptions any more: they need a new request.
    pub const fn uncover(&mut self) {
        self.covered_to = self.next_ticket.wrapping_sub(TICKETS_MAX);
    }
}
