//! What an effect finds at `/`, and how much of the store it sees.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::image::Reference;
use crate::nix::InStore;

/// What an effect finds at `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// Nothing but what every room has.
    Empty,
    /// An image of a registry.
    Image(Reference),
    /// An image that lies in the store, as an OCI layout.
    Layout(InStore),
    /// What a Dockerfile builds.
    Dockerfile(Dockerfile),
}

/// A build by a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dockerfile {
    /// The directory it may copy from.
    pub context: InStore,
    /// The Dockerfile, relative to the context.
    pub file: String,
    /// The stage that is the root; the last one by default.
    pub target: Option<String>,
    /// The values of its `ARG`s.
    pub args: BTreeMap<String, String>,
}

/// How much of the store an effect sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreView {
    /// The closure of what it refers to, read-only.
    Closure,
    /// All of it, and it may write: an effect that runs Nix itself.
    Whole,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Image(reference) => write!(f, "image {reference}"),
            Self::Layout(place) => write!(f, "image {place}"),
            Self::Dockerfile(build) => {
                write!(f, "{} of {}", build.file, build.context)?;
                match &build.target {
                    Some(target) => write!(f, ", stage {target}"),
                    None => Ok(()),
                }
            }
        }
    }
}
