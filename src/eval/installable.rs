//! What the user types to name something to build.
//!
//! ```text
//! installable = subject [ "^" outputs ]          outputs = "*" | name { "," name }
//! subject     = "/nix/store/<hash>-<name>.drv"   also with Nix's older "!" before the names
//!             | flake-reference [ "#" attribute ]
//! ```
//!
//! The outputs are parsed here and never given to `nix`: 2.8 knows them for `.drv` paths only.
//! A flake reference is Nix's to understand; only what could not reach it unharmed is refused.

use std::fmt;

use crate::nix::{Outputs, STORE_DIR, StorePath, full_text};

/// Something to build, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installable {
    /// What it names.
    pub subject: Subject,
    /// The outputs wanted, where it says so.
    pub outputs: Option<Outputs>,
}

/// What an installable names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A derivation by its path: needs no evaluation.
    Derivation(StorePath),
    /// A flake reference, with or without an attribute, as `nix` takes it.
    Flake(String),
}

/// Why a text is no installable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was typed.
    #[error("an installable cannot be empty; `.` is the flake in this directory")]
    Empty,
    /// `nix` would take it for an option, or it cannot be an argument.
    #[error("`{text}` cannot be an installable")]
    Option {
        /// What was typed.
        text: String,
    },
    /// The text behind `^` or `!` is no list of outputs.
    #[error("`{outputs}` in `{text}` is neither `*` nor a list of outputs such as `out,dev`")]
    Outputs {
        /// What was typed.
        text: String,
        /// Behind the sign.
        outputs: String,
    },
    /// It lies in the store, but is no derivation.
    #[error("`{text}` is a store path but no `.drv`: there is nothing to build")]
    NotDerivation {
        /// What was typed.
        text: String,
    },
    /// It ends in `.drv` and is not in the store.
    #[error(
        "`{text}` is not below {STORE_DIR}: write a derivation as {STORE_DIR}/<hash>-<name>.drv, \
         wherever its store lies"
    )]
    OutsideStore {
        /// What was typed.
        text: String,
    },
    /// A malformed store path.
    #[error("`{text}` is not a valid store path")]
    StorePath {
        /// What was typed.
        text: String,
    },
}

impl Installable {
    /// Parses what the user typed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (subject, outputs) = split_outputs(text)?;
        if subject.is_empty() {
            return Err(Error::Empty);
        }
        if subject.starts_with('-') || subject.contains(['\0', '\n']) {
            return Err(Error::Option { text: text.into() });
        }
        let subject = if subject.contains('#') {
            Subject::Flake(subject.into())
        } else if subject.starts_with(STORE_DIR) {
            Subject::Derivation(derivation(subject, text)?)
        } else if subject.strip_suffix(".drv").is_some() {
            return Err(Error::OutsideStore { text: text.into() });
        } else {
            Subject::Flake(subject.into())
        };
        Ok(Self { subject, outputs })
    }
}

impl fmt::Display for Installable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Derivation(drv) => f.write_str(&full_text(drv))?,
            Subject::Flake(reference) => f.write_str(reference)?,
        }
        match &self.outputs {
            None => Ok(()),
            Some(Outputs::All) => f.write_str("^*"),
            Some(Outputs::Names(names)) => {
                write!(
                    f,
                    "^{}",
                    names.iter().cloned().collect::<Vec<_>>().join(",")
                )
            }
        }
    }
}

fn derivation(subject: &str, text: &str) -> Result<StorePath, Error> {
    let path: StorePath = subject.parse().map_err(|_| Error::StorePath {
        text: text.to_owned(),
    })?;
    if path.is_derivation() {
        Ok(path)
    } else {
        Err(Error::NotDerivation { text: text.into() })
    }
}

