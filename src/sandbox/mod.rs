//! Processes in prepared roots: namespaces, mounts, ids, seccomp, terminals.
//!
//! This module knows nothing of Nix's store or of ours; it makes what others describe. A [`Cage`]
//! is what a process finds when it wakes: namespaces and a root of its own, the [`Ground`], furnished
//! entry by entry. A [`Process`] is what is executed there and with which identity. [`spawn()`]
//! executes a program, [`spawn_call`] runs a function of this executable as process 1 of a cage.
//!
//! Two things are there for haste. A [`Standby`] is a process that has a ground already, and waits to
//! hear what else; a [`Nursery`] makes such processes. A [`Shelf`] is a directory with binds on it, of
//! which each cage gets a copy.
//!
//! The order of steps, all in the child and each of them a [`Step`] of the error it may end in:
//!
//! | step | why there |
//! |---|---|
//! | signals reset, death of the parent arranged, new session | nothing may outlive the caller |
//! | mounts made private, a tmpfs as root, pivot | first, so that nothing made later can land outside |
//! | loopback, host name | need privilege over the namespaces |
//! | trees, then entries, in the order given | sources are resolved in the old root, which is still held |
//! | old root unmounted | from here on there is nothing but the cage |
//! | directory, groups, ids | the last steps that need privilege |
//! | death of the parent arranged again | a change of ids cancels it |
//! | standard streams, descriptors, limits, personality | what the program inherits |
//! | seccomp, exec | nothing else must pass through the filter |
//!
//! The callers must be single-threaded: a child continues with a copy of one thread only, so a
//! lock that another thread holds is held for ever.
//!
//! The kernel must be Linux 5.12 or newer (`mount_setattr`).
//!
//! Left out: cgroups, Landlock, and seccomp beyond Nix's own rules. With user namespaces a caller
//! without privilege first becomes root in one of its own ([`ids::enter_user_namespace`]).

use std::os::fd::OwnedFd;
use std::path::PathBuf;

mod cage;
mod child;
mod devices;
mod error;
mod filter;
pub mod ids;
mod line;
mod nursery;
mod order;
mod pty;
mod shelf;
mod spawn;
mod standby;
mod state;
mod sys;
#[cfg(test)]
mod tests;

pub use child::{Child, Exit, kill_user};
pub use devices::devices;
pub use error::{Error, Step};
pub use nursery::Nursery;
pub use pty::{Pty, pty};
pub use shelf::Shelf;
pub use spawn::{spawn, spawn_call};
pub use standby::Standby;

/// What a process finds when it wakes.
#[derive(Debug)]
pub struct Cage {
    /// What can be made before it is known what comes into it.
    pub ground: Ground,
    /// What is put into the root next.
    pub trees: Vec<Tree>,
    /// What is put into the root then, made in this order.
    pub entries: Vec<Entry>,
}

/// New namespaces, and a root with what many have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// An existing directory, used as a place only: the root is a tmpfs mounted there, in a mount
    /// namespace of the child's own, so nothing is ever written into it.
    pub root: PathBuf,
    /// The mode of `/`.
    pub root_mode: u32,
    /// What is private besides the mounts.
    pub namespaces: Namespaces,
    /// The host name; only with [`Namespaces::uts`].
    pub hostname: Option<String>,
    /// What is mounted outside and of no use inside, if it is: else it would be held for as long as
    /// the cage is.
    pub unwanted: Option<PathBuf>,
    /// What is put into the root first, in this order.
    pub entries: Vec<Entry>,
}

/// Mounts that were put together outside, and are attached as they are.
#[derive(Debug)]
pub struct Tree {
    /// The mounts, attached nowhere.
    pub tree: OwnedFd,
    /// Where they come, inside.
    pub target: PathBuf,
}

/// Which namespaces are new; that of mounts always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set of four independent namespaces"
)]
pub struct Namespaces {
    /// Processes: the child is process 1, and its death ends all others.
    pub pid: bool,
    /// System V and POSIX message queues, semaphores, shared memory.
    pub ipc: bool,
    /// Host and domain name.
    pub uts: bool,
    /// Network: nothing but a loopback interface, which is brought up.
    pub net: bool,
}

