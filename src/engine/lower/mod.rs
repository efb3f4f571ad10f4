//! From derivations and effects to LLB: the only module that knows both worlds (design §4).
//!
//! | part of the op | plain | strong |
//! |---|---|---|
//! | `/` | scratch | scratch |
//! | the store | cache mount: whole at `/.pontoon/store`, a slot at `/nix/store`, each closure path read-only below it | device, at `/nix` |
//! | `/build`, `/tmp`, `/dev/shm` | sized tmpfs | made by the agent |
//! | network | none, unless the derivation is fixed-output | the same; where there is one, the agent narrows it for other derivations |
//! | security | sandbox | insecure |
//! | the agent | `pontoon/agent/<id>` of the store, mounted read-only | the same file, at its place below `/nix`: a device has no selectors |
//! | tunnel | SSH-forward mount | the same |
//!
//! No op is ever marked `ignore_cache`: an op that must run differs by its nonce.
//!
//! Builds and housekeeping are here, effects in [`effect`], the delivery of the agent in [`mod@install`],
//! and what all of them mount in [`mounts`].

mod effect;
mod install;
mod mounts;

pub use effect::EffectInputs;
pub(super) use install::DELIVERY;
pub use install::{AGENT_FILE, AGENT_SOURCE, install};
pub use mounts::secret_id;
pub(super) use mounts::{cache, mount, secret_file, socket};

use crate::agent::{self, Shape};
use crate::llb::{
    Access, CachePolicy, Definition, Error, Exec, Metadata, Mount, MountKind, Network,
    ProgressGroup, Security,
};
use crate::nix::{InStore, StorePath};
use crate::tunnel;

/// The id of the cache mount that is a store.
pub const STORE_CACHE: &str = "pontoon-nix";
/// The device that is a store.
pub const STORE_DEVICE: &str = "pontoon.dev/store=nix";
/// The device that brings what `sandbox-paths` ask for.
pub const SANDBOX_DEVICE: &str = "pontoon.dev/sandbox=paths";
/// The program of every plain op.
pub const AGENT: &str = agent::PLAIN_PROGRAM;
/// Where a strong op has the agents of its store; its program is one of them.
const AGENTS: &str = agent::STRONG_PROGRAMS;
/// The id of the SSH-forward mount.
pub const TUNNEL: &str = "pontoon";

/// Bytes of the memory file systems of a plain op: what a builder may put into each of them.
const BUILD_SIZE: i64 = 8 << 30;
const SHM_SIZE: i64 = 1 << 30;

/// What all ops of a run have in common.
#[derive(Debug, Clone)]
pub struct Lowering {
    /// Who makes the sandbox.
    pub shape: Shape,
    /// Which agent: its directory's name below the store's `pontoon/agent/`.
    pub agent: String,
    /// How a plain op gets memory to write to.
    pub scratch: Scratch,
    /// What an op has that may reach the network.
    pub outside: Network,
    /// What `sandbox-paths` ask for.
    pub sandbox_paths: SandboxPaths,
}

/// The capabilities without which a daemon runs no op of ours.
pub const NEEDED: [&str; 7] = [
    "exec.meta.base",
    "exec.meta.network",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "source.local",
];

/// How an op gets memory to write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scratch {
    /// As much as is said.
    Sized,
    /// As much as the daemon's kernel gives by itself, half of the machine's memory: older daemons
    /// would leave out the size in silence.
    Unsized,
}

impl Scratch {
    /// Chooses by the capabilities of a daemon.
    pub fn of(capabilities: &std::collections::BTreeSet<String>) -> Self {
        if capabilities.contains("exec.mount.tmpfs.size") {
            Self::Sized
        } else {
            Self::Unsized
        }
    }
}

/// How what `sandbox-paths` ask for comes into an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxPaths {
    /// There are none.
    Absent,
    /// The engine has a device for them.
    Device,
    /// They are in the store: the op mounts them from there.
    Store(Vec<StoreSource>),
}

/// A sandbox path whose source is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSource {
    /// Where builders see it.
    pub target: String,
    /// What it is.
    pub place: InStore,
}

/// What a plain build has mounted.
#[derive(Debug, Clone, Default)]
pub struct PlainInputs<'a> {
    /// The slot that becomes `/nix/store`.
    pub slot: u32,
    /// The paths of the input closure that a mount can bring (no symlinks).
    pub closure: Vec<&'a StorePath>,
}

/// Whether an op has the engine's network; who has it can do what needs none, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Loopback alone.
    Nothing,
    /// The engine's network.
    Network,
}

impl Lowering {
    /// Lowers the housekeeping of a run.
    pub fn store(&self, nonce: &str) -> Result<Vec<u8>, Error> {
        let exec = self.exec(&["store"], nonce, Reach::Nothing);
        marshal(exec, "pontoon: store", "store")
    }

    /// Lowers an agent that is told only later what it builds (strong).
    pub fn worker(&self, nonce: &str) -> Result<Vec<u8>, Error> {
        let exec = self.exec(&["build"], nonce, Reach::Nothing);
        marshal(exec, "pontoon: builds", "builds")
    }

