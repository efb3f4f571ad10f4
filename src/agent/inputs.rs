//! The inputs of a slot's builds, mounted once and kept from build to build.
//!
//! In a strong room every input of the closure is mounted over a file or directory of its own in the
//! slot's `store`. All of that stands on a [`Shelf`], of which each room gets a copy; for the next
//! build only what is new is added. What has an input that the next build must not see is taken down,
//! all of it: to unmount them one by one takes longer than to begin anew.
//!
//! A store path may be removed and made again while it is on the shelf, which would go on to show
//! what was removed. So each is known by its inode, which nobody else gets as long as it is mounted.
//!
//! The mount points are files and directories of the disk. To make and remove one takes an inode
//! each time: here files are links to one empty file, and directories are moved in from a stock
//! beside the slot's `store`, and back. That is only haste: a point that cannot be had is made where
//! it is needed, and one that is not put back is removed with the rest of the slot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::agent::room::{RoomError, prepare};
use crate::agent::slot_dirs::SlotDirs;
use crate::nix::StorePath;
use crate::sandbox::Shelf;
use crate::store::NixDir;

/// The empty file that mount points of files are links to.
const FILE: &str = "file";

/// What a build sees of the store.
#[derive(Debug)]
pub struct Seen {
    /// The slot's store with the inputs in it.
    pub tree: OwnedFd,
    /// Inputs that are symbolic links, which cannot be mounted, and their texts.
    pub links: Vec<(StorePath, PathBuf)>,
}

/// The shelf of a slot; dropped, it is taken down, and the points of directories go back to the
/// stock.
#[derive(Debug)]
pub struct Inputs {
    /// None only while it is taken down.
    shelf: Option<Shelf>,
    slot: SlotDirs,
    /// What is on it: device and inode.
    held: BTreeMap<StorePath, (u64, u64)>,
}

impl Inputs {
    /// Shows exactly these inputs. A shelf that has none else on it is used again; else it is taken down,
    /// and before it the remains of a room that still have mounted what is on it: a mount point that
    /// somebody has mounted costs much to remove.
    pub fn show<'p>(
        before: &mut Option<Self>,
        remains: &mut Option<OwnedFd>,
        slot: &SlotDirs,
        dir: &NixDir,
        wanted: impl Iterator<Item = &'p StorePath>,
    ) -> Result<Seen, RoomError> {
        let mut found = BTreeMap::new();
        for path in wanted {
            let place = dir.real(path);
            let metadata = fs_err::symlink_metadata(&place);
            let metadata = metadata.map_err(|error| prepare(&place, error))?;
            found.insert(path, metadata);
        }
        let mut inputs = match before.take() {
            Some(inputs) if inputs.is_within(&found) => inputs,
            other => {
                *remains = None;
                // Two cannot be at one place.
                drop(other);
                Self::put_up(slot)?
            }
        };
        let seen = inputs.complete(dir, &found)?;
        *before = Some(inputs);
        Ok(seen)
    }

    /// The names of the mount points in the slot's store.
    pub fn points(&self) -> BTreeSet<String> {
        self.held.keys().map(StorePath::to_basename).collect()
    }

    fn put_up(slot: &SlotDirs) -> Result<Self, RoomError> {
        Ok(Self {
            shelf: Some(Shelf::put_up(&slot.store, &slot.shelf).map_err(RoomError::Start)?),
            slot: slot.clone(),
            held: BTreeMap::new(),
        })
    }

    fn is_within(&self, found: &BTreeMap<&StorePath, Metadata>) -> bool {
        self.held.iter().all(|(path, held)| {
            found
                .get(path)
                .is_some_and(|metadata| *held == (metadata.dev(), metadata.ino()))
        })
    }

    /// Adds what is missing.
    fn complete(
        &mut self,
        dir: &NixDir,
        found: &BTreeMap<&StorePath, Metadata>,
    ) -> Result<Seen, RoomError> {
        let mounts = self.shelf.as_ref().expect("it is up");
        let mut stock = None;
        let mut links = Vec::new();
        for (path, metadata) in found {
            let place = dir.real(path);
            if metadata.is_symlink() {
                let link = fs_err::read_link(&place).map_err(|error| prepare(&place, error))?;
                links.push(((*path).clone(), link));
            } else if !self.held.contains_key(*path) {
                let stock = stock.get_or_insert_with(|| Stock::open(&self.slot.points));
                let name = path.to_basename();
                stock.lay(metadata, &self.slot.store.join(&name));
                let inode = (metadata.dev(), metadata.ino());
                // First: a point is known before there is one.
                self.held.insert((*path).clone(), inode);
                mounts.add(&place, &name).map_err(RoomError::Start)?;
            }
        }
        let tree = mounts.copy().map_err(RoomError::Start)?;
        Ok(Seen { tree, links })
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        self.shelf = None;
        for path in self.held.keys() {
            let name = path.to_basename();
            let point = self.slot.store.join(&name);
            if fs_err::remove_file(&point).is_err() {
                let _ = rustix::fs::rename(point, self.slot.points.join(name));
            }
        }
    }
}

/// The stock of mount points, which only the agent reaches.
#[derive(Debug, Default)]
struct Stock {
    file: PathBuf,
    directories: Vec<PathBuf>,
}

impl Stock {
    /// Looks at the stock, and begins it.
    fn open(points: &Path) -> Self {
        let file = points.join(FILE);
        let mut directories = Vec::new();
        match fs_err::read_dir(points) {
            Ok(entries) => {
                directories.extend(entries.flatten().map(|entry| entry.path()));
                directories.retain(|path| *path != file);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let _ = std::fs::DirBuilder::new().mode(0o700).create(points);
                let _ = fs_err::write(&file, "");
            }
            Err(_) => {}
        }
        Self { file, directories }
    }

    /// Lays a point out for what has this metadata.
    fn lay(&mut self, metadata: &Metadata, place: &Path) {
        if metadata.is_file() {
            let _ = rustix::fs::link(&self.file, place);
        } else if let Some(spare) = self.directories.pop() {
            let _ = rustix::fs::rename(spare, place);
        }
    }
}
