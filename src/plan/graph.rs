//! Derivations as a graph: who wants which outputs of whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::nix::derivation::Outline;
use crate::nix::{Outputs, Ranked, StorePath, Wanted};
use crate::plan::Closure;
use crate::plan::closure::{Names, Need};

/// Among how many sets one is looked for.
const SETS: usize = 32;

/// A node of a [`Graph`]: nodes are numbered in the order of their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// A closure and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Graph {
    closure: Closure,
    roots: Vec<Root>,
}

/// A derivation.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// The file.
    pub parsed: &'a Arc<Outline>,
    needs: &'a [Need],
    sets: &'a [Names],
}

/// What a derivation needs of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// The other.
    pub node: NodeIndex,
    /// The outputs it needs.
    pub outputs: &'a Names,
}

impl<'a> Node<'a> {
    /// What it needs, in the order of paths.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Input<'a>> + use<'a> {
        let sets = self.sets;
        self.needs.iter().map(move |need| Input {
            node: NodeIndex(need.position as usize),
            outputs: &sets[need.outputs as usize],
        })
    }
}

/// What the user or the pipeline wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// What they call it.
    pub name: String,
    /// The derivation.
    pub node: NodeIndex,
    /// Its outputs, by name.
    pub outputs: Arc<BTreeSet<String>>,
}

/// Why something cannot be wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// An output that the derivation does not have.
    #[error(
        "`{name}`: derivation `{drv}` has no output `{output}`, only {}",
        list(outputs)
    )]
    NoSuchOutput {
        /// What the user calls it.
        name: String,
        /// The derivation.
        drv: StorePath,
        /// The output's name.
        output: String,
        /// Those it has.
        outputs: Vec<String>,
    },
    /// A derivation that is not in the closure.
    #[error("`{name}`: derivation `{drv}` was not read")]
    NotInClosure {
        /// What the user calls it.
        name: String,
        /// The derivation.
        drv: StorePath,
    },
}

fn list(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Graph {
    /// Connects a closure; `wanted` may name one derivation more than once.
    pub fn new(closure: Closure, wanted: &[Wanted]) -> Result<Self, Error> {
        let mut sets = closure.sets().to_vec();
        let roots = wanted
            .iter()
            .map(|wanted| root(&closure, wanted, &mut sets));
        let roots = roots.collect::<Result<_, _>>()?;
        Ok(Self { closure, roots })
    }

    /// All nodes, in the order of their paths.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, Node<'_>)> {
        let nodes = (0..self.len()).map(NodeIndex);
        nodes.map(|node| (node, self.node(node)))
    }

    /// One node.
    pub fn node(&self, node: NodeIndex) -> Node<'_> {
        Node {
            parsed: &self.closure.derivations()[node.0],
            needs: self.closure.inputs(node.0),
            sets: self.closure.sets(),
        }
    }

    /// How it hangs together: nodes have the numbers that they have there.
    pub fn closure(&self) -> &Closure {
        &self.closure
    }

    /// The node of a derivation.
    pub fn find(&self, drv: &StorePath) -> Option<NodeIndex> {
        self.closure.position(drv).map(NodeIndex)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.closure.derivations().len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.closure.derivations().is_empty()
    }

    /// What is wanted, as given.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Every store path whose validity [`decide`](crate::plan::decide()) may depend on: known
    /// output paths, sources and the `.drv` files themselves.
    pub fn paths(&self) -> BTreeSet<StorePath> {
        let paths = self.closure.derivations().iter().flat_map(|node| {
            let outputs = node.outputs.values().flatten();
            let own = std::iter::once(&node.path);
            outputs.chain(&node.sources).chain(own)
        });
        let mut paths: Vec<Ranked<'_>> = paths.map(Ranked::from).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.into_iter().map(|one| one.path.clone()).collect()
    }
}

/// What is wanted; most roots want the same `sets`.
fn root(closure: &Closure, wanted: &Wanted, sets: &mut Vec<Names>) -> Result<Root, Error> {
    let Some(position) = closure.position(&wanted.drv) else {
        return Err(Error::NotInClosure {
            name: wanted.name.clone(),
            drv: wanted.drv.clone(),
        });
    };
    let known = &closure.derivations()[position].outputs;
    let outputs = match &wanted.outputs {
        Outputs::All => one_of(sets, known.keys()),
        Outputs::Names(names) => one_of(sets, names.iter().map(String::as_str)),
    };
    if let Some(output) = outputs.iter().find(|output| !known.contains_key(output)) {
        return Err(Error::NoSuchOutput {
            name: wanted.name.clone(),
            drv: wanted.drv.clone(),
            output: output.clone(),
            outputs: known.keys().map(ToOwned::to_owned).collect(),
        });
    }
    Ok(Root {
        name: wanted.name.clone(),
        node: NodeIndex(position),
        outputs,
    })
}

/// The set that has these names, which are in order.
fn one_of<'a>(
    sets: &mut Vec<Names>,
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
) -> Names {
    let same =
        |set: &&Names| set.len() == names.len() && set.iter().map(String::as_str).eq(names.clone());
    if let Some(known) = sets.iter().take(SETS).find(same) {
        return known.clone();
    }
    let set: Names = Arc::new(names.map(ToOwned::to_owned).collect());
    sets.push(set.clone());
    set
}
