//! Reads the values of secrets, at the start of a run, before anything is built.
//!
//! All that are missing are named at once. A value is in memory only, and nothing prints it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::error::{Error, Kind};
use crate::pipeline::{Pipeline, Secret};

/// A secret's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl Value {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Gives the bytes to whoever delivers them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(..)")
    }
}

/// Where values come from.
pub trait Source {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// A file's content.
    fn file(&self, path: &Path) -> std::io::Result<Vec<u8>>;
}

/// This process's environment and files.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

impl Source for Machine {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        fs_err::read(path)
    }
}

/// The values of every secret of every effect, by the effect's name and the secret's.
pub type Values = BTreeMap<String, BTreeMap<String, Value>>;

/// Reads all secrets of a pipeline.
///
/// # Errors
///
/// Names every secret that is missing, with its source, never a value.
pub fn read(pipeline: &Pipeline, source: &impl Source) -> Result<Values, Error> {
    let mut values = Values::new();
    let mut missing = vec![];
    for effect in pipeline.effects.values() {
        for (name, secret) in &effect.secrets {
            let value = match secret {
                Secret::Variable(variable) if !can_be_named(variable) => {
                    Err(format!("`{variable}` cannot be the name of a variable"))
                }
                Secret::Variable(variable) => source
                    .variable(variable)
                    .map(OsString::into_vec)
                    .ok_or_else(|| format!("the variable `{variable}` is not set")),
                Secret::File(path) => source
                    .file(Path::new(path))
                    .map_err(|error| error.to_string()),
            };
            match value {
                Ok(bytes) => {
                    let secrets = values.entry(effect.name.clone()).or_default();
                    secrets.insert(name.clone(), Value::new(bytes));
                }
                Err(why) => {
                    missing.push(format!(
                        "secret `{name}` of effect `{}`: {why}",
                        effect.name
                    ));
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(values);
    }
    Err(Error::new(Kind::Other, missing.join("\n"))
        .hint("set it for this command; its value goes to the effect alone"))
}

/// The standard library panics on other names.
fn can_be_named(variable: &str) -> bool {
    !variable.is_empty() && !variable.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Effect, Root, StoreView};

    struct Fake;

    impl Source for Fake {
        fn variable(&self, name: &str) -> Option<OsString> {
            (name == "TOKEN").then(|| "s3cret".into())
        }

        fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/run/key") => Ok(vec![0xff, 0]),
                _ => Err(std::io::Error::other("no such file")),
            }
        }
    }

    fn pipeline(secrets: &[(&str, Secret)]) -> Pipeline {
        let secrets = secrets
            .iter()
            .map(|(name, secret)| ((*name).into(), secret.clone()));
        let effect = Effect {
            name: "deploy".into(),
            command: vec!["true".into()],
            tools: vec![],
            environment: BTreeMap::new(),
            after: [].into(),
            gate: [].into(),
            secrets: secrets.collect(),
            timeout: None,
            root: Root::Empty,
            store: StoreView::Closure,
            needs: vec![],
            sources: [].into(),
        };
        let effects = [("deploy".into(), effect)].into();
        Pipeline {
            name: "release".into(),
            builds: BTreeMap::new(),
            effects,
        }
    }

    #[test]
    fn reads_variables_and_files_as_bytes() {
        let pipeline = pipeline(&[
            ("a", Secret::Variable("TOKEN".into())),
            ("b", Secret::File("/run/key".into())),
        ]);
        let values = read(&pipeline, &Fake).unwrap();
        assert_eq!(values["deploy"]["a"].clone().into_bytes(), b"s3cret");
        assert_eq!(values["deploy"]["b"].clone().into_bytes(), [0xff, 0]);
        assert!(!format!("{values:?}").contains("s3cret"));
    }

    #[test]
    fn names_every_missing_one_and_no_value() {
        let pipeline = pipeline(&[
            ("a", Secret::Variable("TOKEN".into())),
            ("b", Secret::Variable("NOT_SET".into())),
            ("c", Secret::File("/run/none".into())),
            ("d", Secret::Variable("A=B".into())),
        ]);
        insta::assert_snapshot!(read(&pipeline, &Fake).unwrap_err(), @"
        error: secret `b` of effect `deploy`: the variable `NOT_SET` is not set
          secret `c` of effect `deploy`: no such file
          secret `d` of effect `deploy`: `A=B` cannot be the name of a variable
        hint: set it for this command; its value goes to the effect alone
        ");
    }
}
