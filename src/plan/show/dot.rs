//! The plan as a graph for Graphviz: arrows go from what is needed to what needs it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Detail, View, word};
use crate::plan::{Decision, NodeIndex};

/// Writes the plan in the DOT language. A summary has only what will be built, and the effects.
pub fn dot(view: &View<'_>, detail: Detail) -> String {
    let shown: BTreeSet<NodeIndex> = view
        .graph
        .nodes()
        .map(|(node, _)| node)
        .filter(|node| detail == Detail::All || view.plan.node(*node).decision.missing().is_some())
        .collect();
    let mut dot = String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box];\n");
    for &node in &shown {
        let label = quoted(view.graph.node(node).parsed.name());
        let decision = &view.plan.node(node).decision;
        let (id, word) = (id(view, node), word(decision));
        let _ = writeln!(
            dot,
            "  {id} [label={label}, class={word}, {}];",
            style(decision)
        );
    }
    for &node in &shown {
        let inputs = view.graph.node(node).inputs.iter();
        for input in inputs.filter(|input| shown.contains(&input.node)) {
            let outputs = input
                .outputs
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            let (from, to) = (id(view, input.node), id(view, node));
            let _ = writeln!(dot, "  {from} -> {to} [label={}];", quoted(&outputs));
        }
    }
    effects(&mut dot, view, &shown);
    dot.push_str("}\n");
    dot
}

fn effects(dot: &mut String, view: &View<'_>, shown: &BTreeSet<NodeIndex>) {
    for effect in &view.effects.effects {
        let to = effect_id(&effect.name);
        let label = quoted(&effect.name);
        let _ = writeln!(dot, "  {to} [label={label}, class=effect, shape=hexagon];");
        let needs = effect.needs.iter().map(|need| need.node);
        let before: BTreeSet<NodeIndex> = effect.gate.values().copied().chain(needs).collect();
        for &node in before.intersection(shown) {
            let _ = writeln!(dot, "  {} -> {to};", id(view, node));
        }
        for after in &effect.after {
            let _ = writeln!(dot, "  {} -> {to};", effect_id(after));
        }
    }
}

fn style(decision: &Decision) -> &'static str {
    match decision {
        Decision::Build(_) => "style=solid",
        Decision::Refused(..) => "style=bold, color=red",
        Decision::Valid => "style=filled, fillcolor=lightgrey",
        Decision::Unneeded => "style=dashed",
    }
}

fn id(view: &View<'_>, node: NodeIndex) -> String {
    quoted(&view.graph.node(node).parsed.path.to_basename())
}

fn effect_id(name: &str) -> String {
    quoted(&format!("effect:{name}"))
}

/// A quoted id. Only the quote needs an escape, but a backslash before it or the end would be one,
/// and in a label it would start one.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
