//! Building one derivation, step by step (Nix spec §4.1, §5):
//!
//! 1. its file is read from this store and checked against its name;
//! 2. its outputs get temp roots, then locks; if another program holds one, the conductor is told
//!    and asks again later, so that nothing waits here;
//! 3. if the wanted outputs became valid meanwhile there is nothing to do;
//! 4. every path of the input closure must be valid *here*, whatever anybody believed before;
//! 5. invalid leftovers at the outputs' places are deleted;
//! 6. the attempt is recorded, the builder runs in its room and is watched;
//! 7. the outputs are checked, made canonical, scanned and renamed into the store;
//! 8. they are registered, the attempt's end is recorded, the locks go, the conductor hears the result:
//!    [`unregistered`](super::unregistered).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use crate::agent::kept::Kept;
use crate::agent::link::{Link, Lost};
use crate::agent::outputs::{Collect, Placed};
use crate::agent::room::{BUILD_DIR, Network, Program, Room, RoomError, Writes};
use crate::agent::slot_dirs::SlotDirs;
use crate::agent::stop::{Interrupted, Stop, answer, failed, machine};
use crate::agent::unregistered::{Begun, Made, QUICK, Unregistered};
use crate::agent::users::{BuildUser, UsersError};
use crate::agent::watch::{End, Limits, Watch, WatchError};
use crate::agent::{Agent, Shape, USER_POOL, facts};
use crate::event::Failure;
use crate::nix::StorePath;
use crate::nix::derivation::{self, Recipe};
use crate::sandbox::{self, Exit, Filter, Personality};
use crate::store::attempts::{Kind, Running};
use crate::store::logs::LogWriter;
use crate::store::{Occupied, PathInfo, Slot, Store};
use crate::tunnel::{BuildJob, BuildResult, EffectRoot, FromAgent, PathFacts};

impl Agent {
    /// Builds. What was built before is registered by then, and told.
    pub fn build(&mut self, job: &BuildJob) -> Result<Made, Lost> {
        let made = self.build_or_stop(job);
        if let Some(before) = self.unregistered.take()
            && !before.finish_and_tell(&self.store, &mut self.link)?
        {
            return Ok(Made::Nothing);
        }
        made.or_else(|stop| answer(Err(stop)))
    }

    fn build_or_stop(&mut self, job: &BuildJob) -> Result<Made, Stop> {
        let drv = self.read_derivation(&job.drv)?;
        let recipe = Recipe::of(&drv, BUILD_DIR, job.cores).map_err(machine)?;
        let outputs: Vec<StorePath> = recipe
            .outputs
            .values()
            .map(|output| output.path.clone())
            .collect();
        self.store.add_temp_roots(&outputs).map_err(machine)?;
        let locks = match self.store.try_lock(&outputs).map_err(machine)? {
            Ok(locks) => locks,
            Err(held) => return Err(Stop::Busy(held)),
        };
        let valid = self.store.valid(&outputs).map_err(machine)?;
        let wanted_are_valid = job.wanted.iter().all(|name| {
            recipe
                .outputs
                .get(name)
                .is_some_and(|o| valid.contains(&o.path))
        });
        if wanted_are_valid {
            let outputs = self.facts_of(&valid)?;
            locks.release().map_err(machine)?;
            return Err(Stop::Result(BuildResult::AlreadyValid { outputs }));
        }
        let closure = self.input_closure(&drv)?;
        let seen = self.seen(&closure, &job.sandbox_paths)?;
        for path in outputs.iter().filter(|path| !valid.contains(path)) {
            self.store.delete_invalid(path).map_err(machine)?;
        }
        let _occupied = self.occupy(job.slot)?;
        let slot = self.slot(job.slot)?;
        let user = self.user(&slot)?;
        let attempt = self.begin(job)?;
        let begun = Begun { attempt, locks };
        let id = &begun.attempt.attempt().id;
        let since = Instant::now();
        match self.attempt(job, &recipe, (&closure, &seen), &valid, (&slot, &user), id) {
            Ok(placed) => {
                let was_quick = since.elapsed() < QUICK;
                let outputs = Unregistered { begun, placed };
                let made = self.register_or_go_on(outputs, &job.drv, was_quick);
                self.leave(&slot, &seen, made.as_ref().err());
                made
            }
            Err(stop) => {
                self.leave(&slot, &seen, Some(&stop));
                begun.end(Err(&stop));
                Err(stop)
            }
        }
    }

    fn facts_of(&self, valid: &BTreeSet<StorePath>) -> Result<Vec<PathFacts>, Stop> {
        let infos = self.store.infos(valid).map_err(machine)?;
        Ok(facts::of(self.store.dir(), infos.into_values()))
    }

    fn begin(&mut self, job: &BuildJob) -> Result<Running, Stop> {
        let attempt = self.next_attempt(Kind::Build, &job.drv.to_string(), &job.run);
        let begun = self.builds.begin(self.store.dir(), attempt);
        begun.map_err(machine)
    }

