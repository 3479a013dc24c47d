//! Checks the frames that one page receives against the tracks' promises.
//!
//! Owns the page's counters: each message once and in order, or covered by a gap; states only
//! newer; media that can be decoded; the bytes as published; an epoch only followed by the next
//! when all that the relay had of it was delivered or reported missing. A violation is an error in
//! words. Knows no socket.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sharelinkd::bench::header;
use wire::Track;
use wire::uplink::Part;

use super::content::{self, Place};

/// The first message of an ended epoch that the relay is not known to have received; by topic and
/// epoch.
pub type Closed = HashMap<(u32, u64), u64>;

/// Counters over the frames of all pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub frames: u64,
    pub bytes: u64,
    pub deliveries: [u64; 4],
    /// Sequences reported as missing.
    pub gapped: u64,
    /// Of these, valid messages of a quiet topic to a fast page: allowed, but worth a look.
    pub gapped_good: u64,
    /// Messages of pages that the business server said it has.
    pub receipts: u64,
}

/// What a frame means to the page's owner.
#[derive(Debug, PartialEq)]
pub enum Notice {
    Nothing,
    Subscribed {
        id: u32,
    },
    /// `retry`: seconds until it may subscribe again.
    Denied {
        id: u32,
        retry: Option<f64>,
    },
    /// The link whose topic ended.
    Ended {
        link: String,
    },
    Ping,
    Close {
        code: u16,
        reason: String,
    },
}

/// A topic as the page sees it.
#[derive(Debug)]
pub struct View {
    pub link: String,
    pub topic: u32,
    pub epoch: u64,
    pub state: u64,
    pub messages: Option<u64>,
    pub page_messages: bool,
    media: [Media; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Media {
    next: Option<u64>,
    init: Option<u64>,
    in_group: bool,
}

/// An unanswered `subscribe`.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: u32,
    pub link: String,
    pub since: Option<(u64, u64)>,
}

/// A page's topics.
#[derive(Debug)]
pub struct Views {
    pub list: Vec<View>,
    pub asks: Vec<Ask>,
    /// Whether it reads as fast as it can.
    pub is_fast: bool,
    is_up: bool,
    /// Whether a message may have an id, and the page as an author.
    pub has_receipts: bool,
    author: Option<String>,
    /// Ids of its messages that were not answered.
    pub said: HashSet<String>,
}

impl Views {
    pub fn new(is_fast: bool) -> Self {
        let (list, asks, said) = (Vec::new(), Vec::new(), HashSet::new());
        Self { list, asks, is_fast, is_up: true, has_receipts: false, author: None, said }
    }

    /// Checks a frame from the relay.
    pub fn take(
        &mut self,
        opcode: u8,
        payload: &[u8],
        closed: &Closed,
        seen: &mut Seen,
        room: &mut Vec<u8>,
    ) -> Result<Notice, String> {
        seen.frames += 1;
        seen.bytes += payload.len() as u64;
        match opcode {
            1 => match publication(payload) {
                Some((track, topic, sequence, data)) => {
                    self.whole(track, topic, sequence, data, room)?;
                    seen.deliveries[track.index()] += 1;
                    Ok(Notice::Nothing)
                }
                None => self.notice(payload, closed, seen),
            },
            2 => self.media(payload, seen, room).map(|()| Notice::Nothing),
            8 => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                Ok(Notice::Close { code, reason })
            }
            9 => Ok(Notice::Ping),
            10 => Ok(Notice::Nothing),
            other => Err(format!("opcode {other}")),
        }
    }

    fn view(&mut self, topic: u32) -> Result<&mut View, String> {
        self.list
            .iter_mut()
            .find(|view| view.topic == topic)
            .ok_or_else(|| format!("the page is not subscribed to topic {topic}"))
    }

