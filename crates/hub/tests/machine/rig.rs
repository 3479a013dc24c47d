//! A hub with the engine `memory`, relays that speak the uplink, and a clock: for the tests beside.
//! Everything is handled at once; the tests decide what the webhook says and when.

use std::sync::Arc;
use std::time::Duration;

use business::RelayId;
use hub::admission::{Links, QuestionId, Subscribe, Verdict};
use hub::call::{Answer, ApiId, Call};
use hub::engine::{Append, Key, Part, Reply, Request, Seen};
use hub::memory::Limits;
use hub::{FleetKey, Hub, Memory, Moment, Name, Notice, Settings, Ticket, admission, settings};
use wire::Track;
use wire::uplink::{
    Deframer, Grant, Incoming, PageInfo, Since, ToBusiness, ToRelay, VERSION, encode, marked, relay_proof,
};

pub const SECRET: &[u8] = b"s3cret";
pub const GRANT: Grant = Grant { shared: true, ttl_s: 100, page_messages: true, replay: 10 };

pub struct Rig {
    pub hub: Hub,
    pub engine: Memory,
    pub now: Duration,
    next_call: u64,
    /// What the log said.
    pub notes: Vec<String>,
    pub notices: Vec<Notice>,
    /// Nobody takes them now.
    pub holds_notices: bool,
    pub questions: Vec<(QuestionId, Subscribe)>,
    /// The engine answers nothing.
    pub is_cut: bool,
    /// The engine's answers wait until the test lets them go.
    pub is_slow: bool,
    pub held: Vec<(Ticket, Request, Reply)>,
}

/// A relay's end of a connection.
pub struct Relay {
    pub id: RelayId,
    deframer: Deframer,
    requests: u32,
}

/// What a relay hears, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Accept { request: u32, topic: u32, epoch: u64, grant: Grant },
    Deny { request: u32, reason: String },
    Publish { topic: u32, track: Track, sequence: u64, data: Vec<u8> },
    End { reason: String },
    Revoke { link: String },
    Kick { page: u32 },
    Sent { page: u32, id: u8 },
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn number(text: &str) -> u32 {
    FleetKey::new(b"fleet".to_vec()).number(&name(text))
}

pub fn settings() -> Settings {
    Settings {
        business: business::Settings { secrets: vec![SECRET.to_vec()], ..business::Settings::default() },
        owners: vec![None],
        fleet_key: FleetKey::new(b"fleet".to_vec()),
        admission: admission::Settings::default(),
        limits: settings::Limits::default(),
        times: settings::Times::default(),
    }
}

pub fn webhook() -> Settings {
    Settings {
        admission: admission::Settings { links: Links::Webhook, ..admission::Settings::default() },
        ..settings()
    }
}

pub fn message(text: &str) -> Append {
    Append {
        track: Track::Messages,
        part: Part::Whole,
        data: format!("{text:?}").into_bytes().into(),
        key: None,
        replaces: None,
        stream: None,
    }
}

pub fn state(text: &str, replaces: Option<u64>) -> Append {
    Append { track: Track::State, replaces, ..message(text) }
}

pub fn keyed(text: &str, key: &str) -> Append {
    let content = [text.len() as u8; 32];
    Append { key: Some(Key { text: key.into(), content }), ..message(text) }
}

impl Rig {
    pub fn new(settings: Settings) -> Self {
        Self::with(settings, Limits::default())
    }

    pub fn with(settings: Settings, limits: Limits) -> Self {
        let mut rig = Self {
            hub: Hub::new(settings),
            engine: Memory::new(limits, 7),
            now: Duration::ZERO,
            next_call: 0,
            notes: Vec::new(),
            notices: Vec::new(),
            holds_notices: false,
            questions: Vec::new(),
            is_cut: false,
            is_slow: false,
            held: Vec::new(),
        };
        rig.settle();
        rig
    }

    pub fn moment(&self) -> Moment {
        Moment { at: self.now, unix_us: 1_700_000_000_000_000 + self.now.as_micros() as u64 }
    }

    /// Time passes, a tenth of a second at a time.
    pub fn pass(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            if self.hub.deadline() <= self.now {
                self.hub.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            while let Some((ticket, request)) = self.hub.poll_request() {
                let now = self.moment();
                if self.is_cut {
                    self.hub.handle_reply(now, ticket, Reply::Unavailable);
                    continue;
                }
                let reply = self.engine.handle(now, request.clone());
                if self.is_slow {
                    self.held.push((ticket, request, reply));
                } else {
                    self.hub.handle_reply(now, ticket, reply);
                }
            }
            let Some(bell) = self.engine.poll_doorbell() else { break };
            self.hub.handle_doorbell(bell);
        }
        while let Some(note) = self.hub.poll_note() {
            self.notes.push(note.to_string());
        }
        while !self.holds_notices
            && let Some(notice) = self.hub.poll_notice()
        {
            self.notices.push(notice);
        }
        while let Some(question) = self.hub.poll_subscribe(self.now) {
            self.questions.push(question);
        }
        while self.hub.poll_ready().is_some() {}
    }

