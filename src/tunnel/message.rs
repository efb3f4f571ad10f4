//! The messages: what an agent says and what a conductor says.
//!
//! Fields are added, never renamed; a change of meaning raises [`super::VERSION`].

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

use crate::event::Failure;
use crate::nix::StorePath;

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromAgent {
    /// The first message.
    Hello {
        /// [`super::VERSION`].
        version: u32,
        /// The op's nonce: which op this agent is.
        nonce: String,
        /// The store's id.
        store: String,
        /// The id of this copy of the store; an outcome from another one is discarded.
        instance: String,
    },
    /// The agent could not begin: no store, no sandbox. It ends after this.
    Unfit {
        /// What is wrong.
        error: MachineError,
    },
    /// It waits for a job.
    Idle,
    /// The process of an effect is about to start; a builder has just begun.
    Started {
        /// The attempt's id.
        attempt: String,
    },
    /// Another program holds the lock of an output: nothing was done, ask again later.
    Busy {
        /// The lock file.
        lock: String,
    },
    /// Another program holds a lock, and it waits; said again and again.
    Waiting {
        /// The lock file.
        lock: String,
    },
    /// Answers `Root`, and `Query` for paths alone: which of the paths in it are valid.
    Valid {
        /// Their positions, ascending: a plan may ask for a hundred thousand.
        which: Vec<usize>,
    },
    /// Answers `QueryAll`: every path that is valid.
    AllValid {
        /// In no particular order.
        #[serde(with = "crate::nix::text::words")]
        paths: Vec<StorePath>,
    },
    /// Answers `QueryAll`: more paths are valid than that.
    MoreValid,
    /// Answers `Query` for a closure: those of the asked paths that are valid, and what they need.
    Paths {
        /// In no particular order.
        paths: Vec<PathFacts>,
    },
    /// Answers `Keep`.
    Rooted,
    /// Answers `Lease`.
    Leased {
        /// Numbers of the slots, as many as were asked for.
        slots: Vec<u32>,
    },
    /// Answers `ImportEnd`.
    Imported {
        /// Paths that were not valid before.
        paths: usize,
        /// Bytes of NAR received.
        bytes: u64,
    },
    /// Answers `Attempts` and `Unsettled`.
    Attempts {
        /// Those on record, in no particular order.
        attempts: Vec<AttemptFacts>,
    },
    /// Answers `Build`.
    Built {
        /// What came of it.
        result: BuildResult,
    },
    /// Answers `Effect`.
    Ran {
        /// What came of it.
        result: EffectResult,
    },
    /// The job could not be done; the agent lives on.
    Failed {
        /// What is wrong.
        error: MachineError,
    },
}

/// What a conductor says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToAgent {
    /// Answers `Hello`.
    Welcome {
        /// [`super::VERSION`].
        version: u32,
    },
    /// Hold these for the run: temp roots until this agent ends, links for as long as the run.
    /// Then say which of the temporary ones are valid.
    Root {
        /// The run's id.
        run: String,
        /// Paths to protect, valid or not.
        #[serde(with = "crate::nix::text::paths")]
        temporary: Vec<StorePath>,
        /// Paths to link below `gcroots/pontoon/<run>/`.
        #[serde(with = "crate::nix::text::paths")]
        links: Vec<StorePath>,
    },
    /// Register symlinks that were made outside the store as roots (Nix spec §10.1, indirect).
    Keep {
        /// Their absolute paths, as the store's machine sees them.
        links: Vec<String>,
    },
    /// Which of these are valid?
    Query {
        /// The paths.
        #[serde(with = "crate::nix::text::paths")]
        paths: Vec<StorePath>,
        /// Only these, or their closure too.
        scope: QueryScope,
    },
    /// Which paths are valid at all? Where these are not many more than those of a question, they
    /// are said sooner than it is read.
    QueryAll {
        /// How many may be named.
        at_most: usize,
    },
    /// Lease slots until this agent ends.
    Lease {
        /// How many.
        count: u32,
    },
    /// A path follows: after this, data frames with its NAR and an empty one.
    Import {
        /// What the path is.
        header: ImportHeader,
    },
    /// No more paths: register what came, in one transaction.
    ImportEnd,
    /// How do these attempts of this run stand? Of those whose outcome is not known a person is
    /// told now, so it is noted that none has to be told again.
    Attempts {
        /// The run's id.
        run: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// Which attempts of effects of this pipeline, by earlier runs, have an outcome that nobody knows
    /// and was told of? It is noted as for `Attempts`.
    Unsettled {
        /// The run's id.
        run: String,
        /// Which pipeline it is; empty from a conductor that does not say.
        #[serde(default)]
        pipeline: String,
        /// The names of its effects, for records that do not say whose they are.
        effects: Vec<String>,
    },
    /// Build one derivation.
    Build(BuildJob),
    /// Right after the build of `after`, which the agent does now, do this one; if that one's outputs
    /// did not become valid, forget it. The agent asks for a job in between all the same.
    Then {
        /// The derivation that this one waits for.
        #[serde(with = "crate::nix::text::path")]
        after: StorePath,
        /// What to build.
        job: BuildJob,
    },
    /// Run one effect.
    Effect(EffectJob),
    /// End the running job: it will be answered as cancelled.
    Cancel,
    /// Nothing more to do: end.
    Bye,
}

/// How far a query goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueryScope {
    /// The paths themselves.
    Paths,
    /// The paths and everything they refer to.
    Closure,
}

