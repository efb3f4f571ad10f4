//! Valid or build: see the rule in the module above.
//!
//! First [`Walk`] goes down the graph. What a plan says of each node is written from that, and the
//! order and the imports are found meanwhile.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use super::closure::{Closure, Names};
use super::valid::Valid;
use super::walk::{Walk, absent, missing};
use super::{Caches, Decided, Decision, Graph, Missing, NodeIndex, Plan, Wanter, order};
use crate::nix::derivation::{Outline, Systems};
use crate::nix::{Ranked, StorePath};

/// Decides for every node, given what is valid in the build store, of [`Graph::paths`] at least.
pub fn decide<'a>(
    graph: &Graph,
    valid: impl IntoIterator<Item = &'a StorePath>,
    systems: &Systems,
) -> Plan {
    let valid = &valid.into_iter().collect();
    let walk = &Walk::down(graph, absent(graph.closure(), valid));
    let (some, others) = (0..graph.len() / 2, graph.len() / 2..graph.len());
    let (nodes, order, imports, caches) = thread::scope(|scope| {
        let ordered = scope.spawn(|| {
            let order = order::order(graph, &walk.building, &walk.heights);
            (order, imports(graph.closure(), &walk.building, valid))
        });
        let others = scope.spawn(|| decided(graph, others, walk, systems));
        let (mut nodes, some) = decided(graph, some, walk, systems);
        let (mut more, others) = others.join().expect("it only writes down");
        nodes.append(&mut more);
        let (order, imports) = ordered.join().expect("it only goes through lists");
        let caches = Caches {
            missing: some.missing + others.missing,
            allowed: some.allowed + others.allowed,
        };
        (nodes, order, imports, caches)
    });
    Plan {
        nodes,
        order,
        imports,
        caches,
    }
}

/// Writes down what was decided of these nodes.
fn decided(
    graph: &Graph,
    nodes: Range<usize>,
    walk: &Walk,
    systems: &Systems,
) -> (Vec<Decided>, Caches) {
    let mut caches = Caches::default();
    let writing = Writing {
        graph,
        walk,
        systems,
        // Whoever counts these counts alone.
        sets: walk
            .sets
            .iter()
            .map(|set| Arc::new((**set).clone()))
            .collect(),
        nobody: Names::default(),
    };
    let roots = graph.roots().iter().map(|root| root.node).zip(0..);
    let mut roots: Vec<(NodeIndex, usize)> =
        roots.filter(|(node, _)| nodes.contains(&node.0)).collect();
    roots.sort_unstable();
    let mut roots = roots.into_iter().peekable();
    let decided = nodes.map(NodeIndex).map(|node| {
        let asking = std::iter::from_fn(|| roots.next_if(|(root, _)| *root == node));
        let decided = writing.decided(node, asking.map(|(_, at)| Wanter::Root(at)));
        if let Some(missing) = decided.decision.missing() {
            caches.add(missing, graph.node(node).parsed);
        }
        decided
    });
    (decided.collect(), caches)
}

/// What is written down.
struct Writing<'a> {
    graph: &'a Graph,
    walk: &'a Walk,
    systems: &'a Systems,
    /// Those of the walk.
    sets: Vec<Names>,
    nobody: Names,
}

impl Writing<'_> {
    fn decided(&self, node: NodeIndex, roots: impl Iterator<Item = Wanter>) -> Decided {
        let dependents = self.graph.closure().dependents(node.0);
        let mut wanted_by = Vec::with_capacity(dependents.len());
        wanted_by.extend(roots);
        wanted_by.extend(self.built(dependents.iter().copied()).map(Wanter::Node));
        let Some(asked) = self.walk.asked[node.0] else {
            return Decided {
                wanted: self.nobody.clone(),
                wanted_by,
                decision: Decision::Unneeded,
                waits_for: Vec::new(),
                height: 0,
            };
        };
        let wanted = &self.sets[asked as usize];
        let is_built = self.walk.building[node.0];
        Decided {
            wanted: wanted.clone(),
            wanted_by,
            decision: if is_built {
                self.build(node, wanted)
            } else {
                Decision::Valid
            },
            waits_for: if is_built {
                self.waits_for(node)
            } else {
                Vec::new()
            },
            height: self.walk.heights[node.0],
        }
    }

    fn built(&self, nodes: impl Iterator<Item = u32>) -> impl Iterator<Item = NodeIndex> {
        let nodes = nodes.map(|node| NodeIndex(node as usize));
        nodes.filter(|node| self.walk.building[node.0])
    }

    fn build(&self, node: NodeIndex, wanted: &Names) -> Decision {
        let parsed = self.graph.node(node).parsed;
        let missing = Missing(self.missing(node, parsed, wanted));
        match parsed.demands.unsupported(&parsed.system, self.systems) {
            None => Decision::Build(missing),
            Some(reason) => Decision::Refused(missing, reason),
        }
    }

    fn missing(&self, node: NodeIndex, parsed: &Outline, wanted: &Names) -> Names {
        let absent = self.walk.absent.of_one(node.0);
        // Mostly it is all, and then there is no need for another set.
        if wanted.iter().eq(missing(parsed, wanted, absent)) {
            return wanted.clone();
        }
        let missing = missing(parsed, wanted, absent);
        Arc::new(missing.map(ToOwned::to_owned).collect())
    }

    fn waits_for(&self, node: NodeIndex) -> Vec<NodeIndex> {
        let inputs = self.graph.closure().inputs(node.0);
        let mut waits_for = Vec::with_capacity(inputs.len());
        waits_for.extend(self.built(inputs.iter().map(|input| input.position)));
        waits_for
    }
}

fn imports(closure: &Closure, building: &[bool], valid: &Valid<'_>) -> BTreeSet<StorePath> {
    let mut needed = building.to_vec();
    for &node in closure.topological().iter().rev() {
        if needed[node as usize] {
            for input in closure.inputs(node as usize) {
                needed[input.position as usize] = true;
            }
        }
    }
    let needed = closure
        .derivations()
        .iter()
        .zip(needed)
        .filter(|(_, needed)| *needed);
    // A `.drv` file refers to its sources, so none can be registered without them.
    let paths = needed.flat_map(|(node, _)| std::iter::once(&node.path).chain(&node.sources));
    let lacking = paths.filter(|path| !valid.contains(path));
    let mut lacking: Vec<Ranked<'_>> = lacking.map(Ranked::from).collect();
    lacking.sort_unstable();
    lacking.dedup();
    lacking.into_iter().map(|one| one.path.clone()).collect()
}

impl Caches {
    fn add(&mut self, missing: &Missing, node: &Outline) {
        self.missing += missing.0.len();
        if node.allows_substitutes {
            self.allowed += missing.0.len();
        }
    }
}
