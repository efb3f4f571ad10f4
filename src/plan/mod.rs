//! What a run is going to do, and why: pure, from derivations and a set of valid paths.
//!
//! ```text
//! roots -> closure::load -> Closure -> Graph -> decide(valid paths) -> Plan -> show
//! ```
//!
//! A derivation is looked at only if somebody asks for it who was asked for: the user, an effect,
//! or a derivation that must be built. It is wanted with the union of the outputs those ask for.
//! If all of these are valid it is *valid* and its inputs are not looked at, even if other outputs
//! are missing; else it must be *built* (Nix spec §8.1). Real Nix decides the same way
//! (`nix-store --realise --dry-run`). Binary caches are not asked yet, and [`show`] says so.
//!
//! Left out: any I/O. Readers and answers come as arguments.

pub mod closure;
mod decide;
pub mod effects;
mod given;
pub mod graph;
mod lists;
mod order;
pub mod show;
mod valid;
mod walk;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use closure::Closure;
pub use decide::decide;
pub use effects::Effects;
pub use graph::{Graph, NodeIndex};

use crate::nix::StorePath;
use crate::nix::derivation::Unsupported;

/// A decision for every node of a [`Graph`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// By [`NodeIndex`].
    pub nodes: Vec<Decided>,
    /// All that must be built, most urgent first: of those that are ready, the first one starts.
    ///
    /// Longest way up through what must be built, then name, then path.
    pub order: Vec<NodeIndex>,
    /// Store paths that the build store lacks and that must be brought there before: sources of
    /// what must be built, and its `.drv` files with all `.drv` files they need.
    pub imports: BTreeSet<StorePath>,
    /// How much of the work binary caches might have spared.
    pub caches: Caches,
}

/// What was decided for a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The outputs that are asked for; empty if nobody asks.
    pub wanted: Arc<BTreeSet<String>>,
    /// Who asks, in order; empty if nobody does.
    pub wanted_by: Vec<Wanter>,
    /// What will happen.
    pub decision: Decision,
    /// Inputs that must be built before; empty unless this must be built.
    pub waits_for: Vec<NodeIndex>,
    /// How many builds must follow one after the other once this one is done.
    pub height: usize,
}

/// What will happen with a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: nobody asks for it who will be built.
    Unneeded,
    /// Nothing: the outputs that are asked for are valid.
    Valid,
    /// It will be built.
    Build(Missing),
    /// It would have to be built and cannot be.
    Refused(Missing, Unsupported),
}

/// The outputs that are asked for and not valid, or whose paths are unknown; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub Arc<BTreeSet<String>>);

impl Decision {
    /// What is missing, if it must be built.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Unneeded | Self::Valid => None,
            Self::Build(missing) | Self::Refused(missing, _) => Some(missing),
        }
    }
}

/// Somebody who asks for outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanter {
    /// The user or the pipeline: a position in [`Graph::roots`].
    Root(usize),
    /// A derivation that must be built.
    Node(NodeIndex),
}

/// What binary caches might have held, had they been asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caches {
    /// Outputs that are missing.
    pub missing: usize,
    /// Those of them that may be downloaded (`allowSubstitutes`).
    pub allowed: usize,
}

/// How many derivations were decided which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of the closure.
    pub derivations: usize,
    /// Asked for and valid.
    pub valid: usize,
    /// Not asked for.
    pub unneeded: usize,
    /// To be built.
    pub build: usize,
    /// To be built, and refused.
    pub refused: usize,
}

impl Plan {
    /// The plan before anything was decided: of no node.
    pub fn nothing() -> Self {
        Self {
            nodes: Vec::new(),
            order: Vec::new(),
            imports: BTreeSet::new(),
            caches: Caches::default(),
        }
    }

    /// What was decided for a node.
    pub fn node(&self, node: NodeIndex) -> &Decided {
        &self.nodes[node.0]
    }

    /// Counts the decisions.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            derivations: self.nodes.len(),
            ..Counts::default()
        };
        for node in &self.nodes {
            *match node.decision {
                Decision::Unneeded => &mut counts.unneeded,
                Decision::Valid => &mut counts.valid,
                Decision::Build(_) => &mut counts.build,
                Decision::Refused(..) => &mut counts.refused,
            } += 1;
        }
        counts
    }

    /// What must be built and cannot be, in the order of paths, and why.
    pub fn refused(&self) -> impl Iterator<Item = (NodeIndex, &Unsupported)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(node, decided)| match &decided.decision {
                Decision::Refused(_, unsupported) => Some((NodeIndex(node), unsupported)),
                _ => None,
            })
    }
}

#[cfg(test)]
pub(crate) mod tests;
