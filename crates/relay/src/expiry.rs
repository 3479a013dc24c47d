//! When a page is pinged, gets `alive`, and is closed or cut for being idle, slow or dead.
//!
//! Each page is swept about once a second ([`Relay::sweep_page`]). A place in the table is for
//! pages with a live subscription: a page without one is closed after a limited time, whatever it
//! requests, and so is one that takes nothing or answers no ping. Owns these timeouts and their
//! order. Sending is in `transmit.rs`, and which pages may connect at all is decided in `pages.rs`.
//! Reads no clock.

use super::{
    Relay, asking::ANSWER_MS_MAX, session::Half, subscription::Chain, table::NONE, texts::Reason, time::Instant,
};

/// Extra time, milliseconds, for a page that had a live subscription and waits for an answer when
/// its time is up: each answer comes within [`ANSWER_MS_MAX`], or the page is denied at most two
/// seconds later.
const LAST_ANSWER_MS: u64 = ANSWER_MS_MAX + 2_000;

impl Relay {
    /// Sweeps one page: called about once a second for each.
    pub(super) fn sweep_page(&mut self, now: Instant, page: u32) {
        let Some(session) = self.sessions.get(page).filter(|session| !session.is_cut()) else { return };
        let board = &self.board;
        if session.closing().is_some_and(|close| close.at.age_ms(now) > board.close_ms_max.into()) {
            // The peer doesn't answer the close, or doesn't even take the rest of a frame.
            self.cut(page);
            return;
        }
        if session.is_dead(now, board) {
            self.counters.dead += 1;
            self.cut(page);
            return;
        }
        let is_closing = session.closing().is_some();
        if session.is_blocked() && session.wrote_ms(now) > board.stalled_ms_max.into() && !is_closing {
            self.close_slow(now, page);
            if self.sessions[page].half != Half::None {
                // No close frame can be sent in the middle of another frame.
                self.cut(page);
            }
            return;
        }
        if !is_closing && self.close_unsubscribed(now, page) {
            return;
        }
        let session = &mut self.sessions[page];
        let has_subscriptions = session.chain.first() != NONE;
        if session.sweep(now, &self.board) {
            self.push_ready(page);
        }
        if has_subscriptions {
            self.sweep_waiting(now, page);
        }
    }

    /// Closes a page that has had no live subscription for too long; returns whether it did.
    fn close_unsubscribed(&mut self, now: Instant, page: u32) -> bool {
        let chain = &self.sessions[page].chain;
        if chain.live() > 0 || chain.unsubscribed_ms(now) <= self.unsubscribed_ms_max(chain) {
            return false;
        }
        let (code, reason, retry_ms) = if chain.wanted() > 0 || chain.may_return() {
            // The page followed the relay's retry; it may come back as a new page.
            (1013, "", Some(self.retry_ms()))
        } else if chain.has_watched() {
            (1008, "no subscription for too long", None)
        } else {
            (1008, "no subscribe within the time for it", None)
        };
        self.close_page(now, page, code, Reason::Own(reason), retry_ms);
        true
    }

