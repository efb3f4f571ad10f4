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
    let place = directory.join(id);
    if place.exists() {
        return Ok(());
    }
    fs_err::create_dir_all(&directory)?;
    let half = directory.join(format!(".{id}-{nonce}"));
    fs_err::copy("/proc/self/exe", &half)?;
    fs_err::set_permissions(&half, std::fs::Permissions::from_mode(0o555))?;
    fs_err::File::open(&half)?.sync_all()?;
    fs_err::rename(&half, &place)
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
}
