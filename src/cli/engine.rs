//! Which engine runs the ops:
//!
//! | engine | chosen by |
//! |---|---|
//! | the one named | `--engine`, else `PONTOON_ENGINE` |
//! | `buildkit` | `BUILDKIT_HOST` is set |
//! | `embedded` | what is left |
//!
//! `DOCKER_HOST` says where a dockerd is, and chooses nothing.
//!
//! Deciding is pure: nobody is called. A daemon is asked for its shape when a session begins.

use std::fmt;

use super::args::{self, Shape};
use super::error::{Error, Kind};
use super::failure;
use super::signals::Asked;
use super::surroundings::Surroundings;
use crate::buildkit::address::{Address, Service};
use crate::engine::offer::{self, Offer, Outside};
use crate::report::Logs;
use crate::run::EngineChoice;

/// What runs the ops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// This machine.
    Embedded {
        /// How it isolates.
        shape: Shape,
    },
    /// A `BuildKit` daemon.
    BuildKit {
        /// Where it is.
        address: Address,
        /// How it isolates; not known before [`Engine::settle`] if nobody said so.
        shape: Option<Shape>,
        /// What ops take of it beyond a sandbox and a network.
        entitlements: Vec<String>,
        /// What it has for ops that may reach the network; not asked before [`Engine::settle`].
        outside: Outside,
    },
}

impl Engine {
    /// The same for a run.
    pub fn choice(&self) -> EngineChoice {
        match self {
            Self::Embedded { .. } => EngineChoice::Embedded,
            Self::BuildKit {
                address,
                entitlements,
                outside,
                ..
            } => EngineChoice::BuildKit {
                address: address.clone(),
                entitlements: entitlements.clone(),
                outside: outside.clone(),
            },
        }
    }

    /// How it isolates.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Embedded { shape } => *shape,
            Self::BuildKit { shape, .. } => shape.unwrap_or(Shape::Plain),
        }
    }

    /// Asks a daemon what it has for ops that may reach the network, and whether it can have strong
    /// ops, if that is of interest: they are what is wanted unless somebody said otherwise.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or can have none, and somebody said that they shall be.
    pub fn settle(self, asked: &Asked) -> Result<Self, Error> {
        let Self::BuildKit { address, shape, .. } = self else {
            return Ok(self);
        };
        let offer = match shape {
            Some(Shape::Plain) => None,
            Some(Shape::Strong) | None => {
                let offer = offer::ask(&address, &asked.cancel());
                Some(offer.map_err(|error| failure::engine(error, asked))?)
            }
        };
        let (shape, entitlements) = match offer {
            Some(Offer::Strong { entitlements }) => (Shape::Strong, entitlements),
            Some(Offer::Plain { lacks }) if shape == Some(Shape::Strong) => {
                return Err(failure::no_strong_ops(&address, lacks));
            }
            Some(Offer::Plain { .. }) | None => (Shape::Plain, Vec::new()),
        };
        let outside = offer::outside(&address, &asked.cancel());
        let outside = outside.map_err(|error| failure::engine(error, asked))?;
        Ok(Self::BuildKit {
            address,
            shape: Some(shape),
            entitlements,
            outside,
        })
    }

    /// Where the logs of its builds stay.
    pub fn logs(&self) -> Logs {
        match self {
            Self::Embedded { .. } => Logs::Here,
            Self::BuildKit { address, .. } => Logs::WithDaemon {
                engine: word(address.service),
            },
        }
    }

    /// Whether the build store is a directory of this machine.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Embedded { .. })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self.shape() {
            Shape::Strong => "strong",
            Shape::Plain => "plain",
        };
        match self {
            Self::Embedded { .. } => write!(f, "embedded ({shape})"),
            Self::BuildKit { address, .. } => {
                write!(f, "{} {address} ({shape})", word(address.service))
            }
        }
    }
}

/// The engine whose daemon this is, as it is typed.
fn word(service: Service) -> &'static str {
    match service {
        Service::BuildKitd => "buildkit",
        Service::Dockerd => "docker",
    }
}

