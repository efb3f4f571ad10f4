//! What can happen in a run, as plain data.
//!
//! The conductor puts events in one order and hands each to every [`Sink`]; terminal, plain lines
//! and `--json` read nothing else. Every line of `--json` is one [`Event`] with its `version`
//! (see [`VERSION`]): fields are added, never renamed; a change of meaning raises the number.

use serde::Serialize;

use crate::nix::StorePath;

/// The version of the event format, in the first event of every run.
pub const VERSION: u32 = 1;

/// What a node of the plan is called in events: a `.drv` path, or `effect:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

impl NodeId {
    /// The node that builds a derivation.
    pub fn derivation(drv: &StorePath) -> Self {
        Self(drv.to_string())
    }

    /// The node that runs an effect of the pipeline.
    pub fn effect(name: &str) -> Self {
        Self(format!("effect:{name}"))
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Pure or impure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A derivation.
    Build,
    /// An effect.
    Effect,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The run has begun: always the first event.
    RunStarted {
        /// [`VERSION`].
        version: u32,
        /// The run's id: 16 hexadecimal digits.
        run: String,
        /// The store's root, as the user would name it.
        store: String,
        /// The engine and its shape, such as `embedded (strong)`.
        engine: String,
    },
    /// `nix` is being asked for an installable.
    Evaluating {
        /// As the user wrote it.
        installable: String,
    },
    /// Evaluation ended.
    Evaluated {
        /// How many derivations were asked for.
        targets: usize,
        /// Seconds it took.
        seconds: f64,
        /// Paths that `nix` built itself while evaluating (import from derivation).
        #[serde(with = "crate::nix::text::paths")]
        built_while_evaluating: Vec<StorePath>,
    },
    /// The plan is known.
    Planned {
        /// Derivations in the closure.
        derivations: usize,
        /// Derivations whose wanted outputs are valid already.
        valid: usize,
        /// Derivations that will be built.
        build: usize,
        /// Effects that will run.
        effects: usize,
    },
    /// `.drv` files and sources are being put into the build store.
    Importing {
        /// How many paths.
        paths: usize,
    },
    /// The import ended.
    Imported {
        /// How many paths.
        paths: usize,
        /// Bytes of NAR.
        bytes: u64,
        /// Seconds it took.
        seconds: f64,
    },
    /// The store or the engine was lost. What has an outcome keeps it; the run goes on with a new
    /// plan, and another `planned` tells what is left.
    Lost {
        /// Which of them.
        what: Lost,
        /// What is known of the reason.
        reason: String,
        /// How often that has happened in this run.
        time: u32,
        /// How often it may.
        of: u32,
    },
    /// The engine does not answer, and is waited for.
    EngineAwaited {
        /// What it says, or what does not work.
        reason: String,
        /// How many seconds it is waited for at most.
        seconds: u64,
    },
    /// A node is to be started anew: what was told of it before does not hold any more.
    NodeAgain {
        /// The node.
        node: NodeId,
        /// Pure or impure.
        kind: NodeKind,
        /// A short name: the derivation's or the effect's.
        name: String,
        /// Why.
        reason: String,
    },
    /// A node waits for another program's lock.
    NodeWaiting {
        /// The node.
        node: NodeId,
        /// What it waits for.
        reason: String,
    },
    /// An effect's process is about to start, or a builder has begun.
    NodeStarted {
        /// The node.
        node: NodeId,
        /// Pure or impure.
        kind: NodeKind,
        /// A short name: the derivation's or the effect's.
        name: String,
        /// The attempt's id, as in the store's `pontoon/attempts/`.
        attempt: String,
    },
    /// A line of a node's log, without its newline.
    NodeLog {
        /// The node.
        node: NodeId,
        /// The line; bytes that are not UTF-8 appear as U+FFFD (the log file keeps them).
        line: String,
    },
    /// A node has its final outcome. Every node of the plan that was not valid gets exactly one, and
    /// one more for every [`Event::NodeAgain`] that comes after it.
    NodeFinished {
        /// The node.
        node: NodeId,
        /// Pure or impure.
        kind: NodeKind,
        /// A short name: the derivation's or the effect's.
        name: String,
        /// What came of it.
        outcome: Outcome,
        /// Seconds from its start; 0 for one that never started.
        seconds: f64,
    },
    /// Something the user should know that changes no outcome.
    Warning {
        /// One sentence, without a full stop.
        text: String,
        /// What to do about it, if anything.
        hint: Option<String>,
    },
    /// Something that was asked for is there: all its wanted outputs are valid, whether they were
    /// built now or before. After every node, one for each in the order typed.
    Outputs {
        /// What the user calls it: an installable, or a build of the pipeline.
        name: String,
        /// Its derivation.
        #[serde(with = "crate::nix::text::path")]
        drv: StorePath,
        /// The wanted outputs, by output name.
        outputs: Vec<BuiltOutput>,
    },
    /// The run is over: always the last event.
    RunFinished {
        /// Counts by outcome.
        summary: Summary,
        /// Seconds from the start.
        seconds: f64,
        /// The exit code of the command.
        exit_code: u8,
    },
}

/// What a run can lose and go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// The store that the plan was made for: it was pruned, replaced by an empty one, or its agent
    /// ended.
    Store,
    /// What runs the ops.
    Engine,
}

