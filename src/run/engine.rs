//! Which engine a run has, and what its ops have in common.

use std::path::Path;
use std::sync::mpsc::Sender;

use crate::buildkit::Address;
use crate::engine::buildkit::{self, BuildKit};
use crate::engine::lower::{Lowering, SandboxPaths, Scratch, StoreSource};
use crate::engine::{self, Engine, Shape, embedded};
use crate::nix::StorePath;
use crate::run::connection::Happening;
use crate::run::prepare::{Directory, prepare_store, start_engine};
use crate::run::{Error, Options};
use crate::tunnel::SandboxPath;

/// What runs the ops of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// This machine, without a daemon.
    Embedded,
    /// A `BuildKit` daemon; its store is a cache mount.
    BuildKit {
        /// Where it is.
        address: Address,
    },
}

/// Says what all ops of the run have in common; what the engine offers besides is not known yet.
pub(super) fn lowering(options: &Options) -> Result<Lowering, Error> {
    let (agent, sandbox_paths) = match options.engine {
        EngineChoice::Embedded => (embedded::agent_id(&options.program), SandboxPaths::Absent),
        EngineChoice::BuildKit { .. } => (
            buildkit::agent_id(&options.program),
            SandboxPaths::Store(Vec::new()),
        ),
    };
    Ok(Lowering {
        shape: options.shape,
        agent: agent.map_err(Error::Prepare)?,
        scratch: Scratch::Sized,
        sandbox_paths,
    })
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

/// Starts the engine, and makes the lowering fit what it offers.
pub(super) fn start(
    options: &Options,
    lowering: &mut Lowering,
    directory: &Directory,
    tunnel: &Path,
    tell: &Sender<Happening>,
) -> Result<Box<dyn Engine>, Error> {
    let EngineChoice::BuildKit { address } = &options.engine else {
        prepare_store(options)?;
        return Ok(Box::new(start_engine(options, directory, tunnel, tell)?));
    };
    if options.shape == Shape::Strong {
        let what = "the shape `strong`".to_owned();
        return Err(engine::Error::NotOnBuildKit { what }.into());
    }
    let config = buildkit::Config {
        address: address.clone(),
        program: options.program.clone(),
        agent: lowering.agent.clone(),
        tunnel: tunnel.to_path_buf(),
        run: options.run.clone(),
        cancel: std::sync::Arc::clone(&options.cancel),
    };
    let tell = tell.clone();
    let events = move |event| {
        let _ = tell.send(Happening::Engine(event));
    };
    let engine = BuildKit::start(config, events)?;
    lowering.scratch = engine.scratch;
    Ok(Box::new(engine))
}

/// Sandbox paths as paths of the store; a daemon has no others.
fn in_store(paths: &[SandboxPath]) -> Result<Vec<StoreSource>, Error> {
    let source = |path: &SandboxPath| {
        let (store_path, inside) = store_part(&path.source)?;
        Some(StoreSource {
            target: path.target.clone(),
            path: store_path,
            inside,
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

/// Cuts a path below `/nix/store` into its store path and the rest, which begins with `/` if
/// there is any.
fn store_part(path: &str) -> Option<(StorePath, String)> {
    let name = path.strip_prefix("/nix/store/")?;
    let (name, inside) = name.split_at(name.find('/').unwrap_or(name.len()));
    let store_path = format!("/nix/store/{name}").parse().ok()?;
    Some((store_path, inside.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSYBOX: &str = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-busybox";

    #[test]
    fn cuts_a_path_of_the_store_in_two() {
        let cut = |text: &str| store_part(text).map(|(path, inside)| format!("{path} {inside}"));
        assert_eq!(cut(BUSYBOX).unwrap(), format!("{BUSYBOX} "));
        let inside = cut(&format!("{BUSYBOX}/bin/sh")).unwrap();
        assert_eq!(inside, format!("{BUSYBOX} /bin/sh"));
        for text in ["/bin/sh", "/nix/store", "/nix/store/busybox/bin/sh"] {
            assert_eq!(cut(text), None, "{text}");
        }
    }

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
