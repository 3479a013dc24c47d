//! Whether bytes are one JSON value (RFC 8259) in UTF-8, without building it and without a heap.
//!
//! What a business server publishes on `state` and `messages` goes to every page inside a frame of
//! ours, unchanged; bytes that are no JSON value would break that frame for all of them, so they
//! are checked once. Refuses nesting deeper than [`DEPTH_MAX`] (RFC 8259, section 9, allows a
//! limit), since readers with a stack of their own give up not far above it. Numbers and strings
//! are checked by their grammar alone, as `JSON.parse` does it.

/// Arrays and objects within each other, at most.
pub const DEPTH_MAX: usize = 256;

/// Whether `bytes` are exactly one JSON value, white space around it allowed.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok() && Scanner { bytes, at: 0 }.document().is_some()
}

/// Reads forward over bytes; every step is `None` where the grammar is broken.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Which closing bracket each open level waits for: a bit for each, set for an object.
struct Nesting {
    objects: [u64; DEPTH_MAX / 64],
    depth: usize,
}

impl Nesting {
    fn open(&mut self, object: bool) -> Option<()> {
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

impl Scanner<'_> {
    fn document(&mut self) -> Option<()> {
        let mut nesting = Nesting { objects: [0; DEPTH_MAX / 64], depth: 0 };
        loop {
            // Here a value begins.
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
            // Here a value has ended, or an empty bracket waits to be closed.
            loop {
                if nesting.depth == 0 {
                    return self.peek_token().is_none().then_some(());
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
        (self.bytes.get(self.at..end)? == rest).then_some(())?;
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
        self.bytes.get(self.at).copied()
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
