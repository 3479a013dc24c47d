//! Previews: clients that fetch a link without watching it, such as a crawler after a link is
//! pasted.
//!
//! A preview of a link without a grant requests it as a whole, after all pages' requests, and waits
//! [`PREVIEW_MS_MAX`] for the newest state. Others that request the same link meanwhile share that
//! request. Previews hold at most an eighth of topics, links and requests (at least one of each)
//! and never evict what a page used; their topics have no audience and are unsubscribed once the
//! state arrived. No preview waits while the uplink is down, or for a while after one waited in
//! vain.

use alloc::vec::Vec;
use core::net::IpAddr;

pub use super::previews::Preview;
use super::{
    Relay,
    previews::share,
    table::{Id, NONE},
    time::Instant,
};
use wire::Track;

/// A preview waits at most this long for the newest state.
pub const PREVIEW_MS_MAX: u64 = 1_500;
/// After a preview waited in vain, none waits for this long.
const REST_MS: u64 = 10_000;
impl Relay {
    /// The newest state behind a link that has a live shared grant: the frame's payload, a `state`
    /// of the page protocol. `None` if there is none, or if the link's grant doesn't allow it.
    #[must_use]
    pub fn card(&self, now: Instant, link: &str) -> Option<Vec<u8>> {
        self.card_of(now, self.links.find(link)?)
    }

    fn card_of(&self, now: Instant, link: u32) -> Option<Vec<u8>> {
        if !self.links[link].is_granted(now) {
            return None;
        }
        let topic = self.topics.get(self.links[link].topic())?;
        let (number, entry) = topic.newest_state(&self.store)?;
        let log = topic.log(Track::State);
        let mut slices = heapless::Vec::<&[u8], 512>::new();
        let from = entry.at + u64::from(entry.header_size);
        log.slices(&self.store, from, log.entry_end(&self.store, number), &mut slices);
        Some(slices.iter().flat_map(|slice| slice.iter().copied()).collect())
    }

    /// A client at `address` wants a link's card. `Some`: it must wait until
    /// [`is_preview_over`](Self::is_preview_over), then call
    /// [`handle_preview_over`](Self::handle_preview_over). `None`: [`card`](Self::card) has the
    /// final answer now.
    pub fn handle_preview(&mut self, now: Instant, address: IpAddr, name: &str) -> Option<Id<Preview>> {
        let known = self.links.find(name);
        if known.is_some_and(|link| self.is_card_settled(now, link) || self.is_held(now, link)) {
            return None;
        }
        let is_at_rest = !self.is_up() || self.draining || self.previews.is_at_rest(now);
        // What a page used is not evicted for a preview.
        if is_at_rest || self.previews.is_full() || !self.may_ask_from(now, address) {
            return None;
        }
        let link = known.or_else(|| self.link_for_preview(now, name, share(self.board.links_max)))?;
        let asked = self.links[link].asked.is_whole();
        let preview = self.previews.insert(link, now.after(PREVIEW_MS_MAX), asked, &mut self.links[link].previewers)?;
        self.ask_for_previews(now);
        Some(preview)
    }

    /// A row for a link that only a preview wants. It takes nothing from a page: previews hold at
    /// most `links_max` rows of the table. `None` if there is no room.
    fn link_for_preview(&mut self, now: Instant, name: &str, links_max: u32) -> Option<u32> {
        let held = self.links.iter().filter(|(_, link)| link.is_for_preview()).count();
        if self.links.is_full() || held >= links_max as usize {
            let spare = self.links.iter().filter(|(_, link)| link.is_for_preview() && link.is_spare());
            let (oldest, _) = spare.min_by_key(|(_, link)| link.used_at())?;
            self.remove_link(oldest);
        }
        let link = self.links.insert(now, name, self.uplink.connection())?;
        self.links[link].set_for_preview();
        Some(link)
    }

    /// Whether a preview has waited long enough, or has nothing to wait for any more.
    #[must_use]
    pub fn is_preview_over(&self, now: Instant, preview: Id<Preview>) -> bool {
        let Some(row) = self.previews.get(preview) else { return true };
        let link = &self.links[row.link()];
        let is_answered =
            row.is_asked() && !link.asked.is_whole() && link.waiting.ring().is_empty() && link.on_trial().is_none();
        now >= row.until()
            || !self.is_up()
            || self.is_card_settled(now, row.link())
            || is_answered && !link.is_granted(now)
    }

    /// Ends a preview's wait. Returns the card, if there is one.
    pub fn handle_preview_over(&mut self, now: Instant, preview: Id<Preview>) -> Option<Vec<u8>> {
        let row = self.previews.remove(preview, |link| &mut self.links[link].previewers)?;
        let card = self.card_of(now, row.link());
        self.previews.add_news();
        if card.is_none() && now >= row.until() {
            self.previews.rest_until(now.after(REST_MS));
        }
        let link = &self.links[row.link()];
        if link.previewers.is_empty()
            && let Some(topic) = self.topics.get_mut(link.topic())
            && topic.acceptance.is_for_preview()
        {
            // The next sweep unsubscribes the topic.
            topic.acceptance.forget_from(now);
        }
        self.release_link(now, row.link());
        card
    }

