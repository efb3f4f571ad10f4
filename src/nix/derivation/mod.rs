//! Derivations: reading `.drv` files, checking them, and what a builder is given.
//!
//! | step | what it shows | where |
//! |---|---|---|
//! | [`decode`] | the bytes are a derivation | here |
//! | [`Parsed::check_path`] | the bytes belong to the file's name (Nix spec §2.3) | here |
//! | [`check_outputs`] | the output paths follow from the content (§2.5, §2.6) | [`modulo`] |
//! | [`Outline`] | what of it a plan keeps | [`mod@outline`] |
//! | [`Draft`] | all of these at once, for a plan, in the short way where there is one | [`draft`] |
//! | [`unsupported()`] | nothing is asked for that is not built yet | [`mod@unsupported`] |
//! | [`Recipe`] | program, environment and files of the builder (§4.3 to §4.5) | [`recipe`] |
//!
//! A file that is merely unsorted is legal: its name is the hash of its bytes, its outputs follow
//! from the sorted form. The syntax itself, hashing and paths are the `nix-derivation` crate's,
//! which takes derivations whose arguments and names are UTF-8; others are refused by name.

pub mod draft;
pub mod modulo;
pub mod outline;
mod plain;
pub mod recipe;
pub mod unsupported;

use std::collections::BTreeMap;

pub use draft::{Draft, Wanted};
pub use modulo::{Input, Modulo, check_outputs};
pub use nix_derivation::InputDerivation;
pub use outline::{Outline, OutputPaths};
pub use recipe::{Network, OutputSpec, Personality, Recipe};
use sha2::{Digest as _, Sha256};
use unsupported::Attributes;
pub use unsupported::{Demands, Kvm, Level, Systems, Unsupported, unsupported};

use crate::nix::{Derivation, NixHash, STORE_DIR, StorePath, base32};

/// What is wrong with a `.drv` file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The path's name does not end in `.drv`.
    #[error("`{path}` is not a derivation: its name does not end in `.drv`")]
    Name {
        /// The path.
        path: StorePath,
    },
    /// The bytes are those of another store path.
    #[error("`{drv}` is corrupt: its bytes belong to `{actual}`")]
    Corrupt {
        /// The file.
        drv: StorePath,
        /// Where a file with these bytes would lie.
        actual: StorePath,
    },
    /// The bytes are not a derivation.
    #[error("`{drv}` is corrupt: at byte {offset}: {message}")]
    Syntax {
        /// The file.
        drv: StorePath,
        /// Where reading stopped.
        offset: usize,
        /// What was expected there.
        message: String,
    },
    /// A field that must be text for us is not, although Nix would take it.
    #[error("`{drv}`: its {field} is not UTF-8, which is not supported")]
    NotUtf8 {
        /// The file.
        drv: StorePath,
        /// Which kind of field.
        field: &'static str,
    },
    /// It is syntactically right and makes no sense.
    #[error("`{drv}` is not a valid derivation")]
    Malformed {
        /// The file.
        drv: StorePath,
        /// What is wrong.
        #[source]
        source: nix_derivation::Error,
    },
    /// An output path is not the one that follows from the content.
    #[error("`{drv}`: output `{output}` is declared as `{declared}` and should be `{expected}`")]
    OutputPath {
        /// The file.
        drv: StorePath,
        /// The output's name.
        output: String,
        /// What the file says.
        declared: Box<StorePath>,
        /// What follows from the file.
        expected: Box<StorePath>,
    },
    /// The variable named after an output does not hold its path.
    #[error("`{drv}`: variable `{output}` is `{found}` and should be `{expected}`")]
    OutputVariable {
        /// The file.
        drv: StorePath,
        /// The output's name.
        output: String,
        /// The value, or nothing if there is no such variable.
        found: String,
        /// The output's path.
        expected: Box<StorePath>,
    },
    /// It declares paths although an input's are not known before it is built.
    #[error("`{drv}` declares output paths, but those of an input are not known before its build")]
    PrematurePath {
        /// The file.
        drv: StorePath,
    },
    /// An input derivation that was not given to [`check_outputs`].
    #[error("`{drv}`: its input `{input}` is not known")]
    UnknownInput {
        /// The file.
        drv: StorePath,
        /// The input.
        input: StorePath,
    },
    /// It wants an output that its input does not have.
    #[error("`{drv}` wants output `{output}` of `{input}`, which has none of that name")]
    NoSuchOutput {
        /// The file.
        drv: StorePath,
        /// The input.
        input: Box<StorePath>,
        /// The output's name.
        output: String,
    },
    /// A string that a process is to be given holds a byte that ends strings.
    #[error("`{drv}`: its {field} holds a NUL byte")]
    NulByte {
        /// The file.
        drv: StorePath,
        /// Which string.
        field: String,
    },
    /// A builder's facts were asked of a derivation whose output paths are not known.
    #[error("`{drv}`: the path of output `{output}` is not known before the build")]
    UnknownOutputPath {
        /// The file.
        drv: StorePath,
        /// The output's name.
        output: String,
    },
}

