//! Which engine a run has, and what its ops have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use crate::buildkit::Address;
use crate::engine::buildkit::{self, BuildKit};
use crate::engine::embedded::machine::{Accounts, UserMapping};
use crate::engine::embedded::{self, Config, Embedded};
use crate::engine::lower::{
    Lowering, SANDBOX_DEVICE, STORE_CACHE, STORE_DEVICE, SandboxPaths, StoreSource,
};
use crate::engine::{
    self, Device, DeviceAccess, DeviceMount, Engine, EngineEvent, Shape,
};
use crate::nix::StorePath;
use crate::run::connection::Happening;
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

/// What of the run's temporary directory an engine uses.
pub(super) struct Place<'a> {
    /// The conductor's listening socket.
    pub(super) socket: &'a Path,
    /// An empty directory.
    pub(super) scratch: &'a Path,
}

/// Says what all ops of the run have in common.
pub(super) fn lowering(options: &Options) -> Result<Lowering, Error> {
    let (agent, sandbox_paths) = match options.engine {
        EngineChoice::Embedded => (
            embedded::agent_id(&options.program).map_err(Error::Prepare)?,
            if options.sandbox_paths.is_empty() {
                SandboxPaths::Absent
            } else {
                SandboxPaths::Device
            },
        ),
        EngineChoice::BuildKit { .. } => (
            buildkit::agent_id(&options.program).map_err(Error::Prepare)?,
            SandboxPaths::Store(in_store(&options.sandbox_paths)?),
        ),
    };
    Ok(Lowering {
        shape: options.shape,
        agent,
        sandbox_paths,
    })
}

/// Starts the engine.
pub(super) fn start(
    options: &Options,
    agent: &str,
    place: &Place<'_>,
    tell: &Sender<Happening>,
) -> Result<Box<dyn Engine>, Error> {
    let EngineChoice::BuildKit { address } = &options.engine else {
        prepare_store(options)?;
        return start_embedded(options, place, tell);
    };
    if options.shape == Shape::Strong {
        let what = "the shape `strong`".to_owned();
        return Err(engine::Error::NotOnBuildKit { what }.into());
    }
    let config = buildkit::Config {
        address: address.clone(),
        program: options.program.clone(),
        agent: agent.to_owned(),
        tunnel: tunnel(options, place),
        run: options.run.clone(),
    };
    Ok(Box::new(BuildKit::start(config, teller(tell))?))
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

fn tunnel(options: &Options, place: &Place<'_>) -> PathBuf {
    let proxy = options.tunnel_proxy.clone();
    proxy.unwrap_or_else(|| place.socket.to_path_buf())
}

fn teller(tell: &Sender<Happening>) -> impl Fn(EngineEvent) + Send + 'static {
    let tell = tell.clone();
    move |event| {
        let _ = tell.send(Happening::Engine(event));
    }
}

/// The engine mounts the store's directory, so it has to be there; the rest is the agent's.
fn prepare_store(options: &Options) -> Result<(), Error> {
    let unusable = |error: std::io::Error| Error::Store {
        store: options.store_name.clone(),
        source: crate::tunnel::MachineError {
            text: error.to_string(),
        },
    };
    fs_err::create_dir_all(options.nix_dir.path()).map_err(unusable)
}

fn start_embedded(
    options: &Options,
    place: &Place<'_>,
    tell: &Sender<Happening>,
) -> Result<Box<dyn Engine>, Error> {
    let accounts = Accounts::of_this_machine();
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let users = accounts.mapping(uid, gid);
    if options.shape == Shape::Plain && matches!(users, UserMapping::Single { .. }) {
        let reason = "a plain op needs a second user for its builder, and this user has no \
            subordinate range in /etc/subuid and /etc/subgid, or no `newuidmap`; the strong shape \
            needs neither";
        return Err(engine::Error::Unable {
            reason: reason.to_owned(),
        }
        .into());
    }
    let nix_dir = options.nix_dir.path();
    let builders = accounts.builders(users, nix_dir);
    if let Some(locks) = &builders.locks {
        fs_err::create_dir_all(locks).map_err(Error::Prepare)?;
    }
    let mut devices = vec![builders.store_device(STORE_DEVICE, nix_dir)];
    if !options.sandbox_paths.is_empty() {
        devices.push(sandbox_device(options));
    }
    let config = Config {
        program: options.program.clone(),
        tunnel: tunnel(options, place),
        scratch: place.scratch.to_path_buf(),
        caches: BTreeMap::from([(STORE_CACHE.to_owned(), nix_dir.to_path_buf())]),
        devices,
        users,
    };
    Ok(Box::new(Embedded::start(config, teller(tell))?))
}

/// In plain the op is the room: the paths go where the builder sees them. In strong the agent
/// carries them into each room.
fn sandbox_device(options: &Options) -> Device {
    let place = |target: &str| match options.shape {
        Shape::Plain => PathBuf::from(target),
        Shape::Strong => PathBuf::from(format!("{}{target}", crate::agent::SANDBOX_PATHS)),
    };
    let mounts = options.sandbox_paths.iter().map(|path| DeviceMount {
        host: PathBuf::from(&path.source),
        container: place(&path.target),
        access: DeviceAccess::ReadWrite,
    });
    Device {
        name: SANDBOX_DEVICE.to_owned(),
        mounts: mounts.collect(),
        environment: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSYBOX: &str = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-busybox";

    #[test]
    fn cuts_a_path_of_the_store_in_two() {
        let cut = |text: &str| {
            store_part(text).map(|(path, inside)| format!("{path} {inside}"))
        };
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
