//! What `sandbox-paths` bring from the store: as in Nix a room shows their closure too, and nothing
//! that is built there can refer to it.

use std::collections::BTreeSet;

use crate::agent::Shape;
use crate::nix::{InStore, StorePath};
use crate::tunnel::SandboxPath;

/// Returns the store paths that sandbox paths bring into a strong room, which needs their closures
/// too. A plain op has them mounted by itself.
pub fn tools(shape: Shape, paths: &[SandboxPath]) -> BTreeSet<StorePath> {
    let sources = paths.iter().filter_map(|path| InStore::parse(&path.source));
    match shape {
        Shape::Strong => sources.map(|source| source.path).collect(),
        Shape::Plain => BTreeSet::new(),
    }
}