    /// How long a page may have no live subscription.
    fn unsubscribed_ms_max(&self, chain: &Chain) -> u64 {
        let waits = chain.wanted() > 0;
        let ms_max = u64::from(self.board.unsubscribed_ms_max);
        match chain.has_watched() {
            true if waits => ms_max + LAST_ANSWER_MS,
            false if !waits && !chain.may_return() => self.board.first_subscribe_ms_max.into(),
            _ => ms_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::Verdict;
    use super::super::rig::{BOARD, PING, Rig, SHARED};
    use super::super::session::Session;
    use super::super::table::Id;
    use board::Board;
    use wire::uplink::ToRelay;

    /// 2 s for the first subscription, 20 s without one.
    const PATIENT: Board = Board { first_subscribe_ms_max: 2_000, unsubscribed_ms_max: 20_000, ..BOARD };

    /// Seconds until the page is closed, at most 40; the close code and the reason.
    fn closed(rig: &mut Rig, page: Id<Session>) -> (u32, u16, String) {
        for tenth in 0..400 {
            rig.pass(100);
            rig.read(page);
            match rig.relay.verdict(page) {
                Verdict::Close(code, reason) => return (tenth / 10 + 1, code, reason.to_string()),
                Verdict::Cut => return (tenth / 10 + 1, 1006, String::new()),
                Verdict::Serve => {}
            }
        }
        (40, 0, String::new())
    }

    #[test]
    fn a_page_that_never_subscribes_is_closed() {
        let mut rig = Rig::up(&PATIENT);
        let page = rig.page();
        assert!(matches!(closed(&mut rig, page), (2..=4, 1008, reason) if reason.contains("no subscribe")));
    }

    #[test]
    fn a_page_that_was_denied_for_good_is_closed_as_soon_as_one_that_never_subscribed() {
        let mut rig = Rig::up(&PATIENT);
        let (denied, no_link) = (rig.page(), rig.page());
        rig.subscribe(denied, 1, "link");
        for request in [1, 2] {
            rig.tell(ToRelay::Deny { request, reason: "no" });
        }
        rig.subscribe(no_link, 1, "not a link");
        assert!(matches!(closed(&mut rig, denied), (2..=4, 1008, _)));
        assert!(rig.is_closed_with(no_link, 1008));
    }

    #[test]
    fn a_waiting_page_gets_its_answer_and_after_a_retry_is_closed_with_another_retry() {
        let mut rig = Rig::down(&PATIENT);
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        for _ in 0..12 {
            rig.pass(1_000);
        }
        assert!(rig.read(page).iter().any(|text| text.contains("can't be reached") && text.contains("retry")));
        // Subscribing again and again gains no time.
        for id in 2..5 {
            rig.pass(2_000);
            rig.subscribe(page, id, "link");
            rig.read(page);
        }
        let (seconds, code, reason) = closed(&mut rig, page);
        assert!(
            (1..=4).contains(&seconds) && code == 1013 && reason.starts_with("retry="),
            "{seconds} {code} {reason}"
        );
    }

    #[test]
    fn a_page_that_got_a_retry_and_does_not_come_back_is_closed_in_the_end() {
        let mut rig = Rig::up(&Board { page_asks_burst: 1, ..PATIENT });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        for request in [1, 2] {
            rig.tell(ToRelay::Deny { request, reason: "no" });
        }
        rig.subscribe(page, 2, "other");
        assert!(rig.read(page)[1].contains("too many requests"));
        let (seconds, code, reason) = closed(&mut rig, page);
        assert!(
            (19..=22).contains(&seconds) && code == 1013 && reason.starts_with("retry="),
            "{seconds} {code} {reason}"
        );
    }

    #[test]
    fn a_page_whose_last_subscription_is_over_keeps_its_place_for_a_limited_time() {
        let mut rig = Rig::up(&PATIENT);
        let page = rig.viewer();
        rig.pass(30_000);
        rig.read(page);
        assert_eq!(rig.relay.verdict(page), Verdict::Serve, "it has a live subscription");
        rig.tell(ToRelay::End { topic: 7, reason: "over" });
        rig.read(page);
        rig.pass(10_000);
        rig.subscribe(page, 2, "link");
        rig.tell(ToRelay::Deny { request: 2, reason: "not yet" });
        rig.read(page);
        let (seconds, code, reason) = closed(&mut rig, page);
        assert!((9..=12).contains(&seconds) && code == 1008, "{seconds} {code} {reason}");
    }

    #[test]
    fn a_page_that_left_its_topic_and_finds_another_stays() {
        let mut rig = Rig::up(&PATIENT);
        let page = rig.viewer();
        rig.say(page, r#"{"type":"unsubscribe","topic":7}"#);
        rig.pass(19_000);
        rig.read(page);
        rig.subscribe(page, 2, "other");
        rig.said();
        // The answer is late, but a waiting page has the time for it.
        rig.pass(9_000);
        rig.read(page);
        rig.accept(2, 9, 1, SHARED);
        assert!(rig.read(page)[0].contains("subscribed"));
        assert_eq!(closed(&mut rig, page).0, 40);
    }

    #[test]
    fn an_idle_page_gets_alive_and_a_ping() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.pass(2_600);
        assert_eq!(rig.read(page), [r#"{"type":"alive"}"#]);
        rig.pass(1_000);
        assert!(rig.read(page).contains(&PING.to_owned()));
    }

    #[test]
    fn a_stalled_page_is_closed_or_cut_if_it_is_inside_a_frame() {
        let mut rig = Rig::up(&BOARD);
        let (between, inside) = (rig.viewer(), rig.page());
        rig.subscribe(inside, 1, "link");
        rig.read(inside);
        rig.messages(1..=1);
        rig.take(inside, 3);
        rig.relay.blocked(between);
        rig.relay.blocked(inside);
        rig.pass(3_200);
        assert!(rig.is_closed_with(between, 1013));
        assert_eq!(rig.relay.verdict(inside), Verdict::Cut);
    }

    #[test]
    fn a_page_that_answers_no_ping_is_dead_even_if_it_reads() {
        let mut rig = Rig::up(&BOARD);
        let (silent, alive) = (rig.viewer(), rig.page());
        rig.subscribe(alive, 1, "link");
        let mut pings = 0;
        for sequence in 1..=7 {
            rig.messages([sequence]);
            rig.pass(1_000);
            pings += rig.read_silently(silent).iter().filter(|frame| *frame == PING).count();
            rig.read(alive);
        }
        assert!(pings > 0);
        assert_eq!((rig.relay.verdict(silent), rig.relay.verdict(alive)), (Verdict::Cut, Verdict::Serve));
        assert_eq!(rig.relay.counters().dead, 1);
    }

    #[test]
    fn a_page_that_could_not_be_pinged_is_judged_by_its_progress() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        let data = [b"\"", "x".repeat(100).as_bytes(), b"\""].concat();
        rig.publish(7, wire::Track::Messages, 1, wire::uplink::Part::Whole, &data);
        // One byte per second: no ping can be sent before the frame is complete.
        for _ in 0..60 {
            assert_eq!(rig.take(page, 1).len(), 1);
            rig.relay.blocked(page);
            rig.pass(1_000);
            assert_eq!(rig.relay.verdict(page), Verdict::Serve);
            rig.relay.unblocked(page);
        }
        // Then it is pinged, and has the ping's time to answer.
        while !rig.take(page, u64::MAX).is_empty() {}
        rig.pass(2_000);
        assert_eq!(rig.relay.verdict(page), Verdict::Serve);
        rig.pass(1_600);
        assert_eq!(rig.relay.verdict(page), Verdict::Cut);
    }
}
