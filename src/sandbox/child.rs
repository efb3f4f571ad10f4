//! A started process, and how processes end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::error::Error;
use super::sys::{self, Cloned};

/// A process that was started. To drop it ends nothing: it dies with the caller, or by
/// [`Child::kill`].
#[derive(Debug)]
#[must_use = "a process that nobody waits for stays a zombie"]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    exit: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Child {
    pub(super) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self {
            pid,
            pidfd,
            exit: None,
        }
    }

    /// Its id, as the caller sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Holds what is mounted for it. The kernel takes that down when nobody holds it any more, and
    /// the last to do so waits for it: the process itself, before its end is seen.
    pub fn hold_mounts(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let place = format!("/proc/{}/ns/mnt", self.pid);
        rustix::fs::open(place, flags, Mode::empty()).ok()
    }

    /// Kills it, and if it is process 1 of a namespace all others there. One that has ended is
    /// left alone, whoever has its id now.
    ///
    /// # Errors
    ///
    /// [`Error::Kill`].
    pub fn kill(&self) -> Result<(), Error> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(source) => Err(Error::Kill {
                pid: self.pid,
                source: source.into(),
            }),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`].
    pub fn wait(&mut self) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.reap(WaitIdOptions::EXITED)? {
                return Ok(exit);
            }
        }
    }

    /// Says how it ended, or nothing while it runs.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`].
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn reap(&mut self, options: WaitIdOptions) -> Result<Option<Exit>, Error> {
        if self.exit.is_some() {
            return Ok(self.exit);
        }
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        let status = rustix::io::retry_on_intr(wait).map_err(|source| Error::Wait {
            pid: self.pid,
            source: source.into(),
        })?;
        self.exit = status.as_ref().and_then(exit);
        Ok(self.exit)
    }
}

/// The descriptor becomes readable when the process has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn exit(status: &WaitIdStatus) -> Option<Exit> {
    let code = status.exit_status().map(Exit::Code);
    code.or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// Kills all processes of a user, as Nix does after a build. No process of that user can be made
/// meanwhile: the kernel stops the birth of processes for this call.
///
/// # Errors
///
/// [`Error::KillUser`]; for user 0, who might be everybody, nothing is tried.
pub fn kill_user(uid: u32) -> Result<(), Error> {
    let failed = |source| Error::KillUser { uid, source };
    if uid == 0 {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    // Only a process of that user, and with no privilege, reaches exactly that user's.
    match sys::clone(0).map_err(failed)? {
        Cloned::Child => sys::exit(
            kill_as(uid)
                .err()
                .and_then(|e| e.raw_os_error())
                .unwrap_or(0),
        ),
        Cloned::Parent { pid, pidfd } => match Child::new(pid, pidfd).wait()? {
            Exit::Code(0) => Ok(()),
            Exit::Code(number) => Err(failed(io::Error::from_raw_os_error(number))),
            Exit::Signal(_) => Err(failed(io::ErrorKind::Interrupted.into())),
        },
    }
}

fn kill_as(uid: u32) -> io::Result<()> {
    let user = rustix::process::Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(user, user, user)?;
    match sys::kill_all() {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}
