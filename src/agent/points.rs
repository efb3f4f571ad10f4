//! Mount points for a room's inputs, kept from build to build.
//!
//! In a strong room every input of the closure is mounted over a file or directory of its own in the
//! slot's `store`. To make and remove one takes an inode of the disk each time, for every input of
//! every build. Here files are links to one empty file, and directories are moved in from a stock
//! beside the slot's `store`, and back.
//!
//! This is only haste: a point that cannot be had is left to the cage, which makes what is missing,
//! and one that is not put back is removed with the rest of the slot.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::agent::slot_dirs::SlotDirs;
use crate::nix::StorePath;
use crate::store::NixDir;

/// The empty file that mount points of files are links to.
const FILE: &str = "file";

/// Lays the points for these inputs out.
pub fn lay<'a>(slot: &SlotDirs, dir: &NixDir, inputs: impl Iterator<Item = &'a StorePath>) {
    let Some(mut stock) = Stock::open(&slot.points) else {
        return;
    };
    for input in inputs {
        let Ok(metadata) = dir.real(input).symlink_metadata() else {
            continue;
        };
        let place = slot.store.join(input.to_basename());
        if metadata.is_dir() {
            stock.directory(&place);
        } else if metadata.is_file() {
            stock.file(&place);
        }
    }
}

/// Puts the directories back, once nothing is mounted on them and no process of the build lives.
pub fn put_back<V>(slot: &SlotDirs, inputs: &BTreeMap<StorePath, V>) {
    let Ok(entries) = fs_err::read_dir(&slot.store) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let path = StorePath::from_basename(name.as_encoded_bytes());
        if path.is_ok_and(|path| inputs.contains_key(&path)) {
            let _ = rustix::fs::rename(entry.path(), slot.points.join(name));
        }
    }
}

struct Stock {
    file: PathBuf,
    directories: Vec<PathBuf>,
}

impl Stock {
    /// Looks at the stock, which only the agent reaches, and begins it.
    fn open(points: &Path) -> Option<Self> {
        let file = points.join(FILE);
        let mut directories = Vec::new();
        if let Ok(entries) = fs_err::read_dir(points) {
            directories.extend(entries.flatten().map(|entry| entry.path()));
            directories.retain(|path| *path != file);
        } else {
            std::fs::DirBuilder::new().mode(0o700).create(points).ok()?;
            fs_err::write(&file, "").ok()?;
        }
        Some(Self { file, directories })
    }

    fn directory(&mut self, place: &Path) {
        if let Some(spare) = self.directories.pop() {
            let _ = rustix::fs::rename(spare, place);
        }
    }

    fn file(&self, place: &Path) {
        let _ = rustix::fs::link(&self.file, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        let digits = "0".repeat(32);
        format!("/nix/store/{digits}-{name}").parse().unwrap()
    }

    #[test]
    fn directories_come_back_and_outputs_stay() {
        let root = tempfile::tempdir().unwrap();
        let dir = NixDir::new(root.path());
        let slot = SlotDirs::mounted(&dir, 0);
        fs_err::create_dir_all(&slot.store).unwrap();
        let inputs = BTreeMap::from([(path("directory"), 1), (path("file"), 2)]);
        fs_err::create_dir_all(dir.real(&path("directory"))).unwrap();
        fs_err::write(dir.real(&path("file")), "contents").unwrap();
        let point = |name: &str| slot.store.join(path(name).to_basename());
        // The first time there is no directory in stock: the cage makes it.
        lay(&slot, &dir, inputs.keys());
        assert_eq!(fs_err::read(point("file")).unwrap(), b"");
        assert!(!point("directory").exists());
        fs_err::create_dir(point("directory")).unwrap();
        fs_err::create_dir(point("output")).unwrap();
        put_back(&slot, &inputs);
        assert!(!point("directory").exists());
        assert!(point("output").is_dir());
        fs_err::remove_file(point("file")).unwrap();
        lay(&slot, &dir, inputs.keys());
        assert!(point("directory").is_dir());
        assert_eq!(fs_err::read(point("file")).unwrap(), b"");
    }
}
