//! What ops leave in a daemon's cache, and how it goes again.
//!
//! | record | how it is told apart | of use afterwards |
//! |---|---|---|
//! | the empty layer of an op | a layer that is described as the root of an exec of our agent | none: no op is ever asked for twice |
//! | the agent, as the daemon pulled it | a client's directory of our name | none: it is in the store |
//! | the store | a cache mount | everything: it is never touched |
//!
//! All else is other people's. A record that an op has stays; the daemon looks again when it
//! removes.
//!
//! While a daemon removes records, everybody waits who takes or gives back something of its cache.
//! If the last holder of a cache mount waits so, whoever asks for the mount next gets *another,
//! empty one* under the same id (measured: a store was lost that way). So nothing is removed but
//! while an op of ours holds the store: then everybody shares that mount.
//!
//! A run does it little and often, beside its builds: [`AT_ONCE`] at a time with a [`PAUSE`] between,
//! down to [`KEPT`]. When the run is at its end, what is left is for the next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::buildkit::records::{CLIENT_DIRECTORY, LAYER, Record};
use crate::buildkit::{Address, Daemon, SolveError, connection};
use crate::engine::lower::{self, AGENT_FILE, AGENT_SOURCE, DELIVERY};

/// How many records of ours a run leaves alone.
pub const KEPT: usize = 200;
/// How many more there have to be before it begins.
const SLACK: usize = 50;
/// How many go at once: a daemon removes so many without letting anybody in between.
const AT_ONCE: usize = 10;
/// How long others have the daemon to themselves.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked for what was in use when it was to go.
const PASSES: u32 = 4;
/// How long it takes until it is worth looking again.
const REST: Duration = Duration::from_secs(10);
/// How long a daemon may take for one answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why records could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No runtime.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    /// No daemon.
    #[error(transparent)]
    Daemon(#[from] connection::Error),
    /// It refuses.
    #[error("the daemon refuses")]
    Refused(#[from] SolveError),
    /// It says nothing.
    #[error("the daemon has not answered for {} s", PATIENCE.as_secs())]
    Silent,
}

/// Records, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub records: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, records: &[Record]) {
        self.records += records.len();
        self.bytes += records.iter().map(|record| record.size).sum::<u64>();
    }
}

/// What to do with the records of ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Count them.
    Count,
    /// Remove them.
    Remove,
}

/// Counts the records that ops have left in a daemon's cache and nobody uses, or removes them
/// until `cancel` is set. To remove them an op has to hold the store.
///
/// # Errors
///
/// [`Error`]; what was removed before is gone.
pub fn prune(address: &Address, mode: Mode, cancel: &AtomicBool) -> Result<Tally, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let mut done = Tally::default();
    runtime.block_on(async {
        let daemon = Daemon::connect(address).await?;
        for pass in 1..=PASSES {
            let idle = tokio::select! {
                idle = within(idle(&daemon)) => idle?,
                () = set(cancel) => return Ok(()),
            };
            if mode == Mode::Count {
                done.add(&idle);
            }
            if mode == Mode::Count || idle.is_empty() {
                break;
            }
            if pass > 1 {
                // Whoever measures a record has it for that long; so does the run beside us.
                tokio::time::sleep(PAUSE).await;
            }
            for some in idle.chunks(AT_ONCE) {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(());
                }
                done.add(&within(daemon.remove(some)).await?);
            }
        }
        Ok::<(), Error>(())
    })?;
    Ok(done)
}

