//! What Pusher's server libraries send: reads `POST /apps/{id}/events` and `/batch_events` into
//! publications.
//!
//! Owns the check of the signature (key and secret of its own, HMAC-SHA256 over method, path and
//! sorted query, MD5 of the body, a timestamp within 600 s) and what an event becomes: a message
//! `{"event","data"}` on the topic with the channel's name. Refuses what has no meaning here, with
//! the reason: `socket_id`, encrypted channels, names that are no topic's. All of a request is
//! taken, or nothing. Pure: the time is an argument, and `apps.rs` publishes.

use core::{fmt, marker::PhantomData};
use std::{collections::BTreeMap, sync::Arc};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hub::Name;
use md5::{Digest as _, Md5};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// How far a request's time may be from ours, in seconds: what Pusher allows.
const TIME_S_MAX: u64 = 600;
/// Channels of one event (Pusher's own limit), and events of one batch (Pusher's is 10).
const CHANNELS_MAX: usize = 100;
const BATCH_MAX: usize = 100;
/// An event's name, in bytes: Pusher's own limit.
const EVENT_SIZE_MAX: usize = 200;
/// The part of what was signed that a refusal shows, in bytes.
const SHOWN_SIZE_MAX: usize = 500;

/// An app, as Pusher's libraries are configured with it. Printed, it shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct App {
    /// `app_id`: in the path.
    pub id: String,
    /// `key`: it names the secret, and is public.
    pub key: String,
    /// `secret`: one, or two during a change.
    pub secrets: Vec<Vec<u8>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

/// A request without its body, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, as it came: it is signed.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: &'a str,
}

/// A request whose sender has the app's secret. Its body is still to come.
#[derive(Debug)]
pub struct Signed {
    door: Door,
    /// The MD5 of the body, in hexadecimal digits.
    body_md5: String,
}

/// What is to be published: a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// On which topic.
    pub topic: Name,
    /// JSON: what pages get.
    pub data: Arc<[u8]>,
}

/// Why a request is refused. As Pusher does, the text alone is the answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// What is wrong, and how to mend it.
    pub text: String,
}

/// Which of the two doors a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Events,
    BatchEvents,
}

/// Verifies a request, before its body is read.
///
/// # Errors
/// The answer to be given.
pub fn verify(app: &App, head: &Head<'_>, now_s: u64) -> Result<Signed, Refusal> {
    let door = door(app, head)?;
    Ok(Signed { door, body_md5: signed_md5(app, head, now_s)? })
}

impl Signed {
    /// Reads the body. `size_max` limits each message, in bytes.
    ///
    /// # Errors
    /// The answer to be given.
    pub fn read(&self, body: &[u8], size_max: usize) -> Result<Vec<Publication>, Refusal> {
        if self.body_md5 != hex(&Md5::digest(body)) {
            return refuse(401, "body_md5 is not the MD5 of the body");
        }
        if self.door == Door::Events {
            return parse::<Event<'_>>(body)?.publications(size_max);
        }
        let Batch { batch } = parse(body)?;
        if !(1..=BATCH_MAX).contains(&batch.count) {
            return refuse(400, format!("a batch has 1 to {BATCH_MAX} events, this one has {}", batch.count));
        }
        let mut all = Vec::new();
        for (place, event) in batch.first.iter().enumerate() {
            if event.channels.is_some() {
                return refuse(400, format!("event {place} of the batch has \"channels\": write one \"channel\""));
            }
            let publications = event.publications(size_max);
            all.extend(publications.map_err(|Refusal { status, text }| Refusal {
                status,
                text: format!("event {place} of the batch: {text}"),
            })?);
        }
        Ok(all)
    }
}

fn refuse<T>(status: u16, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, text: text.into() })
}