    /// Grows whenever a preview may be over.
    #[must_use]
    pub const fn preview_news(&self) -> u64 {
        self.previews.news()
    }

    /// Sends the requests that previews wait for, if pages have no backlog.
    pub(super) fn ask_for_previews(&mut self, now: Instant) {
        if self.previews.is_empty() || self.requests.has_backlog() {
            return;
        }
        for index in 0..self.previews.end() {
            let Some(link) = self.previews.unasked(index) else { continue };
            if !self.links[link].asked.is_whole() {
                let under_way = self.requests.iter().filter(|(_, request)| request.for_preview).count();
                // The last free request is reserved for pages.
                let is_last = self.requests.len() + 1 == self.board.requests_max && self.board.requests_max > 1;
                let has_room = under_way < share(self.board.requests_max) as usize && !is_last;
                if !has_room || self.links[link].asked.is_held() || !self.request(now, link, NONE) {
                    // A preview that finds no room makes no backlog.
                    let _ = self.requests.take_backlog();
                    continue;
                }
            }
            self.previews.set_asked(index);
        }
    }

    /// Whether previews may hold one more topic without evicting one.
    pub(super) fn has_topic_for_preview(&self) -> bool {
        let held = self.topics.iter().filter(|(_, topic)| topic.acceptance.is_for_preview()).count();
        !self.topics.is_full() && held < share(self.board.topics_max) as usize
    }

    /// Whether waiting changes nothing: the state is there, or there can be no card.
    fn is_card_settled(&self, now: Instant, link: u32) -> bool {
        let row = &self.links[link];
        let has_state = self.topics.get(row.topic()).is_some_and(|topic| topic.newest_state(&self.store).is_some());
        row.denied_now(now).is_some() || row.asks_by_page() || row.is_granted(now) && has_state
    }

    /// Whether a link is granted for pages already: then no request is sent for a preview.
    fn is_held(&self, now: Instant, link: u32) -> bool {
        let topic = self.topics.get(self.links[link].topic());
        self.links[link].is_granted(now) && topic.is_some_and(|topic| !topic.acceptance.is_for_preview())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED};
    use super::*;
    use board::Board;
    use wire::uplink::{Grant, Part, ToRelay};

