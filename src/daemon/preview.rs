//! The share page's head: Open Graph tags out of a topic's newest state, so that a pasted link shows a card.
//!
//! The state's data is the business server's and may hold what its users typed: everything is escaped,
//! a picture must be `https`, and what has the wrong type is left out.

use std::fmt::{self, Write};

use serde_json::Value;

/// The share page as it is shipped.
const PAGE: &str = include_str!("../web/share.html");
/// Where the tags go.
const MARKER: &str = "<!-- sharelinkd:head -->";
/// Characters of a title and of a description that a card shows at most.
const TITLE_LENGTH_MAX: usize = 120;
const DESCRIPTION_LENGTH_MAX: usize = 300;
/// Bytes of a picture's address at most.
const COVER_SIZE_MAX: usize = 2048;

/// The share page, with tags where there is a state: `frame` is the page protocol's `state`.
pub fn share_page(frame: Option<&[u8]>) -> String {
    let tags = frame.and_then(|frame| serde_json::from_slice::<Value>(frame).ok()).map(|frame| tags(&frame["data"]));
    PAGE.replace(MARKER, tags.unwrap_or_default().trim_end())
}

fn tags(state: &Value) -> String {
    let mut out = String::from("<meta property=\"og:type\" content=\"website\">\n");
    let text = |key: &str, length_max: usize| {
        let text = state.get(key)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.chars().take(length_max).collect::<String>())
    };
    let mut tag = |name: &str, content: Option<String>| {
        if let Some(content) = content {
            let _ = writeln!(out, "<meta property=\"og:{name}\" content=\"{}\">", Escaped(&content));
        }
    };
    tag("title", text("title", TITLE_LENGTH_MAX));
    tag("description", text("description", DESCRIPTION_LENGTH_MAX));
    let cover = state.get("cover").and_then(Value::as_str).filter(|cover| is_picture(cover));
    tag("image", cover.map(str::to_owned));
    out
}

fn is_picture(address: &str) -> bool {
    address.starts_with("https://")
        && address.len() <= COVER_SIZE_MAX
        && address.chars().all(|c| !c.is_whitespace() && !c.is_control())
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
