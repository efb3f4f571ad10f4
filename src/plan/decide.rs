//! Valid or build: see the rule in the module above.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use super::graph::Node;
use super::{Caches, Decided, Decision, Graph, Missing, NodeIndex, Plan, Wanter, order};
use crate::nix::derivation::Systems;
use crate::nix::{Ranked, StorePath};

/// Decides for every node, given which of [`Graph::paths`] are valid in the build store.
pub fn decide(graph: &Graph, valid: &BTreeSet<StorePath>, systems: &Systems) -> Plan {
    let valid = &Valid(valid.iter().map(Ranked::from).collect());
    let mut nodes = visit(graph, valid);
    refuse(graph, &mut nodes, systems);
    let is_built = |index: &NodeIndex| nodes[index.0].decision.missing().is_some();
    let building = (0..graph.len()).map(NodeIndex).filter(is_built).collect();
    let (imports, order) = thread::scope(|scope| {
        let imports = scope.spawn(|| imports(graph, building, valid));
        connect(graph, &mut nodes);
        let order = order::order(graph, &mut nodes);
        (imports.join().expect("it only collects paths"), order)
    });
    let caches = caches(graph, &nodes);
    Plan {
        nodes,
        order,
        imports,
        caches,
    }
}

/// What is valid, in order: asked tens of thousands of times.
struct Valid<'a>(Vec<Ranked<'a>>);

impl Valid<'_> {
    fn contains(&self, path: &StorePath) -> bool {
        self.0.binary_search(&Ranked::from(path)).is_ok()
    }
}

type Names = Arc<BTreeSet<String>>;

/// Goes down from the roots, dependents first: so all who may ask for a derivation have asked
/// when it is decided.
fn visit(graph: &Graph, valid: &Valid<'_>) -> Vec<Decided> {
    let nobody = Names::default();
    let nodes = graph.nodes().map(|(_, node)| undecided(node, &nobody));
    let mut nodes: Vec<Decided> = nodes.collect();
    for (at, root) in graph.roots().iter().enumerate() {
        nodes[root.node.0].ask(Wanter::Root(at), &root.outputs);
    }
    for &index in graph.topological().iter().rev() {
        let decided = &mut nodes[index.0];
        if decided.wanted_by.is_empty() {
            continue;
        }
        decided.wanted_by.sort_unstable();
        let node = graph.node(index);
        let missing = missing(node, &decided.wanted, valid);
        if missing.is_empty() {
            decided.decision = Decision::Valid;
            continue;
        }
        decided.decision = Decision::Build(Missing(missing));
        for input in node.inputs() {
            nodes[input.node.0].ask(Wanter::Node(index), input.outputs);
        }
    }
    nodes
}

impl Decided {
    fn ask(&mut self, wanter: Wanter, outputs: &Names) {
        if self.wanted_by.is_empty() {
            self.wanted = outputs.clone();
        } else if !Arc::ptr_eq(outputs, &self.wanted) && !outputs.is_subset(&self.wanted) {
            Arc::make_mut(&mut self.wanted).extend(outputs.iter().cloned());
        }
        self.wanted_by.push(wanter);
    }
}

fn undecided(node: &Node, wanted: &Names) -> Decided {
    Decided {
        wanted: wanted.clone(),
        wanted_by: Vec::with_capacity(node.dependents.len()),
        decision: Decision::Unneeded,
        waits_for: Vec::new(),
        height: 0,
    }
}

/// If one path is unknown the derivation must be built, whatever else is valid, as in Nix.
fn missing(node: &Node, wanted: &Names, valid: &Valid<'_>) -> Names {
    let outputs = &node.parsed.outputs;
    let unknown = outputs.values().any(Option::is_none);
    let is_missing = |name: &str, path: &Option<StorePath>| match path {
        Some(path) => wanted.contains(name) && !valid.contains(path),
        None => unknown,
    };
    let missing = outputs.iter().filter(|(name, path)| is_missing(name, path));
    let missing: Vec<&str> = missing.map(|(name, _)| name).collect();
    // Mostly it is all, and then there is no need for another set.
    if wanted.iter().eq(&missing) {
        return wanted.clone();
    }
    Arc::new(missing.into_iter().map(ToOwned::to_owned).collect())
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
            let mut waits_for = Vec::with_capacity(node.inputs().len());
            let inputs = node.inputs().map(|input| input.node);
            waits_for.extend(inputs.filter(|input| nodes[input.0].decision.missing().is_some()));
            nodes[index.0].waits_for = waits_for;
        }
    }
}

fn imports(graph: &Graph, building: Vec<NodeIndex>, valid: &Valid<'_>) -> BTreeSet<StorePath> {
    let mut imports: Vec<&StorePath> = Vec::new();
    let mut seen = vec![false; graph.len()];
    let mut waiting = building;
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
    let mut imports: Vec<Ranked<'_>> = imports.into_iter().map(Ranked::from).collect();
    imports.sort_unstable();
    imports.dedup();
    // Both are in order.
    let mut valid = valid.0.iter().peekable();
    imports.retain(|one| {
        while valid.next_if(|valid| *valid < one).is_some() {}
        valid.peek() != Some(&one)
    });
    imports.into_iter().map(|one| one.path.clone()).collect()
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
