//! `subscribe`: asks the company's API who may watch.
//!
//! Owns the calls under way. Each question of the machine is answered exactly once, whatever
//! becomes of its call. What isn't a clear yes or no is no answer, and the log says what was wrong.
//! Strict: an unknown field may be a misspelt restriction. Doesn't remember anything and retries
//! nothing: the machine does.

use std::{fmt, sync::Arc};

use hub::{
    Name,
    admission::{QuestionId, Subscribe, Verdict},
};
use hyper::StatusCode;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value, error::Category};
use sharelinkd::date::timestamp_text;
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet};
use wire::{REASON_SIZE_MAX, uplink::Grant};

use super::{Endpoint, Endpoints, Hook, client::Answer};
use crate::shared::Shared;

/// What is granted where the answer doesn't say.
const DEFAULT: Grant = Grant { shared: true, ttl_s: 300, page_messages: false, replay: 50 };
/// The time to live of a grant, in seconds, at most: after a day it is asked again.
const TTL_S_MAX: u32 = 86_400;
/// For viewers, where the answer gives no reason.
const REFUSED: &str = "this link was refused";
/// The part of an unknown field's name that the log shows, in bytes.
const FIELD_SIZE_MAX: usize = 32;

/// Asks what the machine wants to know, for ever.
pub async fn serve(
    hook: Arc<Hook>,
    mut endpoints: Endpoints,
    mut questions: UnboundedReceiver<(QuestionId, Subscribe)>,
) {
    // The machine bounds how many there are. They end with this function.
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some((id, subscribe)) = question else { return };
                let asked = Asked { shared: Arc::clone(&hook.shared), id, verdict: Verdict::NoAnswer };
                match endpoints.current() {
                    None => hook.complain("nobody can be admitted: there is none in the configuration", ""),
                    Some(endpoint) => {
                        calls.spawn(ask(Arc::clone(&hook), endpoint, asked, subscribe));
                    }
                }
            }
            Some(_) = calls.join_next() => {}
        }
    }
}

/// An open question. It is answered when this is dropped.
struct Asked {
    shared: Arc<Shared>,
    id: QuestionId,
    verdict: Verdict,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let verdict = core::mem::replace(&mut self.verdict, Verdict::NoAnswer);
        self.shared.answer(self.id, verdict);
    }
}

async fn ask(hook: Arc<Hook>, endpoint: Arc<Endpoint>, mut asked: Asked, subscribe: Subscribe) {
    let body = body(&subscribe, hook.shared.moment().unix_us);
    let id = hook.ids.next("sub");
    let answer = hook.post(&endpoint, &id, body.into()).await;
    let verdict = answer.map_err(|failure| failure.to_string()).and_then(verdict);
    match verdict {
        Ok(verdict) => asked.verdict = verdict,
        Err(why) => {
            let example = format!(" (link {} at {})", hub::shown(&subscribe.link), endpoint.client.url());
            hook.complain(&format!("subscribe has no answer: {why}"), &example);
        }
    }
}

/// A question as JSON.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    link: &'a str,
    page: Option<Page<'a>>,
}

#[derive(Serialize)]
struct Page<'a> {
    address: &'a str,
    origin: &'a str,
}

