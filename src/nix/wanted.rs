//! A derivation and the outputs somebody wants of it: `/nix/store/….drv^out,dev`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::nix::StorePath;

/// Which outputs of a derivation are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outputs {
    /// Every output the derivation has (`^*`).
    All,
    /// These, never empty.
    Names(BTreeSet<String>),
}

/// Something to realise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What the user or the pipeline calls it: an installable, or a build's name.
    pub name: String,
    /// The derivation.
    #[serde(with = "crate::nix::text::path")]
    pub drv: StorePath,
    /// Its outputs.
    pub outputs: Outputs,
}
