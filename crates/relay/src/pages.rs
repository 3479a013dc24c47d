//! What pages do: connect, send frames, fall silent, leave.
//!
//! Owns the rules for admitting connections, and for what a page may send and how often. Politely
//! refuses a connection that exceeds the table, or its network's share of the table ([`Refusal`]);
//! a page's own faults close that page alone. The page protocol is parsed in `wire/page.rs`;
//! `admission.rs` handles a `subscribe`, and `expiry.rs` decides when a page is given up.

use core::net::IpAddr;

use heapless::String;

use super::{
    Relay,
    negotiated::DOWN,
    rate::Rate,
    receipts::{Receipt, Unsent},
    session::{Close, Half, Session},
    subscription::Live,
    table::Id,
    texts::{Reason, shortened},
    time::Instant,
};
use wire::{
    PAGE_DATA_SIZE_MAX,
    page::{MessageId, Request, Seconds, decode_request},
    uplink::ToBusiness,
};

/// A close frame's payload is at most 125 bytes, two of them the code.
const CLOSE_REASON_SIZE_MAX: usize = 123;
/// A page is closed at this many protocol errors.
const FAULTS_MAX: u8 = 3;

/// The peer that wants to connect.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The page's address.
    pub address: IpAddr,
    /// Its `Origin`; empty if it sent none.
    pub origin: &'a str,
    /// The address belongs to no single network: loopback, or a trusted proxy's own.
    pub is_anybody: bool,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The table is full.
    Full {
        /// When to come back.
        retry_ms: u32,
    },
    /// The relay is going away.
    Draining {
        /// When to come back.
        retry_ms: u32,
    },
    /// Its network has as many pages as it may have now.
    Address {
        /// When to come back.
        retry_ms: u32,
    },
}

/// What to do with a page's connection besides writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: keep serving it.
    Serve,
    /// Close it with this code and reason, once the frame in progress is complete.
    Close(u16, String<CLOSE_REASON_SIZE_MAX>),
    /// Cut it off.
    Cut,
}

impl Relay {
    /// A page wants to connect.
    ///
    /// # Errors
    /// The reason why it is refused; nothing but a counter was changed.
    pub fn handle_page_open(&mut self, now: Instant, peer: Peer<'_>) -> Result<Id<Session>, Refusal> {
        if self.draining {
            self.counters.refused_draining += 1;
            return Err(Refusal::Draining { retry_ms: self.retry_ms() });
        }
        if self.sessions.is_full() {
            self.counters.refused_full += 1;
            return Err(Refusal::Full { retry_ms: self.full_retry_ms() });
        }
        if self.pages_allowed(&peer).is_some_and(|most| self.sessions.of_network(peer.address) >= most) {
            self.counters.refused_address += 1;
            return Err(Refusal::Address { retry_ms: self.full_retry_ms() });
        }
        let Some(page) = self.sessions.open(now, peer.address, peer.origin) else {
            return Err(Refusal::Full { retry_ms: self.full_retry_ms() });
        };
        self.counters.pages_opened += 1;
        Ok(page)
    }

    /// How many pages a peer's network may have; `None` for no limit.
    fn pages_allowed(&self, peer: &Peer<'_>) -> Option<u32> {
        if let Some(most) = self.settings.pages_per_address {
            return Some(most).filter(|most| *most > 0);
        }
        let (used, pages_max) = (u64::from(self.sessions.len()), u64::from(self.board.pages_max));
        let is_short = 4 * used > 3 * pages_max;
        (is_short && !peer.is_anybody).then(|| (self.board.pages_max / 4).max(1))
    }

    /// A page's connection is gone.
    pub fn handle_page_closed(&mut self, now: Instant, page: Id<Session>) {
        let Some(page) = self.resolve(page) else { return };
        self.forget_page(now, page);
        self.drop_half(page);
        if let Some(session) = self.sessions.remove(page) {
            if let Some(close) = session.closing() {
                self.reasons.release_reason(close.reason);
            }
            self.counters.pages_closed += 1;
        }
        self.ask_more(now);
    }

