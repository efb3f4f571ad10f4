//! Taking paths from elsewhere into the store, many at once.
//!
//! [`Importer::add`] restores and checks one path beside its place; nothing is locked or valid yet.
//! [`Importer::finish`] makes everything durable with one call, then locks, moves and registers
//! piece by piece, references first, so that after a crash each path is valid as a whole or not.
//!
//! The interim name begins with the path's own hash part: a collector then spares it for the sake
//! of the same temp root.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::identity::{hex, random};
use super::{Error, Registration, Store, tree};
use crate::nix::{CAHash, Derivation, HashAlgorithm, NixHash, NixHasher, StoreDir, StorePath};

/// The most paths that are locked and registered together: each costs an open file.
const PIECE: usize = 2048;
/// Beyond so many paths one call for the whole file system is cheaper, though it also waits for
/// what others have written.
const FEW: usize = 64;

/// What is said of a path before its NAR follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportHeader {
    /// The path.
    pub path: StorePath,
    /// What it refers to, perhaps with itself.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it, if known.
    pub deriver: Option<StorePath>,
    /// Its content address, as in Nix's database.
    pub ca: Option<String>,
    /// SHA-256 of its NAR, in hexadecimal.
    pub nar_hash: String,
}

/// Paths on their way into the store.
///
/// Dropped before [`finish`](Self::finish), it removes what it restored.
#[derive(Default)]
pub struct Importer {
    pending: BTreeMap<StorePath, Pending>,
    /// Sets the interim names of one importer apart from all others'.
    tag: String,
}

struct Pending {
    registration: Registration,
    place: PathBuf,
}

impl Importer {
    /// Restores a path from its NAR, and checks hash and content address. A derivation's bytes must
    /// give its name, whatever is said of it. The order of the paths is free; one that is valid or
    /// was added before is passed over.
    ///
    /// `nar` ends with the archive.
    pub fn add(
        &mut self,
        store: &Store,
        header: ImportHeader,
        mut nar: impl Read,
    ) -> Result<(), Error> {
        store.must_write()?;
        store.add_temp_roots([&header.path])?;
        let valid = !store.valid([&header.path])?.is_empty();
        if valid || self.pending.contains_key(&header.path) {
            std::io::copy(&mut nar, &mut std::io::sink())?;
            return Ok(());
        }
        let basename = header.path.to_basename();
        if self.tag.is_empty() {
            self.tag = random()?;
        }
        let interim = format!("{}-pontoon-import-{}", &basename[..32], self.tag);
        let place = store.dir().store().join(interim);
        match check(header, &place, nar) {
            Ok(registration) => {
                let path = registration.path.clone();
                self.pending.insert(
                    path,
                    Pending {
                        registration,
                        place,
                    },
                );
                Ok(())
            }
            Err(error) => {
                // The first error is the one to tell; what stays is unregistered.
                let _ = tree::remove(&place);
                Err(error)
            }
        }
    }

    /// Makes all added paths valid; returns how many were not valid before.
    ///
    /// `on_wait` learns which lock another program holds, and may end the wait.
    ///
    /// # Errors
    /// A reference that is neither valid nor among the added ones: paths that do not depend on it
    /// may be valid by then.
    pub fn finish(
        mut self,
        store: &Store,
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        self.sync(store)?;
        let order = self.references_first()?;
        let mut count = 0;
        for paths in order.chunks(piece_size()) {
            count += self.register(store, paths, on_wait)?;
        }
        Ok(count)
    }

    fn sync(&self, store: &Store) -> Result<(), Error> {
        if self.pending.len() > FEW {
            return Ok(tree::sync_file_system(&store.dir().store())?);
        }
        for pending in self.pending.values() {
            tree::sync(&pending.place)?;
        }
        Ok(())
    }

    fn register(
        &mut self,
        store: &Store,
        paths: &[StorePath],
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        let locks = store.lock(paths, on_wait)?;
        let valid = store.valid(paths)?;
        let mut registrations = Vec::with_capacity(paths.len());
        for path in paths.iter().filter(|path| !valid.contains(*path)) {
            let pending = self
                .pending
                .get(path)
                .expect("the order is of what is pending");
            store.place(&pending.place, path)?;
            registrations.push(
                self.pending
                    .remove(path)
                    .expect("it was there")
                    .registration,
            );
        }
        store.sync_directory()?;
        store.register_after(&registrations, on_wait)?;
        locks.release()?;
        Ok(registrations.len())
    }

    /// Orders the paths so that each comes after what it refers to.
    fn references_first(&self) -> Result<Vec<StorePath>, Error> {
        let mut order = Vec::with_capacity(self.pending.len());
        let mut done = BTreeSet::new();
        for root in self.pending.keys() {
            // Each with the references that are still to be visited; an own stack, for chains of
            // derivations are long.
            let mut stack = Vec::new();
            let mut open = BTreeSet::new();
            self.visit(root, &done, &mut open, &mut stack)?;
            while let Some((path, references)) = stack.last_mut() {
                if let Some(next) = references.pop() {
                    self.visit(next, &done, &mut open, &mut stack)?;
                } else {
                    let path: &StorePath = path;
                    done.insert(path);
                    open.remove(path);
                    order.push(path.clone());
                    stack.pop();
                }
            }
        }
        Ok(order)
    }

