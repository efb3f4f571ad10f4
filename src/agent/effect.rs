//! Running one effect: impure, never cached, recorded durably before it starts.
//!
//! Its room has the network, the closure of what it refers to (read-only), a home in memory, and
//! its secrets as files below `/run/secrets`; nothing it does enters the store, or stays on a disk.
//!
//! One that asks for the whole store has it at `/nix` and is its owner: user 0 of the op, in strong
//! of a user namespace without any other id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::agent::link::Lost;
use crate::agent::room::{BUILD_DIR, Network, Program, Room, Writes, base_name};
use crate::agent::slot_dirs::SlotDirs;
use crate::agent::stop::Interrupted;
use crate::agent::tools::tools;
use crate::agent::users::Users;
use crate::agent::watch::{End, Limits};
use crate::agent::{Agent, SECRETS, Shape, end};
use crate::event::Failure;
use crate::nix::StorePath;
use crate::sandbox::{Exit, Filter, Personality};
use crate::store::Slot;
use crate::store::attempts::{self, Durability, Kind, Verdict};
use crate::tunnel::{EffectJob, EffectResult, EffectRoot, EffectStore, FromAgent, MachineError};

/// Where programs are in an image that does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Agent {
    /// Runs an effect; the answer is what the conductor is to hear.
    pub fn effect(&mut self, job: &EffectJob) -> Result<FromAgent, Lost> {
        match self.effect_or_stop(job) {
            Ok(result) => Ok(FromAgent::Ran { result }),
            Err(Interrupted::Machine(error)) => Ok(FromAgent::Failed { error }),
            Err(Interrupted::Lost(lost) | Interrupted::Late(lost, _)) => Err(lost),
        }
    }

    fn effect_or_stop(&mut self, job: &EffectJob) -> Result<EffectResult, Interrupted> {
        let mut roots = job.roots.clone();
        roots.extend(tools(self.shape, &job.sandbox_paths));
        if let Some(missing) = self.missing(&roots)? {
            return Ok(EffectResult::StoreLost { missing });
        }
        // The attempt is on disk before the first side effect can happen: whoever finds no end
        // to it later knows that it may have happened.
        let mut attempt = self.next_attempt(Kind::Effect, &job.name, &job.run);
        attempt.pipeline.clone_from(&job.pipeline);
        let id = attempt.id.clone();
        let running = attempts::begin(self.store.dir(), attempt, Durability::Synced)
            .map_err(|error| Interrupted::machine(&error))?;
        if let Err(lost) = self.link.say(&FromAgent::Started { attempt: id }) {
            let unheard = format!("not started: {lost}");
            let _ = running.end(&end(Verdict::NotStarted, unheard, None));
            return Err(Interrupted::Lost(lost));
        }
        self.attempts += 1;
        let result = self.run_effect(job, &roots);
        let (verdict, text) = judge(&result);
        let code = match &result {
            Ok(EffectResult::Succeeded) => Some(0),
            Ok(EffectResult::Failed {
                failure: Failure::ExitCode { code, .. },
            })
            | Err(Interrupted::Late(_, Exit::Code(code))) => Some(*code),
            _ => None,
        };
        running
            .end(&end(verdict, text, code))
            .map_err(|error| Interrupted::machine(&error))?;
        result
    }

    fn missing(&mut self, roots: &BTreeSet<StorePath>) -> Result<Option<StorePath>, Interrupted> {
        let asked: Vec<StorePath> = roots.iter().cloned().collect();
        let valid = self
            .store
            .valid(&asked)
            .map_err(|error| Interrupted::machine(&error))?;
        Ok(roots.iter().find(|path| !valid.contains(*path)).cloned())
    }

    fn run_effect(
        &mut self,
        job: &EffectJob,
        roots: &BTreeSet<StorePath>,
    ) -> Result<EffectResult, Interrupted> {
        let closure = self
            .store
            .closure(roots)
            .map_err(|error| Interrupted::machine(&error))?;
        // In plain the op has the whole room mounted, but a slot: nothing may be left behind, so
        // the agent leases one in either shape.
        let slot = Slot::lease(self.store.dir()).map_err(|error| Interrupted::machine(&error))?;
        let mut dirs = SlotDirs::of(&slot);
        if self.shape == Shape::Plain {
            dirs.build = PathBuf::from(BUILD_DIR);
            dirs.temporary = PathBuf::from("/tmp");
            dirs.store = PathBuf::from("/nix/store");
            // Nothing is mounted there for an effect that refers to no path.
            fs_err::create_dir_all(&dirs.store).map_err(|error| Interrupted::machine(&error))?;
        }
        let (users, writes) = match job.store {
            EffectStore::Closure => (&self.users, Writes::Memory),
            // Only its owner can write to it.
            EffectStore::Whole => (&Users::Single, Writes::WholeStore),
        };
        let user = users
            .acquire(dirs.number)
            .map_err(|error| Interrupted::machine(&error))?;
        let files = self.secrets(job)?;
        let room = Room {
            shape: self.shape,
            dir: &self.store.dir().clone(),
            slot: &dirs,
            closure: &closure,
            sandbox_paths: &job.sandbox_paths,
            user: &user,
            network: Network::Open,
            writes,
            root: job.root,
            files,
        };
        let program = Program {
            path: job.command[0].as_bytes().to_vec(),
            arguments: std::iter::once(base_name(job.command[0].as_bytes()))
                .chain(
                    job.command[1..]
                        .iter()
                        .map(|argument| argument.as_bytes().to_vec()),
                )
                .collect(),
            environment: self
                .environment(job)
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
                .collect(),
            personality: Personality { linux32: false },
            filter: Filter::None,
        };
        let limits = Limits {
            timeout: job.timeout,
            silence: job.silence,
        };
        let log = &mut std::io::sink();
        let end = self.run_in_room(&room, program, limits, log, &mut |_, _| Ok(()));
        drop(slot);
        Ok(match end? {
            End::Exited(Exit::Code(0)) => EffectResult::Succeeded,
            End::Exited(Exit::Code(code)) => EffectResult::Failed {
                failure: Failure::ExitCode {
                    code,
                    transient: true,
                },
            },
            End::Exited(Exit::Signal(signal)) => EffectResult::Failed {
                failure: Failure::Signal {
                    signal,
                    transient: true,
                },
            },
            End::TimedOut(seconds) => EffectResult::Failed {
                failure: Failure::TimedOut { seconds },
            },
            End::Silent(seconds) => EffectResult::Failed {
                failure: Failure::Silent { seconds },
            },
            End::Cancelled => EffectResult::Cancelled,
        })
    }

    /// What it is given, on top of what the image at its root says.
    fn environment(&self, job: &EffectJob) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = self.image.iter().cloned().collect();
        let rest = all.remove("PATH");
        if job.root == EffectRoot::Image {
            let rest = rest.unwrap_or_else(|| USUAL_PATH.to_owned());
            let path: Vec<&str> = job
                .tools
                .iter()
                .map(String::as_str)
                .chain([&*rest])
                .collect();
            all.insert("PATH".to_owned(), path.join(":"));
        }
        all.extend(job.environment.iter().cloned());
        all
    }

    /// In strong the op has the secrets, and the room gets them; in plain the op is the room.
    fn secrets(&self, job: &EffectJob) -> Result<Vec<(PathBuf, Vec<u8>)>, Interrupted> {
        if self.shape == Shape::Plain {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for name in &job.secrets {
            let path = PathBuf::from(SECRETS).join(name);
            let value = fs_err::read(&path).map_err(|error| {
                Interrupted::Machine(MachineError {
                    text: format!("secret `{name}` did not reach the op: {error}"),
                })
            })?;
            files.push((path, value));
        }
        Ok(files)
    }
}

/// What the record says of an effect: this is all that is known of it once nobody listens.
fn judge(result: &Result<EffectResult, Interrupted>) -> (Verdict, String) {
    match result {
        Ok(EffectResult::Succeeded) | Err(Interrupted::Late(_, Exit::Code(0))) => {
            (Verdict::Good, "succeeded".to_owned())
        }
        Ok(EffectResult::Failed { failure }) => (Verdict::Bad, format!("failed: {failure}")),
        Ok(EffectResult::Cancelled) => (Verdict::Cancelled, "cancelled".to_owned()),
        Ok(EffectResult::StoreLost { .. }) => (Verdict::NotStarted, "store lost".to_owned()),
        Err(Interrupted::Machine(error)) => (Verdict::Bad, format!("machine failed: {error}")),
        Err(Interrupted::Lost(lost)) => {
            (Verdict::Killed, format!("killed with its lifeline: {lost}"))
        }
        Err(Interrupted::Late(_, Exit::Code(code))) => {
            (Verdict::Bad, format!("failed: exit code {code}"))
        }
        Err(Interrupted::Late(_, Exit::Signal(signal))) => (
            Verdict::Killed,
            format!("killed with its lifeline: signal {signal}"),
        ),
    }
}
