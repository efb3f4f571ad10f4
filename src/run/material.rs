//! The evaluation store, read where it lies: `.drv` files, sources, and what the build store lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::nix::{InStore, StorePath, base_name};
use crate::plan::closure::{Source, SourceError};
use crate::run::{EngineChoice, Error, Options};
use crate::store::{NixDir, PathInfo, Store, TempRoots, tree};
use crate::tunnel::ImportHeader;

/// `.drv` files of one or several stores; the first that has one wins.
pub(super) struct Files<'a> {
    dirs: Vec<(&'a NixDir, Option<OwnedFd>)>,
}

impl<'a> Files<'a> {
    /// Opens the stores' directories: from there, the way to each of many files is shorter.
    pub(super) fn open(dirs: &'a [NixDir]) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |dir: &NixDir| rustix::fs::open(dir.store(), flags, Mode::empty()).ok();
        let dirs = dirs.iter().map(|dir| (dir, open(dir)));
        Self {
            dirs: dirs.collect(),
        }
    }
}

impl Source for Files<'_> {
    fn read(&self, drv: &StorePath) -> Result<Vec<u8>, SourceError> {
        let name = base_name(drv);
        for (dir, opened) in &self.dirs {
            if let Some(Ok(bytes)) = opened.as_ref().map(|opened| read_in(opened, &name)) {
                return Ok(bytes);
            }
            // Whatever was in the way, this says it with the file's name.
            match fs_err::read(dir.real(drv)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(SourceError::Io(source)),
            }
        }
        Err(SourceError::Missing)
    }
}

/// Files that are counted as they are read.
pub(super) struct Counted<'a, F> {
    pub(super) files: Files<'a>,
    pub(super) count: AtomicUsize,
    /// Is told each time that there are twice as many.
    pub(super) tell: F,
}

impl<F: Fn(usize) + Sync> Source for Counted<'_, F> {
    fn read(&self, drv: &StorePath) -> Result<Vec<u8>, SourceError> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            (self.tell)(count);
        }
        self.files.read(drv)
    }
}

/// Reads a file whose length need not be asked for: it is nearly always below 8 kB.
fn read_in(dir: &OwnedFd, name: &str) -> rustix::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut bytes = Vec::with_capacity(8 << 10);
    loop {
        let read = retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut bytes)))?;
        // Less than was asked for need not be the end: not every file system fills a buffer.
        if read == 0 {
            return Ok(bytes);
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
    }
}

/// Protects paths from the collectors of the stores that they are copied from, until dropped: a
/// store that is lost is filled from there once more. Where a store is not ours to write, nothing
/// can be done.
pub(super) fn protect(options: &Options, paths: &BTreeSet<StorePath>) -> Vec<TempRoots> {
    let protected = sources(options).filter_map(|dir| {
        let mut roots = TempRoots::create(dir).ok()?;
        roots.add(dir, paths).ok()?;
        Some(roots)
    });
    protected.collect()
}

/// Every store that is there and can be copied from: not the build store itself.
fn sources(options: &Options) -> impl Iterator<Item = &NixDir> {
    let is_build_store = |dir: &NixDir| {
        options.engine == EngineChoice::Embedded && dir.path() == options.nix_dir.path()
    };
    let is_there = |dir: &NixDir| dir.db().join("db.sqlite").exists();
    let dirs = options.sources.iter();
    dirs.filter(move |dir| !is_build_store(dir) && is_there(dir))
}

/// Stores that paths are copied from.
pub(super) struct Material {
    stores: Vec<Store>,
}

impl Material {
    /// Opens every store that is there, but the build store itself.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let open = |dir: &NixDir| {
            Store::open_read_only(dir.clone()).map_err(|error| Error::Store {
                store: dir.path().display().to_string(),
                source: crate::tunnel::MachineError::of(&error),
            })
        };
        let stores = sources(options).map(open).collect::<Result<_, _>>()?;
        Ok(Self { stores })
    }

    fn find(&self, path: &StorePath) -> Result<Option<(&Store, PathInfo)>, Error> {
        for store in &self.stores {
            let info = store.info(path).map_err(|error| source(path, error))?;
            if let Some(info) = info {
                return Ok(Some((store, info)));
            }
        }
        Ok(None)
    }

    /// Returns where something lies on this machine, if one of the stores has it.
    pub(super) fn place(&self, wanted: &InStore) -> Result<Option<PathBuf>, Error> {
        let found = self.find(&wanted.path)?;
        Ok(found.map(|(store, _)| {
            let inside = wanted.inside.trim_start_matches('/');
            store.dir().real(&wanted.path).join(inside)
        }))
    }

    /// Finds the paths with everything they refer to that the build store may lack.
    pub(super) fn closure(
        &self,
        paths: &BTreeSet<StorePath>,
        valid: &BTreeSet<StorePath>,
    ) -> Result<Vec<Found<'_>>, Error> {
        let mut all = BTreeMap::new();
        let mut open: Vec<StorePath> = paths.iter().cloned().collect();
        while let Some(path) = open.pop() {
            if valid.contains(&path) || all.contains_key(&path) {
                continue;
            }
            let found = self.find(&path)?;
            let (store, info) = found.ok_or_else(|| Error::NoSource { path: path.clone() })?;
            open.extend(info.references.iter().cloned());
            all.insert(path, Found { store, info });
        }
        Ok(all.into_values().collect())
    }
}

/// A path, and the store that has it.
pub(super) struct Found<'a> {
    store: &'a Store,
    info: PathInfo,
}

impl Found<'_> {
    /// Describes it for the build store.
    pub(super) fn header(&self) -> ImportHeader {
        let info = &self.info;
        ImportHeader {
            path: info.path.clone(),
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            ca: info.ca.clone(),
            nar_hash: hex(&info.nar_hash),
        }
    }

    /// Writes its NAR.
    pub(super) fn dump(&self, out: &mut dyn Write) -> Result<(), Error> {
        let path = &self.info.path;
        let place = self.store.dir().real(path);
        tree::dump(&place, out).map_err(|error| source(path, error))
    }
}

fn source(path: &StorePath, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Source {
        path: path.clone(),
        source: Box::new(error),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