/// A `.drv` file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Its store path.
    pub path: StorePath,
    /// Its content.
    pub derivation: Derivation,
    /// Output paths by name; `None` where only the build will tell.
    ///
    /// A fixed output's path is recomputed from its hash: what the file states is ignored, as Nix
    /// ignores it (Nix spec §2.2).
    pub outputs: BTreeMap<String, Option<StorePath>>,
}

/// Reads a `.drv` file and checks that its bytes belong to its name.
pub fn parse(path: &StorePath, bytes: &[u8]) -> Result<Parsed, Error> {
    let parsed = decode(path, bytes)?;
    parsed.check_path(bytes)?;
    Ok(parsed)
}

/// Reads a `.drv` file without asking whether its bytes belong to its name.
pub fn decode(path: &StorePath, bytes: &[u8]) -> Result<Parsed, Error> {
    let name = path
        .name()
        .strip_suffix(".drv")
        .ok_or_else(|| Error::Name { path: path.clone() })?;
    let malformed = |source| malformed(path, source);
    let derivation = Derivation::from_aterm_bytes(bytes, name).map_err(malformed)?;
    let outputs = derivation
        .outputs()
        .iter()
        .map(|(output, kind)| Ok((output.clone(), kind.path(name, output)?)))
        .collect::<Result<_, nix_derivation::Error>>()
        .map_err(malformed)?;
    Ok(Parsed {
        path: path.clone(),
        derivation,
        outputs,
    })
}

impl Parsed {
    /// Checks that `bytes`, which this was decoded from, belong to the file's name.
    pub fn check_path(&self, bytes: &[u8]) -> Result<(), Error> {
        let drv = &self.derivation;
        let mut references: Vec<&StorePath> = drv
            .input_derivations()
            .keys()
            .chain(drv.input_sources())
            .collect();
        references.sort_unstable();
        references.dedup();
        let actual = text_path(self.path.name(), bytes, &references)
            .map_err(|source| malformed(&self.path, source.into()))?;
        if actual == self.path {
            Ok(())
        } else {
            Err(Error::Corrupt {
                drv: self.path.clone(),
                actual,
            })
        }
    }

    /// The derivation's name, without `.drv`.
    pub fn name(&self) -> &str {
        self.derivation.name()
    }

    /// Whether a binary cache may be asked for the outputs (`allowSubstitutes`, Nix spec §8.1).
    pub fn allows_substitutes(&self) -> bool {
        let attributes = Attributes::of(&self.derivation);
        attributes.bool("allowSubstitutes").unwrap_or(true)
    }
}

/// Where a text lies that refers to these paths (Nix spec §2.3).
///
/// The crate's own function says the same; this one makes no copies, for a plan asks it of every
/// file that it reads.
fn text_path(
    name: &str,
    text: &[u8],
    references: &[&StorePath],
) -> Result<StorePath, nix_derivation::store_path::Error> {
    let mut hash = Sha256::new();
    hash.update(b"text");
    for reference in references {
        for part in [":", STORE_DIR, "/", &base32(reference.digest()), "-"] {
            hash.update(part);
        }
        hash.update(reference.name());
    }
    hash.update(format!(
        ":{}:{STORE_DIR}:{name}",
        NixHash::Sha256(Sha256::digest(text).into()).to_nix_base16_string()
    ));
    StorePath::from_parts(digest_of(hash), name)
}

/// What a store path has of the hash of its fingerprint (Nix spec §1.2).
fn digest_of(fingerprint: Sha256) -> [u8; 20] {
    let mut digest = [0; 20];
    for (at, byte) in fingerprint.finalize().into_iter().enumerate() {
        digest[at % 20] ^= byte;
    }
    digest
}

