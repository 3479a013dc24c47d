//! The share page's `<head>`: Open Graph tags from a topic's newest state, so that a pasted link
//! shows a card.
//!
//! The state's data comes from the business server and may contain what its users typed: everything
//! is escaped, an image must be `https`, and a value of the wrong type is left out. Any JSON string
//! is accepted: what a card can't show of it is replaced or left out, and never affects the other
//! fields. Keeps only the three texts, however large the state is.

use std::fmt::{self, Write};

use wire::json::{Text, Value};

/// The title of a page without a card, until its script sets another.
const TITLE: &str = "Live";
/// Characters of a title and of a description in a card, at most.
const TITLE_LENGTH_MAX: usize = 120;
const DESCRIPTION_LENGTH_MAX: usize = 300;
/// Bytes of an image's URL, at most; the share page has the same limit.
const COVER_SIZE_MAX: usize = 2048;
/// Bytes of it once escaped, where a character takes up to six bytes: what the memory sum has room
/// for.
const COVER_ESCAPED_SIZE_MAX: usize = 3072;

/// The part of the share page that is the link's: a title, and tags if there is a state. `frame` is
/// the page protocol's `state`; `url` is the page's public URL, if it is configured.
pub fn tags(frame: Option<&[u8]>, url: Option<&str>) -> String {
    let [state] = frame.and_then(Value::read).map_or([None], |frame| frame.last(["data"]));
    let Some(state) = state else { return titled(TITLE, "") };
    let [title, description, cover] = state.last(["title", "description", "cover"]).map(|value| value?.text());
    let title = title.and_then(|title| shown(title, TITLE_LENGTH_MAX));
    let description = description.and_then(|description| shown(description, DESCRIPTION_LENGTH_MAX));
    let cover = cover.map(|cover| cover.resolved().into_owned()).filter(|cover| is_picture(cover));
    let kind = if cover.is_some() { "summary_large_image" } else { "summary" };
    let mut tags = String::new();
    let mut tag = |name: &str, content: Option<&str>| {
        // Open Graph uses `property`, all others `name`.
        let what = if name.starts_with("og:") { "property" } else { "name" };
        if let Some(content) = content {
            let _ = writeln!(tags, "<meta {what}=\"{name}\" content=\"{}\">", Escaped(content));
        }
    };
    tag("og:type", Some("website"));
    tag("og:title", title.as_deref());
    tag("og:description", description.as_deref());
    tag("og:image", cover.as_deref());
    tag("og:url", url);
    tag("twitter:card", Some(kind));
    titled(title.as_deref().unwrap_or(TITLE), tags.trim_end())
}

fn titled(title: &str, tags: &str) -> String {
    format!("<title>{}</title>\n{tags}", Escaped(title))
}

/// The text that a card shows, cut before the character that would not fit; `None` if nothing
/// visible is left.
///
/// Removes what would affect the text around it: controls and line separators become spaces;
/// bidirectional controls are dropped, and so is a combining mark at the start.
fn shown(text: Text<'_>, length_max: usize) -> Option<String> {
    let plain = text.chars().filter(|c| !is_turn(*c)).map(|c| if is_break(c) { ' ' } else { c });
    let mut rest = plain.skip_while(|c| c.is_whitespace() || is_mark(*c) || is_blank(*c)).peekable();
    let mut shown: Vec<char> = rest.by_ref().take(length_max).collect();
    if let Some(next) = rest.peek() {
        let whole = (1..=shown.len()).rev().find(|end| {
            let next = shown.get(*end).unwrap_or(next);
            !is_one(&shown[..*end], *next)
        });
        // If the whole text is one character, as with endless marks, it is cut anyway.
        shown.truncate(whole.unwrap_or(length_max));
    }
    let shown: String = shown.into_iter().collect();
    let shown = shown.trim_end_matches(|c: char| c.is_whitespace() || is_blank(c));
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// Whether `next` continues the character that `before` ends with. Covers emoji, flags and
/// combining marks; UAX #29 has more rules.
fn is_one(before: &[char], next: char) -> bool {
    let is_flag = |c: char| matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
    let flags = before.iter().rev().take_while(|c| is_flag(**c)).count();
    is_mark(next) || before.last() == Some(&'\u{200d}') || (is_flag(next) && flags % 2 == 1)
}

/// Characters drawn onto the one before: combining marks, variation selectors, skin tones, tags,
/// the joiner.
const fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{200d}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0020}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Bidirectional controls, which affect the text after them too.
const fn is_turn(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Invisible characters that Unicode doesn't count as white space.
const fn is_blank(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2060}'..='\u{2064}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
}

fn is_picture(address: &str) -> bool {
    let behind =
        address.split_at_checked("https://".len()).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("https://"));
    behind.is_some_and(|(_, behind)| behind.starts_with(|c: char| !matches!(c, '/' | '?' | '#')))
        && address.len() <= COVER_SIZE_MAX
        && Escaped(address).to_string().len() <= COVER_ESCAPED_SIZE_MAX
        && address.chars().all(|c| {
            !(c.is_whitespace() || is_break(c) || is_turn(c) || is_blank(c) || c == char::REPLACEMENT_CHARACTER)
        })
}

