//! One page as a naive reader of its own bytes: it parses every frame and checks what each track
//! promises.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use relay::{session::Session, table::Id};
use serde_json::Value;
use wire::Track;
use wire::page::MessageId;

use super::archive::{Archive, What};
use super::business::{BAN, BANNED, Connection};
use super::ensure;
use super::rates::{Passed, is_passed};
use super::sealed::Sealed;

/// What the simulation knows of the machine while a page reads.
pub struct Truth<'a> {
    pub archive: &'a Archive,
    /// The relay's own next message at the end of an epoch, and whether any was valid, by topic and
    /// epoch: one entry for each time that it ended.
    pub closed: &'a HashMap<(u32, u64), Vec<(u64, bool)>>,
    /// The relay's own current epoch and next sequences, by topic.
    pub received: &'a HashMap<u32, (u64, [u64; 4])>,
    /// Messages that the relay received, by topic, epoch and sequence.
    pub delivered: &'a HashSet<(u32, u64, u64)>,
    /// No ring is ever overtaken: no valid message may be reported as a gap.
    pub is_roomy: bool,
    /// The relay's connections so far, and how often it was told of a page's message.
    pub connections: &'a [Connection],
    pub confirmed: &'a HashMap<(u32, MessageId), u64>,
    pub replay_is_late: bool,
}

/// An unanswered `subscribe`.
#[derive(Clone, Debug)]
pub struct Ask {
    pub link: String,
    pub since: Option<(u64, u64)>,
    /// Its `since` was beyond the business server's counter at the time.
    pub beyond: bool,
    pub at: u64,
}

/// One connection and what it has seen.
pub struct Page {
    pub id: Id<Session>,
    pub number: u32,
    pub address: IpAddr,
    pub origin: String,
    pub bytes: Vec<u8>,
    pub views: HashMap<u32, View>,
    pub asks: BTreeMap<u32, Ask>,
    pub sees_up: bool,
    /// What it may use, and by which of the relay's connections it knows itself as an author.
    pub standing: Standing,
    /// Ids of its messages, and how often it was told that the message was received.
    pub ids: HashSet<MessageId>,
    pub told: HashMap<MessageId, u64>,
    /// Its TLS; none if it is plain.
    pub sealed: Option<Box<Sealed>>,
    /// Bytes that its socket takes before it is full.
    pub credit: u64,
    pub is_fast: bool,
    /// Its socket was full, or it is new, and not everything was written since.
    pub is_behind: bool,
    pub is_silent: bool,
    pub next_id: u32,
    pub sent: VecDeque<String>,
    /// Links that it ever requested: the relay may name it in requests for them.
    pub asked: Vec<String>,
    pub frames: u64,
    pub closing: bool,
    pub opened: u64,
    /// When it last had a topic or an unanswered request.
    pub wanted: u64,
    /// Times of the answered requests that passed the limits.
    pub passed: Vec<u64>,
    pub asks_passed: Passed,
    pub sends_passed: Passed,
}

/// What the relay last told a page of what it may use and who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub has_receipts: bool,
    /// None while there is no business server.
    pub author: Option<String>,
    /// The connection that the author is of.
    pub connection: usize,
}

/// A topic as the page sees it.
#[derive(Debug)]
pub struct View {
    pub link: String,
    pub epoch: u64,
    pub state: u64,
    /// The next message; `None` until the first.
    pub messages: Option<u64>,
    /// Its `since` was not confirmed by a message yet, and may be beyond the counter.
    pub beyond: bool,
    /// Its `since` was ahead of the relay, which treats it as beyond the counter unless the replay
    /// comes in time.
    pub claimed: bool,
    /// The relay had received nothing in this epoch when the page subscribed.
    pub from_base: bool,
    pub media: [Media; 2],
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Media {
    /// The next sequence; `None` until the first chunk.
    pub next: Option<u64>,
    pub init: Option<u64>,
    pub in_group: bool,
}

impl View {
    /// The next message that the relay owes it, if that is certain.
    fn owed(&self, truth: &Truth<'_>) -> Option<u64> {
        self.messages.filter(|_| !(self.beyond || self.claimed && truth.replay_is_late))
    }

