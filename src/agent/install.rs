//! The delivery of the agent into a store that only a daemon reaches: `agent install ID`.
//!
//! It has no tunnel. It runs from the copy the daemon pulled for this one op and makes a lasting
//! one, which later ops mount. The file gets its name last, so it is whole wherever it is seen.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::agent::{Shape, exit};

/// Copies the running executable into the store as `pontoon/agent/ID`; returns the exit code.
pub fn run(id: &str, shape: Shape, nonce: &str) -> i32 {
    match deliver(shape.nix_dir(), id, nonce) {
        Ok(()) => exit::DONE,
        Err(_) => exit::UNFIT,
    }
}

fn deliver(nix_dir: &Path, id: &str, nonce: &str) -> io::Result<()> {
    let directory = nix_dir.join("pontoon/agent");
    if directory.join(id).exists() {
        return Ok(());
    }
    fs_err::create_dir_all(&directory)?;
    copy(&directory, id, nonce)
}

fn copy(directory: &Path, id: &str, nonce: &str) -> io::Result<()> {
    let half = directory.join(format!(".{id}-{nonce}"));
    fs_err::copy("/proc/self/exe", &half)?;
    fs_err::set_permissions(&half, std::fs::Permissions::from_mode(0o555))?;
    fs_err::File::open(&half)?.sync_all()?;
    // The delivery of another run may have come before: nothing takes the place of what ops are just
    // being started from.
    match fs_err::hard_link(&half, directory.join(id)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs_err::remove_file(&half),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_gets_its_name_when_it_is_whole() {
        let store = tempfile::tempdir().unwrap();
        for nonce in ["one", "two"] {
            deliver(store.path(), "0abc", nonce).unwrap();
        }
        let names: Vec<_> = fs_err::read_dir(store.path().join("pontoon/agent"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["0abc"]);
        let made = fs_err::read(store.path().join("pontoon/agent/0abc")).unwrap();
        assert_eq!(made, fs_err::read("/proc/self/exe").unwrap());
    }

    #[test]
    fn of_two_deliveries_the_first_stays() {
        let directory = tempfile::tempdir().unwrap();
        let inode = || {
            let agent = fs_err::metadata(directory.path().join("0abc")).unwrap();
            std::os::unix::fs::MetadataExt::ino(&agent)
        };
        copy(directory.path(), "0abc", "one").unwrap();
        let first = inode();
        copy(directory.path(), "0abc", "two").unwrap();
        assert_eq!(inode(), first);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1);
    }
}