    /// Something was received from a page: a pong, or part of a frame.
    pub fn handle_page_heard(&mut self, now: Instant, page: Id<Session>) {
        if let Some(page) = self.resolve(page) {
            self.sessions[page].hear(now);
        }
    }

    /// A page sent a text frame.
    pub fn handle_page_text(&mut self, now: Instant, page: Id<Session>, text: &str) {
        let Some(page) = self.resolve(page) else { return };
        self.sessions[page].hear(now);
        self.counters.page_frames += 1;
        if self.sessions[page].closing().is_some() {
            return;
        }
        match decode_request(text) {
            Ok(Request::Subscribe { id, link, since }) => self.subscribe(now, page, id, &link, since),
            Ok(Request::Unsubscribe { topic }) => self.unsubscribe(now, page, topic),
            Ok(Request::Send { topic, data, id }) => self.send(now, page, topic, &data, id),
            Ok(Request::Ping) => {
                self.sessions[page].alive_asked = true;
                self.push_ready(page);
            }
            Err(reason) => self.fault(now, page, reason),
        }
    }

    /// A page sent a binary frame, which the protocol does not have.
    pub fn handle_page_binary(&mut self, now: Instant, page: Id<Session>) {
        let Some(page) = self.resolve(page) else { return };
        self.sessions[page].hear(now);
        self.counters.page_frames += 1;
        if self.sessions[page].closing().is_none() {
            self.fault(now, page, "a page sends text frames only");
        }
    }

    /// A page began the closing handshake: the frame in progress is completed, and nothing new is
    /// begun.
    pub fn handle_page_leaving(&mut self, now: Instant, page: Id<Session>) {
        if let Some(page) = self.resolve(page) {
            self.close_page(now, page, 1000, Reason::Own(""), None);
        }
    }

    /// A page's frames violated the WebSocket protocol or one of its limits: closes it likewise,
    /// with the given code.
    pub fn handle_page_broken(&mut self, now: Instant, page: Id<Session>, code: u16) {
        if let Some(page) = self.resolve(page) {
            self.close_page(now, page, code, Reason::Own(""), None);
        }
    }

    /// A page's TLS keys are used up and were not or can't be renewed: closes it with a time to
    /// come back.
    pub fn handle_page_used_up(&mut self, now: Instant, page: Id<Session>) {
        if let Some(page) = self.resolve(page) {
            let retry_ms = self.retry_ms();
            self.close_page(now, page, 1012, Reason::Own(""), Some(retry_ms));
        }
    }

    /// The rest of a frame that a page was in the middle of was overtaken: the connection can only
    /// be cut.
    pub fn handle_page_overtaken(&mut self, page: Id<Session>) {
        if let Some(page) = self.resolve(page) {
            self.cut(page);
        }
    }

    /// What to do with a page's connection.
    #[must_use]
    pub fn verdict(&self, page: Id<Session>) -> Verdict {
        let Some(page) = self.resolve(page) else { return Verdict::Cut };
        let session = &self.sessions[page];
        if session.is_cut() {
            return Verdict::Cut;
        }
        match session.closing() {
            Some(close) if session.half == Half::None => Verdict::Close(close.code, self.close_reason(close)),
            _ => Verdict::Serve,
        }
    }

    /// The business server wants a page closed.
    pub(super) fn kicked(&mut self, now: Instant, number: u32, reason: &str) {
        let Some(page) = self.sessions.by_number(number) else { return };
        let reason = self.reasons.keep_reason(reason, "the business server closed this page");
        self.close_page(now, page, 1008, reason, None);
    }

    /// Closes a page: the frame in progress is completed, and nothing new is begun.
    pub(super) fn close_page(&mut self, now: Instant, page: u32, code: u16, reason: Reason, retry_ms: Option<u32>) {
        if !self.sessions[page].close(Close { code, reason, retry_ms, at: now.stamp() }) {
            self.reasons.release_reason(reason);
            return;
        }
        self.counters.count_close(code);
        self.push_ready(page);
    }

