//! Which engine a run has, and what its ops have in common.

use std::path::Path;
use std::sync::mpsc::Sender;

use crate::agent;
use crate::buildkit::Address;
use crate::engine::buildkit::{self, BuildKit};
use crate::engine::lower::{Lowering, SandboxPaths, Scratch, StoreSource};
use crate::engine::offer::{self, Outside};
use crate::engine::{self, Engine, embedded};
use crate::llb::Network;
use crate::nix::InStore;
use crate::run::connection::Happening;
use crate::run::prepare::{Directory, prepare_store, start_engine};
use crate::run::{Error, Options};
use crate::tunnel::SandboxPath;

/// What runs the ops of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// This machine, without a daemon.
    Embedded,
    /// A `BuildKit` daemon; its store is a cache mount, or in strong a device.
    BuildKit {
        /// Where it is.
        address: Address,
        /// What ops take of it beyond a sandbox and a network.
        entitlements: Vec<String>,
        /// What it had for ops that may reach the network when the command began.
        outside: Outside,
    },
}

/// Says what the engine has for ops that may reach the network: a daemon that was lost is asked
/// once more, for it may have come back without.
pub(super) fn outside(options: &Options, session: u32) -> Result<Outside, Error> {
    Ok(match &options.engine {
        EngineChoice::Embedded => Outside::Default,
        EngineChoice::BuildKit { outside, .. } if session == 0 => outside.clone(),
        EngineChoice::BuildKit { address, .. } => offer::outside(address, &options.cancel)?,
    })
}

/// Says what all ops of a session have in common, without asking the engine.
pub(super) fn lowering(options: &Options, outside: &Outside) -> Result<Lowering, Error> {
    let agent = match &options.engine {
        EngineChoice::Embedded => embedded::agent_id(&options.program),
        EngineChoice::BuildKit { .. } => buildkit::agent_id(&options.program),
    };
    let agent = agent.map_err(Error::Prepare)?;
    Ok(common(options, outside, agent, Scratch::Sized))
}

fn common(options: &Options, outside: &Outside, agent: String, scratch: Scratch) -> Lowering {
    Lowering {
        shape: options.shape,
        agent,
        scratch,
        outside: match outside {
            Outside::Default => Network::Default,
            Outside::Host { .. } => Network::Host,
            Outside::Nothing { .. } => Network::None,
        },
        sandbox_paths: match options.engine {
            EngineChoice::Embedded => SandboxPaths::Absent,
            EngineChoice::BuildKit { .. } => SandboxPaths::Store(Vec::new()),
        },
    }
}

/// Says how the paths come into ops.
pub(super) fn sandbox_paths(
    options: &Options,
    paths: &[SandboxPath],
) -> Result<SandboxPaths, Error> {
    Ok(match options.engine {
        EngineChoice::Embedded if paths.is_empty() => SandboxPaths::Absent,
        EngineChoice::Embedded => SandboxPaths::Device,
        EngineChoice::BuildKit { .. } => SandboxPaths::Store(in_store(paths)?),
    })
}

/// Starts the engine for a session, and says what all its ops have in common.
pub(super) fn start(
    options: &Options,
    session: &str,
    outside: &Outside,
    directory: &Directory,
    tunnel: &Path,
    tell: &Sender<Happening>,
) -> Result<(Box<dyn Engine>, Lowering), Error> {
    let EngineChoice::BuildKit {
        address,
        entitlements,
        ..
    } = &options.engine
    else {
        prepare_store(options)?;
        let engine = start_engine(options, directory, tunnel, tell)?;
        return Ok((Box::new(engine), lowering(options, outside)?));
    };
    let leave = match outside {
        Outside::Host { entitlement } => Some(entitlement),
        Outside::Default | Outside::Nothing { .. } => None,
    };
    let config = buildkit::Config {
        address: address.clone(),
        program: options.program.clone(),
        shape: options.shape,
        entitlements: entitlements.iter().chain(leave).cloned().collect(),
        tunnel: tunnel.to_path_buf(),
        run: session.to_owned(),
        logins: options.logins.clone(),
        temporary: options.temporary.clone(),
        cancel: std::sync::Arc::clone(&options.cancel),
    };
    let tell = tell.clone();
    let events = move |event| {
        let _ = tell.send(Happening::Engine(event));
    };
    let engine = BuildKit::start(config, events)?;
    let lowering = common(options, outside, engine.agent.clone(), engine.scratch);
    Ok((Box::new(engine), lowering))
}

/// Says where ops have what `sandbox-paths` ask for.
pub(super) fn places(how: &SandboxPaths, mut paths: Vec<SandboxPath>) -> Vec<SandboxPath> {
    if *how == SandboxPaths::Device {
        for path in &mut paths {
            path.source = format!("{}{}", agent::SANDBOX_PATHS, path.target);
        }
    }
    paths
}

/// Sandbox paths as paths of the store; a daemon has no others.
fn in_store(paths: &[SandboxPath]) -> Result<Vec<StoreSource>, Error> {
    let source = |path: &SandboxPath| {
        Some(StoreSource {
            target: path.target.clone(),
            place: InStore::parse(&path.source)?,
        })
    };
    let sources = paths.iter().map(|path| {
        source(path).ok_or_else(|| {
            Error::Engine(engine::Error::SandboxPath {
                target: path.target.clone(),
                source_path: path.source.clone(),
            })
        })
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSYBOX: &str = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-busybox";

    #[test]
    fn names_a_sandbox_path_that_no_daemon_brings() {
        let path = |source: &str| SandboxPath {
            target: "/bin/sh".to_owned(),
            source: source.to_owned(),
        };
        assert_eq!(in_store(&[path(BUSYBOX)]).unwrap().len(), 1);
        let error = in_store(&[path(BUSYBOX), path("/bin/dash")]).unwrap_err();
        assert!(error.to_string().contains("/bin/sh=/bin/dash"), "{error}");
    }
}