/// The trimming beside a run.
#[derive(Debug)]
pub struct Beside {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Beside {
    /// Begins; an op has to hold the store. What a daemon answers wrongly is no matter of the run:
    /// the next one tries again.
    pub fn begin(daemon: Daemon) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut stopped = stopped;
            while trim(&daemon, &mut stopped).await.is_some() {
                if pause(REST, &mut stopped).await.is_none() {
                    return;
                }
            }
        });
        Self { stop, task }
    }

    /// Ends it: done when the daemon removes nothing any more.
    pub async fn end(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

/// Removes what is above [`KEPT`]; none if that failed, or if it was told to stop.
async fn trim(daemon: &Daemon, stopped: &mut oneshot::Receiver<()>) -> Option<()> {
    let idle = tokio::select! {
        _ = &mut *stopped => return None,
        idle = within(idle(daemon)) => idle.ok()?,
    };
    let (layers, mut old): (Vec<_>, Vec<_>) =
        idle.into_iter().partition(|record| record.kind == LAYER);
    if layers.len() > KEPT + SLACK {
        let above = layers.len() - KEPT;
        old.extend(layers.into_iter().take(above));
    }
    for some in old.chunks(AT_ONCE) {
        within(daemon.remove(some)).await.ok()?;
        pause(PAUSE, stopped).await?;
    }
    Some(())
}

/// Waits; none if it was told to stop.
async fn pause(time: Duration, stopped: &mut oneshot::Receiver<()>) -> Option<()> {
    tokio::select! {
        _ = stopped => None,
        () = tokio::time::sleep(time) => Some(()),
    }
}

/// Lists the records of ours that nobody uses.
async fn idle(daemon: &Daemon) -> Result<Vec<Record>, SolveError> {
    // Who they are is decided here: a filter of a daemon's knows less.
    let near = |kind| format!("type=={kind},description~=pontoon");
    let records = daemon.records(vec![near(LAYER), near(CLIENT_DIRECTORY)]);
    let mut idle = records.await?;
    idle.retain(|record| !record.in_use && is_ours(record));
    Ok(idle)
}

/// Whether an op of ours left it. The words are the daemon's (spec §13.3).
fn is_ours(record: &Record) -> bool {
    match record.kind.as_str() {
        LAYER => {
            let program = record.description.strip_prefix("mount / from exec ");
            let delivered = format!("{DELIVERY}/{AGENT_FILE} agent ");
            program.is_some_and(|program| {
                let first = program.split(' ').next().unwrap_or_default();
                lower::is_agent(first) || program.starts_with(&delivered)
            })
        }
        CLIENT_DIRECTORY => record.description == format!("local source for {AGENT_SOURCE}"),
        _ => false,
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, SolveError>>) -> Result<T, Error> {
    let answered = tokio::time::timeout(PATIENCE, answer).await;
    Ok(answered.map_err(|_| Error::Silent)??)
}

async fn set(cancel: &AtomicBool) {
    while !cancel.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::records::CACHE_MOUNT;

    fn record(kind: &str, description: &str) -> Record {
        Record {
            id: "f2m8wmx0ttz1372o7zget23r7".to_owned(),
            kind: kind.to_owned(),
            description: description.to_owned(),
            size: 16_384,
            in_use: false,
        }
    }

    #[test]
    fn ours_are_told_apart_by_the_daemons_words() {
        let agent = "vxa99l49y7x89s6plxvwi07lkh817y02";
        let ours = [
            (LAYER, "mount / from exec /.pontoon/agent store".to_owned()),
            (
                LAYER,
                format!("mount / from exec /nix/pontoon/agent/{agent} build /nix/store/x.drv"),
            ),
            (
                LAYER,
                "mount / from exec /.pontoon/agent build /nix/store/x.drv".to_owned(),
            ),
            (
                LAYER,
                format!("mount / from exec /.pontoon/delivery/pontoon agent install {agent}"),
            ),
            (
                CLIENT_DIRECTORY,
                "local source for pontoon-agent".to_owned(),
            ),
        ];
        for (kind, description) in ours {
            assert!(is_ours(&record(kind, &description)), "{description}");
        }
        let theirs = [
            (
                CACHE_MOUNT,
                "cached mount /.pontoon/agent from exec /.pontoon/agent store with id \"pontoon-nix\"",
            ),
            (CACHE_MOUNT, "mount / from exec /.pontoon/agent store"),
            (LAYER, "mount / from exec /bin/sh -c /.pontoon/agent store"),
            (LAYER, "mount / from exec /.pontoon/agents store"),
            (LAYER, "pulled from registry.example/pontoon:latest"),
            (CLIENT_DIRECTORY, "local source for context"),
            (CLIENT_DIRECTORY, "local source for pontoon-agents"),
        ];
        for (kind, description) in theirs {
            assert!(!is_ours(&record(kind, description)), "{description}");
        }
    }
}
