//! The page protocol's frames: WebSocket frames (RFC 6455, section 5.2; a server's are unmasked, so
//! the same for every page), the JSON in them, and the requests of pages.
//!
//! Owns every byte that is sent to a page, except the handshake and tungstenite's pong and close
//! frames. A publication becomes an [`Encoded`] frame in three pieces (prefix, the business
//! server's bytes unchanged, suffix), so that it is copied only once, into its track's ring.
//! Everything else sent to a page is a [`Notice`], small enough to be encoded again if it was only
//! partly sent. Knows nothing of sessions, cursors or sockets.

use alloc::borrow::Cow;
use core::fmt::{self, Write};

use heapless::Vec;

use super::{
    Track,
    json::Value,
    uplink::{Author, Part, Since},
};

/// The WebSocket subprotocol of the page protocol.
pub const SUBPROTOCOL: &str = "sharelink.v1";
/// The maximum size of a message from a page, in bytes.
pub const PAGE_FRAME_SIZE_MAX: usize = 4096;
/// The maximum number of WebSocket fragments in a message from a page. Browsers send one; without a
/// limit, empty ones could continue forever. One more closes the page.
pub const PAGE_FRAGMENTS_MAX: u32 = 64;
/// The maximum size of an unmasked WebSocket frame header, in bytes.
pub const HEADER_SIZE_MAX: usize = 10;
/// The size of a binary frame's prefix, without an init's MIME type, in bytes.
const MEDIA_PREFIX_SIZE: usize = 14;
/// The maximum size of a publication's prefix, in bytes: that of an init with its MIME type.
pub const PREFIX_SIZE_MAX: usize = HEADER_SIZE_MAX + MEDIA_PREFIX_SIZE + 1 + super::MIME_SIZE_MAX;
/// The maximum size of a notice, in bytes: a reason of 256 bytes, each escaped as 6.
pub const NOTICE_SIZE_MAX: usize = HEADER_SIZE_MAX + 6 * super::REASON_SIZE_MAX + 128;

const FINAL: u8 = 0x80;

/// A WebSocket opcode (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// A ping, which the peer must answer with a pong.
    Ping = 0x9,
}

/// A publication, encoded as the frame that is sent to every page.
#[derive(Debug)]
pub struct Encoded<'a> {
    /// The WebSocket header and everything before the data.
    pub prefix: Vec<u8, PREFIX_SIZE_MAX>,
    /// The business server's bytes.
    pub data: &'a [u8],
    /// Everything after the data.
    pub suffix: &'static [u8],
}

impl<'a> Encoded<'a> {
    /// The frame of a publication. `part` must belong to `track`, and a MIME type have at most 255
    /// bytes (the uplink's decoder and the relay check both).
    #[must_use]
    pub fn publication(topic: u32, track: Track, sequence: u64, part: Part<'_>, data: &'a [u8]) -> Self {
        match track {
            Track::State => Self::text("state", topic, sequence, data),
            Track::Messages => Self::text("message", topic, sequence, data),
            Track::Audio | Track::Video => Self::media(topic, track, sequence, part, data),
        }
    }

    /// The size of the frame, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.prefix.len() + self.data.len() + self.suffix.len()
    }

    fn text(kind: &str, topic: u32, sequence: u64, data: &'a [u8]) -> Self {
        let mut text = Vec::<u8, 96>::new();
        // At most 23 + 7 + 10 + 16 digits: well within 96.
        let _ = write!(Bytes(&mut text), r#"{{"type":"{kind}","topic":{topic},"sequence":{sequence},"data":"#);
        let suffix = b"}";
        let mut prefix = header(Opcode::Text, text.len() + data.len() + suffix.len());
        let _ = prefix.extend_from_slice(&text);
        Self { prefix, data, suffix }
    }

    fn media(topic: u32, track: Track, sequence: u64, part: Part<'_>, data: &'a [u8]) -> Self {
        let (number, mime) = match part {
            Part::Init { mime } => (1, Some(mime)),
            Part::Start | Part::Whole => (2, None),
            Part::Continue => (3, None),
        };
        let mut fixed = Vec::<u8, { MEDIA_PREFIX_SIZE + 1 + super::MIME_SIZE_MAX }>::new();
        let _ = fixed.extend_from_slice(&[track as u8, number]);
        let _ = fixed.extend_from_slice(&topic.to_be_bytes());
        let _ = fixed.extend_from_slice(&sequence.to_be_bytes());
        if let Some(mime) = mime {
            let _ = fixed.push(u8::try_from(mime.len()).unwrap_or(u8::MAX));
            let _ = fixed.extend_from_slice(mime.as_bytes());
        }
        let mut prefix = header(Opcode::Binary, fixed.len() + data.len());
        let _ = prefix.extend_from_slice(&fixed);
        Self { prefix, data, suffix: b"" }
    }
}

