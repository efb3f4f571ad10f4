//! Builds and effects as data: what `nix` evaluates a pipeline to, and what is legal in it.
//!
//! Design §6. This module does no I/O: `eval` hands it JSON, it hands back a [`Pipeline`] or says
//! which field of which effect is wrong.
//!
//! The shape of the fields is checked in Nix, by `nix/normalise.nix`, which alone can see string
//! context; what spans several of them (unknown names, cycles, durations) is checked in [`read`].

mod check;
pub mod duration;
pub mod image;
pub mod order;
pub mod read;
pub mod root;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use image::Reference;
pub use read::{Answer, Error, Fault, Read, from_json};
pub use root::{Dockerfile, Root, StoreView};
use serde::Serialize;

use crate::nix::{StorePath, Wanted};

/// Named builds and effects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pipeline {
    /// Its attribute name.
    pub name: String,
    /// Pure builds, by name.
    pub builds: BTreeMap<String, Wanted>,
    /// Effects, by name.
    pub effects: BTreeMap<String, Effect>,
}

/// An impure step: never cached, never retried by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// Its attribute name.
    pub name: String,
    /// Program and arguments, never empty; no shell is involved.
    pub command: Vec<String>,
    /// Store paths whose `bin` directories make its `PATH`, in order.
    pub tools: Vec<String>,
    /// Its environment, besides what the room always has.
    pub environment: BTreeMap<String, String>,
    /// Effects that must have succeeded before.
    pub after: BTreeSet<String>,
    /// Names of the builds that must be good before it starts; all of the pipeline's by default.
    pub gate: BTreeSet<String>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// How long it may run.
    #[serde(serialize_with = "seconds")]
    pub timeout: Option<Duration>,
    /// What it finds at `/`.
    pub root: Root,
    /// How much of the store it sees.
    pub store: StoreView,
    /// Derivation outputs that its strings refer to (by string context): built before it starts
    /// and visible to it, with their closures.
    pub needs: Vec<Wanted>,
    /// Store paths without a derivation (sources) that its strings refer to.
    #[serde(with = "crate::nix::text::paths")]
    pub sources: BTreeSet<StorePath>,
}

/// Where a secret's value comes from. The value itself is never part of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secret {
    /// A variable of the environment of `pontoon`.
    Variable(String),
    /// A file on the machine where `pontoon` runs.
    File(String),
}

#[expect(
    clippy::ref_option,
    reason = "serde hands over a reference to the field"
)]
fn seconds<S: serde::Serializer>(timeout: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    timeout.map(|timeout| timeout.as_secs()).serialize(to)
}
