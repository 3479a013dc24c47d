//! Requests: `Subscribe` frames that were sent to the business server and not answered yet.
//!
//! Owns the table of them, their numbers, which links they hold ([`Asked`]), and whether there is a backlog: something to
//! be asked that found no room. Doesn't know whose turn it is (`turns.rs`), nor what an answer means (`answering.rs`).

use core::net::IpAddr;

use super::{
    table::{NONE, Table},
    time::Instant,
};

/// A `Subscribe` under way.
#[derive(Debug)]
pub struct Request {
    /// Its number on the wire.
    pub number: u32,
    /// The link's row; [`NONE`] once the link was denied.
    pub link: u32,
    /// The subscription of the page that it names; [`NONE`] where it is for the link as a whole,
    /// or where that page left.
    pub asker: u32,
    /// The page that it names; none where it is for the link as a whole.
    pub page: Option<Asker>,
    /// The row of the network that asks; [`NONE`] where pages that watch do, or a preview.
    pub network: u32,
    /// Sent for a preview alone.
    pub for_preview: bool,
    /// The place among all frames sent on this connection.
    pub order: u64,
    /// When it is given up.
    pub deadline: Instant,
    /// The epoch, and the messages' sequence in it, from which the business server was asked to
    /// replay for pages that wait; 0 without.
    pub replay: (u64, u64),
}

/// The page that a request names, as a denial of it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it is.
    pub address: IpAddr,
    /// The hash of its origin; that of the empty text without.
    pub origin: u64,
}

/// What is under way for a link. While it is, the link's row stays.
#[derive(Debug)]
pub struct Asked {
    whole: u32,
    holds: u32,
}

impl Asked {
    /// Nothing is under way.
    pub const NOTHING: Self = Self { whole: NONE, holds: 0 };

    /// Whether a request for the link as a whole is under way.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole != NONE
    }

    /// Whether requests of single pages are under way, or answers being worked on.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.holds > 0
    }

    /// The row must stay until [`release`](Self::release).
    pub const fn hold(&mut self) {
        self.holds += 1;
    }

    /// One hold less.
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
    /// The link whose turn it is to ask.
    pub turn: u32,
}

impl Requests {
    /// None under way; room for `requests_max`.
    #[must_use]
    pub fn new(requests_max: u32) -> Self {
        Self { rows: Table::new(requests_max), next_number: 1, has_backlog: false, turn: 0 }
    }

    /// The rows, to read.
    #[must_use]
    pub const fn rows(&self) -> &Table<Request> {
        &self.rows
    }

    /// How many are under way.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.rows.len()
    }

    /// Whether there is no room for another one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// The number of the next request.
    #[must_use]
    pub const fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Whether there is something to be asked that found no room, or may be.
    #[must_use]
    pub const fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// There may be something to be asked.
    pub const fn set_backlog(&mut self) {
        self.has_backlog = true;
    }

    /// The backlog is looked through now, or was only a preview's; whether there was one.
    pub const fn take_backlog(&mut self) -> bool {
        core::mem::replace(&mut self.has_backlog, false)
    }

    /// The request with the next number was sent. `asked` is its link's. `false` where there is no room.
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

    /// Takes the request with a number out of the table; `None` where there is none, or it was voided. `asked` gives its
    /// link's, which is held until [`Asked::release`].
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

    /// The answer to the request at an index has no say any more, where it is for this link: its asker, or [`NONE`]. The row
    /// stays, since the request is under way; the hold of one that names a page is the caller's now.
    pub fn void(&mut self, index: u32, link: u32, asked: &mut Asked) -> Option<(u32, Option<Asker>)> {
        let request = self.rows.get_mut(index).filter(|request| request.link == link)?;
        request.link = NONE;
        if request.page.is_none() {
            asked.whole = NONE;
        }
        Some((core::mem::replace(&mut request.asker, NONE), request.page))
    }

    /// A subscription that goes away is nobody's asker any more.
    pub fn forget_asker(&mut self, subscription: u32) {
        for index in 0..self.rows.end() {
            if let Some(request) = self.rows.get_mut(index)
                && request.asker == subscription
            {
                request.asker = NONE;
            }
        }
    }

    /// Checks the requests of one link against what it holds: for tests.
    ///
    /// # Panics
    /// Where they differ.
    pub fn check(&self, link: u32, asked: &Asked) {
        let of_link = || self.rows.iter().filter(|(_, request)| request.link == link);
        let pages = of_link().filter(|(_, request)| request.page.is_some()).count();
        assert_eq!(asked.holds as usize, pages, "link {link} is held by others than its pages' requests");
        let mut whole = of_link().filter(|(_, request)| request.page.is_none()).map(|(index, _)| index);
        assert_eq!(asked.whole, whole.next().unwrap_or(NONE), "link {link} names another request");
        assert_eq!(whole.next(), None, "link {link} was asked for as a whole twice");
    }
}
