//! Which shapes a daemon's ops can have, and which network.
//!
//! *Strong* needs two things of it: a device that is a store ([`STORE_DEVICE`]), which it lists, and
//! the leave to run an op without its own sandbox, which it tells only when asked for it. So it is
//! asked to solve nothing at all, with that leave.
//!
//! A dockerd without a bridge has no network for ops, but may grant that of its host, which is asked
//! for only there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::buildkit::workers::CdiAccess;
use crate::buildkit::{Address, Daemon, Kind, SolveError, connection, control};
use crate::engine::Error;
use crate::engine::buildkit::unique;
use crate::engine::lower::STORE_DEVICE;

/// What an op without the daemon's own sandbox takes.
const INSECURE: &str = "security.insecure";
/// What an op on the network of the daemon's host takes.
const HOST: &str = "network.host";
/// What a device takes that is not for everyone.
const DEVICE: &str = "device";
/// A definition of no ops: its one field that is not left out has nothing in it.
const NOTHING: [u8; 2] = [0x1a, 0];
/// How often it is asked whether the command is to stop.
const TICK: Duration = Duration::from_millis(50);

/// Whether a daemon can have strong ops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It can, if solves ask for these entitlements.
    Strong {
        /// Each as the daemon calls it.
        entitlements: Vec<String>,
    },
    /// It cannot.
    Plain {
        /// What it lacks.
        lacks: Lack,
    },
}

/// Why a daemon can have no strong ops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// It does not know the device.
    #[error("it has no device `{STORE_DEVICE}`, which is the store of strong ops")]
    Device,
    /// It does not grant what they need.
    #[error("it does not grant the entitlements that strong ops need: {reason}")]
    Leave {
        /// The daemon's words.
        reason: String,
    },
}

/// What a daemon has for ops that may reach the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// A network by default.
    Default,
    /// That of its host, for it has no other.
    Host {
        /// What solves have to ask for.
        entitlement: String,
    },
    /// Nothing.
    Nothing {
        /// Why it does not grant that of its host, in its own words.
        reason: String,
    },
}

/// Asks a daemon for its shapes.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Daemon`], [`Error::Start`]; [`Error::Cancelled`] once the flag is
/// set.
pub fn ask(address: &Address, cancel: &Arc<AtomicBool>) -> Result<Offer, Error> {
    wait(offer(address), cancel)
}

/// Asks a daemon for a network.
///
/// # Errors
///
/// As [`ask`].
pub fn outside(address: &Address, cancel: &Arc<AtomicBool>) -> Result<Outside, Error> {
    wait(network(address), cancel)
}

fn wait<T>(
    answer: impl Future<Output = Result<T, Error>>,
    cancel: &Arc<AtomicBool>,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    runtime.block_on(async {
        tokio::select! {
            answer = answer => answer,
            () = cancelled(cancel) => Err(Error::Cancelled),
        }
    })
}

/// Waits until a command is to stop.
pub(super) async fn cancelled(cancel: &AtomicBool) {
    while !cancel.load(Ordering::Relaxed) {
        tokio::time::sleep(TICK).await;
    }
}

async fn offer(address: &Address) -> Result<Offer, Error> {
    let daemon = Daemon::connect(address).await?;
    let refused = |error: SolveError| Error::Daemon {
        address: address.to_string(),
        reason: error.message,
    };
    let worker = daemon.worker().await.map_err(refused)?;
    let mut entitlements = vec![INSECURE.to_owned()];
    match worker.device(STORE_DEVICE) {
        None => {
            let lacks = Lack::Device;
            return Ok(Offer::Plain { lacks });
        }
        Some(CdiAccess::Everyone) => {}
        Some(CdiAccess::Entitled) => entitlements.push(DEVICE.to_owned()),
    }
    Ok(
        match granted(&daemon, &entitlements).await.map_err(refused)? {
            Ok(()) => Offer::Strong { entitlements },
            Err(reason) => Offer::Plain {
                lacks: Lack::Leave { reason },
            },
        },
    )
}

async fn network(address: &Address) -> Result<Outside, Error> {
    if !connection::lacks_network(address).await? {
        return Ok(Outside::Default);
    }
    let daemon = Daemon::connect(address).await?;
    let entitlement = HOST.to_owned();
    match granted(&daemon, std::slice::from_ref(&entitlement)).await {
        Ok(Ok(())) => Ok(Outside::Host { entitlement }),
        Ok(Err(reason)) => Ok(Outside::Nothing { reason }),
        Err(error) => Err(Error::Daemon {
            address: address.to_string(),
            reason: error.message,
        }),
    }
}

/// Has a daemon solve nothing with some entitlements: whether it grants them, or why not.
async fn granted(
    daemon: &Daemon,
    entitlements: &[String],
) -> Result<Result<(), String>, SolveError> {
    let solve = control::Solve {
        reference: reference("offer"),
        definition: NOTHING.to_vec(),
        session: String::new(),
        entitlements: entitlements.to_vec(),
    };
    match daemon.solve(solve).await {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.kind == Kind::Other => Ok(Err(error.message)),
        Err(error) => Err(error),
    }
}

/// Names a job that is no run's: no other may have the same name.
pub(super) fn reference(what: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos().to_string();
    unique(&[what, &std::process::id().to_string(), &now])
}
