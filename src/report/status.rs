//! The live block: what runs now, for how long, and how far the run is. Pure: events and times go
//! in, lines that fit the terminal come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::narrate::doing;
use super::short;
use super::style::{count, duration};
use super::text::{columns, cut, label};
use crate::event::{Event, NodeId, NodeKind, Outcome};

/// What the block shows.
#[derive(Debug, Default)]
pub struct Status {
    phase: Option<String>,
    total: usize,
    done: BTreeSet<NodeId>,
    failed: usize,
    running: BTreeMap<NodeId, Running>,
}

#[derive(Debug)]
struct Running {
    label: String,
    since: Duration,
    last: String,
}

impl Status {
    /// Takes one event; `at` is the time since the report began.
    pub fn apply(&mut self, event: &Event, at: Duration) {
        match event {
            Event::Evaluating { installable } => {
                self.phase = Some(format!("evaluating {}", label(installable)));
            }
            Event::Importing { paths } => {
                self.phase = Some(format!("importing {}", count(*paths, "path", "paths")));
            }
            Event::Planned { build, effects, .. } => {
                self.phase = None;
                // A plan made anew counts what is left.
                self.total = self.done.len() + build + effects;
            }
            Event::Lost { .. } => self.phase = Some("planning anew".to_owned()),
            Event::EngineAwaited { .. } => {
                self.phase = Some("waiting for the engine".to_owned());
            }
            Event::NodeAgain { node, .. } => {
                self.running.remove(node);
                self.done.remove(node);
            }
            Event::Evaluated { .. } | Event::Imported { .. } => self.phase = None,
            Event::NodeStarted {
                node, kind, name, ..
            } => {
                let word = match kind {
                    NodeKind::Build => String::new(),
                    NodeKind::Effect => format!("{} ", doing(NodeKind::Effect)),
                };
                let label = format!("{word}{}", label(name));
                let running = Running {
                    label,
                    since: at,
                    last: String::new(),
                };
                self.running.insert(node.clone(), running);
            }
            Event::NodeWaiting { node, reason } => {
                let running = self.running.entry(node.clone()).or_insert_with(|| Running {
                    label: short(node),
                    since: at,
                    last: String::new(),
                });
                running.last = format!("waiting: {}", label(reason));
            }
            Event::NodeLog { node, line } => {
                if let Some(running) = self.running.get_mut(node) {
                    running.last = label(line);
                }
            }
            Event::NodeFinished { node, outcome, .. } => {
                self.running.remove(node);
                self.done.insert(node.clone());
                if matches!(outcome, Outcome::Failed { .. } | Outcome::Unknown { .. }) {
                    self.failed += 1;
                }
            }
            Event::RunStarted { .. } | Event::Warning { .. } | Event::Outputs { .. } => {}
            Event::RunFinished { .. } => *self = Self::default(),
        }
    }

    /// The block at the time `at`: at most `rows` lines of at most `width` columns, oldest first.
    /// Empty when nothing is going on.
    pub fn render(&self, at: Duration, width: usize, rows: usize) -> Vec<String> {
        if rows == 0 || (self.phase.is_none() && self.total == 0 && self.running.is_empty()) {
            return vec![];
        }
        let mut lines = vec![cut(&self.head(at), width)];
        let mut running: Vec<&Running> = self.running.values().collect();
        running.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.label.cmp(&b.label)));
        let room = rows - 1;
        let shown = if running.len() > room {
            room.saturating_sub(1)
        } else {
            running.len()
        };
        lines.extend(
            running[..shown]
                .iter()
                .map(|running| running.line(at, width)),
        );
        if running.len() > shown && room > 0 {
            lines.push(cut(
                &format!("  … and {} more", running.len() - shown),
                width,
            ));
        }
        lines
    }

    fn head(&self, at: Duration) -> String {
        let mut parts = vec![format!("[{}/{}]", self.done.len(), self.total)];
        if self.total == 0 {
            parts.clear();
        }
        if self.failed > 0 {
            parts.push(format!("{} failed", self.failed));
        }
        if let Some(phase) = &self.phase {
            parts.push(phase.clone());
        } else if !self.running.is_empty() {
            parts.push(format!("{} running", self.running.len()));
        }
        parts.push(whole_seconds(at));
        parts.join("  ")
    }
}

impl Running {
    fn line(&self, at: Duration, width: usize) -> String {
        let elapsed = whole_seconds(at.saturating_sub(self.since));
        let line = format!("  {}  {elapsed}", self.label);
        let room = width.saturating_sub(columns(&line) + 2);
        if columns(&line) > width {
            // The time is what changes: it stays, the name gives way.
            let name = cut(&self.label, width.saturating_sub(columns(&elapsed) + 4));
            return cut(&format!("  {name}  {elapsed}"), width);
        }
        // Less than that says nothing.
        if self.last.is_empty() || room < 12 {
            return line;
        }
        format!("{line}  {}", cut(&self.last, room))
    }
}

fn whole_seconds(time: Duration) -> String {
    if time.as_secs() < 10 {
        return format!("{} s", time.as_secs());
    }
    duration(time.as_secs_f64().floor())
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn started(name: &str) -> Event {
        Event::NodeStarted {
            node: samples::node(name),
            kind: NodeKind::Build,
            name: name.into(),
            attempt: "a".into(),
        }
    }

    fn busy() -> Status {
        let mut status = Status::default();
        let second = Duration::from_secs;
        status.apply(
            &Event::Planned {
                derivations: 9,
                valid: 1,
                build: 7,
                effects: 1,
            },
            second(1),
        );
        status.apply(&started("hello-2.12"), second(2));
        status.apply(&started("a-derivation-with-a-long-name-0.1"), second(3));
        status.apply(&started("third"), second(4));
        let line = "\u{1b}[2Kchecking\tfor a very long thing in the compiler's own tree".into();
        status.apply(
            &Event::NodeLog {
                node: samples::node("hello-2.12"),
                line,
            },
            second(5),
        );
        status.apply(
            &samples::finished("x", 1.0, samples::broken(&[])),
            second(6),
        );
        status
    }

    #[test]
    fn shows_what_runs() {
        let block = busy().render(Duration::from_secs(70), 60, 10).join("\n");
        insta::assert_snapshot!(block, @"
        [1/8]  1 failed  3 running  1 min 10 s
          hello-2.12  1 min 8 s  checking for a very long thing in …
          a-derivation-with-a-long-name-0.1  1 min 7 s
          third  1 min 6 s
        ");
    }

    #[test]
    fn gives_way_in_a_narrow_and_low_terminal() {
        let block = busy().render(Duration::from_secs(70), 20, 3).join("\n");
        insta::assert_snapshot!(block, @"
        [1/8]  1 failed  3 …
          hello-…  1 min 8 s
          … and 2 more
        ");
    }

    #[test]
    fn never_exceeds_the_terminal() {
        for width in 0..90 {
            for rows in 0..6 {
                let block = busy().render(Duration::from_secs(4000), width, rows);
                assert!(block.len() <= rows);
                assert!(
                    block.iter().all(|line| columns(line) <= width),
                    "{width} {block:?}"
                );
            }
        }
    }

    #[test]
    fn is_gone_when_the_run_is_over() {
        let mut status = Status::default();
        let at = Duration::from_secs(1);
        for event in &samples::everything() {
            status.apply(event, at);
        }
        assert!(status.render(at, 80, 10).is_empty());
    }
}
