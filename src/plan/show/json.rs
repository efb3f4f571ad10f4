//! The plan for programs.
//!
//! Fields are added, never renamed or removed; a change of meaning raises [`VERSION`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{View, caches, reason, wanter_name, word};
use crate::nix::StorePath;
use crate::pipeline::{Root, StoreView};
use crate::plan::graph::Node;
use crate::plan::{NodeIndex, Wanter, effects};

/// The version of the format, in the field `version`.
pub const VERSION: u32 = 1;

/// Writes the plan as JSON, every node included.
pub fn json(view: &View<'_>) -> String {
    let document = Document::of(view);
    serde_json::to_string_pretty(&document).expect("strings, numbers and maps of them are JSON")
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    counts: Counts,
    caches: CachesDocument,
    roots: Vec<RootDocument<'a>>,
    nodes: Vec<NodeDocument<'a>>,
    /// `.drv` paths of what must be built, most urgent first.
    order: Vec<String>,
    #[serde(with = "crate::nix::text::paths")]
    imports: BTreeSet<StorePath>,
    #[serde(with = "crate::nix::text::paths")]
    built_while_evaluating: Vec<StorePath>,
    effects: Vec<EffectDocument<'a>>,
}

#[derive(Serialize)]
struct Counts {
    derivations: usize,
    build: usize,
    valid: usize,
    unneeded: usize,
    refused: usize,
}

#[derive(Serialize)]
struct CachesDocument {
    consulted: bool,
    missing_outputs: usize,
    might_have_been_downloaded: usize,
    note: Option<String>,
}

#[derive(Serialize)]
struct RootDocument<'a> {
    name: &'a str,
    drv: String,
    outputs: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct NodeDocument<'a> {
    drv: String,
    name: &'a str,
    system: &'a str,
    decision: &'static str,
    reason: String,
    wanted: &'a BTreeSet<String>,
    wanted_by: Vec<WanterDocument<'a>>,
    missing: BTreeSet<&'a str>,
    /// Every output; null where only the build will tell.
    outputs: BTreeMap<&'a str, Option<String>>,
    inputs: Vec<InputDocument<'a>>,
    sources: Vec<String>,
    waits_for: Vec<String>,
    height: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum WanterDocument<'a> {
    Root(&'a str),
    Drv(String),
}

#[derive(Serialize)]
struct InputDocument<'a> {
    drv: String,
    outputs: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct EffectDocument<'a> {
    name: &'a str,
    gate: BTreeMap<&'a str, String>,
    after: &'a BTreeSet<String>,
    needs: Vec<InputDocument<'a>>,
    sources: Vec<String>,
    root: &'a Root,
    store: StoreView,
}

impl<'a> Document<'a> {
    fn of(view: &View<'a>) -> Self {
        let counts = view.plan.counts();
        let found = view.plan.caches;
        Self {
            version: VERSION,
            counts: Counts {
                derivations: counts.derivations,
                build: counts.build,
                valid: counts.valid,
                unneeded: counts.unneeded,
                refused: counts.refused,
            },
            caches: CachesDocument {
                consulted: false,
                missing_outputs: found.missing,
                might_have_been_downloaded: found.allowed,
                note: caches(found),
            },
            roots: view
                .graph
                .roots()
                .iter()
                .map(|root| RootDocument {
                    name: &root.name,
                    drv: drv(view, root.node),
                    outputs: &root.outputs,
                })
                .collect(),
            nodes: view
                .graph
                .nodes()
                .map(|(index, value)| node(view, index, value))
                .collect(),
            order: view
                .plan
                .order
                .iter()
                .map(|&node| drv(view, node))
                .collect(),
            imports: view.plan.imports.clone(),
            built_while_evaluating: view.built_while_evaluating.to_vec(),
            effects: view
                .effects
                .effects
                .iter()
                .map(|value| effect(view, value))
                .collect(),
        }
    }
}

fn drv(view: &View<'_>, node: NodeIndex) -> String {
    view.graph.node(node).parsed.path.to_string()
}

fn node<'a>(view: &View<'a>, index: NodeIndex, node: Node<'a>) -> NodeDocument<'a> {
    let decided = view.plan.node(index);
    let parsed = &node.parsed;
    let missing = decided
        .decision
        .missing()
        .into_iter()
        .flat_map(|missing| missing.0.iter());
    NodeDocument {
        drv: parsed.path.to_string(),
        name: parsed.name(),
        system: &parsed.system,
        decision: word(&decided.decision),
        reason: reason(view, index),
        wanted: &decided.wanted,
        wanted_by: decided
            .wanted_by
            .iter()
            .map(|wanter| match wanter {
                Wanter::Root(_) => WanterDocument::Root(wanter_name(view, *wanter)),
                Wanter::Node(node) => WanterDocument::Drv(drv(view, *node)),
            })
            .collect(),
        missing: missing.map(String::as_str).collect(),
        outputs: parsed
            .outputs
            .iter()
            .map(|(name, path)| (name, path.as_ref().map(ToString::to_string)))
            .collect(),
        inputs: node
            .inputs()
            .map(|input| self::input(view, input.node, input.outputs))
            .collect(),
        sources: parsed.sources.iter().map(ToString::to_string).collect(),
        waits_for: decided
            .waits_for
            .iter()
            .map(|&node| drv(view, node))
            .collect(),
        height: decided.height,
    }
}

fn input<'a>(view: &View<'_>, node: NodeIndex, outputs: &'a BTreeSet<String>) -> InputDocument<'a> {
    InputDocument {
        drv: drv(view, node),
        outputs,
    }
}

fn effect<'a>(view: &View<'a>, effect: &'a effects::Effect) -> EffectDocument<'a> {
    EffectDocument {
        name: &effect.name,
        gate: effect
            .gate
            .iter()
            .map(|(name, &node)| (name.as_str(), drv(view, node)))
            .collect(),
        after: &effect.after,
        needs: effect
            .needs
            .iter()
            .map(|need| input(view, need.node, &need.outputs))
            .collect(),
        sources: effect.sources.iter().map(ToString::to_string).collect(),
        root: &effect.root,
        store: effect.store,
    }
}
