//! JSON (RFC 8259) in UTF-8, without a heap: validates that bytes are one value, and reads it.
//!
//! Publications on `state` and `messages` are sent to pages unchanged, inside our own frames.
//! Invalid JSON would break these frames for all pages, so it is validated once ([`is_value`]).
//! Requests from pages and the data of preview cards are read from a validated [`Value`] by its
//! members, strings and whole numbers; everything else is skipped. Refuses nesting deeper than
//! [`DEPTH_MAX`] (RFC 8259, section 9, allows a limit), because recursive parsers fail not far
//! above it. Accepts any JSON string: a lone surrogate is read as U+FFFD.

use alloc::borrow::Cow;
use core::iter::once;

/// The maximum nesting depth of arrays and objects.
pub const DEPTH_MAX: usize = 256;

/// Whether `bytes` are exactly one JSON value, with optional white space around it.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| Scanner { text, at: 0 }.document(DEPTH_MAX).is_some())
}

/// One JSON value: its validated text.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(&'a str);

/// A JSON string: the text between its quotes, with escapes.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(&'a str);

impl<'a> Value<'a> {
    /// Parses one value; `None` if it is invalid. The members of an object may each have a depth of
    /// [`DEPTH_MAX`].
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let text = core::str::from_utf8(bytes).ok()?;
        Scanner { text, at: 0 }.document(DEPTH_MAX + 1)?;
        Some(Self(text.trim_ascii()))
    }

    /// Its members, if it is an object. Duplicate names are all returned; as for `JSON.parse`, the
    /// last one should count, see [`Value::last`].
    pub fn members(self) -> Option<impl Iterator<Item = (Text<'a>, Self)>> {
        let mut inside = self.inside('{')?;
        Some(core::iter::from_fn(move || {
            inside.peek_token()?;
            let key = inside.string_text()?;
            inside.token()?;
            let value = inside.whole()?;
            inside.token();
            Some((key, value))
        }))
    }

    /// Its items, if it is an array.
    pub fn items(self) -> Option<impl Iterator<Item = Self>> {
        let mut inside = self.inside('[')?;
        Some(core::iter::from_fn(move || {
            inside.peek_token()?;
            let value = inside.whole()?;
            inside.token();
            Some(value)
        }))
    }

    /// The last member of an object with each of these names, in one pass; all `None` if it is not
    /// an object.
    #[must_use]
    pub fn last<const N: usize>(self, names: [&str; N]) -> [Option<Self>; N] {
        let mut found = [None; N];
        for (key, value) in self.members().into_iter().flatten() {
            for (name, found) in names.iter().zip(&mut found) {
                if key.is(name) {
                    *found = Some(value);
                }
            }
        }
        found
    }

    /// Its string, if it is one.
    #[must_use]
    pub fn text(self) -> Option<Text<'a>> {
        Some(Text(self.0.strip_prefix('"')?.strip_suffix('"')?))
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Its number, if it is a whole number that fits, in any notation: `7`, `7.0`, `70e-1`, and
    /// `-0`, which is 0. Exact: no float is involved.
    #[must_use]
    pub fn whole_number(self) -> Option<u64> {
        self.whole().filter(|(_, fits)| *fits).map(|(value, _)| value)
    }

    /// Like [`whole_number`](Self::whole_number), but saturates at [`u64::MAX`].
    #[must_use]
    pub fn whole_number_or_most(self) -> Option<u64> {
        self.whole().map(|(value, fits)| if fits { value } else { u64::MAX })
    }

    /// A whole number, and whether it fits.
    fn whole(self) -> Option<(u64, bool)> {
        let (is_negative, number) = self.0.strip_prefix('-').map_or((false, self.0), |rest| (true, rest));
        number.starts_with(|first: char| first.is_ascii_digit()).then_some(())?;
        let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
        let digits = before.bytes().chain(behind.bytes()).map(|digit| u64::from(digit - b'0'));
        // An exponent outside i32 puts the decimal point far beyond the digits, on either side.
        let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { i32::MIN } else { i32::MAX });
        let mut to_point = i64::try_from(before.len()).ok()?.saturating_add(exponent.into());
        let (mut value, mut fits) = (0_u64, true);
        let step = |value: &mut u64, digit| {
            let next = value.checked_mul(10).and_then(|value| value.checked_add(digit));
            *value = next.unwrap_or(u64::MAX);
            next.is_some()
        };
        for digit in digits {
            if to_point > 0 {
                fits &= step(&mut value, digit);
            } else if digit != 0 {
                return None;
            }
            to_point -= 1;
        }
        if value == 0 {
            return Some((0, true));
        }
        // Any value except 0 overflows 64 bits within 20 steps.
        for _ in 0..to_point.clamp(0, 20) {
            fits &= step(&mut value, 0);
        }
        (!is_negative).then_some((value, fits))
    }

    fn inside(self, bracket: char) -> Option<Scanner<'a>> {
        let closing = if bracket == '{' { '}' } else { ']' };
        let text = self.0.strip_prefix(bracket)?.strip_suffix(closing)?;
        Some(Scanner { text, at: 0 })
    }
}

