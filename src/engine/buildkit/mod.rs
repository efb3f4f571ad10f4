//! A `BuildKit` daemon as an engine: the ops of a run are solved one by one in a few jobs of the
//! daemon, and all of them share one session.
//!
//! | file | what |
//! |---|---|
//! | here | the engine as its user sees it, and the thread that owns everything asynchronous |
//! | [`layout`] | images in OCI layouts |
//! | [`mod@line`] | the connection, what is offered on it, and how one op is solved |
//! | [`ground`] | what is at the root of an op |
//! | [`jobs`] | which job an op goes to |
//! | [`pulse`] | whether the daemon still answers |
//! | [`watch`] | what the daemon reports of ops that run |
//! | [`names`] | names of solves and sessions, and of the agent |
//!
//! The engine itself only sends its thread words. The daemon's store is a cache mount, so the agent
//! lives there too: it is delivered by the first op of a run that does not find it, and found by
//! all later ones.

mod ground;
mod jobs;
mod layout;
mod line;
mod names;
mod pulse;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use line::{Failed, Line};
pub use names::agent_id;
pub(super) use names::unique;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use watch::Watch;

use crate::buildkit::{Address, Kind, Session};
use crate::engine::lower::Scratch;
use crate::engine::trim::{Beside, LONGEST_STEP};
use crate::engine::{Device, Engine, EngineEvent, Error, Fetch, Op, OpEnd, OpExit, Shape};

/// How often it is asked, while a daemon does not answer, whether the user has lost patience.
const TICK: Duration = Duration::from_millis(50);

/// How long ops that have done their work may take to end: a daemon with a busy disk needs a while.
const GRACE: Duration = Duration::from_secs(2);

/// What the engine is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// The daemon.
    pub address: Address,
    /// This executable, which is the agent.
    pub program: PathBuf,
    /// Where ops have the store.
    pub shape: Shape,
    /// What all ops may take of the daemon beyond a sandbox.
    pub entitlements: Vec<String>,
    /// The conductor's listening socket, where every op's tunnel ends.
    pub tunnel: PathBuf,
    /// The run's id: no two runs have the same.
    pub run: String,
    /// Docker's `config.json`, where logins for registries are.
    pub logins: Option<PathBuf>,
    /// Where files are kept for as long as a daemon needs them.
    pub temporary: PathBuf,
    /// Set when connecting is to be given up.
    pub cancel: Arc<AtomicBool>,
}

/// A daemon with a session.
#[derive(Debug)]
pub struct BuildKit {
    words: UnboundedSender<Word>,
    thread: Option<JoinHandle<()>>,
    /// The agent's id, as ops name it.
    pub agent: String,
    /// How ops get memory to write to on this daemon.
    pub scratch: Scratch,
    /// What the daemon can do, by `BuildKit`'s names.
    capabilities: BTreeSet<String>,
}

/// What is known once there is a session.
struct Opened {
    agent: String,
    scratch: Scratch,
    capabilities: BTreeSet<String>,
}

impl Opened {
    fn of(line: &Line) -> Self {
        Self {
            agent: line.agent.clone(),
            scratch: line.scratch(),
            capabilities: line.capabilities(),
        }
    }
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
    /// [`Error::Connect`], [`Error::Daemon`], [`Error::Start`], [`Error::Cancelled`].
    pub fn start(
        config: Config,
        tell: impl Fn(EngineEvent) + Send + 'static,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Start)?;
        let (words, mut heard) = unbounded_channel();
        let (opened, opening) = std::sync::mpsc::channel();
        let cancel = Arc::clone(&config.cancel);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let (tell_fetch, fetched) = unbounded_channel();
                let opening = tokio::select! {
                    opening = Line::open(config, Watch::new(tell_fetch)) => opening,
                    // Nobody waits any more.
                    _ = heard.recv() => return,
                };
                match opening {
                    Ok((line, session)) => {
                        let _ = opened.send(Ok(Opened::of(&line)));
                        let heard = Heard {
                            words: heard,
                            fetched,
                        };
                        Box::pin(converse(Arc::new(line), session, heard, &tell)).await;
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            });
        });
        loop {
            match opening.recv_timeout(TICK) {
                Ok(opened) => {
                    let Opened {
                        agent,
                        scratch,
                        capabilities,
                    } = opened?;
                    return Ok(Self {
                        words,
                        thread: Some(thread),
                        agent,
                        scratch,
                        capabilities,
                    });
                }
                Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => {
                    return Err(Error::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Gone(std::io::ErrorKind::BrokenPipe.into()));
                }
            }
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
        let _ = waiting.recv_timeout(LONGEST_STEP + GRACE);
        Ok(())
    }

    fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
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