    fn whole(
        &mut self,
        track: Track,
        topic: u32,
        sequence: u64,
        data: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<(), String> {
        let view = self.view(topic)?;
        let place = Place { topic, epoch: view.epoch, track, sequence };
        if !content::is_verbatim(place, data, room) {
            return Err(format!("{place:?} has other bytes than published, or must not be shown"));
        }
        if track == Track::State {
            if sequence <= view.state {
                return Err(format!("state {sequence} after {}", view.state));
            }
            view.state = sequence;
        } else {
            if view.messages.is_some_and(|next| next != sequence) {
                return Err(format!("{place:?} where {:?} is next: lost or duplicated without a gap", view.messages));
            }
            view.messages = Some(sequence + 1);
        }
        Ok(())
    }

    fn media(&mut self, payload: &[u8], seen: &mut Seen, room: &mut Vec<u8>) -> Result<(), String> {
        let short = || "a media frame that is too short".to_owned();
        let (head, data) = payload.split_at_checked(14).ok_or_else(short)?;
        let track = *Track::ALL.get(usize::from(head[0])).filter(|track| track.is_media()).ok_or("no media track")?;
        let topic = u32::from_be_bytes(head[2..6].try_into().map_err(|_| short())?);
        let sequence = u64::from_be_bytes(head[6..14].try_into().map_err(|_| short())?);
        let view = self.view(topic)?;
        let place = Place { topic, epoch: view.epoch, track, sequence };
        let wanted = content::part(track, sequence);
        let number = match wanted {
            Part::Init { .. } => 1,
            Part::Start => 2,
            _ => 3,
        };
        if head[1] != number {
            return Err(format!("{place:?} is part {} and was published as {number}", head[1]));
        }
        let data = match (wanted, data.split_first()) {
            (Part::Init { mime }, Some((size, rest))) => {
                let parts = rest.split_at_checked(usize::from(*size));
                parts.filter(|(found, _)| *found == mime.as_bytes()).ok_or("another MIME type")?.1
            }
            _ => data,
        };
        if !content::is_verbatim(place, data, room) {
            return Err(format!("{place:?} has other bytes than published"));
        }
        let media = &mut view.media[track.index() - 2];
        let expected = media.next;
        let wrong = |what: &str| Err(format!("{place:?} {what}, {expected:?} is next"));
        match wanted {
            Part::Init { .. } => {
                if media.next.is_some_and(|next| sequence > next) {
                    return wrong("is an init without a gap before it");
                }
                if media.next == Some(sequence) {
                    media.next = Some(sequence + 1);
                }
                (media.init, media.in_group) = (Some(sequence), false);
            }
            Part::Start => {
                if media.next.is_some_and(|next| next != sequence) {
                    return wrong("is a jump");
                }
                if media.init != Some(content::init_of(sequence)) {
                    return wrong(&format!("came after init {:?}", media.init));
                }
                (media.next, media.in_group) = (Some(sequence + 1), true);
                seen.deliveries[track.index()] += 1;
            }
            _ => {
                if !media.in_group || media.next != Some(sequence) {
                    return wrong("can't be decoded");
                }
                media.next = Some(sequence + 1);
                seen.deliveries[track.index()] += 1;
            }
        }
        Ok(())
    }

    fn notice(&mut self, payload: &[u8], closed: &Closed, seen: &mut Seen) -> Result<Notice, String> {
        let frame: Value = serde_json::from_slice(payload).map_err(|error| format!("text that is no JSON: {error}"))?;
        let number = |name: &str| frame[name].as_u64().ok_or_else(|| format!("no {name} in {frame}"));
        let small = |name: &str| number(name).and_then(|n| u32::try_from(n).map_err(|error| error.to_string()));
        let epoch = || {
            let text = frame["epoch"].as_str().and_then(|text| text.parse::<u64>().ok());
            text.ok_or_else(|| format!("no epoch in {frame}"))
        };
        match frame["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                let ask = self.answered(small("id")?)?;
                let (topic, epoch) = (small("topic")?, epoch()?);
                if self.list.iter().any(|view| view.topic == topic) {
                    return Err(format!("{frame}: the page has the topic"));
                }
                let messages = ask.since.filter(|since| since.0 == epoch && since.1 > 0).map(|since| since.1);
                let page_messages = frame["page_messages"].as_bool().ok_or("no page_messages")?;
                self.stands(&frame);
                let media = [Media::default(); 2];
                self.list.push(View { link: ask.link, topic, epoch, state: 0, messages, page_messages, media });
                Ok(Notice::Subscribed { id: ask.id })
            }
            "denied" => {
                let ask = self.answered(small("id")?)?;
                Ok(Notice::Denied { id: ask.id, retry: frame["retry"].as_f64() })
            }
            "end" => {
                let topic = small("topic")?;
                let at = self
                    .list
                    .iter()
                    .position(|view| view.topic == topic)
                    .ok_or("end of a topic that the page doesn't have")?;
                Ok(Notice::Ended { link: self.list.remove(at).link })
            }
            "epoch" => {
                let (topic, epoch) = (small("topic")?, epoch()?);
                let view = self.view(topic)?;
                let end = closed.get(&(topic, view.epoch)).copied().unwrap_or(0);
                if view.epoch == epoch || view.messages.is_some_and(|next| next < end) {
                    let (old, next) = (view.epoch, view.messages);
                    return Err(format!("{frame}: epoch {old} ended at {end}, the page's next message was {next:?}"));
                }
                (view.epoch, view.state, view.messages) = (epoch, 0, None);
                view.media = [Media::default(); 2];
                Ok(Notice::Nothing)
            }
            "gap" => {
                let name = frame["track"].as_str().unwrap_or_default();
                let track = Track::ALL.into_iter().find(|track| track.name() == name).ok_or("a gap on no track")?;
                self.gap(track, small("topic")?, number("from")?, number("to")?, seen)
                    .map_err(|error| format!("{frame}: {error}"))
            }
            "uplink" => {
                let up = frame["up"].as_bool().ok_or("no up")?;
                let author = self.author.clone();
                self.stands(&frame);
                if up == self.is_up && (!up || author == self.author) {
                    return Err(format!("{frame}: repeated"));
                }
                self.is_up = up;
                Ok(Notice::Nothing)
            }
            "sent" => {
                let id = frame["id"].as_str().unwrap_or_default();
                seen.receipts += u64::from(self.said.remove(id));
                Ok(Notice::Nothing)
            }
            "alive" | "error" => Ok(Notice::Nothing),
            _ => Err(format!("{frame}: unknown")),
        }
    }

