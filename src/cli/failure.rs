//! Which kind an error of a lower module is, and what to do about it.

use super::error::{Error, Kind};
use super::signals::Asked;
use crate::{engine, eval, pipeline, run};

/// An evaluation's error.
pub fn evaluation(error: eval::Error, asked: &Asked) -> Error {
    use eval::Error as E;
    let kind = match &error {
        E::Cancelled => return interrupted(asked),
        E::Failed { .. }
        | E::Answer { .. }
        | E::NotDerivation { .. }
        | E::NoDerivation { .. }
        | E::NoOutput { .. } => Kind::Evaluation,
        E::Run { .. } => Kind::NoNix,
        E::Outputs(_) | E::Argument { .. } | E::FlakeArguments | E::Option { .. } => Kind::Usage,
    };
    Error::new(kind, error)
}

/// Git could not be asked for facts.
pub fn git(error: eval::process::Error, asked: &Asked) -> Error {
    match error {
        eval::process::Error::Cancelled => interrupted(asked),
        error => Error::new(Kind::Evaluation, error),
    }
}

/// There is no nix, or it is of no use.
pub fn nix(error: eval::nix::Error, asked: &Asked) -> Error {
    if asked.signal().is_some() {
        return interrupted(asked);
    }
    Error::new(Kind::NoNix, error)
        .hint("install Nix 2.8 or newer, or name derivations by their `.drv` paths")
}

/// What was evaluated is no pipeline.
pub fn pipeline(error: pipeline::Error) -> Error {
    let facts = match &error {
        pipeline::Error::MissingFacts { facts, .. } => facts.clone(),
        _ => vec![],
    };
    let mut error = Error::new(Kind::Evaluation, error);
    if !facts.is_empty() {
        let flags: Vec<String> = facts
            .iter()
            .map(|fact| format!("--fact {fact}=…"))
            .collect();
        error = error.hint(format!("give it: `{}`", flags.join(" ")));
    }
    error
}

/// A run's error.
pub fn run(error: run::Error, asked: &Asked) -> Error {
    use run::Error as E;
    let mut hints = vec![];
    let kind = match &error {
        E::Cancelled | E::Engine(engine::Error::Cancelled) => return interrupted(asked),
        // Whoever stops a whole group of processes stops the engine as well.
        E::EngineGone { .. } | E::Speechless { .. } if asked.signal().is_some() => {
            return interrupted(asked);
        }
        E::Closure(_) | E::Graph(_) | E::Effects(_) | E::NoSource { .. } => Kind::Plan,
        E::Refused { reasons } => {
            hints = reasons
                .iter()
                .map(|(drv, reason)| format!("`{drv}`: {reason}"))
                .collect();
            Kind::Plan
        }
        E::Engine(engine::Error::SandboxPath { .. }) => {
            let hint = "name a path of the store, or none: `--sandbox-paths \"\"`";
            hints = vec![hint.to_owned()];
            Kind::Engine
        }
        E::Source { .. } | E::Store { .. } => Kind::Store,
        E::Engine(_) | E::Speechless { .. } | E::EngineGone { .. } | E::Version => Kind::Engine,
        E::Lower(_) | E::Prepare(_) => Kind::Other,
    };
    let mut failure = Error::new(kind, error);
    failure.hints = hints;
    failure
}

/// The run was told to stop; by SIGINT if nobody knows.
fn interrupted(asked: &Asked) -> Error {
    Error::signal(asked.signal().unwrap_or(2))
}
