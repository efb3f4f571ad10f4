//! The agent: this executable inside an op, where it is the Nix builder.
//!
//! An op wakes it with a subcommand, a nonce and a shape. It connects to the tunnel, opens the
//! store it finds, says hello and does jobs until it is told to go or its lifeline ends:
//!
//! | subcommand | jobs |
//! |---|---|
//! | `store` | roots, queries, imports, slots: for as long as the run lasts |
//! | `build DRV` | builds: one in *plain*; in *strong* it pulls the next one when it is done, or was told of it before |
//! | `effect NAME` | one effect |
//! | `probe` | none: it tells what the op sees ([`probe`]) |
//!
//! `install`, `export` and `enter` have no job: see [`install`], [`export`] and [`entered`].
//!
//! In *strong* the op holds the whole store at `/nix` and the agent makes a sandbox for each
//! derivation ([`room`]). In *plain* the op is the sandbox: the store is at `/.pontoon/store`,
//! where no builder reaches, and the closure is mounted read-only by the op itself.
//!
//! The agent is synchronous and single-threaded, because it forks. It knows no engine.

pub mod build;
mod closure;
pub mod effect;
pub mod entered;
mod etc;
pub mod export;
mod facts;
pub mod housekeeping;
pub mod image;
pub mod inputs;
pub mod install;
pub mod kept;
pub mod link;
mod orders;
pub mod outputs;
pub mod probe;
pub mod records;
pub mod room;
pub mod slot_dirs;
mod stop;
pub mod tools;
pub mod unregistered;
pub mod users;
pub mod watch;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kept::Kept;
use link::{Link, Lost};
pub use orders::{
    EXPORT, IMAGE, NONCE, OWN, Orders, PLAIN_PROGRAM, PLAIN_STORE, SANDBOX_PATHS, SECRETS, SHAPE,
    STRONG_PROGRAMS, Shape, Task, USER_POOL, USERS,
};
use unregistered::{Made, Unregistered};
use users::Users;

use crate::nix::StorePath;
use crate::store::agents::{self, Held};
use crate::store::attempts::{self, Attempt, Builds, End, Kind, Verdict};
use crate::store::{NixDir, PathInfo, Store};
use crate::tunnel::{self, BuildJob, BuildResult, FromAgent, MachineError, ToAgent};

/// The file that the agent runs from.
const PROGRAM: &str = "/proc/self/exe";

/// Exit codes of the agent's own process; the outcome itself travels over the tunnel.
pub mod exit {
    /// It did what it was told.
    pub const DONE: i32 = 0;
    /// It could not begin; the reason was sent if there was a tunnel.
    pub const UNFIT: i32 = 70;
    /// Its lifeline ended.
    pub const LOST: i32 = 71;
    /// Its arguments or environment make no sense.
    pub const USAGE: i32 = 64;
    /// Its own file has been removed from the store: a shell would say so of a missing program.
    pub const GONE: i32 = 127;
}

/// What an agent works with.
pub struct Agent {
    /// Its end of the tunnel.
    pub link: Link,
    /// The store it woke up in.
    pub store: Store,
    /// Who makes the sandbox.
    pub shape: Shape,
    /// Who builders may be.
    pub users: Users,
    /// What it keeps from build to build.
    pub kept: Kept,
    /// The derivation it has built last, if its outputs are valid: what waits for them may follow.
    pub good: Option<StorePath>,
    /// What it has built last, if that is to be registered while the next sandbox comes about.
    pub unregistered: Option<Unregistered>,
    /// The slot this agent builds in, once it has one.
    pub slot: Option<crate::store::Slot>,
    /// The op's nonce, which begins the ids of its attempts.
    pub nonce: String,
    /// The records of its builds.
    pub builds: Builds,
    /// How many attempts it has said the beginning of.
    pub attempts: u32,
    /// The environment of the image at the op's root.
    pub image: Vec<(String, String)>,
    /// The closure of the sandbox paths that are in the store, once it is known: it is the same
    /// for all jobs of a run.
    pub tools: Option<BTreeMap<StorePath, PathInfo>>,
}

/// Describes the end of an attempt, now.
pub(crate) fn end(verdict: Verdict, outcome: String, exit: Option<i32>) -> End {
    End {
        verdict,
        outcome,
        exit,
        ended: now(),
    }
}

/// Milliseconds since the epoch; 0 for a clock before it.
fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Does what an op orders; returns the exit code of its process.
pub fn run(orders: &Orders) -> i32 {
    if orders.task == Task::Probe {
        return probe::run(orders);
    }
    let _lease = match orders.task {
        Task::Store => match hold(orders.shape) {
            Some(Held::Gone) => return exit::GONE,
            lease => lease,
        },
        _ => None,
    };
    let Ok(mut link) = Link::connect(Path::new(tunnel::SOCKET)) else {
        // Nobody to tell: the engine reports the exit code.
        return exit::LOST;
    };
    let store = match open_store(orders.shape) {
        Ok(store) => store,
        Err(error) => {
            let _ = link.say(&FromAgent::Unfit { error });
            return exit::UNFIT;
        }
    };
    let users = Users::read(orders.users.as_deref());
    let nonce = orders.nonce.clone();
    let mut agent = Agent {
        link,
        store,
        shape: orders.shape,
        users,
        kept: Kept::default(),
        good: None,
        unregistered: None,
        slot: None,
        nonce,
        builds: Builds::default(),
        attempts: 0,
        image: orders.image.clone(),
        tools: None,
    };
    match agent.greet(orders).and_then(|()| agent.serve(orders.task)) {
        Ok(()) => exit::DONE,
        Err(lost) => {
            tell_why(&lost);
            exit::LOST
        }
    }
}

