//! The uplink: the handshake with the business server, and the dispatch of its frames.
//!
//! Owns the order of the handshake and which module handles each frame after it. Refuses frames out
//! of place and wrong proofs, each with a [`PeerError`] that ends the connection and nothing else.
//! The connection itself is `uplink_connection.rs`.

use super::{Relay, event::Event, fault::PeerError, negotiated::WORDS, time::Instant, uplink_connection::State};
use wire::uplink::{Incoming, ToBusiness, ToRelay, VERSION, business_proof, is_marked, proofs_equal, relay_proof};

impl Relay {
    /// Whether the business server is connected and authenticated.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.uplink.is_up()
    }

    /// Whether the business server got the relay's proof and has not answered it.
    #[must_use]
    pub const fn awaits_welcome(&self) -> bool {
        matches!(self.uplink.state(), State::AwaitsWelcome)
    }

    /// When the connection next has something due: a dial, a ping, or its end.
    #[must_use]
    pub fn uplink_deadline(&self) -> Instant {
        self.uplink.deadline()
    }

    /// The rank of the entry to dial now. If that is a name, the caller says so with
    /// [`handle_uplink_resolving`](Self::handle_uplink_resolving) and finds its addresses. After
    /// `Some` the caller owes [`handle_uplink_connected`](Self::handle_uplink_connected) or
    /// [`handle_uplink_lost`](Self::handle_uplink_lost).
    pub fn poll_dial(&mut self, now: Instant) -> Option<usize> {
        if self.draining {
            return None;
        }
        self.uplink.dial(now).inspect(|_| self.counters.dials += 1)
    }

    /// The entry to dial is a name, whose addresses are looked up. The dial has
    /// [`RESOLVE_MS_MAX`](super::RESOLVE_MS_MAX) for that.
    pub fn handle_uplink_resolving(&mut self, now: Instant) {
        self.uplink.resolves(now);
    }

    /// The addresses are known, and are dialled now.
    pub fn handle_uplink_resolved(&mut self, now: Instant) {
        self.uplink.resolved(now);
    }

    /// The dialled entry accepted the connection. `nonce` must be fresh and unpredictable.
    pub fn handle_uplink_connected(&mut self, now: Instant, nonce: [u8; 16]) {
        self.uplink.begin(now, nonce);
    }

    /// The connection, or the attempt, failed.
    pub fn handle_uplink_lost(&mut self, now: Instant) {
        let was_up = self.is_up();
        self.uplink.fail(now, &mut self.jitter);
        if was_up {
            self.counters.uplink_losses += 1;
            self.drop_requests(now);
            self.tell_uplink();
        }
    }

    /// The rank of the entry to try now, beside the connection: the first one while another one
    /// serves, or each in turn once the business server asked the relay to leave. If it answers,
    /// the caller calls [`handle_uplink_moved`](Self::handle_uplink_moved); otherwise nothing.
    pub fn poll_knock(&mut self, now: Instant) -> Option<usize> {
        if self.draining { None } else { self.uplink.take_knock(now, &mut self.jitter) }
    }

    /// Another entry answers: the connection to the present one ends. The caller owes
    /// [`handle_uplink_connected`](Self::handle_uplink_connected) or
    /// [`handle_uplink_lost`](Self::handle_uplink_lost).
    pub fn handle_uplink_moved(&mut self, now: Instant, entry: usize) {
        let was_up = self.is_up();
        self.uplink.moved(now, entry);
        if was_up {
            self.counters.uplink_losses += 1;
            self.drop_requests(now);
            self.tell_uplink();
        }
    }

    /// Bytes were received from the business server, any part of frames. Each byte is a sign of
    /// life.
    pub fn handle_uplink_read(&mut self, now: Instant, size: usize) {
        if size > 0 {
            self.uplink.heard(now);
        }
        self.counters.uplink_bytes_in += size as u64;
    }

    /// A frame of the business server was received.
    ///
    /// # Errors
    /// Why the connection must end; nothing of the frame was used.
    pub fn handle_uplink(&mut self, now: Instant, incoming: Incoming<'_>) -> Result<(), PeerError> {
        self.uplink.framed(now);
        self.counters.uplink_frames_in += 1;
        match (self.uplink.state(), incoming) {
            (State::Up { .. }, Incoming::Frame(frame)) => {
                let told = self.uplink.told();
                self.handle_frame(now, frame)?;
                // `Features` comes first; another frame in its place says that pages need not wait.
                self.uplink.negotiated.is_awaited = false;
                if self.uplink.told() != told {
                    self.tell_uplink();
                }
                Ok(())
            }
            (State::Up { .. }, Incoming::Oversize(oversize)) => {
                let (topic, track, sequence) = (oversize.topic, oversize.track, oversize.sequence);
                self.handle_oversize(topic, track, sequence, oversize.part, oversize.size);
                Ok(())
            }
            (State::AwaitsChallenge, Incoming::Frame(ToRelay::Challenge { version, nonce })) => {
                check_version(version)?;
                if is_marked(&nonce) {
                    self.uplink.mark_nonce();
                }
                let proof = relay_proof(&self.settings.secret, &nonce, &self.uplink.nonce());
                let hello = ToBusiness::Hello {
                    version: VERSION,
                    relay: &self.settings.name,
                    nonce: self.uplink.nonce(),
                    proof,
                };
                let _ = self.uplink.send_reserved(&hello);
                self.uplink.challenged(nonce);
                Ok(())
            }
            (State::AwaitsWelcome, Incoming::Frame(ToRelay::Welcome { version, proof })) => {
                check_version(version)?;
                let challenge = self.uplink.negotiated.challenge;
                let expected = business_proof(&self.settings.secret, &self.uplink.nonce(), &challenge);
                if !proofs_equal(&expected, &proof) {
                    return Err(PeerError::Proof);
                }
                self.uplink.welcomed(now, &mut self.jitter);
                if is_marked(&challenge) {
                    let negotiated = &mut self.uplink.negotiated;
                    (negotiated.is_extended, negotiated.is_awaited) = (true, true);
                    let _ = self.uplink.send_reserved(&ToBusiness::Features { words: WORDS });
                }
                self.events.add(Event::UplinkUp);
                self.tell_uplink();
                self.ask_everything_again(now);
                Ok(())
            }
            (state, incoming) => {
                let name = match incoming {
                    Incoming::Frame(frame) => frame.name(),
                    Incoming::Oversize(_) => "Publish",
                };
                let expected = if state == State::AwaitsChallenge { "Challenge" } else { "Welcome" };
                Err(PeerError::OutOfPlace { name, expected })
            }
        }
    }

    /// The bytes to write to the business server.
    #[must_use]
    pub fn uplink_transmit(&self) -> &[u8] {
        self.uplink.transmit()
    }

    /// The number of frames ever queued for the business server; when it grows, there is more to
    /// write.
    #[must_use]
    pub const fn uplink_queued(&self) -> u64 {
        self.uplink.queued()
    }

    /// The business server acknowledged bytes: a sign of life. A write is none, since the kernel
    /// buffers as much for a peer that is gone.
    pub const fn uplink_took(&mut self, now: Instant) {
        self.uplink.heard(now);
    }

    /// Whether it has been silent long enough that the caller should ask the kernel whether the
    /// business server acknowledged anything.
    #[must_use]
    pub const fn is_uplink_quiet(&self, now: Instant) -> bool {
        self.uplink.is_quiet(now)
    }

    /// The first `size` bytes of [`uplink_transmit`](Self::uplink_transmit) were written.
    pub fn uplink_wrote(&mut self, now: Instant, size: usize) {
        self.uplink.wrote(size);
        self.counters.uplink_bytes_out += size as u64;
        self.ask_more(now);
    }

    /// Why the connection must be given up, if it must.
    #[must_use]
    pub fn uplink_fault(&self, now: Instant) -> Option<PeerError> {
        self.uplink.fault(now)
    }

    /// Sends a `Ping` if one is due.
    pub(super) fn sweep_uplink(&mut self, now: Instant) {
        if self.uplink.take_ping(now) {
            let nonce = u32::try_from(self.jitter.below(1 << 32)).unwrap_or_default();
            let _ = self.uplink.send_reserved(&ToBusiness::Ping { nonce });
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: ToRelay<'_>) -> Result<(), PeerError> {
        match frame {
            ToRelay::Publish { topic, track, sequence, part, data } => {
                self.published(now, topic, track, sequence, part, data);
            }
            ToRelay::Accept { request, topic, epoch, grant } => self.accepted(now, request, topic, epoch, grant),
            ToRelay::Deny { request, reason } => self.denied(now, request, reason),
            ToRelay::Revoke { link, reason } => self.revoked(now, link, reason),
            ToRelay::End { topic, reason } => self.ended(now, topic, reason),
            ToRelay::Kick { page, reason } => self.kicked(now, page, reason),
            ToRelay::Ping { nonce } => {
                // A peer that floods the relay with pings and reads no pongs gets fewer pongs.
                let _ = self.uplink.send_reserved(&ToBusiness::Pong { nonce });
            }
            ToRelay::Pong { .. } => {}
            ToRelay::Features { words } if self.uplink.negotiated.is_extended => self.uplink.negotiated.named(words),
            ToRelay::Away { within_s } if self.uplink.negotiated.has_away => {
                self.events.add(Event::UplinkAway { within_s });
                self.uplink.leave(now, u64::from(within_s) * 1000, &mut self.jitter);
            }
            ToRelay::Sent { page, id } if self.uplink.negotiated.has_receipts => self.received(page, id),
            ToRelay::Features { .. } | ToRelay::Away { .. } | ToRelay::Sent { .. } => {
                return Err(PeerError::OutOfPlace { name: frame.name(), expected: "a frame that both sides know" });
            }
            ToRelay::Challenge { .. } | ToRelay::Welcome { .. } => {
                return Err(PeerError::OutOfPlace { name: frame.name(), expected: "anything else" });
            }
        }
        self.ask_more(now);
        Ok(())
    }
}

