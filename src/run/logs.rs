//! Lines from the bytes a builder writes.

use std::collections::VecDeque;

/// How many of the last lines a failure shows.
pub(super) const TAIL: usize = 25;
/// A line longer than this is cut: a builder may write for ever without a newline.
const LONGEST: usize = 64 << 10;

/// The lines of one node.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    tail: VecDeque<String>,
}

impl Lines {
    /// Takes bytes and gives every line that is complete.
    pub(super) fn push(&mut self, bytes: &[u8], line: &mut dyn FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() > LONGEST {
                self.flush(line);
            }
        }
    }

    /// Gives what is left: an unfinished line counts as one (Nix spec §4.11).
    pub(super) fn flush(&mut self, line: &mut dyn FnMut(String)) {
        if self.rest.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.rest);
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes).into_owned();
        // Structured messages are for the log file, not for people (Nix spec §4.11).
        if text.starts_with("@nix ") {
            return;
        }
        self.tail.push_back(text.clone());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
        line(text);
    }

    /// The last lines, oldest first.
    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.push(piece, &mut |line| seen.push(line));
        }
        lines.flush(&mut |line| seen.push(line));
        seen
    }

    #[test]
    fn joins_pieces_and_keeps_an_unfinished_line() {
        assert_eq!(
            lines(&[b"on", b"e\ntwo\nthr", b"ee"]),
            ["one", "two", "three"]
        );
    }

    #[test]
    fn leaves_out_structured_messages() {
        assert_eq!(lines(&[b"@nix {\"action\":\"setPhase\"}\nx\n"]), ["x"]);
    }

    #[test]
    fn cuts_a_line_without_end() {
        assert!(lines(&[&[b'x'; LONGEST + 1], b"y\n"]).len() > 1);
    }

    #[test]
    fn keeps_the_last_lines() {
        let mut kept = Lines::default();
        kept.push("line\n".repeat(100).as_bytes(), &mut |_| {});
        assert_eq!(kept.tail().len(), TAIL);
    }
}
