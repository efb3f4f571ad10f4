//! The report without a terminal: one line after the other.

use std::io::Write;

use super::narrate::Narrator;
use crate::event::{Event, Sink};

/// Writes lines as they come.
#[derive(Debug)]
pub struct Plain<W> {
    narrator: Narrator,
    out: Option<W>,
}

impl<W: Write> Plain<W> {
    /// Writes what `narrator` tells to `out`.
    pub fn new(narrator: Narrator, out: W) -> Self {
        Self {
            narrator,
            out: Some(out),
        }
    }
}

impl<W: Write> Sink for Plain<W> {
    fn event(&mut self, event: &Event) {
        let mut text = self.narrator.tell(event).join("\n");
        if text.is_empty() {
            return;
        }
        text.push('\n');
        // A reader that has gone must not stop a build: the rest stays unsaid.
        if let Some(out) = &mut self.out
            && out
                .write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .is_err()
        {
            self.out = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::narrate::Progress;
    use super::super::style::Colour;
    use super::super::{Advice, Detail, Logs, samples};
    use super::*;

    /// Fails after the first write, as a closed pipe does.
    struct Closing(usize);

    impl Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 == 1 {
                Ok(bytes.len())
            } else {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn falls_silent_when_nobody_reads() {
        let advice = Advice {
            store: None,
            pipeline: vec![],
            logs: Logs::Here,
        };
        let narrator = Narrator::new(Detail::Logs, Progress::Lines, Colour::Never, advice);
        let mut closing = Closing(0);
        let mut plain = Plain::new(narrator, &mut closing);
        for event in &samples::everything() {
            plain.event(event);
        }
        assert_eq!(closing.0, 2);
    }
}
