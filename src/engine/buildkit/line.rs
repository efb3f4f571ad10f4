//! The connection to a daemon, what is offered on it, and how one op is solved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Config;
use super::jobs::{Jobs, Terms};
use super::names::unique;
use super::watch::Watch;
use crate::buildkit::filesync::Directory;
use crate::buildkit::gateway::Capabilities;
use crate::buildkit::secrets::Vault;
use crate::buildkit::ssh::Forward;
use crate::buildkit::{Daemon, Kind, Services, Session, SolveError, connection};
use crate::engine::lower::{self, Scratch, TUNNEL};
use crate::engine::{Error, Op};

/// What the tasks of the ops share.
pub(super) struct Line {
    config: Config,
    pub(super) daemon: Daemon,
    limit: usize,
    capabilities: Capabilities,
    jobs: Jobs,
    watch: Arc<Watch>,
    vault: Vault,
    /// Whether an op has been started: only the first one may find no agent.
    begun: AtomicBool,
}

impl Line {
    pub(super) async fn open(config: Config, watch: Arc<Watch>) -> Result<(Self, Session), Error> {
        let daemon = Daemon::connect(&config.address).await?;
        let refused = |reason: String| Error::Daemon {
            address: config.address.to_string(),
            reason,
        };
        let vault = Vault::default();
        let services = Services {
            forward: Forward {
                id: TUNNEL.to_owned(),
                socket: config.tunnel.clone(),
            },
            vault: vault.clone(),
            directory: Directory {
                name: lower::AGENT_SOURCE.to_owned(),
                file: lower::AGENT_FILE.to_owned(),
                path: config.program.clone(),
            },
        };
        let id = unique(&["session", &config.run]);
        let session = Session::open(&daemon, id.clone(), services).await;
        let session = session.map_err(refused)?;
        let terms = Terms {
            run: config.run.clone(),
            session: id,
            entitlements: Vec::new(),
        };
        let jobs = Jobs::open(daemon.clone(), terms, Arc::clone(&watch)).await;
        let jobs = jobs.map_err(|error| refused(error.message))?;
        let capabilities = jobs.capabilities().await;
        check(&daemon, &config, &capabilities)?;
        let line = Self {
            limit: daemon.limit(),
            daemon,
            config,
            capabilities,
            jobs,
            watch,
            vault,
            begun: AtomicBool::new(false),
        };
        Ok((line, session))
    }

    /// How ops get memory to write to.
    pub(super) fn scratch(&self) -> Scratch {
        Scratch::of(&self.capabilities.ops)
    }

    pub(super) async fn run(&self, op: Op) -> Result<(), Failed> {
        let first = !self.begun.swap(true, Ordering::Relaxed);
        let ids: BTreeSet<String> = op.secrets.keys().cloned().collect();
        let values = op.secrets.into_iter().map(|(id, value)| (id, value.0));
        self.vault.add(values);
        let mut solved = self.solve(&op.nonce, op.definition.clone()).await;
        if let Err(failed) = &solved
            && first
            && failed.lacks(&self.config.agent)
        {
            solved = match self.install(&op.nonce).await {
                Ok(()) => self.solve(&op.nonce, op.definition).await,
                Err(failed) => Err(failed),
            };
        }
        self.vault.forget(&ids);
        solved
    }

    async fn solve(&self, nonce: &str, definition: Vec<u8>) -> Result<(), Failed> {
        if definition.len() > self.limit {
            let message = format!(
                "the op is {} bytes long, and this daemon takes {} at most",
                definition.len(),
                self.limit
            );
            return Err(Failed::of(message, Kind::TooLarge));
        }
        let watched = self.watch.begin(nonce, &definition);
        let solved = match self.jobs.next().await {
            Ok(job) => job.solve(definition).await,
            Err(error) => Err(error),
        };
        match solved {
            Ok(_) => Ok(()),
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
        let definition = lower::install(&self.config.agent, nonce);
        let definition = definition.map_err(|error| Failed::of(error.to_string(), Kind::Other))?;
        let installed = self.solve(nonce, definition).await;
        // A job tells of an op that failed in it once for all.
        let renewed = self.jobs.renew().await;
        let installed = installed.and(renewed.map_err(|error| Failed {
            error,
            words: String::new(),
        }));
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
    fn of(message: String, kind: Kind) -> Self {
        Self {
            error: SolveError {
                message,
                kind,
                vertex: None,
            },
            words: String::new(),
        }
    }

    /// Whether the op was not started because its store has no agent yet. Daemons of 2020 let
    /// `runc` find that out, which only writes it.
    fn lacks(&self, agent: &str) -> bool {
        let path = format!("pontoon/agent/{agent}");
        [&self.error.message, &self.words]
            .iter()
            .any(|text| text.contains(&path) && text.contains("no such file or directory"))
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
