//! A run's engine, its tunnel, and the agent that keeps house in the build store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::engine::lower::{Lowering, SandboxPaths};
use crate::engine::offer::Outside;
use crate::engine::{Engine, EngineEvent, Op, OpEnd, OpExit, OpRoot, Shape, tells_of_lost_store};
use crate::run::connection::{Happening, Listening, Speaker};
use crate::run::prepare::{Directory, sandbox_device};
use crate::run::{Beforehand, EngineChoice, Error, Options, engine};
use crate::store::{Held, Notice, Wait};
use crate::tunnel::{FromAgent, MachineError, SandboxPath, ToAgent};

/// How long an answer may take once the run is to stop.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked whether the run is to stop.
const TICK: Duration = Duration::from_millis(100);
/// How many bytes of an answer that makes no sense are shown.
const SHOWN: usize = 200;
/// How much later than an agent's end that of its engine may be heard of.
const NEWS: Duration = Duration::from_millis(300);

/// An engine with a store that answers.
pub(super) struct Session<'a> {
    pub(super) options: &'a Options,
    /// Begins the nonces of this session's ops, and names its roots: no other session of any run
    /// has it.
    pub(super) name: String,
    /// The copy of the store that answers.
    pub(super) instance: String,
    /// What the engine has for ops that may reach the network.
    pub(super) outside: Outside,
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
    pub(super) store: Speaker,
    store_nonce: String,
    nonces: u64,
    /// The op of an agent that waits for a build, or will; nobody has employed it yet.
    pub(super) worker: Option<String>,
    /// The store's agent, or the engine, is known to be gone.
    over: bool,
    /// Where the socket and the mount point are; removed at the end.
    pub(super) directory: Directory,
    _listening: Listening,
}

impl<'a> Session<'a> {
    /// Starts the engine and its first op, and waits until the store answers. No two sessions of a
    /// run have the same number; the first one's is 0.
    pub(super) fn open(options: &'a Options, number: u32) -> Result<Self, Error> {
        Self::begin(options, number, Beforehand::Store)
    }

    /// The same with what else is to be begun beforehand.
    pub(super) fn begin(
        options: &'a Options,
        number: u32,
        beforehand: Beforehand,
    ) -> Result<Self, Error> {
        let name = match number {
            0 => options.run.clone(),
            number => format!("{}.{number}", options.run),
        };
        let directory = Directory::make(&options.temporary).map_err(Error::Prepare)?;
        let own = directory.socket();
        let (front, back) = match &options.tunnel_proxy {
            Some(proxy) => (proxy.front.clone(), proxy.back.clone()),
            None => (own.clone(), own),
        };
        let (tell, happenings) = channel();
        let listening = Listening::start(back, tell.clone()).map_err(Error::Prepare)?;
        let outside = engine::outside(options, number)?;
        let (engine, lowering) =
            engine::start(options, &name, &outside, &directory, &front, &tell)?;
        let mut pending = Pending {
            engine,
            happenings,
            aside: VecDeque::new(),
        };
        let store_nonce = format!("{name}-store");
        pending.start(&store_nonce, lowering.store(&store_nonce)?)?;
        let worker = (beforehand == Beforehand::Build && lasts(options)).then(|| nonce(&name, 1));
        if let Some(nonce) = &worker {
            pending.start(nonce, lowering.worker(nonce)?)?;
        }
        let (store, instance) = pending.wait_for_store(options, &store_nonce)?;
        pending.engine.store_held()?;
        Ok(Self {
            options,
            name,
            instance,
            outside,
            lowering,
            sandbox_paths: Vec::new(),
            engine: pending.engine,
            happenings: pending.happenings,
            _tell: tell,
            aside: pending.aside,
            store,
            store_nonce,
            nonces: worker.iter().count() as u64,
            worker,
            over: false,
            directory,
            _listening: listening,
        })
    }

    /// Lets builders see these paths from now on.
    pub(super) fn show(&mut self, paths: Vec<SandboxPath>) -> Result<(), Error> {
        self.lowering.sandbox_paths = engine::sandbox_paths(self.options, &paths)?;
        if self.lowering.sandbox_paths == SandboxPaths::Device {
            let device = sandbox_device(self.options.shape, &paths);
            self.engine.offer(device)?;
        }
        self.sandbox_paths = engine::places(&self.lowering.sandbox_paths, paths);
        Ok(())
    }

    /// Returns a nonce that no other op of any run has.
    pub(super) fn nonce(&mut self) -> String {
        self.nonces += 1;
        nonce(&self.name, self.nonces)
    }

    /// Starts an op.
    pub(super) fn start(&mut self, op: Op) -> Result<(), Error> {
        Ok(self.engine.start(op)?)
    }

