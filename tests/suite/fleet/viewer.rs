//! One page as a naive reader: what it was shown, and whether that keeps the fleet's promises.
//!
//! For each topic: messages come in order, and each number is delivered or told as missing; a chunk
//! follows the one before it. What a number holds is compared by `mod.rs` with what everybody else
//! saw. Doesn't know hubs, relays or the engine.

use std::collections::BTreeMap;

use relay::session::Session;
use relay::table::Id;
use serde_json::Value;

use crate::simulation::{ensure, page::frame};

/// A page on some relay.
pub struct Viewer {
    pub id: Id<Session>,
    bytes: Vec<u8>,
    /// By topic number.
    pub views: BTreeMap<u32, View>,
    /// By the page's own number: link, what it claimed to have, and when it asked.
    pub asks: BTreeMap<u32, Ask>,
    pub next_id: u32,
}

/// An unanswered `subscribe`.
#[derive(Clone, Debug)]
pub struct Ask {
    pub link: &'static str,
    pub since: Option<(u64, u64)>,
    pub at: u64,
}

/// A topic as the page sees it.
#[derive(Debug)]
pub struct View {
    pub link: &'static str,
    pub epoch: u64,
    pub state: u64,
    pub state_data: Vec<u8>,
    /// The next message, once it is known.
    pub next: Option<u64>,
    /// It said that it has all before this, and nothing has come since.
    claimed: Option<u64>,
    /// The next chunk of video; none outside of a group.
    chunk: Option<u64>,
    pub chunks: u64,
    /// Which of its relay's lines it was subscribed on.
    pub line: u64,
}

/// What a page was shown.
#[derive(Debug)]
pub enum Shown {
    Subscribed {
        link: &'static str,
        asked_at: u64,
        topic: u32,
    },
    Denied {
        link: &'static str,
        reason: String,
        is_final: bool,
    },
    Ended {
        link: &'static str,
        reason: String,
    },
    /// Of the topic with this link: epoch, track, sequence and bytes.
    Content {
        link: &'static str,
        epoch: u64,
        track: usize,
        sequence: u64,
        data: Vec<u8>,
    },
    Gap {
        of_messages: bool,
        what: String,
    },
    Epoch,
}

impl Viewer {
    pub fn new(id: Id<Session>) -> Self {
        Self { id, bytes: Vec::new(), views: BTreeMap::new(), asks: BTreeMap::new(), next_id: 0 }
    }

