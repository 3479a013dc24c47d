//! The target of a request: its path's segments and its query, percent-decoded.
//!
//! Owns the decoding alone. A topic's name may hold `/`, so a path is split first and decoded after
//! that: `/v1/topics/app%2Froom` has three segments. Refuses encodings that are broken, and of a
//! query, parameters that are not known or come twice, by name. Doesn't know the routes.

use super::problem::Problem;

/// The segments of a path, without the empty one before the first `/`.
pub fn segments(path: &str) -> Result<Vec<String>, Problem> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    rest.split('/').map(|segment| decoded(segment, false)).collect::<Option<_>>().ok_or_else(|| {
        Problem::bad("invalid_path", "the path has a % that begins no encoded UTF-8: write a % itself as %25")
    })
}

/// The parameters of a query, in the order of `names`.
pub fn parameters<const N: usize>(query: Option<&str>, names: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let mut found = [const { None }; N];
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (Some(name), Some(value)) = (decoded(name, true), decoded(value, true)) else {
            return Err(Problem::bad("invalid_query", "the query has a % that begins no encoded UTF-8"));
        };
        let place = names.iter().position(|known| *known == name).and_then(|place| found.get_mut(place));
        match place {
            Some(place @ None) => *place = Some(value),
            Some(Some(_)) => {
                return Err(Problem::bad("duplicate_parameter", format!("the query parameter {name:?} comes twice")));
            }
            None => {
                let known =
                    if N == 0 { "this route has none".to_owned() } else { format!("known: {}", names.join(", ")) };
                let detail = format!("the query parameter {name:?} is not known; {known}");
                return Err(Problem::bad("unknown_parameter", detail));
            }
        }
    }
    Ok(found)
}

/// A whole number of a query.
pub fn number(name: &str, text: Option<&str>, default: u64) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(default) };
    let parsed = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| Problem::bad("invalid_parameter", format!("the query parameter {name:?} is a whole number")))
}

/// Decodes `%xx`, and in a query `+`. `None` if an encoding is broken or no UTF-8.
fn decoded(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            b'+' if is_query => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        assert_eq!(segments("/v1/topics/app%2Froom%3a7").unwrap(), ["v1", "topics", "app/room:7"]);
        assert_eq!(segments("/").unwrap(), [""]);
        assert_eq!(segments("/a/").unwrap(), ["a", ""]);
        for broken in ["/%", "/%2", "/%zz", "/%ff", "/%+1"] {
            assert!(segments(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn unknown_and_double_parameters_are_refused() {
        let [a, b] = parameters(Some("b=1%202+3&a&"), ["a", "b"]).unwrap();
        assert_eq!((a.as_deref(), b.as_deref()), (Some(""), Some("1 2 3")));
        assert_eq!(parameters(None, ["a"]).unwrap(), [None]);
        for wrong in ["c=1", "a=1&a=2", "a=%f", "%61=1&a=2"] {
            assert!(parameters(Some(wrong), ["a", "b"]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_whole() {
        assert_eq!(number("n", Some("0042"), 7).unwrap(), 42);
        assert_eq!(number("n", None, 7).unwrap(), 7);
        for wrong in ["", "-1", "+1", "1.0", "99999999999999999999"] {
            assert!(number("n", Some(wrong), 7).is_err(), "{wrong:?}");
        }
    }
}
