//! Closures that load and closures that are refused.

use std::collections::HashMap;

use nix_derivation::{DerivationBuilder, InputDerivation};

use super::*;
use crate::nix::derivation::Modulo;
use crate::nix::derivation::tests::{path_of, vector};

/// Hand-made `.drv` files.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) files: HashMap<StorePath, Vec<u8>>,
    modulos: HashMap<StorePath, Modulo>,
}

impl Source for Files {
    fn read(&self, drv: &StorePath) -> Result<Vec<u8>, SourceError> {
        self.files.get(drv).cloned().ok_or(SourceError::Missing)
    }
}

impl Files {
    /// Adds a derivation with these outputs, wanting these outputs of these inputs.
    pub(crate) fn add(
        &mut self,
        name: &str,
        outputs: &[&str],
        inputs: &[(&StorePath, &[&str])],
    ) -> StorePath {
        self.add_with(name, outputs, inputs, |builder| builder)
    }

    pub(crate) fn add_with(
        &mut self,
        name: &str,
        outputs: &[&str],
        inputs: &[(&StorePath, &[&str])],
        change: impl FnOnce(DerivationBuilder) -> DerivationBuilder,
    ) -> StorePath {
        let mut builder = DerivationBuilder::new(name, "x86_64-linux", "/bin/sh");
        for output in outputs {
            builder = builder.input_addressed_output(*output);
        }
        for (input, wanted) in inputs {
            let wanted = InputDerivation::new(wanted.iter().copied());
            builder = builder.input_derivation((*input).clone(), wanted);
        }
        let modulos = &self.modulos;
        let built = change(builder)
            .build_with_input_hashes(|path: &StorePath| modulos[path])
            .unwrap();
        let modulo = built
            .hash_input_derivation_modulo(|path| modulos[path])
            .unwrap();
        let path = built.drv_path();
        self.modulos.insert(path.clone(), modulo);
        self.files.insert(path.clone(), built.to_aterm_bytes());
        path
    }

    pub(crate) fn load(&self, roots: &[&StorePath]) -> Result<Closure, Error> {
        let loaded = load(roots.iter().copied(), self, NonZeroUsize::new(2).unwrap());
        loaded.map(|(closure, _)| closure)
    }
}

fn three() -> (Files, StorePath, StorePath, StorePath) {
    let mut files = Files::default();
    let low = files.add("low", &["out", "dev"], &[]);
    let middle = files.add("middle", &["out"], &[(&low, &["dev"])]);
    let top = files.add("top", &["out"], &[(&middle, &["out"]), (&low, &["out"])]);
    (files, low, middle, top)
}

#[test]
fn loads_all_that_is_needed_with_inputs_first() {
    let (files, low, middle, top) = three();
    let closure = files.load(&[&top]).unwrap();
    let order: Vec<&StorePath> = closure
        .topological()
        .iter()
        .map(|&node| &closure.derivations()[node as usize].path)
        .collect();
    assert_eq!(order, [&low, &middle, &top]);
    assert_eq!(files.load(&[&low]).unwrap().derivations().len(), 1);
    assert!(closure.get(&middle).is_some());
}

#[test]
fn a_missing_file_is_named_with_who_needs_it() {
    let (mut files, low, middle, top) = three();
    files.files.remove(&low);
    let error = files.load(&[&middle, &top]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{low}` is missing, needed by `{}`", middle.min(top))
    );
}

#[test]
fn a_corrupt_file_is_named_with_the_chain_to_a_root() {
    let mut files = Files::default();
    let low = files.add("low", &["out"], &[]);
    let middle = files.add("middle", &["out"], &[(&low, &["out"])]);
    let top = files.add("top", &["out"], &[(&middle, &["out"])]);
    files.files.get_mut(&low).unwrap().push(b' ');
    let error = files.load(&[&top]).unwrap_err();
    let expected = format!("cannot use `{low}`, needed by `{middle}`, needed by `{top}`");
    assert_eq!(error.to_string(), expected);
    let Error::Invalid { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(*source, derivation::Error::Syntax { .. }),
        "{source:?}"
    );
}

#[test]
fn a_wrong_output_path_deep_down_is_found() {
    let (path, bytes) = vector("bare");
    let wrong = String::from_utf8(bytes)
        .unwrap()
        .replace("/bin/false", "/bin/wrong");
    let wrong_path = path_of("bare", wrong.as_bytes());
    let mut files = Files::default();
    files.files.insert(wrong_path.clone(), wrong.into_bytes());
    let error = files.load(&[&wrong_path]).unwrap_err();
    let Error::Invalid { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(*source, derivation::Error::OutputPath { .. }),
        "{source:?}"
    );
    assert_ne!(path, wrong_path);
}

#[test]
fn a_cycle_names_its_members() {
    let (mut files, low, middle, top) = three();
    let text = String::from_utf8(files.files[&low].clone()).unwrap();
    let text = text.replacen(",[],[],", &format!(",[(\"{middle}\",[\"out\"])],[],"), 1);
    files.files.insert(low.clone(), text.into_bytes());
    let Error::Cycle { members } = files.load(&[&top]).unwrap_err() else {
        panic!("not a cycle");
    };
    assert_eq!(
        members.iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([&low, &middle])
    );
}
