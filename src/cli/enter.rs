//! Makes a store's nix directory `/nix` for this process: what `pontoon exec` stands on.
//!
//! Where the machine has a `/nix`, the store is mounted over it. Where it has none, nothing is
//! created on the machine: a new root on a tmpfs gets every entry of the old one, and `nix`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    unmount,
};

use super::apart;
use super::error::{Error, Kind};

/// One step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} `{}`", path.display())]
pub struct Failed {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Gives this process, which has one thread, namespaces in which `nix_dir` is `/nix`.
pub fn nix(nix_dir: &Path) -> Result<(), Error> {
    // The working directory is looked up anew in the new root.
    let here = std::env::current_dir().ok();
    apart::own_namespaces()?;
    place(nix_dir).map_err(|failed| Error::new(Kind::Engine, failed))?;
    if let Some(here) = here {
        // A directory that cannot be entered again is the program's to complain about.
        std::env::set_current_dir(here).ok();
    }
    Ok(())
}

fn place(nix_dir: &Path) -> Result<(), Failed> {
    let root = Path::new("/");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(root, private).map_err(failed("detach the mounts below", root))?;
    let nix = Path::new("/nix");
    if nix.is_dir() {
        return mount_bind_recursive(nix_dir, nix).map_err(failed("mount the store at", nix));
    }
    let store = Held::open(nix_dir)?;
    let entries = entries(root)?;
    // The new root covers a directory that is held already, so nothing is lost and nothing made.
    let free = |entry: &&(OsString, Kept)| {
        matches!(entry.1, Kept::Mounted(_)) && entry.0 != "proc" && root.join(&entry.0).is_dir()
    };
    let cover = entries
        .iter()
        .find(free)
        .map_or(PathBuf::from("/tmp"), |(name, _)| root.join(name));
    mount("tmpfs", &cover, "tmpfs", MountFlags::empty(), None)
        .map_err(failed("mount a new root at", &cover))?;
    for (name, kept) in &entries {
        kept.put(&cover.join(name))?;
    }
    store.bind(&cover.join("nix"), Form::Directory)?;
    change_root(&cover)
}

fn change_root(new: &Path) -> Result<(), Failed> {
    let step = failed("make the new root of", new);
    rustix::process::chdir(new)
        .and_then(|()| rustix::process::pivot_root(".", "."))
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(step)
}

/// A file or directory that stays reachable whatever is mounted over it.
struct Held(OwnedFd);

#[derive(Clone, Copy)]
enum Form {
    Directory,
    File,
}

enum Kept {
    Mounted(Held),
    File(Held),
    Link(PathBuf),
}

impl Held {
    fn open(path: &Path) -> Result<Self, Failed> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(CWD, path, flags, Mode::empty())
            .map(Self)
            .map_err(failed("open", path))
    }

    fn bind(&self, target: &Path, form: Form) -> Result<(), Failed> {
        let made = match form {
            Form::Directory => fs_err::create_dir(target),
            Form::File => fs_err::write(target, ""),
        };
        made.map_err(|source| Failed {
            step: "make",
            path: target.into(),
            source,
        })?;
        let source = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        mount_bind_recursive(source, target).map_err(failed("mount", target))
    }
}

impl Kept {
    fn put(&self, target: &Path) -> Result<(), Failed> {
        match self {
            Self::Mounted(held) => held.bind(target, Form::Directory),
            Self::File(held) => held.bind(target, Form::File),
            Self::Link(to) => fs_err::os::unix::fs::symlink(to, target).map_err(|source| Failed {
                step: "make",
                path: target.into(),
                source,
            }),
        }
    }
}

/// What lies in the root directory, each kept as what it is.
fn entries(root: &Path) -> Result<Vec<(OsString, Kept)>, Failed> {
    let read = |source| Failed {
        step: "read",
        path: root.into(),
        source,
    };
    let mut entries = vec![];
    for entry in fs_err::read_dir(root).map_err(read)? {
        let entry = entry.map_err(read)?;
        let (path, form) = (entry.path(), entry.file_type().map_err(read)?);
        let kept = if form.is_symlink() {
            Kept::Link(fs_err::read_link(&path).map_err(read)?)
        } else if form.is_dir() {
            Kept::Mounted(Held::open(&path)?)
        } else if form.is_file() {
            Kept::File(Held::open(&path)?)
        } else {
            continue;
        };
        entries.push((entry.file_name(), kept));
    }
    Ok(entries)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Failed {
    move |errno| Failed {
        step,
        path: path.to_owned(),
        source: errno.into(),
    }
}