impl<'a> Text<'a> {
    /// Its characters, with escapes resolved; U+FFFD for a lone surrogate.
    pub fn chars(self) -> impl Iterator<Item = char> + Clone {
        let mut rest = self.0.chars();
        core::iter::from_fn(move || match rest.next()? {
            '\\' => Some(unescaped(&mut rest)),
            plain => Some(plain),
        })
    }

    /// Its text, with escapes resolved; borrowed if there are none.
    #[must_use]
    pub fn resolved(self) -> Cow<'a, str> {
        if self.0.contains('\\') { self.chars().collect() } else { Cow::Borrowed(self.0) }
    }

    /// Whether it equals this text, escapes resolved.
    #[must_use]
    pub fn is(self, text: &str) -> bool {
        self.chars().eq(text.chars())
    }
}

/// Decodes an escape after its backslash.
fn unescaped(rest: &mut core::str::Chars<'_>) -> char {
    match rest.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => {
            let unit = code_unit(rest);
            let mut behind = rest.clone();
            let low = match unit {
                0xd800..0xdc00 if behind.next() == Some('\\') && behind.next() == Some('u') => {
                    Some(code_unit(&mut behind)).filter(|low| (0xdc00..0xe000).contains(low))
                }
                _ => None,
            };
            if low.is_some() {
                *rest = behind;
            }
            char::decode_utf16(once(unit).chain(low)).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        Some(itself) => itself,
        None => char::REPLACEMENT_CHARACTER,
    }
}

/// Reads four hexadecimal digits.
fn code_unit(rest: &mut core::str::Chars<'_>) -> u16 {
    let digits = rest.by_ref().take(4).filter_map(|digit| digit.to_digit(16));
    digits.fold(0, |unit, digit| unit << 4 | u16::try_from(digit).unwrap_or(0))
}

/// A forward scanner; every step returns `None` on a syntax error.
#[derive(Clone)]
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// The kind of each open bracket: one bit per level, set for an object.
struct Nesting {
    objects: [u64; DEPTH_MAX / 64 + 1],
    depth: usize,
    depth_max: usize,
}

impl Nesting {
    const fn new(depth_max: usize) -> Self {
        Self { objects: [0; DEPTH_MAX / 64 + 1], depth: 0, depth_max }
    }

    fn open(&mut self, object: bool) -> Option<()> {
        (self.depth < self.depth_max).then_some(())?;
        let word = self.objects.get_mut(self.depth / 64)?;
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Some(())
    }

    fn in_object(&self) -> bool {
        self.depth
            .checked_sub(1)
            .is_some_and(|top| self.objects.get(top / 64).is_some_and(|w| w >> (top % 64) & 1 == 1))
    }
}