/// A page's name for a message of its own: random, and the same each time that it sends it.
pub type MessageId = [u8; 16];

/// What a page may use besides what every relay has, and who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether a `send` with an id is answered.
    pub receipts: bool,
    /// The page as an author; `None` while there is no business server.
    pub author: Option<Author>,
}

/// A notice to one page: everything sent to it besides publications.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Notice<'a> {
    /// The answer to an accepted `subscribe`.
    Subscribed {
        /// The page's `id`.
        id: u32,
        /// The topic's number.
        topic: u32,
        /// The topic's epoch.
        epoch: u64,
        /// Whether `send` is forwarded.
        page_messages: bool,
        /// What else the page may use; `None` as from a relay before them.
        standing: Option<Standing>,
    },
    /// The answer to any other `subscribe`.
    Denied {
        /// The page's `id`.
        id: u32,
        /// For the viewer.
        reason: &'a str,
        /// After which time to retry, in milliseconds, if at all.
        retry_ms: Option<u32>,
    },
    /// Sequences that this page will not receive.
    Gap {
        /// The topic's number.
        topic: u32,
        /// The track.
        track: Track,
        /// The first one missed.
        from: u64,
        /// The last one missed.
        to: u64,
    },
    /// The topic's sequences have restarted.
    Epoch {
        /// The topic's number.
        topic: u32,
        /// The new epoch.
        epoch: u64,
    },
    /// The subscription has ended.
    End {
        /// The topic's number.
        topic: u32,
        /// For the viewer.
        reason: &'a str,
    },
    /// The connection to the business server went down or up.
    Uplink {
        /// Whether it is up.
        up: bool,
        /// Where it is up: what else the page may use now.
        standing: Option<Standing>,
    },
    /// Sent if nothing else was sent for a while, and in answer to a `ping`.
    Alive,
    /// The business server has a message of the page's.
    Sent {
        /// The message's id.
        id: MessageId,
    },
    /// A request of the page was refused.
    Error {
        /// Why, and how to fix it.
        reason: &'a str,
        /// The id of the message that was refused, if it has one.
        id: Option<MessageId>,
    },
    /// A WebSocket ping.
    Ping,
}