    /// Reads bytes; what they showed.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Vec<Shown>, String> {
        self.bytes.extend_from_slice(bytes);
        let (mut at, mut shown) = (0, Vec::new());
        while let Some((opcode, from, to)) = frame(&self.bytes[at..])? {
            let payload = self.bytes[at + from..at + to].to_vec();
            at += to;
            let lossy = || String::from_utf8_lossy(&payload).into_owned();
            match opcode {
                1 => shown.extend(self.text(&payload).map_err(|error| format!("{error}: {}", lossy()))?),
                2 => shown.push(self.chunk(&payload)?),
                _ => {}
            }
        }
        self.bytes.drain(..at);
        Ok(shown)
    }

    fn text(&mut self, payload: &[u8]) -> Result<Option<Shown>, String> {
        let frame: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let number = |name: &str| frame[name].as_u64().ok_or_else(|| format!("no {name}"));
        let epoch = || frame["epoch"].as_str().and_then(|text| text.parse::<u64>().ok()).ok_or("no epoch".to_owned());
        let id = || number("id").and_then(|id| u32::try_from(id).map_err(|error| error.to_string()));
        let topic = || number("topic").and_then(|topic| u32::try_from(topic).map_err(|error| error.to_string()));
        let reason = || frame["reason"].as_str().map(str::to_owned).ok_or("no reason".to_owned());
        let kind = frame["type"].as_str().unwrap_or_default();
        let shown = match kind {
            "subscribed" => {
                let ask = self.asks.remove(&id()?).ok_or("nobody asked")?;
                let (topic, epoch) = (topic()?, epoch()?);
                let claimed = ask.since.filter(|since| since.0 == epoch && since.1 > 0).map(|since| since.1);
                let view = View {
                    link: ask.link,
                    epoch,
                    state: 0,
                    state_data: Vec::new(),
                    next: None,
                    claimed,
                    chunk: None,
                    chunks: 0,
                    line: 0,
                };
                self.views.insert(topic, view);
                Shown::Subscribed { link: ask.link, asked_at: ask.at, topic }
            }
            "denied" => {
                let ask = self.asks.remove(&id()?).ok_or("nobody asked")?;
                Shown::Denied { link: ask.link, reason: reason()?, is_final: frame.get("retry").is_none() }
            }
            "end" => {
                let view = self.views.remove(&topic()?).ok_or("the page doesn't have it")?;
                Shown::Ended { link: view.link, reason: reason()? }
            }
            "epoch" => {
                let view = self.views.get_mut(&topic()?).ok_or("the page doesn't have it")?;
                let epoch = epoch()?;
                ensure!(epoch != view.epoch, "the epoch is not new");
                (view.epoch, view.state, view.next, view.claimed, view.chunk) = (epoch, 0, None, None, None);
                Shown::Epoch
            }
            "state" | "message" => {
                let view = self.views.get_mut(&topic()?).ok_or("the page doesn't have it")?;
                let sequence = number("sequence")?;
                let head = format!(r#"{{"type":"{kind}","topic":{},"sequence":{sequence},"data":"#, topic()?);
                let data = payload.strip_prefix(head.as_bytes()).and_then(|rest| rest.strip_suffix(b"}"));
                let data = data.ok_or("another head")?.to_vec();
                if kind == "state" {
                    ensure!(sequence > view.state, "state {sequence} behind {}", view.state);
                    (view.state, view.state_data) = (sequence, data.clone());
                } else {
                    view.pass(sequence, sequence)?;
                }
                let (link, epoch) = (view.link, view.epoch);
                Shown::Content { link, epoch, track: usize::from(kind == "message"), sequence, data }
            }
            "gap" => {
                let view = self.views.get_mut(&topic()?).ok_or("the page doesn't have it")?;
                let (from, to) = (number("from")?, number("to")?);
                ensure!(1 <= from && from <= to, "an empty gap");
                let of_messages = frame["track"] == "messages";
                // A page that claims less than its relay has kept is told what is missing there.
                let is_first = view.next.is_none();
                if of_messages {
                    view.pass(from, to)?;
                } else {
                    view.chunk = None;
                }
                let of_messages = of_messages && !is_first;
                Shown::Gap { of_messages, what: frame.to_string() }
            }
            _ => return Ok(None),
        };
        Ok(Some(shown))
    }

    fn chunk(&mut self, payload: &[u8]) -> Result<Shown, String> {
        ensure!(payload.len() >= 14 && payload[0] == 3, "no chunk of video");
        let topic = u32::from_be_bytes(payload[2..6].try_into().unwrap());
        let sequence = u64::from_be_bytes(payload[6..14].try_into().unwrap());
        let view = self.views.get_mut(&topic).ok_or("the page doesn't have it")?;
        match payload[1] {
            1 => view.chunk = None,
            2 => view.chunk = Some(sequence + 1),
            _ => {
                ensure!(view.chunk == Some(sequence), "chunk {sequence}, expected {:?}", view.chunk);
                view.chunk = Some(sequence + 1);
            }
        }
        view.chunks = sequence;
        let (link, epoch) = (view.link, view.epoch);
        Ok(Shown::Content { link, epoch, track: 3, sequence, data: payload[14..].to_vec() })
    }

    /// Where it is in each topic, for a later `since`.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.views.values().filter_map(|view| Some((view.link, view.epoch, view.next.or(view.claimed)?)))
    }
}

impl View {
    /// Messages were delivered or told as missing, from and to.
    fn pass(&mut self, from: u64, to: u64) -> Result<(), String> {
        ensure!(self.next.is_none_or(|next| next == from), "messages from {from}, expected {:?}", self.next);
        // The relay may have less than it claimed, and then begins again further back.
        let claimed = self.claimed.take();
        ensure!(claimed.is_none_or(|claimed| from <= claimed), "messages from {from}, it had all before {claimed:?}");
        self.next = Some(to + 1);
        Ok(())
    }
}