fn door(app: &App, head: &Head<'_>) -> Result<Door, Refusal> {
    let parts = head.path.strip_prefix("/apps/").and_then(|rest| rest.split_once('/'));
    let door = match parts {
        Some((id, _)) if id != app.id => return refuse(404, "there is no app with this app_id"),
        Some((_, "events")) => Door::Events,
        Some((_, "batch_events")) => Door::BatchEvents,
        _ => {
            return refuse(
                404,
                "of Pusher's API, only /apps/{app_id}/events and /batch_events are here: use the hub's own, /v1, for the rest",
            );
        }
    };
    if head.method == "POST" { Ok(door) } else { refuse(405, "this is for POST alone") }
}

/// Checks that the request was signed with one of the app's secrets, not long ago. Returns the MD5
/// that was signed.
fn signed_md5(app: &App, head: &Head<'_>, now_s: u64) -> Result<String, Refusal> {
    let query = parameters(head.query)?;
    let parameter = |name: &str| match query.get(name) {
        Some(value) => Ok(value.as_str()),
        None => refuse(401, format!("the query has no {name}: sign the request as Pusher's libraries do")),
    };
    if !bool::from(parameter("auth_key")?.as_bytes().ct_eq(app.key.as_bytes())) {
        return refuse(401, "auth_key is not the key of this app");
    }
    if parameter("auth_version")? != "1.0" {
        return refuse(401, "auth_version is not 1.0");
    }
    let signed = query.iter().filter(|(name, _)| *name != "auth_signature");
    let pairs: Vec<String> = signed.map(|(name, value)| format!("{name}={value}")).collect();
    let signed = format!("{}\n{}\n{}", head.method, head.path, pairs.join("&"));
    let signature = parameter("auth_signature")?;
    if !app.secrets.iter().any(|secret| is_signed(secret, &signed, signature)) {
        let shown = business::cut(&signed, SHOWN_SIZE_MAX);
        return refuse(401, format!("auth_signature is not that of {shown:?} with this app's secret"));
    }
    // What follows is known to come from who has the secret.
    let Ok(at_s) = parameter("auth_timestamp")?.parse::<u64>() else {
        return refuse(401, "auth_timestamp is not a number of seconds since 1970");
    };
    if at_s.abs_diff(now_s) > TIME_S_MAX {
        let text =
            format!("auth_timestamp is {at_s}, and here it is {now_s}: more than {TIME_S_MAX} s apart; set the clocks");
        return refuse(401, text);
    }
    parameter("body_md5").map(str::to_owned)
}

fn is_signed(secret: &[u8], signed: &str, signature: &str) -> bool {
    // It takes keys of any length, so there is no error.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
    mac.update(signed.as_bytes());
    let expected = hex(&mac.finalize().into_bytes());
    expected.as_bytes().ct_eq(signature.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parameters of a query, decoded, by name in lower case.
fn parameters(query: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut all = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
            return refuse(400, "the query is not percent-encoded UTF-8");
        };
        if all.insert(name.to_ascii_lowercase(), value).is_some() {
            return refuse(400, "the query has a parameter twice");
        }
    }
    Ok(all)
}

/// Undoes percent-encoding. `None` if it is none, or not of UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// An event, as Pusher has it. Fields that are not known here are ignored, as Pusher does.
#[derive(Deserialize)]
struct Event<'a> {
    name: String,
    #[serde(borrow)]
    data: &'a RawValue,
    channel: Option<String>,
    channels: Option<First<String, CHANNELS_MAX>>,
    socket_id: Option<String>,
    info: Option<String>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    batch: First<Event<'a>, BATCH_MAX>,
}

/// The first items of a list, at most `MAX`, and how many it has: one of millions costs no memory.
struct First<T, const MAX: usize> {
    first: Vec<T>,
    count: usize,
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for First<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = First<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut first, mut count) = (Vec::new(), 0);
                while first.len() < MAX
                    && let Some(item) = list.next_element()?
                {
                    first.push(item);
                    count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(First { first, count })
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(error) => refuse(400, format!("the body is not what Pusher's libraries send: {error}")),
    }
}

