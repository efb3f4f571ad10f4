//! From what a builder left to registered paths (Nix spec §5.2 - §5.10), in two steps: the outputs are
//! [collected](Collect), then [registered](Placed).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::agent::slot_dirs::SlotDirs;
use crate::agent::users::BuildUser;
use crate::event::Failure;
use crate::nix::derivation::Recipe;
use crate::nix::refscan::Examined;
use crate::nix::{CAHash, ContentAddressMethod, NixHash, NixHasher, StoreDir, StorePath};
use crate::store::tree::{self, InodesSeen};
use crate::store::{PathInfo, Registration, Store};
use crate::tunnel::MachineError;

/// The outputs were not taken.
pub enum Rejected {
    /// They are not acceptable: the derivation's fault.
    Output(Failure),
    /// The machine's fault.
    Machine(MachineError),
}

fn machine(error: impl std::error::Error) -> Rejected {
    Rejected::Machine(MachineError::of(&error))
}

fn bad(reason: String) -> Rejected {
    Rejected::Output(Failure::BadOutput { reason })
}

/// A finished build whose outputs are to be taken.
pub struct Collect<'a> {
    /// The derivation.
    pub drv: &'a StorePath,
    /// What it was to make.
    pub recipe: &'a Recipe,
    /// What it could refer to.
    pub closure: &'a BTreeMap<StorePath, PathInfo>,
    /// Outputs that were valid before: built again, thrown away (Nix spec §4.10).
    pub valid: &'a BTreeSet<StorePath>,
    /// Where it made them.
    pub slot: &'a SlotDirs,
}

/// One output, examined.
struct Output<'a> {
    name: &'a str,
    place: PathBuf,
    path: StorePath,
    examined: Examined,
    ca: Option<String>,
}

