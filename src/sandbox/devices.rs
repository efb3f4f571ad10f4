//! The devices of a cage: those of Nix's sandbox (Nix spec §4.8), which are also a container's.

use std::path::PathBuf;

use super::{Access, Entry, Missing};

/// Devices taken from outside, one by one.
const TAKEN: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// Links to what each process has of its own.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "/dev/pts/ptmx"),
];

/// Returns the entries of `/dev` with pseudo terminals of its own, but without `/dev/shm`, whose
/// size is the caller's choice.
pub fn devices() -> Vec<Entry> {
    let taken = TAKEN.into_iter().map(|name| {
        let path = PathBuf::from("/dev").join(name);
        Entry::Bind {
            source: path.clone(),
            target: path,
            access: Access::ReadWrite,
            missing: Missing::Fails,
        }
    });
    let links = LINKS.into_iter().map(|(name, target)| Entry::Symlink {
        path: PathBuf::from("/dev").join(name),
        target: target.into(),
    });
    let terminals = Entry::DevPts {
        target: "/dev/pts".into(),
    };
    taken.chain(links).chain([terminals]).collect()
}
