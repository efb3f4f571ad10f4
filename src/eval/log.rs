//! Nix's structured log (`--log-format internal-json`): what it says, builds and fails with.
//!
//! It is the same in every version and locale: lines `@nix {…}` of which three kinds concern us.
//!
//! | action   | what                                                        |
//! |----------|-------------------------------------------------------------|
//! | `msg`    | a message with a level: 0 error, 1 warning, 2 notice, 3 info |
//! | `start`  | an activity; type 105 builds the derivation in `fields[0]`   |
//! | `result` | of an activity; type 101 is a line of its log                |
//!
//! All other lines come from programs that Nix runs (git, ssh) and are kept as they are.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use crate::nix::StorePath;

const BUILD: u64 = 105;
const BUILD_LOG_LINE: u64 = 101;
/// The highest level that a person who did not ask for more sees.
const INFO: u64 = 3;
/// How many lines of a failed build are part of the error.
const TAIL: usize = 25;

/// Collects what matters of one `nix` process.
#[derive(Debug, Default)]
pub struct Log {
    /// Derivations it built itself, in order, each once.
    pub built: Vec<StorePath>,
    /// Its errors, and what programs it ran said: shown whole when it fails.
    pub errors: Vec<String>,
    running: BTreeMap<u64, StorePath>,
    tails: BTreeMap<StorePath, VecDeque<String>>,
}

#[derive(Deserialize)]
struct Line {
    action: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    level: u64,
    #[serde(default, rename = "type")]
    kind: u64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    fields: Vec<Value>,
}

impl Log {
    /// Takes a line of stderr; hands on what a person wants to see while it runs.
    ///
    /// Errors are not handed on: they are the outcome, and told once.
    pub fn take(&mut self, line: &str, on_progress: &mut dyn FnMut(&str)) {
        let Some(json) = line.strip_prefix("@nix ") else {
            return self.foreign(line, on_progress);
        };
        // A line that is not what we know is not ours to hide.
        let Ok(line) = serde_json::from_str::<Line>(json) else {
            return self.foreign(line, on_progress);
        };
        match line.action.as_str() {
            "msg" => self.message(line.level, &without_escapes(&line.msg), on_progress),
            "start" => self.start(&line, on_progress),
            "stop" => {
                self.running.remove(&line.id);
            }
            "result" if line.kind == BUILD_LOG_LINE => {
                let text = line
                    .fields
                    .first()
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.build_line(line.id, without_escapes(text), on_progress);
            }
            _ => {}
        }
    }

    fn foreign(&mut self, line: &str, on_progress: &mut dyn FnMut(&str)) {
        let line = without_escapes(line);
        on_progress(&line);
        self.errors.push(line);
    }

    fn message(&mut self, level: u64, text: &str, on_progress: &mut dyn FnMut(&str)) {
        if level == 0 && (text.starts_with("error") || text.starts_with("(use '--show-trace'")) {
            self.errors.push(text.to_owned());
        } else if level <= INFO && !is_about_our_own_doing(text) {
            text.lines().for_each(on_progress);
        }
    }

    fn start(&mut self, line: &Line, on_progress: &mut dyn FnMut(&str)) {
        if line.kind == BUILD
            && let Some(drv) = line.fields.first().and_then(Value::as_str)
            && let Ok(drv) = drv.parse::<StorePath>()
        {
            self.running.insert(line.id, drv.clone());
            if !self.built.contains(&drv) {
                self.built.push(drv);
            }
        }
        if (1..=INFO).contains(&line.level) && !line.text.is_empty() {
            on_progress(&without_escapes(&line.text));
        }
    }

    fn build_line(&mut self, id: u64, text: String, on_progress: &mut dyn FnMut(&str)) {
        let Some(drv) = self.running.get(&id) else {
            return on_progress(&text);
        };
        on_progress(&format!("{}> {text}", drv.name().trim_end_matches(".drv")));
        let tail = self.tails.entry(drv.clone()).or_default();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(text);
    }

    /// Its errors as one text, with the end of the log of each build that they name: Nix leaves
    /// that out here, for it has told the lines before.
    pub fn error_text(&self) -> String {
        let mut text = self.errors.join("\n");
        for (drv, tail) in &self.tails {
            if text.contains(&drv.to_string()) {
                let lines: Vec<_> = tail.iter().map(|line| format!("       > {line}")).collect();
                text = format!("{text}\nthe log of `{drv}` ends with\n{}", lines.join("\n"));
            }
        }
        text
    }
}

/// Warnings about options that we, not the user, give: a daemon that does not trust the user
/// names them, and `nix-instantiate` misses the root that our caller makes.
fn is_about_our_own_doing(text: &str) -> bool {
    text.contains("you did not specify '--add-root'")
        || (text.contains("restricted setting") && text.contains("'eval-cache'"))
}

/// Removes terminal escapes: Nix writes them into its structured log whatever stderr is.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // The sequence ends at its first letter.
                chars.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
            // What else could move a cursor or ring a bell.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(lines: &[&str]) -> (Log, Vec<String>) {
        let mut log = Log::default();
        let mut shown = Vec::new();
        for line in lines {
            log.take(line, &mut |text| shown.push(text.to_owned()));
        }
        (log, shown)
    }

    #[test]
    fn lists_builds_and_shows_their_log() {
        let start = r#"@nix {"action":"start","fields":["/nix/store/69shyq6n7i06cnm6p2z0dggian60vxmp-ifd.drv","",1,1],"id":45,"level":3,"text":"building '/nix/store/69shyq6n7i06cnm6p2z0dggian60vxmp-ifd.drv'","type":105}"#;
        let line = r#"@nix {"action":"result","fields":["loggy"],"id":45,"type":101}"#;
        let (log, shown) = take(&[start, line, start, r#"@nix {"action":"stop","id":45}"#]);
        assert_eq!(log.built.len(), 1);
        assert_eq!(shown[1], "ifd> loggy");
        assert!(shown[0].starts_with("building '/nix/store/69shyq"));
    }

    #[test]
    fn keeps_errors_apart_and_plain() {
        let (log, shown) = take(&[
            r#"@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m oh\nsecond"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"trace: here"}"#,
            r#"@nix {"action":"msg","level":1,"msg":"warning: Git tree '/x' is dirty"}"#,
            r#"@nix {"action":"msg","level":5,"msg":"debug"}"#,
            "fatal: no such repository",
            "@nix {broken",
        ]);
        assert_eq!(
            log.error_text(),
            "error: oh\nsecond\nfatal: no such repository\n@nix {broken"
        );
        assert_eq!(
            shown[..2],
            ["trace: here", "warning: Git tree '/x' is dirty"]
        );
    }
}