impl<'a> Scanner<'a> {
    /// One value and nothing after it.
    fn document(&mut self, depth_max: usize) -> Option<()> {
        self.value(depth_max)?;
        self.peek_token().is_none().then_some(())
    }

    /// The next value of a validated text.
    fn whole(&mut self) -> Option<Value<'a>> {
        self.peek_token()?;
        let from = self.at;
        self.value(DEPTH_MAX)?;
        self.text.get(from..self.at).map(Value)
    }

    /// The next string of a validated text.
    fn string_text(&mut self) -> Option<Text<'a>> {
        (self.token()? == b'"').then_some(())?;
        let from = self.at;
        self.string()?;
        self.text.get(from..self.at - 1).map(Text)
    }

    fn value(&mut self, depth_max: usize) -> Option<()> {
        let mut nesting = Nesting::new(depth_max);
        loop {
            // A value starts here.
            match self.token()? {
                b'{' => {
                    nesting.open(true)?;
                    if self.peek_token() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    nesting.open(false)?;
                    if self.peek_token() != Some(b']') {
                        continue;
                    }
                }
                b'"' => self.string()?,
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                first => self.number(first)?,
            }
            // A value has ended, or an empty bracket must be closed.
            loop {
                if nesting.depth == 0 {
                    return Some(());
                }
                match (self.token()?, nesting.in_object()) {
                    (b',', true) => {
                        self.key()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => nesting.depth -= 1,
                    _ => return None,
                }
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        (self.token()? == b'"').then_some(())?;
        self.string()?;
        (self.token()? == b':').then_some(())
    }

    fn string(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.next()?.is_ascii_hexdigit().then_some(())?;
                        }
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => {
                self.digits();
            }
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            (self.digits() > 0).then_some(())?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            (self.digits() > 0).then_some(())?;
        }
        Some(())
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let end = self.at + rest.len();
        (self.text.as_bytes().get(self.at..end)? == rest).then_some(())?;
        self.at = end;
        Some(())
    }

    fn token(&mut self) -> Option<u8> {
        self.peek_token()?;
        self.next()
    }

    fn peek_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_kind_of_value() {
        for good in [
            "1",
            "-0",
            "0.5",
            "-1.25e+10",
            "1E9",
            "\"\"",
            "\"a\\u00e9\\n\\ud800\"",
            "true",
            " false ",
            "null",
            "[]",
            "{}",
            "[1,[2,{}],\"x\"]",
            "{\"a\":1,\"b\":[{\"c\":null}]}",
            "\t{ \"a\" : [ ] , \"b\" : { } }\r\n",
            "\"你好\"",
            "1e999",
        ] {
            assert!(is_value(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_value() {
        for bad in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "tru",
            "nul",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "[] []",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"open",
            "[",
            "{",
            "\u{feff}1",
            "NaN",
            "'a'",
            "]",
        ] {
            assert!(!is_value(bad.as_bytes()), "{bad}");
        }
        assert!(!is_value(&[b'"', 0xff, b'"']), "not UTF-8");
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert!(is_value(&nested(DEPTH_MAX)));
        assert!(!is_value(&nested(DEPTH_MAX + 1)));
        let objects = [b"{\"a\":".repeat(DEPTH_MAX), b"1".to_vec(), b"}".repeat(DEPTH_MAX)].concat();
        assert!(is_value(&objects));
    }

    fn read(text: &str) -> Value<'_> {
        Value::read(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn any_string_is_a_string() {
        for (written, meant) in [
            (r#""""#, ""),
            (r#""a\"\\\/\b\f\n\r\t\u0041""#, "a\"\\/\u{8}\u{c}\n\r\tA"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\uD83D\uDE00""#, "😀"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""a\ud83db""#, "a\u{fffd}b"),
            (r#""\ude00""#, "\u{fffd}"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            (r#""\ud83d\\ude00""#, "\u{fffd}\\ude00"),
            (r#""\u0000é\uffff""#, "\0é\u{ffff}"),
        ] {
            let text = read(written).text().unwrap();
            assert_eq!(text.resolved(), meant, "{written}");
            assert!(text.is(meant) && !text.is("other"), "{written}");
        }
        assert!(read("5").text().is_none() && read("null").text().is_none());
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (written, meant) in [
            ("0", 0),
            ("7", 7),
            ("-0", 0),
            ("-0.0", 0),
            ("-0e5", 0),
            ("0.000e-99999999999999999999", 0),
            ("0e99999999999999999999", 0),
            ("7.0", 7),
            ("7e0", 7),
            ("7E+0", 7),
            ("70e-1", 7),
            ("0.07e2", 7),
            ("700.00e-2", 7),
            ("9007199254740993", (1 << 53) + 1),
            ("9007199254740993.0", (1 << 53) + 1),
            ("18446744073709551615", u64::MAX),
            ("1844674407370955161.5e1", u64::MAX),
        ] {
            assert_eq!(read(written).whole_number(), Some(meant), "{written}");
        }
        for none in [
            "7.5",
            "-1",
            "-7.0",
            "1e-1",
            "18446744073709551616",
            "1e20",
            "1e400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "0.5",
            "\"7\"",
            "null",
            "true",
            "[]",
        ] {
            assert_eq!(read(none).whole_number(), None, "{none}");
            let is_large = matches!(none, "18446744073709551616" | "1e20" | "1e400" | "1e99999999999999999999");
            assert_eq!(read(none).whole_number_or_most(), is_large.then_some(u64::MAX), "{none}");
        }
        for (written, meant) in [
            ("7", Some(7)),
            ("18446744073709551616000.0", Some(u64::MAX)),
            ("-1e30", None),
            ("184467440737095516160.5", None),
        ] {
            assert_eq!(read(written).whole_number_or_most(), meant, "{written}");
        }
        let long = format!("0.{}7e4001", "0".repeat(4000));
        assert_eq!(read(&long).whole_number(), Some(7));
    }

    #[test]
    fn members_are_found_by_name_and_the_last_of_a_name_counts() {
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        let text = format!(
            r#" {{"a":1, "x":{deep} ,"\ud800":1e400,"\u0062" : {{"a":2}},"a":3,"":"\ud83d", "c" : [ 1 , [2] , "," ] }} "#
        );
        let value = read(&text);
        let [a, b, c, d] = value.last(["a", "b", "c", "d"]);
        assert_eq!(a.and_then(Value::whole_number), Some(3));
        assert_eq!(b.unwrap().last(["a"])[0].and_then(Value::whole_number), Some(2));
        let items: Vec<&str> = c.unwrap().items().unwrap().map(|item| item.0).collect();
        assert_eq!(items, ["1", "[2]", "\",\""]);
        assert!(d.is_none() && value.items().is_none() && c.unwrap().members().is_none());
        assert_eq!(value.members().unwrap().count(), 7);
        assert_eq!(read("{ }").members().unwrap().count() + read("[ ]").items().unwrap().count(), 0);
        assert!(Value::read(format!("[[{deep}]]").as_bytes()).is_none());
    }

    #[test]
    fn agrees_with_serde_json_on_damaged_values() {
        let seed = br#"{"from":"Li","text":"a\u4f60\n","at":-1.5e+3,"list":[true,false,null,{"x":[]}]}"#;
        for at in 0..seed.len() {
            for byte in [b'"', b'\\', b'{', b']', b',', b':', b'0', b'e', b' ', 0, 0xc3] {
                let mut damaged = seed.to_vec();
                damaged[at] = byte;
                let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(&damaged).is_ok()
                    && core::str::from_utf8(&damaged).is_ok();
                assert_eq!(is_value(&damaged), theirs, "{}", String::from_utf8_lossy(&damaged));
            }
        }
    }
}
