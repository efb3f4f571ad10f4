//! The room: what a builder or an effect sees.
//!
//! In *strong* it is a cage of our own, as Nix makes it (Nix spec §4.8): a root that holds `/build`,
//! `/tmp`, `/dev`, `/proc`, `/etc` and in `/nix/store` exactly the closure. In *plain* the op is
//! the room already: only what a mount cannot bring is added to it ([`op`]).

mod op;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::agent::etc::accounts;
use crate::agent::inputs::Seen;
use crate::agent::kept::Kept;
use crate::agent::slot_dirs::SlotDirs;
use crate::agent::users::BuildUser;
use crate::agent::{Shape, image};
use crate::nix::{InStore, StorePath};
use crate::sandbox::{
    Access, Cage, Child, Entry, Filter, Ground, Identity, Missing, Namespaces, Personality,
    Process, Tree, devices,
};
use crate::store::{NixDir, PathInfo};
use crate::tunnel::{EffectRoot, SandboxPath};

/// Where the builder finds its build directory (Nix's `sandbox-build-dir`).
pub const BUILD_DIR: &str = "/build";

/// Inside a strong room a builder is this user and group, whoever it is outside.
const INSIDE: (u32, u32) = (1000, 100);

/// Whether the room has the machine's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Loopback alone.
    Private,
    /// The op's own network.
    Open,
}

/// Where what is written in the room goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// To the slot: outputs come from there.
    Slot,
    /// To memory that is gone with the room, and not into `/nix/store`: an effect may write down
    /// its secrets, and nothing of them may stay on a disk.
    Memory,
    /// To such memory, and to all of the store, which is at `/nix`; its owner works in the room.
    WholeStore,
}

/// What of `/proc` user 0 may write to without any privilege but its number.
const WRITABLE_BY_ROOT: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A room to be made.
pub struct Room<'a> {
    /// Who makes the walls.
    pub shape: Shape,
    /// The store's directory as the agent sees it.
    pub dir: &'a NixDir,
    /// Where outputs and temporary files are made.
    pub slot: &'a SlotDirs,
    /// Every path to be seen: the input closure, and that of what sandbox paths bring.
    pub closure: &'a BTreeMap<StorePath, PathInfo>,
    /// What of the machine is visible besides.
    pub sandbox_paths: &'a [SandboxPath],
    /// Who works in it.
    pub user: &'a BuildUser,
    /// What it is connected to.
    pub network: Network,
    /// Where what is written in it goes.
    pub writes: Writes,
    /// What the op has at `/`.
    pub root: EffectRoot,
    /// Files put in before anything else: absolute path and contents.
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

/// A program to run in a room.
pub struct Program {
    /// Its absolute path in the room.
    pub path: Vec<u8>,
    /// Its arguments, `argv[0]` first.
    pub arguments: Vec<Vec<u8>>,
    /// Its whole environment.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it is a 32-bit builder.
    pub personality: Personality,
    /// Which system calls are refused.
    pub filter: Filter,
}