    const HERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);

    fn state(rig: &mut Rig) {
        rig.publish(7, Track::State, 1, Part::Whole, br#"{"title":"t"}"#);
    }

    #[test]
    fn the_first_preview_gets_the_card_and_leaves_nothing_behind() {
        let mut rig = Rig::up(&BOARD);
        let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
        assert_eq!(rig.said(), ["Subscribe 1 link"]);
        assert!(!rig.relay.is_preview_over(rig.now, preview));
        rig.accept(1, 7, 1, SHARED);
        assert_eq!(rig.said(), [""; 0], "no page watches: no audience is reported");
        assert!(!rig.relay.is_preview_over(rig.now, preview));
        let news = rig.relay.preview_news();
        state(&mut rig);
        assert!(rig.relay.preview_news() > news && rig.relay.is_preview_over(rig.now, preview));
        let card = rig.relay.handle_preview_over(rig.now, preview).unwrap();
        assert_eq!(card, br#"{"type":"state","topic":7,"sequence":1,"data":{"title":"t"}}"#);
        rig.pass(100);
        assert_eq!(rig.said(), ["Unsubscribe 7"]);
        assert_eq!(rig.relay.in_use(), super::super::InUse::default());
    }

    #[test]
    fn a_page_that_comes_keeps_the_topic_of_a_preview() {
        let mut rig = Rig::up(&BOARD);
        let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
        rig.accept(1, 7, 1, SHARED);
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        state(&mut rig);
        assert!(rig.relay.handle_preview_over(rig.now, preview).is_some());
        rig.pass(1_900);
        assert_eq!(rig.said(), ["Subscribe 1 link", "Audience 7 1"]);
        assert_eq!(rig.read(page).len(), 2);
    }

    #[test]
    fn a_herd_shares_one_request_and_a_page_s_is_shared_too() {
        let mut rig = Rig::up(&Board { heads_max: 32, links_max: 32, ..BOARD });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        let previews = [0; 3].map(|_| rig.relay.handle_preview(rig.now, HERE, "link").unwrap());
        assert_eq!(rig.said(), ["Subscribe 1 link"]);
        rig.accept(1, 7, 1, SHARED);
        state(&mut rig);
        for preview in previews {
            assert!(rig.relay.is_preview_over(rig.now, preview));
            assert!(rig.relay.handle_preview_over(rig.now, preview).is_some());
        }
        assert!(rig.relay.handle_preview(rig.now, HERE, "link").is_none(), "a granted link is not requested");
    }

    #[test]
    fn denied_not_shared_and_unanswered_give_no_card() {
        let answers: [fn(&mut Rig); 4] = [
            |rig| rig.tell(ToRelay::Deny { request: 1, reason: "no" }),
            |rig| rig.accept(1, 7, 1, OWN),
            |rig| rig.accept(1, 7, 1, Grant { ttl_s: 0, ..SHARED }),
            |rig| rig.relay.handle_uplink_lost(rig.now),
        ];
        for answer in answers {
            let mut rig = Rig::up(&BOARD);
            let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
            answer(&mut rig);
            assert!(rig.relay.is_preview_over(rig.now, preview));
            assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
            rig.relay.check();
        }
        let mut rig = Rig::up(&BOARD);
        let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
        rig.pass(1_400);
        assert!(!rig.relay.is_preview_over(rig.now, preview));
        rig.pass(100);
        assert!(rig.relay.is_preview_over(rig.now, preview));
        assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
        assert!(rig.relay.handle_preview(rig.now, HERE, "other").is_none(), "no preview waits for 10 s");
        rig.pass(10_000);
        rig.tell(ToRelay::Ping { nonce: 1 });
        assert!(rig.relay.handle_preview(rig.now, HERE, "other").is_some());
    }

    #[test]
    fn a_topic_that_a_preview_asked_for_in_vain_is_given_up() {
        let mut rig = Rig::up(&BOARD);
        let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
        rig.accept(1, 7, 1, SHARED);
        rig.pass(1_600);
        assert_eq!(rig.said(), ["Subscribe 1 link", "Unsubscribe 7"]);
        assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
        rig.relay.check();
    }

    #[test]
    fn a_page_is_not_denied_for_what_a_preview_was_denied() {
        let mut rig = Rig::up(&BOARD);
        let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
        rig.tell(ToRelay::Deny { request: 1, reason: "who asks?" });
        assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
        rig.said();
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        assert_eq!(rig.said(), ["Subscribe 2 link by 127.0.0.1"]);
        rig.accept(2, 7, 1, SHARED);
        assert!(rig.read(page)[0].contains("subscribed"));
    }

    #[test]
    fn previews_displace_nothing_and_give_way_to_pages() {
        // One topic, two links, two requests: previews get at most one of each.
        let board =
            Board { topics_max: 1, topics_per_page_max: 1, links_max: 2, requests_max: 2, heads_max: 16, ..BOARD };
        let mut rig = Rig::up(&board);
        let page = rig.viewer();
        rig.said();
        rig.relay.handle_page_closed(rig.now, page);
        // The page's topic lingers: a preview does not evict it.
        let preview = rig.relay.handle_preview(rig.now, HERE, "other").unwrap();
        rig.accept(2, 8, 1, SHARED);
        let said = rig.said();
        assert!(said.contains(&"Unsubscribe 8".to_owned()) && !said.contains(&"Unsubscribe 7".to_owned()), "{said:?}");
        assert!(rig.relay.is_preview_over(rig.now, preview));
        assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
        // A page evicts a preview's topic.
        let mut rig = Rig::up(&board);
        rig.relay.handle_preview(rig.now, HERE, "other").unwrap();
        rig.accept(1, 8, 1, SHARED);
        rig.said();
        let _ = rig.viewer();
    }

    #[test]
    fn a_preview_that_is_answered_too_late_leaves_nothing_behind() {
        // First the preview is over; then the request has been given up too.
        for (after, said) in [(4_500, ["Unsubscribe 7"]), (11_000, ["Unsubscribe 7"])] {
            let mut rig = Rig::up(&BOARD);
            let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
            rig.pass(1_500);
            assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
            rig.pass(after - 1_500);
            rig.said();
            rig.accept(1, 7, 1, SHARED);
            rig.pass(100);
            assert_eq!(rig.said(), said, "after {after} ms");
            assert_eq!(rig.relay.in_use(), super::super::InUse::default());
        }
    }

    #[test]
    fn previews_hold_their_share_of_links_and_remember_the_newest() {
        let mut rig = Rig::up(&Board { links_max: 32, heads_max: 32, ..BOARD });
        rig.viewer();
        for number in 2..20 {
            let name = format!("link-{number}");
            let preview = rig.relay.handle_preview(rig.now, HERE, &name).unwrap();
            rig.tell(ToRelay::Deny { request: number, reason: "no" });
            assert_eq!(rig.relay.handle_preview_over(rig.now, preview), None);
            assert!(rig.relay.in_use().links <= 1 + 4, "{} links", rig.relay.in_use().links);
            rig.relay.check();
        }
        assert!(rig.relay.links.find("link-19").is_some() && rig.relay.links.find("link-2").is_none());
        // Once a page requests it, it is an ordinary link.
        let page = rig.page();
        rig.subscribe(page, 1, "link-19");
        assert!(rig.relay.links.iter().filter(|(_, link)| link.is_for_preview()).count() == 3);
    }

    #[test]
    fn an_address_that_asks_too_often_gets_no_card() {
        let mut rig = Rig::up(&Board { address_asks_burst: 1, ..BOARD });
        let preview = rig.relay.handle_preview(rig.now, HERE, "link").unwrap();
        rig.tell(ToRelay::Deny { request: 1, reason: "no" });
        rig.relay.handle_preview_over(rig.now, preview);
        assert!(rig.relay.handle_preview(rig.now, HERE, "other").is_none());
    }
}