    /// Lowers a build. In strong the op may go on with other derivations that reach no further.
    pub fn build(
        &self,
        drv: &StorePath,
        reach: Reach,
        inputs: &PlainInputs<'_>,
        nonce: &str,
    ) -> Result<Vec<u8>, Error> {
        let path = drv.to_string();
        let mut exec = self.exec(&["build", &path], nonce, reach);
        if self.shape == Shape::Plain {
            self.add_plain_room(&mut exec, Some(inputs.slot), &inputs.closure);
            self.add_sandbox_paths(&mut exec);
        }
        let name = drv.name().strip_suffix(".drv").unwrap_or(drv.name());
        marshal(exec, &format!("build {name}"), &path)
    }

    /// Lowers a program of the store that runs in a container, which is no op: it sees its closure
    /// and an empty, writable root. The agent chooses the program, and ends it with its lifeline.
    pub fn enter(&self, place: &InStore, arguments: Vec<String>, closure: &[StorePath]) -> Exec {
        let mut exec = self.exec(&["enter", &place.to_string()], "enter", Reach::Network);
        exec.args.extend(arguments);
        exec.env = vec![("HOME".to_owned(), "/tmp".to_owned())];
        // It has no use for the whole store.
        let kept = ["/", AGENT, tunnel::SOCKET];
        exec.mounts
            .retain(|mount| kept.contains(&mount.dest.as_str()));
        exec.mounts[0].output = None;
        exec.mounts.push(self.memory("/tmp", BUILD_SIZE));
        for path in closure {
            let selector = Some(format!("store/{}", path.to_basename()));
            let dest = path.to_string();
            exec.mounts
                .push(mount(&dest, cache(), Access::ReadOnly, selector, None));
        }
        exec
    }

    fn exec(&self, arguments: &[&str], nonce: &str, reach: Reach) -> Exec {
        let program = match self.shape {
            Shape::Strong => format!("{AGENTS}{}", self.agent),
            Shape::Plain => AGENT.to_owned(),
        };
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let mut exec = Exec {
            args: std::iter::once(program).chain(arguments).collect(),
            env: vec![
                (agent::NONCE.to_owned(), nonce.to_owned()),
                (agent::SHAPE.to_owned(), self.shape.to_string()),
            ],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: Some("localhost".to_owned()),
            mounts: vec![
                mount("/", MountKind::Scratch, Access::ReadWrite, None, Some(0)),
                mount(tunnel::SOCKET, socket(), Access::ReadWrite, None, None),
            ],
            network: match reach {
                Reach::Nothing => Network::None,
                Reach::Network => self.outside,
            },
            security: Security::Sandbox,
            devices: Vec::new(),
            inputs: Vec::new(),
        };
        match self.shape {
            Shape::Strong => {
                exec.security = Security::Insecure;
                exec.devices.push(STORE_DEVICE.to_owned());
            }
            Shape::Plain => {
                let agent = Some(format!("pontoon/agent/{}", self.agent));
                let agent = mount(AGENT, cache(), Access::ReadOnly, agent, None);
                exec.mounts.insert(1, agent);
                let store = mount(agent::PLAIN_STORE, cache(), Access::ReadWrite, None, None);
                exec.mounts.push(store);
            }
        }
        if self.sandbox_paths == SandboxPaths::Device {
            exec.devices.push(SANDBOX_DEVICE.to_owned());
        }
        exec
    }

    fn add_plain_room(&self, exec: &mut Exec, slot: Option<u32>, closure: &[&StorePath]) {
        for (dest, size) in [
            ("/build", BUILD_SIZE),
            ("/tmp", BUILD_SIZE),
            ("/dev/shm", SHM_SIZE),
        ] {
            exec.mounts.push(self.memory(dest, size));
        }
        if let Some(slot) = slot {
            let selector = Some(format!("pontoon/slots/{slot}/store"));
            exec.mounts.push(mount(
                "/nix/store",
                cache(),
                Access::ReadWrite,
                selector,
                None,
            ));
        }
        for path in closure {
            let selector = Some(format!("store/{}", path.to_basename()));
            exec.mounts.push(mount(
                &path.to_string(),
                cache(),
                Access::ReadOnly,
                selector,
                None,
            ));
        }
    }

    fn memory(&self, dest: &str, size: i64) -> Mount {
        let size = (self.scratch == Scratch::Sized).then_some(size);
        mount(
            dest,
            MountKind::Tmpfs { size },
            Access::ReadWrite,
            None,
            None,
        )
    }

    fn add_sandbox_paths(&self, exec: &mut Exec) {
        let SandboxPaths::Store(sources) = &self.sandbox_paths else {
            return;
        };
        for source in sources {
            // A path of the store at its own place is there already, with the closure.
            if exec.mounts.iter().any(|mount| mount.dest == source.target) {
                continue;
            }
            exec.mounts.push(mount(
                &source.target,
                cache(),
                Access::ReadOnly,
                Some(source.place.selector()),
                None,
            ));
        }
    }
}

/// Says whether an op's program is the agent.
pub fn is_agent(program: &str) -> bool {
    program == AGENT || program.starts_with(AGENTS)
}

fn marshal(exec: Exec, name: &str, node: &str) -> Result<Vec<u8>, Error> {
    let mut definition = Definition::new();
    let op = definition.exec(exec, metadata(name, node))?;
    definition.marshal(&op.output(0))
}

pub(super) fn metadata(name: &str, node: &str) -> Metadata {
    Metadata {
        custom_name: Some(name.to_owned()),
        progress_group: Some(ProgressGroup {
            id: node.to_owned(),
            name: name.to_owned(),
        }),
        cache: CachePolicy::Use,
        caps: std::collections::BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests;