/// Splits `subject^out,dev`, for attributes of files and expressions as well.
pub fn split_outputs(text: &str) -> Result<(&str, Option<Outputs>), Error> {
    let split = sign(text, '^').or_else(|| {
        // `!` is part of no store path, but may be part of a flake's address.
        text.starts_with(STORE_DIR)
            .then(|| sign(text, '!'))
            .flatten()
    });
    let Some((subject, names)) = split else {
        return Ok((text, None));
    };
    match outputs(names) {
        Some(outputs) => Ok((subject, Some(outputs))),
        None => Err(Error::Outputs {
            text: text.into(),
            outputs: names.into(),
        }),
    }
}

/// Splits at the last sign that stands outside of quotes: `.#"a^b"` has none.
fn sign(text: &str, sign: char) -> Option<(&str, &str)> {
    let (before, after) = text.rsplit_once(sign)?;
    (before.matches('"').count() % 2 == 0).then_some((before, after))
}

/// Reads `*`, or names as Nix allows them in a derivation's outputs.
fn outputs(text: &str) -> Option<Outputs> {
    if text == "*" {
        return Some(Outputs::All);
    }
    let good = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-._?=".contains(c))
    };
    text.split(',')
        .map(|name| good(name).then(|| name.to_owned()))
        .collect::<Option<_>>()
        .map(Outputs::Names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-d.drv";

    fn names(list: &[&str]) -> Outputs {
        Outputs::Names(list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_flakes_and_derivations() {
        let flake = |text: &str| Subject::Flake(text.into());
        let drv = || Subject::Derivation(DRV.parse().unwrap());
        let cases = [
            (".", flake("."), None),
            (".#hello", flake(".#hello"), None),
            ("#hello", flake("#hello"), None),
            (
                "path:/a?dir=b#checks.x86_64-linux.unit^out,dev",
                flake("path:/a?dir=b#checks.x86_64-linux.unit"),
                Some(names(&["out", "dev"])),
            ),
            (".#a^*", flake(".#a"), Some(Outputs::All)),
            (".^dev", flake("."), Some(names(&["dev"]))),
            (".#\"a^b\"", flake(".#\"a^b\""), None),
            (".#\"a^b\"^out", flake(".#\"a^b\""), Some(names(&["out"]))),
            (".#a.drv", flake(".#a.drv"), None),
            ("github:a/b!c", flake("github:a/b!c"), None),
            (
                "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-source#x",
                flake("/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-source#x"),
                None,
            ),
        ];
        for (text, subject, outputs) in cases {
            assert_eq!(
                Installable::parse(text),
                Ok(Installable { subject, outputs }),
                "{text}"
            );
        }
        for (suffix, outputs) in [
            ("", None),
            ("^*", Some(Outputs::All)),
            ("!out", Some(names(&["out"]))),
            ("!out,dev", Some(names(&["out", "dev"]))),
            ("^dev", Some(names(&["dev"]))),
        ] {
            let expected = Installable {
                subject: drv(),
                outputs,
            };
            assert_eq!(Installable::parse(&format!("{DRV}{suffix}")), Ok(expected));
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        let refuse = |text: &str| Installable::parse(text).unwrap_err().to_string();
        assert!(refuse("").contains("cannot be empty"));
        assert!(refuse("^out").contains("cannot be empty"));
        assert!(refuse("--impure").contains("cannot be an installable"));
        for text in [".#a^", ".#a^out,", ".#a^o t", ".#a^**"] {
            assert!(refuse(text).contains("neither `*` nor"), "{text}");
        }
        assert!(refuse("./x.drv").contains("not below /nix/store"));
        assert!(refuse("/tmp/root/nix/store/x.drv").contains("not below /nix/store"));
        assert!(refuse("/nix/store/x.drv").contains("not a valid store path"));
        assert!(refuse(&DRV.replace(".drv", "")).contains("no `.drv`"));
    }

    #[test]
    fn prints_what_it_parses() {
        for text in [".#a^dev,out", ".#a^*", DRV, "."] {
            assert_eq!(Installable::parse(text).unwrap().to_string(), text);
        }
    }
}
