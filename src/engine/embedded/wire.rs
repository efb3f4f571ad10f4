//! What conductor and helper say to each other: frames as in the tunnel, over a socket pair.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Device;
use crate::engine::embedded::machine::UserMapping;

/// What the conductor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToHelper {
    /// The first message.
    Configure {
        /// The socket that becomes every op's tunnel.
        tunnel: PathBuf,
        /// An empty directory for roots.
        scratch: PathBuf,
        /// Cache mounts by id.
        caches: BTreeMap<String, PathBuf>,
        /// Devices.
        devices: Vec<Device>,
        /// Who ops are.
        users: UserMapping,
    },
    /// Run an op: a data frame with the definition follows, then one for each secret.
    Run {
        /// Its nonce.
        nonce: String,
        /// Names of the secrets whose values follow.
        secrets: Vec<String>,
    },
    /// From now on ops may ask for this device, too.
    Offer {
        /// The device.
        device: Device,
    },
    /// Kill an op.
    Kill {
        /// Its nonce.
        nonce: String,
    },
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromHelper {
    /// It can run ops.
    Ready,
    /// It cannot, and ends.
    Unable {
        /// Why, and what to do.
        reason: String,
    },
    /// An op has ended.
    Ended {
        /// Its nonce.
        nonce: String,
        /// How.
        exit: Exit,
    },
}

/// How an op ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Exit {
    /// Its process exited.
    Code {
        /// With this.
        code: i32,
    },
    /// Its process was killed.
    Signal {
        /// By this.
        signal: i32,
    },
    /// It was not started.
    NotStarted {
        /// Why.
        reason: String,
    },
}
