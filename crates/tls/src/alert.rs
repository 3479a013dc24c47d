//! Alerts: what a connection's end is told when something is wrong (RFC 8446, 6).
//!
//! Owns the numbers. An [`Alert`] is also this crate's error: its value is the alert to send.
//! Only descriptions that can be sent or met after the handshake are here.

use core::error::Error;
use core::fmt;

/// The level of a warning, which TLS 1.3 ignores.
pub const WARNING: u8 = 1;

/// The description of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// The sender's last record: not an error.
    CloseNotify,
    /// A message that may not come here.
    UnexpectedMessage,
    /// A record that can't be opened.
    BadRecordMac,
    /// A record or its plaintext over the limit.
    RecordOverflow,
    /// A field outside its range.
    IllegalParameter,
    /// A message that can't be read.
    DecodeError,
    /// Another version than the negotiated one.
    ProtocolVersion,
    /// A fault of our own.
    InternalError,
    /// Without effect: the end follows.
    UserCanceled,
    /// TLS 1.2 only: the peer asked for a renegotiation, which is refused.
    NoRenegotiation,
}

impl Alert {
    /// The description's number (RFC 8446, B.2; RFC 5246, A.3).
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::CloseNotify => 0,
            Self::UnexpectedMessage => 10,
            Self::BadRecordMac => 20,
            Self::RecordOverflow => 22,
            Self::IllegalParameter => 47,
            Self::DecodeError => 50,
            Self::ProtocolVersion => 70,
            Self::InternalError => 80,
            Self::UserCanceled => 90,
            Self::NoRenegotiation => 100,
        }
    }

    /// The content of the record that carries it: level and description. `CloseNotify`,
    /// `UserCanceled` and `NoRenegotiation` are warnings, all others fatal (2).
    #[must_use]
    pub const fn encode(self) -> [u8; 2] {
        let level = match self {
            Self::CloseNotify | Self::UserCanceled | Self::NoRenegotiation => WARNING,
            _ => 2,
        };
        [level, self.code()]
    }
}

impl fmt::Display for Alert {
    /// The RFCs' own name.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::CloseNotify => "close_notify",
            Self::UnexpectedMessage => "unexpected_message",
            Self::BadRecordMac => "bad_record_mac",
            Self::RecordOverflow => "record_overflow",
            Self::IllegalParameter => "illegal_parameter",
            Self::DecodeError => "decode_error",
            Self::ProtocolVersion => "protocol_version",
            Self::InternalError => "internal_error",
            Self::UserCanceled => "user_canceled",
            Self::NoRenegotiation => "no_renegotiation",
        })
    }
}

impl Error for Alert {}