    /// A message or a gap arrived, up to here.
    fn pass(&mut self, next: u64) {
        (self.messages, self.beyond, self.claimed) = (Some(next), false, false);
    }

    fn begin_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.state = 0;
        self.messages = None;
        (self.beyond, self.claimed) = (false, false);
        self.from_base = true;
        self.media = [Media::default(); 2];
    }
}

impl Page {
    /// Takes bytes from the socket and reads the complete frames.
    pub fn read(&mut self, truth: &Truth<'_>, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((opcode, from, to)) = frame(&self.bytes[at..])? {
            let payload = self.bytes[at + from..at + to].to_vec();
            at += to;
            self.frames += 1;
            match opcode {
                1 => self.text(truth, &payload).map_err(|error| format!("{error}: {}", lossy(&payload)))?,
                2 => self.binary(truth, &payload).map_err(|error| format!("{error}: {payload:?}"))?,
                9 => ensure!(payload.is_empty(), "a ping with a payload"),
                10 => ensure!(self.sealed.is_some() && payload == b"abc", "a pong that nobody asked for"),
                _ => return Err(format!("opcode {opcode}")),
            }
        }
        self.bytes.drain(..at);
        Ok(())
    }

    /// The size of the frame that it is inside, `most` if the header does not show it yet; 0
    /// between two frames.
    pub fn half_frame(&self, most: u64) -> u64 {
        half_frame(&self.bytes, most)
    }

    /// The same once `more` has arrived.
    pub fn half_frame_with(&self, more: &[u8], most: u64) -> u64 {
        let all = [&self.bytes[..], more].concat();
        let mut at = 0;
        while let Ok(Some((_, _, to))) = frame(&all[at..]) {
            at += to;
        }
        half_frame(&all[at..], most)
    }

    /// The offsets of the frames that `more` would complete, and whether it ends between two
    /// frames.
    pub fn frames_with(&self, more: &[u8]) -> Result<(Vec<usize>, bool), String> {
        let all = [&self.bytes[..], more].concat();
        let (mut begins, mut at) = (Vec::new(), 0);
        while let Some((_, _, to)) = frame(&all[at..])? {
            begins.push(at);
            at += to;
        }
        Ok((begins, at == all.len()))
    }

    fn text(&mut self, truth: &Truth<'_>, payload: &[u8]) -> Result<(), String> {
        let text = core::str::from_utf8(payload).map_err(|error| error.to_string())?;
        let frame: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let number = |name: &str| frame[name].as_u64().ok_or_else(|| format!("no {name}"));
        let epoch = || frame["epoch"].as_str().and_then(|text| text.parse::<u64>().ok()).ok_or("no epoch".to_owned());
        match frame["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                let id = u32::try_from(number("id")?).map_err(|error| error.to_string())?;
                ensure!(frame["page_messages"].is_boolean(), "no page_messages");
                self.stands(truth, &frame)?;
                self.subscribed(truth, id, number("topic")? as u32, epoch()?)
            }
            "denied" => {
                let reason = frame["reason"].as_str().ok_or("no reason")?;
                self.is_meant(&frame)?;
                let id = u32::try_from(number("id")?).map_err(|error| error.to_string())?;
                let ask = self.asks.remove(&id).ok_or("nobody asked")?;
                self.passed.extend(is_passed(reason).then_some(ask.at));
                Ok(())
            }
            "end" => {
                ensure!(frame["reason"].is_string(), "no reason");
                self.is_meant(&frame)?;
                let topic = number("topic")? as u32;
                self.views.remove(&topic).map(drop).ok_or("the page doesn't have it".to_owned())
            }
            "epoch" => {
                let (topic, epoch) = (number("topic")? as u32, epoch()?);
                let view = self.views.get_mut(&topic).ok_or("the page doesn't have it")?;
                ensure!(view.epoch != epoch, "the epoch is not new");
                let ends = truth.closed.get(&(topic, view.epoch)).ok_or("that epoch has not ended")?;
                // A page may be more than one epoch behind: of an epoch that ended twice, the
                // smaller end counts.
                let closed = ends.iter().map(|end| end.0).min().unwrap_or(0);
                let has_good = ends.iter().all(|end| end.1);
                match view.messages {
                    // A position from before this relay may be beyond all that it received of that
                    // epoch.
                    Some(next) => ensure!(
                        next >= closed || view.beyond,
                        "messages {next} to {closed} were neither delivered nor reported"
                    ),
                    None => ensure!(
                        !view.from_base || !has_good,
                        "messages up to {closed} were neither delivered nor reported"
                    ),
                }
                view.begin_epoch(epoch);
                Ok(())
            }
            "state" => {
                let (topic, sequence) = (number("topic")? as u32, number("sequence")?);
                let view = self.views.get_mut(&topic).ok_or("the page doesn't have it")?;
                ensure!(sequence > view.state, "state {sequence} behind {}", view.state);
                verbatim(truth, topic, view.epoch, Track::State, sequence, payload, "state")?;
                view.state = sequence;
                Ok(())
            }
            "message" => {
                let (topic, sequence) = (number("topic")? as u32, number("sequence")?);
                let view = self.views.get_mut(&topic).ok_or("the page doesn't have it")?;
                let next = view.owed(truth);
                ensure!(next.is_none_or(|next| next == sequence), "message {sequence}, expected {next:?}");
                verbatim(truth, topic, view.epoch, Track::Messages, sequence, payload, "message")?;
                view.pass(sequence + 1);
                Ok(())
            }
            "gap" => {
                let (topic, from, to) = (number("topic")? as u32, number("from")?, number("to")?);
                let name = frame["track"].as_str().ok_or("no track")?;
                let track = Track::ALL.into_iter().find(|track| track.name() == name).ok_or("no such track")?;
                self.gap(truth, topic, track, from, to)
            }
            "uplink" => {
                let up = frame["up"].as_bool().ok_or("no up")?;
                let before = self.standing.clone();
                if up {
                    self.stands(truth, &frame)?;
                    ensure!(self.standing.author.is_some(), "no author");
                }
                ensure!(up != self.sees_up || up && self.standing != before, "uplink {up} is repeated");
                self.sees_up = up;
                Ok(())
            }
            "alive" => Ok(()),
            "sent" => {
                let id = message_id(&frame["id"])?;
                let told = self.told.entry(id).or_default();
                *told += 1;
                let most = truth.confirmed.get(&(self.number, id)).copied().unwrap_or(0);
                ensure!(*told <= most, "told {told} times, the business server said so {most} times");
                Ok(())
            }
            "error" if frame["reason"].is_string() => {
                if !frame["id"].is_null() {
                    ensure!(self.ids.contains(&message_id(&frame["id"])?), "the page never sent that");
                }
                Ok(())
            }
            other => Err(format!("unknown type {other}")),
        }
    }

    /// What the page may use and who it is are of one of the relay's connections, and never of an
    /// older one than before.
    fn stands(&mut self, truth: &Truth<'_>, frame: &Value) -> Result<(), String> {
        let words: Vec<&str> =
            frame["features"].as_array().ok_or("no features")?.iter().flat_map(Value::as_str).collect();
        ensure!(words.contains(&"ping"), "no ping");
        let has_receipts = words.contains(&"receipts");
        let Some(author) = frame["author"].as_str() else {
            ensure!(!has_receipts, "receipts from nobody");
            self.standing.author = None;
            self.standing.has_receipts = false;
            return Ok(());
        };
        let is_its = |connection: &Connection| {
            let bytes = wire::uplink::author(&connection.challenge, &connection.hello, self.number);
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            digits == author
        };
        let connection = truth.connections.iter().rposition(is_its).ok_or("an author of no connection")?;
        ensure!(connection >= self.standing.connection, "an author of an older connection");
        let may = truth.connections[connection].has_receipts;
        ensure!(may || !has_receipts, "receipts that the business server doesn't give");
        self.standing = Standing { has_receipts, author: Some(author.to_owned()), connection };
        Ok(())
    }

    /// A denial that names one page reaches no other.
    fn is_meant(&self, frame: &Value) -> Result<(), String> {
        let is_banned = self.address.to_string() == BANNED;
        ensure!(frame["reason"] != BAN || is_banned, "a page at {} got another page's denial", self.address);
        Ok(())
    }

    fn subscribed(&mut self, truth: &Truth<'_>, id: u32, topic: u32, epoch: u64) -> Result<(), String> {
        let ask = self.asks.remove(&id).ok_or("nobody asked")?;
        self.passed.push(ask.at);
        ensure!(!self.views.contains_key(&topic), "the page has the topic already");
        let messages = ask.since.filter(|&(of, next)| of == epoch && next > 0).map(|(_, next)| next);
        // None if that epoch has ended since: the notice's end was read late.
        let received = truth.received.get(&topic).filter(|last| last.0 == epoch).map(|last| last.1[1]);
        let last = received.unwrap_or(0);
        let is_slow = messages.is_some_and(|next| next > last) && truth.replay_is_late;
        let beyond = ask.beyond
            || messages.is_some_and(|next| next > truth.archive.next(topic, epoch, Track::Messages))
            || is_slow;
        let view = View {
            link: ask.link,
            epoch,
            state: 0,
            messages,
            beyond,
            claimed: messages.is_some_and(|next| next > last),
            from_base: received == Some(0),
            media: [Media::default(); 2],
        };
        self.views.insert(topic, view);
        Ok(())
    }

    fn gap(&mut self, truth: &Truth<'_>, topic: u32, track: Track, from: u64, to: u64) -> Result<(), String> {
        let view = self.views.get_mut(&topic).ok_or("the page doesn't have it")?;
        ensure!(1 <= from && from <= to, "an empty gap");
        if truth.is_roomy && !track.is_media() {
            // The relay has these messages, so it must not report them as missing.
            let there = truth.delivered.iter().filter(|of| (of.0, of.1) == (topic, view.epoch));
            let mut good = there.filter(|of| truth.archive.is_good(topic, view.epoch, track, of.2));
            let lost = good.find(|of| (from..=to).contains(&of.2));
            ensure!(lost.is_none(), "the relay has {lost:?}");
        }
        match track {
            Track::State => Err("a gap on state".to_owned()),
            Track::Messages => {
                let next = view.owed(truth);
                ensure!(next.is_none_or(|next| next == from), "expected {next:?}");
                view.pass(to + 1);
                Ok(())
            }
            Track::Audio | Track::Video => {
                let media = &mut view.media[track.index() - 2];
                // A page that has an init and no chunk yet has no counter, and may be given its
                // position.
                let is_begun = media.init.is_some_and(|init| init < from);
                ensure!(media.next.map_or(is_begun, |next| next == from), "expected {:?}", media.next);
                (media.next, media.in_group) = (Some(to + 1), false);
                Ok(())
            }
        }
    }

    fn binary(&mut self, truth: &Truth<'_>, payload: &[u8]) -> Result<(), String> {
        ensure!(payload.len() >= 14, "too short");
        let track =
            *Track::ALL.get(usize::from(payload[0])).filter(|track| track.is_media()).ok_or("no media track")?;
        let topic = u32::from_be_bytes(payload[2..6].try_into().unwrap());
        let sequence = u64::from_be_bytes(payload[6..14].try_into().unwrap());
        let view = self.views.get_mut(&topic).ok_or("the page doesn't have it")?;
        let item = truth.archive.item(topic, view.epoch, track, sequence)?;
        ensure!(item.good, "{sequence} is too large to be shown");
        let (what, mut data) = match payload[1] {
            1 => (What::Init, &payload[14..]),
            2 => (What::Start, &payload[14..]),
            3 => (What::Continue, &payload[14..]),
            part => return Err(format!("part {part}")),
        };
        ensure!(item.what == what, "{sequence} is {:?}, not {what:?}", item.what);
        if what == What::Init {
            let (size, rest) = data.split_first().ok_or("no MIME size")?;
            let (mime, rest) = rest.split_at_checked(usize::from(*size)).ok_or("no MIME type")?;
            ensure!(mime == item.mime.as_bytes(), "another MIME type");
            data = rest;
        }
        ensure!(data == item.data, "other data than published");
        let media = &mut view.media[track.index() - 2];
        match what {
            What::Init => {
                let in_order = media.next.is_none_or(|next| sequence <= next);
                ensure!(in_order, "init {sequence} without a gap, expected {:?}", media.next);
                if media.next == Some(sequence) {
                    media.next = Some(sequence + 1);
                }
                (media.init, media.in_group) = (Some(sequence), false);
            }
            What::Start => {
                ensure!(media.next.is_none_or(|next| next == sequence), "expected {:?}", media.next);
                ensure!(media.init == Some(item.init), "after init {:?}, needs {}", media.init, item.init);
                (media.next, media.in_group) = (Some(sequence + 1), true);
            }
            What::Continue | What::Whole => {
                ensure!(media.in_group, "outside of a group");
                ensure!(media.next == Some(sequence), "expected {:?}", media.next);
                media.next = Some(sequence + 1);
            }
        }
        Ok(())
    }
}