fn check_version(version: u16) -> Result<(), PeerError> {
    if version == VERSION { Ok(()) } else { Err(PeerError::Version(version)) }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, Rig};
    use super::super::uplink_connection::{RESOLVE_MS_MAX, RETRY_MS_MIN};
    use super::*;
    use wire::{
        Track,
        uplink::{EXTENSIONS_MARK, Grant, Part},
    };

    #[test]
    fn what_was_not_written_is_forgotten_with_its_connection() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        let queued = rig.relay.uplink_queued();
        let challenge = Incoming::Frame(ToRelay::Challenge { version: VERSION, nonce: [2; 16] });
        rig.relay.handle_uplink(rig.now, challenge).unwrap();
        assert!(!rig.relay.uplink_transmit().is_empty() && rig.relay.uplink_queued() == queued + 1);
        rig.relay.handle_uplink_lost(rig.now);
        assert!(rig.relay.uplink_transmit().is_empty());
    }

    #[test]
    fn extensions_are_named_and_then_used() {
        let mut rig = Rig::down(&BOARD);
        rig.connect();
        assert!(rig.said().is_empty(), "this business server knows none");
        let named = Incoming::Frame(ToRelay::Features { words: "away" });
        assert!(rig.relay.handle_uplink(rig.now, named).is_err());
        rig.relay.handle_uplink_lost(rig.now);
        let mut challenge = [2; 16];
        challenge[12..].copy_from_slice(&EXTENSIONS_MARK);
        rig.connect_by(challenge);
        assert_eq!(rig.said(), ["Features away receipts"]);
        let away = Incoming::Frame(ToRelay::Away { within_s: 4 });
        let unasked = PeerError::OutOfPlace { name: "Away", expected: "a frame that both sides know" };
        assert_eq!(rig.relay.handle_uplink(rig.now, away), Err(unasked.clone()));
        rig.tell(ToRelay::Features { words: "later" });
        assert_eq!(rig.relay.handle_uplink(rig.now, away), Err(unasked));
        rig.tell(ToRelay::Features { words: "later away" });
        assert_eq!(rig.relay.poll_knock(rig.now.after(20_000)), None, "nobody asked it to leave");
        rig.tell(ToRelay::Away { within_s: 4 });
        assert!(rig.relay.uplink_deadline() <= rig.now.after(2_000));
        let (entry, losses) = (rig.relay.poll_knock(rig.now.after(2_000)).unwrap(), rig.relay.counters().uplink_losses);
        rig.relay.handle_uplink_moved(rig.now, entry);
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        assert_eq!(rig.relay.counters().uplink_losses, losses + 1);
    }

    #[test]
    fn a_wrong_proof_ends_the_connection() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        rig.tell(ToRelay::Challenge { version: VERSION, nonce: [2; 16] });
        let welcome = Incoming::Frame(ToRelay::Welcome { version: VERSION, proof: [0; 32] });
        assert_eq!(rig.relay.handle_uplink(rig.now, welcome), Err(PeerError::Proof));
        assert!(!rig.relay.is_up());
    }

    #[test]
    fn a_frame_out_of_its_place_is_named() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_connected(rig.now, [1; 16]);
        let error = rig.relay.handle_uplink(rig.now, Incoming::Frame(ToRelay::Ping { nonce: 1 }));
        assert_eq!(error.unwrap_err().to_string(), "Ping came where Challenge was expected");
    }

    #[test]
    fn entries_take_turns_and_the_back_off_grows() {
        let mut rig = Rig::down(&BOARD);
        let mut dialled = Vec::new();
        for _ in 0..4 {
            let entry = loop {
                match rig.relay.poll_dial(rig.now) {
                    Some(entry) => break entry,
                    None => rig.now = rig.now.after(10),
                }
            };
            dialled.push(entry);
            rig.relay.handle_uplink_lost(rig.now);
        }
        assert_eq!(dialled, [0, 1, 0, 1]);
    }

    #[test]
    fn a_name_s_lookup_has_its_own_time_and_then_the_dial_has_all_of_its() {
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_resolving(rig.now);
        rig.pass(RESOLVE_MS_MAX - 100);
        assert_eq!(rig.relay.uplink_fault(rig.now), None);
        rig.relay.handle_uplink_resolved(rig.now);
        rig.pass(4_900);
        assert_eq!(rig.relay.uplink_fault(rig.now), None);
        rig.pass(100);
        assert_eq!(rig.relay.uplink_fault(rig.now), Some(PeerError::Silent { limit_s: 5 }));
        let mut rig = Rig::down(&BOARD);
        assert_eq!(rig.relay.poll_dial(rig.now), Some(0));
        rig.relay.handle_uplink_resolving(rig.now);
        rig.pass(RESOLVE_MS_MAX);
        assert!(rig.relay.uplink_fault(rig.now).is_some());
        rig.relay.handle_uplink_lost(rig.now);
        // It means nothing once the dial is over.
        rig.relay.handle_uplink_resolved(rig.now);
        assert_eq!(rig.relay.uplink_fault(rig.now), None);
    }

    #[test]
    fn the_back_off_begins_anew_only_after_a_link_that_held() {
        let mut rig = Rig::up(&BOARD);
        // The longest of several back-offs (each a random part of its step) after connections that
        // were lost `held_ms` after they came up.
        let mut longest = |held_ms: u64, losses: usize| {
            let mut longest_ms = 0;
            for _ in 0..losses {
                for _ in 0..held_ms / 5_000 {
                    rig.now = rig.now.after(5_000);
                    rig.tell(ToRelay::Ping { nonce: 1 });
                    let _ = rig.said();
                }
                rig.relay.handle_uplink_lost(rig.now);
                longest_ms = longest_ms.max(rig.relay.uplink_deadline().since(rig.now));
                rig.connect();
            }
            longest_ms
        };
        assert!(longest(10_000, 1) <= RETRY_MS_MIN);
        let grown = longest(5_000, 12);
        assert!(grown > 10 * RETRY_MS_MIN, "{grown} ms: a handshake alone resets the back-off");
        assert!(longest(10_000, 4) <= RETRY_MS_MIN, "a connection that held does not reset it");
    }

    #[test]
    fn a_publication_for_a_topic_that_was_not_accepted_is_counted() {
        let mut rig = Rig::up(&BOARD);
        rig.messages(1..=1);
        assert_eq!(rig.relay.counters().unknown_topic, 1);
    }

    #[test]
    fn after_a_loss_topics_are_asked_for_from_the_relay_s_own_next() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.messages(1..=5);
        rig.said();
        rig.relay.handle_uplink_lost(rig.now);
        assert!(rig.read(page).contains(&r#"{"type":"uplink","up":false}"#.to_owned()));
        rig.connect();
        assert_eq!(rig.said(), ["Subscribe 2 link since 1 [0, 6, 0, 0]"]);
        assert_eq!(rig.read(page), [r#"{"type":"uplink","up":true,"features":["ping"],"author":"3772b288b28a8e8c"}"#]);
        rig.messages(6..=6);
        assert_eq!(rig.relay.counters().unknown_topic, 1, "not accepted by this connection yet");
        rig.accept(2, 7, 1, super::super::rig::SHARED);
        rig.messages(6..=6);
        assert_eq!(rig.read(page), [super::super::rig::message(6)]);
    }

    #[test]
    fn a_publication_that_can_t_be_shown_evicts_no_media() {
        let mut rig = Rig::up(&BOARD);
        rig.viewer();
        rig.publish(7, Track::Audio, 1, Part::Init { mime: "a" }, b"i");
        rig.publish(7, Track::Audio, 2, Part::Start, &[0; 150]);
        rig.publish(7, Track::Video, 1, Part::Continue, &[0; 9_000]);
        assert_eq!(rig.relay.counters().media_shed, 0);
    }

    #[test]
    fn an_audience_goes_out_once_a_second_and_the_last_value_always() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        assert_eq!(rig.said(), ["Audience 7 1"]);
        let other = rig.page();
        rig.subscribe(other, 1, "link");
        rig.relay.handle_page_closed(rig.now, page);
        rig.relay.handle_page_closed(rig.now, other);
        rig.pass(500);
        assert_eq!(rig.said(), [""; 0]);
        rig.pass(700);
        assert_eq!(rig.said()[0], "Audience 7 0");
        let _ = Grant::default();
    }
}
