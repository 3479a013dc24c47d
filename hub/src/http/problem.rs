//! What went wrong with a request: a problem document (RFC 9457).
//!
//! Owns the document's form, and the headers that belong to a status. `detail` says what is wrong,
//! where, and how to mend it; `code` is a word that stays the same, for programs. Documents show no
//! secrets: neither keys nor links.

use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

/// The parts of a longer detail that are shown, in bytes: its beginning, and its end, where the
/// remedy is. What was sent may be quoted in it, and is as large as a body.
const BEGIN_SIZE_MAX: usize = 512;
const END_SIZE_MAX: usize = 128;

/// What went wrong.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    sequence: Option<u64>,
    reason: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// As it is sent.
#[derive(Debug, Serialize)]
pub struct Document {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Problem {
    /// A problem with this status.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: shortened(detail.into()), sequence: None, reason: None, headers: Vec::new() }
    }

    /// 400.
    pub fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422: a value that can be read, and is out of range.
    pub fn value(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail)
    }

    /// 429, with the time after which to come back, in seconds.
    pub fn busy(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).with(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503, with the time after which to come back, in seconds.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.with(header::RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// With a header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The connection is closed after the answer.
    pub fn closing(self) -> Self {
        self.with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// With the sequence that is there now.
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// With the reason that a topic's viewers were told.
    pub fn with_reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// Its status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, for programs.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Its headers besides those of every answer.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// As it is sent.
    pub fn document(self) -> Document {
        Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code,
            sequence: self.sequence,
            reason: self.reason,
        }
    }
}

impl Document {
    /// Of a body of lines: says in which one it is, from 1.
    pub fn at_line(&mut self, line: usize) {
        // A reader of one line calls it the first.
        let detail = self.detail.replace(" at line 1 column ", " at column ");
        self.detail = format!("line {line}: {detail}");
    }
}

/// A text of bounded size.
pub fn shortened(text: String) -> String {
    if text.len() <= BEGIN_SIZE_MAX + END_SIZE_MAX {
        return text;
    }
    let end = text.get(text.ceil_char_boundary(text.len() - END_SIZE_MAX)..).unwrap_or_default();
    format!("{} ... {end}", business::cut(&text, BEGIN_SIZE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_sent_back_whole() {
        let said = format!("there is no {}; say another", "\u{200b}".repeat(1 << 20));
        let problem = Problem::value(said.clone());
        let detail = problem.detail();
        assert!(detail.len() <= BEGIN_SIZE_MAX + END_SIZE_MAX + 5, "{}", detail.len());
        assert!(detail.starts_with("there is no ") && detail.ends_with("; say another"));
        assert_eq!(Problem::value("short").detail(), "short");
    }
}
