//! Syntax errors in the reader's words.
//!
//! Owns the remedy for each of the parser's messages. Refuses nothing: a message that it doesn't
//! know has a general remedy. Does not know where the error is.

/// The parser's message, unless it only makes sense to the parser.
pub fn what(message: &str) -> &str {
    let is_guess = ["float", "integer", "date"].iter().any(|guess| message.contains(guess));
    if is_guess { "this value is not a number, a list or a string in quotes" } else { message }
}

/// How to fix the error with this message of the parser.
pub fn remedy(message: &str) -> &'static str {
    match message {
        "duplicate key" => "this key or section is written twice: keep one of them",
        _ if message.contains("must be quoted") => "put the string in double quotes (an empty one is \"\")",
        _ if message.contains("unclosed table") => "close the section's name with ]",
        _ if message.contains("unclosed array") => "close the list with ]",
        _ if message.contains("missing comma") => "put a comma between the list's items",
        _ if message.contains("key with no value") => "write key = value",
        _ if message.contains("basic string") || message.contains("literal string") => {
            "close the string with the same quote that it starts with, on the same line"
        }
        _ if message.contains("float") || message.contains("integer") || message.contains("date") => {
            "put it in double quotes if it is a string, such as an address"
        }
        _ => "write one `key = value` on each line: strings in double quotes, lists in [ ]",
    }
}