impl Event<'_> {
    fn publications(&self, size_max: usize) -> Result<Vec<Publication>, Refusal> {
        let Self { name, channel, channels, socket_id, info, .. } = self;
        if !(1..=EVENT_SIZE_MAX).contains(&name.len()) {
            return refuse(
                400,
                format!("an event's name has 1 to {EVENT_SIZE_MAX} bytes, this one has {}", name.len()),
            );
        }
        if socket_id.as_ref().is_some_and(|id| !id.is_empty()) {
            let text = "\"socket_id\" excludes a viewer, and viewers have none here: send without it (Laravel: without toOthers())";
            return refuse(400, text);
        }
        if info.as_ref().is_some_and(|info| !info.is_empty()) {
            return refuse(400, "\"info\" is not here: ask GET /v1/topics/{topic} for the audience");
        }
        let (channels, count) = match (channel, channels) {
            (Some(channel), None) => (std::slice::from_ref(channel), 1),
            (None, Some(channels)) => (channels.first.as_slice(), channels.count),
            _ => return refuse(400, "an event has either \"channel\" or \"channels\""),
        };
        if !(1..=CHANNELS_MAX).contains(&count) {
            return refuse(400, format!("an event has 1 to {CHANNELS_MAX} channels, this one has {count}"));
        }
        let data: Arc<[u8]> = self.message()?.into();
        if data.len() > size_max {
            let text = format!("the event's message has {} bytes, and at most {size_max} are possible", data.len());
            return refuse(413, text);
        }
        let mut publications: Vec<Publication> = Vec::with_capacity(channels.len());
        for channel in channels {
            let topic = topic(channel)?;
            // An event comes once on a channel, however often that is named.
            if publications.iter().all(|other| other.topic != topic) {
                publications.push(Publication { topic, data: Arc::clone(&data) });
            }
        }
        Ok(publications)
    }

    /// What pages get: `data` as JSON where it is some, else as a string.
    fn message(&self) -> Result<Vec<u8>, Refusal> {
        let raw = self.data.get();
        let text = serde_json::from_str::<String>(raw);
        // Libraries encode an object as JSON, and send that as a string.
        let inner = text.as_ref().map_or(raw, |text| text.trim_ascii());
        // A text always has a JSON.
        let name = serde_json::to_string(&self.name).unwrap_or_default();
        let with = |data: &str| format!("{{\"event\":{name},\"data\":{data}}}").into_bytes();
        let parsed = with(inner);
        // As a whole: what is nested as deeply as possible has no room for one level more.
        let is_value = wire::json::is_value(inner.as_bytes()) && wire::json::is_value(&parsed);
        if is_value {
            return Ok(parsed);
        }
        let plain = with(raw);
        if wire::json::is_value(&plain) {
            return Ok(plain);
        }
        refuse(
            400,
            format!("\"data\" is no JSON that pages can be sent: at most {} levels deep", wire::json::DEPTH_MAX - 1),
        )
    }
}

