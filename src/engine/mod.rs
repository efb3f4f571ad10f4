//! What runs ops.
//!
//! An engine takes marshalled LLB definitions, the same bytes a `BuildKit` daemon would get, and
//! runs each one's exec op. It knows no Nix: what an op does is between the agent in it and the
//! conductor, over the tunnel. [`lower`] is the only place that knows both worlds.

pub mod buildkit;
pub mod device;
pub mod embedded;
pub mod lower;
pub mod probe;
pub mod trim;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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

/// What an engine tells its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// An op has ended.
    Ended(OpEnd),
    /// An op waits for files from outside, as an image's.
    Fetching(Fetch),
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
    /// Its process could not be started.
    #[error("cannot start the engine's process")]
    Start(#[source] std::io::Error),
    /// Its process is gone.
    #[error("the engine's process is gone")]
    Gone(#[source] std::io::Error),
}

/// What runs ops. Ends are reported through the channel given when the engine was made.
pub trait Engine {
    /// Starts an op.
    fn start(&mut self, op: Op) -> Result<(), Error>;

    /// Kills an op at once.
    fn kill(&mut self, nonce: &str) -> Result<(), Error>;

    /// Hears that an op holds the store, as long as [`Engine::store_let_go`] has not been called:
    /// the engine may put its own house in order meanwhile.
    fn store_held(&mut self) -> Result<(), Error>;

    /// Hears that the op which holds the store is about to end, and waits a moment if need be.
    fn store_let_go(&mut self) -> Result<(), Error>;

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
