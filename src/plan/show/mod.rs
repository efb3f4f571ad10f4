//! A plan for people and for programs: [`text()`], [`json()`], [`dot()`].
//!
//! All three are functions of a [`View`] and write nothing themselves. The JSON has a version
//! ([`json::VERSION`]); the text and the graph are for reading only and may change.

mod dot;
pub mod json;
mod text;

pub use dot::dot;
pub use json::json;
pub use text::text;

use crate::nix::StorePath;
use crate::plan::{Caches, Decision, Effects, Graph, Plan, Wanter};

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The derivations.
    pub graph: &'a Graph,
    /// What was decided for them.
    pub plan: &'a Plan,
    /// The effects that follow.
    pub effects: &'a Effects,
    /// Store paths that `nix` itself built while it evaluated.
    pub built_while_evaluating: &'a [StorePath],
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What will happen; long lists are cut in text.
    Summary,
    /// Every node, also those for which nothing happens.
    All,
}

/// The sentence about binary caches, if anything is missing.
pub fn caches(caches: Caches) -> Option<String> {
    let Caches { missing, allowed } = caches;
    (missing > 0).then(|| {
        format!(
            "binary caches are not consulted yet: {allowed} of the {missing} outputs to build \
             might have been downloaded"
        )
    })
}

/// One word for a decision.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Unneeded => "unneeded",
        Decision::Valid => "valid",
        Decision::Build(_) => "build",
        Decision::Refused(..) => "refused",
    }
}

/// Why it was decided so, as one clause.
fn reason(view: &View<'_>, node: super::NodeIndex) -> String {
    let decided = view.plan.node(node);
    match &decided.decision {
        Decision::Unneeded => "nothing that will be built needs it".to_owned(),
        Decision::Valid => "all wanted outputs are valid".to_owned(),
        Decision::Build(missing) => {
            let missing = missing.0.iter().map(String::as_str).collect::<Vec<_>>();
            let verb = if missing.len() == 1 { "is" } else { "are" };
            format!(
                "{} {verb} missing, wanted by {}",
                missing.join(", "),
                wanters(view, decided)
            )
        }
        Decision::Refused(_, unsupported) => unsupported.to_string(),
    }
}

fn wanters(view: &View<'_>, decided: &super::Decided) -> String {
    let mut names = decided
        .wanted_by
        .iter()
        .map(|wanter| wanter_name(view, *wanter));
    let first = names.next().unwrap_or_default();
    match names.len() {
        0 => first.to_owned(),
        1 => format!("{first} and {}", names.next().unwrap_or_default()),
        more => format!("{first} and {more} more"),
    }
}

fn wanter_name<'a>(view: &View<'a>, wanter: Wanter) -> &'a str {
    match wanter {
        Wanter::Root(at) => &view.graph.roots()[at].name,
        Wanter::Node(node) => view.graph.node(node).parsed.name(),
    }
}

#[cfg(test)]
mod tests;