/// One thing in a root. Targets and paths are absolute and mean the inside; missing parents are
/// made with mode 0755.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory; one that exists gets the mode and the owner.
    Directory {
        /// Where.
        path: PathBuf,
        /// Its exact mode, whatever the umask.
        mode: u32,
        /// User and group; nothing is changed for `(0, 0)`, the maker.
        owner: (u32, u32),
    },
    /// A new file. It is an error if there is one: it could be somebody's, seen through a bind.
    File {
        /// Where.
        path: PathBuf,
        /// What it holds.
        contents: Vec<u8>,
        /// Its exact mode.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Where.
        path: PathBuf,
        /// The text of the link, not interpreted.
        target: PathBuf,
    },
    /// A part of the outside, with everything mounted below it. A mount point is made, a directory
    /// or a file as the source is one. Never set-user-id; no devices, unless the source is one.
    Bind {
        /// Outside. Symbolic links in it are followed in the outer root, the last one too; the
        /// magic links of `/proc` are refused.
        source: PathBuf,
        /// Inside.
        target: PathBuf,
        /// Whether it can be written.
        access: Access,
        /// What if there is no source.
        missing: Missing,
    },
    /// A new tmpfs.
    Tmpfs {
        /// Where.
        target: PathBuf,
        /// Bytes; the kernel's default is half of the memory.
        size: Option<u64>,
        /// The mode of its root.
        mode: u32,
    },
    /// A new procfs, which shows the child's process namespace.
    Proc {
        /// Where.
        target: PathBuf,
    },
    /// A new instance of pseudo terminals, with `ptmx` in it.
    DevPts {
        /// Where.
        target: PathBuf,
    },
    /// A change of mode after other entries, as of a directory that becomes unwritable.
    Chmod {
        /// What; a symbolic link is followed.
        path: PathBuf,
        /// The new mode.
        mode: u32,
    },
}

impl Entry {
    /// What the outside has at this path, at the same one, if there is anything; to be read only.
    pub fn of_the_machine(path: &str) -> Self {
        Self::Bind {
            source: path.into(),
            target: path.into(),
            access: Access::ReadOnly,
            missing: Missing::Skipped,
        }
    }
}

/// Whether a bind can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Never, also not in what is mounted below.
    ReadOnly,
    /// As the source.
    ReadWrite,
}

/// What a bind without a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Fails,
    /// The entry is left out, and no mount point is made.
    Skipped,
}

/// A program and the state it starts in, which is Nix's (spec §4.9) in all that is not a field:
/// new session, umask 022, soft core limit 0, default signals, `no_new_privs`, and no descriptor
/// but the three standard ones.
#[derive(Debug)]
pub struct Process {
    /// The file to execute, without a search; relative to `directory`.
    pub program: Vec<u8>,
    /// All arguments, the program's name as its first included.
    pub arguments: Vec<Vec<u8>>,
    /// The whole environment, `name=value` each, in this order.
    pub environment: Vec<Vec<u8>>,
    /// The working directory, inside.
    pub directory: PathBuf,
    /// Who the program is.
    pub identity: Identity,
    /// Its standard output and error. Standard input is `/dev/null`, of the outside where the cage
    /// has none, opened for reading and writing.
    pub output: OwnedFd,
    /// How the kernel presents itself.
    pub personality: Personality,
    /// Which calls are refused.
    pub filter: Filter,
}

/// Who a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The caller.
    Same,
    /// Another user, without supplementary groups.
    User {
        /// Real, effective and saved user id.
        uid: u32,
        /// Real, effective and saved group id.
        gid: u32,
    },
    /// A user namespace of its own in which only one user and one group exist. The caller needs
    /// privilege over both outer ids, and its own `/proc`.
    Mapped {
        /// User and group as the caller sees them.
        outside: (u32, u32),
        /// User and group as the program sees them.
        inside: (u32, u32),
    },
}

/// How the kernel presents itself. Addresses are not randomized, where that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality {
    /// Whether it calls itself a 32-bit machine, so that `uname -m` says `i686`: for builds of
    /// `i686-linux` on `x86_64-linux`.
    pub linux32: bool,
}

/// Which calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// None.
    None,
    /// Those that Nix refuses: set-user-id modes and extended attributes (spec §4.9).
    Nix,
}