/// What the thread hears besides the ends of its ops.
struct Heard {
    words: UnboundedReceiver<Word>,
    fetched: UnboundedReceiver<Fetch>,
}

/// Starts and ends ops until nobody speaks any more, or the daemon is gone.
async fn converse(
    line: Arc<Line>,
    mut session: Session,
    mut heard: Heard,
    tell: &impl Fn(EngineEvent),
) {
    let mut ops: JoinSet<Result<OpEnd, String>> = JoinSet::new();
    let mut kills: BTreeMap<String, oneshot::Sender<()>> = BTreeMap::new();
    let mut beside = None;
    let (stir, stirred) = tokio::sync::watch::channel(Instant::now());
    let mut pulse = pin!(pulse::lost(&line.daemon, tell));
    loop {
        tokio::select! {
            Some(fetch) = heard.fetched.recv() => tell(EngineEvent::Fetching(fetch)),
            word = heard.words.recv() => match word {
                // A daemon never lets go of what an op leaves if its job ends just as the op does.
                None => return drop(tokio::time::timeout(GRACE, ended(&mut ops)).await),
                Some(Word::Start(op)) => {
                    stir.send_replace(Instant::now());
                    let (kill, killed) = oneshot::channel();
                    kills.insert(op.nonce.clone(), kill);
                    ops.spawn(attend(Arc::clone(&line), op, killed));
                }
                Some(Word::Kill(nonce)) => {
                    if let Some(kill) = kills.remove(&nonce) {
                        let _ = kill.send(());
                    }
                }
                Some(Word::Held) => {
                    line.found();
                    beside = Some(Beside::begin(line.daemon.clone(), stirred.clone()));
                }
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
                Ok(Ok(end)) => {
                    stir.send_replace(Instant::now());
                    kills.remove(&end.nonce);
                    tell(EngineEvent::Ended(end));
                }
                Ok(Err(reason)) => return tell(EngineEvent::Gone { reason }),
                Err(error) => return tell(EngineEvent::Gone { reason: error.to_string() }),
            },
            reason = &mut pulse => return tell(EngineEvent::Gone { reason }),
            ended = &mut session.ended => {
                let reason = ended.unwrap_or_else(|error| error.to_string());
                return tell(EngineEvent::Gone { reason });
            }
        }
    }
}

/// Done when every op has ended.
async fn ended(ops: &mut JoinSet<Result<OpEnd, String>>) {
    while ops.join_next().await.is_some() {}
}

/// Runs one op to its end; an error is the daemon's own end.
async fn attend(line: Arc<Line>, op: Op, killed: oneshot::Receiver<()>) -> Result<OpEnd, String> {
    let nonce = op.nonce.clone();
    let end = |how, words| OpEnd { nonce, how, words };
    tokio::select! {
        solved = line.run(op) => match solved {
            Ok(()) => Ok(end(OpExit::Code(0), String::new())),
            Err(Failed { error, words }) => match error.kind {
                Kind::Exit(code) => Ok(end(OpExit::Code(code), words)),
                Kind::Gone => Err(error.message),
                Kind::Cancelled
                | Kind::TooLarge
                | Kind::SessionLost
                | Kind::Other => {
                    let reason = error.message;
                    Ok(end(OpExit::NotStarted { reason }, words))
                }
            },
        },
        Ok(()) = killed => {
            let signal = rustix::process::Signal::KILL.as_raw();
            Ok(end(OpExit::Signal(signal), String::new()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;
    use crate::buildkit::address::Service;

    fn start(service: Service, socket: &Path, cancel: &Arc<AtomicBool>) -> Error {
        let address = format!("unix://{}", socket.display());
        let config = Config {
            address: Address::parse(service, &address).unwrap(),
            program: PathBuf::new(),
            shape: Shape::Plain,
            entitlements: Vec::new(),
            tunnel: PathBuf::new(),
            run: String::new(),
            logins: None,
            temporary: PathBuf::new(),
            cancel: Arc::clone(cancel),
        };
        BuildKit::start(config, |_| ()).err().unwrap()
    }

    #[test]
    fn connecting_is_given_up_at_once() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("mute");
        let listener = UnixListener::bind(&socket).unwrap();
        for service in [Service::BuildKitd, Service::Dockerd] {
            let cancel = Arc::new(AtomicBool::new(false));
            let user = Arc::clone(&cancel);
            let patience = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                user.store(true, Ordering::Relaxed);
            });
            let begun = Instant::now();
            let error = start(service, &socket, &cancel);
            assert!(matches!(error, Error::Cancelled), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(5));
            patience.join().unwrap();
        }
        drop(listener);
    }
}
