//! Events: tells the company's API what happened, at least once, in batches.
//!
//! Owns the batch under way: there is one at a time, and it is sent again until it is taken, so
//! events come in order. A batch that is refused for good is dropped, since all others would wait
//! behind it for ever. The machine bounds what waits; what it drops is reported with the next
//! batch. Ids stay the same when a batch is sent again. Doesn't keep events beyond the process.

use std::{sync::Arc, time::Duration};

use hub::{Name, Notice, PageId};
use hyper::{StatusCode, body::Bytes};
use serde::Serialize;
use sharelinkd::date::timestamp_text;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use wire::page::MessageId;

use super::{Endpoints, Hook};

/// Events of one batch, at most.
pub const COUNT_MAX: usize = 100;
/// A batch that isn't full waits this long for more.
const WINDOW: Duration = Duration::from_millis(100);
/// The wait before a batch is sent again: it doubles from the first to the last.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Sends what the machine tells, for ever.
pub async fn serve(hook: Arc<Hook>, mut endpoint: Endpoints, mut notices: mpsc::Receiver<Notice>) {
    // Events that no batch told of: those that the machine dropped, and those of refused batches.
    let (mut refused, mut told) = (0, 0);
    while let Some(batch) = gather(&mut notices).await {
        // The machine may have more, and room for them now.
        hook.shared.change(|_, _| ());
        let dropped = hook.shared.read(|hub, _, _| hub.notices_dropped()) + refused;
        let count = batch.len() as u64;
        let messages: Vec<(Name, MessageId)> = batch.iter().filter_map(message).collect();
        let body = body(&hook, batch, dropped.saturating_sub(told));
        let delivery = deliver(&hook, &mut endpoint, body.into()).await;
        match delivery {
            Delivery::Taken => told = dropped,
            Delivery::Refused => refused += count,
            // Nobody wants them, so none of them is missing.
            Delivery::Unwanted => told = dropped,
        }
        hook.shared.change(|hub, _| {
            for (topic, id) in &messages {
                if delivery == Delivery::Taken { hub.confirm(topic, id) } else { hub.forget_message(topic, id) }
            }
        });
    }
}

/// A page's message that wants to be confirmed.
fn message(notice: &Notice) -> Option<(Name, MessageId)> {
    match notice {
        Notice::PageMessage { topic, id, .. } => id.map(|id| (topic.clone(), id)),
        _ => None,
    }
}

/// The next batch; `None` if there will be none.
async fn gather(notices: &mut mpsc::Receiver<Notice>) -> Option<Vec<Notice>> {
    let mut batch = vec![notices.recv().await?];
    let more = async {
        while batch.len() < COUNT_MAX
            && let Some(notice) = notices.recv().await
        {
            batch.push(notice);
        }
    };
    // What was received before the time was over is in the batch.
    let _ = timeout(WINDOW, more).await;
    Some(batch)
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
enum Delivery {
    Taken,
    Refused,
    /// Events are not configured.
    Unwanted,
}

async fn deliver(hook: &Hook, endpoints: &mut Endpoints, body: Bytes) -> Delivery {
    let id = hook.ids.next("msg");
    let mut wait = WAIT_MIN;
    loop {
        let Some(endpoint) = endpoints.current().filter(|endpoint| endpoint.settings.events) else {
            return Delivery::Unwanted;
        };
        let why = match hook.post(&endpoint, &id, body.clone()).await {
            Ok(answer) if answer.status.is_success() => return Delivery::Taken,
            Ok(answer) if is_final(answer.status) => {
                let what =
                    format!("events were dropped: it answered {}, which says not to send them again", answer.status);
                hook.complain(&what, &format!(" (at {})", endpoint.client.url()));
                return Delivery::Refused;
            }
            Ok(answer) => format!("it answered {}", answer.status),
            Err(failure) => failure.to_string(),
        };
        let example = format!(" (at {}, next in {} s)", endpoint.client.url(), wait.as_secs());
        hook.complain(&format!("events wait: {why}"), &example);
        tokio::select! {
            () = sleep(wait) => {}
            // The new settings may be what was missing.
            () = endpoints.changed() => {}
        }
        wait = wait.saturating_mul(2).min(WAIT_MAX);
    }
}

/// Whether a batch must not be sent again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// A batch as JSON.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: String,
    data: Data,
}

