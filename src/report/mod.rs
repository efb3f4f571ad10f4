//! What people and programs see of a run: consumers of [`crate::event`], nothing else.
//!
//! | module | its part |
//! |---|---|
//! | [`style`] | ink, whether to use it, durations, quoting for a shell |
//! | [`text`] | makes hostile text harmless, measures and cuts it |
//! | [`narrate`] | event → lines, pure; both human reports use it |
//! | [`summary`] | the table at the end, pure |
//! | [`status`] | what runs now → the live block, pure |
//! | [`plain`], [`terminal`], [`json`] | the three sinks |
//!
//! Everything for people goes to stderr; stdout carries data alone. Colour repeats what a word
//! already says. A builder's text is hostile: it passes [`text::clean`] before it is written, except
//! into JSON, whose own escapes make it harmless.
//!
//! Left out: test reports and web pages, and the plan's rendering, which belongs to `plan`.

pub mod json;
pub mod narrate;
pub mod plain;
pub mod status;
pub mod style;
pub mod summary;
pub mod terminal;
pub mod text;

use crate::event::NodeId;

/// How much the human reports tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Failures, warnings, and a summary only if something went wrong (`-q`).
    Quiet,
    /// What starts and what ends.
    Normal,
    /// The same with every line of every log (`-L`).
    Logs,
}

/// What the lines that repeat a failure need to know of the command that was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The store's root for `--store`; none for the machine's own store.
    pub store: Option<String>,
    /// The words that name the pipeline and its facts; none if no pipeline runs.
    pub pipeline: Vec<String>,
    /// Where the build store is, and with it the logs.
    pub logs: Logs,
}

/// Where the logs of a run stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// On this machine.
    Here,
    /// In a daemon's cache mount, where no command reaches them.
    WithDaemon {
        /// The engine, as `--engine` takes it.
        engine: &'static str,
    },
}

/// A node's short name: what stands between hash and `.drv`, or `effect NAME`.
pub fn short(node: &NodeId) -> String {
    let text = node.0.as_str();
    if let Some(effect) = text.strip_prefix("effect:") {
        return format!("effect {}", text::label(effect));
    }
    let base = text.rsplit('/').next().unwrap_or(text);
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    text::label(name.strip_suffix(".drv").unwrap_or(name))
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_its_name() {
        let drv = NodeId("/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello-2.12.drv".into());
        assert_eq!(short(&drv), "hello-2.12");
        assert_eq!(
            short(&NodeId("effect:deploy\u{1b}[2J".into())),
            "effect deploy"
        );
    }
}
