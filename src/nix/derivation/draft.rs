//! A `.drv` file on its way to an [`Outline`]: read, and waiting for what it needs to be checked.
//!
//! There are two ways to go, and both end at the same place. The long one is that of the
//! `nix-derivation` crate: it knows every derivation and every reason to refuse one. The short one
//! knows only plain ones, and that they are right. A plan of a system takes the short way tens of
//! thousands of times, and the long way where that does not lead on.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::plain::Plain;
use super::{Error, Input, Modulo, Outline, Parsed, check_outputs, decode};
use crate::nix::StorePath;

/// A file that was read, whose outputs are not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft(Way);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Short(Box<Plain>),
    Long(Box<Parsed>),
}

/// The outputs that a derivation wants of an input.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// As they are written.
    Written(&'a str),
    /// By name.
    Named(&'a BTreeSet<String>),
}

impl Draft {
    /// Reads a file without asking whether its bytes belong to its name.
    pub fn decode(path: &StorePath, bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self(match Plain::read(path, bytes) {
            Some(plain) => Way::Short(Box::new(plain)),
            None => Way::Long(Box::new(decode(path, bytes)?)),
        }))
    }

    /// Checks that `bytes`, which this was decoded from, belong to the file's name.
    pub fn check_path(&self, bytes: &[u8]) -> Result<(), Error> {
        match &self.0 {
            Way::Short(plain) if plain.is_named_right() => Ok(()),
            Way::Short(plain) => decode(plain.file().0, bytes)?.check_path(bytes),
            Way::Long(parsed) => parsed.check_path(bytes),
        }
    }

    /// What it needs, in the order of paths: the path's full text, and the outputs.
    pub fn inputs(&self) -> Vec<(Cow<'_, str>, Wanted<'_>)> {
        match &self.0 {
            Way::Short(plain) => {
                let inputs = plain.inputs();
                let inputs = inputs.map(|(path, list)| (path.into(), Wanted::Written(list)));
                inputs.collect()
            }
            Way::Long(parsed) => {
                let inputs = parsed.derivation.input_derivations().iter();
                let inputs = inputs.map(|(path, wanted)| {
                    let path = path.to_string();
                    (path.into(), Wanted::Named(wanted.outputs()))
                });
                inputs.collect()
            }
        }
    }

    /// As [`check_outputs`]: `inputs` are those of [`Draft::inputs`], in that order.
    pub fn finish(self, inputs: &[Input<'_>]) -> Result<(Outline, Modulo), Error> {
        let parsed = match self.0 {
            Way::Short(plain) => {
                if let Some(modulo) = plain.check(inputs) {
                    return Ok((plain.into_outline(), modulo));
                }
                let (path, bytes) = plain.file();
                Box::new(decode(path, bytes)?)
            }
            Way::Long(parsed) => parsed,
        };
        let paths: Vec<&StorePath> = parsed.derivation.input_derivations().keys().collect();
        let modulo = check_outputs(&parsed, |path| {
            inputs.get(paths.binary_search(&path).ok()?).copied()
        })?;
        Ok((Outline::of(*parsed), modulo))
    }
}

impl Wanted<'_> {
    /// A text that no other set of outputs has.
    pub fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Written(list) => (*list).into(),
            Self::Named(names) => format!("{:?}", names.iter().collect::<Vec<_>>()).into(),
        }
    }

    /// The outputs by name.
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Written(list) => super::plain::words(list).map(ToOwned::to_owned).collect(),
            Self::Named(names) => (*names).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix_derivation::DerivationBuilder;
    use proptest::prelude::*;

    use super::super::tests::{VECTORS, path_of};
    use super::*;
    use crate::nix::derivation::InputDerivation;
    use crate::nix::{CAHash, Derivation, NixHash, Output};

    type Known = BTreeMap<StorePath, (BTreeSet<String>, Modulo)>;

    fn long(path: &StorePath, bytes: &[u8]) -> Result<Draft, Error> {
        Ok(Draft(Way::Long(Box::new(decode(path, bytes)?))))
    }

    fn finish(draft: Draft, known: &Known) -> Result<(Outline, Modulo), Error> {
        let paths: Vec<StorePath> = draft
            .inputs()
            .iter()
            .map(|(path, _)| path.parse().unwrap())
            .collect();
        let inputs: Vec<Input<'_>> = paths
            .iter()
            .filter_map(|path| known.get(path))
            .map(|(outputs, modulo)| Input {
                outputs,
                modulo: *modulo,
            })
            .collect();
        draft.finish(&inputs)
    }

    /// Goes both ways with a file, and says whether the short one leads to the end.
    fn compare(path: &StorePath, bytes: &[u8], known: &Known) -> bool {
        let (draft, long) = match (Draft::decode(path, bytes), long(path, bytes)) {
            (Ok(draft), Ok(long)) => (draft, long),
            (draft, long) => {
                assert_eq!(draft, long);
                return false;
            }
        };
        assert_eq!(draft.check_path(bytes), long.check_path(bytes));
        let needs = |draft: &Draft| -> Vec<(String, BTreeSet<String>)> {
            let inputs = draft.inputs().into_iter();
            inputs
                .map(|(path, wanted)| (path.into_owned(), wanted.names()))
                .collect()
        };
        assert_eq!(needs(&draft), needs(&long));
        let is_plain = match &draft.0 {
            Way::Short(plain) => {
                let Way::Long(parsed) = &long.0 else {
                    unreachable!("it was made so")
                };
                assert_eq!(parsed.derivation.to_aterm_bytes(), bytes);
                assert_eq!(*plain.outline(), Outline::of((**parsed).clone()));
                true
            }
            Way::Long(_) => false,
        };
        assert_eq!(finish(draft, known), finish(long, known));
        is_plain
    }

    /// Goes through files that Nix made, inputs first.
    fn in_order(folder: &str, mut step: impl FnMut(&StorePath, &[u8], &Known)) -> Known {
        let mut waiting: Vec<(StorePath, Vec<u8>)> =
            fs_err::read_dir(format!("{VECTORS}/{folder}"))
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let name = entry.file_name();
                    let path = StorePath::from_basename(name.as_encoded_bytes()).unwrap();
                    (path, fs_err::read(entry.path()).unwrap())
                })
                .collect();
        let mut known = Known::new();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|(path, bytes)| {
                let draft = Draft::decode(path, bytes).unwrap();
                let mut inputs = draft.inputs().into_iter();
                if !inputs.all(|(input, _)| known.contains_key(&input.parse().unwrap())) {
                    return true;
                }
                step(path, bytes, &known);
                let (outline, modulo) = finish(draft, &known).unwrap();
                let outputs = outline.outputs.keys().map(ToOwned::to_owned).collect();
                known.insert(path.clone(), (outputs, modulo));
                false
            });
            assert!(waiting.len() < before);
        }
        known
    }

    #[test]
    fn both_ways_agree_on_every_vector() {
        let mut plain = 0;
        let all = in_order("drv", |path, bytes, known| {
            plain += usize::from(compare(path, bytes, known));
        });
        // The others are structured, content-addressed, impure or hold bytes that are not UTF-8.
        assert!(plain * 10 > all.len() * 7, "{plain} of {}", all.len());
    }

    #[test]
    fn inputs_that_differ_only_in_how_a_source_is_fetched_are_one() {
        let mut mids = Vec::new();
        let known = in_order("same-identity", |path, bytes, known| {
            let draft = Draft::decode(path, bytes).unwrap();
            draft.check_path(bytes).unwrap();
            if path.name() == "mid.drv" {
                mids.push(finish(draft, known).unwrap().1);
            }
        });
        assert_eq!(known.len(), 5);
        assert_eq!(mids.len(), 2);
        assert_eq!(mids[0], mids[1]);
    }

    /// What a derivation is made of.
    #[derive(Debug, Clone)]
    struct Parts {
        outputs: BTreeSet<String>,
        fixed: Option<(bool, [u8; 32])>,
        /// Each with an identity, and what is wanted of it.
        inputs: Vec<(u8, bool, BTreeSet<String>)>,
        sources: BTreeSet<u8>,
        arguments: Vec<String>,
        variables: BTreeMap<String, String>,
    }

    fn text() -> impl Strategy<Value = String> {
        // What is escaped, what is not, and what matters in the syntax.
        let piece = prop_oneof![
            Just("\""),
            Just("\\"),
            Just("\n"),
            Just("\t"),
            Just("\r"),
            Just("\\n"),
            Just("\",\""),
            Just("]"),
            Just(")"),
            Just("a"),
            Just("1"),
            Just("é"),
            Just("\0"),
            Just(" kvm "),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    fn names() -> impl Strategy<Value = BTreeSet<String>> {
        let names = vec!["bin".to_owned(), "dev".to_owned(), "out".to_owned()];
        proptest::sample::subsequence(names, 1..=3).prop_map(|names| names.into_iter().collect())
    }

    fn variable() -> impl Strategy<Value = String> {
        let asked = super::super::unsupported::ASKED.map(str::to_owned).to_vec();
        prop_oneof![
            proptest::sample::select(asked),
            "[a-zA-Z_]{1,8}",
            Just("name".to_owned()),
            Just("é\"\\".to_owned()),
            Just("Z__".to_owned()),
        ]
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let fixed = proptest::option::weighted(0.2, (any::<bool>(), any::<[u8; 32]>()));
        let inputs = proptest::collection::vec((0..6_u8, any::<bool>(), names()), 0..4);
        let sources = proptest::collection::btree_set(0..4_u8, 0..3);
        let arguments = proptest::collection::vec(text(), 0..3);
        let variables = proptest::collection::btree_map(variable(), text(), 0..6);
        let all = (names(), fixed, inputs, sources, arguments, variables);
        all.prop_map(
            |(outputs, fixed, inputs, sources, arguments, variables)| Parts {
                outputs,
                fixed,
                inputs,
                sources,
                arguments,
                variables,
            },
        )
    }

    fn store_path(number: u8, name: &str) -> StorePath {
        StorePath::from_parts([number.wrapping_mul(37); 20], name).unwrap()
    }

    /// The derivation, and what is known of its inputs. Numbers below 2 have one identity.
    fn make(parts: &Parts) -> (Derivation, Known) {
        let mut known = Known::new();
        let mut builder = DerivationBuilder::new("made", "x86_64-linux", "/bin/sh");
        for (name, value) in &parts.variables {
            builder = builder.environment(name.clone(), value.clone());
        }
        for argument in &parts.arguments {
            builder = builder.argument(argument.clone());
        }
        for &source in &parts.sources {
            builder = builder.input_source(store_path(source, "source.drv"));
        }
        for (number, fixed, wanted) in &parts.inputs {
            let identity = [(*number).max(1); 32];
            let (wanted, modulo) = if *fixed {
                let out = BTreeSet::from(["out".to_owned()]);
                (out, Modulo::fixed_output(identity))
            } else {
                (wanted.clone(), Modulo::regular(identity))
            };
            let path = store_path(*number, "source.drv");
            builder = builder.input_derivation(path.clone(), InputDerivation::new(wanted));
            let outputs = ["bin", "dev", "out"].map(str::to_owned);
            known.insert(path, (outputs.into(), modulo));
        }
        match parts.fixed {
            Some((recursive, digest)) => {
                let hash = NixHash::Sha256(digest);
                let ca = if recursive {
                    CAHash::Nar(hash)
                } else {
                    CAHash::Flat(hash)
                };
                builder = builder.output("out", Output::Fixed { ca });
            }
            None => {
                for output in &parts.outputs {
                    builder = builder.input_addressed_output(output.clone());
                }
            }
        }
        let built = builder.build_with_input_hashes(|path: &StorePath| known[path].1);
        (built.unwrap().as_derivation().clone(), known)
    }

    proptest! {
        #[test]
        fn both_ways_agree_on_what_is_right(parts in parts()) {
            let (drv, known) = make(&parts);
            let bytes = drv.to_aterm_bytes();
            let is_plain = compare(&path_of("made", &bytes), &bytes, &known);
            let written_plainly = parts.variables.keys().all(|name| !name.contains('\\'));
            prop_assert_eq!(is_plain, written_plainly);
        }

        #[test]
        fn both_ways_agree_on_what_is_changed(
            parts in parts(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8), 1..3),
        ) {
            let (drv, known) = make(&parts);
            let mut bytes = drv.to_aterm_bytes();
            for (from, to, kind) in changes {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                match kind {
                    0 => bytes[from] = bytes[to],
                    1 => bytes.insert(from, bytes[to]),
                    2 => drop(bytes.remove(from)),
                    _ => bytes.swap(from, to),
                }
            }
            let path = store_path(9, "made.drv");
            compare(&path, &bytes, &known);
            if decode(&path, &bytes).is_ok() {
                compare(&path_of("made", &bytes), &bytes, &known);
            }
        }
    }
}
