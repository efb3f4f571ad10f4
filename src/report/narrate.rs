//! Events as lines for people: pure, the same for a terminal and without one.
//!
//! Every line of an outcome begins with its word (`built`, `failed`, `held`, …), so it reads the
//! same without colour and can be searched for. A failure brings the last lines of its log, the
//! command that shows the rest, and the lines that repeat it, with Pontoon and with plain Nix.

use super::style::{Colour, Ink, bytes, count, duration, quote};
use super::text::{clean, label};
use super::{Advice, Detail, Logs, short, summary};
use crate::event::{Event, Failure, Lost, NodeId, NodeKind, Outcome};

/// Whether a live block shows what runs, so that lines need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is a live block.
    Block,
    /// Lines are all there is.
    Lines,
}

/// Turns events into lines, without their newlines.
#[derive(Debug)]
pub struct Narrator {
    /// How much to tell.
    pub detail: Detail,
    /// Who shows what runs.
    pub progress: Progress,
    /// Whether to use ink.
    pub colour: Colour,
    /// For the lines that repeat a failure.
    pub advice: Advice,
    tally: summary::Tally,
}

impl Narrator {
    /// Begins with nothing told.
    pub fn new(detail: Detail, progress: Progress, colour: Colour, advice: Advice) -> Self {
        Self {
            detail,
            progress,
            colour,
            advice,
            tally: summary::Tally::default(),
        }
    }

    /// The lines of one event, in order; most events of a quiet report have none.
    pub fn tell(&mut self, event: &Event) -> Vec<String> {
        self.tally.add(event);
        match event {
            Event::NodeLog { node, line } if self.detail == Detail::Logs => {
                vec![self.log_line(&short(node), line)]
            }
            Event::NodeFinished {
                node,
                kind,
                name,
                outcome,
                seconds,
            } => self.finished(node, *kind, &label(name), outcome, *seconds),
            Event::Warning { text, hint } => self.warning(text, hint.as_deref()),
            Event::Lost {
                what,
                reason,
                time,
                of,
            } => {
                let what = match what {
                    Lost::Store => "the store was lost",
                    Lost::Engine => "the engine was lost",
                };
                self.warning(
                    &format!("{what}: {reason}; planning anew ({time} of at most {of} times)"),
                    None,
                )
            }
            Event::RunFinished {
                summary, seconds, ..
            } => {
                if self.detail == Detail::Quiet && !self.tally.anything_wrong() {
                    return vec![];
                }
                self.tally.table(summary, *seconds, self.colour)
            }
            _ if self.detail == Detail::Quiet => vec![],
            event => self.progress(event),
        }
    }

    fn progress(&self, event: &Event) -> Vec<String> {
        let running = self.progress == Progress::Lines;
        match event {
            Event::RunStarted { store, engine, .. } => {
                vec![format!("store {}, engine {}", label(store), label(engine))]
            }
            Event::Evaluating { installable } if running => {
                vec![format!("evaluating {}", label(installable))]
            }
            Event::Evaluated {
                targets,
                seconds,
                built_while_evaluating,
            } => {
                let targets = count(*targets, "target", "targets");
                let mut lines = vec![format!("evaluated {targets} in {}", duration(*seconds))];
                let built = built_while_evaluating.iter();
                lines.extend(built.map(|path| format!("built while evaluating: {path}")));
                lines
            }
            Event::Planned {
                derivations,
                valid,
                build,
                effects,
            } => {
                let derivations = count(*derivations, "derivation", "derivations");
                let effects = match effects {
                    0 => String::new(),
                    effects => format!("; {}", count(*effects, "effect", "effects")),
                };
                vec![format!(
                    "plan: {derivations}, {valid} valid, {build} to build{effects}"
                )]
            }
            Event::Importing { paths } if running => {
                vec![format!("importing {}", count(*paths, "path", "paths"))]
            }
            Event::Imported {
                paths,
                bytes: size,
                seconds,
            } => {
                let paths = count(*paths, "path", "paths");
                vec![format!(
                    "imported {paths}, {}, in {}",
                    bytes(*size),
                    duration(*seconds)
                )]
            }
            Event::EngineAwaited { reason, seconds } => {
                let reason = label(reason);
                vec![format!(
                    "waiting at most {seconds} s for the engine: {reason}"
                )]
            }
            Event::NodeAgain {
                kind, name, reason, ..
            } => {
                let name = match kind {
                    NodeKind::Build => label(name),
                    NodeKind::Effect => format!("effect {}", label(name)),
                };
                vec![format!("again {name}: {}", label(reason))]
            }
            Event::NodeWaiting { node, reason } => {
                vec![format!("waiting {}: {}", short(node), label(reason))]
            }
            Event::NodeStarted { kind, name, .. } if running => {
                vec![format!("{} {}", doing(*kind), label(name))]
            }
            _ => vec![],
        }
    }