    /// Cuts a page off without a close frame.
    pub(super) fn cut(&mut self, page: u32) {
        if self.sessions.cut(page) {
            self.counters.cut += 1;
            self.push_ready(page);
        }
    }

    fn unsubscribe(&mut self, now: Instant, page: u32, number: u32) {
        match self.page_subscription(page, number) {
            Some(subscription) => self.finish(now, subscription, Reason::Own("unsubscribed"), None),
            None => self.report_error(page, "this page has no subscription to that topic"),
        }
    }

    /// Forwards a page's message. Where it has an id, its refusal names it.
    fn send(&mut self, now: Instant, page: u32, number: u32, data: &str, id: Option<MessageId>) {
        match (self.forward(now, page, number, data, id), id) {
            (Ok(()), _) => self.counters.page_messages += 1,
            (Err(why), None) => self.report_error(page, why.reason()),
            (Err(why), Some(id)) => self.answer(page, id, Receipt::Unsent(why)),
        }
    }

    fn forward(
        &mut self,
        now: Instant,
        page: u32,
        topic: u32,
        data: &str,
        id: Option<MessageId>,
    ) -> Result<(), Unsent> {
        let subscription = self.page_subscription(page, topic).ok_or(Unsent::NoSubscription)?;
        if data.len() > PAGE_DATA_SIZE_MAX {
            return Err(Unsent::TooLong);
        }
        if !self.links[self.subscriptions[subscription].link()].grant().page_messages {
            return Err(Unsent::NotTaken);
        }
        let rate = Rate { burst: self.board.sends_burst, per_s: 1 };
        if !self.sessions[page].sends.take(rate, now) {
            self.counters.sends_limited += 1;
            return Err(Unsent::TooOften);
        }
        // Until pages are told of it, nobody knows whether this connection has receipts.
        if self.uplink.told() == DOWN {
            return Err(Unsent::Unreachable);
        }
        let page = self.sessions[page].number();
        let frame = match id {
            None => ToBusiness::PageMessage { topic, page, data },
            Some(_) if !self.uplink.negotiated.has_receipts => return Err(Unsent::NoReceipts),
            Some(id) => ToBusiness::Send { topic, page, id, data },
        };
        self.uplink.send_of_page(&frame).map(|_| ()).ok_or(Unsent::Unreachable)
    }

    /// The business server has a page's message.
    pub(super) fn received(&mut self, number: u32, id: MessageId) {
        if let Some(page) = self.sessions.by_number(number) {
            self.answer(page, id, Receipt::Sent);
        }
    }

    fn answer(&mut self, page: u32, id: MessageId, receipt: Receipt) {
        if !self.sessions.push_receipt(page, id, receipt) {
            self.counters.receipts_dropped += 1;
        }
        self.push_ready(page);
    }

    fn page_subscription(&self, page: u32, number: u32) -> Option<u32> {
        let is_it = |live: &Live| self.topics[live.topic()].number() == number;
        let mut of_page = self.subscriptions.of(&self.sessions[page].chain);
        of_page.find(|(_, row)| row.live().is_some_and(is_it)).map(|(subscription, _)| subscription)
    }

    fn fault(&mut self, now: Instant, page: u32, reason: &'static str) {
        let session = &mut self.sessions[page];
        session.faults += 1;
        self.counters.page_faults += 1;
        if session.faults >= FAULTS_MAX {
            self.close_page(now, page, 1008, Reason::Own(reason), None);
        } else {
            self.report_error(page, reason);
        }
    }

    fn report_error(&mut self, page: u32, reason: &'static str) {
        self.sessions[page].error = Some(reason);
        self.push_ready(page);
    }

