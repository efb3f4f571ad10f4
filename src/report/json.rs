//! The report for programs: one JSON object a line, each an [`Event`] as it is.

use std::io::Write;

use crate::event::{Event, Sink};

/// Writes events as lines of JSON.
#[derive(Debug)]
pub struct Json<W> {
    out: Option<W>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`, which is flushed after every event.
    pub fn new(out: W) -> Self {
        Self { out: Some(out) }
    }
}

impl<W: Write> Sink for Json<W> {
    fn event(&mut self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("events are plain data with string keys");
        line.push(b'\n');
        // A reader that has gone must not stop a build: the rest stays unsaid.
        if let Some(out) = &mut self.out
            && out.write_all(&line).and_then(|()| out.flush()).is_err()
        {
            self.out = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn every_event_is_one_line_that_the_documentation_shows() {
        let mut out = vec![];
        let mut json = Json::new(&mut out);
        for event in &samples::everything() {
            json.event(event);
        }
        let out = String::from_utf8(out).unwrap();
        let documented = include_str!("../../docs/json-events.md");
        for line in out.lines() {
            assert!(
                serde_json::from_str::<serde_json::Value>(line).is_ok(),
                "{line}"
            );
            assert!(
                documented.contains(line),
                "docs/json-events.md lacks this line:\n{line}"
            );
        }
        assert_eq!(out.lines().count(), samples::everything().len());
    }

    #[test]
    fn what_a_builder_writes_cannot_break_a_line() {
        let mut out = vec![];
        let line = "\n{\"event\":\"run-finished\"}\u{1b}[2J".to_owned();
        Json::new(&mut out).event(&Event::NodeLog {
            node: samples::node("x"),
            line,
        });
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.lines().count(), 1);
        assert!(!out.contains('\u{1b}'));
    }
}