    /// Takes a user to build as. If other builds of the machine have them all, it is as with a
    /// lock that another program holds: the conductor asks again later.
    fn user(&self, slot: &SlotDirs) -> Result<BuildUser, Stop> {
        match self.users.acquire(slot.number) {
            Err(UsersError::AllTaken { .. }) => Err(Stop::Busy(PathBuf::from(USER_POOL))),
            other => other.map_err(machine),
        }
    }

    /// Keeps the slot that a plain op has mounted from being leased anew: its lease may be over before
    /// this build is.
    fn occupy(&self, number: Option<u32>) -> Result<Option<Occupied>, Stop> {
        let (Shape::Plain, Some(number)) = (self.shape, number) else {
            return Ok(None);
        };
        match Occupied::begin(self.store.dir(), number).map_err(machine)? {
            Some(occupied) => Ok(Some(occupied)),
            None => Err(Stop::Busy(
                self.store.dir().slots().join(number.to_string()),
            )),
        }
    }

    fn slot(&mut self, number: Option<u32>) -> Result<SlotDirs, Stop> {
        if let (Shape::Plain, Some(number)) = (self.shape, number) {
            return Ok(SlotDirs::mounted(self.store.dir(), number));
        }
        if self.slot.is_none() {
            self.slot = Some(Slot::lease(self.store.dir()).map_err(machine)?);
        }
        Ok(SlotDirs::of(self.slot.as_ref().expect("just leased")))
    }

    fn attempt(
        &mut self,
        job: &BuildJob,
        recipe: &Recipe,
        (closure, seen): (
            &BTreeMap<StorePath, PathInfo>,
            &BTreeMap<StorePath, PathInfo>,
        ),
        valid: &BTreeSet<StorePath>,
        (slot, user): (&SlotDirs, &BuildUser),
        attempt: &str,
    ) -> Result<Placed, Stop> {
        let network = match recipe.network {
            derivation::Network::Isolated => Network::Private,
            derivation::Network::Host => Network::Open,
        };
        let transient = network == Network::Open;
        let files = recipe
            .files
            .iter()
            .map(|(name, contents)| (PathBuf::from(BUILD_DIR).join(name), contents.clone()))
            .collect();
        let room = Room {
            shape: self.shape,
            dir: &self.store.dir().clone(),
            slot,
            closure: seen,
            sandbox_paths: &job.sandbox_paths,
            user,
            network,
            writes: Writes::Slot,
            root: EffectRoot::Empty,
            files,
        };
        let program = Program {
            path: recipe.builder.as_bytes().to_vec(),
            arguments: recipe.arguments.clone(),
            environment: recipe.environment.clone(),
            personality: personality(recipe.personality),
            filter: Filter::Nix,
        };
        let mut log = LogWriter::create(self.store.dir(), &job.drv).map_err(machine)?;
        let limits = Limits {
            timeout: job.timeout,
            silence: job.silence,
        };
        let mut before = self.unregistered.take();
        let mut said = 0;
        let mut meanwhile = |store: &Store, link: &mut Link| {
            if let Some(before) = before.take()
                && !before.finish_and_tell(store, link)?
            {
                return Err(Stop::Forgotten);
            }
            let attempt = attempt.to_owned();
            link.say(&FromAgent::Started { attempt })?;
            said += 1;
            Ok(())
        };
        let end = self.run_in_room(&room, program, limits, &mut log, &mut meanwhile);
        self.attempts += said;
        // It may never have come to that.
        self.unregistered = before;
        let logged = log.finish().map_err(machine);
        end.and_then(|end| match end {
            End::Exited(Exit::Code(0)) => {
                // Of a failed builder the failure is worth more than what befell its log.
                logged?;
                let collect = Collect {
                    drv: &job.drv,
                    recipe,
                    closure,
                    valid,
                    slot,
                };
                Ok(collect.collect(&self.store, user)?)
            }
            end => Err(self.unmade(end, transient)),
        })
    }

    /// Registers outputs, or goes on with what is to be built with them if that is known and they are soon
    /// made again.
    fn register_or_go_on(
        &mut self,
        outputs: Unregistered,
        drv: &StorePath,
        was_quick: bool,
    ) -> Result<Made, Stop> {
        if was_quick && self.shape == Shape::Strong && outputs.are_good() {
            if let Err(lost) = self.link.look_ahead() {
                // Half of the tunnel may be left.
                let _ = outputs.finish_and_tell(&self.store, &mut self.link);
                return Err(lost.into());
            }
            if let Some(next) = self.link.next_after(Some(drv)) {
                return Ok(Made::Ahead(Box::new(outputs), next));
            }
        }
        Ok(outputs.finish(&self.store, &mut self.link)?)
    }

