//! Drives the installed `nix`: from what the user types to derivations, and pipelines to data.
//!
//! Evaluation is Nix's own. This module only chooses how `nix` is called, and reads what it says.
//!
//! | asked for            | called                                    | purity |
//! |----------------------|-------------------------------------------|--------|
//! | flake references     | `nix eval --json REF#ATTR --apply …`      | pure   |
//! | `--expr E [-A ATTR]` | `nix eval --json --expr E ATTR --apply …` | pure   |
//! | `-f FILE [-A ATTR]`  | `nix-instantiate FILE -A ATTR`            | impure |
//! | a `.drv` path        | nothing: no `nix` is needed               | –      |
//! | a pipeline           | `nix eval --json … --apply …`             | impure with `-f` |
//!
//! Attributes of one file share a call, and so do those of one expression or flake (`many.rs`).
//! What we pass to `--apply` are functions of our own (`nix/*.nix`) that turn a derivation, or a
//! pipeline, into JSON. Reading `drvPath` writes the `.drv` closure into the evaluation store;
//! nothing is built, except for what evaluation itself imports from derivations: that is listed.
//! `--impure` is never given, the setting `pure-eval` is refused, flakes are enabled per call.
//! Nix's evaluation cache is off: it would keep no `.drv` alive, and replaces errors by the news
//! that there had been some. Lock files are Nix's business: as with `nix build`, one that is
//! missing or stale is written beside a local flake.
//!
//! What was written is held by the `nix` process alone, until it ends. A caller who fears a
//! garbage collection in between holds the store's `gc.lock` shared until it has made roots.

mod asked;
pub mod facts;
pub mod installable;
pub mod log;
mod many;
pub mod nix;
pub mod origin;
pub mod pipelines;
pub mod process;
pub mod quote;
pub mod targets;
mod whole;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use installable::Installable;
pub use nix::{Nix, Version};
pub use pipelines::{NixText, Normalised, PipelineRequest, PipelineSource};

use self::log::Log;
use self::nix::Purity;
use self::process::{Ending, Program};
use crate::nix::{StorePath, Wanted};

/// How to evaluate: which `nix`, what it may see, where it writes.
#[derive(Debug, Clone)]
pub struct Evaluator {
    /// The executable of the `nix` to drive.
    pub nix: PathBuf,
    /// The user's environment; only what [`mod@nix`] lists of it reaches `nix`.
    pub environment: Vec<(OsString, OsString)>,
    /// The evaluation store.
    pub store: EvalStore,
    /// Nix's settings that the user gave (`--option NAME VALUE`).
    pub options: Vec<(String, String)>,
    /// Raised to end an evaluation early.
    pub cancel: Arc<AtomicBool>,
    /// This executable, whose command `leash` ends `nix` when we are killed; without it `nix`
    /// would go on until it next writes.
    pub leash: Option<PathBuf>,
}

/// The store that evaluation writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalStore {
    /// Nix's own choice: `NIX_REMOTE`, the daemon, `/nix`.
    Default,
    /// The store below this directory (`nix --store DIRECTORY`).
    Root(PathBuf),
}

/// What to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What the user typed as installables.
    Installables(Vec<Installable>),
    /// A file, or whatever else `nix-build` takes for one, as `nix-build` evaluates it.
    File {
        /// The file.
        file: OsString,
        /// Attributes, each with outputs if it says so; the whole file if there are none.
        attributes: Vec<String>,
    },
    /// An expression, evaluated pure.
    Expression {
        /// Its text.
        text: String,
        /// Attributes, each with outputs if it says so; its value if there are none.
        attributes: Vec<String>,
    },
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What to evaluate.
    pub source: Source,
    /// `--arg NAME EXPRESSION`, for files and expressions.
    pub args: Vec<(String, String)>,
    /// `--argstr NAME TEXT`, for files and expressions.
    pub argstrs: Vec<(String, String)>,
    /// The system to evaluate for, such as `x86_64-linux`.
    pub system: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// What to realise, in the order typed.
    pub wanted: Vec<Wanted>,
    /// What Nix built itself on the way (import from derivation), in order.
    pub built_while_evaluating: Vec<StorePath>,
    /// Whether it could depend on the machine it was evaluated on.
    pub impure: bool,
}

/// Why an evaluation gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nix` failed; its own words are the message.
    #[error("cannot evaluate `{subject}` ({ending})\n{text}")]
    Failed {
        /// What was evaluated.
        subject: String,
        /// How `nix` ended.
        ending: Ending,
        /// Everything it said about it.
        text: String,
    },
    /// The caller's flag was raised.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// `nix` could not be run.
    #[error("cannot evaluate `{subject}`")]
    Run {
        /// What was to be evaluated.
        subject: String,
        /// Why not.
        #[source]
        source: process::Error,
    },
    /// `nix` answered what we cannot read.
    #[error("`nix` evaluated `{subject}` to something unreadable: `{answer}`")]
    Answer {
        /// What was evaluated.
        subject: String,
        /// The answer, or where it goes wrong.
        answer: String,
    },
    /// There is something, but no derivation.
    #[error("`{subject}` is {found}, not a derivation{}", targets::choice(names))]
    NotDerivation {
        /// What was evaluated.
        subject: String,
        /// What it is.
        found: String,
        /// Its attributes.
        names: Vec<String>,
    },
    /// A file without any derivation.
    #[error("`{subject}` holds no derivation")]
    NoDerivation {
        /// What was evaluated.
        subject: String,
    },
    /// An output that the derivation does not have.
    #[error("`{subject}` has no output `{output}`; it has {}", outputs.join(", "))]
    NoOutput {
        /// What was evaluated.
        subject: String,
        /// The output wanted.
        output: String,
        /// Those it has.
        outputs: Vec<String>,
    },
    /// The text behind `^` is no list of outputs.
    #[error(transparent)]
    Outputs(#[from] installable::Error),
    /// It cannot be handed to `nix` as what it is meant to be.
    #[error("`{text}` cannot be {what}")]
    Argument {
        /// What was given.
        text: String,
        /// What it was given as.
        what: &'static str,
    },
    /// `--arg` or `--argstr` beside an installable.
    #[error("arguments are for `-f` and `--expr`: a flake takes none")]
    FlakeArguments,
    /// The setting would make a pure evaluation impure.
    #[error("the setting `{name}` cannot be given: flakes and expressions are evaluated pure")]
    Option {
        /// The setting.
        name: String,
    },
}

