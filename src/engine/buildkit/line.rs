//! The connection to a daemon, what is offered on it, and how one op is solved.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Config;
use super::jobs::{Jobs, Terms};
use super::names::{agent_id, unique};
use super::watch::Watch;
use crate::agent::exit;
use crate::buildkit::auth::Keychain;
use crate::buildkit::content::Layouts;
use crate::buildkit::filesync::{Directories, Tree};
use crate::buildkit::gateway::{Capabilities, Solved};
use crate::buildkit::secrets::Vault;
use crate::buildkit::ssh::Forward;
use crate::buildkit::{Daemon, Job, Kind, Services, Session, SolveError, connection};
use crate::engine::lower::{self, Scratch, TUNNEL};
use crate::engine::{Error, Op, Shape};

/// What the tasks of the ops share.
pub(super) struct Line {
    config: Config,
    /// The agent's id.
    pub(super) agent: String,
    /// The daemon itself, for what is no op.
    pub(super) daemon: Daemon,
    limit: usize,
    capabilities: Capabilities,
    jobs: Jobs,
    watch: Arc<Watch>,
    vault: Vault,
    layouts: Layouts,
    /// Set once the agent is known to be in the store: only ops that were begun before may find none.
    delivered: OnceCell<()>,
}

impl Line {
    pub(super) async fn open(config: Config, watch: Arc<Watch>) -> Result<(Self, Session), Error> {
        let program = config.program.clone();
        // It takes as long as to connect.
        let agent = tokio::task::spawn_blocking(move || agent_id(&program));
        let daemon = Daemon::connect(&config.address).await?;
        let refused = |reason: String| Error::Daemon {
            address: config.address.to_string(),
            reason,
        };
        let vault = Vault::default();
        let layouts = Layouts::default();
        let directories = Directories::default();
        let delivery = Tree::File {
            name: lower::AGENT_FILE.to_owned(),
            path: config.program.clone(),
        };
        directories.offer(lower::AGENT_SOURCE.to_owned(), delivery);
        let services = Services {
            forward: Forward {
                id: TUNNEL.to_owned(),
                socket: config.tunnel.clone(),
            },
            vault: vault.clone(),
            directories,
            layouts: layouts.clone(),
            keychain: Keychain {
                config: config.logins.clone(),
            },
        };
        let id = unique(&["session", &config.run]);
        let session = Session::open(&daemon, id.clone(), services).await;
        let session = session.map_err(refused)?;
        let terms = Terms {
            run: config.run.clone(),
            session: id,
            entitlements: config.entitlements.clone(),
        };
        let jobs = Jobs::open(daemon.clone(), terms, Arc::clone(&watch)).await;
        let jobs = jobs.map_err(|error| refused(error.message))?;
        let capabilities = jobs.capabilities().await;
        check(&daemon, &config, &capabilities)?;
        let agent = agent.await.map_err(std::io::Error::other).flatten();
        let line = Self {
            agent: agent.map_err(Error::Start)?,
            limit: daemon.limit(),
            daemon,
            config,
            capabilities,
            jobs,
            watch,
            vault,
            layouts,
            delivered: OnceCell::new(),
        };
        Ok((line, session))
    }

    /// How ops get memory to write to.
    pub(super) fn scratch(&self) -> Scratch {
        Scratch::of(&self.capabilities.ops)
    }

    /// What the daemon can do.
    pub(super) fn capabilities(&self) -> BTreeSet<String> {
        self.capabilities.ops.clone()
    }

    /// What the session offers as images.
    pub(super) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// Where files are kept for as long as the daemon needs them.
    pub(super) fn temporary(&self) -> &Path {
        &self.config.temporary
    }

    /// Hears that the agent is in the store: what lacks it from now on has lost that.
    pub(super) fn found(&self) {
        // It may have been delivered.
        let _ = self.delivered.set(());
    }

