//! What a plan has to know of a derivation, and nothing that only its builder is given.
//!
//! A plan of a system holds tens of thousands of derivations, nine tenths of which are scripts and
//! variables. So a file is read, checked and let go; this is what stays of it.

use std::collections::BTreeMap;

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
    pub outputs: BTreeMap<String, Option<StorePath>>,
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
            outputs,
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
