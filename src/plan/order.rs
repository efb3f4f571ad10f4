//! The critical path first: what the longest chain of builds waits for starts first.
//!
//! Every build counts as one, for nothing is known about how long each takes.

use std::cmp::Reverse;

use super::{Graph, NodeIndex};

/// Lists the nodes to be built, most urgent first.
pub fn order(graph: &Graph, building: &[bool], heights: &[usize]) -> Vec<NodeIndex> {
    let nodes = graph.nodes().zip(building).filter(|(_, built)| **built);
    let mut order: Vec<_> = nodes
        .map(|((node, known), _)| {
            let name = known.parsed.name();
            (Reverse(heights[node.0]), beginning(name), name, node)
        })
        .collect();
    // Nodes are numbered by path.
    order.sort_unstable();
    order.into_iter().map(|(.., node)| node).collect()
}

/// The first bytes of a name as a number, which is quickly compared and in the order of names: these
/// hold no zero byte.
fn beginning(name: &str) -> u128 {
    let mut bytes = [0; 16];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}
