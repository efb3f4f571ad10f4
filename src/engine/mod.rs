//! What runs ops.
//!
//! An engine takes marshalled LLB definitions, the same bytes a `BuildKit` daemon would get, and
//! runs each one's exec op. It knows no Nix: what an op does is between the agent in it and the
//! conductor, over the tunnel. [`lower`], with [`root`], is the only place that knows both worlds.

pub mod buildkit;
pub mod device;
pub mod embedded;
pub mod enter;
pub mod lifeline;
pub mod lower;
pub mod offer;
pub mod probe;
pub mod root;
pub mod trim;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::agent::Shape;

/// An op to run.
#[derive(Debug)]
pub struct Op {
    /// Names this attempt; the agent in the op says it in its hello.
    pub nonce: String,
    /// The marshalled definition, one exec op deep.
    pub definition: Vec<u8>,
    /// What the op's secret mounts may ask for, by id.
    pub secrets: BTreeMap<String, SecretValue>,
    /// What is to be at its `/`.
    pub root: OpRoot,
}

/// What is to be at the `/` of an op, where a daemon has to be asked before it can be said in LLB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpRoot {
    /// What the definition has there.
    Defined,
    /// The image of this name, which the definition has there, looked up once for its content and
    /// its environment.
    Image(String),
    /// The image that lies, as an OCI layout, in the directory that the definition has there; and
    /// where that is on this machine, if it is.
    Layout(Option<PathBuf>),
    /// What the daemon builds of the directory that the definition has there, with these options of
    /// its frontend for Dockerfiles.
    Dockerfile(BTreeMap<String, String>),
}

/// A secret's value. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(pub Vec<u8>);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// An op has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpEnd {
    /// Which.
    pub nonce: String,
    /// How.
    pub how: OpExit,
    /// The last of what it wrote where nobody but the engine hears it; kept where it failed.
    pub words: String,
}

/// How far one of the files is that an op waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The op.
    pub nonce: String,
    /// What is fetched, in the engine's words: a layer's digest, for example.
    pub what: String,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes there are; 0 where that is not known.
    pub total: u64,
    /// Whether it is all here.
    pub complete: bool,
}

/// How an op ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpExit {
    /// Its process exited.
    Code(i32),
    /// Its process was killed.
    Signal(i32),
    /// It was not started.
    NotStarted {
        /// Why.
        reason: String,
    },
}

/// Whether an op was not started because the store that it names is not there any more: a part of
/// it that the op mounts is missing. All that `BuildKit` says is, for instance, `open
/// store/…-name: no such file or directory`.
pub fn tells_of_lost_store(exit: &OpExit) -> bool {
    let OpExit::NotStarted { reason } = exit else {
        return false;
    };
    let parts = ["pontoon/agent/", "pontoon/slots/", " store/"];
    reason.contains("no such file or directory") && parts.iter().any(|part| reason.contains(part))
}

/// What an engine tells its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// An op has ended.
    Ended(OpEnd),
    /// An op waits for files from outside, as an image's.
    Fetching(Fetch),
    /// The engine does not answer.
    Silent {
        /// For how long.
        silent: Duration,
        /// After how long it counts as gone.
        longest: Duration,
    },
    /// The engine is gone and with it every op.
    Gone {
        /// What is known of the reason.
        reason: String,
    },
}