    pub(super) async fn run(&self, mut op: Op) -> Result<(), Failed> {
        let may_lack = !self.delivered.initialized();
        let ids: BTreeSet<String> = op.secrets.keys().cloned().collect();
        let values = std::mem::take(&mut op.secrets);
        let values = values.into_iter().map(|(id, value)| (id, value.0));
        self.vault.add(values);
        let mut solved = self.attempt(&op).await;
        if let Err(failed) = &solved
            && may_lack
            && failed.lacks(&self.agent, self.config.shape)
        {
            let delivered = self.delivered.get_or_try_init(|| self.install(&op.nonce));
            solved = match delivered.await {
                Ok(()) => self.attempt(&op).await,
                Err(failed) => Err(failed),
            };
        }
        self.vault.forget(&ids);
        solved
    }

    /// Makes the root of an op, and runs it there. All of it in one job: it keeps what it made.
    async fn attempt(&self, op: &Op) -> Result<(), Failed> {
        let job = self.jobs.next().await?;
        let definition = self.ground(&job, op).await?;
        self.solve(&job, &op.nonce, definition).await?;
        Ok(())
    }

    /// Solves a definition.
    pub(super) async fn solve(
        &self,
        job: &Job,
        nonce: &str,
        definition: Vec<u8>,
    ) -> Result<Solved, Failed> {
        if definition.len() > self.limit {
            let message = format!(
                "the op is {} bytes long, and this daemon takes {} at most",
                definition.len(),
                self.limit
            );
            return Err(Failed::of(message, Kind::TooLarge));
        }
        let watched = self.watch.begin(nonce, &definition);
        match job.solve(definition).await {
            Ok(solved) => Ok(solved),
            Err(error) => Err(Failed {
                words: if error.kind == Kind::Gone {
                    String::new()
                } else {
                    watched.last_words().await
                },
                error,
            }),
        }
    }

    /// Delivers the agent into the store.
    async fn install(&self, nonce: &str) -> Result<(), Failed> {
        let definition = lower::install(&self.agent, self.config.shape, nonce);
        let definition = definition.map_err(|error| Failed::of(error.to_string(), Kind::Other))?;
        let job = self.jobs.next().await?;
        let installed = self.solve(&job, nonce, definition).await;
        // A job tells of an op that failed in it once for all.
        let renewed = self.jobs.renew().await;
        let installed = installed.and(renewed.map_err(Failed::from));
        installed.map_err(|mut failed| {
            let error = &mut failed.error;
            error.message = format!("cannot deliver the agent: {}", error.message);
            // An exit code would be taken for that of the op itself.
            if error.kind != Kind::Gone {
                error.kind = Kind::Other;
            }
            failed
        })
    }
}

/// An op that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: SolveError,
    /// The last of what it wrote.
    pub(super) words: String,
}

impl Failed {
    pub(super) fn of(message: String, kind: Kind) -> Self {
        Self::from(SolveError {
            message,
            kind,
            vertex: None,
        })
    }

    /// Whether the op was not started because its store has no agent yet, or not any more. In strong,
    /// and with daemons of 2020, it is `runc` that finds that out, and it only writes it; if even
    /// that is lost there is its code, which the agent never ends with. What finds itself removed
    /// ends with a code of its own.
    fn lacks(&self, agent: &str, shape: Shape) -> bool {
        if self.error.kind == Kind::Exit(exit::GONE) {
            return true;
        }
        if shape == Shape::Strong && matches!(self.error.kind, Kind::Exit(1 | 126 | 127)) {
            return true;
        }
        let path = format!("pontoon/agent/{agent}");
        [&self.error.message, &self.words]
            .iter()
            .any(|text| text.contains(&path) && text.contains("no such file or directory"))
    }
}

impl From<SolveError> for Failed {
    fn from(error: SolveError) -> Self {
        Self {
            error,
            words: String::new(),
        }
    }
}

/// Refuses a daemon that lacks what every op needs.
fn check(daemon: &Daemon, config: &Config, has: &Capabilities) -> Result<(), Error> {
    let lacks: Vec<String> = lower::NEEDED
        .iter()
        .filter(|cap| !has.ops.contains(**cap))
        .map(|cap| format!("`{cap}`"))
        .collect();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::Connect(connection::Error::TooOld {
        address: config.address.clone(),
        version: daemon.describe(),
        lacks,
    }))
}
