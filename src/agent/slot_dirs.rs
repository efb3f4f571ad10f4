//! The directories of a slot, whoever leased it: this agent (strong), or the store's agent, and then
//! the op has them mounted (plain).

use std::path::PathBuf;

use crate::agent::room::BUILD_DIR;
use crate::store::{NixDir, Slot};

/// The directories of a slot.
#[derive(Debug, Clone)]
pub struct SlotDirs {
    /// The slot's number.
    pub number: u32,
    /// What becomes `/nix/store`.
    pub store: PathBuf,
    /// What becomes `/build`.
    pub build: PathBuf,
    /// What becomes `/tmp`.
    pub temporary: PathBuf,
    /// An empty directory for the root to be mounted on.
    pub root: PathBuf,
    /// Where the inputs are mounted on top of `store`.
    pub shelf: PathBuf,
    /// A stock of mount points.
    pub points: PathBuf,
}

impl SlotDirs {
    /// The directories of a slot leased by this agent.
    pub fn of(slot: &Slot) -> Self {
        Self {
            number: slot.number(),
            store: slot.store_dir(),
            build: slot.build_dir(),
            temporary: slot.temporary_dir(),
            root: slot.root_dir(),
            shelf: slot.shelf_dir(),
            points: slot.points_dir(),
        }
    }

    /// The directories of a slot that the op has mounted: all but `store` are the op's own.
    pub fn mounted(dir: &NixDir, number: u32) -> Self {
        let base = dir.slots().join(number.to_string());
        Self {
            number,
            store: base.join("store"),
            build: PathBuf::from(BUILD_DIR),
            temporary: PathBuf::from("/tmp"),
            root: base.join("root"),
            shelf: base.join("shelf"),
            points: base.join("points"),
        }
    }
}
