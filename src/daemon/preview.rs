//! The share page's head: Open Graph tags out of a topic's newest state, so that a pasted link shows a card.
//!
//! The state's data is the business server's and may hold what its users typed: everything is escaped,
//! a picture must be `https`, and what has the wrong type is left out. Of the state nothing is kept but the
//! three texts, however much else it holds.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The share page as it is shipped.
const PAGE: &str = include_str!("../web/share.html");
/// Where the tags go.
const MARKER: &str = "<!-- sharelinkd:head -->";
/// Characters of a title and of a description that a card shows at most.
const TITLE_LENGTH_MAX: usize = 120;
const DESCRIPTION_LENGTH_MAX: usize = 300;
/// Bytes of a picture's address at most.
const COVER_SIZE_MAX: usize = 1024;

/// The share page, with tags where there is a state: `frame` is the page protocol's `state`.
pub fn share_page(frame: Option<&[u8]>) -> String {
    let tags = frame.and_then(|frame| serde_json::from_slice::<Frame>(frame).ok()).map(|frame| tags(&frame.data));
    PAGE.replace(MARKER, tags.unwrap_or_default().trim_end())
}

fn tags(state: &State) -> String {
    let mut out = String::from("<meta property=\"og:type\" content=\"website\">\n");
    let text = |text: &Option<String>, length_max: usize| {
        let text = text.as_deref()?.trim();
        (!text.is_empty()).then(|| text.chars().take(length_max).collect::<String>())
    };
    let mut tag = |name: &str, content: Option<String>| {
        if let Some(content) = content {
            let _ = writeln!(out, "<meta property=\"og:{name}\" content=\"{}\">", Escaped(&content));
        }
    };
    tag("title", text(&state.title, TITLE_LENGTH_MAX));
    tag("description", text(&state.description, DESCRIPTION_LENGTH_MAX));
    tag("image", state.cover.clone().filter(|cover| is_picture(cover)));
    out
}

fn is_picture(address: &str) -> bool {
    address.starts_with("https://")
        && address.len() <= COVER_SIZE_MAX
        && address.chars().all(|c| !c.is_whitespace() && !c.is_control())
}

/// The page protocol's `state`, as far as a card shows it.
#[derive(serde::Deserialize)]
struct Frame {
    data: State,
}

/// What a card shows of a state; a value of another type counts as none.
#[derive(Default)]
struct State {
    title: Option<String>,
    description: Option<String>,
    cover: Option<String>,
}

/// Takes a JSON value of any kind: members of an object, or a text, and nothing of the others.
#[derive(Default)]
struct Lenient {
    text: Option<String>,
    state: State,
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lenient::deserialize(deserializer).map(|value| value.state)
    }
}

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Lenient;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Lenient, E> {
        Ok(Lenient { text: Some(text.to_owned()), ..Lenient::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lenient, A::Error> {
        let mut state = State::default();
        while let Some(key) = map.next_key::<String>()? {
            let member = match key.as_str() {
                "title" => &mut state.title,
                "description" => &mut state.description,
                "cover" => &mut state.cover,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *member = map.next_value::<Lenient>()?.text;
        }
        Ok(Lenient { state, ..Lenient::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lenient, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient::default())
    }

    fn visit_unit<E>(self) -> Result<Lenient, E> {
        Ok(Lenient::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Lenient, E> {
        Ok(Lenient::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Lenient, E> {
        Ok(Lenient::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Lenient, E> {
        Ok(Lenient::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Lenient, E> {
        Ok(Lenient::default())
    }
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

    #[test]
    fn a_state_becomes_tags_and_nothing_else() {
        let frame = br#"{"type":"state","topic":7,"sequence":3,"data":
            {"title":"<b>\"A&B'</b>","description":"two\nlines","cover":"https://pic.example/a.jpg?x=1&y=2","host":"h"}}"#;
        let page = share_page(Some(frame));
        assert!(page.contains(r#"<meta property="og:title" content="&lt;b&gt;&quot;A&amp;B&#39;&lt;/b&gt;">"#));
        assert!(page.contains(r#"<meta property="og:description" content="two lines">"#));
        assert!(page.contains(r#"<meta property="og:image" content="https://pic.example/a.jpg?x=1&amp;y=2">"#));
        assert!(!page.contains("<b>"));
        assert!(!page.contains(MARKER));
    }

    #[test]
    fn what_has_the_wrong_type_is_left_out() {
        for data in ["null", "[]", "{\"title\":5,\"cover\":\"javascript:alert(1)\"}", "{\"cover\":\"https://a b\"}"] {
            let page = share_page(Some(format!("{{\"data\":{data}}}").as_bytes()));
            assert!(!page.contains("og:title") && !page.contains("og:image"), "{data}");
        }
        assert_eq!(share_page(Some(b"no json")), share_page(None));
    }

    #[test]
    fn the_shipped_page_has_the_marker_once() {
        assert_eq!(PAGE.matches(MARKER).count(), 1);
    }
}