impl Notice<'_> {
    /// The notice as a complete WebSocket frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8, NOTICE_SIZE_MAX> {
        let mut text = Vec::<u8, NOTICE_SIZE_MAX>::new();
        let mut out = Bytes(&mut text);
        // Every variant fits: a reason is at most 256 bytes and no other field has a variable size.
        let _ = match *self {
            Self::Subscribed { id, topic, epoch, page_messages, standing } => write!(
                out,
                r#"{{"type":"subscribed","id":{id},"topic":{topic},"epoch":"{epoch}","page_messages":{page_messages}{}}}"#,
                Members(standing)
            ),
            Self::Denied { id, reason, retry_ms: None } => {
                write!(out, r#"{{"type":"denied","id":{id},"reason":"{}"}}"#, Escaped(reason))
            }
            Self::Denied { id, reason, retry_ms: Some(ms) } => {
                let reason = Escaped(reason);
                write!(out, r#"{{"type":"denied","id":{id},"reason":"{reason}","retry":{}}}"#, Seconds(ms))
            }
            Self::Gap { topic, track, from, to } => {
                let track = track.name();
                write!(out, r#"{{"type":"gap","topic":{topic},"track":"{track}","from":{from},"to":{to}}}"#)
            }
            Self::Epoch { topic, epoch } => write!(out, r#"{{"type":"epoch","topic":{topic},"epoch":"{epoch}"}}"#),
            Self::End { topic, reason } => {
                write!(out, r#"{{"type":"end","topic":{topic},"reason":"{}"}}"#, Escaped(reason))
            }
            Self::Uplink { up, standing } => write!(out, r#"{{"type":"uplink","up":{up}{}}}"#, Members(standing)),
            Self::Alive => write!(out, r#"{{"type":"alive"}}"#),
            Self::Sent { id } => write!(out, r#"{{"type":"sent","id":"{}"}}"#, Hex(&id)),
            Self::Error { reason, id: None } => {
                write!(out, r#"{{"type":"error","reason":"{}"}}"#, Escaped(reason))
            }
            Self::Error { reason, id: Some(id) } => {
                write!(out, r#"{{"type":"error","reason":"{}","id":"{}"}}"#, Escaped(reason), Hex(&id))
            }
            Self::Ping => Ok(()),
        };
        let opcode = if *self == Self::Ping { Opcode::Ping } else { Opcode::Text };
        let mut frame = header(opcode, text.len());
        let _ = frame.extend_from_slice(&text);
        frame
    }
}

/// A page's standing, as the last members of a notice.
struct Members(Option<Standing>);

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Standing { receipts, author }) = self.0 else { return Ok(()) };
        f.write_str(if receipts { r#","features":["ping","receipts"]"# } else { r#","features":["ping"]"# })?;
        author.map_or(Ok(()), |author| write!(f, r#","author":"{}""#, Hex(&author)))
    }
}

/// Bytes as lowercase digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A time in milliseconds, printed in seconds with one decimal: `4.2`.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 100)
    }
}

/// A request from a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Subscribes to a share link.
    Subscribe {
        /// The page's number for the request.
        id: u32,
        /// The share link; not validated.
        link: Cow<'a, str>,
        /// Where the page wants to resume each track.
        since: Option<Since>,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// The topic's number.
        topic: u32,
    },
    /// A message for the business server.
    Send {
        /// The topic's number.
        topic: u32,
        /// The text; its size is not checked.
        data: Cow<'a, str>,
        /// Where the page wants an answer.
        id: Option<MessageId>,
    },
    /// Asks for an `alive`.
    Ping,
}

/// Parses a text frame from a page. Ignores unknown fields, whatever JSON they have. If a field
/// occurs twice, the last one counts.
///
/// # Errors
/// What is wrong, for the page's developer.
pub fn decode_request(text: &str) -> Result<Request<'_>, &'static str> {
    let whole = Value::read(text.as_bytes()).filter(|value| value.is_object());
    let whole = whole.ok_or("a frame must be one JSON object with a type")?;
    let [kind, id, link, since, topic, data] = whole.last(["type", "id", "link", "since", "topic", "data"]);
    let kind = kind.and_then(Value::text).ok_or("a frame must be one JSON object with a type that is a string")?;
    if kind.is("subscribe") {
        const NEEDS: &str = "subscribe needs id (0 to 4294967295), link (a string) and, if any, since {epoch, next[4]}";
        let since = since.filter(|since| !since.is_null()).map(|since| since_of(since, NEEDS)).transpose()?;
        let link = link.and_then(Value::text).ok_or(NEEDS)?.resolved();
        Ok(Request::Subscribe { id: number(id).ok_or(NEEDS)?, link, since })
    } else if kind.is("unsubscribe") {
        let topic = number(topic).ok_or("unsubscribe needs topic, the number from subscribed")?;
        Ok(Request::Unsubscribe { topic })
    } else if kind.is("send") {
        const NEEDS: &str = "send needs topic, the number from subscribed, and data, a string";
        let data = data.and_then(Value::text).ok_or(NEEDS)?.resolved();
        // An id of another type is an unknown field, as it was before messages had ids.
        let id = id.and_then(Value::text).map(|id| message_id(&id.resolved()).ok_or(NEEDS_ID)).transpose()?;
        Ok(Request::Send { topic: number(topic).ok_or(NEEDS)?, data, id })
    } else if kind.is("ping") {
        Ok(Request::Ping)
    } else {
        Err("unknown type: use subscribe, unsubscribe, send or ping")
    }
}

const NEEDS_ID: &str = "the id of a send, if it has one, is 32 digits of 0-9 and a-f: 128 random bits";

fn message_id(text: &str) -> Option<MessageId> {
    let mut id = [0; 16];
    if text.len() != 2 * id.len() || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (place, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(id)
}

fn number(value: Option<Value<'_>>) -> Option<u32> {
    value?.whole_number()?.try_into().ok()
}

fn since_of(since: Value<'_>, needs: &'static str) -> Result<Since, &'static str> {
    let [epoch, next] = since.last(["epoch", "next"]);
    let epoch = epoch.and_then(Value::text).ok_or(needs)?.resolved();
    let mut places = next.and_then(Value::items).ok_or(needs)?;
    // A sequence too large for a u64 is no error, but a value that no track can reach, like 2^53.
    let mut place = || places.next().and_then(Value::whole_number_or_most).ok_or(needs);
    let next = [place()?, place()?, place()?, place()?];
    if places.next().is_some() {
        return Err(needs);
    }
    let epoch = epoch.parse().map_err(|_| "since.epoch must be the epoch's decimal digits as a string")?;
    Ok(Since { epoch, next })
}

/// The header of a final, unmasked frame with a payload of `size` bytes. `N` must be at least
/// [`HEADER_SIZE_MAX`].
#[must_use]
pub fn header<const N: usize>(opcode: Opcode, size: usize) -> Vec<u8, N> {
    const { assert!(N >= HEADER_SIZE_MAX) };
    let mut header = Vec::new();
    let _ = header.push(FINAL | opcode as u8);
    let _ = match (u8::try_from(size), u16::try_from(size)) {
        (Ok(small @ 0..=125), _) => header.push(small).map_err(drop),
        (_, Ok(medium)) => {
            header.push(126).map_err(drop).and_then(|()| header.extend_from_slice(&medium.to_be_bytes()).map_err(drop))
        }
        _ => header
            .push(127)
            .map_err(drop)
            .and_then(|()| header.extend_from_slice(&(size as u64).to_be_bytes()).map_err(drop)),
    };
    header
}

/// Writes text into a byte vector of fixed capacity.
struct Bytes<'a, const N: usize>(&'a mut Vec<u8, N>);

impl<const N: usize> Write for Bytes<'_, N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// Text escaped for a JSON string (RFC 8259, section 7).
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\u{0}'..'\u{20}' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(encoded: &Encoded<'_>) -> alloc::vec::Vec<u8> {
        [&encoded.prefix[..], encoded.data, encoded.suffix].concat()
    }

    #[test]
    fn a_message_is_the_data_unchanged_inside_one_frame() {
        let encoded = Encoded::publication(7, Track::Messages, 42, Part::Whole, b"{ \"a\" : 1 }");
        let text = br#"{"type":"message","topic":7,"sequence":42,"data":{ "a" : 1 }}"#;
        assert_eq!(whole(&encoded), [&[0x81, u8::try_from(text.len()).unwrap()], &text[..]].concat());
        assert_eq!(encoded.size(), text.len() + 2);
    }

    #[test]
    fn an_init_has_its_mime_type_before_its_bytes() {
        let encoded = Encoded::publication(0x0102_0304, Track::Video, 5, Part::Init { mime: "v/m" }, &[9, 9]);
        let head = [3, 1, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5, 3];
        assert_eq!(whole(&encoded), [&[0x82, 20], &head[..], b"v/m", &[9, 9]].concat());
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (size, expected) in [
            (111, vec![0x82, 125]),
            (112, vec![0x82, 126, 0, 126]),
            (65_521, vec![0x82, 126, 0xff, 0xff]),
            (65_522, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let data = vec![0; size];
            let encoded = Encoded::publication(1, Track::Audio, 1, Part::Start, &data);
            assert_eq!(encoded.prefix[..expected.len()], expected);
        }
    }

    #[test]
    fn the_longest_notice_fits() {
        let reason = "\u{1}".repeat(256);
        let notice = Notice::Denied { id: u32::MAX, reason: &reason, retry_ms: Some(u32::MAX) };
        let frame = notice.encode();
        let text: serde_json::Value = serde_json::from_slice(&frame[4..]).unwrap();
        assert_eq!(text["reason"], reason);
    }

    #[test]
    fn what_a_page_may_use_and_who_it_is_are_the_last_members() {
        let text =
            |notice: Notice<'_>| alloc::string::String::from_utf8(notice.encode().to_vec().split_off(2)).unwrap();
        let up = |receipts, author| text(Notice::Uplink { up: true, standing: Some(Standing { receipts, author }) });
        assert_eq!(up(false, None), r#"{"type":"uplink","up":true,"features":["ping"]}"#);
        let author = Some([0, 1, 2, 0xff, 4, 5, 6, 7]);
        let expected = r#"{"type":"uplink","up":true,"features":["ping","receipts"],"author":"000102ff04050607"}"#;
        assert_eq!(up(true, author), expected);
        let id = [0xab; 16];
        assert_eq!(text(Notice::Sent { id }), format!(r#"{{"type":"sent","id":"{}"}}"#, "ab".repeat(16)));
        let refused = text(Notice::Error { reason: "no", id: Some(id) });
        assert_eq!(refused, format!(r#"{{"type":"error","reason":"no","id":"{}"}}"#, "ab".repeat(16)));
    }

    #[test]
    fn reasons_are_escaped() {
        let frame = Notice::End { topic: 7, reason: "a\"b\\c\n\t\u{1f}你" }.encode();
        let text: serde_json::Value = serde_json::from_slice(&frame[2..]).unwrap();
        assert_eq!(text["reason"], "a\"b\\c\n\t\u{1f}你");
    }

    #[test]
    fn seconds_have_one_digit_behind_the_point() {
        assert_eq!(Seconds(4_299).to_string(), "4.2");
        assert_eq!(Seconds(60_000).to_string(), "60.0");
    }

    #[test]
    fn a_page_s_frames_are_read_and_unknown_fields_ignored() {
        let since = Some(Since { epoch: u64::MAX, next: [4, 43, 0, 0] });
        let text = r#" {"x":[1],"type":"subscribe","id":2,"link":"d\u0065mo","since":{"epoch":"18446744073709551615","next":[4,43,0,0]}}"#;
        assert_eq!(decode_request(text), Ok(Request::Subscribe { id: 2, link: "demo".into(), since }));
        assert_eq!(decode_request(r#"{"type":"unsubscribe","topic":7}"#), Ok(Request::Unsubscribe { topic: 7 }));
        let send = |id| Ok(Request::Send { topic: 7, data: "👍".into(), id });
        assert_eq!(decode_request(r#"{"type":"send","topic":7,"data":"👍"}"#), send(None));
        assert_eq!(decode_request(r#"{"type":"send","topic":7,"data":"👍","id":5}"#), send(None));
        let text = r#"{"type":"send","topic":7,"data":"👍","id":"000102030405060708090a0b0c0d0e0f"}"#;
        let id = core::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(decode_request(text), send(Some(id)));
        assert_eq!(decode_request(r#"{"type":"ping","id":5}"#), Ok(Request::Ping));
    }

    #[test]
    fn what_json_can_say_a_page_can_say() {
        let send = |topic, data: &str| Ok(Request::Send { topic, data: data.to_owned().into(), id: None });
        for topic in ["7", "7.0", "7e0", "70e-1", "0.7E+1"] {
            let text = format!(r#"{{"type":"send","topic":{topic},"data":"x"}}"#);
            assert_eq!(decode_request(&text), send(7, "x"), "{topic}");
        }
        for id in ["-0", "-0.0", "0e9"] {
            let text = format!(r#"{{"type":"subscribe","id":{id},"link":"a","since":null}}"#);
            assert_eq!(decode_request(&text), Ok(Request::Subscribe { id: 0, link: "a".into(), since: None }), "{id}");
        }
        let since = Some(Since { epoch: 7, next: [0, 1 << 53, 0, 1] });
        let text = r#"{"type":"subscribe","id":1.0,"link":"a","since":{"epoch":"7","next":[-0,9007199254740992.0,0e1,10e-1]}}"#;
        assert_eq!(decode_request(text), Ok(Request::Subscribe { id: 1, link: "a".into(), since }));
        // A lone surrogate becomes U+FFFD: the business server gets UTF-8.
        assert_eq!(decode_request(r#"{"type":"send","topic":7,"data":"\ud83d"}"#), send(7, "\u{fffd}"));
        assert_eq!(decode_request(r#"{"type":"send","topic":7,"data":"a\ud83d\ude00\udead"}"#), send(7, "a😀\u{fffd}"));
        // Names may be escaped; of duplicates, the last one counts.
        let escaped = r#"{"\u0074ype":"s\u0065nd","t\u006fpic":7,"\u0064ata":"x"}"#;
        assert_eq!(decode_request(escaped), send(7, "x"));
        let twice = r#"{"type":"dance","topic":"no","data":1,"type":"send","topic":7,"data":"x"}"#;
        assert_eq!(decode_request(twice), send(7, "x"));
        let deep = format!("{}{}", "[".repeat(256), "]".repeat(256));
        for unknown in ["5", "1e400", "-1E-99999", "{\"\\ud800\":[{}]}", "{\"a\":1,\"a\":2}", &deep] {
            let text = format!(
                r#"{{"x":"\udc00\ud800","y":{unknown},"type":"send","\ud83d":{unknown},"topic":7,"data":"x","id":{unknown}}}"#
            );
            assert_eq!(decode_request(&text), send(7, "x"), "{unknown}");
        }
    }

    #[test]
    fn what_a_page_may_not_say_is_refused_with_a_remedy() {
        for (text, word) in [
            ("", "JSON object"),
            ("[]", "JSON object"),
            ("{", "JSON object"),
            (r#"{"type":"send"} {}"#, "JSON object"),
            (r#"{"type":5}"#, "type"),
            ("{}", "type that is a string"),
            (r#"{"type":"send","type":null}"#, "type that is a string"),
            (r#"{"type":"dance"}"#, "unknown type"),
            (r#"{"type":"send","topic":7,"data":"x","id":"5"}"#, "32 digits"),
            (r#"{"type":"send","topic":7,"data":"x","id":"000102030405060708090A0B0C0D0E0F"}"#, "32 digits"),
            (r#"{"type":"send","topic":7,"data":"x","id":"+00102030405060708090a0b0c0d0e0f"}"#, "32 digits"),
            (r#"{"type":"subscribe","id":-1,"link":"a"}"#, "id"),
            (r#"{"type":"subscribe","id":1}"#, "link"),
            (r#"{"type":"subscribe","id":1,"link":"a","since":{"epoch":"x","next":[0,0,0,0]}}"#, "epoch"),
            (r#"{"type":"subscribe","id":1,"link":"a","since":{"epoch":"1","next":[0,0,0]}}"#, "next[4]"),
            (r#"{"type":"subscribe","id":1,"link":"a","since":{"epoch":"1","next":[0,0,0,0,0]}}"#, "next[4]"),
            (r#"{"type":"subscribe","id":1,"link":"a","since":{"epoch":"1","next":[0,0.5,0,0]}}"#, "next[4]"),
            (r#"{"type":"subscribe","id":1,"link":"a","since":{"epoch":1,"next":[0,0,0,0]}}"#, "next[4]"),
            (r#"{"type":"subscribe","id":1,"link":"a","since":[]}"#, "next[4]"),
            (r#"{"type":"subscribe","id":4294967296,"link":"a"}"#, "id"),
            (r#"{"type":"send","topic":1,"data":5}"#, "data"),
            (r#"{"type":"send","topic":1,"data":"x","data":5}"#, "data"),
            (r#"{"type":"unsubscribe"}"#, "topic"),
            (r#"{"type":"unsubscribe","topic":7.5}"#, "topic"),
            (r#"{"type":"unsubscribe","topic":-1}"#, "topic"),
            (r#"{"type":"unsubscribe","topic":4294967296}"#, "topic"),
            (r#"{"type":"unsubscribe","topic":1e400}"#, "topic"),
            (r#"{"type":"unsubscribe","topic":"7"}"#, "topic"),
        ] {
            let refusal = decode_request(text).unwrap_err();
            assert!(refusal.contains(word), "{text}: {refusal}");
        }
    }
}
