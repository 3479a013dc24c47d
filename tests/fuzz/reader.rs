//! One page as a reader of its own bytes, for the fuzz targets: complete, unmasked frames, and what
//! each track promises.
//!
//! Nothing of a topic before its `subscribed` or after its `end`. Messages in order, or a gap that
//! covers the missing ones. No media chunk that can't be decoded: an init, a start, then chunk by
//! chunk. Does not know what was published: the simulation proves that the bytes are the
//! publisher's own.

use std::collections::HashMap;

use serde_json::Value;

/// What a page has read.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
    topics: HashMap<u64, Topic>,
}

/// A page's position in a topic.
#[derive(Default)]
struct Topic {
    state: u64,
    /// The next message, if known. A position that the page sent itself may be from elsewhere: then
    /// the first message counts.
    message: Option<u64>,
    media: [Media; 2],
}

#[derive(Default)]
struct Media {
    next: Option<u64>,
    init: Option<u64>,
    in_group: bool,
}

impl Reader {
    /// Takes bytes, and reads the complete frames.
    pub fn read(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let [first, second, ..] = self.bytes[..] {
            assert!(matches!(first, 0x81 | 0x82 | 0x89), "no frame begins with {first:#x}");
            assert!(second & 0x80 == 0 && second < 127, "a masked frame, or one beyond the board");
            let (from, size) = if second < 126 {
                (2, usize::from(second))
            } else if let Some(&[high, low]) = self.bytes.get(2..4) {
                (4, usize::from(u16::from_be_bytes([high, low])))
            } else {
                return;
            };
            if self.bytes.len() < from + size {
                return;
            }
            let frame: Vec<u8> = self.bytes.drain(..from + size).skip(from).collect();
            match first {
                0x81 => self.text(&frame),
                0x82 => self.media(&frame),
                _ => assert!(frame.is_empty(), "a ping with a payload"),
            }
        }
    }

    fn text(&mut self, frame: &[u8]) {
        let value: Value = serde_json::from_slice(frame).expect("a text frame is JSON");
        let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"));
        let kind = value["type"].as_str().expect("it has a type");
        match kind {
            "subscribed" => {
                assert!(self.topics.insert(number("topic"), Topic::default()).is_none(), "the page has it: {value}");
            }
            "end" => drop(self.topics.remove(&number("topic")).expect("the page has it")),
            "epoch" => *self.topic(number("topic")) = Topic::default(),
            "state" => {
                let (topic, sequence) = (self.topic(number("topic")), number("sequence"));
                assert!(sequence > topic.state, "a state behind {}: {value}", topic.state);
                topic.state = sequence;
            }
            "message" => {
                let (topic, sequence) = (self.topic(number("topic")), number("sequence"));
                assert!(topic.message.is_none_or(|next| next == sequence), "expected {:?}: {value}", topic.message);
                topic.message = Some(sequence + 1);
            }
            "gap" => self.gap(&value, number("from"), number("to")),
            "denied" | "error" => assert!(value["reason"].is_string(), "no reason: {value}"),
            "uplink" => assert!(value["up"].is_boolean(), "no up: {value}"),
            _ => assert_eq!(kind, "alive", "unknown: {value}"),
        }
    }

    fn topic(&mut self, topic: u64) -> &mut Topic {
        self.topics.get_mut(&topic).unwrap_or_else(|| panic!("the page doesn't have topic {topic}"))
    }

    fn gap(&mut self, value: &Value, from: u64, to: u64) {
        assert!(0 < from && from <= to, "a gap of nothing: {value}");
        let topic = self.topic(value["topic"].as_u64().expect("it has a topic"));
        let track = match value["track"].as_str() {
            Some("messages") => {
                assert!(topic.message.is_none_or(|next| next == from), "expected {:?}: {value}", topic.message);
                topic.message = Some(to + 1);
                return;
            }
            Some("audio") => &mut topic.media[0],
            Some("video") => &mut topic.media[1],
            _ => panic!("a track without gaps: {value}"),
        };
        // A page that has an init and no chunk yet may be given its position.
        let is_begun = track.init.is_some_and(|init| init < from);
        assert!(track.next.map_or(is_begun, |next| next == from), "expected {:?}: {value}", track.next);
        (track.next, track.in_group) = (Some(to + 1), false);
    }

    fn media(&mut self, frame: &[u8]) {
        let (head, data) = frame.split_first_chunk::<14>().expect("a head of 14 bytes");
        let [track @ (2 | 3), part, topic @ .., _, _, _, _, _, _, _, _] = *head else { panic!("no media: {head:?}") };
        let sequence = head.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let media = &mut self.topic(u32::from_be_bytes(topic).into()).media[usize::from(track) - 2];
        let next = media.next;
        match part {
            1 => {
                assert!(data.first().is_some_and(|size| data.len() > usize::from(*size)), "an init without its type");
                assert!(next.is_none_or(|next| sequence <= next), "init {sequence}, expected {next:?}");
                if next == Some(sequence) {
                    media.next = Some(sequence + 1);
                }
                (media.init, media.in_group) = (Some(sequence), false);
            }
            2 => {
                assert!(media.init.is_some_and(|init| init < sequence), "start {sequence} without an init");
                assert!(next.is_none_or(|next| next == sequence), "start {sequence}, expected {next:?}");
                (media.next, media.in_group) = (Some(sequence + 1), true);
            }
            3 => {
                assert!(media.in_group && next == Some(sequence), "chunk {sequence} of no group, expected {next:?}");
                media.next = Some(sequence + 1);
            }
            _ => panic!("no part {part}"),
        }
    }
}
