//! A run's engine, its tunnel, and the agent that keeps house in the build store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::engine::embedded::machine::Accounts;
use crate::engine::embedded::{Config, Embedded};
use crate::engine::lower::{Lowering, SANDBOX_DEVICE, STORE_CACHE, STORE_DEVICE};
use crate::engine::{
    Device, DeviceAccess, DeviceMount, Engine, EngineEvent, Op, OpExit, SecretValue, Shape,
};
use crate::nix::StorePath;
use crate::run::connection::{Happening, Speaker, listen};
use crate::run::material::Material;
use crate::run::{Error, Options, ops};
use crate::tunnel::{FromAgent, PathFacts, QueryScope, ToAgent};

/// An engine with a store that answers.
pub(super) struct Session<'a> {
    options: &'a Options,
    /// How ops are made.
    pub(super) lowering: Lowering,
    engine: Embedded,
    happenings: Receiver<Happening>,
    /// Keeps the channel open for the threads that read.
    _tell: Sender<Happening>,
    /// What happened while the store was being asked.
    aside: VecDeque<Happening>,
    store: Speaker,
    store_nonce: String,
    nonces: u64,
    /// Where the socket and the mount point are; removed at the end.
    _directory: tempfile::TempDir,
}

impl<'a> Session<'a> {
    /// Starts the engine and its first op, and waits until the store answers.
    pub(super) fn open(options: &'a Options) -> Result<Self, Error> {
        let directory = tempfile::Builder::new()
            .prefix("pontoon-")
            .tempdir_in(&options.temporary)
            .map_err(Error::Prepare)?;
        let scratch = directory.path().join("root");
        fs_err::create_dir(&scratch).map_err(Error::Prepare)?;
        let socket = directory.path().join("tunnel");
        let listener = UnixListener::bind(&socket).map_err(Error::Prepare)?;
        let (tell, happenings) = channel();
        listen(listener, tell.clone());
        prepare_store(options)?;
        let engine = start_engine(options, &socket, &scratch, &tell)?;
        let lowering = ops::lowering(options)?;
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
        Ok(Self {
            options,
            lowering,
            engine: pending.engine,
            happenings: pending.happenings,
            _tell: tell,
            aside: pending.aside,
            store,
            store_nonce,
            nonces: 0,
            _directory: directory,
        })
    }

    /// Returns a nonce that no other op of any run has.
    pub(super) fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("{}-{}", self.options.run, self.nonces)
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
            Happening::Engine(EngineEvent::Gone { reason }) => Err(Error::EngineGone { reason }),
            Happening::WrongVersion => Err(Error::Version),
            Happening::Closed { nonce, reason } if nonce == self.store_nonce => {
                Err(self.store_error(&reason.unwrap_or_else(|| "its agent ended".to_owned())))
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
            };
            material.dump(path, &mut data)?;
            let ended = data.finish();
            ended.map_err(|error| self.store_error(&error.to_string()))?;
        }
        match self.ask(&ToAgent::ImportEnd)? {
            FromAgent::Imported { paths, bytes } => Ok((paths, bytes)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends the session in good order: the store lets go of what it holds.
    pub(super) fn close(mut self) {
        let _ = self.store.say(&ToAgent::Bye);
        // The agent removes the run's roots before it ends; it is given a moment for it.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < deadline {
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
        said.map_err(|error| self.store_error(&error.to_string()))
    }

    /// Asks the store's agent and waits for the answer; what else happens is kept for later.
    fn ask(&mut self, job: &ToAgent) -> Result<FromAgent, Error> {
        self.say(job)?;
        loop {
            let Ok(happening) = self.happenings.recv() else {
                return Err(Error::EngineGone {
                    reason: "nobody speaks any more".to_owned(),
                });
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
                    return Err(self.store_error(&reason));
                }
                Happening::Engine(EngineEvent::Gone { reason }) => {
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
}

const CHUNK: usize = 256 << 10;

impl Sending<'_> {
    fn finish(mut self) -> std::io::Result<()> {
        self.send()?;
        self.speaker.data(&[])
    }

    fn send(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            self.speaker.data(&self.buffer)?;
            self.buffer.clear();
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
    engine: Embedded,
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
                        reason: describe(&end.how),
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

/// Says how an op ended.
pub(super) fn describe(exit: &OpExit) -> String {
    match exit {
        OpExit::Code(code) => format!("exit code {code}"),
        OpExit::Signal(signal) => format!("signal {signal}"),
        OpExit::NotStarted { reason } => reason.clone(),
    }
}

/// The engine mounts the store's directory, so it has to be there; the rest is the agent's.
fn prepare_store(options: &Options) -> Result<(), Error> {
    let unusable = |error: std::io::Error| Error::Store {
        store: options.store_name.clone(),
        source: crate::tunnel::MachineError {
            text: error.to_string(),
        },
    };
    fs_err::create_dir_all(options.nix_dir.path()).map_err(unusable)
}

fn start_engine(
    options: &Options,
    socket: &Path,
    scratch: &Path,
    tell: &Sender<Happening>,
) -> Result<Embedded, Error> {
    let accounts = Accounts::of_this_machine();
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let users = accounts.mapping(uid, gid);
    let nix_dir = options.nix_dir.path();
    let builders = accounts.builders(users, nix_dir);
    if let Some(locks) = &builders.locks {
        fs_err::create_dir_all(locks).map_err(Error::Prepare)?;
    }
    let mut devices = vec![builders.store_device(STORE_DEVICE, nix_dir)];
    if !options.sandbox_paths.is_empty() {
        devices.push(sandbox_device(options));
    }
    let config = Config {
        program: options.program.clone(),
        tunnel: options
            .tunnel_proxy
            .clone()
            .unwrap_or_else(|| socket.to_path_buf()),
        scratch: scratch.to_path_buf(),
        caches: BTreeMap::from([(STORE_CACHE.to_owned(), nix_dir.to_path_buf())]),
        devices,
        users,
    };
    let tell = tell.clone();
    let events = move |event| {
        let _ = tell.send(Happening::Engine(event));
    };
    Ok(Embedded::start(config, events)?)
}

/// In plain the op is the room: the paths go where the builder sees them. In strong the agent
/// carries them into each room.
fn sandbox_device(options: &Options) -> Device {
    let place = |target: &str| match options.shape {
        Shape::Plain => PathBuf::from(target),
        Shape::Strong => PathBuf::from(format!("{}{target}", crate::agent::SANDBOX_PATHS)),
    };
    let mounts = options.sandbox_paths.iter().map(|path| DeviceMount {
        host: PathBuf::from(&path.source),
        container: place(&path.target),
        access: DeviceAccess::ReadWrite,
    });
    Device {
        name: SANDBOX_DEVICE.to_owned(),
        mounts: mounts.collect(),
        environment: Vec::new(),
    }
}
