//! From derivations and effects to LLB: the only file that knows both worlds (design §4).
//!
//! | part of the op | plain | strong |
//! |---|---|---|
//! | `/` | scratch | scratch |
//! | the store | cache mount: whole at `/.pontoon/store`, a slot at `/nix/store`, each closure path read-only below it | device, at `/nix` |
//! | `/build`, `/tmp`, `/dev/shm` | sized tmpfs | made by the agent |
//! | network | none, unless the derivation is fixed-output | the engine's: the agent narrows it |
//! | security | sandbox | insecure |
//! | the agent | `pontoon/agent/<id>` of the store, read-only | the same |
//! | tunnel | SSH-forward mount | the same |
//!
//! No op is ever marked `ignore_cache`: an op that must run differs by its nonce.

use crate::agent::{self, Shape};
use crate::llb::{
    Access, CachePolicy, Definition, Error, Exec, Metadata, Mount, MountKind, Network,
    ProgressGroup, Security, Sharing, Source,
};
use crate::nix::StorePath;
use crate::tunnel;

/// The id of the cache mount that is a store.
pub const STORE_CACHE: &str = "pontoon-nix";
/// The device that is a store.
pub const STORE_DEVICE: &str = "pontoon.dev/store=nix";
/// The device that brings what `sandbox-paths` ask for.
pub const SANDBOX_DEVICE: &str = "pontoon.dev/sandbox=paths";
/// The program of every op.
pub const AGENT: &str = "/.pontoon/agent";
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
    /// The store path that it is, or is in.
    pub path: StorePath,
    /// Where in that path it is; empty for the path itself.
    pub inside: String,
}

/// What a plain build has mounted.
#[derive(Debug, Clone, Default)]
pub struct PlainInputs<'a> {
    /// The slot that becomes `/nix/store`.
    pub slot: u32,
    /// The paths of the input closure that a mount can bring (no symlinks).
    pub closure: Vec<&'a StorePath>,
}

/// Whether an op has the engine's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Loopback alone.
    Nothing,
    /// The engine's default network.
    Network,
}

impl Lowering {
    /// Lowers the housekeeping of a run.
    pub fn store(&self, nonce: &str) -> Result<Vec<u8>, Error> {
        let exec = self.exec(&["store"], nonce, Reach::Nothing);
        marshal(exec, "pontoon: store", "store")
    }

    /// Lowers a build. In strong the op may go on with other derivations.
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
        } else {
            exec.network = Network::Default;
        }
        let name = drv.name().strip_suffix(".drv").unwrap_or(drv.name());
        marshal(exec, &format!("build {name}"), &path)
    }

    /// Lowers an effect with the closure it may see and the names of its secrets.
    pub fn effect(
        &self,
        name: &str,
        closure: &[&StorePath],
        secrets: &[&str],
        nonce: &str,
    ) -> Result<Vec<u8>, Error> {
        let mut exec = self.exec(&["effect", name], nonce, Reach::Network);
        if self.shape == Shape::Plain {
            self.add_plain_room(&mut exec, None, closure);
        }
        for secret in secrets {
            exec.mounts.push(Mount {
                dest: format!("{}/{secret}", agent::SECRETS),
                kind: MountKind::Secret {
                    id: secret_id(nonce, secret),
                    uid: 0,
                    gid: 0,
                    mode: 0o444,
                    optional: false,
                },
                access: Access::ReadOnly,
                selector: None,
                input: None,
                output: None,
            });
        }
        marshal(exec, &format!("effect {name}"), &format!("effect:{name}"))
    }

    fn exec(&self, arguments: &[&str], nonce: &str, reach: Reach) -> Exec {
        let shape = match self.shape {
            Shape::Strong => "strong",
            Shape::Plain => "plain",
        };
        let mut exec = Exec {
            args: std::iter::once(AGENT)
                .chain(arguments.iter().copied())
                .map(str::to_owned)
                .collect(),
            env: vec![
                (agent::NONCE.to_owned(), nonce.to_owned()),
                (agent::SHAPE.to_owned(), shape.to_owned()),
            ],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: Some("localhost".to_owned()),
            mounts: vec![
                mount("/", MountKind::Scratch, Access::ReadWrite, None, Some(0)),
                mount(
                    AGENT,
                    cache(),
                    Access::ReadOnly,
                    Some(format!("pontoon/agent/{}", self.agent)),
                    None,
                ),
                mount(
                    tunnel::SOCKET,
                    MountKind::Ssh {
                        id: TUNNEL.to_owned(),
                        uid: 0,
                        gid: 0,
                        mode: 0o600,
                        optional: false,
                    },
                    Access::ReadWrite,
                    None,
                    None,
                ),
            ],
            network: match reach {
                Reach::Nothing => Network::None,
                Reach::Network => Network::Default,
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
                exec.mounts.push(mount(
                    agent::PLAIN_STORE,
                    cache(),
                    Access::ReadWrite,
                    None,
                    None,
                ));
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
            let size = (self.scratch == Scratch::Sized).then_some(size);
            let kind = MountKind::Tmpfs { size };
            exec.mounts
                .push(mount(dest, kind, Access::ReadWrite, None, None));
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
        self.add_sandbox_paths(exec);
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
            let selector = format!("store/{}{}", source.path.to_basename(), source.inside);
            exec.mounts.push(mount(
                &source.target,
                cache(),
                Access::ReadOnly,
                Some(selector),
                None,
            ));
        }
    }
}