    fn log_line(&self, name: &str, line: &str) -> String {
        let prefix = format!("{name}>");
        format!(
            "{} {}",
            self.colour.paint(Ink::Faint, &prefix),
            clean(line, self.colour)
        )
    }

    fn warning(&self, text: &str, hint: Option<&str>) -> Vec<String> {
        let mut lines = vec![format!(
            "{} {}",
            self.ink(Ink::Warn, "warning:"),
            label(text)
        )];
        lines
            .extend(hint.map(|hint| format!("{} {}", self.ink(Ink::Strong, "hint:"), label(hint))));
        lines
    }

    fn finished(
        &self,
        node: &NodeId,
        kind: NodeKind,
        name: &str,
        outcome: &Outcome,
        seconds: f64,
    ) -> Vec<String> {
        let named = match kind {
            NodeKind::Build => name.to_owned(),
            NodeKind::Effect => format!("effect {name}"),
        };
        let took = duration(seconds);
        let good = |word| vec![format!("{} {named} in {took}", self.ink(Ink::Good, word))];
        match outcome {
            Outcome::Built { .. }
            | Outcome::Succeeded
            | Outcome::AlreadyValid
            | Outcome::Cancelled
                if self.detail == Detail::Quiet =>
            {
                vec![]
            }
            Outcome::Built { .. } => good("built"),
            Outcome::Succeeded => good("succeeded"),
            Outcome::AlreadyValid => vec![format!("valid {named}: built elsewhere meanwhile")],
            Outcome::Cancelled => vec![format!("{} {named}", self.ink(Ink::Warn, "cancelled"))],
            Outcome::DependencyFailed { because } => {
                let word = self.ink(Ink::Warn, "dependency failed");
                vec![format!("{word} {named}: needs {}", short(because))]
            }
            Outcome::Held { because } => {
                vec![format!(
                    "{} {named}: because of {}",
                    self.ink(Ink::Warn, "held"),
                    short(because)
                )]
            }
            Outcome::Unknown { detail } => {
                let word = self.ink(Ink::Bad, "unknown");
                vec![
                    format!("{word} {named} after {took}: {}", label(detail)),
                    "  it may or may not have happened: look at its target before you run it again"
                        .to_owned(),
                ]
            }
            Outcome::Failed { failure, tail } => {
                let word = self.ink(Ink::Bad, "failed");
                let mut lines = vec![format!("{word} {named} after {took}: {}", reason(failure))];
                lines.extend(self.tail(tail));
                lines.extend(self.again(node, kind));
                lines
            }
        }
    }

    fn tail(&self, tail: &[String]) -> Vec<String> {
        if tail.is_empty() {
            return vec!["  its log is empty".to_owned()];
        }
        let heading = match tail.len() {
            1 => "  the last line of its log:".to_owned(),
            lines => format!("  the last {lines} lines of its log:"),
        };
        let quoted = tail
            .iter()
            .map(|line| format!("  > {}", clean(line, self.colour)));
        std::iter::once(heading).chain(quoted).collect()
    }

    /// How to see more and try again. An effect is repeated with its pipeline only: its gate and
    /// its order are part of what it does.
    fn again(&self, node: &NodeId, kind: NodeKind) -> Vec<String> {
        let store = match &self.advice.store {
            Some(root) => format!(" --store {}", quote(root)),
            None => String::new(),
        };
        let engine = match self.advice.logs {
            Logs::Here => "",
            Logs::WithDaemon { engine } => &format!(" --engine {engine}"),
        };
        match kind {
            NodeKind::Build => {
                let log = format!("  whole log: pontoon log {}{store}", quote(&node.0));
                let mut lines = match self.advice.logs {
                    Logs::Here => vec![log],
                    Logs::WithDaemon { .. } => vec![],
                };
                lines.push(format!(
                    "  try again: pontoon build {}{store}{engine}",
                    quote(&format!("{node}^*"))
                ));
                lines.push(format!(
                    "  with Nix:  nix-store -r {}{store}",
                    quote(&node.0)
                ));
                lines
            }
            NodeKind::Effect if self.advice.pipeline.is_empty() => vec![],
            NodeKind::Effect => {
                let words = self.advice.pipeline.iter();
                let words: Vec<_> = words.map(|word| quote(&label(word)).into_owned()).collect();
                vec![format!(
                    "  try again: pontoon run {}{store}{engine}",
                    words.join(" ")
                )]
            }
        }
    }

    fn ink<'a>(&self, ink: Ink, word: &'a str) -> std::borrow::Cow<'a, str> {
        self.colour.paint(ink, word)
    }
}

/// A failure's text, harmless: reasons may quote what a builder left behind.
pub fn reason(failure: &Failure) -> String {
    label(&failure.to_string().replace('\n', "; "))
}