/// A room could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// A file or directory of it could not be prepared.
    #[error("cannot prepare `{path}` of the sandbox")]
    Prepare {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process could not be started in it.
    #[error("cannot start the sandbox")]
    Start(#[source] crate::sandbox::Error),
}

impl Room<'_> {
    /// Prepares the room and starts a program in it; its output goes to `output`. If there is time to do
    /// something meanwhile, it is done.
    pub fn start(
        &self,
        program: Program,
        output: std::os::fd::OwnedFd,
        kept: &mut Kept,
        meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Child, RoomError> {
        self.prepare_directories()?;
        let process = Process {
            program: program.path,
            arguments: program.arguments,
            environment: program
                .environment
                .into_iter()
                .map(|(name, value)| [name.as_slice(), b"=", value.as_slice()].concat())
                .collect(),
            directory: PathBuf::from(BUILD_DIR),
            identity: self.identity(),
            output,
            personality: program.personality,
            filter: program.filter,
        };
        let child = match self.shape {
            Shape::Strong => {
                let seen = (self.writes == Writes::Slot).then(|| kept.show(self));
                kept.start(&self.cage(seen.transpose()?)?, process, meanwhile)
            }
            Shape::Plain => {
                self.furnish_op()?;
                crate::sandbox::spawn(None, process)
            }
        };
        let child = child.map_err(RoomError::Start)?;
        if self.shape == Shape::Strong && self.writes == Writes::Slot {
            kept.prepare(self.ground(), &child);
        }
        Ok(child)
    }

    /// What of the room can be made before it is known for what.
    fn ground(&self) -> Ground {
        Ground {
            root: self.slot.root.clone(),
            root_mode: 0o755,
            namespaces: Namespaces {
                pid: true,
                ipc: true,
                uts: true,
                net: self.network == Network::Private,
            },
            hostname: Some("localhost".to_owned()),
            unwanted: Some(self.slot.shelf.clone()),
            entries: match self.root {
                EffectRoot::Empty => self.common(),
                // What is in an image comes before.
                EffectRoot::Image => Vec::new(),
            },
        }
    }

    /// What rooms have in common.
    fn common(&self) -> Vec<Entry> {
        let mut entries = devices();
        entries.push(tmpfs("/dev/shm", 0o1777));
        entries.push(Entry::Proc {
            target: "/proc".into(),
        });
        if self.root == EffectRoot::Empty {
            entries.extend(accounts());
        }
        entries
    }

    fn identity(&self) -> Identity {
        let BuildUser { uid, gid, .. } = *self.user;
        match self.shape {
            Shape::Strong => Identity::Mapped {
                outside: (uid, gid),
                inside: match self.writes {
                    Writes::Slot | Writes::Memory => INSIDE,
                    Writes::WholeStore => (0, 0),
                },
            },
            Shape::Plain => Identity::User { uid, gid },
        }
    }

    fn prepare_directories(&self) -> Result<(), RoomError> {
        let (uid, gid) = (self.user.uid, self.user.gid);
        if self.writes != Writes::Slot {
            return self.prepare_memory();
        }
        // The group may create outputs beside inputs that are not its own (Nix spec §4.8).
        set(&self.slot.store, 0o1775, (0, gid))?;
        set(&self.slot.build, 0o700, (uid, gid))?;
        set(&self.slot.temporary, 0o1777, (0, 0))?;
        for (path, contents) in &self.files {
            if let Ok(inside) = path.strip_prefix(BUILD_DIR) {
                let place = self.slot.build.join(inside);
                fs_err::write(&place, contents).map_err(|error| prepare(&place, error))?;
                set(&place, 0o644, (uid, gid))?;
            }
        }
        Ok(())
    }

    /// In strong the cage brings its own memory; in plain the op has it.
    fn prepare_memory(&self) -> Result<(), RoomError> {
        if self.shape == Shape::Strong {
            return Ok(());
        }
        if self.writes == Writes::Memory {
            let store = &self.slot.store;
            fs_err::create_dir_all(store).map_err(|error| prepare(store, error))?;
            set(store, 0o555, (0, 0))?;
        }
        set(&self.slot.build, 0o700, (self.user.uid, self.user.gid))?;
        set(&self.slot.temporary, 0o1777, (0, 0))
    }

    /// The places to write to, with the inputs in the store; those that are not seen already.
    fn places(&self, seen: Option<&Seen>) -> Vec<Entry> {
        if let Some(seen) = seen {
            let build = bind(&self.slot.build, BUILD_DIR, Access::ReadWrite);
            let temporary = bind(&self.slot.temporary, "/tmp", Access::ReadWrite);
            let links = seen.links.iter().map(|(path, target)| Entry::Symlink {
                path: PathBuf::from(path.to_string()),
                target: target.clone(),
            });
            return [build, temporary].into_iter().chain(links).collect();
        }
        let home = Entry::Directory {
            path: BUILD_DIR.into(),
            mode: 0o700,
            owner: (self.user.uid, self.user.gid),
        };
        let mut places = vec![tmpfs(BUILD_DIR, 0o700), home, tmpfs("/tmp", 0o1777)];
        if self.writes == Writes::WholeStore {
            places.push(bind(self.dir.path(), "/nix", Access::ReadWrite));
            return places;
        }
        places.push(tmpfs("/nix/store", 0o755));
        places.extend(self.closure.keys().map(|path| self.input(path)));
        places.push(Entry::Chmod {
            path: "/nix/store".into(),
            mode: 0o555,
        });
        places
    }

    /// The room as a cage of our own.
    fn cage(&self, seen: Option<Seen>) -> Result<Cage, RoomError> {
        let mut entries = vec![Entry::Directory {
            path: "/".into(),
            mode: 0o750,
            owner: (0, self.user.gid),
        }];
        entries.extend(self.places(seen.as_ref()));
        match self.root {
            EffectRoot::Empty => entries.extend(self.etc()),
            EffectRoot::Image => {
                entries.extend(image::entries(Path::new("/"))?);
                entries.extend(self.common());
            }
        }
        if self.writes == Writes::Slot {
            // A builder that owns it may not add to it. What a sandbox path brings comes after,
            // for that may be the machine's own `/etc`.
            entries.push(Entry::Chmod {
                path: "/etc".into(),
                mode: 0o555,
            });
        }
        if self.writes == Writes::WholeStore {
            entries.extend(WRITABLE_BY_ROOT.map(Entry::of_the_machine));
        }
        for path in self.sandbox_paths {
            let access = match InStore::parse(&path.source) {
                // A path of the store at its own place is there already, with its closure.
                Some(_) if path.source == path.target => continue,
                Some(_) => Access::ReadOnly,
                None => Access::ReadWrite,
            };
            entries.push(bind(Path::new(&path.source), &path.target, access));
        }
        for (path, contents) in &self.files {
            if !path.starts_with(BUILD_DIR) {
                entries.push(file(path, contents));
            }
        }
        let store = seen.map(|seen| Tree {
            tree: seen.tree,
            target: "/nix/store".into(),
        });
        Ok(Cage {
            ground: self.ground(),
            trees: store.into_iter().collect(),
            entries,
        })
    }

    fn input(&self, path: &StorePath) -> Entry {
        let place = self.dir.real(path);
        let target = PathBuf::from(path.to_string());
        match place.read_link() {
            Ok(link) => Entry::Symlink {
                path: target,
                target: link,
            },
            Err(_) => Entry::Bind {
                source: place,
                target,
                access: Access::ReadOnly,
                missing: Missing::Fails,
            },
        }
    }
}

fn tmpfs(target: &str, mode: u32) -> Entry {
    Entry::Tmpfs {
        target: target.into(),
        size: None,
        mode,
    }
}

fn bind(source: &Path, target: &str, access: Access) -> Entry {
    Entry::Bind {
        source: source.into(),
        target: target.into(),
        access,
        missing: Missing::Fails,
    }
}

pub(super) fn file(path: impl Into<PathBuf>, contents: &[u8]) -> Entry {
    Entry::File {
        path: path.into(),
        contents: contents.to_vec(),
        mode: 0o644,
    }
}

fn set(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), RoomError> {
    use std::os::unix::fs::PermissionsExt;
    std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))
        .map_err(|error| prepare(path, error))?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|error| prepare(path, error))
}

pub(super) fn write(path: impl AsRef<Path>, contents: &[u8]) -> Result<(), RoomError> {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent).map_err(|error| prepare(parent, error))?;
    }
    fs_err::write(path, contents).map_err(|error| prepare(path, error))
}

pub(super) fn prepare(path: &Path, source: io::Error) -> RoomError {
    RoomError::Prepare {
        path: path.to_path_buf(),
        source,
    }
}

/// The last component of a program's path, which is its `argv[0]`.
pub fn base_name(program: &[u8]) -> Vec<u8> {
    Path::new(OsStr::from_bytes(program))
        .file_name()
        .map_or_else(|| program.to_vec(), |name| name.as_bytes().to_vec())
}
