//! The child's side of a cage: a root of its own, made from inside.
//!
//! The new root is entered first and furnished then. Whatever a target names, through symbolic
//! links or not, is therefore in the new root; sources are resolved in the old one, which is held
//! by a descriptor until all is done.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::error::{Error, Step};
use super::{Access, Entry, Ground, Missing, Tree, sys};

/// The mode of parents and mount points that nobody described.
const PARENT: u32 = 0o755;

/// A new root that is entered, with what is on its ground, and not furnished yet.
pub(super) struct Entered {
    old: OwnedFd,
}

/// Makes the ground of a cage and enters it; the calling process is alone in new namespaces.
pub(super) fn enter(ground: &Ground) -> Result<Entered, Error> {
    let old = enter_root(ground)?;
    if ground.namespaces.net {
        raise_loopback()?;
    }
    if ground.namespaces.uts {
        name(ground.hostname.as_deref())?;
    }
    with_exact_modes(|| put(&ground.entries, &old))?;
    Ok(Entered { old })
}

impl Entered {
    /// Puts everything in its place; from then on there is nothing but the cage.
    pub(super) fn furnish(self, trees: &[Tree], entries: &[Entry]) -> Result<(), Error> {
        with_exact_modes(|| {
            for Tree { tree, target } in trees {
                make_directory(target, PARENT).map_err(Error::at(Step::MountPoint, target))?;
                attach(tree, target)?;
            }
            put(entries, &self.old)
        })?;
        leave_root(&self.old)
    }
}

fn with_exact_modes<T>(work: impl FnOnce() -> T) -> T {
    let umask = rustix::process::umask(Mode::empty());
    let done = work();
    rustix::process::umask(umask);
    done
}

fn put(entries: &[Entry], old: &OwnedFd) -> Result<(), Error> {
    entries.iter().try_for_each(|entry| make(entry, old))
}

/// Lets nothing that is mounted here appear elsewhere, and nothing of elsewhere here.
pub(super) fn be_private() -> Result<(), Error> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(Error::at(Step::DetachMounts, "/"))
}

/// Mounts the new root and makes it `/`. The old one stays mounted over it, where only its
/// descriptor leads.
fn enter_root(ground: &Ground) -> Result<OwnedFd, Error> {
    let (root, mode) = (&ground.root, ground.root_mode);
    be_private()?;
    if let Some(unwanted) = &ground.unwanted {
        forget(unwanted)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old =
        rustix::fs::open("/", flags, Mode::empty()).map_err(Error::at(Step::HoldRoot, "/"))?;
    mount(
        "tmpfs",
        root,
        MountFlags::empty(),
        &format!("mode={mode:o}"),
        Step::MountRoot,
    )?;
    rustix::process::chdir(root).map_err(Error::at(Step::EnterRoot, root))?;
    // With the same place twice no directory for the old root is needed.
    rustix::process::pivot_root(".", ".").map_err(Error::at(Step::PivotRoot, root))?;
    Ok(old)
}

/// Unmounts something, if anything is mounted there.
fn forget(place: &Path) -> Result<(), Error> {
    match rustix::mount::unmount(place, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::at(Step::DetachMounts, place)(error)),
    }
}

fn leave_root(old: &OwnedFd) -> Result<(), Error> {
    let failed = || Error::at(Step::LeaveRoot, "/");
    rustix::process::fchdir(old).map_err(failed())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed())?;
    rustix::process::chdir("/").map_err(failed())
}

fn make(entry: &Entry, old: &OwnedFd) -> Result<(), Error> {
    match entry {
        Entry::Directory { path, mode, owner } => directory(path, *mode, *owner),
        Entry::File {
            path,
            contents,
            mode,
        } => file(path, contents, *mode),
        Entry::Symlink { path, target } => with_parents(path, || rustix::fs::symlink(target, path))
            .map_err(Error::at(Step::Symlink, path)),
        Entry::Bind {
            source,
            target,
            access,
            missing,
        } => match find(old, source) {
            Err(Errno::NOENT) if *missing == Missing::Skipped => Ok(()),
            found => {
                let found = found.map_err(Error::at(Step::Source, source))?;
                bind(&found, source, target, *access)
            }
        },
        Entry::Tmpfs { target, size, mode } => {
            let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
            let options = format!("mode={mode:o}{size}");
            mount_on_directory("tmpfs", target, MountFlags::empty(), &options, Step::Tmpfs)
        }
        Entry::Proc { target } => {
            mount_on_directory("proc", target, MountFlags::NOEXEC, "", Step::Proc)
        }
        Entry::DevPts { target } => {
            let options = "newinstance,ptmxmode=0666,mode=0620";
            mount_on_directory("devpts", target, MountFlags::NOEXEC, options, Step::DevPts)
        }
        Entry::Chmod { path, mode } => {
            rustix::fs::chmod(path, Mode::from_raw_mode(*mode)).map_err(Error::at(Step::Mode, path))
        }
    }
}

