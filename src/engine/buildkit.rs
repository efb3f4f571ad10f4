//! A `BuildKit` daemon as an engine: each op is one solve, and all of a run share one session.
//!
//! One thread owns the runtime, the connection and everything asynchronous; the engine itself only
//! sends it words. The daemon's store is a cache mount, so the agent lives there too: it is
//! delivered by the first op of a run that does not find it, and found by all later ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::buildkit::filesync::Directory;
use crate::buildkit::secrets::Vault;
use crate::buildkit::ssh::Forward;
use crate::buildkit::{Address, Daemon, Kind, Services, Session, SolveError, control};
use crate::engine::lower::{self, TUNNEL};
use crate::engine::trim::Beside;
use crate::engine::{Device, Engine, EngineEvent, Error, Op, OpEnd, OpExit, Shape};
use crate::nix::{HashAlgorithm, base32, hash_bytes};

/// How long the end of a run waits for a daemon that removes old records.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// What the engine is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// The daemon.
    pub address: Address,
    /// This executable, which is the agent.
    pub program: PathBuf,
    /// The agent's id, as ops name it.
    pub agent: String,
    /// Where ops have the store.
    pub shape: Shape,
    /// What every solve asks of the daemon beyond a sandbox.
    pub entitlements: Vec<String>,
    /// The conductor's listening socket, where every op's tunnel ends.
    pub tunnel: PathBuf,
    /// The run's id: no two runs have the same.
    pub run: String,
}

/// A daemon with a session.
#[derive(Debug)]
pub struct BuildKit {
    words: UnboundedSender<Word>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Word {
    Start(Op),
    Kill(String),
    /// An op holds the store.
    Held,
    /// It will not for long. Dropped when nothing needs it any more.
    LetGo(std::sync::mpsc::Sender<()>),
}

impl BuildKit {
    /// Connects and opens a session. Events go to `tell`, from a thread of their own.
    ///
    /// # Errors
    ///
    /// [`Error::Daemon`], [`Error::Start`].
    pub fn start(
        config: Config,
        tell: impl Fn(EngineEvent) + Send + 'static,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Start)?;
        let (words, heard) = unbounded_channel();
        let (opened, opening) = std::sync::mpsc::channel();
        let address = config.address.to_string();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                match Line::open(config).await {
                    Ok((line, session)) => {
                        let _ = opened.send(Ok(()));
                        Box::pin(converse(Arc::new(line), session, heard, &tell)).await;
                    }
                    Err(reason) => {
                        let _ = opened.send(Err(reason));
                    }
                }
            });
        });
        let engine = Self {
            words,
            thread: Some(thread),
        };
        let gone = || "its thread ended".to_owned();
        match opening.recv().unwrap_or_else(|_| Err(gone())) {
            Ok(()) => Ok(engine),
            Err(reason) => Err(Error::Daemon { address, reason }),
        }
    }

    fn say(&self, word: Word) -> Result<(), Error> {
        let gone = |_| Error::Gone(std::io::ErrorKind::BrokenPipe.into());
        self.words.send(word).map_err(gone)
    }
}

impl Engine for BuildKit {
    fn start(&mut self, op: Op) -> Result<(), Error> {
        self.say(Word::Start(op))
    }

    fn kill(&mut self, nonce: &str) -> Result<(), Error> {
        self.say(Word::Kill(nonce.to_owned()))
    }

    fn store_held(&mut self) -> Result<(), Error> {
        self.say(Word::Held)
    }

    fn store_let_go(&mut self) -> Result<(), Error> {
        let (done, waiting) = std::sync::mpsc::channel();
        self.say(Word::LetGo(done))?;
        // Nothing is ever sent: it is over when the sender is gone.
        let _ = waiting.recv_timeout(LONGEST_STEP);
        Ok(())
    }

    /// A daemon's devices are its own.
    fn offer(&mut self, device: Device) -> Result<(), Error> {
        let what = format!("the device `{}`", device.name);
        Err(Error::NotOnBuildKit { what })
    }
}

