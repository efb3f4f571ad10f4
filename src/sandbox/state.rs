//! What a process inherits: bond, session, ids, streams, limits (Nix spec §4.9).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};

use super::error::{Error, Step};
use super::line::Line;
use super::sys::{self, Close};
use super::{Identity, Personality};

/// `PER_LINUX32` of `linux/personality.h`.
const PER_LINUX32: i32 = 8;

/// What a step is about that concerns only the process.
const SELF: &str = "process";

/// Makes the child one of its own, but not one that outlives its parent.
pub(super) fn detach(line: &Line) -> Result<(), Error> {
    // First, for a handler of the caller must not run here.
    sys::reset_signals().map_err(Error::at(Step::Signals, SELF))?;
    bond(line)?;
    // Without a controlling terminal nobody's keyboard reaches a builder.
    rustix::process::setsid().map_err(Error::at(Step::Session, SELF))?;
    Ok(())
}

/// Lets the kernel kill this process when its parent dies.
pub(super) fn bond(line: &Line) -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Error::at(Step::Bond, SELF))?;
    // It may have died before, and a parent outside the namespace has no id to compare.
    line.parent_lives().map_err(Error::at(Step::Bond, SELF))
}

/// Opens `/dev/null`, while there surely is one.
pub(super) fn null() -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::at(Step::Null, "/dev/null"))
}

/// Changes to the working directory, with privilege: the builder may be unable to search the way.
pub(super) fn change_directory(path: &Path) -> Result<(), Error> {
    rustix::process::chdir(path).map_err(Error::at(Step::WorkingDirectory, path))
}

/// Changes the ids.
pub(super) fn become_user(identity: Identity, line: &Line) -> Result<(), Error> {
    match identity {
        Identity::Same => Ok(()),
        Identity::User { uid, gid } => {
            drop_groups()?;
            set_ids(uid, gid)
        }
        Identity::Mapped {
            inside: (uid, gid), ..
        } => {
            // In the namespace it is too late: there `setgroups` is denied.
            drop_groups()?;
            let failed = || Error::at(Step::UserNamespace, SELF);
            sys::unshare(libc::CLONE_NEWUSER).map_err(failed())?;
            line.ask_for_maps().map_err(failed())?;
            set_ids(uid, gid)
        }
    }
}

fn drop_groups() -> Result<(), Error> {
    match rustix::thread::set_thread_groups(&[]) {
        // A caller that was an ordinary user is not allowed to, and keeps its own groups.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(Error::at(Step::Groups, SELF)(error)),
    }
}

fn set_ids(uid: u32, gid: u32) -> Result<(), Error> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // The group first: only privilege can change it.
    rustix::thread::set_thread_res_gid(group, group, group)
        .map_err(Error::at(Step::Gid, gid.to_string()))?;
    rustix::thread::set_thread_res_uid(user, user, user)
        .map_err(Error::at(Step::Uid, uid.to_string()))
}

/// Sets the standard streams; all other descriptors will be closed by the exec.
pub(super) fn set_streams(null: &OwnedFd, output: &OwnedFd) -> Result<(), Error> {
    let failed = || Error::at(Step::Streams, SELF);
    // The output may be one of the three that are about to be replaced.
    let output = rustix::io::fcntl_dupfd_cloexec(output, 3).map_err(failed())?;
    rustix::stdio::dup2_stdin(null).map_err(failed())?;
    rustix::stdio::dup2_stdout(&output).map_err(failed())?;
    rustix::stdio::dup2_stderr(&output).map_err(failed())?;
    sys::close_range(3, RawFd::MAX, Close::AtExec).map_err(Error::at(Step::Descriptors, SELF))
}

/// Closes everything but standard error, the line and what is kept.
pub(super) fn close_others(
    null: &OwnedFd,
    keep: &[BorrowedFd<'_>],
    line: &Line,
) -> Result<(), Error> {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    let failed = || Error::at(Step::Streams, SELF);
    if !kept.contains(&0) {
        rustix::stdio::dup2_stdin(null).map_err(failed())?;
    }
    if !kept.contains(&1) {
        rustix::stdio::dup2_stdout(null).map_err(failed())?;
    }
    // The null device is closed by its owner; nothing may take it away before.
    kept.extend([line.descriptor().as_raw_fd(), null.as_fd().as_raw_fd()]);
    kept.sort_unstable();
    let mut first = 3;
    for last in kept
        .into_iter()
        .filter(|kept| *kept >= 3)
        .chain([RawFd::MAX])
    {
        // The largest number is a bound and never an open descriptor.
        if first < last {
            let range = sys::close_range(first, last - 1, Close::Now);
            range.map_err(Error::at(Step::Descriptors, SELF))?;
        }
        first = last.saturating_add(1);
    }
    Ok(())
}

/// Limits what the program may do and see: umask, core files, personality, privileges.
pub(super) fn limit(personality: Personality) -> Result<(), Error> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let maximum = rustix::process::getrlimit(Resource::Core).maximum;
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum,
        },
    )
    .map_err(Error::at(Step::CoreLimit, SELF))?;
    let machine = if personality.linux32 { PER_LINUX32 } else { 0 };
    if personality.linux32 {
        sys::personality(machine).map_err(Error::at(Step::Personality, "linux32"))?;
    }
    // Containers may forbid this one; as for Nix it is worth a try and no more.
    sys::personality(machine | libc::ADDR_NO_RANDOMIZE).ok();
    rustix::thread::set_no_new_privs(true).map_err(Error::at(Step::NoNewPrivileges, SELF))
}

/// Installs the filter.
pub(super) fn install_filter(filter: &[libc::sock_filter]) -> Result<(), Error> {
    let result: io::Result<()> = sys::install_filter(filter);
    result.map_err(Error::at(Step::Seccomp, SELF))
}