/// What one call of `nix` gave.
struct Called {
    stdout: Vec<u8>,
    built: Vec<StorePath>,
}

impl Evaluator {
    /// Calls `nix eval --json` with more arguments.
    fn eval(
        &self,
        subject: &str,
        system: &str,
        more: &[&OsStr],
        purity: Purity,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<Called, Error> {
        if let Some((name, _)) = self.options.iter().find(|(name, _)| name == "pure-eval") {
            return Err(Error::Option { name: name.clone() });
        }
        let mut arguments = self.settings(system)?;
        arguments.extend(["eval", "--json"].map(OsString::from));
        arguments.extend(more.iter().map(OsString::from));
        self.call(subject, "nix", arguments, purity, on_progress)
    }

    /// The arguments that every call begins with.
    fn settings(&self, system: &str) -> Result<Vec<OsString>, Error> {
        check_system(system)?;
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |texts: &[&str]| arguments.extend(texts.iter().map(OsString::from));
        add(&["--extra-experimental-features", "nix-command flakes"]);
        add(&["--log-format", "internal-json"]);
        add(&["--option", "eval-cache", "false"]);
        // Said only where it differs: a daemon that does not trust the user warns about it.
        if system != host_system() {
            add(&["--option", "system", system]);
        }
        for (name, value) in &self.options {
            add(&["--option", name, value]);
        }
        if let EvalStore::Root(root) = &self.store {
            let root = std::path::absolute(root).unwrap_or_else(|_| root.clone());
            arguments.extend(["--store".into(), root.into_os_string()]);
        }
        Ok(arguments)
    }

    fn call(
        &self,
        subject: &str,
        called: &str,
        arguments: Vec<OsString>,
        purity: Purity,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<Called, Error> {
        let mut program = Program {
            path: self.nix.clone(),
            called: called.into(),
            arguments,
            environment: nix::scrubbed(&self.environment, purity),
            directory: None,
        };
        if let Some(leash) = &self.leash {
            program = leashed(leash, program);
        }
        let mut log = Log::default();
        let finished = process::run(&program, &self.cancel, &mut |line| {
            log.take(line, on_progress);
        });
        let finished = finished.map_err(|source| match source {
            process::Error::Cancelled => Error::Cancelled,
            source => Error::Run {
                subject: subject.into(),
                source,
            },
        })?;
        match finished.ending {
            Ending::Code(0) => Ok(Called {
                stdout: finished.stdout,
                built: log.built,
            }),
            ending => Err(Error::Failed {
                subject: subject.into(),
                ending,
                text: log.error_text(),
            }),
        }
    }
}

/// Puts a program on a leash: it is told to end when this process dies, however it dies. The
/// calling thread must live as long as the program, for the kernel counts threads.
fn leashed(leash: &Path, mut program: Program) -> Program {
    let mut arguments: Vec<OsString> = vec![
        "leash".into(),
        std::process::id().to_string().into(),
        program.called.into(),
        program.path.into(),
        "--".into(),
    ];
    arguments.append(&mut program.arguments);
    Program {
        path: leash.to_owned(),
        called: "pontoon".into(),
        arguments,
        ..program
    }
}

/// Nix's name for the machine this runs on.
pub fn host_system() -> String {
    format!("{}-linux", std::env::consts::ARCH)
}

/// A system becomes part of attribute paths, where a quote or a dot would change the meaning.
fn check_system(system: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !system.is_empty() && !system.starts_with('-') && system.chars().all(good) {
        return Ok(());
    }
    Err(Error::Argument {
        text: system.into(),
        what: "a system",
    })
}

/// Whether the error is about the output of a flake that we look at, not about something that it
/// refers to.
fn is_absent(text: &str, output: &str) -> bool {
    /// What `nix` says of an attribute that a flake lacks, in every version.
    const ABSENT: &str = "does not provide attribute";
    text.lines()
        .any(|line| line.contains(ABSENT) && line.contains(output))
}

/// Refuses what `nix` would take for an option, and what cannot be an argument.
fn check_argument(text: &str, what: &'static str) -> Result<(), Error> {
    if text.is_empty() || text.starts_with('-') || text.contains('\0') {
        return Err(Error::Argument {
            text: text.into(),
            what,
        });
    }
    Ok(())
}