    fn close_reason(&self, close: Close) -> String<CLOSE_REASON_SIZE_MAX> {
        let mut text = String::new();
        match close.retry_ms {
            Some(ms) => {
                let _ = core::fmt::Write::write_fmt(&mut text, format_args!("retry={}", Seconds(ms)));
            }
            None => {
                let _ = text.push_str(shortened(self.reasons.reason(close.reason), CLOSE_REASON_SIZE_MAX));
            }
        }
        text
    }

    /// Whether a page, and its network, may request one more link.
    pub(super) fn may_ask(&mut self, now: Instant, page: u32) -> bool {
        let of_page = Rate { burst: self.board.page_asks_burst, per_s: 1 };
        let session = &mut self.sessions[page];
        let address = session.address();
        let may = session.asks.take(of_page, now);
        self.counters.asks_limited += u64::from(!may);
        may && self.may_ask_from(now, address)
    }

    /// Whether an address's network may request one more link.
    pub(super) fn may_ask_from(&mut self, now: Instant, address: IpAddr) -> bool {
        let of_network = Rate { burst: self.board.address_asks_burst, per_s: self.board.address_asks_per_s };
        let may = self.sessions.may_ask(now, address, of_network);
        self.counters.asks_limited += u64::from(!may);
        may
    }

    fn resolve(&self, page: Id<Session>) -> Option<u32> {
        self.sessions.resolve(page)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED, message};
    use super::*;
    use board::Board;
    use wire::uplink::{Author, Grant, Incoming, ToRelay, author, marked};

    #[test]
    fn beyond_the_table_a_page_is_refused() {
        let mut rig = Rig::up(&BOARD);
        let pages: Vec<_> = (0..4).map(|_| rig.page()).collect();
        let peer = Peer { address: IpAddr::from([127, 0, 0, 1]), origin: "", is_anybody: true };
        assert!(matches!(rig.relay.handle_page_open(rig.now, peer), Err(Refusal::Full { .. })));
        rig.relay.handle_page_closed(rig.now, pages[2]);
        let id = rig.relay.handle_page_open(rig.now, peer).unwrap();
        assert_ne!(id, pages[2], "the row is reused, its id is not");
        assert_eq!(rig.relay.verdict(pages[2]), Verdict::Cut);
    }

