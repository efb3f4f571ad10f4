//! The way down a graph: in short lists what is asked of whom, and what must be built.
//!
//! It goes from number to number, and looks at a derivation itself only where a part of its outputs
//! is valid.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::thread;

use super::closure::{Closure, Names};
use super::given::Given;
use super::lists::{self, Lists};
use super::valid::Valid;
use super::{Graph, NodeIndex};
use crate::nix::StorePath;
use crate::nix::derivation::Outline;

/// Of each node, which of its outputs are not valid, or known only when they are built.
pub fn absent(closure: &Closure, valid: &Valid<'_>) -> Lists<bool> {
    let is_absent = |path: &Option<StorePath>| match path {
        Some(path) => !valid.contains(path),
        None => true,
    };
    let of = |nodes: &[Arc<Outline>]| {
        let outputs = nodes.iter().map(|node| node.outputs.values());
        Lists::of(outputs.map(|outputs| outputs.map(is_absent)), nodes.len())
    };
    let nodes = closure.derivations();
    let (some, others) = nodes.split_at(nodes.len() / 2);
    thread::scope(|scope| {
        let others = scope.spawn(|| of(others));
        let mut absent = of(some);
        absent.append(others.join().expect("it only looks for paths"));
        absent
    })
}

/// What comes of two sets together, whose positions are the halves of the key.
type Unions = HashMap<u64, u32, Given>;

/// What is asked of whom, by node.
pub struct Walk {
    /// A position in `sets`, if anybody asks.
    pub asked: Vec<Option<u32>>,
    /// Those of the closure, then what comes of them together.
    pub sets: Vec<Names>,
    /// Whether it must be built.
    pub building: Vec<bool>,
    /// How many builds must follow one after the other.
    pub heights: Vec<usize>,
    /// Which outputs are not valid.
    pub absent: Lists<bool>,
}

impl Walk {
    /// Goes down from the roots, dependents first: so all who may ask for a derivation have asked
    /// when it is decided.
    pub fn down(graph: &Graph, absent: Lists<bool>) -> Self {
        let closure = graph.closure();
        let mut walk = Self {
            asked: vec![None; graph.len()],
            sets: closure.sets().to_vec(),
            building: vec![false; graph.len()],
            heights: vec![0; graph.len()],
            absent,
        };
        let mut unions = Unions::default();
        for (root, outputs) in walk.roots(graph) {
            walk.ask(root.0, outputs, &mut unions);
        }
        for &node in closure.topological().iter().rev() {
            let node = node as usize;
            let Some(asked) = walk.asked[node] else {
                continue;
            };
            if !walk.is_missing(&closure.derivations()[node], node, asked) {
                walk.heights[node] = 0;
                continue;
            }
            walk.building[node] = true;
            let above = walk.heights[node] + 1;
            for input in closure.inputs(node) {
                let position = input.position as usize;
                let height = &mut walk.heights[position];
                *height = above.max(*height);
                walk.ask(position, input.outputs, &mut unions);
            }
        }
        walk
    }

    /// Whether any of what is asked of a node is missing.
    fn is_missing(&self, parsed: &Outline, node: usize, asked: u32) -> bool {
        let absent = self.absent.of_one(node);
        let wanted = &self.sets[asked as usize];
        match (absent.contains(&true), absent.contains(&false)) {
            (false, _) => false,
            (true, false) if !wanted.is_empty() => true,
            (true, _) => missing(parsed, wanted, absent).next().is_some(),
        }
    }

    /// What is asked for by name. Mostly it is one of the sets that derivations ask for.
    fn roots(&mut self, graph: &Graph) -> Vec<(NodeIndex, u32)> {
        let known = graph.closure().sets().iter().map(Arc::as_ptr).zip(0..);
        let mut known: HashMap<*const BTreeSet<String>, u32> = known.collect();
        let roots = graph.roots().iter().map(|root| {
            let outputs = *known
                .entry(Arc::as_ptr(&root.outputs))
                .or_insert_with(|| add(&mut self.sets, root.outputs.clone()));
            (root.node, outputs)
        });
        roots.collect()
    }

    fn ask(&mut self, node: usize, outputs: u32, unions: &mut Unions) {
        let together = match self.asked[node] {
            None => outputs,
            Some(asked) if asked == outputs => return,
            Some(asked) => *unions
                .entry(u64::from(asked) << 32 | u64::from(outputs))
                .or_insert_with(|| union(&mut self.sets, asked, outputs)),
        };
        self.asked[node] = Some(together);
    }
}

/// The position of a set that holds what is in both.
fn union(sets: &mut Vec<Names>, one: u32, other: u32) -> u32 {
    let [first, second] = [one, other].map(|set| &sets[set as usize]);
    if second.is_subset(first) {
        return one;
    }
    if first.is_subset(second) {
        return other;
    }
    let both = first.union(second).cloned().collect();
    add(sets, Arc::new(both))
}

fn add(sets: &mut Vec<Names>, set: Names) -> u32 {
    sets.push(set);
    lists::number(sets.len() - 1)
}

/// If one path is unknown the derivation must be built, whatever else is valid, as in Nix.
pub fn missing<'a>(
    node: &'a Outline,
    wanted: &'a Names,
    absent: &'a [bool],
) -> impl Iterator<Item = &'a str> {
    let outputs = node.outputs.iter().zip(absent);
    let absent = outputs.filter(|(_, absent)| **absent);
    let missing = absent.filter(|((name, path), _)| path.is_none() || wanted.contains(*name));
    missing.map(|((name, _), _)| name)
}