/// Decides the engine.
///
/// # Errors
///
/// One that is not there yet is unavailable; any other name, or a daemon's address that is none, is
/// a wrong command line.
pub fn decide(typed: &args::Engine, around: &Surroundings) -> Result<Engine, Error> {
    let (engine, said_by) = match (&typed.engine, around.text("PONTOON_ENGINE")) {
        (Some(engine), _) => (engine.as_str(), "`--engine`"),
        (None, Some(engine)) => (engine, "`PONTOON_ENGINE`"),
        (None, None) if around.variables.contains_key("BUILDKIT_HOST") => {
            ("buildkit", "`BUILDKIT_HOST`")
        }
        (None, None) => ("embedded", ""),
    };
    match engine {
        "embedded" => Ok(Engine::Embedded {
            shape: typed.shape.unwrap_or(Shape::Strong),
        }),
        "buildkit" => daemon(Service::BuildKitd, typed.shape, around),
        "docker" => daemon(Service::Dockerd, typed.shape, around),
        "host" => {
            let text = format!(
                "{said_by} asks for the engine `{engine}`, which this version does not have"
            );
            Err(Error::new(Kind::Engine, text).hint("`--engine embedded` builds on this machine"))
        }
        other => Err(
            Error::usage(format!("{said_by} names no engine: `{other}`"))
                .hint("there are `embedded`, `buildkit` and `docker`"),
        ),
    }
}

fn daemon(service: Service, shape: Option<Shape>, around: &Surroundings) -> Result<Engine, Error> {
    let (variable, usual) = match service {
        Service::BuildKitd => ("BUILDKIT_HOST", Address::usual()),
        Service::Dockerd => ("DOCKER_HOST", Address::usual_dockerd()),
    };
    let address = match around.variables.get(variable) {
        None => usual,
        Some(value) => {
            let text = value.to_str();
            let text = text.ok_or_else(|| Error::usage(format!("`{variable}` is not UTF-8")))?;
            let parsed = Address::parse(service, text);
            parsed.map_err(|error| Error::usage(format!("`{variable}`: {error}")))?
        }
    };
    Ok(Engine::BuildKit {
        address,
        shape,
        entitlements: Vec::new(),
        outside: Outside::Default,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::surroundings::MachineStore;

    fn decided(flag: Option<&str>, shape: Option<Shape>, variables: &[(&str, &str)]) -> String {
        let typed = args::Engine {
            engine: flag.map(Into::into),
            shape,
        };
        let around = Surroundings {
            variables: variables
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            machine_store: MachineStore::Writable,
            working_directory: Some("/here".into()),
            processors: 8,
        };
        match decide(&typed, &around) {
            Ok(engine) => engine.to_string(),
            Err(error) => format!("{} {}", error.kind.code(), error.lines().join("; ")),
        }
    }

    #[test]
    fn which_engine() {
        let host = ("BUILDKIT_HOST", "unix:///run/b.sock");
        let table = [
            decided(None, None, &[]),
            decided(None, Some(Shape::Plain), &[]),
            decided(None, None, &[("DOCKER_HOST", "tcp://x")]),
            decided(None, None, &[host]),
            decided(Some("buildkit"), None, &[]),
            decided(
                Some("buildkit"),
                Some(Shape::Plain),
                &[("BUILDKIT_HOST", "tcp://b:1")],
            ),
            decided(Some("buildkit"), Some(Shape::Strong), &[host]),
            decided(None, None, &[("BUILDKIT_HOST", "docker-container://b")]),
            decided(Some("embedded"), None, &[host]),
            decided(None, None, &[host, ("PONTOON_ENGINE", "embedded")]),
            decided(Some("host"), None, &[]),
            decided(None, None, &[("PONTOON_ENGINE", "docker")]),
            decided(
                Some("docker"),
                None,
                &[host, ("DOCKER_HOST", "tcp://d:2375")],
            ),
            decided(Some("docker"), None, &[("DOCKER_HOST", "ssh://d")]),
            decided(None, None, &[("PONTOON_ENGINE", "podman")]),
        ];
        insta::assert_snapshot!(table.join("\n"), @"
        embedded (strong)
        embedded (plain)
        embedded (strong)
        buildkit unix:///run/b.sock (plain)
        buildkit unix:///run/buildkit/buildkitd.sock (plain)
        buildkit tcp://b:1 (plain)
        buildkit unix:///run/b.sock (strong)
        2 error: `BUILDKIT_HOST`: `docker-container://b` is not unix:///PATH or tcp://HOST:PORT
        embedded (strong)
        embedded (strong)
        7 error: the engine cannot be used;   `--engine` asks for the engine `host`, which this version does not have; hint: `--engine embedded` builds on this machine
        docker unix:///var/run/docker.sock (plain)
        docker tcp://d:2375 (plain)
        2 error: `DOCKER_HOST`: `ssh://d` is not unix:///PATH or tcp://HOST:PORT
        2 error: `PONTOON_ENGINE` names no engine: `podman`; hint: there are `embedded`, `buildkit` and `docker`
        ");
    }
}