/// Text within a quoted HTML attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::assets::{self, coding::Coding};
    use wire::{Track, page::Encoded, uplink::Part};

    /// The whole page, as a peer gets it that says nothing of codings.
    fn share_page(frame: Option<&[u8]>, url: Option<&str>) -> String {
        String::from_utf8(assets::share_page(&tags(frame, url), Coding::Plain)).unwrap()
    }

    #[test]
    fn a_state_becomes_tags_and_nothing_else() {
        let frame = br#"{"type":"state","topic":7,"sequence":3,"data":
            {"title":"<b>\"A&B'</b>","description":"two\nlines","cover":"https://pic.example/a.jpg?x=1&y=2","host":"h"}}"#;
        let page = share_page(Some(frame), None);
        assert!(page.contains(r#"<meta property="og:title" content="&lt;b&gt;&quot;A&amp;B&#39;&lt;/b&gt;">"#));
        assert!(page.contains(r#"<meta property="og:description" content="two lines">"#));
        assert!(page.contains(r#"<meta property="og:image" content="https://pic.example/a.jpg?x=1&amp;y=2">"#));
        assert!(page.contains("<title>&lt;b&gt;&quot;A&amp;B&#39;&lt;/b&gt;</title>"));
        assert!(page.contains(r#"<meta name="twitter:card" content="summary_large_image">"#));
        assert!(!page.contains("<b>") && !page.contains("og:url"));
        assert_eq!(page.matches("<title>").count(), 1);
    }

    #[test]
    fn the_public_address_stands_where_the_operator_told_it() {
        let page = share_page(Some(br#"{"data":{"title":"t"}}"#), Some("https://share.example/s/room"));
        assert!(page.contains(r#"<meta property="og:url" content="https://share.example/s/room">"#));
        assert!(page.contains(r#"<meta name="twitter:card" content="summary">"#));
        assert_eq!(share_page(None, Some("https://share.example/s/room")), share_page(None, None));
    }

    #[test]
    fn what_has_the_wrong_type_is_left_out() {
        for data in ["null", "[]", "{\"title\":5,\"cover\":\"javascript:alert(1)\"}", "{\"cover\":\"https://a b\"}"] {
            let page = share_page(Some(format!("{{\"data\":{data}}}").as_bytes()), None);
            assert!(!page.contains("og:title") && !page.contains("og:image"), "{data}");
        }
        assert_eq!(share_page(Some(b"no json"), None), share_page(None, None));
    }

    /// The card's value of a property, for a newest state with these members.
    fn card(members: &str, property: &str) -> Option<String> {
        let state = format!("{{{members}}}");
        let encoded = Encoded::publication(7, Track::State, 3, Part::Whole, state.as_bytes());
        let frame = [&encoded.prefix[..], encoded.data, encoded.suffix].concat();
        let page = share_page(Some(&frame[frame.iter().position(|byte| *byte == b'{').unwrap()..]), None);
        assert!(page.contains("og:type"), "no card at all: {members}");
        let content = page.split(&format!("property=\"og:{property}\" content=\"")).nth(1)?;
        Some(content.split("\">").next().unwrap().to_owned())
    }

    #[test]
    fn a_picture_s_address_is_taken_as_the_share_page_takes_it() {
        let long = format!("https://pic.example/{}", "x".repeat(COVER_SIZE_MAX - 20));
        for cover in ["HTTPS://pic.example/a.jpg", "https://pic.example?a", &long] {
            assert_eq!(card(&format!("\"cover\":\"{cover}\""), "image").as_deref(), Some(cover));
        }
        for cover in [
            "http://pic.example/a",
            "https:/pic.example",
            "https:///a",
            "\u{e9}ttps://pic.example",
            &format!("{long}x"),
        ] {
            assert_eq!(card(&format!("\"cover\":\"{cover}\""), "image"), None, "{cover}");
        }
    }

    #[test]
    fn the_largest_share_page_is_within_its_term_of_the_memory_sum() {
        // The longest text once escaped, and the longest in UTF-8.
        for text in ["\\\"", "😀"] {
            let cover = format!("https://p/{}", "\\\"".repeat((COVER_ESCAPED_SIZE_MAX - 10) / 6));
            let text = text.repeat(2 * DESCRIPTION_LENGTH_MAX);
            let frame =
                format!("{{\"data\":{{\"title\":\"{text}\",\"description\":\"{text}\",\"cover\":\"{cover}\"}}}}");
            let page =
                share_page(Some(frame.as_bytes()), Some(&format!("https://{}/s/{}", "h".repeat(253), "l".repeat(128))));
            assert!(page.contains("og:image") && page.contains("og:description"));
            assert!(page.len() <= board::SHARE_PAGE_SIZE, "{} bytes", page.len());
        }
        let longer = format!("\"cover\":\"https://p/{}\"", "&".repeat(COVER_ESCAPED_SIZE_MAX / 5));
        assert_eq!(card(&longer, "image"), None);
    }

    #[test]
    fn one_odd_field_costs_no_other() {
        let deep = format!("{}{}", "[".repeat(255), "]".repeat(255));
        for odd in [
            r#""x":"\ud83d""#,
            r#""\ud83d":1"#,
            r#""\ude00\ud83d":"\ud83d""#,
            r#""x":1e400"#,
            r#""x":-1E+99999"#,
            r#""cover":{"\ud83d":1e400}"#,
            r#""description":1e400"#,
            r#""description":"\u0000\ud83d""#,
            r#""title":{"title":"other"}"#,
            r#""title":"the first of two""#,
            &format!(r#""x":{deep}"#),
        ] {
            let members = format!(r#"{odd},"\u0074itle":"T\u00e9","x":[{{"title":"inner"}}]"#);
            assert_eq!(card(&members, "title").as_deref(), Some("Té"), "{odd}");
        }
        assert_eq!(card(r#""title":"a","title":5"#, "title"), None);
        assert_eq!(card(r#""title":1e400,"description":"d""#, "description").as_deref(), Some("d"));
        assert_eq!(card(r#""title":"a\ud83db","x":1e400"#, "title").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(card(r#""title":"\ud83d\ude00""#, "title").as_deref(), Some("😀"));
        assert_eq!(card(r#""cover":"https://pic.example/\ud83d""#, "image"), None);
        assert_eq!(card(r#""cover":"https://""#, "image"), None);
        assert_eq!(card(r#""cover":"https:\/\/pic.example\/a""#, "image").as_deref(), Some("https://pic.example/a"));
    }

    #[test]
    fn a_text_reaches_no_further_than_its_tag() {
        let title = |text: &str| card(&format!("\"title\":{}", serde_json::json!(text)), "title");
        for nothing in
            ["", " \t\n", "\u{2028}", "\u{200b}\u{feff}", "\u{202e}\u{2066}", "\u{301}", "\0", "\u{3000}", "\u{2800}"]
        {
            assert_eq!(title(nothing), None, "{nothing:?}");
        }
        for (text, shown) in [
            ("  a\u{2028}b\0c\u{85}d\u{2029} ", "a b c d"),
            ("\u{202e}gpj.\u{202c}a\u{2067}b", "gpj.ab"),
            ("\u{301}\u{338}a\u{301}", "a\u{301}"),
            ("\u{200f}שלום\u{200f}", "שלום"),
            ("\"><script>'&", "&quot;&gt;&lt;script&gt;&#39;&amp;"),
            ("👩\u{200d}👧 👍🏽", "👩\u{200d}👧 👍🏽"),
        ] {
            assert_eq!(title(text).as_deref(), Some(shown), "{text:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let cut = |text: &str| card(&format!("\"title\":{}", serde_json::json!(text)), "title").unwrap();
        assert_eq!(cut(&"x".repeat(500)), "x".repeat(TITLE_LENGTH_MAX));
        assert_eq!(cut(&"😀".repeat(500)), "😀".repeat(TITLE_LENGTH_MAX));
        let before = |count: usize| "x".repeat(TITLE_LENGTH_MAX - count);
        for (whole, size) in
            [("e\u{301}", 1), ("👩\u{200d}👧", 1), ("👩\u{200d}👧", 2), ("👍🏽", 1), ("🇩🇪", 1), ("1\u{fe0f}\u{20e3}", 2)]
        {
            assert_eq!(cut(&format!("{}{whole}y", before(size))), before(size), "{whole:?}");
        }
        assert_eq!(cut(&format!("{}🇩🇪🇫🇷", before(2))), before(2) + "🇩🇪");
        assert_eq!(cut(&format!("x{}", "\u{301}".repeat(500))).chars().count(), TITLE_LENGTH_MAX);
        // An escape counts as the character that it stands for.
        let escaped = format!("\"title\":\"{}\"", r"\ud83d\ude00".repeat(200));
        assert_eq!(card(&escaped, "title").unwrap(), "😀".repeat(TITLE_LENGTH_MAX));
    }

    #[test]
    fn a_page_without_a_card_is_the_shipped_one() {
        let page = share_page(None, None);
        let shipped = include_str!("../web/share.html").replace("<!-- sharelinkd:head -->", "");
        // But for the hashes that the build puts into the addresses.
        let is_hash = |text: &&str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hashes: Vec<&str> = page.split("?v=").filter_map(|rest| rest.get(..16)).filter(is_hash).collect();
        assert_eq!(hashes.len(), 3);
        assert!(hashes.iter().fold(page.clone(), |page, hash| page.replace(hash, "")) == shipped);
        assert!(page.contains("<meta name=\"robots\" content=\"noindex\">"), "a link is a secret");
    }
}
