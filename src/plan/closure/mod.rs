//! The `.drv` closure of what is wanted: read in parallel, every file checked.
//!
//! Files come from a [`Source`]. A closure that was loaded is whole, free of cycles, and every
//! output path in it follows from content; nothing later has to doubt it. It holds an [`Outline`]
//! of each derivation: what only a builder is given is read again where it is built.

mod arena;
mod drain;
mod edges;
mod names;
mod read;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::{fmt, thread};

use self::edges::Edges;
use self::read::Found;
use crate::nix::derivation::{self, Outline};
use crate::nix::{Ranked, StorePath};
use crate::plan::lists::Lists;

/// Where `.drv` files are read from.
pub trait Source: Sync {
    /// Reads a file; several threads ask at once.
    fn read(&self, drv: &StorePath) -> Result<Vec<u8>, SourceError>;
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// It is there and cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why a closure is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there.
    #[error("`{drv}` is missing{needed}")]
    Missing {
        /// The file.
        drv: StorePath,
        /// Who needs it.
        needed: Chain,
    },
    /// A file cannot be read.
    #[error("cannot read `{drv}`{needed}")]
    Unreadable {
        /// The file.
        drv: StorePath,
        /// Who needs it.
        needed: Chain,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// A file was read and something is wrong with it.
    #[error("cannot use `{drv}`{needed}")]
    Invalid {
        /// The file.
        drv: StorePath,
        /// Who needs it.
        needed: Chain,
        /// What is wrong with it.
        #[source]
        source: Box<derivation::Error>,
    },
    /// Derivations that need each other.
    #[error("derivations depend on each other in a cycle: {}", arrows(members))]
    Cycle {
        /// Each needs the next, the last needs the first.
        members: Vec<StorePath>,
    },
}

/// Who needs a derivation, from the nearest dependent to what was asked for; empty for a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(pub Vec<StorePath>);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|dependent| write!(f, ", needed by `{dependent}`"))
    }
}

fn arrows(members: &[StorePath]) -> String {
    let quoted = members
        .iter()
        .chain(members.first())
        .map(|member| format!("`{member}`"));
    quoted.collect::<Vec<_>>().join(" -> ")
}

/// Derivations with all they need, each checked. Sorted by path.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    nodes: Vec<Arc<Outline>>,
    /// The greater parts of the nodes' digests: what is looked for in them is found without looking
    /// at nodes.
    ranks: Vec<u128>,
    /// Each node's inputs, in the order of their paths.
    inputs: Lists<Need>,
    /// Each node's dependents, in the order of their paths.
    dependents: Lists<u32>,
    sets: Vec<Names>,
    /// Positions in `nodes`, inputs before dependents.
    topological: Vec<u32>,
}

/// A set of outputs.
pub type Names = Arc<BTreeSet<String>>;

/// What a derivation needs of another.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The other's position in [`Closure::derivations`].
    pub position: u32,
    /// The outputs it needs: a position in [`Closure::sets`].
    pub outputs: u32,
}

impl Closure {
    /// Every derivation, sorted by path.
    pub fn derivations(&self) -> &[Arc<Outline>] {
        &self.nodes
    }

    /// A derivation's inputs, in the order of their paths.
    pub fn inputs(&self, position: usize) -> &[Need] {
        self.inputs.of_one(position)
    }

    /// Positions of those that need a derivation, in order.
    pub fn dependents(&self, position: usize) -> &[u32] {
        self.dependents.of_one(position)
    }

    /// Every set of outputs that is needed of some derivation, once.
    pub fn sets(&self) -> &[Names] {
        &self.sets
    }

    /// Positions in [`Closure::derivations`], inputs before dependents.
    pub fn topological(&self) -> &[u32] {
        &self.topological
    }

    /// The position of a derivation in [`Closure::derivations`].
    pub fn position(&self, drv: &StorePath) -> Option<usize> {
        let rank = Ranked::from(drv).rank;
        let first = self.ranks.partition_point(|other| *other < rank);
        let mut alike = (first..self.nodes.len()).take_while(|&at| self.ranks[at] == rank);
        alike.find(|&at| self.nodes[at].path == *drv)
    }

    /// A derivation by its path.
    pub fn get(&self, drv: &StorePath) -> Option<&Arc<Outline>> {
        self.position(drv).map(|position| &self.nodes[position])
    }
}

/// Reads and checks `roots` and all they need.
///
/// # Errors
/// One problem, the same one each time: a cycle if there is one, else that of the first bad file
/// by path.
pub fn load<'a>(
    roots: impl IntoIterator<Item = &'a StorePath>,
    source: &impl Source,
    threads: NonZeroUsize,
) -> Result<(Closure, Remains), Error> {
    let mut roots: Vec<Ranked<'_>> = roots.into_iter().map(Ranked::from).collect();
    roots.sort_unstable();
    roots.dedup();
    let roots: Vec<&StorePath> = roots.into_iter().map(|one| one.path).collect();
    let mut found = Found::read(&roots, source, threads);
    let refused = |(drv, error)| (drv, Problem::Invalid(Box::new(error)));
    let problem = found
        .unread
        .pop_first()
        .or_else(|| found.refused.pop_first().map(refused));
    let mut outlines = std::mem::take(&mut found.outlines);
    let edges = Edges::of(&found.files);
    let topological = edges.topological()?;
    if let Some((drv, problem)) = problem {
        let needed = edges.chain(&roots, &drv);
        return Err(problem.into_error(drv, needed));
    }
    let outlines = edges.numbers.iter().map(|&number| {
        let outline = outlines[number].take();
        outline.expect("without a problem or a cycle all are checked")
    });
    let closure = Closure {
        nodes: outlines.collect(),
        ranks: edges.ranks,
        topological,
        inputs: edges.inputs,
        dependents: edges.dependents,
        sets: std::mem::take(&mut found.sets),
    };
    Ok((closure, Remains { _found: found }))
}

/// What reading leaves behind: a hundred thousand small pieces that nobody needs, to be given back
/// when there is time.
pub struct Remains {
    _found: Found,
}

impl Remains {
    /// Gives them back while the caller goes on; without a thread, at once.
    pub fn clear(self) {
        let _ = thread::Builder::new().spawn(move || drop(self));
    }
}

enum Problem {
    Source(SourceError),
    Invalid(Box<derivation::Error>),
}

impl Problem {
    fn into_error(self, drv: StorePath, needed: Chain) -> Error {
        match self {
            Self::Source(SourceError::Missing) => Error::Missing { drv, needed },
            Self::Source(SourceError::Io(source)) => Error::Unreadable {
                drv,
                needed,
                source,
            },
            Self::Invalid(source) => Error::Invalid {
                drv,
                needed,
                source,
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
