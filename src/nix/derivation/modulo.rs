//! Hashes of derivations modulo the way their fixed inputs are fetched (Nix spec §2.5, §2.6).
//!
//! Nothing here remembers: whoever walks a closure, inputs first, keeps each derivation's
//! [`Modulo`] and hands it in for the dependents. So each file is hashed twice and no more.

use std::collections::BTreeSet;

/// The identity of a derivation as an input of others.
pub use nix_derivation::InputDerivationHash as Modulo;

use super::{Error, Parsed, malformed};
use crate::nix::{Output, StoreDir, StorePath};

/// An input that was checked already.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The names of its outputs.
    pub outputs: &'a BTreeSet<String>,
    /// What [`check_outputs`] returned for it.
    pub modulo: Modulo,
}

/// Checks that the output paths and the variables that hold them follow from the content, and
/// returns the derivation's identity for those that have it as an input.
///
/// `inputs` knows every input derivation. Outputs whose paths only the build will tell are not
/// checked: such derivations are refused later, by name, if they must be built at all.
pub fn check_outputs<'a>(
    parsed: &Parsed,
    inputs: impl Fn(&StorePath) -> Option<Input<'a>>,
) -> Result<Modulo, Error> {
    check_inputs(parsed, &inputs)?;
    let drv = &parsed.derivation;
    let modulo = |path: &StorePath| inputs(path).map_or(Modulo::Deferred, |input| input.modulo);
    let refused = |source| malformed(&parsed.path, source);

    if drv
        .outputs()
        .values()
        .any(|output| matches!(output, Output::InputAddressed { .. }))
    {
        let masked = drv
            .hash_output_path_modulo(modulo)
            .map_err(refused)?
            .into_ready()
            .ok_or_else(|| Error::PrematurePath {
                drv: parsed.path.clone(),
            })?;
        for (name, declared) in &parsed.outputs {
            let expected = StoreDir::default()
                .build_output_path(masked, name, drv.name())
                .map_err(|source| refused(source.into()))?;
            check_path(parsed, name, declared.as_ref(), expected)?;
        }
    }
    for (name, path) in &parsed.outputs {
        if let Some(path) = path {
            check_variable(parsed, name, path)?;
        }
    }
    drv.hash_input_derivation_modulo(modulo).map_err(refused)
}

fn check_inputs<'a>(
    parsed: &Parsed,
    inputs: impl Fn(&StorePath) -> Option<Input<'a>>,
) -> Result<(), Error> {
    for (path, wanted) in parsed.derivation.input_derivations() {
        let Some(input) = inputs(path) else {
            return Err(Error::UnknownInput {
                drv: parsed.path.clone(),
                input: path.clone(),
            });
        };
        let outputs = input.outputs;
        if let Some(output) = wanted
            .outputs()
            .iter()
            .find(|name| !outputs.contains(*name))
        {
            return Err(Error::NoSuchOutput {
                drv: parsed.path.clone(),
                input: Box::new(path.clone()),
                output: output.clone(),
            });
        }
    }
    Ok(())
}

fn check_path(
    parsed: &Parsed,
    output: &str,
    declared: Option<&StorePath>,
    expected: StorePath,
) -> Result<(), Error> {
    match declared {
        Some(declared) if *declared != expected => Err(Error::OutputPath {
            drv: parsed.path.clone(),
            output: output.to_owned(),
            declared: Box::new(declared.clone()),
            expected: Box::new(expected),
        }),
        _ => Ok(()),
    }
}