/// Whether what was wanted of a build is valid.
fn is_good(answer: &FromAgent) -> bool {
    use BuildResult::{AlreadyValid, Built};
    let FromAgent::Built { result } = answer else {
        return false;
    };
    matches!(result, Built { .. } | AlreadyValid { .. })
}

/// Writes to the op's standard error what came instead of the protocol: the engine has last words
/// from there, and through the tunnel nothing can be said any more. Where it only ended there is
/// nothing to tell.
fn tell_why(lost: &Lost) {
    if matches!(lost, Lost::Protocol(_) | Lost::OutOfPlace { .. }) {
        let text = format!("pontoon: {}\n", MachineError::of(lost).text);
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Keeps the agent's own file in the store for as long as the run lasts, if it is from there. What
/// cannot be held is only lost sooner.
fn hold(shape: Shape) -> Option<Held> {
    let program = fs_err::read_link(PROGRAM).ok()?;
    let text = program.to_str()?;
    let is_delivered = text.starts_with(PLAIN_PROGRAM) || text.starts_with(STRONG_PROGRAMS);
    let held = || agents::hold(&NixDir::new(shape.nix_dir()), Path::new(PROGRAM));
    is_delivered.then(held)?.ok()
}

fn open_store(shape: Shape) -> Result<Store, MachineError> {
    if shape == Shape::Plain {
        // A daemon makes mount points open to all; no builder may look in here.
        let private = std::fs::Permissions::from_mode(0o700);
        fs_err::set_permissions(OWN, private).map_err(|error| MachineError::of(&error))?;
    }
    Store::open(NixDir::new(shape.nix_dir())).map_err(|error| MachineError::of(&error))
}

impl Agent {
    /// Says hello. A worker asks for its first job with it, so that it has it one way there and
    /// back earlier.
    fn greet(&mut self, orders: &Orders) -> Result<(), Lost> {
        let identity = self.store.identity();
        let hello = FromAgent::Hello {
            version: tunnel::VERSION,
            nonce: orders.nonce.clone(),
            store: identity.store.clone(),
            instance: identity.instance.clone(),
        };
        match orders.task {
            // Housekeeping answers every job; only workers ask for one.
            Task::Store => self.link.say(&hello)?,
            _ => self.link.say_all(&[&hello, &FromAgent::Idle])?,
        }
        match self.link.hear()? {
            ToAgent::Welcome { version } if version == tunnel::VERSION => {
                self.link.greeted();
                Ok(())
            }
            _ => Err(Lost::OutOfPlace {
                what: "no welcome of this version",
            }),
        }
    }

    /// Describes the beginning of an attempt, now.
    pub(crate) fn next_attempt(&self, kind: Kind, node: &str, run: &str) -> Attempt {
        Attempt {
            id: format!("{}-{}", self.nonce, self.attempts + 1),
            node: node.to_owned(),
            kind,
            pipeline: None,
            run: run.to_owned(),
            pid: std::process::id(),
            started: now(),
        }
    }

    /// Builds, and goes on with what is to be built then, as far as that is known.
    fn build_on(&mut self, mut job: BuildJob) -> Result<(), Lost> {
        loop {
            self.good = None;
            let answer = match self.build(&job)? {
                Made::Answer(answer) => answer,
                Made::Ahead(outputs, next) => {
                    self.unregistered = Some(*outputs);
                    job = next;
                    continue;
                }
                Made::Nothing => break,
            };
            self.link.say_all(&[&answer, &FromAgent::Idle])?;
            self.good = is_good(&answer).then_some(job.drv);
            self.link.look_ahead()?;
            match self.link.next_after(self.good.as_ref()) {
                Some(next) => job = next,
                None => break,
            }
        }
        self.kept.rest();
        Ok(())
    }

    fn serve(&mut self, task: Task) -> Result<(), Lost> {
        let mut services = housekeeping::Services::default();
        loop {
            match self.link.hear()? {
                ToAgent::Bye => {
                    if task == Task::Store {
                        // Old records and agents do no harm but to take place.
                        let _ = attempts::tidy(self.store.dir());
                        let _ = agents::tidy(self.store.dir());
                    }
                    return Ok(());
                }
                // It came after the job had ended by itself, and the next one was asked for.
                ToAgent::Cancel => {}
                ToAgent::Build(job) if self.shape == Shape::Plain => {
                    let Made::Answer(answer) = self.build(&job)? else {
                        return Ok(());
                    };
                    return self.link.say(&answer);
                }
                ToAgent::Build(job) => self.build_on(job)?,
                // It came after this agent had asked for another job.
                ToAgent::Then { after, job } => {
                    if self.good.take().is_some_and(|good| good == after) {
                        self.build_on(job)?;
                    }
                }
                ToAgent::Effect(job) => {
                    let answer = self.effect(&job)?;
                    return self.link.say(&answer);
                }
                other if task == Task::Store => self.housekeep(&mut services, other)?,
                _ => {
                    return Err(Lost::OutOfPlace {
                        what: "a job of another task",
                    });
                }
            }
        }
    }
}
