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
//! A run does it while no op of its own begins or ends: a [`Step`] at a time with a [`PAUSE`] between,
//! down to [`KEPT`]. Where there is no such [`QUIET`] moment, what is above [`MOST`] goes all the same.
//! When the run is at its end, what is left is for the next. Even to look costs a daemon time, for it
//! measures what it has not measured yet: a run that is over [`SOON`] does not look. But it leaves a
//! record itself, so one in [`SHORT_ONES`] has its turn: it looks at once, and removes [`IN_A_TURN`]
//! before it ends.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::buildkit::records::{CLIENT_DIRECTORY, LAYER, Record};
use crate::buildkit::{Address, Daemon, SolveError, connection};
use crate::engine::lower::{self, AGENT_FILE, AGENT_SOURCE, DELIVERY};

/// How many records of ours a run leaves alone.
pub const KEPT: usize = 200;
/// How many more there have to be before it begins.
const SLACK: usize = 50;
/// How many it leaves alone while its ops begin and end.
const MOST: usize = 1000;
/// How long no op of the run has begun or ended when a daemon has time for it.
const QUIET: Duration = Duration::from_millis(200);
/// How many go at first, and never fewer: newer daemons let nobody in between until so many are gone.
const FEW: usize = 10;
/// How long a step is to take. The end of a run waits for it, though not for long.
const QUICK: Duration = Duration::from_millis(400);
/// How long others have the daemon to themselves.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a run lasts before it looks. Most of those that find everything valid are over by then.
const SOON: Duration = Duration::from_millis(300);
/// One in so many runs looks at once.
const SHORT_ONES: u64 = 16;
/// How many go in a turn, for which the end of the run waits: more than so many short runs leave.
const IN_A_TURN: usize = 30;
/// How often it is looked for what was in use when it was to go.
const PASSES: u32 = 4;
/// How long a quiet moment is waited for, and how long it takes until it is worth looking again.
const REST: Duration = Duration::from_secs(5);
/// How long the end of a run waits for a daemon that removes old records.
pub const LONGEST_STEP: Duration = Duration::from_secs(4);
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
            let mut step = Step::first();
            let mut left = idle.as_slice();
            while !left.is_empty() {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let most = left.len();
                done.add(&step.remove(&daemon, &mut left, most).await?);
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
    /// Begins; an op has to hold the store. When an op begins or ends, `stirred` has the time. What a
    /// daemon answers wrongly is no matter of the run: the next one tries again.
    pub fn begin(daemon: Daemon, stirred: watch::Receiver<Instant>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let work = async move {
            if is_its_turn() {
                take_turn(&daemon).await;
            } else {
                pause(SOON, &mut stopped).await?;
            }
            loop {
                trim(&daemon, &stirred, &mut stopped).await?;
                pause(REST, &mut stopped).await?;
            }
        };
        let task = tokio::spawn(async {
            let _: Option<Infallible> = work.await;
        });
        Self { stop, task }
    }

    /// Ends it: done when the daemon removes nothing any more, because it was waited for or because it
    /// was told to leave off.
    pub async fn end(mut self) {
        drop(self.stop);
        if tokio::time::timeout(LONGEST_STEP, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

/// Removes what is above [`KEPT`], as far as there are moments for it; none if it was told to stop. What
/// fails is tried again by the next.
async fn trim(
    daemon: &Daemon,
    stirred: &watch::Receiver<Instant>,
    stopped: &mut oneshot::Receiver<()>,
) -> Option<()> {
    let old = look(daemon, stopped).await?;
    let mut step = Step::first();
    let mut left = old.as_slice();
    while !left.is_empty() {
        let due = wait_for_due(left.len(), stirred, stopped).await?;
        if due == 0 {
            // Meanwhile there are more: they are counted anew.
            break;
        }
        if step.remove(daemon, &mut left, due).await.is_err() {
            break;
        }
        pause(PAUSE, stopped).await?;
    }
    Some(())
}

/// Waits for a moment in which some of the records above [`KEPT`] may go, and says how many: none, if
/// there was no such moment.
async fn wait_for_due(
    above: usize,
    stirred: &watch::Receiver<Instant>,
    stopped: &mut oneshot::Receiver<()>,
) -> Option<usize> {
    let begun = Instant::now();
    loop {
        let quiet = stirred.borrow().elapsed();
        let due = due(above, quiet);
        if due > 0 || begun.elapsed() >= REST {
            return Some(due);
        }
        pause(QUIET.saturating_sub(quiet), stopped).await?;
    }
}

/// How many of the records above [`KEPT`] may go where no op has begun or ended for so long.
fn due(above: usize, quiet: Duration) -> usize {
    if quiet >= QUIET {
        above
    } else {
        above.saturating_sub(MOST - KEPT)
    }
}

/// Looks at once and removes a few, whatever the run does: its end waits for that, as long as for a step.
/// What fails is tried again by the next one whose turn it is.
async fn take_turn(daemon: &Daemon) {
    if let Ok(idle) = within(idle(daemon)).await {
        let old = above_kept(idle);
        let some = &old[..old.len().min(IN_A_TURN)];
        let _ = within(daemon.remove(some)).await;
    }
}

/// Lists what is to go; nothing if the daemon does not say, none if it was told to stop.
async fn look(daemon: &Daemon, stopped: &mut oneshot::Receiver<()>) -> Option<Vec<Record>> {
    tokio::select! {
        _ = stopped => None,
        idle = within(idle(daemon)) => Some(idle.map(above_kept).unwrap_or_default()),
    }
}

/// What is to go of what nobody uses.
fn above_kept(idle: Vec<Record>) -> Vec<Record> {
    let (layers, mut old): (Vec<_>, Vec<_>) =
        idle.into_iter().partition(|record| record.kind == LAYER);
    if layers.len() > KEPT + SLACK {
        let above = layers.len() - KEPT;
        old.extend(layers.into_iter().take(above));
    }
    old
}

/// Whether this run looks at once.
fn is_its_turn() -> bool {
    let number = RandomState::new().build_hasher().finish();
    number.is_multiple_of(SHORT_ONES)
}

/// How many records go at once. After each call a daemon goes through all that it knows, so that in
/// small steps most of its work is that; in a large one others wait for long, with older daemons for
/// all of it.
#[derive(Debug)]
struct Step(usize);

impl Step {
    fn first() -> Self {
        Self(FEW)
    }

    /// Removes the first of some records, so many at most, and says what is gone.
    async fn remove(
        &mut self,
        daemon: &Daemon,
        left: &mut &[Record],
        most: usize,
    ) -> Result<Vec<Record>, Error> {
        let (some, others) = left.split_at(self.0.min(most).min(left.len()));
        *left = others;
        let begun = Instant::now();
        let removed = within(daemon.remove(some)).await?;
        self.took(begun.elapsed());
        Ok(removed)
    }

    fn took(&mut self, time: Duration) {
        if time < QUICK {
            self.0 *= 2;
        } else {
            self.0 = (self.0 / 2).max(FEW);
        }
    }
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
    fn a_step_grows_while_it_is_quick_and_shrinks_after() {
        let mut step = Step::first();
        let mut after = |time| {
            step.took(time);
            step.0
        };
        let times = [
            QUICK / 5,
            QUICK / 3,
            QUICK / 2,
            QUICK,
            QUICK * 2,
            QUICK * 9,
            QUICK * 9,
        ];
        assert_eq!(times.map(&mut after), [20, 40, 80, 40, 20, 10, 10]);
    }

    #[test]
    fn what_is_above_the_most_goes_in_a_busy_run_and_all_in_a_quiet_moment() {
        let busy = QUIET / 2;
        let above = [0, 50, 800, 801, 1400];
        assert_eq!(above.map(|above| due(above, busy)), [0, 0, 0, 1, 600]);
        assert_eq!(above.map(|above| due(above, QUIET)), above);
    }

    #[test]
    fn some_runs_look_at_once() {
        let turns = (0..2000).filter(|_| is_its_turn()).count();
        assert!((20..500).contains(&turns), "{turns}");
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
