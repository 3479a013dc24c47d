//! A notice by value: all that is needed to encode it again.
//!
//! When a full socket cuts a notice in the middle, its bytes are not kept. The page's row holds the
//! notice itself and encodes it again, which gives the same bytes. So there is no pool of half-sent
//! notices that could fill up, and one page's half notice costs other pages nothing. Owns nothing
//! but a reference to a shared reason while it is held in a row. The encoding is in `wire/page.rs`.

use heapless::Vec;

use super::{
    receipts::Receipt,
    texts::{Reason, Texts},
};
use wire::{
    Track,
    page::{MessageId, NOTICE_SIZE_MAX, Notice, Standing},
};

/// What a page receives besides publications; each is a [`Notice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `wire::page::Notice`")]
pub enum OwnNotice {
    Subscribed { id: u32, topic: u32, epoch: u64, page_messages: bool, standing: Standing },
    Denied { id: u32, reason: Reason, retry_ms: Option<u32> },
    Gap { topic: u32, track: Track, from: u64, to: u64 },
    Epoch { topic: u32, epoch: u64 },
    End { topic: u32, reason: Reason },
    Uplink { standing: Option<Standing> },
    Alive,
    Receipt { id: MessageId, receipt: Receipt },
    Error { reason: &'static str },
    Ping,
}

impl OwnNotice {
    /// The notice as a whole WebSocket frame: always the same bytes while its reason is in use.
    #[must_use]
    pub fn encode(&self, reasons: &Texts) -> Vec<u8, NOTICE_SIZE_MAX> {
        let notice = match *self {
            Self::Subscribed { id, topic, epoch, page_messages, standing } => {
                Notice::Subscribed { id, topic, epoch, page_messages, standing: Some(standing) }
            }
            Self::Denied { id, reason, retry_ms } => Notice::Denied { id, reason: reasons.reason(reason), retry_ms },
            Self::Gap { topic, track, from, to } => Notice::Gap { topic, track, from, to },
            Self::Epoch { topic, epoch } => Notice::Epoch { topic, epoch },
            Self::End { topic, reason } => Notice::End { topic, reason: reasons.reason(reason) },
            Self::Uplink { standing } => Notice::Uplink { up: standing.is_some(), standing },
            Self::Alive => Notice::Alive,
            Self::Receipt { id, receipt: Receipt::Sent } => Notice::Sent { id },
            Self::Receipt { id, receipt: Receipt::Unsent(why) } => Notice::Error { reason: why.reason(), id: Some(id) },
            Self::Error { reason } => Notice::Error { reason, id: None },
            Self::Ping => Notice::Ping,
        };
        notice.encode()
    }

    /// Its reason, if it has one.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Denied { reason, .. } | Self::End { reason, .. } => Some(*reason),
            _ => None,
        }
    }
}
