//! A run's engine, its tunnel, and the agent that keeps house in the build store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::engine::lower::{Lowering, SandboxPaths};
use crate::engine::{Engine, EngineEvent, Op, OpEnd, OpExit, SecretValue};
use crate::nix::StorePath;
use crate::run::connection::{Happening, Speaker, listen};
use crate::run::material::Material;
use crate::run::prepare::{Directory, sandbox_device};
use crate::run::{Error, Options, engine};
use crate::tunnel::{FromAgent, PathFacts, QueryScope, SandboxPath, ToAgent};

/// How long an answer may take once the run is to stop.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked whether the run is to stop.
const TICK: Duration = Duration::from_millis(100);
/// How much later than an agent's end that of its engine may be heard of.
const NEWS: Duration = Duration::from_millis(300);

/// An engine with a store that answers.
pub(super) struct Session<'a> {
    options: &'a Options,
    /// How ops are made.
    pub(super) lowering: Lowering,
    /// What of the machine builders see.
    pub(super) sandbox_paths: Vec<SandboxPath>,
    engine: Box<dyn Engine>,
    happenings: Receiver<Happening>,
    /// Keeps the channel open for the threads that read.
    _tell: Sender<Happening>,
    /// What happened while the store was being asked.
    aside: VecDeque<Happening>,
    store: Speaker,
    store_nonce: String,
    nonces: u64,
    /// The store's agent, or the engine, is known to be gone.
    over: bool,
    /// Where the socket and the mount point are; removed at the end.
    _directory: Directory,
}

impl<'a> Session<'a> {
    /// Starts the engine and its first op, and waits until the store answers.
    pub(super) fn open(options: &'a Options) -> Result<Self, Error> {
        let directory = Directory::make(&options.temporary).map_err(Error::Prepare)?;
        let own = directory.socket();
        let (front, back) = match &options.tunnel_proxy {
            Some(proxy) => (proxy.front.clone(), proxy.back.clone()),
            None => (own.clone(), own),
        };
        let listener = UnixListener::bind(back).map_err(Error::Prepare)?;
        let (tell, happenings) = channel();
        listen(listener, tell.clone());
        let mut lowering = engine::lowering(options)?;
        let engine = engine::start(options, &mut lowering, &directory, &front, &tell)?;
        let mut pending = Pending {
            engine,
            happenings,
            aside: VecDeque::new(),
        };
        let store_nonce = format!("{}-store", options.run);
        let definition = lowering.store(&store_nonce)?;
        pending.engine.start(Op {
            nonce: store_nonce.clone(),
            definition,
            secrets: BTreeMap::new(),
        })?;
        let store = pending.wait_for_store(options, &store_nonce)?;
        pending.engine.store_held()?;
        Ok(Self {
            options,
            lowering,
            sandbox_paths: Vec::new(),
            engine: pending.engine,
            happenings: pending.happenings,
            _tell: tell,
            aside: pending.aside,
            store,
            store_nonce,
            nonces: 0,
            over: false,
            _directory: directory,
        })
    }

    /// Lets builders see these paths from now on.
    pub(super) fn show(&mut self, paths: Vec<SandboxPath>) -> Result<(), Error> {
        self.lowering.sandbox_paths = engine::sandbox_paths(self.options, &paths)?;
        if self.lowering.sandbox_paths == SandboxPaths::Device {
            let device = sandbox_device(self.options.shape, &paths);
            self.engine.offer(device)?;
        }
        self.sandbox_paths = paths;
        Ok(())
    }

