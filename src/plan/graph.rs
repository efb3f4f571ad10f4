//! Derivations as a graph: who wants which outputs of whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::nix::derivation::Outline;
use crate::nix::{Outputs, Ranked, StorePath, Wanted};
use crate::plan::{Closure, closure};

/// A node of a [`Graph`]: nodes are numbered in the order of their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// A closure and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    roots: Vec<Root>,
    topological: Vec<NodeIndex>,
}

/// A derivation.
#[derive(Debug, Clone)]
pub struct Node {
    /// The file.
    pub parsed: Arc<Outline>,
    /// What it needs, in the order of paths.
    inputs: Vec<closure::Input>,
    /// Who needs it, in the order of paths.
    pub dependents: Vec<NodeIndex>,
}

/// What a derivation needs of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// The other.
    pub node: NodeIndex,
    /// The outputs it needs.
    pub outputs: &'a Arc<BTreeSet<String>>,
}

impl Node {
    /// What it needs, in the order of paths.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Input<'_>> {
        self.inputs.iter().map(|input| Input {
            node: NodeIndex(input.position),
            outputs: &input.outputs,
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
        let roots = wanted
            .iter()
            .map(|wanted| root(&closure, wanted))
            .collect::<Result<_, _>>()?;
        let Closure {
            nodes,
            inputs,
            topological,
        } = closure;
        let mut counts = vec![0; nodes.len()];
        for input in inputs.iter().flatten() {
            counts[input.position] += 1;
        }
        let node = |((parsed, inputs), count)| Node {
            parsed,
            inputs,
            dependents: Vec::with_capacity(count),
        };
        let mut nodes: Vec<Node> = nodes
            .into_iter()
            .zip(inputs)
            .zip(counts)
            .map(node)
            .collect();
        for dependent in 0..nodes.len() {
            for at in 0..nodes[dependent].inputs.len() {
                let input = nodes[dependent].inputs[at].position;
                nodes[input].dependents.push(NodeIndex(dependent));
            }
        }
        Ok(Self {
            nodes,
            roots,
            topological: topological.into_iter().map(NodeIndex).collect(),
        })
    }

    /// All nodes, in the order of their paths.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(node, value)| (NodeIndex(node), value))
    }

    /// One node.
    pub fn node(&self, node: NodeIndex) -> &Node {
        &self.nodes[node.0]
    }

    /// The node of a derivation.
    pub fn find(&self, drv: &StorePath) -> Option<NodeIndex> {
        self.nodes
            .binary_search_by(|node| node.parsed.path.cmp(drv))
            .ok()
            .map(NodeIndex)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What is wanted, as given.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// All nodes, inputs before dependents.
    pub fn topological(&self) -> &[NodeIndex] {
        &self.topological
    }

    /// Every store path whose validity [`decide`](crate::plan::decide()) may depend on: known
    /// output paths, sources and the `.drv` files themselves.
    pub fn paths(&self) -> BTreeSet<StorePath> {
        let paths = self.nodes.iter().flat_map(|node| {
            let outputs = node.parsed.outputs.values().flatten();
            let sources = &node.parsed.sources;
            outputs
                .chain(sources)
                .chain(std::iter::once(&node.parsed.path))
        });
        let mut paths: Vec<Ranked<'_>> = paths.map(Ranked::from).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.into_iter().map(|one| one.path.clone()).collect()
    }
}

fn root(closure: &Closure, wanted: &Wanted) -> Result<Root, Error> {
    let name = wanted.name.clone();
    let Some(position) = closure.position(&wanted.drv) else {
        return Err(Error::NotInClosure {
            name,
            drv: wanted.drv.clone(),
        });
    };
    let known = &closure.derivations()[position].outputs;
    let outputs: BTreeSet<String> = match &wanted.outputs {
        Outputs::All => known.keys().map(ToOwned::to_owned).collect(),
        Outputs::Names(names) => names.clone(),
    };
    if let Some(output) = outputs.iter().find(|output| !known.contains_key(output)) {
        return Err(Error::NoSuchOutput {
            name,
            drv: wanted.drv.clone(),
            output: output.clone(),
            outputs: known.keys().map(ToOwned::to_owned).collect(),
        });
    }
    Ok(Root {
        name,
        node: NodeIndex(position),
        outputs: Arc::new(outputs),
    })
}