/// What is known of a valid path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    /// The path.
    #[serde(with = "crate::nix::text::path")]
    pub path: StorePath,
    /// Its references, itself included if so; empty unless a closure was asked for.
    #[serde(with = "crate::nix::text::paths")]
    pub references: BTreeSet<StorePath>,
    /// What lies there; only looked at when a closure was asked for.
    pub kind: PathKind,
}

/// What lies at a store path: a symlink cannot be a mount's source (BuildKit spec §13.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// A directory or regular file.
    Mountable,
    /// A symlink.
    Symlink,
    /// Not looked at.
    Unknown,
}

/// What is on record of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFacts {
    /// Its id.
    pub id: String,
    /// A derivation's path, or an effect's name.
    pub node: String,
    /// The run whose attempt it was.
    pub run: String,
    /// When it began, in milliseconds since the epoch.
    pub started: u64,
    /// How it stands.
    pub standing: AttemptStanding,
}

/// How an attempt stands, whoever began it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
pub enum AttemptStanding {
    /// It goes on.
    Running,
    /// It ended well.
    Good,
    /// It ended, and not well.
    Bad {
        /// What came of it.
        outcome: String,
        /// The exit code, where a process ended with one.
        exit: Option<i32>,
    },
    /// Nothing of it was ever started.
    NotStarted,
    /// Nobody knows how far it came.
    Unknown {
        /// What is known.
        detail: String,
    },
}

/// What an imported path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportHeader {
    /// The path.
    #[serde(with = "crate::nix::text::path")]
    pub path: StorePath,
    /// Its references.
    #[serde(with = "crate::nix::text::paths")]
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it, if known.
    #[serde(with = "crate::nix::text::option")]
    pub deriver: Option<StorePath>,
    /// Its content address, as in Nix's database.
    pub ca: Option<String>,
    /// SHA-256 of its NAR, in hexadecimal.
    pub nar_hash: String,
}

/// One derivation to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildJob {
    /// The derivation; its file is valid in the store.
    #[serde(with = "crate::nix::text::path")]
    pub drv: StorePath,
    /// Names of the outputs somebody wants; if these are valid there is nothing to build.
    pub wanted: Vec<String>,
    /// The run's id, for the attempt's record.
    pub run: String,
    /// `NIX_BUILD_CORES`.
    pub cores: u32,
    /// Seconds it may run.
    pub timeout: Option<u64>,
    /// Seconds it may be silent.
    pub silence: Option<u64>,
    /// What else is visible in its sandbox.
    pub sandbox_paths: Vec<SandboxPath>,
    /// The slot mounted at `/nix/store` (plain); in strong the agent has one of its own.
    pub slot: Option<u32>,
}

/// Something of the machine made visible in a sandbox, as Nix's `sandbox-paths`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPath {
    /// Where the builder sees it.
    pub target: String,
    /// Where its op has it: in the store, or where a device brings it.
    pub source: String,
}

/// One effect to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectJob {
    /// Its name.
    pub name: String,
    /// The run's id, for the attempt's record.
    pub run: String,
    /// Which pipeline it is of, for the attempt's record.
    pub pipeline: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment. Without a `PATH` it gets that of the image at its root, after its tools.
    pub environment: Vec<(String, String)>,
    /// The directories of its tools.
    pub tools: Vec<String>,
    /// Roots of the closure it may see.
    #[serde(with = "crate::nix::text::paths")]
    pub roots: BTreeSet<StorePath>,
    /// Names of its secrets: files below `/run/secrets`.
    pub secrets: Vec<String>,
    /// Seconds it may run.
    pub timeout: Option<u64>,
    /// Seconds it may be silent.
    pub silence: Option<u64>,
    /// What else is visible.
    pub sandbox_paths: Vec<SandboxPath>,
    /// What its op has at `/`.
    pub root: EffectRoot,
    /// How much of the store it may see.
    pub store: EffectStore,
}

/// What an effect's op has at `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectRoot {
    /// Nothing: the agent furnishes it.
    Empty,
    /// Another system's files, read-only.
    Image,
}

/// How much of the store an effect sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectStore {
    /// The closure of its roots, read-only.
    Closure,
    /// All of it, at `/nix`, and it is its owner.
    Whole,
}

/// What came of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum BuildResult {
    /// Built and registered.
    Built {
        /// Facts of every output that is valid now.
        outputs: Vec<PathFacts>,
    },
    /// All outputs were valid when the locks were had.
    AlreadyValid {
        /// Facts of every output.
        outputs: Vec<PathFacts>,
    },
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// It was told to end.
    Cancelled,
    /// An input is not valid in this store (any more): probe again.
    StoreLost {
        /// The input.
        #[serde(with = "crate::nix::text::path")]
        missing: StorePath,
    },
}

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum EffectResult {
    /// Exit code 0.
    Succeeded,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// It was told to end.
    Cancelled,
    /// An input is not valid in this store (any more).
    StoreLost {
        /// The input.
        #[serde(with = "crate::nix::text::path")]
        missing: StorePath,
    },
}

/// Something of the store or the machine that failed, as text: causes joined by `: `.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct MachineError {
    /// What failed, causes included; what is longer than anybody reads is cut off.
    #[serde(deserialize_with = "readable")]
    pub text: String,
}

/// The most bytes of an error's text.
const READABLE: usize = 16 << 10;

fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let mut text = String::deserialize(from)?;
    text.truncate(text.floor_char_boundary(READABLE));
    Ok(text)
}

impl MachineError {
    /// Joins an error and its causes.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self { text }
    }
}
