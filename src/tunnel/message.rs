//! The messages: what an agent says and what a conductor says.
//!
//! Fields are added, never renamed; a change of meaning raises [`super::VERSION`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

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
    /// The job's process is about to start.
    Started {
        /// The attempt's id.
        attempt: String,
    },
    /// Another program holds the lock of an output: nothing was done, ask again later.
    Busy {
        /// The lock file.
        lock: String,
    },
    /// Answers `Query`: those of the asked paths (or of their closure) that are valid.
    Paths {
        /// In no particular order.
        paths: Vec<PathFacts>,
    },
    /// Answers `Root` and `Keep`.
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
    /// Build one derivation.
    Build(BuildJob),
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
    /// What failed, causes included.
    pub text: String,
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
