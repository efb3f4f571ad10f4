//! What the engines of this machine, and those it can reach, allow: `pontoon doctor`.
//!
//! Whatever can be tried is tried, with an op as small as can be ([`crate::engine::probe`]); the
//! rest is what a daemon says of itself. Each [`Fact`] is one line. What is missing comes with the
//! lines of configuration that change it, as a [`Change`].
//!
//! | file | what |
//! |---|---|
//! | [`daemon`] | a BuildKit daemon |
//! | [`here`] | the embedded engine |
//! | [`evaluation`] | the installed `nix` |
//! | [`collection`] | whether a daemon's collector may take the store |
//! | [`change`] | lines of configuration |
//! | [`show`], [`json`] | the report for people and for programs |
//!
//! Every engine is examined in a thread of its own and within [`LIMIT`]: one that says nothing
//! neither hides the others nor keeps anybody waiting for ever. Nothing is changed, but that
//! probes leave what ops leave ([`crate::engine::trim`]).

pub mod change;
pub mod collection;
pub mod daemon;
pub mod evaluation;
pub mod here;
pub mod json;
pub mod show;

use std::time::Duration;

pub use change::{Change, Extent};

/// The longest that one engine is examined.
pub const LIMIT: Duration = Duration::from_mins(2);

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Fine,
    /// Usable, but somebody should know.
    Warning,
    /// Not there, or refused.
    Missing,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What it is about: one word.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// In words: one line.
    pub text: String,
}

impl Fact {
    /// Something as it should be.
    pub fn fine(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, State::Fine, text)
    }

    /// Something that somebody should know.
    pub fn warning(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, State::Warning, text)
    }

    /// Something that is not there.
    pub fn missing(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, State::Missing, text)
    }

    fn new(name: &'static str, state: State, text: impl Into<String>) -> Self {
        let text = text.into();
        // A daemon's words may be many lines; the first says what, the last why.
        let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Self { name, state, text }
    }
}

/// What kind of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine, without a daemon.
    Embedded,
    /// A `buildkitd`.
    Buildkitd,
    /// A `dockerd`.
    Dockerd,
}

impl Kind {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Buildkitd => "buildkitd",
            Self::Dockerd => "dockerd",
        }
    }
}

/// An engine, and what was found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub place: String,
    /// Whether an op of ours ran.
    pub ability: Ability,
    /// What was found out, in the order of the report.
    pub facts: Vec<Fact>,
    /// What would make more of it possible.
    pub changes: Vec<Change>,
}

/// Whether an engine can run builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// An op of ours ran.
    Builds,
    /// None did.
    None,
}

impl Examined {
    /// An engine of which nothing is known yet.
    pub fn new(kind: Kind, place: impl Into<String>) -> Self {
        Self {
            kind,
            place: place.into(),
            ability: Ability::None,
            facts: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The engines, in the order they were looked for.
    pub engines: Vec<Examined>,
    /// What was found out about evaluation.
    pub evaluation: Vec<Fact>,
}

impl Report {
    /// Whether any engine can run builds.
    pub fn ability(&self) -> Ability {
        let able = |engine: &Examined| engine.ability == Ability::Builds;
        if self.engines.iter().any(able) {
            Ability::Builds
        } else {
            Ability::None
        }
    }
}

/// Names a file system by what `statfs` calls its type, and says whether it is one on which a
/// store's database cannot be trusted.
pub(crate) fn file_system(kind: u64) -> (String, Trust) {
    let known = [
        (0xef53, "ext4", Trust::Local),
        (0x5846_5342, "xfs", Trust::Local),
        (0x9123_683e, "btrfs", Trust::Local),
        (0x2fc1_2fc1, "zfs", Trust::Local),
        (0xf2f5_2010, "f2fs", Trust::Local),
        (0xca45_1a4e, "bcachefs", Trust::Local),
        (0x0102_1994, "tmpfs", Trust::Memory),
        (0x794c_7630, "overlay", Trust::Local),
        (0x6969, "nfs", Trust::Network),
        (0xff53_4d42, "cifs", Trust::Network),
        (0xfe53_4d42, "smb2", Trust::Network),
        (0x517b, "smb", Trust::Network),
        (0x00c3_6400, "ceph", Trust::Network),
        (0x0102_1997, "9p", Trust::Network),
        (0x0bd0_0bd0, "lustre", Trust::Network),
        (0x6573_5546, "fuse", Trust::Network),
        (0x5346_414f, "afs", Trust::Network),
    ];
    match known.iter().find(|(number, ..)| *number == kind) {
        Some((_, name, trust)) => ((*name).to_owned(), *trust),
        None => (format!("file system {kind:#x}"), Trust::Local),
    }
}

/// What a file system means for a store on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A disk of the machine.
    Local,
    /// Memory: gone with the machine.
    Memory,
    /// Over a network, or perhaps: locks and shared memory of the database do not work there.
    Network,
}

/// Bytes below which a disk is nearly full.
const LITTLE: u64 = 2 << 30;

/// The fact about the disk a store is on.
pub(crate) fn disk(place: &crate::agent::probe::Place, called: &str) -> Fact {
    let (name, trust) = file_system(place.kind);
    let free = size(place.free);
    let text = format!("{called}: {name}, {free} free");
    if let Err(error) = &place.writable {
        return Fact::missing("store", format!("{called} cannot be written: {error}"));
    }
    match trust {
        Trust::Network => Fact::warning(
            "store",
            format!("{text}; the database of a store is not safe on a network file system"),
        ),
        Trust::Memory => Fact::warning("store", format!("{text}; gone when the machine stops")),
        Trust::Local if place.free < LITTLE => {
            Fact::warning("store", format!("{text}: that is little"))
        }
        Trust::Local => Fact::fine("store", text),
    }
}

/// Bytes for people, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes, 0);
    while number >= 10 * 1024 && unit + 1 < units.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::probe::Place;

    #[test]
    fn a_store_on_the_network_or_a_full_disk_is_told_of() {
        let place = |kind, free| Place {
            path: "/nix".to_owned(),
            kind,
            free,
            writable: Ok(()),
        };
        let told = |place| {
            let fact = disk(&place, "the cache mount");
            format!("{} {}", fact.state.word(), fact.text)
        };
        let read_only = Place {
            writable: Err("Read-only file system (os error 30)".to_owned()),
            ..place(0xef53, 1 << 40)
        };
        insta::assert_snapshot!([
            told(place(0xef53, 31 << 30)),
            told(place(0xef53, 1 << 30)),
            told(place(0x6969, 31 << 30)),
            told(place(0x0102_1994, 31 << 30)),
            told(place(0x1234, 31 << 30)),
            told(read_only),
        ].join("\n"), @"
        ok the cache mount: ext4, 31 GiB free
        warning the cache mount: ext4, 1024 MiB free: that is little
        warning the cache mount: nfs, 31 GiB free; the database of a store is not safe on a network file system
        warning the cache mount: tmpfs, 31 GiB free; gone when the machine stops
        ok the cache mount: file system 0x1234, 31 GiB free
        missing the cache mount cannot be written: Read-only file system (os error 30)
        ");
    }
}
