//! The critical path first: what the longest chain of builds waits for starts first.
//!
//! Every build counts as one, for nothing is known about how long each takes.

use std::cmp::Reverse;

use super::{Decided, Graph, NodeIndex};

/// Sets the height of every node to be built, and lists these nodes, most urgent first.
pub fn order(graph: &Graph, nodes: &mut [Decided]) -> Vec<NodeIndex> {
    let mut order = Vec::new();
    for &index in graph.topological().iter().rev() {
        if nodes[index.0].decision.missing().is_none() {
            continue;
        }
        let above = nodes[index.0].height + 1;
        // Dependents come first here, so this node's own height is final.
        let waits_for = std::mem::take(&mut nodes[index.0].waits_for);
        for input in &waits_for {
            let height = &mut nodes[input.0].height;
            *height = above.max(*height);
        }
        nodes[index.0].waits_for = waits_for;
        order.push(index);
    }
    let mut order: Vec<_> = order
        .into_iter()
        .map(|node| {
            let height = Reverse(nodes[node.0].height);
            let name = graph.node(node).parsed.name();
            (height, beginning(name), name, node)
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
