//! What a plan has to know of a derivation, and nothing that only its builder is given.
//!
//! A plan of a system holds tens of thousands of derivations, nine tenths of which are scripts and
//! variables. So a file is read, checked and let go; this is what stays of it.

use std::ops::Index;

use super::Parsed;
use super::unsupported::Demands;
use crate::nix::{Output, StorePath};

/// What stays of a `.drv` file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its store path.
    pub path: StorePath,
    /// The kind of machine that it is built on.
    pub system: Box<str>,
    /// Output paths by name, as in [`Parsed::outputs`].
    pub outputs: OutputPaths,
    /// The sources it refers to, in order.
    pub sources: Box<[StorePath]>,
    /// Whether the content of its output is known before it is built.
    pub fixed: bool,
    /// Whether a binary cache may be asked for its outputs.
    pub allows_substitutes: bool,
    /// What it asks of who builds it.
    pub demands: Demands,
}

impl Outline {
    /// Forgets the rest.
    pub fn of(parsed: Parsed) -> Self {
        let allows_substitutes = parsed.allows_substitutes();
        let Parsed {
            path,
            derivation,
            outputs,
        } = parsed;
        let is_fixed = |output: &Output| matches!(output, Output::Fixed { .. });
        Self {
            path,
            system: derivation.system().into(),
            outputs: outputs.into_iter().collect(),
            sources: derivation.input_sources().iter().cloned().collect(),
            fixed: derivation.outputs().values().any(is_fixed),
            allows_substitutes,
            demands: Demands::of(&derivation),
        }
    }

    /// The derivation's name, without `.drv`.
    pub fn name(&self) -> &str {
        let name = self.path.name();
        name.strip_suffix(".drv").unwrap_or(name)
    }
}

/// Output paths by name, in the order of names; `None` where only the build will tell.
///
/// There are few, so a list takes a tenth of what a map takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPaths(Box<[(Box<str>, Option<StorePath>)]>);

impl OutputPaths {
    /// The path of an output, if there is that output.
    pub fn get(&self, name: &str) -> Option<&Option<StorePath>> {
        let mut outputs = self.iter();
        outputs.find_map(|(output, path)| (output == name).then_some(path))
    }

    /// Whether there is an output.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Names and paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Option<StorePath>)> + Clone {
        self.0.iter().map(|(name, path)| (&**name, path))
    }

    /// Names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.iter().map(|(name, _)| name)
    }

    /// Paths, in the order of names.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Option<StorePath>> {
        self.iter().map(|(_, path)| path)
    }
}

/// The names must be in order, none twice.
impl<S: Into<Box<str>>> FromIterator<(S, Option<StorePath>)> for OutputPaths {
    fn from_iter<I: IntoIterator<Item = (S, Option<StorePath>)>>(outputs: I) -> Self {
        let outputs = outputs.into_iter();
        let outputs: Box<[_]> = outputs.map(|(name, path)| (name.into(), path)).collect();
        debug_assert!(outputs.is_sorted_by(|a, b| a.0 < b.0));
        Self(outputs)
    }
}

impl Index<&str> for OutputPaths {
    type Output = Option<StorePath>;

    fn index(&self, name: &str) -> &Option<StorePath> {
        self.get(name).expect("there is an output of this name")
    }
}