impl Drop for BuildKit {
    fn drop(&mut self) {
        // The thread ends when nobody can speak to it any more; its solves end with it.
        let (words, _) = unbounded_channel();
        self.words = words;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the tasks of the ops share.
struct Line {
    config: Config,
    daemon: Daemon,
    session: String,
    vault: Vault,
    solves: AtomicU32,
    /// Whether an op has been started: only the first one may find no agent.
    begun: AtomicBool,
}

impl Line {
    async fn open(config: Config) -> Result<(Self, Session), String> {
        let daemon = Daemon::connect(&config.address).await;
        let daemon = daemon.map_err(|error: control::Error| chain(&error))?;
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
        let session = Session::open(&daemon, id.clone(), services).await?;
        let line = Self {
            config,
            daemon,
            session: id,
            vault,
            solves: AtomicU32::new(0),
            begun: AtomicBool::new(false),
        };
        Ok((line, session))
    }

    async fn run(&self, op: Op) -> Result<(), SolveError> {
        let first = !self.begun.swap(true, Ordering::Relaxed);
        let ids: BTreeSet<String> = op.secrets.keys().cloned().collect();
        let values = op.secrets.into_iter().map(|(id, value)| (id, value.0));
        self.vault.add(values);
        let mut solved = self.solve(op.definition.clone()).await;
        if let Err(error) = &solved
            && first
            && lacks(error, &self.config)
        {
            solved = match self.install(&op.nonce).await {
                Ok(()) => self.solve(op.definition).await,
                Err(error) => Err(error),
            };
        }
        self.vault.forget(&ids);
        solved
    }

    async fn solve(&self, definition: Vec<u8>) -> Result<(), SolveError> {
        let number = self.solves.fetch_add(1, Ordering::Relaxed).to_string();
        let solve = control::Solve {
            reference: unique(&["solve", &self.config.run, &number]),
            definition,
            session: self.session.clone(),
            entitlements: self.config.entitlements.clone(),
        };
        self.daemon.solve(solve).await
    }

    /// Delivers the agent into the store.
    async fn install(&self, nonce: &str) -> Result<(), SolveError> {
        let definition =
            lower::install(&self.config.agent, self.config.shape, nonce).map_err(|error| {
                SolveError {
                    message: error.to_string(),
                    kind: Kind::Other,
                    vertex: None,
                }
            })?;
        let installed = self.solve(definition).await;
        installed.map_err(|mut error| {
            error.message = format!("cannot deliver the agent: {}", error.message);
            // An exit code would be taken for that of the op itself.
            error.kind = Kind::Other;
            error
        })
    }
}

/// Whether an op was not started because its store has no agent yet.
fn lacks(error: &SolveError, config: &Config) -> bool {
    match config.shape {
        // What says so of a program that is not there is the container's runtime, with a code that
        // the agent never ends with; its words are only in the op's log.
        Shape::Strong => matches!(error.kind, Kind::Exit(1 | 126 | 127)),
        Shape::Plain => {
            error
                .message
                .contains(&format!("pontoon/agent/{}", config.agent))
                && error.message.contains("no such file or directory")
        }
    }
}

/// Starts and ends ops until nobody speaks any more, or the daemon is gone.
async fn converse(
    line: Arc<Line>,
    mut session: Session,
    mut heard: UnboundedReceiver<Word>,
    tell: &impl Fn(EngineEvent),
) {
    let mut ops: JoinSet<(String, Result<OpExit, String>)> = JoinSet::new();
    let mut kills: BTreeMap<String, oneshot::Sender<()>> = BTreeMap::new();
    let mut beside = None;
    loop {
        tokio::select! {
            word = heard.recv() => match word {
                None => return,
                Some(Word::Start(op)) => {
                    let (kill, killed) = oneshot::channel();
                    kills.insert(op.nonce.clone(), kill);
                    ops.spawn(attend(Arc::clone(&line), op, killed));
                }
                Some(Word::Kill(nonce)) => {
                    if let Some(kill) = kills.remove(&nonce) {
                        let _ = kill.send(());
                    }
                }
                Some(Word::Held) => beside = Some(Beside::begin(line.daemon.clone())),
                Some(Word::LetGo(done)) => {
                    if let Some(beside) = beside.take() {
                        tokio::spawn(async move {
                            beside.end().await;
                            drop(done);
                        });
                    }
                }
            },
            Some(ended) = ops.join_next() => match ended {
                Ok((nonce, Ok(how))) => {
                    kills.remove(&nonce);
                    tell(EngineEvent::Ended(OpEnd { nonce, how }));
                }
                Ok((_, Err(reason))) => return tell(EngineEvent::Gone { reason }),
                Err(error) => return tell(EngineEvent::Gone { reason: error.to_string() }),
            },
            ended = &mut session.ended => {
                let reason = ended.unwrap_or_else(|error| error.to_string());
                return tell(EngineEvent::Gone { reason });
            }
        }
    }
}

/// Runs one op to its end; an error is the daemon's own end.
async fn attend(
    line: Arc<Line>,
    op: Op,
    killed: oneshot::Receiver<()>,
) -> (String, Result<OpExit, String>) {
    let nonce = op.nonce.clone();
    let how = tokio::select! {
        solved = line.run(op) => match solved {
            Ok(()) => Ok(OpExit::Code(0)),
            Err(error) => match error.kind {
                Kind::Exit(code) => Ok(OpExit::Code(code)),
                Kind::Gone => Err(error.message),
                Kind::Cancelled
                | Kind::TooLarge
                | Kind::SessionLost
                | Kind::Other => Ok(OpExit::NotStarted { reason: error.message }),
            },
        },
        Ok(()) = killed => Ok(OpExit::Signal(rustix::process::Signal::KILL.as_raw())),
    };
    (nonce, how)
}

/// Names the agent by its content, so that every machine with the same one finds it delivered.
///
/// # Errors
///
/// The file cannot be read.
pub fn agent_id(program: &std::path::Path) -> std::io::Result<String> {
    let hash = hash_bytes(HashAlgorithm::Sha256, &fs_err::read(program)?);
    Ok(base32(&hash.digest_as_bytes()[..20]))
}

/// A name of 25 characters in base 36, as daemons expect it; as unique as what it is made of.
pub(super) fn unique(parts: &[&str]) -> String {
    let hash = hash_bytes(HashAlgorithm::Sha256, parts.join("\0").as_bytes());
    let bytes = &hash.digest_as_bytes()[..25];
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    bytes
        .iter()
        .map(|byte| char::from(digits[usize::from(*byte) % digits.len()]))
        .collect()
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_the_form_daemons_expect() {
        let one = unique(&["solve", "0123456789abcdef", "1"]);
        assert_ne!(one, unique(&["solve", "0123456789abcdef", "2"]));
        assert_eq!(one.len(), 25);
        assert!(
            one.bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        );
    }

    #[test]
    fn says_who_does_not_answer() {
        let place = tempfile::tempdir().unwrap();
        let config = Config {
            address: Address::Unix(place.path().join("none.sock")),
            program: PathBuf::new(),
            agent: String::new(),
            shape: Shape::Plain,
            entitlements: Vec::new(),
            tunnel: PathBuf::new(),
            run: String::new(),
        };
        let error = BuildKit::start(config, |_| ()).err().unwrap();
        let text = error.to_string();
        assert!(
            text.contains("none.sock") && text.contains("No such file"),
            "{text}"
        );
    }
}
