//! What a build is made of: its derivation, and the closure of its inputs, valid in this store.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Agent;
use crate::agent::stop::{Stop, failed, machine};
use crate::agent::tools::tools;
use crate::agent::unregistered::Unregistered;
use crate::event::Failure;
use crate::nix::StorePath;
use crate::nix::derivation::{self, Kvm, Level, Parsed, Systems};
use crate::store::PathInfo;
use crate::tunnel::{BuildResult, SandboxPath};

impl Agent {
    pub(super) fn read_derivation(&self, path: &StorePath) -> Result<Parsed, Stop> {
        let missing = || {
            Stop::Result(BuildResult::StoreLost {
                missing: path.clone(),
            })
        };
        let place = self.store.dir().real(path);
        let bytes = match fs_err::read(&place) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(machine(error)),
        };
        let parsed = derivation::parse(path, &bytes).map_err(machine)?;
        // Whether this machine can run it was decided when the plan was made; what no machine of
        // ours builds is refused here too, because a plan may be older than the agent.
        let systems = Systems::x86_64_linux(Level::V3, Kvm::Usable);
        if let Some(reason) = derivation::unsupported(&parsed.derivation, &systems) {
            return Err(failed(Failure::Refused {
                reason: reason.to_string(),
            }));
        }
        Ok(parsed)
    }

    /// Returns the closure of the wanted outputs of every input, and of the sources.
    pub(super) fn input_closure(
        &mut self,
        parsed: &Parsed,
    ) -> Result<BTreeMap<StorePath, PathInfo>, Stop> {
        let drv = &parsed.derivation;
        let mut roots: BTreeSet<StorePath> = drv.input_sources().clone();
        for (input, wanted) in drv.input_derivations() {
            let declared = self.declared_outputs(input)?;
            for name in wanted.outputs() {
                let Some(Some(path)) = declared.get(name) else {
                    let missing = input.clone();
                    return Err(Stop::Result(BuildResult::StoreLost { missing }));
                };
                roots.insert(path.clone());
            }
        }
        self.closure_or_lost(&roots)
    }

    fn declared_outputs(
        &self,
        drv: &StorePath,
    ) -> Result<BTreeMap<String, Option<StorePath>>, Stop> {
        let Ok(bytes) = fs_err::read(self.store.dir().real(drv)) else {
            return Err(Stop::Result(BuildResult::StoreLost {
                missing: drv.clone(),
            }));
        };
        Ok(derivation::decode(drv, &bytes).map_err(machine)?.outputs)
    }

    fn closure_or_lost(
        &mut self,
        roots: &BTreeSet<StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, Stop> {
        let (mut closure, roots) = self.of_unregistered(roots);
        let asked: Vec<StorePath> = roots.iter().cloned().collect();
        let valid = self.store.valid(&asked).map_err(machine)?;
        if let Some(missing) = roots.iter().find(|path| !valid.contains(*path)) {
            return Err(Stop::Result(BuildResult::StoreLost {
                missing: missing.clone(),
            }));
        }
        closure.extend(self.store.closure(&roots).map_err(machine)?);
        Ok(closure)
    }

    /// The part of a closure that is not registered yet, and the roots of the rest.
    fn of_unregistered(
        &self,
        roots: &BTreeSet<StorePath>,
    ) -> (BTreeMap<StorePath, PathInfo>, BTreeSet<StorePath>) {
        let mut infos = self
            .unregistered
            .as_ref()
            .map(Unregistered::infos)
            .unwrap_or_default();
        let (mut part, mut rest) = (BTreeMap::new(), BTreeSet::new());
        let mut open: Vec<StorePath> = roots.iter().cloned().collect();
        while let Some(path) = open.pop() {
            if let Some(info) = infos.remove(&path) {
                open.extend(info.references.iter().cloned());
                part.insert(path, info);
            } else if !part.contains_key(&path) {
                rest.insert(path);
            }
        }
        (part, rest)
    }

    /// Adds what sandbox paths of the store need: as in Nix builders see it, and their outputs
    /// cannot refer to it.
    pub(super) fn seen<'c>(
        &mut self,
        closure: &'c BTreeMap<StorePath, PathInfo>,
        paths: &[SandboxPath],
    ) -> Result<Cow<'c, BTreeMap<StorePath, PathInfo>>, Stop> {
        let roots = tools(self.shape, paths);
        if roots.is_empty() {
            return Ok(Cow::Borrowed(closure));
        }
        if self.tools.is_none() {
            self.tools = Some(self.closure_or_lost(&roots)?);
        }
        let mut seen = self.tools.clone().unwrap_or_default();
        seen.extend(closure.clone());
        Ok(Cow::Owned(seen))
    }
}
