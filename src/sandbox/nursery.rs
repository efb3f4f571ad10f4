//! A process that makes processes on standby, for a caller that has better things to do.
//!
//! To make one costs the kernel a copy of its maker's memory and new namespaces, and afterwards the
//! maker a fault for each page that it writes to. The nursery is small, and does it meanwhile; what
//! it makes are children of its caller.
//!
//! | the caller says | the nursery answers | with descriptors |
//! |---|---|---|
//! | a [`Ground`], as bytes, and perhaps a descriptor to close | the id of the process | of the process, and the caller's side of its line |
//!
//! It has none of its caller's descriptors but standard error, and ends with it.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use libc::CLONE_PARENT;

use super::child::Child;
use super::error::{Error, Step};
use super::line::{Line, Word};
use super::standby::{self, Standby};
use super::sys::{self, Cloned};
use super::{Ground, order, spawn, state};

/// A nursery; dropped, it ends, with what it made and nobody took.
#[derive(Debug)]
pub struct Nursery {
    child: Child,
    line: Line,
    /// What it was asked for.
    asked: Option<Ground>,
}

impl Nursery {
    /// Opens one; returns when it holds nothing of the caller's any more.
    ///
    /// # Errors
    ///
    /// [`Error::Clone`] if there is no process, [`Error::Step`] if it cannot be prepared.
    pub fn open() -> Result<Self, Error> {
        let (child, line) = spawn::start(0, |line| match serve(&line) {
            Ok(never) => match never {},
            Err(error) => {
                line.report(&error);
                spawn::FAILED
            }
        })?;
        let nursery = Self {
            child,
            line,
            asked: None,
        };
        match nursery.line.hear() {
            Ok(Word::Ready) => Ok(nursery),
            Ok(Word::Failed(error)) => Err(error),
            Ok(_) => Err(broken(io::ErrorKind::BrokenPipe.into())),
            Err(source) => Err(broken(source)),
        }
    }

    /// Asks for the end of something that is of no use any more, for whoever closes the last descriptor
    /// of a dead cage's mounts waits for the kernel; and for a process. Both is done meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Line`] if the nursery is gone.
    pub fn ask(&mut self, ground: Ground, remains: Option<OwnedFd>) -> Result<(), Error> {
        drop(self.take());
        let bytes = order::encode_ground(&ground);
        let beside: Vec<_> = remains.iter().map(AsFd::as_fd).collect();
        self.line.give(&bytes, &beside).map_err(broken)?;
        drop(remains);
        self.asked = Some(ground);
        Ok(())
    }

    /// Takes the process that was asked for; nothing if there was none, or it could not be made.
    pub fn take(&mut self) -> Option<Standby> {
        let ground = self.asked.take()?;
        let (id, descriptors) = self.line.take().ok()??;
        let pid = u32::from_ne_bytes(id.try_into().ok()?);
        let [process, line] = <[_; 2]>::try_from(descriptors).ok()?;
        let child = Child::new(pid, process);
        Some(Standby::new(ground, child, Line::of(line)))
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        drop(self.take());
        if self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

fn broken(source: io::Error) -> Error {
    Error::Line { source }
}

/// What the nursery does until its caller is gone.
fn serve(line: &Line) -> Result<Infallible, Error> {
    state::detach(line)?;
    let null = state::null()?;
    state::close_others(&null, &[], line)?;
    let failed = || Error::at::<_, io::Error>(Step::Finish, "process");
    line.be_ready().map_err(failed())?;
    while let Some((bytes, remains)) = line.take().map_err(failed())? {
        // Now, or the new process would have them, too.
        drop(remains);
        let made = match order::decode_ground(&bytes) {
            Some(ground) => make(&ground, line),
            None => Err(io::ErrorKind::InvalidData.into()),
        };
        if made.is_err() {
            line.give(&[], &[]).map_err(failed())?;
        }
    }
    sys::exit(0);
}

fn make(ground: &Ground, caller: &Line) -> io::Result<()> {
    let (ours, theirs) = Line::pair()?;
    match sys::clone(spawn::namespaces(ground) | CLONE_PARENT)? {
        Cloned::Child => {
            drop(ours);
            sys::exit(standby::live(ground, &theirs));
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let id = pid.to_ne_bytes();
            caller.give(&id, &[pidfd.as_fd(), ours.descriptor().as_fd()])
        }
    }
}
