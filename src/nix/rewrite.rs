//! Replacement of strings in byte strings: placeholders by output paths (Nix spec §4.4).
//!
//! Left out: rewriting of hashes inside a NAR, which content-addressed outputs will need.

use std::collections::BTreeMap;

/// A set of replacements, applied one after the other in byte order of what is replaced.
///
/// The order is Nix's and can be seen when one replacement makes text that another matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrites(BTreeMap<Vec<u8>, Vec<u8>>);

impl Rewrites {
    /// Adds a replacement. An empty `from` would match everywhere and is ignored, as Nix does.
    pub fn insert(&mut self, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        let from = from.into();
        if !from.is_empty() {
            self.0.insert(from, to.into());
        }
    }

    /// Applies every replacement to `text`, at all its occurrences.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        self.0
            .iter()
            .fold(text.to_vec(), |text, (from, to)| replace(text, from, to))
    }
}

fn replace(text: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let Some(mut at) = find(&text, from) else {
        return text;
    };
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    loop {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
        match find(rest, from) {
            Some(next) => at = next,
            None => break,
        }
    }
    replaced.extend_from_slice(rest);
    replaced
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut start = 0;
    while let Some(offset) = text[start..].iter().position(|&byte| byte == first) {
        let at = start + offset;
        if text[at..].starts_with(wanted) {
            return Some(at);
        }
        start = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrites(pairs: &[(&str, &str)]) -> Rewrites {
        let mut rewrites = Rewrites::default();
        for (from, to) in pairs {
            rewrites.insert(*from, *to);
        }
        rewrites
    }

    #[test]
    fn replaces_every_occurrence_and_keeps_raw_bytes() {
        let rewrites = rewrites(&[("ab", "xyz")]);
        assert_eq!(rewrites.apply(b"ab\xffaabb\x00ab"), b"xyz\xffaxyzb\x00xyz");
        assert_eq!(rewrites.apply(b"aa"), b"aa");
        assert_eq!(rewrites.apply(b""), b"");
    }

    #[test]
    fn applies_in_byte_order_of_the_replaced_text() {
        assert_eq!(rewrites(&[("b", "c"), ("a", "b")]).apply(b"ab"), b"cc");
        assert_eq!(rewrites(&[("", "x")]).apply(b"ab"), b"ab");
    }
}