fn directory(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> Result<(), Error> {
    make_directory(path, mode).map_err(Error::at(Step::Directory, path))?;
    if (uid, gid) != (0, 0) {
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(Error::at(Step::Owner, path))?;
    }
    // Not only for one that was there: mkdir takes no set-group-id bit.
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(Error::at(Step::Mode, path))
}

fn file(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, Mode::from_raw_mode(mode));
    let file = with_parents(path, open).map_err(Error::at(Step::File, path))?;
    let mut rest = contents;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))
            .map_err(Error::at(Step::File, path))?;
        rest = &rest[written..];
    }
    Ok(())
}

/// Finds a source as a process in the old root would.
fn find(old: &OwnedFd, source: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(old, source, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // A mount elsewhere on the machine while a `..` was followed: nothing is wrong.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

fn bind(found: &OwnedFd, source: &Path, target: &Path, access: Access) -> Result<(), Error> {
    let tree = prepared(found, source, target, access)?;
    attach(&tree, target)
}

/// Binds outside of a new root, where a target that is a symbolic link may lead anywhere: it is
/// hidden, not followed.
pub(super) fn bind_over(
    found: &OwnedFd,
    source: &Path,
    target: &Path,
    access: Access,
) -> Result<(), Error> {
    let tree = prepared(found, source, target, access)?;
    attach_with(&tree, target, MoveMountFlags::empty())
}

/// Copies a source as it is to be mounted, and makes its place.
fn prepared(
    found: &OwnedFd,
    source: &Path,
    target: &Path,
    access: Access,
) -> Result<OwnedFd, Error> {
    let kind = rustix::fs::fstat(found)
        .map_err(Error::at(Step::Source, source))?
        .st_mode;
    let kind = FileType::from_raw_mode(kind);
    let tree = copy(found).map_err(Error::at(Step::CloneTree, source))?;
    sys::add_mount_attributes(tree.as_fd(), attributes(kind, access))
        .map_err(Error::at(Step::Attributes, source))?;
    mount_point(target, kind).map_err(Error::at(Step::MountPoint, target))?;
    Ok(tree)
}

/// Copies what is mounted at a place, attached nowhere. All below too: in a user namespace the
/// kernel lets nobody look under a mount.
pub(super) fn copy(place: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(place, "", flags)
}

fn attach(tree: &OwnedFd, target: &Path) -> Result<(), Error> {
    attach_with(tree, target, MoveMountFlags::MOVE_MOUNT_T_SYMLINKS)
}

fn attach_with(tree: &OwnedFd, target: &Path, target_flags: MoveMountFlags) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | target_flags;
    rustix::mount::move_mount(tree, "", CWD, target, flags)
        .map_err(Error::at(Step::MoveTree, target))
}

fn attributes(kind: FileType, access: Access) -> u64 {
    let devices = match kind {
        FileType::CharacterDevice | FileType::BlockDevice => 0,
        _ => libc::MOUNT_ATTR_NODEV,
    };
    let write = match access {
        Access::ReadOnly => libc::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => 0,
    };
    libc::MOUNT_ATTR_NOSUID | devices | write
}

fn mount_point(target: &Path, source: FileType) -> Result<(), Errno> {
    if source == FileType::Directory {
        return make_directory(target, PARENT);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let open = || rustix::fs::open(target, flags, Mode::from_raw_mode(0o644));
    match with_parents(target, open) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

fn mount_on_directory(
    kind: &str,
    target: &Path,
    flags: MountFlags,
    options: &str,
    step: Step,
) -> Result<(), Error> {
    make_directory(target, PARENT).map_err(Error::at(Step::MountPoint, target))?;
    mount(kind, target, flags, options, step)
}

fn mount(
    kind: &str,
    target: &Path,
    flags: MountFlags,
    options: &str,
    step: Step,
) -> Result<(), Error> {
    let flags = flags | MountFlags::NOSUID | MountFlags::NODEV;
    // The devices of devpts are what it is for.
    let flags = if kind == "devpts" {
        flags - MountFlags::NODEV
    } else {
        flags
    };
    let options = std::ffi::CString::new(options).expect("options are numbers and words");
    rustix::mount::mount(kind, target, kind, flags, options.as_c_str())
        .map_err(Error::at(step, target))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Errno> {
    match with_parents(path, || rustix::fs::mkdir(path, Mode::from_raw_mode(mode))) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Makes something, and its parents only if they turn out to be missing.
fn with_parents<T>(path: &Path, make: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match (make(), path.parent()) {
        (Err(Errno::NOENT), Some(parent)) => {
            make_directory(parent, PARENT)?;
            make()
        }
        (result, _) => result,
    }
}

fn raise_loopback() -> Result<(), Error> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .map_err(Error::at(Step::Loopback, "lo"))?;
    sys::raise_loopback(socket.as_fd()).map_err(Error::at(Step::Loopback, "lo"))
}

fn name(hostname: Option<&str>) -> Result<(), Error> {
    if let Some(hostname) = hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(Error::at(Step::Hostname, hostname))?;
    }
    let none = "(none)";
    rustix::system::setdomainname(none.as_bytes()).map_err(Error::at(Step::Domainname, none))
}