    #[test]
    fn refused_pages_get_retry_times_with_jitter() {
        let mut rig = Rig::up(&BOARD);
        for _ in 0..4 {
            rig.page();
        }
        let peer = Peer { address: IpAddr::from([127, 0, 0, 1]), origin: "", is_anybody: true };
        let retries: alloc::collections::BTreeSet<u32> = (0..20)
            .map(|_| match rig.relay.handle_page_open(rig.now, peer) {
                Err(Refusal::Full { retry_ms }) => retry_ms,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(retries.len() > 15 && retries.iter().all(|ms| (5_000..15_000).contains(ms)), "{retries:?}");
    }

    #[test]
    fn no_network_gets_more_than_its_share_of_a_table_that_is_nearly_full() {
        let mut rig = Rig::up(&Board { pages_max: 50, ..BOARD });
        let greedy = |host: u32| format!("2001:db8:0:7::{host:x}");
        let first: Vec<_> = (0..38).map(|host| rig.page_from(&greedy(host), "").unwrap()).collect();
        assert!(matches!(rig.page_from(&greedy(99), ""), Err(Refusal::Address { .. })));
        assert_eq!(rig.relay.counters().refused_address, 1);
        for host in 0..11 {
            rig.page_from(&format!("192.0.2.{host}"), "").unwrap();
        }
        // Loopback and trusted proxies' own addresses count for no network.
        rig.page();
        assert!(matches!(rig.page_from("198.51.100.1", ""), Err(Refusal::Full { .. })));
        // Connected pages stay; the limit applies to the next one.
        for (host, page) in first[..26].iter().enumerate() {
            rig.relay.handle_page_closed(rig.now, *page);
            assert!(matches!(rig.page_from(&greedy(99), ""), Err(Refusal::Address { .. })), "{host} went");
            rig.page_from(&format!("203.0.113.{host}"), "").unwrap();
        }
        assert_eq!(rig.relay.pages(), 50);
        rig.relay.handle_page_closed(rig.now, first[26]);
        rig.page_from(&greedy(1), "").unwrap();
    }

    #[test]
    fn a_configured_limit_of_pages_counts_by_network_and_a_reload_changes_it_at_once() {
        let mut rig = Rig::up(&Board { pages_max: 8, ..BOARD });
        let limited = |rig: &mut Rig, pages_per_address| {
            let settings = super::super::Settings { pages_per_address, ..rig.relay.settings.clone() };
            rig.relay.reconfigure(settings);
        };
        limited(&mut rig, Some(2));
        let page = rig.page_from("2001:db8::1", "").unwrap();
        rig.page_from("2001:db8::ffff:2", "").unwrap();
        assert!(matches!(rig.page_from("2001:db8::3", ""), Err(Refusal::Address { .. })));
        rig.page_from("2001:db8:0:1::3", "").unwrap();
        rig.relay.handle_page_closed(rig.now, page);
        rig.page_from("2001:db8::3", "").unwrap();
        limited(&mut rig, Some(0));
        for host in 0..5 {
            rig.page_from(&format!("2001:db8::1:{host}"), "").unwrap();
        }
        assert!(matches!(rig.page_from("2001:db8::9", ""), Err(Refusal::Full { .. })));
    }

    #[test]
    fn made_up_origins_take_no_other_page_s() {
        let mut rig = Rig::up(&Board { pages_max: 100, subscriptions_max: 100, ..BOARD });
        for host in 0..99 {
            rig.page_from(&format!("192.0.2.{host}"), &format!("https://made-up-{host}.example")).unwrap();
        }
        let honest = rig.page_from("192.0.2.200", "https://share.example").unwrap();
        rig.subscribe(honest, 1, "link");
        rig.accept(1, 7, 1, OWN);
        let said = rig.relay.uplink_transmit().to_vec();
        assert!(said.windows(21).any(|part| part == b"https://share.example"));
        assert_eq!(rig.relay.texts_in_use().1, 100);
        rig.relay.handle_page_closed(rig.now, honest);
        rig.relay.check();
        assert_eq!(rig.relay.texts_in_use().1, 99);
    }

    #[test]
    fn the_addresses_of_one_network_share_what_they_may_ask() {
        let board = Board { page_asks_burst: 20, address_asks_burst: 3, addresses_max: 4096, ..BOARD };
        let mut rig = Rig::up(&board);
        for host in 1..=4 {
            let page = rig.page_from(&format!("2001:db8::{host}"), "").unwrap();
            rig.subscribe(page, 1, "link");
        }
        assert_eq!(rig.relay.counters().asks_limited, 1);
    }

    #[test]
    fn the_third_fault_closes_a_page() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.page();
        rig.say(page, "{");
        rig.relay.handle_page_binary(rig.now, page);
        assert_eq!(rig.relay.verdict(page), Verdict::Serve);
        rig.say(page, r#"{"type":"dance"}"#);
        assert!(rig.is_closed_with(page, 1008));
    }

    #[test]
    fn what_a_page_may_send_is_limited_and_forwarded_where_its_link_allows() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.said();
        rig.say(page, r#"{"type":"send","topic":7,"data":"a"}"#);
        rig.say(page, r#"{"type":"send","topic":7,"data":"b"}"#);
        assert_eq!(rig.said(), ["PageMessage 1 a"], "this board's burst is one");
        assert!(rig.read(page)[0].contains("too many"));
        let muted = rig.page();
        rig.subscribe(muted, 1, "muted");
        rig.accept(2, 7, 1, Grant { page_messages: false, ..OWN });
        rig.read(muted);
        rig.say(muted, r#"{"type":"send","topic":7,"data":"c"}"#);
        assert!(rig.read(muted)[0].contains("error"));
    }

    /// A `send` whose id is this byte, 16 times.
    fn send(id: u8, data: &str) -> std::string::String {
        format!(r#"{{"type":"send","topic":7,"id":"{}","data":"{data}"}}"#, format!("{id:02x}").repeat(16))
    }

    fn sent(id: u8) -> std::string::String {
        format!(r#"{{"type":"sent","id":"{}"}}"#, format!("{id:02x}").repeat(16))
    }

    #[test]
    fn a_message_with_an_id_is_answered_by_sent_or_by_an_error_that_names_it() {
        let mut rig = Rig::down(&Board { sends_burst: 2, ..BOARD });
        rig.connect_by(marked([2; 12]));
        rig.tell(ToRelay::Features { words: "receipts" });
        rig.said();
        let page = rig.viewer();
        rig.said();
        rig.say(page, &send(1, "a"));
        rig.say(page, &send(0xab, "b"));
        rig.say(page, &send(3, "c"));
        assert_eq!(rig.said(), ["Send 1 1 a", "Send 1 171 b"]);
        let refused = rig.read(page);
        assert!(refused.len() == 1 && refused[0].contains("too many") && refused[0].contains(&"03".repeat(16)));
        rig.tell(ToRelay::Sent { page: 1, id: [0xab; 16] });
        rig.tell(ToRelay::Sent { page: 1, id: [1; 16] });
        rig.tell(ToRelay::Sent { page: 9, id: [1; 16] });
        assert_eq!(rig.read(page), [sent(0xab), sent(1)]);
        for text in [r#""id":"1""#, &format!(r#""id":"{}""#, "0g".repeat(16))] {
            let other = rig.page();
            rig.say(other, &format!(r#"{{"type":"send","topic":7,"data":"a",{text}}}"#));
            assert!(rig.read(other)[0].contains("128 random bits"), "{text}");
        }
        let other = rig.page();
        rig.subscribe(other, 1, "link");
        rig.say(other, r#"{"type":"send","topic":7,"data":"d","id":7}"#);
        assert_eq!(rig.said(), ["PageMessage 4 d"], "an id of another type is an unknown field");
    }

    #[test]
    fn where_nobody_gives_receipts_a_message_with_an_id_is_not_sent() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.said();
        rig.say(page, &send(1, "a"));
        assert!(rig.said().is_empty());
        let refused = rig.read(page);
        assert!(refused[0].contains("no receipts") && refused[0].contains(&"01".repeat(16)), "{refused:?}");
        let receipt = ToRelay::Sent { page: 1, id: [1; 16] };
        assert!(rig.relay.handle_uplink(rig.now, Incoming::Frame(receipt)).is_err(), "nobody asked for it");
    }

    #[test]
    fn answers_wait_for_their_page_up_to_a_number_and_go_with_it() {
        let mut rig = Rig::down(&BOARD);
        rig.connect_by(marked([2; 12]));
        rig.tell(ToRelay::Features { words: "receipts" });
        rig.said();
        let (page, other) = (rig.viewer(), rig.page());
        rig.subscribe(other, 1, "link");
        rig.read(other);
        for id in 1..=9 {
            rig.tell(ToRelay::Sent { page: 1, id: [id; 16] });
        }
        assert_eq!(rig.relay.counters().receipts_dropped, 5);
        rig.tell(ToRelay::Sent { page: 2, id: [7; 16] });
        assert_eq!(rig.read(other), [sent(7)]);
        rig.relay.handle_page_closed(rig.now, page);
        rig.relay.check();
    }

    #[test]
    fn a_page_knows_who_it_is_on_each_connection_of_the_uplink() {
        let mut rig = Rig::down(&BOARD);
        let is = |text: &str, features: &str, author: Author| {
            let digits: std::string::String = author.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(text.contains(&format!(r#""features":[{features}],"author":"{digits}""#)), "{text}");
        };
        rig.connect_by([9; 16]);
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.accept(1, 7, 1, SHARED);
        is(&rig.read(page)[0], r#""ping""#, author(&[9; 16], &rig.relay.uplink.nonce(), 1));
        // It reads nothing while the uplink goes and comes back.
        rig.relay.handle_uplink_lost(rig.now);
        rig.connect_by(marked([2; 12]));
        assert!(rig.read(page)[0].contains(r#""up":false"#), "not before it is known what the new one can do");
        rig.tell(ToRelay::Features { words: "receipts" });
        is(&rig.read(page)[0], r#""ping","receipts""#, author(&marked([2; 12]), &rig.relay.uplink.nonce(), 1));
        rig.relay.handle_uplink_lost(rig.now);
        rig.connect_by([7; 16]);
        is(&rig.read(page)[0], r#""ping""#, author(&[7; 16], &rig.relay.uplink.nonce(), 1));
        assert!(rig.read(page).is_empty());
    }

    #[test]
    fn a_page_that_was_told_of_no_author_hears_of_one_also_if_it_missed_that_the_uplink_was_down() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.accept(1, 7, 1, SHARED);
        rig.relay.handle_uplink_lost(rig.now);
        // `subscribed` has begun when the uplink is back.
        let begun = rig.take(page, 1);
        rig.connect_by([7; 16]);
        let rest = rig.take(page, 10_000);
        let text = std::string::String::from_utf8_lossy(&[begun, rest].concat()).into_owned();
        assert!(
            text.matches("author").count() == 1
                && text.contains(r#""features":["ping"]}"#)
                && text.contains(r#""up":true"#),
            "{text}"
        );
    }

    #[test]
    fn a_ping_is_answered_behind_the_errors_of_what_was_sent_before() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.say(page, r#"{"type":"ping"}"#);
        rig.say(page, r#"{"type":"ping"}"#);
        assert_eq!(rig.read(page), [r#"{"type":"alive"}"#]);
        rig.say(page, r#"{"type":"send","topic":8,"data":"a"}"#);
        rig.say(page, r#"{"type":"ping"}"#);
        rig.messages(1..=1);
        let read = rig.read(page);
        assert!(read.len() == 3 && read[0].contains("no subscription"), "{read:?}");
        assert_eq!(read[1..], [r#"{"type":"alive"}"#.to_owned(), message(1)]);
    }

    #[test]
    fn an_unsubscribe_is_answered_by_end() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.say(page, r#"{"type":"unsubscribe","topic":7}"#);
        assert_eq!(rig.read(page), [r#"{"type":"end","topic":7,"reason":"unsubscribed"}"#]);
        rig.subscribe(page, 2, "link");
        assert!(rig.read(page)[0].contains("subscribed"));
    }

    #[test]
    fn a_kicked_page_is_closed_with_the_reason() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.tell(ToRelay::Kick { page: 1, reason: "spam" });
        assert!(matches!(rig.relay.verdict(page), Verdict::Close(1008, reason) if reason == "spam"));
        assert!(rig.read(page).is_empty(), "nothing new is begun");
    }

    #[test]
    fn a_drain_sends_every_page_away_with_a_time_to_come_back() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.relay.drain(rig.now);
        assert!(matches!(rig.relay.verdict(page), Verdict::Close(1012, reason) if reason.starts_with("retry=")));
        let peer = Peer { address: IpAddr::from([127, 0, 0, 1]), origin: "", is_anybody: true };
        assert!(matches!(rig.relay.handle_page_open(rig.now, peer), Err(Refusal::Draining { .. })));
    }

    #[test]
    fn a_page_that_asks_on_without_a_row_comes_back_later() {
        let mut rig = Rig::up(&Board { subscriptions_max: 2, ..BOARD });
        let page = rig.page();
        for id in 0..3 {
            rig.subscribe(page, id, "not a link");
        }
        assert_eq!(rig.relay.verdict(page), Verdict::Serve);
        rig.subscribe(page, 3, "not a link");
        assert!(rig.is_closed_with(page, 1013));
    }
}
