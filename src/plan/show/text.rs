//! The plan as a readable summary.

use std::fmt::Write as _;

use super::{Detail, View, caches, reason, word};
use crate::pipeline::{Root, StoreView};
use crate::plan::{Decision, NodeIndex, effects};

/// How many lines of a list a summary has.
const LINES: usize = 20;

/// Writes the plan as text.
pub fn text(view: &View<'_>, detail: Detail) -> String {
    let counts = view.plan.counts();
    let many = if counts.derivations == 1 { "" } else { "s" };
    let mut text = format!(
        "{} to build, {} valid, {} not needed ({} derivation{many})\n",
        counts.build, counts.valid, counts.unneeded, counts.derivations
    );
    let refused: Vec<NodeIndex> = view.plan.refused().map(|(node, _)| node).collect();
    section(
        &mut text,
        "cannot be built",
        &lines(view, &refused),
        Detail::All,
    );
    let order = view.plan.order.iter().copied();
    let build: Vec<NodeIndex> = order
        .filter(|node| matches!(view.plan.node(*node).decision, Decision::Build(_)))
        .collect();
    section(
        &mut text,
        "will be built, most urgent first",
        &lines(view, &build),
        detail,
    );
    if detail == Detail::All {
        section(&mut text, "nothing to do", &idle(view), detail);
    }
    let imports: Vec<String> = view.plan.imports.iter().map(ToString::to_string).collect();
    match detail {
        Detail::All => section(&mut text, "will be imported", &imports, detail),
        Detail::Summary if !imports.is_empty() => {
            let _ = writeln!(text, "{} paths will be imported", imports.len());
        }
        Detail::Summary => {}
    }
    let evaluated: Vec<String> = view
        .built_while_evaluating
        .iter()
        .map(ToString::to_string)
        .collect();
    section(
        &mut text,
        "built by nix while evaluating",
        &evaluated,
        detail,
    );
    let effects: Vec<String> = view.effects.effects.iter().map(effect).collect();
    section(&mut text, "effects", &effects, detail);
    if let Some(sentence) = caches(view.plan.caches) {
        let _ = writeln!(text, "{sentence}");
    }
    text
}

fn section(text: &mut String, title: &str, lines: &[String], detail: Detail) {
    if lines.is_empty() {
        return;
    }
    let shown = if detail == Detail::All {
        lines.len()
    } else {
        lines.len().min(LINES)
    };
    let _ = writeln!(text, "{title}:");
    for line in &lines[..shown] {
        let _ = writeln!(text, "  {line}");
    }
    if shown < lines.len() {
        let _ = writeln!(text, "  … and {} more", lines.len() - shown);
    }
}

fn lines(view: &View<'_>, nodes: &[NodeIndex]) -> Vec<String> {
    nodes
        .iter()
        .map(|&node| {
            let name = view.graph.node(node).parsed.name();
            match view.plan.node(node).decision {
                // What is refused must be found: its name may not be unique.
                Decision::Refused(..) => {
                    format!(
                        "{}: {}",
                        view.graph.node(node).parsed.path,
                        reason(view, node)
                    )
                }
                _ => format!("{name}: {}", reason(view, node)),
            }
        })
        .collect()
}

fn idle(view: &View<'_>) -> Vec<String> {
    view.graph
        .nodes()
        .filter(|(node, _)| view.plan.node(*node).decision.missing().is_none())
        .map(|(index, node)| {
            let decision = word(&view.plan.node(index).decision);
            format!(
                "{}: {decision}, {}",
                node.parsed.name(),
                reason(view, index)
            )
        })
        .collect()
}

fn effect(effect: &effects::Effect) -> String {
    let mut line = effect.name.clone();
    let list = |names: Vec<&str>| names.join(", ");
    if !effect.gate.is_empty() {
        let _ = write!(
            line,
            ": once good: {}",
            list(effect.gate.keys().map(|name| &**name).collect())
        );
    }
    if !effect.after.is_empty() {
        let _ = write!(
            line,
            "; after: {}",
            list(effect.after.iter().map(|name| &**name).collect())
        );
    }
    if effect.root != Root::Empty {
        let _ = write!(line, "; root: {}", effect.root);
    }
    if effect.store == StoreView::Whole {
        line.push_str("; store: whole");
    }
    line
}
