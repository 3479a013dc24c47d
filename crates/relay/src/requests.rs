//! Requests: `Subscribe` frames that were sent to the business server and not answered yet.
//!
//! Owns their table, their numbers, which links they hold ([`Asked`]), and whether there is a
//! backlog of requests that found no room. Doesn't know whose turn it is (`turns.rs`), nor what an
//! answer means (`answering.rs`).

use core::net::IpAddr;

use super::{
    table::{NONE, Table},
    time::Instant,
};

/// A `Subscribe` in flight.
#[derive(Debug)]
pub struct Request {
    /// Its number on the wire.
    pub number: u32,
    /// The link's row; [`NONE`] once the request was voided by a denial of the link.
    pub link: u32,
    /// The subscription of the page that it names; [`NONE`] if it is for the link as a whole, or if
    /// that page left.
    pub asker: u32,
    /// The page that it names; `None` if it is for the link as a whole.
    pub page: Option<Asker>,
    /// The row of the network that it counts for; [`NONE`] if it was sent for watching pages or a
    /// preview.
    pub network: u32,
    /// Sent only for a preview.
    pub for_preview: bool,
    /// Its position among all frames sent on this connection.
    pub order: u64,
    /// When it is given up.
    pub deadline: Instant,
    /// The epoch and the message sequence from which the business server was asked to replay for
    /// waiting pages; 0 if not asked.
    pub replay: (u64, u64),
}

/// The page that a request names, in the form in which its denial is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its address.
    pub address: IpAddr,
    /// The hash of its origin; that of the empty text if it has none.
    pub origin: u64,
}

/// What is in flight for a link. As long as something is, the link's row stays.
#[derive(Debug)]
pub struct Asked {
    whole: u32,
    holds: u32,
}

impl Asked {
    /// Nothing in flight.
    pub const NOTHING: Self = Self { whole: NONE, holds: 0 };

    /// Whether a request for the link as a whole is in flight.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole != NONE
    }

    /// Whether requests that name a page are in flight, or answers are being processed.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.holds > 0
    }

    /// Keeps the link's row until [`release`](Self::release).
    pub const fn hold(&mut self) {
        self.holds += 1;
    }

    /// Releases one hold.
    pub const fn release(&mut self) {
        self.holds -= 1;
    }
}

/// The table of requests.
#[derive(Debug)]
pub struct Requests {
    rows: Table<Request>,
    next_number: u32,
    has_backlog: bool,
    /// The link whose turn is next.
    turn: u32,
}

/// The rows, to read. Rows come and go only by the methods here.
impl core::ops::Deref for Requests {
    type Target = Table<Request>;

    fn deref(&self) -> &Table<Request> {
        &self.rows
    }
}

impl Requests {
    /// An empty table for `requests_max` requests.
    #[must_use]
    pub fn new(requests_max: u32) -> Self {
        Self { rows: Table::new(requests_max), next_number: 1, has_backlog: false, turn: 0 }
    }

    /// The number of the next request.
    #[must_use]
    pub const fn next_number(&self) -> u32 {
        self.next_number
    }

    /// The link whose turn it is to send a request.
    #[must_use]
    pub const fn turn(&self) -> u32 {
        self.turn
    }

    /// The turn passes to a link.
    pub const fn set_turn(&mut self, link: u32) {
        self.turn = link;
    }

    /// Whether requests found no room, or may have.
    #[must_use]
    pub const fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// There may be a backlog.
    pub const fn set_backlog(&mut self) {
        self.has_backlog = true;
    }

    /// Clears the backlog, which is worked off now or was only a preview's; returns whether there
    /// was one.
    pub const fn take_backlog(&mut self) -> bool {
        core::mem::replace(&mut self.has_backlog, false)
    }

    /// Adds the request with the next number, which was sent. `asked` is that of its link. `false`
    /// if there is no room.
    pub fn insert(&mut self, request: Request, asked: &mut Asked) -> bool {
        let is_whole = request.page.is_none();
        let Ok(index) = self.rows.insert(request) else { return false };
        self.next_number = self.next_number.wrapping_add(1);
        if is_whole {
            asked.whole = index;
        } else {
            asked.hold();
        }
        true
    }

    /// Removes the request with a number; `None` if there is none, or if it was voided. `asked`
    /// returns that of its link, which is held until [`Asked::release`].
    pub fn take<'a>(&mut self, number: u32, asked: impl FnOnce(u32) -> &'a mut Asked) -> Option<Request> {
        let index = self.rows.iter().find(|(_, request)| request.number == number).map(|(index, _)| index)?;
        let request = self.rows.remove(index).filter(|request| request.link != NONE)?;
        if request.page.is_none() {
            let asked = asked(request.link);
            asked.whole = NONE;
            asked.hold();
        }
        Some(request)
    }

    /// Voids the request at an index if it is for this link: its answer no longer counts. Returns
    /// the asker, or [`NONE`], and the page that it named. The row stays, since the request is in
    /// flight; a request that names a page leaves its hold to the caller.
    pub fn void(&mut self, index: u32, link: u32, asked: &mut Asked) -> Option<(u32, Option<Asker>)> {
        let request = self.rows.get_mut(index).filter(|request| request.link == link)?;
        request.link = NONE;
        if request.page.is_none() {
            asked.whole = NONE;
        }
        Some((core::mem::replace(&mut request.asker, NONE), request.page))
    }

    /// Removes a subscription that goes away from the requests that name it.
    pub fn forget_asker(&mut self, subscription: u32) {
        for index in 0..self.rows.end() {
            if let Some(request) = self.rows.get_mut(index)
                && request.asker == subscription
            {
                request.asker = NONE;
            }
        }
    }

    /// Checks the requests of one link against what it holds. For tests.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self, link: u32, asked: &Asked) {
        let of_link = || self.rows.iter().filter(|(_, request)| request.link == link);
        let pages = of_link().filter(|(_, request)| request.page.is_some()).count();
        assert_eq!(asked.holds as usize, pages, "link {link} is held by others than its pages' requests");
        let mut whole = of_link().filter(|(_, request)| request.page.is_none()).map(|(index, _)| index);
        assert_eq!(asked.whole, whole.next().unwrap_or(NONE), "link {link} names another request");
        assert_eq!(whole.next(), None, "link {link} was asked for as a whole twice");
    }
}