impl Collect<'_> {
    /// Checks, makes canonical, scans and renames into the store; to register is the caller's.
    pub fn collect(&self, store: &Store, user: &BuildUser) -> Result<Placed, Rejected> {
        let mut outputs = self.examine(user)?;
        let failure = self.check_fixed(&mut outputs)?;
        let order = self.order(&outputs)?;
        let new = self.place(store, &outputs, &order)?;
        let mut paths: BTreeSet<StorePath> =
            outputs.into_iter().map(|output| output.path).collect();
        paths.extend(self.valid.iter().cloned());
        Ok(Placed {
            new,
            paths,
            failure,
        })
    }

    fn examine(&self, user: &BuildUser) -> Result<Vec<Output<'_>>, Rejected> {
        let mut candidates: BTreeSet<StorePath> = self.closure.keys().cloned().collect();
        candidates.extend(
            self.recipe
                .outputs
                .values()
                .map(|output| output.path.clone()),
        );
        let mut seen = InodesSeen::default();
        let mut outputs = Vec::new();
        let wanted: Vec<_> = self
            .recipe
            .outputs
            .iter()
            .filter(|(_, output)| !self.valid.contains(&output.path))
            .collect();
        for (name, output) in &wanted {
            let place = self.slot.store.join(output.path.to_basename());
            self.check_top(name, &output.path, &place, user)?;
        }
        for (name, output) in wanted {
            let place = self.slot.store.join(output.path.to_basename());
            let owner = user.separate.then_some(user.uid);
            tree::canonicalise(&place, owner, &mut seen).map_err(rejected)?;
            let examined = tree::examine(&place, &candidates).map_err(rejected)?;
            let path = output.path.clone();
            outputs.push(Output {
                name: name.as_str(),
                place,
                path,
                examined,
                ca: None,
            });
        }
        Ok(outputs)
    }

    /// Only the top of an output is looked at before its metadata is replaced (Nix spec §5.2).
    fn check_top(
        &self,
        name: &str,
        path: &StorePath,
        place: &Path,
        user: &BuildUser,
    ) -> Result<(), Rejected> {
        let metadata = match place.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(bad(format!(
                    "builder for '{}' failed to produce output path for output '{name}' at '{path}'",
                    self.drv
                )));
            }
            Err(error) => return Err(machine(error)),
        };
        let writable_by_others = !metadata.is_symlink() && metadata.mode() & 0o022 != 0;
        if writable_by_others || (user.separate && metadata.uid() != user.uid) {
            return Err(bad(format!(
                "suspicious ownership or permission on '{path}' for output '{name}'; rejecting this build output"
            )));
        }
        Ok(())
    }

    /// Fixes the path of a fixed output from what it really contains; a wrong hash is registered
    /// there all the same and reported (Nix spec §5.7).
    fn check_fixed(&self, outputs: &mut [Output<'_>]) -> Result<Option<Failure>, Rejected> {
        let mut mismatch = None;
        for output in outputs {
            let Some(expected) = &self.recipe.outputs[output.name].fixed else {
                continue;
            };
            if !output.examined.references.is_empty() {
                let example = output.examined.references.iter().next().expect("not empty");
                return Err(bad(format!(
                    "fixed-output derivations must not reference store paths: '{}' references {} distinct paths, e.g. '{example}'",
                    self.drv,
                    output.examined.references.len()
                )));
            }
            let got = content_hash(expected, output)?;
            let actual =
                CAHash::from_parts(expected.method(), got.algorithm(), got.digest_as_bytes())
                    .map_err(machine)?;
            output.ca = Some(actual.to_nix_string());
            if got != expected.hash() {
                mismatch = Some(Failure::HashMismatch {
                    specified: expected.hash().to_sri_string(),
                    got: got.to_sri_string(),
                });
                output.path = StoreDir::default()
                    .build_ca_path(output.path.name(), &actual, std::iter::empty(), false)
                    .map_err(machine)?;
            }
        }
        Ok(mismatch)
    }

    /// Returns the outputs' indices, referenced ones first; a cycle is an error (Nix spec §5.5).
    fn order(&self, outputs: &[Output<'_>]) -> Result<Vec<usize>, Rejected> {
        let mut order = Vec::new();
        let mut state = vec![State::New; outputs.len()];
        for index in 0..outputs.len() {
            self.visit(outputs, index, &mut state, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        outputs: &[Output<'_>],
        index: usize,
        state: &mut [State],
        order: &mut Vec<usize>,
    ) -> Result<(), Rejected> {
        if state[index] == State::Done {
            return Ok(());
        }
        state[index] = State::Open;
        for (other, output) in outputs.iter().enumerate() {
            if other == index || !outputs[index].examined.references.contains(&output.path) {
                continue;
            }
            if state[other] == State::Open {
                return Err(bad(format!(
                    "cycle detected in build of '{}' in the references of output '{}' from output '{}'",
                    self.drv, outputs[index].name, output.name
                )));
            }
            self.visit(outputs, other, state, order)?;
        }
        state[index] = State::Done;
        order.push(index);
        Ok(())
    }

    /// Returns what is to be registered, referenced ones first.
    fn place(
        &self,
        store: &Store,
        outputs: &[Output<'_>],
        order: &[usize],
    ) -> Result<Vec<Registration>, Rejected> {
        let mut new = Vec::new();
        for output in order.iter().map(|index| &outputs[*index]) {
            let already = store
                .valid(std::slice::from_ref(&output.path))
                .map_err(machine)?;
            if !already.is_empty() {
                // The content of a wrong fixed output may be there from an earlier attempt.
                continue;
            }
            store.place(&output.place, &output.path).map_err(machine)?;
            new.push(Registration {
                path: output.path.clone(),
                nar_hash: output.examined.nar_hash,
                nar_size: output.examined.nar_size,
                references: output.examined.references.clone(),
                deriver: Some(self.drv.clone()),
                ca: output.ca.clone(),
                ultimate: true,
                signatures: Vec::new(),
                derivation_outputs: Vec::new(),
            });
        }
        Ok(new)
    }
}

/// Outputs at their places, complete and canonical, which are not valid yet.
pub struct Placed {
    /// What is to be registered, referenced ones first.
    pub new: Vec<Registration>,
    /// All outputs, with those that were valid before.
    pub paths: BTreeSet<StorePath>,
    /// What is wrong with them all the same: a hash (Nix spec §5.7).
    pub failure: Option<Failure>,
}

impl Placed {
    /// Makes them durable, then valid. `on_wait` learns which lock another program holds, and may end
    /// the wait.
    pub fn register(
        &self,
        store: &Store,
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<(), Rejected> {
        for one in &self.new {
            tree::sync(&store.dir().real(&one.path)).map_err(machine)?;
        }
        store.sync_directory().map_err(machine)?;
        let registered = store.register_after(&self.new, on_wait);
        registered.map_err(machine)
    }
}

/// What a builder left that no store takes is the derivation's fault, the rest the machine's.
fn rejected(error: tree::Error) -> Rejected {
    match error {
        tree::Error::Type { .. } | tree::Error::Ownership { .. } | tree::Error::Depth { .. } => {
            bad(error.to_string())
        }
        error => machine(error),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// Hashes an output as its content address says.
fn content_hash(expected: &CAHash, output: &Output<'_>) -> Result<NixHash, Rejected> {
    let algorithm = expected.hash().algorithm();
    let mut hasher = Hashing(NixHasher::new(algorithm));
    match expected.method() {
        ContentAddressMethod::Flat => {
            let metadata = output.place.symlink_metadata().map_err(machine)?;
            if !metadata.is_file() || metadata.mode() & 0o100 != 0 {
                return Err(bad(format!(
                    "output path '{}' should be a non-executable regular file since recursive hashing is not enabled (outputHashMode=flat)",
                    output.path
                )));
            }
            let mut file = fs_err::File::open(&output.place).map_err(machine)?;
            std::io::copy(&mut file, &mut hasher).map_err(machine)?;
        }
        _ => tree::dump(&output.place, &mut hasher).map_err(machine)?,
    }
    Ok(hasher.0.finalize())
}

struct Hashing(NixHasher);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
