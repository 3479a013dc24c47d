//! The clock: the only file that reads one.

use std::time::{Instant as Reading, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use relay::time::Instant;

/// Monotonic time since the daemon's start; setting the wall clock has no effect.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Reading);

impl Clock {
    /// Starts the clock.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self(Reading::now())
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// The time in HTTP's format (RFC 9110, 5.6.7). `None` if the wall clock was never set: a box
/// without a battery starts in 1970, and a server without a clock must not send a `Date` (6.6.1).
pub fn date() -> Option<String> {
    /// Start of the year in which this was written: a clock that was set is later.
    const SET_S: i64 = 1_767_225_600;
    let seconds = clock_gettime(ClockId::Realtime).tv_sec;
    (seconds >= SET_S).then(|| date_text(seconds))
}

/// The time of this program's source, in seconds since 1970: a clock that was set is later.
pub const SOURCE_S: u64 = parse(env!("SHARELINKD_SOURCE_TIME"));

const fn parse(digits: &str) -> u64 {
    let (bytes, mut number, mut at) = (digits.as_bytes(), 0, 0);
    while at < bytes.len() {
        number = number * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    number
}

/// Whether the wall clock was never set: it is below the time of this program's source. Reads it as
/// rustls does, so that both see the same time where a test changes it.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn is_unset() -> bool {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()) < SOURCE_S
}

/// Seconds since 1970 as a Gregorian date. Years begin in March here, so that a leap day is the
/// last day of its year.
pub fn date_text(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let since = days + 719_468; // from 1 March of the year 0
    let (era, day) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let year = era * 400 + year + i64::from(month >= 10);
    let name = |names: &[&'static str], index: i64| usize::try_from(index).ok().and_then(|at| names.get(at).copied());
    format!(
        "{}, {:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days.rem_euclid(7)).unwrap_or_default(),
        day - (153 * month + 2) / 5 + 1,
        name(&MONTHS, month).unwrap_or_default(),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The kernel's monotonic clock in microseconds, the one that the service manager uses.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_http_writes_them() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(date_text(seconds), text);
        }
    }
}