    fn visit<'a>(
        &'a self,
        path: &'a StorePath,
        done: &BTreeSet<&StorePath>,
        open: &mut BTreeSet<&'a StorePath>,
        stack: &mut Vec<(&'a StorePath, Vec<&'a StorePath>)>,
    ) -> Result<(), Error> {
        let Some(pending) = self.pending.get(path) else {
            return Ok(());
        };
        if done.contains(path) {
            return Ok(());
        }
        if !open.insert(path) {
            return Err(Error::Cycle { path: path.clone() });
        }
        let references = pending
            .registration
            .references
            .iter()
            .filter(|reference| *reference != path);
        stack.push((path, references.collect()));
        Ok(())
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        for pending in self.pending.values() {
            // What stays is unregistered, and the collector's.
            let _ = tree::remove(&pending.place);
        }
    }
}

/// How many files may be opened for locks.
fn piece_size() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(PIECE, |limit| usize::try_from(limit).unwrap_or(PIECE));
    (limit / 2).clamp(16, PIECE)
}

/// Restores a path to its interim place and checks what it is said to be.
fn check(header: ImportHeader, place: &Path, nar: impl Read) -> Result<Registration, Error> {
    let restored = tree::restore(nar, place)?;
    let found = hex(&restored.nar_hash);
    if !found.eq_ignore_ascii_case(&header.nar_hash) {
        return Err(Error::Hash {
            path: header.path,
            expected: header.nar_hash,
            found,
        });
    }
    let mut ca = header.ca;
    if let Some(text) = &ca
        && !has_address(
            &header.path,
            &header.references,
            text,
            place,
            restored.nar_hash,
        )?
    {
        return Err(Error::ContentAddress {
            path: header.path,
            ca: text.clone(),
        });
    }
    let mut derivation_outputs = Vec::new();
    // What has another address merely has the name, and need not be a derivation.
    if header.path.is_derivation() && ca.as_ref().is_none_or(|ca| ca.starts_with("text:")) {
        let text = if fs_err::symlink_metadata(place)?.is_file() {
            let bytes = fs_err::read(place)?;
            derivation_outputs = outputs(&header.path, &bytes)?;
            text_address(&bytes)
        } else {
            return Err(Error::ContentAddress {
                path: header.path,
                ca: "text:".to_owned(),
            });
        };
        if !has_address(
            &header.path,
            &header.references,
            &text,
            place,
            restored.nar_hash,
        )? {
            return Err(Error::ContentAddress {
                path: header.path,
                ca: text,
            });
        }
        ca = Some(text);
    }
    Ok(Registration {
        path: header.path,
        nar_hash: restored.nar_hash,
        nar_size: restored.nar_size,
        references: header.references,
        deriver: header.deriver,
        ca,
        ultimate: false,
        signatures: Vec::new(),
        derivation_outputs,
    })
}

fn text_address(bytes: &[u8]) -> String {
    let mut hasher = NixHasher::new(HashAlgorithm::Sha256);
    hasher.update(bytes);
    format!("text:{}", hasher.finalize().to_nix_nixbase32_string())
}

/// Names and known paths of a derivation's outputs.
fn outputs(path: &StorePath, bytes: &[u8]) -> Result<Vec<(String, StorePath)>, Error> {
    let bad = |source: Box<dyn std::error::Error + Send + Sync>| Error::Derivation {
        path: path.clone(),
        source,
    };
    let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
    let derivation =
        Derivation::from_aterm_bytes(bytes, name).map_err(|error| bad(Box::new(error)))?;
    let mut outputs = Vec::new();
    for (output_name, output) in derivation.outputs() {
        let known = output
            .path(name, output_name)
            .map_err(|error| bad(Box::new(error)))?;
        outputs.extend(known.map(|known| (output_name.clone(), known)));
    }
    Ok(outputs)
}

/// Whether the content has this address, and the address gives this path (Nix spec §1.3).
///
/// The content of a path that refers to itself, or has a git address, is not hashed again: the NAR
/// hash vouches for it.
fn has_address(
    path: &StorePath,
    references: &BTreeSet<StorePath>,
    text: &str,
    place: &Path,
    nar_hash: [u8; 32],
) -> Result<bool, Error> {
    let Ok(address) = CAHash::parse(text) else {
        return Ok(false);
    };
    let refers_to_itself = references.contains(path);
    let others = references.iter().filter(|reference| *reference != path);
    let built = StoreDir::default().build_ca_path(path.name(), &address, others, refers_to_itself);
    if built.ok().as_ref() != Some(path) {
        return Ok(false);
    }
    match &address {
        CAHash::Text(_) | CAHash::Flat(_) => {
            let metadata = fs_err::symlink_metadata(place)?;
            if !metadata.is_file() {
                return Ok(false);
            }
            let mut hasher = NixHasher::new(address.hash().algorithm());
            let mut file = fs_err::File::open(place)?;
            std::io::copy(&mut file, &mut Hashing(&mut hasher))?;
            Ok(hasher.finalize() == address.hash())
        }
        CAHash::Nar(NixHash::Sha256(digest)) => Ok(refers_to_itself || *digest == nar_hash),
        CAHash::Nar(hash) => {
            let mut hasher = NixHasher::new(hash.algorithm());
            tree::dump(place, Hashing(&mut hasher))?;
            Ok(hasher.finalize() == *hash)
        }
        CAHash::Git(_) => Ok(true),
    }
}

struct Hashing<'a>(&'a mut NixHasher);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
