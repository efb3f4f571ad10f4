//! A plain op as a room: what mounts cannot bring is added to it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{BUILD_DIR, Room, RoomError, Writes, prepare, write};
use crate::tunnel::EffectRoot;

impl Room<'_> {
    /// Adds to a plain op's root what mounts cannot bring: accounts, and inputs that are symlinks.
    pub(super) fn furnish_op(&self) -> Result<(), RoomError> {
        if self.root == EffectRoot::Empty {
            self.furnish_etc()?;
        }
        if self.writes == Writes::WholeStore {
            return Ok(());
        }
        self.clear_slot()?;
        for path in self.closure.keys() {
            if let Ok(link) = self.dir.real(path).read_link() {
                let place = self.slot.store.join(path.to_basename());
                let _ = fs_err::remove_file(&place);
                std::os::unix::fs::symlink(&link, &place)
                    .map_err(|error| prepare(&place, error))?;
            }
        }
        for (path, contents) in &self.files {
            if !path.starts_with(BUILD_DIR) {
                write(path, contents)?;
            }
        }
        Ok(())
    }

    /// Removes what an earlier op left in the slot. The places where something is mounted now stay:
    /// they cannot be removed, and the builder sees there the inputs and what sandbox paths need.
    fn clear_slot(&self) -> Result<(), RoomError> {
        let mounted = mounted_in_store()?;
        let entries =
            fs_err::read_dir(&self.slot.store).map_err(|error| prepare(&self.slot.store, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| prepare(&self.slot.store, error))?;
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| mounted.contains(name))
            {
                continue;
            }
            let place = entry.path();
            crate::store::tree::remove(&place)
                .map_err(|error| prepare(&place, io::Error::other(error)))?;
        }
        Ok(())
    }
}

/// The names in `/nix/store` on which the op has something mounted.
fn mounted_in_store() -> Result<BTreeSet<String>, RoomError> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let mounts =
        fs_err::read_to_string(MOUNTS).map_err(|error| prepare(Path::new(MOUNTS), error))?;
    // The fifth field is where; a name in the store needs no escapes.
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let names = places.filter_map(|place| place.strip_prefix("/nix/store/"));
    Ok(names
        .filter_map(|name| name.split('/').next())
        .map(str::to_owned)
        .collect())
}