    /// Returns a nonce that no other op of any run has.
    pub(super) fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("{}-{}", self.options.run, self.nonces)
    }

    /// Returns the paths of the store that `sandbox-paths` mount into every room.
    pub(super) fn tools(&self) -> impl Iterator<Item = &StorePath> {
        let sources = match &self.lowering.sandbox_paths {
            SandboxPaths::Store(sources) => sources.as_slice(),
            SandboxPaths::Absent | SandboxPaths::Device => &[],
        };
        sources.iter().map(|source| &source.path)
    }

    /// Protects these paths for as long as the run lasts, and returns those that are valid.
    pub(super) fn root_tools(&mut self) -> Result<BTreeSet<StorePath>, Error> {
        let tools: BTreeSet<StorePath> = self.tools().cloned().collect();
        if tools.is_empty() {
            return Ok(tools);
        }
        self.root(&tools, &BTreeSet::new())?;
        self.valid(&tools)
    }

    /// Starts an op.
    pub(super) fn start(
        &mut self,
        nonce: String,
        definition: Vec<u8>,
        secrets: BTreeMap<String, SecretValue>,
    ) -> Result<(), Error> {
        Ok(self.engine.start(Op {
            nonce,
            definition,
            secrets,
        })?)
    }

    /// Kills an op.
    pub(super) fn kill(&mut self, nonce: &str) -> Result<(), Error> {
        Ok(self.engine.kill(nonce)?)
    }

    /// Waits for the next happening, at most this long.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Option<Happening>, Error> {
        let happening = match self.aside.pop_front() {
            Some(happening) => happening,
            None => match self.happenings.recv_timeout(patience) {
                Ok(happening) => happening,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::EngineGone {
                        reason: "nobody speaks any more".to_owned(),
                    });
                }
            },
        };
        match happening {
            Happening::Engine(EngineEvent::Gone { reason }) => {
                self.over = true;
                Err(Error::EngineGone { reason })
            }
            Happening::WrongVersion => Err(Error::Version),
            Happening::Closed { nonce, reason } if nonce == self.store_nonce => {
                Err(self.lost(&reason.unwrap_or_else(|| "its agent ended".to_owned())))
            }
            other => Ok(Some(other)),
        }
    }

    /// Keeps happenings for the next calls of [`Session::next`].
    pub(super) fn put_back(&mut self, happenings: Vec<Happening>) {
        for happening in happenings.into_iter().rev() {
            self.aside.push_front(happening);
        }
    }

    /// Protects paths for as long as the run lasts.
    pub(super) fn root(
        &mut self,
        temporary: &BTreeSet<StorePath>,
        links: &BTreeSet<StorePath>,
    ) -> Result<(), Error> {
        let job = ToAgent::Root {
            run: self.options.run.clone(),
            temporary: temporary.iter().cloned().collect(),
            links: links.iter().cloned().collect(),
        };
        match self.ask(&job)? {
            FromAgent::Rooted => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Registers links made by the caller as roots.
    pub(super) fn keep(&mut self, links: &[PathBuf]) -> Result<(), Error> {
        if links.is_empty() {
            return Ok(());
        }
        let links = links
            .iter()
            .map(|link| link.display().to_string())
            .collect();
        match self.ask(&ToAgent::Keep { links })? {
            FromAgent::Rooted => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Returns those of the paths that are valid.
    pub(super) fn valid(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, Error> {
        let facts = self.query(paths.iter().cloned().collect(), QueryScope::Paths)?;
        Ok(facts.into_iter().map(|fact| fact.path).collect())
    }

    /// Returns the facts of a closure.
    pub(super) fn closure(&mut self, roots: Vec<StorePath>) -> Result<Vec<PathFacts>, Error> {
        self.query(roots, QueryScope::Closure)
    }

    fn query(&mut self, paths: Vec<StorePath>, scope: QueryScope) -> Result<Vec<PathFacts>, Error> {
        match self.ask(&ToAgent::Query { paths, scope })? {
            FromAgent::Paths { paths } => Ok(paths),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Leases slots for the run.
    pub(super) fn lease(&mut self, count: u32) -> Result<Vec<u32>, Error> {
        match self.ask(&ToAgent::Lease { count })? {
            FromAgent::Leased { slots } => Ok(slots),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Brings paths into the build store; returns how many were new and the bytes sent.
    pub(super) fn import(
        &mut self,
        material: &Material,
        paths: &[StorePath],
    ) -> Result<(usize, u64), Error> {
        for path in paths {
            if self.options.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let header = material.header(path)?;
            self.say(&ToAgent::Import { header })?;
            let mut data = Sending {
                speaker: &mut self.store,
                buffer: Vec::new(),
                broken: None,
            };
            let dumped = material.dump(path, &mut data);
            if let Some(broken) = data.broken.take() {
                return Err(self.lost(&broken));
            }
            dumped?;
            let ended = data.finish();
            ended.map_err(|error| self.lost(&error.to_string()))?;
        }
        match self.ask(&ToAgent::ImportEnd)? {
            FromAgent::Imported { paths, bytes } => Ok((paths, bytes)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends the session in good order: the store lets go of what it holds.
    pub(super) fn close(mut self) {
        if self.over
            || self.engine.store_let_go().is_err()
            || self.store.say(&ToAgent::Bye).is_err()
        {
            return;
        }
        // The agent removes the run's roots before it ends; it is given a moment for it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            match self.happenings.recv_timeout(Duration::from_millis(500)) {
                Ok(Happening::Engine(EngineEvent::Ended(end))) if end.nonce == self.store_nonce => {
                    return;
                }
                Ok(Happening::Engine(EngineEvent::Gone { .. }))
                | Err(RecvTimeoutError::Disconnected) => {
                    return;
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn say(&mut self, message: &ToAgent) -> Result<(), Error> {
        let said = self.store.say(message);
        said.map_err(|error| self.lost(&error.to_string()))
    }

    /// What is to blame when the store's agent is gone: the engine, if that is gone too.
    fn lost(&mut self, reason: &str) -> Error {
        self.over = true;
        let deadline = Instant::now() + NEWS;
        while Instant::now() < deadline {
            match self.happenings.recv_timeout(NEWS / 10) {
                Ok(Happening::Engine(EngineEvent::Gone { reason })) => {
                    return Error::EngineGone { reason };
                }
                Ok(other) => self.aside.push_back(other),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.store_error(reason)
    }

    /// Asks the store's agent and waits for the answer; what else happens is kept for later.
    fn ask(&mut self, job: &ToAgent) -> Result<FromAgent, Error> {
        self.say(job)?;
        let mut told: Option<Instant> = None;
        loop {
            let happening = match self.happenings.recv_timeout(TICK) {
                Ok(happening) => happening,
                Err(RecvTimeoutError::Timeout) => {
                    // A store may be waited for as long as a collector or another run holds it,
                    // but not against the user's will.
                    if self.options.cancel.load(Ordering::Relaxed)
                        && told.get_or_insert_with(Instant::now).elapsed() > PATIENCE
                    {
                        return Err(Error::Cancelled);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::EngineGone {
                        reason: "nobody speaks any more".to_owned(),
                    });
                }
            };
            match happening {
                Happening::Said { nonce, message } if nonce == self.store_nonce => {
                    return match message {
                        FromAgent::Failed { error } => Err(Error::Store {
                            store: self.options.store_name.clone(),
                            source: error,
                        }),
                        message => Ok(message),
                    };
                }
                Happening::Closed { nonce, reason } if nonce == self.store_nonce => {
                    let reason = reason.unwrap_or_else(|| "its agent ended".to_owned());
                    return Err(self.lost(&reason));
                }
                Happening::Engine(EngineEvent::Gone { reason }) => {
                    self.over = true;
                    return Err(Error::EngineGone { reason });
                }
                other => self.aside.push_back(other),
            }
        }
    }

    fn unexpected(&self, message: &FromAgent) -> Error {
        self.store_error(&format!("its agent answers something else: {message:?}"))
    }

    fn store_error(&self, reason: &str) -> Error {
        Error::Store {
            store: self.options.store_name.clone(),
            source: crate::tunnel::MachineError {
                text: reason.to_owned(),
            },
        }
    }
}

/// Cuts what is written into data frames.
struct Sending<'a> {
    speaker: &'a mut Speaker,
    buffer: Vec<u8>,
    /// Why nothing more can be sent: not a fault of what was to be read.
    broken: Option<String>,
}

const CHUNK: usize = 256 << 10;

impl Sending<'_> {
    fn finish(mut self) -> std::io::Result<()> {
        self.send()?;
        self.speaker.data(&[])
    }

    fn send(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            let sent = self.speaker.data(&self.buffer);
            self.broken = sent.as_ref().err().map(ToString::to_string);
            self.buffer.clear();
            return sent;
        }
        Ok(())
    }
}

impl std::io::Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A session whose store has not spoken yet.
struct Pending {
    engine: Box<dyn Engine>,
    happenings: Receiver<Happening>,
    aside: VecDeque<Happening>,
}

impl Pending {
    fn wait_for_store(&mut self, options: &Options, nonce: &str) -> Result<Speaker, Error> {
        loop {
            if options.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            match self.happenings.recv_timeout(Duration::from_millis(100)) {
                Ok(Happening::Connected {
                    nonce: who,
                    speaker,
                }) if who == nonce => {
                    return Ok(speaker);
                }
                Ok(Happening::Said {
                    message: FromAgent::Unfit { error },
                    ..
                }) => {
                    let store = options.store_name.clone();
                    return Err(Error::Store {
                        store,
                        source: error,
                    });
                }
                Ok(Happening::WrongVersion) => return Err(Error::Version),
                Ok(Happening::Engine(EngineEvent::Gone { reason })) => {
                    return Err(Error::EngineGone { reason });
                }
                Ok(Happening::Engine(EngineEvent::Ended(end))) if end.nonce == nonce => {
                    // The reason may still be on its way through the tunnel.
                    if let Ok(Happening::Said {
                        message: FromAgent::Unfit { error },
                        ..
                    }) = self.happenings.recv_timeout(Duration::from_millis(200))
                    {
                        let store = options.store_name.clone();
                        return Err(Error::Store {
                            store,
                            source: error,
                        });
                    }
                    return Err(Error::Speechless {
                        reason: describe(&end),
                    });
                }
                Ok(other) => self.aside.push_back(other),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::EngineGone {
                        reason: "nobody speaks any more".to_owned(),
                    });
                }
            }
        }
    }
}

/// Says how an op ended, and what it said last.
pub(super) fn describe(end: &OpEnd) -> String {
    let how = match &end.how {
        OpExit::Code(code) => format!("exit code {code}"),
        OpExit::Signal(signal) => format!("signal {signal}"),
        OpExit::NotStarted { reason } => reason.clone(),
    };
    if end.words.is_empty() {
        return how;
    }
    format!("{how}: {}", end.words)
}
