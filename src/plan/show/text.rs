//! The plan as a readable summary.

use std::fmt::Write as _;

use super::{Detail, View, caches, reason, word};
use crate::nix::StorePath;
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
    let described = |node: &NodeIndex| line(view, *node);
    section(
        &mut text,
        "cannot be built",
        &refused,
        Detail::All,
        described,
    );
    let order = view.plan.order.iter().copied();
    let build: Vec<NodeIndex> = order
        .filter(|node| matches!(view.plan.node(*node).decision, Decision::Build(_)))
        .collect();
    let title = "will be built, most urgent first";
    section(&mut text, title, &build, detail, described);
    let imports: Vec<&StorePath> = view.plan.imports.iter().collect();
    match detail {
        Detail::All => {
            let title = "nothing to do";
            section(&mut text, title, &idle(view), detail, String::clone);
            let title = "will be imported";
            section(&mut text, title, &imports, detail, ToString::to_string);
        }
        Detail::Summary if !imports.is_empty() => {
            let many = if imports.len() == 1 { "" } else { "s" };
            let _ = writeln!(text, "{} path{many} will be imported", imports.len());
        }
        Detail::Summary => {}
    }
    let evaluated = view.built_while_evaluating;
    let title = "built by nix while evaluating";
    section(&mut text, title, evaluated, detail, ToString::to_string);
    let effects = &view.effects.effects;
    section(&mut text, "effects", effects, detail, effect);
    if let Some(sentence) = caches(view.plan.caches) {
        let _ = writeln!(text, "{sentence}");
    }
    text
}

/// Writes a list. Only the lines that are shown are made: a plan may have tens of thousands.
fn section<T>(
    text: &mut String,
    title: &str,
    items: &[T],
    detail: Detail,
    line: impl Fn(&T) -> String,
) {
    if items.is_empty() {
        return;
    }
    let shown = if detail == Detail::All {
        items.len()
    } else {
        items.len().min(LINES)
    };
    let _ = writeln!(text, "{title}:");
    for item in &items[..shown] {
        let _ = writeln!(text, "  {}", line(item));
    }
    if shown < items.len() {
        let _ = writeln!(text, "  … and {} more", items.len() - shown);
    }
}

fn line(view: &View<'_>, node: NodeIndex) -> String {
    let parsed = &view.graph.node(node).parsed;
    match view.plan.node(node).decision {
        // What is refused must be found: its name may not be unique.
        Decision::Refused(..) => format!("{}: {}", parsed.path, reason(view, node)),
        _ => format!("{}: {}", parsed.name(), reason(view, node)),
    }
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
