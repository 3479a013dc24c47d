//! Gregorian dates out of seconds since 1970 (UTC): as HTTP writes them, and as people read them.
//!
//! Owns the calendar. Pure: reads no clock, knows no time zone and no leap second. Any number of
//! seconds has a date.

/// The date and time as HTTP writes it (RFC 9110, 5.6.7).
pub fn date_text(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = calendar(days);
    let name = |names: &[&'static str], index: i64| usize::try_from(index).ok().and_then(|at| names.get(at).copied());
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days.rem_euclid(7)).unwrap_or_default(),
        name(&MONTHS, month - 1).unwrap_or_default(),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The date alone: `2026-11-28`.
pub fn day_text(seconds: i64) -> String {
    let (year, month, day) = calendar(seconds.div_euclid(86_400));
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date and time as RFC 3339 writes it, with milliseconds: `2026-11-28T12:34:56.789Z`.
#[must_use]
pub fn timestamp_text(unix_us: u64) -> String {
    let seconds = i64::try_from(unix_us / 1_000_000).unwrap_or(i64::MAX);
    let (second, ms) = (seconds.rem_euclid(86_400), unix_us / 1000 % 1000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", day_text(seconds))
}

/// Year, month and day, both from 1, of a number of days since 1970. Years begin in March here, so
/// that a leap day is the last day of its year.
pub fn calendar(days: i64) -> (i64, i64, i64) {
    let since = days.saturating_add(719_468); // from 1 March of the year 0
    let (era, day) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let is_next = month >= 10;
    (year + era * 400 + i64::from(is_next), if is_next { month - 9 } else { month + 3 }, day - first + 1)
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

    #[test]
    fn timestamps_are_as_rfc_3339_writes_them() {
        assert_eq!(timestamp_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp_text(951_827_696_789_999), "2000-02-29T12:34:56.789Z");
        assert!(!timestamp_text(u64::MAX).is_empty());
    }

    #[test]
    fn days_are_as_people_read_them() {
        for (seconds, text) in [
            (-1, "1969-12-31"),
            (951_868_799, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (4_922_899_200, "2126-01-01"),
        ] {
            assert_eq!(day_text(seconds), text);
        }
        assert!(!day_text(i64::MAX).is_empty() && !day_text(i64::MIN).is_empty());
    }
}