fn check_variable(parsed: &Parsed, output: &str, path: &StorePath) -> Result<(), Error> {
    let found = parsed.derivation.environment().get(output);
    if found.is_some_and(|value| *value == path.to_string().as_bytes()) {
        return Ok(());
    }
    Err(Error::OutputVariable {
        drv: parsed.path.clone(),
        output: output.to_owned(),
        found: found
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default(),
        expected: Box::new(path.clone()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::super::tests::{VECTORS, path_of, vector};
    use super::super::{decode, parse};
    use super::*;

    struct Checked {
        parsed: Parsed,
        modulo: Modulo,
        outputs: BTreeSet<String>,
    }

    impl Checked {
        fn new(parsed: Parsed, modulo: Modulo) -> Self {
            let outputs = parsed.outputs.keys().cloned().collect();
            Self {
                parsed,
                modulo,
                outputs,
            }
        }

        fn input(&self) -> Input<'_> {
            Input {
                outputs: &self.outputs,
                modulo: self.modulo,
            }
        }
    }

    /// Every vector with its identity, by path.
    fn checked() -> BTreeMap<StorePath, Checked> {
        let mut waiting: Vec<Parsed> = fs_err::read_dir(format!("{VECTORS}/drv"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = StorePath::from_basename(entry.file_name().as_encoded_bytes()).unwrap();
                parse(&path, &fs_err::read(entry.path()).unwrap()).unwrap()
            })
            .collect();
        let mut done: BTreeMap<StorePath, Checked> = BTreeMap::new();
        while !waiting.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|parsed| {
                parsed
                    .derivation
                    .input_derivations()
                    .keys()
                    .all(|path| done.contains_key(path))
            });
            assert!(!ready.is_empty());
            for parsed in ready {
                let modulo = check_outputs(&parsed, |path| done.get(path).map(Checked::input));
                let checked = Checked::new(parsed, modulo.unwrap());
                done.insert(checked.parsed.path.clone(), checked);
            }
            waiting = rest;
        }
        done
    }

    #[test]
    fn vectors_have_the_hashes_and_paths_that_nix_computed() {
        let checked = checked();
        let manifest: Value =
            serde_json::from_slice(&fs_err::read(format!("{VECTORS}/manifest.json")).unwrap())
                .unwrap();
        let mut compared = 0;
        for list in ["derivations", "caDerivations"] {
            for case in manifest[list].as_array().unwrap() {
                let path: StorePath = case["drv"].as_str().unwrap().parse().unwrap();
                compare(case, &checked[&path], &checked);
                compared += 1;
            }
        }
        assert_eq!(compared, 51);
    }

    fn compare(case: &Value, one: &Checked, checked: &BTreeMap<StorePath, Checked>) {
        let Checked { parsed, modulo, .. } = one;
        let hashes = &case["hashModulo"];
        assert_eq!(
            hashes["kind"] == "deferred",
            modulo.is_deferred(),
            "{}",
            parsed.path
        );
        let digest = match *modulo {
            Modulo::Regular(hash) => {
                let masked = parsed
                    .derivation
                    .hash_output_path_modulo(|path| checked[path].modulo)
                    .unwrap();
                for (_, expected) in hashes["masked"].as_object().unwrap() {
                    assert_eq!(*expected, masked.into_ready().unwrap().to_string());
                }
                hash
            }
            Modulo::FixedOutput(hash) => hash,
            Modulo::Deferred => return,
        };
        for (output, expected) in hashes["asInput"].as_object().unwrap() {
            assert_eq!(*expected, digest.to_string(), "{}", parsed.path);
            // A fixed output whose content is wrong is recorded under its real path.
            if case["exitCode"] == 0 {
                let path = parsed.outputs[output].as_ref().unwrap().to_string();
                assert_eq!(case["outputs"][output]["path"], path);
            }
        }
    }

    #[test]
    fn an_output_that_does_not_follow_from_the_content_is_refused() {
        let text = String::from_utf8(vector("bare").1).unwrap();
        let other = text.replace("kl0nqi1p", "kl0nqi1q");
        let path = path_of("bare", other.as_bytes());
        let parsed = parse(&path, other.as_bytes()).unwrap();
        let error = check_outputs(&parsed, |_| None).unwrap_err();
        assert!(matches!(error, Error::OutputPath { .. }), "{error}");
    }

    #[test]
    fn a_variable_that_does_not_hold_its_output_is_refused() {
        let text = String::from_utf8(vector("bare").1).unwrap();
        let declared = r#"("out","/nix/store/kl0nqi1p7iyja0imiv0v75jx3rj58yv2-bare")"#;
        let other = text.replace(declared, r#"("out","/nix/store")"#);
        assert_ne!(other, text);
        let parsed = decode(&vector("bare").0, other.as_bytes()).unwrap();
        let error = check_outputs(&parsed, |_| None).unwrap_err();
        assert!(matches!(error, Error::OutputVariable { .. }), "{error}");
    }

    #[test]
    fn an_input_without_the_wanted_output_is_refused() {
        let checked = checked();
        let (path, bytes) = vector("dep-dev-only");
        let text = String::from_utf8(bytes)
            .unwrap()
            .replacen(r#"["dev"]"#, r#"["devel"]"#, 1);
        let parsed = decode(&path, text.as_bytes()).unwrap();
        let error = check_outputs(&parsed, |path| checked.get(path).map(Checked::input));
        let error = error.unwrap_err();
        assert!(matches!(error, Error::NoSuchOutput { ref output, .. } if output == "devel"));
        let error = check_outputs(&parsed, |_| None).unwrap_err();
        assert!(matches!(error, Error::UnknownInput { .. }));
    }
}