/// What came of a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// A derivation was built and its outputs registered.
    Built {
        /// The outputs, by output name.
        outputs: Vec<BuiltOutput>,
    },
    /// Its outputs had become valid (another program built them) before it started.
    AlreadyValid,
    /// An effect ended with exit code 0.
    Succeeded,
    /// The builder or effect ran and failed, or could not be run.
    Failed {
        /// Why.
        failure: Failure,
        /// The last lines of its log, at most 25.
        tail: Vec<String>,
    },
    /// A build it needs failed; it never started.
    DependencyFailed {
        /// The failed node nearest to it.
        because: NodeId,
    },
    /// An effect that was not started because a build of its pipeline, or an effect before it, failed.
    Held {
        /// The node that holds it.
        because: NodeId,
    },
    /// It was ended, or never started, because the run was told to stop.
    Cancelled,
    /// The effect started and its end was not seen: it may or may not have happened.
    Unknown {
        /// What is known.
        detail: String,
    },
}

/// A registered output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltOutput {
    /// The output's name, such as `out`.
    pub name: String,
    /// Its store path.
    #[serde(with = "crate::nix::text::path")]
    pub path: StorePath,
}

/// Why a node failed. The text for people is its `Display`; [`Failure::nix_mask`] is Nix's exit
/// status for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, serde::Deserialize)]
#[serde(tag = "failure", rename_all = "kebab-case")]
pub enum Failure {
    /// The builder or command exited with a code other than 0.
    #[error("exit code {code}")]
    ExitCode {
        /// The code.
        code: i32,
        /// Whether Nix would call it transient (fixed-output, or the disk was full): exit 1, not 100.
        transient: bool,
    },
    /// The builder or command was ended by a signal.
    #[error("signal {signal}")]
    Signal {
        /// The signal's number.
        signal: i32,
        /// As for `ExitCode`.
        transient: bool,
    },
    /// It ran longer than `--timeout`.
    #[error("timed out after {seconds} seconds")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// It wrote nothing for longer than `--max-silent-time`.
    #[error("timed out after {seconds} seconds of silence")]
    Silent {
        /// The limit.
        seconds: u64,
    },
    /// A fixed output's content has another hash.
    #[error("hash mismatch: specified {specified}, got {got}")]
    HashMismatch {
        /// What the derivation says, as SRI.
        specified: String,
        /// What was built, as SRI.
        got: String,
    },
    /// An output was not made, or is not acceptable (kind, permission, cycle, reference).
    #[error("{reason}")]
    BadOutput {
        /// Which output and what is wrong with it.
        reason: String,
    },
    /// The derivation asks for something this version does not build.
    #[error("{reason}")]
    Refused {
        /// What it asks for.
        reason: String,
    },
    /// The store, the sandbox or the machine failed, not the builder.
    #[error("{reason}")]
    Machine {
        /// What failed.
        reason: String,
    },
}

impl Failure {
    /// The bits this failure sets in Nix's exit code `0x60 | mask`; 0 means plain exit code 1.
    /// (4 builder failed, 1 timeout, 2 hash mismatch; a timeout or mismatch also sets 4.)
    pub fn nix_mask(&self) -> u8 {
        match self {
            Self::ExitCode {
                transient: false, ..
            }
            | Self::Signal {
                transient: false, ..
            } => 4,
            Self::TimedOut { .. } | Self::Silent { .. } => 4 | 1,
            Self::HashMismatch { .. } => 4 | 2,
            _ => 0,
        }
    }
}

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Derivations whose outputs were valid from the start, or became so by another program.
    pub valid: usize,
    /// Derivations built here.
    pub built: usize,
    /// Derivations that failed.
    pub failed: usize,
    /// Derivations not started because one they need failed.
    pub dependency_failed: usize,
    /// Effects that succeeded.
    pub effects_succeeded: usize,
    /// Effects that failed.
    pub effects_failed: usize,
    /// Effects held.
    pub effects_held: usize,
    /// Effects whose outcome is unknown.
    pub effects_unknown: usize,
    /// Nodes cancelled.
    pub cancelled: usize,
}

/// A consumer of events.
pub trait Sink {
    /// Takes one event, in order. A sink that cannot write any more stays silent.
    fn event(&mut self, event: &Event);
}