    /// One of the answers that wait arrives; which, and to what.
    pub fn arrives(&mut self, is_it: impl Fn(&Request) -> bool) -> Request {
        let at = self.held.iter().position(|(_, request, _)| is_it(request)).expect("nothing like it waits");
        let (ticket, request, reply) = self.held.remove(at);
        self.hub.handle_reply(self.moment(), ticket, reply);
        self.settle();
        request
    }

    /// Another hub publishes: this one hears the doorbell.
    pub fn publish_elsewhere(&mut self, topic: &str, append: Append) {
        let now = self.moment();
        self.engine.handle(now, Request::Append { topic: name(topic), append, seen: Seen::default() });
        self.settle();
    }

    /// What the API answers.
    pub fn call(&mut self, call: Call) -> Answer {
        self.next_call += 1;
        let id = ApiId(self.next_call);
        self.hub.handle_call(self.moment(), id, call);
        self.settle();
        let (of, answer) = self.hub.poll_answer().expect("an answer");
        assert_eq!(of, id);
        answer
    }

    pub fn publish(&mut self, topic: &str, append: Append) -> Answer {
        self.call(Call::Publish { topic: name(topic), append })
    }

    /// Publishes; the sequence.
    pub fn say(&mut self, topic: &str, text: &str) -> u64 {
        match self.publish(topic, message(text)) {
            Answer::Published { sequence, .. } => sequence,
            other => panic!("{other:?}"),
        }
    }

    /// The webhook answers the oldest question; the link that it was about.
    pub fn verdict(&mut self, verdict: Verdict) -> String {
        let (id, subscribe) = self.questions.remove(0);
        self.hub.handle_verdict(self.now, id, verdict);
        self.settle();
        subscribe.link.to_string()
    }

    /// A relay connects.
    pub fn connect(&mut self, relay: &str, secret: &[u8]) -> Relay {
        self.connect_by(relay, secret, [3; 16], [4; 16])
    }

    /// A relay connects that gets receipts.
    pub fn connect_with_receipts(&mut self, relay: &str, secret: &[u8]) -> Relay {
        let mut relay = self.connect_by(relay, secret, marked([3; 12]), marked([4; 12]));
        self.tell(&relay, &ToBusiness::Features { words: "receipts" });
        self.hear(&mut relay);
        relay
    }

    fn connect_by(&mut self, relay: &str, secret: &[u8], challenge: [u8; 16], nonce: [u8; 16]) -> Relay {
        let id = self.hub.connect(self.now, challenge);
        let proof = relay_proof(secret, &challenge, &nonce);
        let mut relay_side = Relay { id, deframer: Deframer::new(1 << 21).with_extensions(), requests: 0 };
        self.tell(&relay_side, &ToBusiness::Hello { version: VERSION, relay, nonce, proof });
        self.hear(&mut relay_side);
        relay_side
    }

    /// Whether a relay's connection still stands.
    pub fn has(&mut self, relay: &Relay) -> bool {
        self.hub.relay_deadline(relay.id).is_some()
    }

    pub fn tell(&mut self, relay: &Relay, frame: &ToBusiness<'_>) -> bool {
        let mut bytes = [0; 4096];
        let size = encode(frame, &mut bytes).unwrap();
        let is_good = self.hub.received(self.moment(), relay.id, &bytes[..size]);
        self.settle();
        is_good
    }

    /// A relay asks for a link; the request's number.
    pub fn ask(&mut self, relay: &mut Relay, link: &str) -> u32 {
        self.ask_as(relay, link, None, "")
    }

    pub fn ask_as(&mut self, relay: &mut Relay, link: &str, since: Option<Since>, address: &str) -> u32 {
        relay.requests += 1;
        let page = PageInfo { address, origin: "" };
        self.tell(relay, &ToBusiness::Subscribe { request: relay.requests, link, since, page });
        relay.requests
    }

    /// Everything that a relay was sent since.
    pub fn hear(&mut self, relay: &mut Relay) -> Vec<Heard> {
        let mut frames: Vec<Arc<[u8]>> = Vec::new();
        self.hub.take(relay.id, usize::MAX, &mut frames);
        let mut heard = Vec::new();
        for byte in frames.iter().flat_map(|frame| frame.iter()) {
            relay.deframer.space()[0] = *byte;
            relay.deframer.filled(1);
            while let Some(incoming) = relay.deframer.next_frame().unwrap() {
                let Incoming::Frame(frame) = incoming else { panic!("{incoming:?}") };
                heard.extend(owned(&frame));
            }
        }
        heard
    }
}

fn owned(frame: &ToRelay<'_>) -> Option<Heard> {
    Some(match *frame {
        ToRelay::Accept { request, topic, epoch, grant } => Heard::Accept { request, topic, epoch, grant },
        ToRelay::Deny { request, reason } => Heard::Deny { request, reason: reason.to_owned() },
        ToRelay::Publish { topic, track, sequence, data, .. } => {
            Heard::Publish { topic, track, sequence, data: data.to_vec() }
        }
        ToRelay::End { reason, .. } => Heard::End { reason: reason.to_owned() },
        ToRelay::Revoke { link, .. } => Heard::Revoke { link: link.to_owned() },
        ToRelay::Kick { page, .. } => Heard::Kick { page },
        ToRelay::Sent { page, id } => Heard::Sent { page, id: id[0] },
        _ => return None,
    })
}