    /// What the page may use, and who it is, until the next notice says otherwise.
    fn stands(&mut self, frame: &Value) {
        let mut words = frame["features"].as_array().into_iter().flatten();
        self.has_receipts = words.any(|word| word == "receipts");
        self.author = frame["author"].as_str().map(str::to_owned);
    }

    fn answered(&mut self, id: u32) -> Result<Ask, String> {
        let at = self
            .asks
            .iter()
            .position(|ask| ask.id == id)
            .ok_or_else(|| format!("an answer to {id}, which was not sent"))?;
        Ok(self.asks.remove(at))
    }

    fn gap(&mut self, track: Track, topic: u32, from: u64, to: u64, seen: &mut Seen) -> Result<Notice, String> {
        let is_fast = self.is_fast;
        let view = self.view(topic)?;
        if from == 0 || to < from {
            return Err("an empty gap".to_owned());
        }
        seen.gapped += to + 1 - from;
        match track {
            Track::State => return Err("a gap on state".to_owned()),
            Track::Messages => {
                if view.messages.is_some_and(|next| next != from) {
                    return Err(format!("{:?} is next", view.messages));
                }
                if is_fast && !content::HOT.contains(&topic) {
                    seen.gapped_good += (from..=to).filter(|n| content::is_good(track, *n)).count() as u64;
                }
                view.messages = Some(to + 1);
            }
            Track::Audio | Track::Video => {
                let media = &mut view.media[track.index() - 2];
                let is_begun = media.init.is_some_and(|init| init < from);
                if !media.next.map_or(is_begun, |next| next == from) {
                    return Err(format!("{:?} is next", media.next));
                }
                (media.next, media.in_group) = (Some(to + 1), false);
            }
        }
        Ok(Notice::Nothing)
    }
}

/// A state's or a message's track, topic, sequence and data.
fn publication(payload: &[u8]) -> Option<(Track, u32, u64, &[u8])> {
    let (track, rest) = match payload.strip_prefix(br#"{"type":"message","topic":"#) {
        Some(rest) => (Track::Messages, rest),
        None => (Track::State, payload.strip_prefix(br#"{"type":"state","topic":"#)?),
    };
    let (topic, rest) = digits(rest)?;
    let (sequence, rest) = digits(rest.strip_prefix(br#","sequence":"#)?)?;
    let data = rest.strip_prefix(br#","data":"#)?.strip_suffix(b"}")?;
    Some((track, u32::try_from(topic).ok()?, sequence, data))
}

fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = bytes.split_at(end);
    Some((core::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// The opcode, begin and end of the first frame's payload; `None` where it isn't whole.
pub fn frame(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, String> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame that begins with {first:#x} {second:#x}"));
    }
    let Some((opcode, from, size)) = header(bytes) else { return Ok(None) };
    if size > 2 << 20 {
        return Err("a frame beyond every limit".to_owned());
    }
    Ok((bytes.len() >= from + size).then_some((opcode, from, from + size)))
}