    /// Whether ops may ask for this.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.engine.can(capability)
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
            Happening::Engine(EngineEvent::Ended(end)) if end.nonce == self.store_nonce => {
                Err(self.lost(&format!("its agent ended: {}", describe(&end))))
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

    /// Ends the session in good order: the store lets go of what it holds.
    pub(super) fn close(self) {
        self.leave().wait();
    }

    /// Begins to end the session.
    pub(super) fn leave(mut self) -> Leaving<'a> {
        let told = !self.over
            && self.engine.store_let_go().is_ok()
            && self.store.say(&ToAgent::Bye).is_ok();
        Leaving(told.then_some(self))
    }

    pub(super) fn say(&mut self, message: &ToAgent) -> Result<(), Error> {
        let said = self.store.say(message);
        said.map_err(|error| self.lost(&error.to_string()))
    }

    /// What is to blame when the store's agent is gone: the engine, if that is gone too.
    pub(super) fn lost(&mut self, reason: &str) -> Error {
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
        Error::StoreLost {
            reason: reason.to_owned(),
        }
    }

    /// Asks the store's agent and waits for the answer; what else happens is kept for later.
    pub(super) fn ask(&mut self, job: &ToAgent) -> Result<FromAgent, Error> {
        self.ask_patiently(job, &mut |_| ())
    }

    /// The same for what may have to wait for other programs: tells which lock they hold.
    pub(super) fn ask_patiently(
        &mut self,
        job: &ToAgent,
        tell: &mut dyn FnMut(Held),
    ) -> Result<FromAgent, Error> {
        self.say(job)?;
        let mut wait = Wait::new(self.options.lock_timeout);
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
                Happening::Said { nonce, message } if nonce == self.store_nonce => match message {
                    FromAgent::Waiting { lock } => {
                        let place = self.options.nix_dir.path_here(&lock);
                        match wait.look(&place) {
                            Notice::Quiet => {}
                            Notice::Tell(held) => tell(held),
                            Notice::GiveUp(held) => return Err(Error::Held(held)),
                        }
                    }
                    FromAgent::Failed { error } => return Err(self.store_failed(error)),
                    message => return Ok(message),
                },
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

    pub(super) fn unexpected(&self, message: &FromAgent) -> Error {
        let mut text = format!("{message:?}");
        // It may be as long as a frame.
        text.truncate(text.floor_char_boundary(SHOWN));
        self.store_error(&format!("its agent answers something else: {text}"))
    }

    pub(super) fn store_error(&self, reason: &str) -> Error {
        self.store_failed(MachineError {
            text: reason.to_owned(),
        })
    }

    fn store_failed(&self, source: MachineError) -> Error {
        Error::Store {
            store: self.options.store_name.clone(),
            source,
        }
    }
}

/// A session that ends; the caller may do something else meanwhile.
pub(super) struct Leaving<'a>(Option<Session<'a>>);

impl Leaving<'_> {
    /// Waits for the end of the store's agent, which removes the run's roots before, and of one that
    /// nobody has employed; they are given a moment for it.
    pub(super) fn wait(self) {
        let Some(mut session) = self.0 else { return };
        let mut there: BTreeSet<String> = session.worker.take().into_iter().collect();
        there.insert(session.store_nonce.clone());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !there.is_empty() && Instant::now() < deadline {
            let aside = session.aside.pop_front();
            let next = || session.happenings.recv_timeout(Duration::from_millis(500));
            match aside.map_or_else(next, Ok) {
                Ok(Happening::Connected { mut speaker, .. }) => {
                    // There is no job for it, and will be none.
                    let _ = speaker.say(&ToAgent::Bye);
                }
                Ok(Happening::Engine(EngineEvent::Ended(end))) => {
                    there.remove(&end.nonce);
                }
                Ok(Happening::Engine(EngineEvent::Gone { .. }))
                | Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// A session whose store has not spoken yet.
struct Pending {
    engine: Box<dyn Engine>,
    happenings: Receiver<Happening>,
    aside: VecDeque<Happening>,
}

impl Pending {
    fn start(&mut self, nonce: &str, definition: Vec<u8>) -> Result<(), Error> {
        Ok(self.engine.start(Op {
            nonce: nonce.to_owned(),
            definition,
            secrets: BTreeMap::new(),
            root: OpRoot::Defined,
        })?)
    }

    /// Returns the way to the store's agent, and which copy of the store it woke up in.
    fn wait_for_store(
        &mut self,
        options: &Options,
        nonce: &str,
    ) -> Result<(Speaker, String), Error> {
        loop {
            if options.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            match self.happenings.recv_timeout(Duration::from_millis(100)) {
                Ok(Happening::Connected {
                    nonce: who,
                    instance,
                    speaker,
                }) if who == nonce => {
                    return Ok((speaker, instance));
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
                    let reason = describe(&end);
                    return Err(if tells_of_lost_store(&end.how) {
                        Error::StoreLost { reason }
                    } else {
                        Error::Speechless { reason }
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

fn nonce(session: &str, number: u64) -> String {
    format!("{session}-{number}")
}

/// Whether ops go on from build to build and take a while to begin.
fn lasts(options: &Options) -> bool {
    options.shape == Shape::Strong && options.engine != EngineChoice::Embedded
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
