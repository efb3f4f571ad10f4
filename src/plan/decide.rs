//! Valid or build: see the rule in the module above.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Node;
use super::{Caches, Decided, Decision, Graph, Missing, NodeIndex, Plan, Wanter, order};
use crate::nix::StorePath;
use crate::nix::derivation::Systems;

/// Decides for every node, given which of [`Graph::paths`] are valid in the build store.
pub fn decide(graph: &Graph, valid: &BTreeSet<StorePath>, systems: &Systems) -> Plan {
    let mut nodes = visit(graph, valid);
    refuse(graph, &mut nodes, systems);
    connect(graph, &mut nodes);
    let order = order::order(graph, &mut nodes);
    let imports = imports(graph, &order, valid);
    let caches = caches(graph, &nodes);
    Plan {
        nodes,
        order,
        imports,
        caches,
    }
}

/// Follows requests down from the roots. A request that finds an output missing turns its node
/// into a build, and the first such request passes on what the node itself asks for.
fn visit(graph: &Graph, valid: &BTreeSet<StorePath>) -> Vec<Decided> {
    let mut nodes = vec![undecided(); graph.len()];
    let roots = graph.roots().iter().enumerate();
    let mut requests: Vec<(Wanter, NodeIndex, &BTreeSet<String>)> = roots
        .map(|(at, root)| (Wanter::Root(at), root.node, &root.outputs))
        .collect();
    while let Some((wanter, index, outputs)) = requests.pop() {
        let decided = &mut nodes[index.0];
        let first = decided.wanted_by.is_empty();
        decided.wanted_by.push(wanter);
        if !first && outputs.is_subset(&decided.wanted) {
            continue;
        }
        decided.wanted.extend(outputs.iter().cloned());
        let was_build = decided.decision.missing().is_some();
        let node = graph.node(index);
        let missing = missing(node, &decided.wanted, valid);
        if missing.is_empty() {
            decided.decision = Decision::Valid;
            continue;
        }
        decided.decision = Decision::Build(Missing(missing));
        if !was_build {
            let inputs = node.inputs();
            requests.extend(inputs.map(|input| (Wanter::Node(index), input.node, input.outputs)));
        }
    }
    for decided in &mut nodes {
        decided.wanted_by.sort_unstable();
    }
    nodes
}

fn undecided() -> Decided {
    Decided {
        wanted: BTreeSet::new(),
        wanted_by: Vec::new(),
        decision: Decision::Unneeded,
        waits_for: Vec::new(),
        height: 0,
    }
}

/// If one path is unknown the derivation must be built, whatever else is valid, as in Nix.
fn missing(
    node: &Node,
    wanted: &BTreeSet<String>,
    valid: &BTreeSet<StorePath>,
) -> BTreeMap<String, Option<StorePath>> {
    let outputs = &node.parsed.outputs;
    let unknown = outputs.values().any(Option::is_none);
    outputs
        .iter()
        .filter(|(name, path)| match path {
            Some(path) => wanted.contains(*name) && !valid.contains(path),
            None => unknown,
        })
        .map(|(name, path)| (name.clone(), path.clone()))
        .collect()
}

fn refuse(graph: &Graph, nodes: &mut [Decided], systems: &Systems) {
    for (index, node) in graph.nodes() {
        let decision = &mut nodes[index.0].decision;
        let Decision::Build(missing) = decision else {
            continue;
        };
        if let Some(reason) = node
            .parsed
            .demands
            .unsupported(&node.parsed.system, systems)
        {
            *decision = Decision::Refused(missing.clone(), reason);
        }
    }
}

fn connect(graph: &Graph, nodes: &mut [Decided]) {
    for (index, node) in graph.nodes() {
        if nodes[index.0].decision.missing().is_some() {
            let inputs = node.inputs().map(|input| input.node);
            nodes[index.0].waits_for = inputs
                .filter(|input| nodes[input.0].decision.missing().is_some())
                .collect();
        }
    }
}

fn imports(graph: &Graph, build: &[NodeIndex], valid: &BTreeSet<StorePath>) -> BTreeSet<StorePath> {
    let mut imports: Vec<&StorePath> = Vec::new();
    let mut seen = vec![false; graph.len()];
    let mut waiting: Vec<NodeIndex> = build.to_vec();
    while let Some(index) = waiting.pop() {
        if std::mem::replace(&mut seen[index.0], true) {
            continue;
        }
        let node = graph.node(index);
        imports.push(&node.parsed.path);
        // A `.drv` file refers to its sources, so none can be registered without them.
        imports.extend(&*node.parsed.sources);
        let inputs = node.inputs().map(|input| input.node);
        waiting.extend(inputs.filter(|input| !seen[input.0]));
    }
    imports.sort_unstable();
    imports.dedup();
    imports.retain(|path| !valid.contains(*path));
    imports.into_iter().cloned().collect()
}

fn caches(graph: &Graph, nodes: &[Decided]) -> Caches {
    let mut caches = Caches::default();
    for (index, node) in graph.nodes() {
        if let Some(missing) = nodes[index.0].decision.missing() {
            caches.missing += missing.0.len();
            if node.parsed.allows_substitutes {
                caches.allowed += missing.0.len();
            }
        }
    }
    caches
}