/// The word for a node that runs.
pub fn doing(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Build => "building",
        NodeKind::Effect => "running effect",
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn told(detail: Detail, progress: Progress, events: &[Event]) -> String {
        let advice = Advice {
            store: Some("/srv/my store".into()),
            pipeline: vec![".#release".into()],
            logs: Logs::Here,
        };
        let mut narrator = Narrator::new(detail, progress, Colour::Never, advice);
        events
            .iter()
            .flat_map(|event| narrator.tell(event))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn without_a_terminal_every_step_is_a_line() {
        insta::assert_snapshot!(told(Detail::Logs, Progress::Lines, &samples::everything()), @"
        store /srv/store, engine embedded (strong)
        evaluating .#hello
        evaluated 1 target in 0.4 s
        built while evaluating: /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-generated.nix
        plan: 6 derivations, 1 valid, 5 to build; 3 effects
        importing 12 paths
        imported 12 paths, 3.2 MiB, in 0.2 s
        waiting hello-2.12: another program's lock
        building hello-2.12
        hello-2.12> checking for gcc... yes
        warning: no binary cache is asked: 5 derivations might have been there
        hint: `pontoon plan` lists them
        warning: the engine was lost: the daemon ended the session; planning anew (1 of at most 3 times)
        waiting at most 30 s for the engine: the BuildKit daemon does not listen
        again hello-2.12: the engine was lost while it ran
        built hello-2.12 in 3.1 s
        valid zlib-1.3: built elsewhere meanwhile
        failed broken after 1 min 1 s: exit code 1
          the last 2 lines of its log:
          > cc: no input files
          > make: Error 1
          whole log: pontoon log /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-broken.drv --store '/srv/my store'
          try again: pontoon build '/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-broken.drv^*' --store '/srv/my store'
          with Nix:  nix-store -r /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-broken.drv --store '/srv/my store'
        dependency failed needs-broken: needs broken
        cancelled late
        succeeded effect announce in 0.7 s
        held effect deploy: because of broken
        unknown effect push after 2.0 s: its agent was killed
          it may or may not have happened: look at its target before you run it again
        derivations        1 built, 2 valid, 1 failed, 1 dependency failed, 1 cancelled
        effects            1 succeeded, 1 held, 1 unknown
        failed             broken: exit code 1
        unknown            effect push: its agent was killed
        dependency failed  because of broken: needs-broken
        held               because of broken: effect deploy
        cancelled          late
        time               1 min 15 s
        ");
    }

    #[test]
    fn quiet_tells_what_went_wrong() {
        insta::assert_snapshot!(told(Detail::Quiet, Progress::Block, &samples::everything()), @"
        warning: no binary cache is asked: 5 derivations might have been there
        hint: `pontoon plan` lists them
        warning: the engine was lost: the daemon ended the session; planning anew (1 of at most 3 times)
        failed broken after 1 min 1 s: exit code 1
          the last 2 lines of its log:
          > cc: no input files
          > make: Error 1
          whole log: pontoon log /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-broken.drv --store '/srv/my store'
          try again: pontoon build '/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-broken.drv^*' --store '/srv/my store'
          with Nix:  nix-store -r /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-broken.drv --store '/srv/my store'
        dependency failed needs-broken: needs broken
        held effect deploy: because of broken
        unknown effect push after 2.0 s: its agent was killed
          it may or may not have happened: look at its target before you run it again
        derivations        1 built, 2 valid, 1 failed, 1 dependency failed, 1 cancelled
        effects            1 succeeded, 1 held, 1 unknown
        failed             broken: exit code 1
        unknown            effect push: its agent was killed
        dependency failed  because of broken: needs-broken
        held               because of broken: effect deploy
        cancelled          late
        time               1 min 15 s
        ");
    }

    #[test]
    fn quiet_says_nothing_of_a_good_run() {
        let good = samples::finished("a", 1.0, Outcome::AlreadyValid);
        let end = Event::RunFinished {
            summary: crate::event::Summary::default(),
            seconds: 1.0,
            exit_code: 0,
        };
        assert_eq!(told(Detail::Quiet, Progress::Lines, &[good, end]), "");
    }

    #[test]
    fn a_failed_effect_is_repeated_with_its_pipeline() {
        let failed = samples::effect("deploy", 2.0, samples::broken(&[]));
        insta::assert_snapshot!(told(Detail::Normal, Progress::Lines, &[failed]), @"
        failed effect deploy after 2.0 s: exit code 1
          its log is empty
          try again: pontoon run '.#release' --store '/srv/my store'
        ");
    }

    #[test]
    fn a_hostile_log_stays_a_line() {
        let tail = ["\u{1b}[2J\u{1b}[31mgone\r\u{1b}]0;title\u{7}red\u{1b}[0m"];
        let failed = samples::finished("x", 2.0, samples::broken(&tail));
        let text = told(Detail::Normal, Progress::Lines, &[failed]);
        assert!(
            text.contains("  > red\n") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
}
