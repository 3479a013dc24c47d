//! Which certificate answers a name that a client asks for (RFC 6066, 3; RFC 6125, 6.4).
//!
//! Owns the rule alone, as a function over lists of names. Doesn't know where the names are from,
//! and whether a name asked for is a valid one: what matches none gets the default.

/// The index of the certificate that answers `asked`, out of the DNS names of each; 0, the default,
/// if none does, also if there are no certificates.
///
/// A certificate with exactly this name goes first, then one with a wildcard that covers it, each
/// in the order of the list. ASCII letters match in both cases. One dot at the end of a name, on
/// either side, is ignored.
#[must_use]
pub fn choose<'a, L: IntoIterator<Item = &'a str>>(
    certificates: impl Iterator<Item = L> + Clone,
    asked: &str,
) -> usize {
    let first = |matches: fn(&str, &str) -> bool| {
        certificates.clone().position(|names| names.into_iter().any(|name| matches(name, asked)))
    };
    first(is_name).or_else(|| first(is_covered)).unwrap_or_default()
}

fn is_name(name: &str, asked: &str) -> bool {
    let (name, asked) = (absolute(name), absolute(asked));
    !name.is_empty() && name.eq_ignore_ascii_case(asked)
}

/// Whether `name` is a wildcard for exactly one label, the leftmost, and the rest is the same.
fn is_covered(name: &str, asked: &str) -> bool {
    let Some(parent) = absolute(name).strip_prefix("*.") else { return false };
    let Some((label, rest)) = absolute(asked).split_once('.') else { return false };
    !label.is_empty() && !parent.is_empty() && parent.eq_ignore_ascii_case(rest)
}

fn absolute(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATES: [&[&str]; 5] = [
        &["default.example"],
        &["*.example.org", "example.org"],
        &["other.test", "A.Example.org"],
        &["*.a.example.org.", "*.EXAMPLE.net"],
        &["*.example.org", "late.example.org", "*", "*.", "", ".", "w*.example.com", "*.*.example.com"],
    ];

    #[test]
    fn exact_then_wildcard_then_the_first() {
        for (asked, index) in [
            ("example.org", 1),
            ("EXAMPLE.ORG.", 1),
            ("a.example.org", 2),
            ("b.example.org", 1),
            ("late.example.org", 4),
            ("x.a.example.org", 3),
            ("x.example.net", 3),
            ("x.Example.Net.", 3),
            ("other.TEST", 2),
            // Not covered by a wildcard.
            ("example.net", 0),
            ("x.y.example.net", 0),
            (".example.net", 0),
            ("www.example.com", 0),
            ("x.y.example.com", 0),
            ("other", 0),
            ("other.test.example", 0),
            ("other.test..", 0),
            ("", 0),
            (".", 0),
            ("..", 0),
            ("*", 4),
        ] {
            assert_eq!(choose(CERTIFICATES.iter().map(|names| names.iter().copied()), asked), index, "{asked}");
        }
    }

    #[test]
    fn no_certificate_is_the_default_too() {
        assert_eq!(choose([[""; 0]; 0].into_iter(), "example.org"), 0);
        assert_eq!(choose([vec![], vec!["a.test"]].into_iter(), "a.test"), 1);
    }
}
