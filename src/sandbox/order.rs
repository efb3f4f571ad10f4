//! What a nursery and a process on standby are told: a ground; a cage's trees and entries, and a
//! process, as bytes and descriptors.
//!
//! Both sides are one executable, a moment old: there is no version. A number is four bytes in the
//! machine's order; bytes are their length and themselves; a list is its length and its items. Of
//! the descriptors the output is the first, then come the trees.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{
    Access, Cage, Entry, Filter, Ground, Identity, Missing, Namespaces, Personality, Process, Tree,
};

/// What a process on standby is told.
#[derive(Debug)]
pub(super) struct Order {
    /// What is put into its root next.
    pub(super) trees: Vec<Tree>,
    /// What is put there then.
    pub(super) entries: Vec<Entry>,
    /// What it becomes.
    pub(super) process: Process,
}

impl Order {
    /// Writes what is to be said, but for the descriptors.
    pub(super) fn encode(cage: &Cage, process: &Process) -> Vec<u8> {
        let mut to = Writer(Vec::new());
        to.list(&cage.trees, |to, tree| to.path(&tree.target));
        to.list(&cage.entries, Writer::entry);
        to.process(process);
        to.0
    }

    /// Reads what was said; nothing if it makes no sense.
    pub(super) fn decode(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let output = descriptors.next()?;
        let mut from = Reader(bytes);
        let targets = from.list(Reader::path)?;
        let trees = descriptors.zip(targets);
        Some(Self {
            trees: trees.map(|(tree, target)| Tree { tree, target }).collect(),
            entries: from.list(Reader::entry)?,
            process: from.process(output)?,
        })
    }
}

/// Writes a ground.
pub(super) fn encode_ground(ground: &Ground) -> Vec<u8> {
    let mut to = Writer(Vec::new());
    to.path(&ground.root);
    to.number(ground.root_mode);
    let Namespaces { pid, ipc, uts, net } = ground.namespaces;
    for is_new in [pid, ipc, uts, net] {
        to.number(u32::from(is_new));
    }
    to.list(ground.hostname.as_slice(), |to, name| {
        to.bytes(name.as_bytes());
    });
    to.list(ground.unwanted.as_slice(), |to, place| to.path(place));
    to.list(&ground.entries, Writer::entry);
    to.0
}

/// Reads a ground; nothing if it makes no sense.
pub(super) fn decode_ground(bytes: &[u8]) -> Option<Ground> {
    let mut from = Reader(bytes);
    Some(Ground {
        root: from.path()?,
        root_mode: from.number()?,
        namespaces: Namespaces {
            pid: from.choice()? == 1,
            ipc: from.choice()? == 1,
            uts: from.choice()? == 1,
            net: from.choice()? == 1,
        },
        hostname: match from.list(Reader::text)?.pop() {
            Some(name) => Some(String::from_utf8(name).ok()?),
            None => None,
        },
        unwanted: from.list(Reader::path)?.pop(),
        entries: from.list(Reader::entry)?,
    })
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u32) {
        self.0.extend(number.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(u32::try_from(bytes.len()).expect("no text of a process is that long"));
        self.0.extend(bytes);
    }

    fn path(&mut self, path: &Path) {
        self.bytes(path.as_os_str().as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.number(u32::try_from(items.len()).expect("it is in memory many times over"));
        for item in items {
            write(self, item);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Directory { path, mode, owner } => {
                self.number(0);
                self.path(path);
                for number in [*mode, owner.0, owner.1] {
                    self.number(number);
                }
            }
            Entry::File {
                path,
                contents,
                mode,
            } => {
                self.number(1);
                self.path(path);
                self.bytes(contents);
                self.number(*mode);
            }
            Entry::Symlink { path, target } => {
                self.number(2);
                self.path(path);
                self.path(target);
            }
            Entry::Bind {
                source,
                target,
                access,
                missing,
            } => {
                self.number(3);
                self.path(source);
                self.path(target);
                self.number(u32::from(*access == Access::ReadWrite));
                self.number(u32::from(*missing == Missing::Skipped));
            }
            Entry::Tmpfs { target, size, mode } => {
                self.number(4);
                self.path(target);
                self.list(size.as_slice(), |to, size| to.bytes(&size.to_ne_bytes()));
                self.number(*mode);
            }
            Entry::Proc { target } => {
                self.number(5);
                self.path(target);
            }
            Entry::DevPts { target } => {
                self.number(6);
                self.path(target);
            }
            Entry::Chmod { path, mode } => {
                self.number(7);
                self.path(path);
                self.number(*mode);
            }
        }
    }

    fn process(&mut self, process: &Process) {
        self.bytes(&process.program);
        self.list(&process.arguments, |to, text| to.bytes(text));
        self.list(&process.environment, |to, text| to.bytes(text));
        self.path(&process.directory);
        let numbers = match process.identity {
            Identity::Same => vec![],
            Identity::User { uid, gid } => vec![uid, gid],
            Identity::Mapped { outside, inside } => vec![outside.0, outside.1, inside.0, inside.1],
        };
        self.list(&numbers, |to, number| to.number(*number));
        self.number(u32::from(process.personality.linux32));
        self.number(u32::from(process.filter == Filter::Nix));
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        self.bytes().map(<[u8]>::to_vec)
    }

    fn path(&mut self) -> Option<PathBuf> {
        Some(PathBuf::from(OsStr::from_bytes(self.bytes()?)))
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| read(self)).collect()
    }

    fn entry(&mut self) -> Option<Entry> {
        Some(match self.number()? {
            0 => Entry::Directory {
                path: self.path()?,
                mode: self.number()?,
                owner: (self.number()?, self.number()?),
            },
            1 => Entry::File {
                path: self.path()?,
                contents: self.text()?,
                mode: self.number()?,
            },
            2 => Entry::Symlink {
                path: self.path()?,
                target: self.path()?,
            },
            3 => Entry::Bind {
                source: self.path()?,
                target: self.path()?,
                access: [Access::ReadOnly, Access::ReadWrite][self.choice()?],
                missing: [Missing::Fails, Missing::Skipped][self.choice()?],
            },
            4 => Entry::Tmpfs {
                target: self.path()?,
                size: self.list(Self::size)?.pop(),
                mode: self.number()?,
            },
            5 => Entry::Proc {
                target: self.path()?,
            },
            6 => Entry::DevPts {
                target: self.path()?,
            },
            7 => Entry::Chmod {
                path: self.path()?,
                mode: self.number()?,
            },
            _ => return None,
        })
    }

    fn choice(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|one| *one < 2)
    }

    fn size(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes()?.try_into().ok()?))
    }

    fn process(&mut self, output: OwnedFd) -> Option<Process> {
        Some(Process {
            program: self.text()?,
            arguments: self.list(Self::text)?,
            environment: self.list(Self::text)?,
            directory: self.path()?,
            identity: match *self.list(Self::number)? {
                [] => Identity::Same,
                [uid, gid] => Identity::User { uid, gid },
                [user, group, uid, gid] => Identity::Mapped {
                    outside: (user, group),
                    inside: (uid, gid),
                },
                _ => return None,
            },
            output,
            personality: Personality {
                linux32: self.choice()? == 1,
            },
            filter: [Filter::None, Filter::Nix][self.choice()?],
        })
    }
}