    /// What it means that a builder ended so, and made nothing.
    fn unmade(&self, end: End, transient: bool) -> Stop {
        failed(match end {
            End::Exited(Exit::Code(code)) => Failure::ExitCode {
                code,
                transient: transient || self.disk_is_full(),
            },
            End::Exited(Exit::Signal(signal)) => Failure::Signal {
                signal,
                transient: transient || self.disk_is_full(),
            },
            End::TimedOut(seconds) => Failure::TimedOut { seconds },
            End::Silent(seconds) => Failure::Silent { seconds },
            End::Cancelled => return Stop::Result(BuildResult::Cancelled),
        })
    }

    /// Starts a program in a room, with something else to be done meanwhile, and watches it to its end.
    /// A program that cannot be executed is a failure of the builder, as in Nix, with the reason in its
    /// log.
    pub(super) fn run_in_room<E: From<Interrupted>>(
        &mut self,
        room: &Room<'_>,
        program: Program,
        limits: Limits,
        log: &mut dyn std::io::Write,
        meanwhile: &mut dyn FnMut(&Store, &mut Link) -> Result<(), E>,
    ) -> Result<End, E> {
        let owner = (room.user.uid, room.user.gid);
        let terminal = sandbox::pty(Some(owner)).map_err(|error| Interrupted::machine(&error))?;
        let Self {
            store, link, kept, ..
        } = self;
        let mut done = None;
        let mut meanwhile = || {
            let done = done.get_or_insert_with(|| meanwhile(store, link));
            match done {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let child = room.start(program, terminal.slave, kept, &mut meanwhile);
        let _ = meanwhile();
        let uid = room.user.uid;
        let sweep = || {
            // In strong the room's process namespace dies with its first process.
            if room.shape == Shape::Plain && room.user.separate {
                let _ = sandbox::kill_user(uid);
            }
        };
        if let Some(Err(error)) = done {
            if let Ok(mut child) = child
                && child.kill().is_ok()
            {
                let _ = child.wait();
            }
            sweep();
            return Err(error);
        }
        let child = match child {
            Ok(child) => child,
            Err(RoomError::Start(sandbox::Error::Exec { program, source })) => {
                let text = format!("error: executing '{program}': {source}\n");
                log.write_all(text.as_bytes())
                    .map_err(|error| Interrupted::machine(&error))?;
                self.link.log(text.as_bytes()).map_err(Interrupted::Lost)?;
                return Ok(End::Exited(Exit::Code(1)));
            }
            Err(error) => return Err(Interrupted::machine(&error).into()),
        };
        let watch = Watch {
            child,
            terminal: terminal.master,
            link: &mut self.link,
            log,
            limits,
            sweep: &sweep,
        };
        let end = watch.until_end().map_err(|error| match error {
            WatchError::Lost(lost) => Interrupted::Lost(lost),
            WatchError::Late(lost, exit) => Interrupted::Late(lost, exit),
            other => Interrupted::machine(&other),
        });
        Ok(end?)
    }

    /// Empties the slot for the next build, whatever came of this one. Where the machine failed nobody
    /// knows what is mounted: that begins anew. Without a lifeline there is no next build here.
    fn leave(
        &mut self,
        dirs: &SlotDirs,
        closure: &BTreeMap<StorePath, PathInfo>,
        stop: Option<&Stop>,
    ) {
        match stop {
            Some(Stop::Lost(_)) => return,
            Some(Stop::Machine(_)) => self.kept = Kept::default(),
            _ => {}
        }
        if self.shape == Shape::Plain {
            clear(dirs, closure);
        }
        if let Some(slot) = &self.slot
            && slot.sweep(&self.kept.points()).is_err()
        {
            // What cannot be swept now is swept by the next lease; build elsewhere meanwhile.
            self.kept = Kept::default();
            self.slot = None;
        }
    }

    /// Nix calls a failure transient when less than 8 MiB are left (Nix spec §5.1).
    fn disk_is_full(&self) -> bool {
        rustix::fs::statvfs(self.store.dir().store())
            .is_ok_and(|disk| disk.f_bavail * disk.f_frsize < 8 << 20)
    }
}

/// Takes away what a build left in a slot that the op has mounted, as far as that can be: until the
/// slot's next lease it would take up the disk. What is mounted over the slot stays.
fn clear(dirs: &SlotDirs, closure: &BTreeMap<StorePath, PathInfo>) {
    let inputs: BTreeSet<String> = closure.keys().map(StorePath::to_basename).collect();
    for entry in fs_err::read_dir(&dirs.store)
        .into_iter()
        .flatten()
        .flatten()
    {
        if !entry
            .file_name()
            .to_str()
            .is_some_and(|name| inputs.contains(name))
        {
            let _ = crate::store::tree::remove(&entry.path());
        }
    }
}

fn personality(wanted: derivation::Personality) -> Personality {
    Personality {
        linux32: wanted == derivation::Personality::Linux32,
    }
}