/// What an engine can refuse.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot run ops on this machine at all.
    #[error("the embedded engine cannot run here: {reason}")]
    Unable {
        /// Why, and what to do.
        reason: String,
    },
    /// There is no daemon, or none of use.
    #[error(transparent)]
    Connect(#[from] crate::buildkit::connection::Error),
    /// Connecting was given up.
    #[error("interrupted while connecting")]
    Cancelled,
    /// A daemon cannot be used.
    #[error("the BuildKit daemon at `{address}` cannot be used: {reason}")]
    Daemon {
        /// Where it should be.
        address: String,
        /// Why.
        reason: String,
    },
    /// What a run asks of a daemon that this version does not do.
    #[error("{what} is not there yet on BuildKit")]
    NotOnBuildKit {
        /// What.
        what: String,
    },
    /// A root that only a daemon can make.
    #[error("effect `{effect}` has another root ({root}), which the embedded engine cannot make")]
    NoRoots {
        /// The effect.
        effect: String,
        /// Its root.
        root: String,
    },
    /// A root that a daemon of this age cannot make.
    #[error(
        "effect `{effect}` has another root ({root}), which this daemon is too old for: it lacks \
         `{capability}`"
    )]
    TooOldForRoot {
        /// The effect.
        effect: String,
        /// Its root.
        root: String,
        /// What the daemon does not have.
        capability: &'static str,
    },
    /// The whole store without walls around whoever owns it.
    #[error(
        "effect `{effect}` asks for the whole store, which the embedded engine gives in the strong \
         shape only"
    )]
    NoWalls {
        /// The effect.
        effect: String,
    },
    /// Something needs a network on a daemon that has none for it.
    #[error(
        "the daemon at `{address}` has no default network, which {what} needs, and does not grant \
         that of its host: {reason}"
    )]
    NoNetwork {
        /// Where the daemon is.
        address: String,
        /// What needs one.
        what: String,
        /// Why it does not grant it, in its own words.
        reason: String,
    },
    /// A sandbox path that no daemon could bring.
    #[error(
        "the sandbox path `{target}={source_path}` is not in the store: on BuildKit a builder sees the \
         store alone, not this machine"
    )]
    SandboxPath {
        /// Where builders would see it.
        target: String,
        /// What it is on this machine.
        source_path: String,
    },
    /// What a program in a container hangs on could not be made.
    #[error("cannot make the socket that ends a program with this command")]
    Lifeline(#[source] std::io::Error),
    /// Its process could not be started.
    #[error("cannot start the engine's process")]
    Start(#[source] std::io::Error),
    /// Its process is gone.
    #[error("the engine's process is gone")]
    Gone(#[source] std::io::Error),
}

/// What runs ops. Ends are reported through the channel given when the engine was made.
pub trait Engine: Send {
    /// Starts an op.
    fn start(&mut self, op: Op) -> Result<(), Error>;

    /// Kills an op at once.
    fn kill(&mut self, nonce: &str) -> Result<(), Error>;

    /// Hears that an op holds the store, as long as [`Engine::store_let_go`] has not been called:
    /// the engine may put its own house in order meanwhile.
    fn store_held(&mut self) -> Result<(), Error>;

    /// Hears that the op which holds the store is about to end, and waits a moment if need be.
    fn store_let_go(&mut self) -> Result<(), Error>;

    /// Whether ops may ask for this, in `BuildKit`'s words for what a daemon can do.
    fn can(&self, capability: &str) -> bool;

    /// Lets ops that start from now on ask for a device, too.
    fn offer(&mut self, device: Device) -> Result<(), Error>;
}

/// A part of the machine an op may ask for by a CDI name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// The name, as `vendor/class=name`.
    pub name: String,
    /// What it mounts.
    pub mounts: Vec<DeviceMount>,
    /// What it adds to the environment.
    pub environment: Vec<(String, String)>,
}

/// One mount of a device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceMount {
    /// On the machine.
    pub host: PathBuf,
    /// In the op.
    pub container: PathBuf,
    /// Whether the op may write.
    pub access: DeviceAccess,
}

/// Whether an op may write to a device's mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceAccess {
    /// It may not.
    ReadOnly,
    /// It may.
    ReadWrite,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_of_the_store_is_told_from_anything_else() {
        let process = "process \"/.pontoon/agent build /nix/store/x-b.drv\" did not complete";
        let tells = |what: &str| {
            let reason = format!("{process} successfully: {what}");
            tells_of_lost_store(&OpExit::NotStarted { reason })
        };
        for part in ["pontoon/agent/0", "pontoon/slots/0/store", "store/x-a"] {
            assert!(tells(&format!("open {part}: no such file or directory")));
        }
        assert!(!tells("exec: \"runc\": no such file or directory"));
        assert!(!tells("open store/x-a: permission denied"));
        assert!(!tells_of_lost_store(&OpExit::Code(1)));
    }
}