fn topic(channel: &str) -> Result<Name, Refusal> {
    let shown = business::cut(channel, hub::NAME_SIZE_MAX);
    if channel.starts_with("private-encrypted-") {
        let text =
            format!("{shown:?}: encrypted channels need keys that viewers don't have: use one without encryption");
        return refuse(400, text);
    }
    if channel.starts_with("#server-to-user-") {
        return refuse(400, format!("{shown:?}: users are not known here: publish on a channel that the user watches"));
    }
    let Some(name) = Name::new(channel) else {
        return refuse(400, format!("{shown:?} can't be a topic: that has 1 to 64 of A-Z a-z 0-9 - _ . ~ : /"));
    };
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE_MAX: usize = 16 * 1024;
    const NOW_S: u64 = 1_353_088_179;

    fn app() -> App {
        let secrets = vec![b"7ad3773142a6692b25b8".to_vec()];
        App { id: "3".to_owned(), key: "278d425bdf160c739803".to_owned(), secrets }
    }

    #[derive(Clone, Copy)]
    struct Request<'a> {
        method: &'a str,
        path: &'a str,
        query: &'a str,
        body: &'a [u8],
    }

    fn read(app: &App, request: &Request<'_>, now_s: u64, size_max: usize) -> Result<Vec<Publication>, Refusal> {
        let Request { method, path, query, body } = *request;
        verify(app, &Head { method, path, query }, now_s)?.read(body, size_max)
    }

    /// The example in Pusher's reference of its HTTP API.
    const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
        &body_md5=ec365a775a4cd0599faeb73354201b6f\
        &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    const REQUEST: Request<'_> =
        Request { method: "POST", path: "/apps/3/events", query: QUERY, body: BODY.as_bytes() };

    impl App {
        /// The query of a request that is signed as it must be.
        pub fn query(&self, method: &str, path: &str, body: &[u8], now_s: u64) -> String {
            let md5 = hex(&Md5::digest(body));
            let query = format!("auth_key={}&auth_timestamp={now_s}&auth_version=1.0&body_md5={md5}", self.key);
            let mut mac = Hmac::<Sha256>::new_from_slice(&self.secrets[0]).unwrap();
            mac.update(format!("{method}\n{path}\n{query}").as_bytes());
            format!("{query}&auth_signature={}", hex(&mac.finalize().into_bytes()))
        }
    }

    /// Reads a body that is signed as it must be.
    fn signed(path: &str, body: &str) -> Result<Vec<Publication>, Refusal> {
        let query = app().query("POST", path, body.as_bytes(), NOW_S);
        read(&app(), &Request { method: "POST", path, query: &query, body: body.as_bytes() }, NOW_S, SIZE_MAX)
    }

    fn event(body: &str) -> Result<Vec<Publication>, Refusal> {
        signed("/apps/3/events", body)
    }

    fn shown(publications: &[Publication]) -> Vec<String> {
        let show =
            |Publication { topic, data }: &Publication| format!("{topic} {}", core::str::from_utf8(data).unwrap());
        publications.iter().map(show).collect()
    }

    #[test]
    fn the_example_of_pusher_is_understood() {
        let publications = read(&app(), &REQUEST, NOW_S, SIZE_MAX).unwrap();
        assert_eq!(shown(&publications), [r#"project-3 {"event":"foo","data":{"some":"data"}}"#]);
    }

    #[test]
    fn what_the_libraries_send_is_understood() {
        let app = App { id: "3".to_owned(), key: "key".to_owned(), secrets: vec![b"s3cret".to_vec()] };
        let recorded: Vec<BTreeMap<String, String>> =
            serde_json::from_str(include_str!("../../testdata/pusher.json")).unwrap();
        let mut all = Vec::new();
        for request in &recorded {
            let query = &request["query"];
            let now_s = query.split("auth_timestamp=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
            let (path, body) = (&request["path"], request["body"].as_bytes());
            let request = Request { method: "POST", path, query, body };
            all.extend(shown(&read(&app, &request, now_s, SIZE_MAX).unwrap()));
            for (path, query, body) in [
                (&*path.replace("events", "events/"), &**query, body),
                (path, &query.replace("auth_version", "AUTH_VERSION").replace("1.0", "1.00"), body),
                (path, query, b"{}"),
            ] {
                let changed = Request { path, query, body, ..request };
                assert!(matches!(read(&app, &changed, now_s, SIZE_MAX).unwrap_err().status, 401 | 404));
            }
        }
        // Both libraries write an object in their own way; pages get what was sent.
        let compact = |text: &String| text.replace("\": ", "\":");
        let expected = [
            r#"room-1 {"event":"greeting","data":{"text":"Grüße & mehr"}}"#,
            r#"room-1 {"event":"plain","data":"not JSON"}"#,
            r#"app_room-2 {"event":"plain","data":"not JSON"}"#,
            r#"a {"event":"one","data":{"n":1}}"#,
            r#"b {"event":"two","data":"x"}"#,
        ];
        assert_eq!(all.iter().map(compact).collect::<Vec<_>>(), [expected, expected].concat());
    }

    #[test]
    fn who_has_no_secret_or_comes_late_is_refused() {
        let status =
            |request: &Request<'_>, now_s| read(&app(), request, now_s, SIZE_MAX).map_err(|refusal| refusal.status);
        for now_s in [NOW_S - TIME_S_MAX, NOW_S + TIME_S_MAX] {
            assert!(status(&REQUEST, now_s).is_ok());
        }
        for now_s in [NOW_S - TIME_S_MAX - 1, NOW_S + TIME_S_MAX + 1, 0, u64::MAX] {
            assert_eq!(status(&REQUEST, now_s), Err(401), "{now_s}");
        }
        for (from, to) in [
            ("278d", "278e"),
            ("7e6c", "7e6d"),
            ("7e6c", ""),
            ("auth_signature", "signature"),
            ("1353088179", "1353088180"),
            ("auth_version=1.0", "auth_version=2.0"),
            ("ec36", "ec37"),
            ("auth_key=278d425bdf160c739803&", ""),
            ("&auth_timestamp=1353088179", ""),
            ("&body_md5=ec365a775a4cd0599faeb73354201b6f", ""),
            ("auth_version=1.0", "auth_version=1.0&more=1"),
        ] {
            let query = QUERY.replace(from, to);
            assert_eq!(status(&Request { query: &query, ..REQUEST }, NOW_S), Err(401), "{from} -> {to}");
        }
        let refusal = |request: &Request<'_>| read(&app(), request, NOW_S, SIZE_MAX).unwrap_err();
        assert_eq!(refusal(&Request { body: b"{}", ..REQUEST }).status, 401);
        let twice = format!("{QUERY}&auth_key=278d425bdf160c739803");
        assert_eq!(refusal(&Request { query: &twice, ..REQUEST }).status, 400);
        assert_eq!(refusal(&Request { query: "a=%zz", ..REQUEST }).status, 400);
        assert_eq!(refusal(&Request { method: "GET", ..REQUEST }).status, 405);
        for path in ["/apps/4/events", "/apps/3/channels", "/apps/3", "/apps/3/events/", "/events"] {
            assert_eq!(refusal(&Request { path, ..REQUEST }).status, 404, "{path}");
        }
        let other = App { secrets: vec![b"another".to_vec()], ..app() };
        let refusal = read(&other, &REQUEST, NOW_S, SIZE_MAX).unwrap_err();
        assert!(
            refusal.status == 401 && !refusal.text.contains("another") && !format!("{other:?}").contains("another")
        );
        let both = App { secrets: [other.secrets, app().secrets].concat(), ..app() };
        assert!(read(&both, &REQUEST, NOW_S, SIZE_MAX).is_ok());
    }

    #[test]
    fn data_is_json_where_it_is_some() {
        let data = |data: &str| {
            let publications = event(&format!(r#"{{"name":"e\"1","channel":"a","data":{data}}}"#)).unwrap();
            let text = shown(&publications).remove(0);
            assert!(wire::json::is_value(&publications[0].data));
            text.strip_prefix(r#"a {"event":"e\"1","data":"#).unwrap().strip_suffix('}').unwrap().to_owned()
        };
        for (sent, got) in [
            (r#""{\"a\":[1]}""#, r#"{"a":[1]}"#),
            (r#"" 17\n""#, "17"),
            (r#""null""#, "null"),
            (r#""\"text\"""#, r#""text""#),
            (r#""text""#, r#""text""#),
            (r#""""#, r#""""#),
            (r#""{\"a\":1}}""#, r#""{\"a\":1}}""#),
            (r#""1,\"x\":2""#, r#""1,\"x\":2""#),
            // What no library sends, and others that speak to Pusher do.
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("17", "17"),
            ("null", "null"),
        ] {
            assert_eq!(data(sent), got, "{sent}");
        }
        // One level more than pages can be sent stays a string.
        // As does what has no JSON without its quotes.
        assert_eq!(data(r#""\ud800""#), r#""\ud800""#);
        let deep = format!("\"{}{}\"", "[".repeat(256), "]".repeat(256));
        assert_eq!(data(&deep), deep);
        let fits = format!("{}{}", "[".repeat(255), "]".repeat(255));
        assert_eq!(data(&format!("\"{fits}\"")), fits);
    }

    #[test]
    fn an_event_comes_once_on_each_channel() {
        let twice = event(r#"{"name":"e","data":"1","channels":["b","a","b"]}"#).unwrap();
        assert_eq!(shown(&twice), [r#"b {"event":"e","data":1}"#, r#"a {"event":"e","data":1}"#]);
    }

    #[test]
    fn what_has_no_meaning_here_is_refused_as_a_whole() {
        let many = |count| format!("[{}]", vec!["\"a\""; count].join(","));
        let of = |fields: &str| format!(r#"{{"name":"e","data":"1",{fields}}}"#);
        assert_eq!(event(&of(&format!(r#""channels":{}"#, many(100)))).unwrap().len(), 1);
        let deep = format!("{}{}", "[".repeat(256), "]".repeat(256));
        assert_eq!(event(&of(r#""channel":"presence-a","socket_id":null,"info":"","future":1"#)).unwrap().len(), 1);
        for (body, status, word) in [
            (of(r#""channel":"a","socket_id":"1.2""#), 400, "socket_id"),
            (of(r#""channel":"a","info":"user_count""#), 400, "info"),
            (of(r#""channels":["a","private-encrypted-b"]"#), 400, "encrypted"),
            (of(r#""channels":["a","b@c"]"#), 400, "b@c"),
            (of(&format!(r#""channel":"{}""#, "x".repeat(65))), 400, "1 to 64"),
            (of(r#""channel":"a","channels":["b"]"#), 400, "either"),
            (of(r#""future":1"#), 400, "either"),
            (of(r#""channels":[]"#), 400, "1 to 100"),
            (of(&format!(r#""channels":{}"#, many(101))), 400, "this one has 101"),
            (r#"{"name":"","data":"1","channel":"a"}"#.to_owned(), 400, "name"),
            (format!(r#"{{"name":"{}","data":"1","channel":"a"}}"#, "x".repeat(201)), 400, "name"),
            (r#"{"name":"e","channel":"a"}"#.to_owned(), 400, "data"),
            (r#"{"name":"e","data":"1","channel":7}"#.to_owned(), 400, "expected a string"),
            (format!(r#"{{"name":"e","data":"{}","channel":"a"}}"#, "x".repeat(SIZE_MAX)), 413, "bytes"),
            (of(r##""channels":["#server-to-user-7"]"##), 400, "users"),
            (format!(r#"{{"name":"e","channel":"a","data":{deep}}}"#), 400, "255 levels"),
            ("nonsense".to_owned(), 400, "body"),
            (String::new(), 400, "body"),
        ] {
            let refusal = event(&body).unwrap_err();
            assert!(refusal.status == status && refusal.text.contains(word), "{body:.80}: {refusal:?}");
        }
    }

    #[test]
    fn a_batch_is_taken_as_a_whole_or_not() {
        let batch = |events: &[&str]| signed("/apps/3/batch_events", &format!(r#"{{"batch":[{}]}}"#, events.join(",")));
        let good = r#"{"channel":"a","name":"e","data":"1"}"#;
        let other = r#"{"channel":"b","name":"f","data":"x"}"#;
        let expected = [r#"a {"event":"e","data":1}"#, r#"b {"event":"f","data":"x"}"#];
        assert_eq!(shown(&batch(&[good, other]).unwrap()), expected);
        let refusal = batch(&[good, r#"{"channel":"private-encrypted-a","name":"e","data":"1"}"#]).unwrap_err();
        assert!(refusal.status == 400 && refusal.text.starts_with("event 1 of the batch: "), "{refusal:?}");
        let refusal = batch(&[r#"{"channels":["a"],"name":"e","data":"1"}"#]).unwrap_err();
        assert!(refusal.text.contains("event 0") && refusal.text.contains("channels"), "{refusal:?}");
        assert!(batch(&[]).is_err() && batch(&[good; 101]).is_err() && batch(&[good; 100]).is_ok());
    }
}