#[derive(Serialize)]
struct Data {
    events: Vec<Event>,
    /// Events that were lost before these.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
}

#[derive(Serialize)]
struct Event {
    id: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum What {
    #[serde(rename = "page.message")]
    PageMessage {
        topic: String,
        page: String,
        data: String,
        author: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    #[serde(rename = "topic.occupied")]
    Occupied { topic: String },
    #[serde(rename = "topic.vacated")]
    Vacated { topic: String },
    #[serde(rename = "topic.audience")]
    Audience { topic: String, pages: u64 },
    #[serde(rename = "stream.started")]
    StreamStarted { topic: String, track: &'static str },
    #[serde(rename = "stream.ended")]
    StreamEnded { topic: String, track: &'static str },
}

impl From<Notice> for What {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::PageMessage { topic, relay, connection, page, data, author, id } => {
                let page = PageId { connection, page, relay }.to_string();
                let message_id = id.map(|id| digits(&id));
                Self::PageMessage { topic: topic.to_string(), page, data, author: digits(&author), message_id }
            }
            Notice::Occupied { topic } => Self::Occupied { topic: topic.to_string() },
            Notice::Vacated { topic } => Self::Vacated { topic: topic.to_string() },
            Notice::Audience { topic, pages } => Self::Audience { topic: topic.to_string(), pages },
            Notice::StreamStarted { topic, track } => {
                Self::StreamStarted { topic: topic.to_string(), track: track.name() }
            }
            Notice::StreamEnded { topic, track } => Self::StreamEnded { topic: topic.to_string(), track: track.name() },
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body(hook: &Hook, batch: Vec<Notice>, dropped: u64) -> Vec<u8> {
    let event = |notice: Notice| Event { id: hook.ids.next("evt"), what: notice.into() };
    let data = Data { events: batch.into_iter().map(event).collect(), dropped: (dropped > 0).then_some(dropped) };
    let timestamp = timestamp_text(hook.shared.moment().unix_us);
    // Texts and numbers always have a JSON.
    serde_json::to_vec(&Body { r#type: "events", timestamp, data }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_these_events() {
        let topic = || hub::Name::new("room-7").unwrap();
        let (relay, data) = ("box-1".to_owned(), "hello".to_owned());
        let (author, id) = (*b"author-7", Some(*b"message of a day"));
        let notices = [
            Notice::Occupied { topic: topic() },
            Notice::Audience { topic: topic(), pages: 12 },
            Notice::PageMessage { topic: topic(), relay, connection: 3, page: 17, data, author, id },
            Notice::Vacated { topic: topic() },
            Notice::StreamStarted { topic: topic(), track: wire::Track::Video },
            Notice::StreamEnded { topic: topic(), track: wire::Track::Video },
        ];
        let document = include_str!("../../../docs/webhooks.md").replace(char::is_whitespace, "");
        for (number, notice) in (7..).zip(notices) {
            let event = Event { id: format!("evt_9f86d081884c7d65_{number}"), what: notice.into() };
            let text = serde_json::to_string(&event).unwrap();
            assert!(document.contains(&text), "{text}");
        }
    }

    #[test]
    fn only_a_clear_no_is_final() {
        for (code, expected) in [
            (400, true),
            (401, true),
            (404, true),
            (410, true),
            (422, true),
            (408, false),
            (429, false),
            (301, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(is_final(StatusCode::from_u16(code).unwrap()), expected, "{code}");
        }
    }
}
