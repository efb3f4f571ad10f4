//! Why a build, or a process in a room, ended without more to say; and how that stands on record.

use std::path::PathBuf;

use crate::agent::link::Lost;
use crate::agent::outputs::Rejected;
use crate::agent::unregistered::Made;
use crate::event::Failure;
use crate::sandbox::Exit;
use crate::store::attempts::Verdict;
use crate::tunnel::{BuildResult, FromAgent, MachineError};

/// Why a build ended without a result of its own.
pub(super) enum Stop {
    /// The result, come early.
    Result(BuildResult),
    /// Another program holds a lock.
    Busy(PathBuf),
    /// The machine failed.
    Machine(MachineError),
    /// The lifeline ended.
    Lost(Lost),
    /// What it needs did not become valid, which was said.
    Forgotten,
}

impl From<Lost> for Stop {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

pub(super) fn machine(error: impl std::error::Error) -> Stop {
    Stop::Machine(MachineError::of(&error))
}

/// What is to be said of a build that is over.
pub(super) fn answer(result: Result<BuildResult, Stop>) -> Result<Made, Lost> {
    Ok(Made::Answer(match result {
        Ok(result) | Err(Stop::Result(result)) => FromAgent::Built { result },
        Err(Stop::Busy(lock)) => FromAgent::Busy {
            lock: lock.display().to_string(),
        },
        Err(Stop::Machine(error)) => FromAgent::Failed { error },
        Err(Stop::Lost(lost)) => return Err(lost),
        Err(Stop::Forgotten) => return Ok(Made::Nothing),
    }))
}

pub(super) fn failed(failure: Failure) -> Stop {
    Stop::Result(BuildResult::Failed { failure })
}

/// Why nothing more can be said of a process in a room.
pub(super) enum Interrupted {
    Machine(MachineError),
    Lost(Lost),
    /// The lifeline ended, but the process had ended by itself before.
    Late(Lost, Exit),
}

impl Interrupted {
    pub(super) fn machine(error: &dyn std::error::Error) -> Self {
        Self::Machine(MachineError::of(error))
    }
}

impl From<Interrupted> for Stop {
    fn from(stop: Interrupted) -> Self {
        match stop {
            Interrupted::Machine(error) => Self::Machine(error),
            Interrupted::Lost(lost) | Interrupted::Late(lost, _) => Self::Lost(lost),
        }
    }
}

impl From<Rejected> for Stop {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Output(failure) => failed(failure),
            Rejected::Machine(error) => Self::Machine(error),
        }
    }
}

/// What of it is on record.
pub(super) fn verdict(result: Result<&BuildResult, &Stop>) -> Verdict {
    match flat(result) {
        Ok(BuildResult::Built { .. }) => Verdict::Good,
        Ok(BuildResult::Cancelled) | Err(Stop::Forgotten) => Verdict::Cancelled,
        Err(Stop::Lost(_)) => Verdict::Killed,
        _ => Verdict::Bad,
    }
}

/// The builder's exit code, if it is known.
pub(super) fn exit_code(result: Result<&BuildResult, &Stop>) -> Option<i32> {
    match flat(result) {
        Ok(BuildResult::Built { .. }) => Some(0),
        Ok(BuildResult::Failed {
            failure: Failure::ExitCode { code, .. },
        }) => Some(*code),
        _ => None,
    }
}

/// It in words, for the record.
pub(super) fn describe(result: Result<&BuildResult, &Stop>) -> String {
    match flat(result) {
        Ok(BuildResult::Built { .. }) => "built".to_owned(),
        Ok(BuildResult::Cancelled) => "cancelled".to_owned(),
        Ok(BuildResult::Failed { failure }) => format!("failed: {failure}"),
        Ok(_) | Err(Stop::Result(_)) => "ended".to_owned(),
        Err(Stop::Busy(_)) => "busy".to_owned(),
        Err(Stop::Machine(error)) => format!("machine failed: {error}"),
        Err(Stop::Lost(lost)) => format!("ended with its lifeline: {lost}"),
        Err(Stop::Forgotten) => "cancelled: what it needs did not become valid".to_owned(),
    }
}

fn flat<'a>(result: Result<&'a BuildResult, &'a Stop>) -> Result<&'a BuildResult, &'a Stop> {
    match result {
        Ok(result) | Err(Stop::Result(result)) => Ok(result),
        Err(stop) => Err(stop),
    }
}
