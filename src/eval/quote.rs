//! Nix source text made from data: what is quoted here can be nothing but a string.
//!
//! A branch may be named `${abort "x"}`; it reaches a pipeline as these characters.

use std::collections::BTreeMap;

use serde_json::Value;

/// Writes a Nix string literal.
///
/// `"`, `\` and every `$` are escaped. A carriage return is, too, for the parser would read
/// `\r\n` as `\n`. NUL has no literal in Nix: the caller refuses it before.
pub fn string(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => literal.extend(['\\', c]),
            '\r' => literal.push_str("\\r"),
            _ => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

/// Writes data as an expression: JSON inside a string, read back by Nix itself.
pub fn data(values: &BTreeMap<String, Value>) -> String {
    let json = serde_json::to_string(values).expect("string keys and JSON values always serialise");
    format!("(builtins.fromJSON {})", string(&json))
}

/// Whether Nix takes this text as an identifier, so that a function can ask for it by name.
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_end_or_enter_the_string() {
        assert_eq!(string(r#"${abort"x"}"#), r#""\${abort\"x\"}""#);
        assert_eq!(string("a\\b\r\n"), "\"a\\\\b\\r\n\"");
        assert_eq!(string("$${x}"), "\"\\$\\${x}\"");
        let facts = BTreeMap::from([("branch".into(), Value::from("${1}\n"))]);
        assert_eq!(
            data(&facts),
            r#"(builtins.fromJSON "{\"branch\":\"\${1}\\n\"}")"#
        );
    }

    #[test]
    fn knows_identifiers() {
        assert!(is_identifier("rev") && is_identifier("_a-b'") && !is_identifier(""));
        assert!(!is_identifier("1a") && !is_identifier("a b") && !is_identifier("ä"));
    }
}