fn verbatim(
    truth: &Truth<'_>,
    topic: u32,
    epoch: u64,
    track: Track,
    sequence: u64,
    payload: &[u8],
    kind: &str,
) -> Result<(), String> {
    let item = truth.archive.item(topic, epoch, track, sequence)?;
    ensure!(item.good, "{} {sequence} is not to be shown", track.name());
    let head = format!(r#"{{"type":"{kind}","topic":{topic},"sequence":{sequence},"data":"#);
    let expected = [head.as_bytes(), &item.data, b"}"].concat();
    ensure!(payload == expected, "other bytes than published: {}", lossy(&expected));
    Ok(())
}

/// The opcode, begin and end of the first frame's payload; `None` if it is incomplete.
pub fn frame(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, String> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    ensure!(first & 0xf0 == 0x80, "no final frame: {first:#x}");
    ensure!(second & 0x80 == 0, "a masked frame");
    let (from, size) = match second {
        126 => {
            let Some(size) = bytes.get(2..4) else { return Ok(None) };
            let size = usize::from(u16::from_be_bytes(size.try_into().unwrap()));
            ensure!(size > 125, "a length that is too long");
            (4, size)
        }
        127 => {
            let Some(size) = bytes.get(2..10) else { return Ok(None) };
            let size =
                usize::try_from(u64::from_be_bytes(size.try_into().unwrap())).map_err(|error| error.to_string())?;
            ensure!(size > 0xffff, "a length that is too long");
            ensure!(size <= 2 << 20, "a frame beyond every limit");
            (10, size)
        }
        size => (2, usize::from(size)),
    };
    Ok((bytes.len() >= from + size).then_some((first & 0xf, from, from + size)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a run that is sent behind `before`, which begins with a frame, ends between two frames
/// or is a part of one alone.
pub fn is_run(before: &[u8], run: &[u8]) -> bool {
    let all = [before, run].concat();
    let mut at = 0;
    while let Ok(Some((_, _, to))) = frame(&all[at..]) {
        at += to;
    }
    at == all.len() || at <= before.len()
}

/// The size of the frame that begins with these bytes.
fn half_frame(bytes: &[u8], most: u64) -> u64 {
    match *bytes {
        [] => 0,
        [_, 126, high, low, ..] => 4 + u64::from(u16::from_be_bytes([high, low])),
        [_, size @ ..126, ..] => 2 + u64::from(size),
        _ => most,
    }
}

fn message_id(value: &Value) -> Result<MessageId, String> {
    let digits = value.as_str().ok_or("no id")?;
    let number = u128::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
    ensure!(format!("{number:032x}") == digits, "no id of 32 digits");
    Ok(number.to_be_bytes())
}
