//! Which job of the daemon an op goes to.
//!
//! A job keeps what its ops leave until it ends, and becomes slower with their number (spec §13.3):
//! after some ops the next ones go to a new one. The old one ends with the last of its own.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::names::unique;
use super::watch::Watch;
use crate::buildkit::gateway::{Capabilities, Opening};
use crate::buildkit::{Daemon, Job, SolveError};

/// How many ops a job gets.
const OPS: u32 = 200;

/// The jobs of a run.
#[derive(Debug)]
pub(super) struct Jobs {
    daemon: Daemon,
    terms: Terms,
    watch: Arc<Watch>,
    current: Mutex<Current>,
}

/// What all jobs of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// The run's id.
    pub(super) run: String,
    /// The session that answers for them.
    pub(super) session: String,
    /// What they may ask of the daemon beyond a sandbox.
    pub(super) entitlements: Vec<String>,
}

#[derive(Debug)]
struct Current {
    job: Arc<Job>,
    ops: u32,
    opened: u32,
}

impl Jobs {
    /// Opens the first one.
    pub(super) async fn open(
        daemon: Daemon,
        terms: Terms,
        watch: Arc<Watch>,
    ) -> Result<Self, SolveError> {
        let job = begin(&daemon, &terms, 0, &watch).await?;
        Ok(Self {
            daemon,
            terms,
            watch,
            current: Mutex::new(Current {
                job,
                ops: 0,
                opened: 1,
            }),
        })
    }

    /// What the daemon says it can do.
    pub(super) async fn capabilities(&self) -> Capabilities {
        self.current.lock().await.job.capabilities.clone()
    }

    /// Ends the current job, so that what failed in it can be tried again.
    pub(super) async fn renew(&self) -> Result<(), SolveError> {
        let mut current = self.current.lock().await;
        current.job.close().await;
        self.replace(&mut current).await
    }

    async fn replace(&self, current: &mut Current) -> Result<(), SolveError> {
        let job = begin(&self.daemon, &self.terms, current.opened, &self.watch);
        current.job = job.await?;
        current.opened += 1;
        current.ops = 0;
        Ok(())
    }

    /// Says which job the next op is to go to; it lasts for as long as somebody has it.
    pub(super) async fn next(&self) -> Result<Arc<Job>, SolveError> {
        let mut current = self.current.lock().await;
        if current.ops == OPS {
            self.replace(&mut current).await?;
        }
        current.ops += 1;
        Ok(Arc::clone(&current.job))
    }
}

/// Opens a job and follows it.
async fn begin(
    daemon: &Daemon,
    terms: &Terms,
    number: u32,
    watch: &Arc<Watch>,
) -> Result<Arc<Job>, SolveError> {
    let reference = unique(&["job", &terms.run, &number.to_string()]);
    let opening = Opening {
        reference: reference.clone(),
        session: terms.session.clone(),
        entitlements: terms.entitlements.clone(),
    };
    let job = Job::open(daemon, opening).await?;
    let (daemon, watch) = (daemon.clone(), Arc::clone(watch));
    // Ends with the job.
    tokio::spawn(async move { daemon.follow(reference, |news| watch.hear(&news)).await });
    Ok(Arc::new(job))
}