fn body(subscribe: &Subscribe, unix_us: u64) -> Vec<u8> {
    let page = subscribe.page.as_ref().map(|(address, origin)| Page { address, origin });
    let data = Data { link: &subscribe.link, page };
    // Texts always have a JSON.
    serde_json::to_vec(&Body { r#type: "subscribe", timestamp: &timestamp_text(unix_us), data }).unwrap_or_default()
}

/// What an answer means.
///
/// # Errors
/// Why it is none.
fn verdict(answer: Answer) -> Result<Verdict, String> {
    let status = answer.status;
    if status.is_redirection() {
        return Err(format!(
            "it answered {status}, and redirects are not followed: configure the URL that it leads to"
        ));
    }
    if status != StatusCode::OK {
        return Err(format!("it answered {status}: both yes and no are 200, with \"accept\" in the body"));
    }
    let body = answer.body.map_err(|failure| failure.to_string())?;
    match serde_json::from_slice(&body) {
        Ok(Fields(fields)) => of_fields(&fields),
        Err(error) if error.classify() == Category::Data => {
            Err("its answer is not a JSON object, or has a field twice".to_owned())
        }
        // Not serde's own words: they may quote the answer.
        Err(error) => Err(format!("its answer is not JSON (line {}, column {})", error.line(), error.column())),
    }
}

/// A JSON object, each of whose fields comes once: of two that differ, nobody knows which is meant.
struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field comes twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn of_fields(fields: &Map<String, Value>) -> Result<Verdict, String> {
    const KNOWN: [&str; 7] = ["accept", "topic", "shared", "ttl_s", "replay", "page_messages", "reason"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        let shown = business::cut(unknown, FIELD_SIZE_MAX);
        return Err(format!("its answer has the unknown field {shown:?}; known are {}", KNOWN.join(", ")));
    }
    let field = |name| fields.get(name).filter(|value| !value.is_null());
    let flag = |name, otherwise| match field(name) {
        None => Ok(otherwise),
        Some(value) => value.as_bool().ok_or_else(|| format!("its answer's {name:?} is neither true nor false")),
    };
    let number = |name, otherwise: u32, least: u32, most: u32| match field(name) {
        None => Ok(otherwise),
        Some(value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| format!("its answer's {name:?} is not a whole number from {least} to {most}"))
        }
    };
    let Some(accept) = field("accept").and_then(Value::as_bool) else {
        return Err("its answer has no \"accept\" that is true or false".to_owned());
    };
    if !accept {
        return match field("reason").map(Value::as_str) {
            None | Some(Some("")) => Ok(Verdict::Deny(REFUSED.into())),
            Some(Some(reason)) => Ok(Verdict::Deny(business::cut(reason, REASON_SIZE_MAX).into())),
            Some(None) => Err("its answer's \"reason\" is not a text".to_owned()),
        };
    }
    let topic = field("topic").and_then(Value::as_str).and_then(Name::new);
    let Some(topic) = topic else {
        return Err("its answer has no \"topic\" of 1 to 64 of A-Z a-z 0-9 - _ . ~ : /".to_owned());
    };
    let replay = number("replay", u32::from(DEFAULT.replay), 0, u32::from(u16::MAX))?;
    let grant = Grant {
        shared: flag("shared", DEFAULT.shared)?,
        ttl_s: number("ttl_s", DEFAULT.ttl_s, 1, TTL_S_MAX)?,
        page_messages: flag("page_messages", DEFAULT.page_messages)?,
        replay: u16::try_from(replay).unwrap_or(DEFAULT.replay),
    };
    Ok(Verdict::Accept(topic, grant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::client::Failure;

    fn of(text: &str) -> Result<Verdict, String> {
        verdict(Answer { status: StatusCode::OK, body: Ok(text.as_bytes().to_vec()) })
    }

    #[test]
    fn a_question_is_as_the_documents_say() {
        let text = |page| {
            let subscribe = Subscribe { link: "abc".into(), page };
            String::from_utf8(body(&subscribe, 1_767_225_599_123_456)).unwrap()
        };
        let head = r#"{"type":"subscribe","timestamp":"2025-12-31T23:59:59.123Z","data":{"link":"abc","page":"#;
        assert_eq!(text(None), format!("{head}null}}}}"));
        let page = r#"{"address":"2001:db8::1","origin":"https://a.example"}"#;
        assert_eq!(text(Some(("2001:db8::1".into(), "https://a.example".into()))), format!("{head}{page}}}}}"));
    }

    #[test]
    fn yes_and_no_are_understood() {
        let room = || Name::new("room-7").unwrap();
        assert_eq!(of(r#"{"accept":true,"topic":"room-7"}"#), Ok(Verdict::Accept(room(), DEFAULT)));
        let all = r#"{"accept":true,"topic":"room-7","shared":false,"ttl_s":86400,"replay":65535,"page_messages":true,"reason":null}"#;
        let grant = Grant { shared: false, ttl_s: 86_400, page_messages: true, replay: 65_535 };
        assert_eq!(of(all), Ok(Verdict::Accept(room(), grant)));
        assert_eq!(of(r#"{"accept":false}"#), Ok(Verdict::Deny(REFUSED.into())));
        assert_eq!(of(r#" {"reason":"closed", "accept":false} "#), Ok(Verdict::Deny("closed".into())));
        let long = format!(r#"{{"accept":false,"reason":"{}"}}"#, "ü".repeat(200));
        assert_eq!(of(&long), Ok(Verdict::Deny("ü".repeat(128).into())));
    }

    #[test]
    fn the_document_has_these_answers_and_defaults() {
        let document = include_str!("../../../docs/webhooks.md");
        let blocks = document.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
        let answers: Vec<_> = blocks.filter(|block| block.contains("\"accept\"")).map(of).collect();
        let grant = Grant { page_messages: true, ..DEFAULT };
        let accept = Verdict::Accept(Name::new("room-7").unwrap(), grant);
        assert_eq!(answers, [Ok(accept), Ok(Verdict::Deny("This link has expired.".into()))]);
        for (field, default) in [
            ("shared", format!("`{}`", DEFAULT.shared)),
            ("ttl_s", DEFAULT.ttl_s.to_string()),
            ("replay", DEFAULT.replay.to_string()),
            ("page_messages", format!("`{}`", DEFAULT.page_messages)),
        ] {
            assert!(document.contains(&format!("| `{field}` | {default} |")), "{field}");
        }
    }

    #[test]
    fn everything_else_is_no_answer_and_quotes_nothing() {
        for bad in [
            "",
            "s3cret",
            "<html>s3cret",
            "[]",
            "null",
            "true",
            "\"s3cret\"",
            "{}",
            r#"{"accept":"s3cret"}"#,
            r#"{"accept":1}"#,
            r#"{"accept":true}"#,
            r#"{"accept":true,"topic":null}"#,
            r#"{"accept":true,"topic":""}"#,
            r#"{"accept":true,"topic":"s3cret room"}"#,
            r#"{"accept":true,"topic":7}"#,
            r#"{"accept":true,"topic":"a","shared":"s3cret"}"#,
            r#"{"accept":true,"topic":"a","share":false}"#,
            r#"{"accept":false,"accept":true,"topic":"a"}"#,
            r#"{"accept":true,"topic":"a","shared":false,"shared":true}"#,
            r#"{"accept":true,"topic":"a","ttl_s":0}"#,
            r#"{"accept":true,"topic":"a","ttl_s":86401}"#,
            r#"{"accept":true,"topic":"a","ttl_s":-1}"#,
            r#"{"accept":true,"topic":"a","ttl_s":4294967596}"#,
            r#"{"accept":true,"topic":"a","ttl_s":"300"}"#,
            r#"{"accept":true,"topic":"a","ttl_s":1.5}"#,
            r#"{"accept":true,"topic":"a","replay":65536}"#,
            r#"{"accept":true,"topic":"a","replay":true}"#,
            r#"{"accept":true,"topic":"a","page_messages":0}"#,
            r#"{"accept":false,"reason":7}"#,
            r#"{"accept":true,"topic":"a"} s3cret"#,
            r#"{"accept":true,"topic":"a""#,
        ] {
            let why = of(bad).expect_err(bad);
            assert!(!why.contains("s3cret"), "{why}");
        }
        for status in [201, 202, 204, 301, 307, 400, 401, 403, 404, 410, 429, 500, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            let body = Ok(br#"{"accept":true,"topic":"a"}"#.to_vec());
            assert!(verdict(Answer { status, body }).unwrap_err().contains(status.as_str()));
        }
        let cut_off = Answer { status: StatusCode::OK, body: Err(Failure::Size) };
        assert_eq!(verdict(cut_off), Err("its answer has more than 64 KiB".to_owned()));
    }
}
