//! Number and text formats of the console: fixed widths, always with a unit, plain ASCII.

use core::fmt::Display;

use relay::link::Shown;

/// Columns of a line, at most.
pub const COLUMNS: usize = 79;

/// A duration in at most nine columns: `0.3 s`, `12.5 min`, `4.1 h`, `123.0 d`.
pub fn span(ms: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    // The largest unit that gives at least 2: "45.6 h" is more exact than "1.9 d".
    let (name, unit) = UNITS.iter().rev().find(|(_, unit)| ms >= unit * 2).copied().unwrap_or(("s", 1_000));
    let tenths = ms / (unit / 10);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// A sequence in at most twelve columns: of a longer one, a dot and the last eleven digits. `-` if
/// it is unknown.
pub fn sequence(number: u64) -> String {
    match number {
        0 => "-".to_owned(),
        1..1_000_000_000_000 => number.to_string(),
        _ => format!(".{:011}", number % 100_000_000_000),
    }
}

/// A share in whole percent, rounded up, so that a nearly full table doesn't seem to have room.
pub const fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 0 } else { part.saturating_mul(100).div_ceil(whole) }
}

/// The part of a link that may be shown.
pub fn link(shown: &Shown<'_>) -> String {
    plain(shown).replace('?', "..")
}

/// The text with `?` for everything that is not printable ASCII, which a serial line may not carry.
pub fn plain(text: &impl Display) -> String {
    text.to_string().chars().map(|letter| if matches!(letter, ' '..='~') { letter } else { '?' }).collect()
}

/// At most this many columns of a plain text; `..` marks a cut.
pub fn within(text: &str, columns: usize) -> String {
    if text.len() <= columns {
        return text.to_owned();
    }
    format!("{}..", text.get(..columns.saturating_sub(2)).unwrap_or_default())
}

/// A plain text in pieces of at most this many columns, broken between words if possible.
pub fn wrapped(mut text: &str, columns: usize) -> impl Iterator<Item = &str> {
    let mut is_first = true;
    core::iter::from_fn(move || {
        if text.is_empty() && !core::mem::take(&mut is_first) {
            return None;
        }
        is_first = false;
        let whole = text.get(..columns).filter(|_| text.len() > columns);
        let end = whole.map_or(text.len(), |piece| match text.as_bytes().get(columns) {
            Some(b' ') => columns,
            _ => piece.rfind(' ').filter(|blank| *blank > 0).unwrap_or(columns),
        });
        let (piece, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        text = rest.trim_start_matches(' ');
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_nine_columns() {
        for (ms, text) in [
            (0, "0.0 s"),
            (350, "0.3 s"),
            (119_999, "119.9 s"),
            (120_000, "2.0 min"),
            (7_200_000, "2.0 h"),
            (172_800_000, "2.0 d"),
            (86_400_000 * 5_000, "5000.0 d"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert!((0..64).all(|bits| span(1 << bits).len() <= 20));
    }

    #[test]
    fn sequences_keep_their_last_digits() {
        assert_eq!(
            (sequence(0), sequence(42), sequence(999_999_999_999)),
            ("-".into(), "42".into(), "999999999999".into())
        );
        assert_eq!(sequence(9_007_199_254_740_992), ".99254740992");
    }

    #[test]
    fn percents_are_rounded_up() {
        assert_eq!((percent(0, 10), percent(1, 1000), percent(1000, 1000), percent(1, 0)), (0, 1, 100, 0));
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let pieces = |text, columns| wrapped(text, columns).collect::<Vec<_>>();
        assert_eq!(pieces("", 5), [""]);
        assert_eq!(pieces("short", 5), ["short"]);
        assert_eq!(pieces("two words", 5), ["two", "words"]);
        assert_eq!(pieces("exact words", 5), ["exact", "words"]);
        assert_eq!(pieces("unbreakable", 5), ["unbre", "akabl", "e"]);
        assert_eq!(pieces(" a long_one", 5), [" a", "long_", "one"]);
        assert_eq!(pieces("門門", 2), ["門門"], "plain texts alone are broken");
    }

    #[test]
    fn what_is_not_ascii_is_not_sent() {
        assert_eq!(plain(&"gate 門\u{1b}[2J\n"), "gate ??[2J?");
        assert_eq!(link(&Shown("demolink")), "demo..");
        assert_eq!((within("short", 5), within("longer", 5)), ("short".to_owned(), "lon..".to_owned()));
    }
}
