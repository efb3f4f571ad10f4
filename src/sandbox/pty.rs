//! Pseudo terminals for the output of builders.
//!
//! A builder writes to a terminal so that programs flush line by line, but in raw mode, so that no
//! byte is changed. The last close of the slave makes reads from the master end in EIO, which is
//! the end of a build (Nix spec §4.11); so the caller must not keep a slave of its own.

use std::os::fd::OwnedFd;

use rustix::fs::{Gid, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;

use super::Error;

/// Both ends of a terminal, closed at an exec.
#[derive(Debug)]
pub struct Pty {
    /// The end for the reader; blocking.
    pub master: OwnedFd,
    /// The end for the program.
    pub slave: OwnedFd,
}

/// Makes a terminal in raw mode, whose slave belongs to the given user and group, or the caller.
///
/// # Errors
///
/// [`Error::Pty`], as when there is no `/dev/ptmx`.
pub fn pty(owner: Option<(u32, u32)>) -> Result<Pty, Error> {
    let failed = |call| {
        move |source: rustix::io::Errno| Error::Pty {
            call,
            source: source.into(),
        }
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).map_err(failed("open"))?;
    rustix::pty::unlockpt(&master).map_err(failed("unlock"))?;
    // The slave is opened through the master: its path may not exist in this root.
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(failed("open the slave of"))?;
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(failed("give away"))?;
    }
    let mut mode = rustix::termios::tcgetattr(&slave).map_err(failed("read the mode of"))?;
    mode.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode)
        .map_err(failed("set the mode of"))?;
    Ok(Pty { master, slave })
}