fn hex(hash: &[u8; 32]) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    };
    Hex(std::array::from_fn(|at| digits(&hash[at])))
}

/// The digits of a hash: a plan needs them a quarter of a million times.
struct Hex([[u8; 2]; 32]);

impl Hex {
    fn text(&self) -> &str {
        str::from_utf8(self.0.as_flattened()).expect("digits are ASCII")
    }
}

fn malformed(drv: &StorePath, source: nix_derivation::Error) -> Error {
    let drv = drv.clone();
    match source {
        nix_derivation::Error::Parse { offset, message } => Error::Syntax {
            drv,
            offset,
            message,
        },
        nix_derivation::Error::InvalidUtf8 { field } => Error::NotUtf8 { drv, field },
        source => Error::Malformed { drv, source },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::nix::StoreDir;

    pub(crate) const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

    pub(crate) fn vector(name: &str) -> (StorePath, Vec<u8>) {
        let entry = fs_err::read_dir(format!("{VECTORS}/drv"))
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.file_name().to_str().unwrap()[33..] == format!("{name}.drv"))
            .unwrap();
        let path = StorePath::from_basename(entry.file_name().as_encoded_bytes()).unwrap();
        (path, fs_err::read(entry.path()).unwrap())
    }

    /// The store path of a `.drv` file with these bytes, whatever they say.
    pub(crate) fn path_of(name: &str, bytes: &[u8]) -> StorePath {
        let drv = Derivation::from_aterm_bytes(bytes, name).unwrap();
        let references = drv.input_derivations().keys().chain(drv.input_sources());
        StoreDir::default()
            .build_text_path(&format!("{name}.drv"), bytes, references)
            .unwrap()
    }

    #[test]
    fn every_vector_belongs_to_its_name_and_round_trips() {
        for entry in fs_err::read_dir(format!("{VECTORS}/drv")).unwrap() {
            let entry = entry.unwrap();
            let path = StorePath::from_basename(entry.file_name().as_encoded_bytes()).unwrap();
            let bytes = fs_err::read(entry.path()).unwrap();
            let parsed = parse(&path, &bytes).unwrap();
            assert!(parsed.derivation.to_aterm_bytes() == bytes, "{path}");
        }
    }

    #[test]
    fn one_changed_byte_is_corrupt_by_name() {
        let (path, bytes) = vector("simple");
        let changed = String::from_utf8(bytes)
            .unwrap()
            .replacen("/bin/sh", "/bin/sx", 1);
        let error = parse(&path, changed.as_bytes()).unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { drv, .. } if *drv == path),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .starts_with(&format!("`{path}` is corrupt"))
        );
    }

    #[test]
    fn a_truncated_file_names_the_byte() {
        let (path, bytes) = vector("simple");
        for end in 0..bytes.len() {
            let error = parse(&path, &bytes[..end]).unwrap_err();
            assert!(
                matches!(error, Error::Syntax { offset, .. } if offset <= end),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_merely_unsorted_is_legal() {
        let sorted = vector("bare").1;
        let text = String::from_utf8(sorted).unwrap();
        let pairs = r#"("builder","/bin/false"),("name","bare")"#;
        assert!(text.contains(pairs));
        let unsorted = text.replace(pairs, r#"("name","bare"),("builder","/bin/false")"#);
        let path = path_of("bare", unsorted.as_bytes());
        let parsed = parse(&path, unsorted.as_bytes()).unwrap();
        assert_ne!(path, vector("bare").0);
        check_outputs(&parsed, |_| None).unwrap();
    }

    #[test]
    fn an_argument_that_is_not_utf8_is_refused_by_name() {
        let (path, bytes) = vector("simple");
        let at = bytes.windows(2).position(|two| two == b"-e").unwrap();
        let mut raw = bytes;
        raw[at] = 0xff;
        let error = parse(&path, &raw).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{path}`: its argument is not UTF-8, which is not supported")
        );
    }

    #[test]
    fn a_path_without_the_suffix_is_no_derivation() {
        let path = StorePath::from_parts([0; 20], "hello").unwrap();
        assert_eq!(parse(&path, b"").unwrap_err(), Error::Name { path });
    }
}