/// The `local://` source that is the agent's directory.
pub const AGENT_SOURCE: &str = "pontoon-agent";
/// The agent's name in that directory.
pub const AGENT_FILE: &str = "pontoon";
/// Where the op that delivers the agent has that directory.
pub(super) const DELIVERY: &str = "/.pontoon/delivery";

/// Lowers the delivery of an agent into the store of a daemon: it runs from the client's own copy
/// of its file and puts another into the cache mount.
pub fn install(id: &str, nonce: &str) -> Result<Vec<u8>, Error> {
    let mut definition = Definition::new();
    let source = Source::local(AGENT_SOURCE, id);
    let source = definition.source(source, metadata("pontoon: agent", "agent"))?;
    let mut delivery = mount(DELIVERY, MountKind::Bind, Access::ReadOnly, None, None);
    delivery.input = Some(0);
    let exec = Exec {
        args: [&format!("{DELIVERY}/{AGENT_FILE}"), "agent", "install", id]
            .map(str::to_owned)
            .to_vec(),
        env: vec![(agent::NONCE.to_owned(), nonce.to_owned())],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: None,
        mounts: vec![
            mount("/", MountKind::Scratch, Access::ReadWrite, None, Some(0)),
            delivery,
            mount(agent::PLAIN_STORE, cache(), Access::ReadWrite, None, None),
        ],
        network: Network::None,
        security: Security::Sandbox,
        devices: Vec::new(),
        inputs: vec![source.output(0)],
    };
    let op = definition.exec(exec, metadata("pontoon: install the agent", "install"))?;
    definition.marshal(&op.output(0))
}

/// The id of a secret: the daemon asks for it by nothing else, so it is unique over all ops.
pub fn secret_id(nonce: &str, name: &str) -> String {
    format!("{nonce}/{name}")
}

pub(super) fn cache() -> MountKind {
    MountKind::Cache {
        id: STORE_CACHE.to_owned(),
        sharing: Sharing::Shared,
    }
}

pub(super) fn mount(
    dest: &str,
    kind: MountKind,
    access: Access,
    selector: Option<String>,
    output: Option<usize>,
) -> Mount {
    Mount {
        dest: dest.to_owned(),
        kind,
        access,
        selector,
        input: None,
        output,
    }
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
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdef-1";

    fn lowering(shape: Shape) -> Lowering {
        Lowering {
            shape,
            agent: "0123abcd".to_owned(),
            scratch: Scratch::Sized,
            sandbox_paths: SandboxPaths::Absent,
        }
    }

    fn path(name: &str) -> StorePath {
        format!("/nix/store/{name}").parse().unwrap()
    }

    fn hello() -> StorePath {
        path("0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv")
    }

    fn shell() -> StorePath {
        path("5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5")
    }

    /// Compares with the bytes that BuildKit's own Go package writes (`integration/golden`).
    fn check(name: &str, ours: &[u8]) {
        let place = format!("{}/tests/golden/{name}.pb", env!("CARGO_MANIFEST_DIR"));
        let theirs = fs_err::read(place).unwrap();
        let text = |bytes| crate::llb::text::render(&crate::llb::decode(bytes).unwrap());
        assert_eq!(text(ours), text(&theirs), "{name}");
        assert_eq!(ours, theirs, "{name}");
    }

    #[test]
    fn a_plain_build_is_the_op_go_writes() {
        let shell = shell();
        let inputs = PlainInputs {
            slot: 3,
            closure: vec![&shell],
        };
        let lowering = lowering(Shape::Plain);
        let op = lowering.build(&hello(), Reach::Nothing, &inputs, NONCE);
        check("lowered-plain", &op.unwrap());
    }

    #[test]
    fn a_strong_build_is_the_op_go_writes() {
        let inputs = PlainInputs::default();
        let lowering = lowering(Shape::Strong);
        let op = lowering.build(&hello(), Reach::Nothing, &inputs, NONCE);
        check("lowered-strong", &op.unwrap());
    }

    #[test]
    fn an_effect_is_the_op_go_writes() {
        let op = lowering(Shape::Plain).effect("deploy", &[&shell()], &["TOKEN"], NONCE);
        check("lowered-effect", &op.unwrap());
    }

    #[test]
    fn the_store_is_the_op_go_writes() {
        check(
            "embedded-agent",
            &lowering(Shape::Strong).store(NONCE).unwrap(),
        );
    }
}
