//! Goes through the text of a `.drv` file and copies nothing (Nix spec §2.1).
//!
//! ```text
//! list   = "[" [ element { "," element } ] "]"
//! string = '"' { escape | any byte but '"' and '\' } '"'
//! escape = '\' ( '"' | '\' | "n" | "r" | "t" )
//! ```
//!
//! These are the escapes that Nix writes; it reads others too, and here they are refused. So what
//! is read here says the same if it is written again, as long as it holds no raw line break,
//! carriage return or tab, which Nix writes as escapes: whoever reads looks for these beforehand.

use std::ops::Range;

use memchr::memchr2;

/// A place in a text. What is not there as it should be is `None`, and the text is given up.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at the beginning.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How much is behind it.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Option<()> {
        (self.at == self.text.len()).then_some(())
    }

    /// Goes past what must be next.
    pub(super) fn skip(&mut self, expected: &str) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        rest.starts_with(expected.as_bytes())
            .then(|| self.at += expected.len())
    }

    /// Goes past a sign that must be next.
    pub(super) fn sign(&mut self, expected: u8) -> Option<()> {
        let next = self.text.as_bytes().get(self.at);
        (next == Some(&expected)).then(|| self.at += 1)
    }

    /// Goes past a string that has no escapes.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        self.place().map(|place| &self.text[place])
    }

    /// Goes past a string that has no escapes, and says where it is.
    pub(super) fn place(&mut self) -> Option<Range<usize>> {
        self.sign(b'"')?;
        let start = self.at;
        (self.special()? == b'"').then(|| start..self.at - 1)
    }

    /// Goes past a string that is written with escapes, and says where it is.
    pub(super) fn string(&mut self) -> Option<Range<usize>> {
        self.sign(b'"')?;
        let start = self.at;
        loop {
            match self.special()? {
                b'"' => return Some(start..self.at - 1),
                _ => match self.text.as_bytes().get(self.at)? {
                    b'"' | b'\\' | b'n' | b'r' | b't' => self.at += 1,
                    _ => return None,
                },
            }
        }
    }

    /// Goes past the next quote or backslash, and says which it is.
    fn special(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        // Most variables are empty.
        if rest.first() == Some(&b'"') {
            self.at += 1;
            return Some(b'"');
        }
        let found = memchr2(b'"', b'\\', rest)?;
        self.at += found + 1;
        Some(rest[found])
    }

    /// Goes past a list, element by element.
    pub(super) fn list(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.sign(b'[')?;
        if self.sign(b']').is_some() {
            return Some(());
        }
        loop {
            element(self)?;
            if self.sign(b']').is_some() {
                return Some(());
            }
            self.sign(b',')?;
        }
    }
}

/// The bytes that a string stands for.
pub(super) fn unescape(written: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(other) => other,
                None => break,
            },
            other => other,
        });
    }
    bytes
}
