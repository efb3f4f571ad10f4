//! Which kind an error of a lower module is, and what to do about it.

use std::path::PathBuf;

use super::collector;
use super::error::{Error, Kind};
use super::signals::Asked;
use crate::buildkit::{Address, Service, connection};
use crate::doctor::{self, change};
use crate::engine::device::{self, Setup, Users};
use crate::engine::embedded::machine::Accounts;
use crate::engine::offer::Lack;
use crate::{engine, eval, pipeline, run};

/// What `nix`, SQLite in it included, says where the disk is full.
const FULL_DISK: [&str; 3] = [
    "No space left on device",
    "disk I/O error",
    "database or disk is full",
];

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
    let is_full = match &error {
        E::Failed { text, .. } => FULL_DISK.iter().any(|words| text.contains(words)),
        _ => false,
    };
    let error = Error::new(kind, error);
    if is_full {
        error.hint(
            "is there room on the disk of the store? `--eval-store` names another to evaluate in",
        )
    } else {
        error
    }
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
        E::EngineGone { .. } | E::Speechless { .. } | E::StoreLost { .. }
            if asked.signal().is_some() =>
        {
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
        E::Engine(engine::Error::NoRoots { .. }) => {
            let hint = "a daemon makes it: set `BUILDKIT_HOST`, or use `--engine buildkit`";
            hints = vec![hint.to_owned()];
            Kind::Engine
        }
        E::Engine(engine::Error::NoWalls { .. }) => {
            hints = vec!["leave out `--shape plain`".to_owned()];
            Kind::Engine
        }
        E::Engine(engine::Error::NoNetwork { .. }) => {
            hints = network();
            Kind::Engine
        }
        E::Engine(engine::Error::Connect(refusal)) => {
            hints = vec![reach(refusal)];
            Kind::Engine
        }
        E::Held(_) => {
            hints = vec![collector::HINT.to_owned()];
            Kind::Store
        }
        E::Source { .. } | E::Store { .. } | E::StoreLost { .. } => Kind::Store,
        E::Engine(_)
        | E::Speechless { .. }
        | E::EngineGone { .. }
        | E::EngineLost { .. }
        | E::Version => Kind::Engine,
        E::Prepare(_) => {
            let hint = "`TMPDIR` names the directory for a run's own files; a socket is among them, \
                        whose path may have 107 bytes";
            hints = vec![hint.to_owned()];
            Kind::Other
        }
        E::Lower(_) => Kind::Other,
    };
    let mut failure = Error::new(kind, error);
    failure.hints = hints;
    failure
}

/// An engine's error before there is a run.
pub fn engine(error: engine::Error, asked: &Asked) -> Error {
    match error {
        engine::Error::Cancelled => interrupted(asked),
        engine::Error::Connect(refusal) => {
            let hint = reach(&refusal);
            Error::new(Kind::Engine, refusal).hint(hint)
        }
        error => Error::new(Kind::Engine, error),
    }
}

/// What to do where there is no daemon, or another program.
fn reach(error: &connection::Error) -> String {
    use connection::{Error as E, Stranger};
    let (E::Dial { address, .. }
    | E::Stranger { address, .. }
    | E::Silent { address }
    | E::Refused { address, .. }
    | E::TooOld { address, .. }) = error;
    let variable = match address.service {
        Service::BuildKitd => "BUILDKIT_HOST",
        Service::Dockerd => "DOCKER_HOST",
    };
    match error {
        E::Dial { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "only root and the socket's group may connect: `ls -l` shows which it is".to_owned()
        }
        E::Stranger { what, .. } => match what {
            Stranger::Dockerd(_) => {
                format!("`--engine docker` and `DOCKER_HOST={address}` use the BuildKit in it")
            }
            Stranger::Http2 => format!("`--engine buildkit` and `BUILDKIT_HOST={address}` use it"),
            Stranger::Tls => "give the daemon's Unix socket, or a port without TLS".to_owned(),
            _ => format!("`{variable}` says where the daemon is"),
        },
        E::TooOld { .. } => {
            "the oldest that works is that of Docker 20.10, BuildKit 0.8".to_owned()
        }
        E::Dial { .. } | E::Silent { .. } | E::Refused { .. } => {
            format!("is the daemon running? `{variable}` says where it is")
        }
    }
}

/// What to do on a daemon without a network for ops.
fn network() -> Vec<String> {
    let host = change::host_network(doctor::Kind::Dockerd).text;
    vec![
        "give the daemon a bridge: without `--bridge=none`".to_owned(),
        format!(
            "or let ops use the network of its host: its `daemon.json` needs these lines:\n{}",
            host.trim_end()
        ),
    ]
}

/// A daemon that can have no strong ops, with the lines that would change it.
pub fn no_strong_ops(address: &Address, lacks: Lack) -> Error {
    let setup = Setup {
        nix_dir: PathBuf::from("/var/lib/pontoon/nix"),
        users: Users::Own,
        directory: PathBuf::from(device::USUAL_DIRECTORY),
    };
    let accounts = Accounts::default();
    let file = setup.specification(&accounts);
    let mut hints = vec!["`--shape plain` needs nothing of a daemon".to_owned()];
    if lacks == Lack::Device {
        hints.push(format!(
            "make `{}` on the daemon's machine, and write this to `{}` there:\n{}",
            setup.nix_dir.display(),
            file.path.display(),
            file.text.trim_end(),
        ));
    }
    let (file, lines) = match address.service {
        Service::BuildKitd => ("buildkitd.toml", setup.buildkitd_toml()),
        Service::Dockerd => ("daemon.json", setup.daemon_json()),
    };
    hints.push(format!(
        "its `{file}` needs these lines:\n{}",
        lines.trim_end()
    ));
    let text = format!("the daemon at `{address}` can have no strong ops");
    let mut error = Error::new(Kind::Engine, NoStrongOps { text, lacks });
    error.hints = hints;
    error
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct NoStrongOps {
    text: String,
    #[source]
    lacks: Lack,
}

/// The run was told to stop; by SIGINT if nobody knows.
fn interrupted(asked: &Asked) -> Error {
    Error::signal(asked.signal().unwrap_or(2))
}
