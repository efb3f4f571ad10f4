//! Effects as nodes: which builds and effects each waits for, and what it must be able to see.

use std::collections::{BTreeMap, BTreeSet};

use crate::nix::{Outputs, StorePath, Wanted};
use crate::pipeline::{Pipeline, Root, StoreView};
use crate::plan::NodeIndex;
use crate::plan::graph::{self, Graph};

/// The effects of a pipeline, each connected to the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// In an order that respects `after`; otherwise by name.
    pub effects: Vec<Effect>,
}

/// An effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Its name.
    pub name: String,
    /// Builds, by their names in the pipeline, that must be good before it starts.
    pub gate: BTreeMap<String, NodeIndex>,
    /// Effects that must have succeeded before.
    pub after: BTreeSet<String>,
    /// What it refers to: built before, and visible to it with all it refers to.
    pub needs: Vec<Need>,
    /// Store paths without a derivation that it refers to: imported before, and visible to it.
    pub sources: BTreeSet<StorePath>,
    /// What it finds at `/`.
    pub root: Root,
    /// How much of the store it sees.
    pub store: StoreView,
}

/// What an effect refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The derivation.
    pub node: NodeIndex,
    /// Its outputs, by name.
    pub outputs: BTreeSet<String>,
}

/// Why effects cannot be connected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A gate that is no build of the pipeline.
    #[error("effect `{effect}` is gated on `{build}`, which is no build of the pipeline")]
    UnknownBuild {
        /// The effect.
        effect: String,
        /// What it names.
        build: String,
    },
    /// `after` names no effect of the pipeline.
    #[error("effect `{effect}` comes after `{after}`, which is no effect of the pipeline")]
    UnknownEffect {
        /// The effect.
        effect: String,
        /// What it names.
        after: String,
    },
    /// Effects that wait for each other.
    #[error("effects wait for each other: {}", members.join(", "))]
    Cycle {
        /// Those that can never start, by name.
        members: Vec<String>,
    },
    /// A build or need that the graph does not have.
    #[error(transparent)]
    Graph(#[from] graph::Error),
}

/// All derivation outputs that a pipeline wants: its builds, then what its effects refer to.
pub fn wanted(pipeline: &Pipeline) -> Vec<Wanted> {
    let needs = pipeline
        .effects
        .values()
        .flat_map(|effect| effect.needs.iter().cloned());
    pipeline.builds.values().cloned().chain(needs).collect()
}

impl Effects {
    /// Connects the effects of `pipeline` to a graph that has all of [`wanted`].
    pub fn new(graph: &Graph, pipeline: &Pipeline) -> Result<Self, Error> {
        let mut waiting: BTreeMap<&str, Effect> = BTreeMap::new();
        for (name, effect) in &pipeline.effects {
            waiting.insert(name, connect(graph, pipeline, effect)?);
        }
        let mut effects: Vec<Effect> = Vec::new();
        while !waiting.is_empty() {
            let next = waiting
                .iter()
                .find(|(_, effect)| {
                    effect
                        .after
                        .iter()
                        .all(|name| !waiting.contains_key(&**name))
                })
                .map(|(name, _)| *name);
            let Some(effect) = next.and_then(|name| waiting.remove(name)) else {
                let members = waiting.into_keys().map(ToOwned::to_owned).collect();
                return Err(Error::Cycle { members });
            };
            effects.push(effect);
        }
        Ok(Self { effects })
    }
}

fn connect(
    graph: &Graph,
    pipeline: &Pipeline,
    effect: &crate::pipeline::Effect,
) -> Result<Effect, Error> {
    let unknown = effect
        .after
        .iter()
        .find(|after| !pipeline.effects.contains_key(*after));
    if let Some(after) = unknown {
        let (effect, after) = (effect.name.clone(), after.clone());
        return Err(Error::UnknownEffect { effect, after });
    }
    let gate = effect.gate.iter().map(|name| {
        let build = pipeline
            .builds
            .get(name)
            .ok_or_else(|| Error::UnknownBuild {
                effect: effect.name.clone(),
                build: name.clone(),
            })?;
        Ok((name.clone(), need(graph, build)?.node))
    });
    Ok(Effect {
        name: effect.name.clone(),
        gate: gate.collect::<Result<_, Error>>()?,
        after: effect.after.clone(),
        needs: effect
            .needs
            .iter()
            .map(|wanted| need(graph, wanted))
            .collect::<Result<_, Error>>()?,
        sources: effect.sources.clone(),
        root: effect.root.clone(),
        store: effect.store,
    })
}

fn need(graph: &Graph, wanted: &Wanted) -> Result<Need, Error> {
    let name = || wanted.name.clone();
    let drv = || wanted.drv.clone();
    let node = graph
        .find(&wanted.drv)
        .ok_or_else(|| graph::Error::NotInClosure {
            name: name(),
            drv: drv(),
        })?;
    let known = &graph.node(node).parsed.outputs;
    let outputs: BTreeSet<String> = match &wanted.outputs {
        Outputs::All => known.keys().map(ToOwned::to_owned).collect(),
        Outputs::Names(names) => names.clone(),
    };
    if let Some(output) = outputs.iter().find(|output| !known.contains_key(output)) {
        let outputs = known.keys().map(ToOwned::to_owned).collect();
        let output = output.clone();
        return Err(graph::Error::NoSuchOutput {
            name: name(),
            drv: drv(),
            output,
            outputs,
        }
        .into());
    }
    Ok(Need { node, outputs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::closure::tests::Files;
    use crate::plan::tests::{graph, wanted};

    fn effect(
        name: &str,
        gate: &[&str],
        after: &[&str],
        needs: Vec<Wanted>,
    ) -> crate::pipeline::Effect {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        crate::pipeline::Effect {
            name: name.to_owned(),
            command: vec!["/bin/true".to_owned()],
            tools: Vec::new(),
            environment: BTreeMap::new(),
            after: names(after),
            gate: names(gate),
            secrets: BTreeMap::new(),
            timeout: None,
            root: Root::Empty,
            store: StoreView::Closure,
            needs,
            sources: BTreeSet::new(),
        }
    }

    fn connected(
        effects: &dyn Fn(Wanted) -> Vec<crate::pipeline::Effect>,
    ) -> Result<Effects, Error> {
        let mut files = Files::default();
        let server = files.add("server", &["out", "dev"], &[]);
        let tool = files.add("tool", &["out"], &[]);
        let pipeline = Pipeline {
            name: "ci".to_owned(),
            builds: [("server".to_owned(), wanted("server", &server, &["out"]))].into(),
            effects: effects(wanted("tool", &tool, &[]))
                .into_iter()
                .map(|effect| (effect.name.clone(), effect))
                .collect(),
        };
        let graph = graph(&files, &super::wanted(&pipeline));
        Effects::new(&graph, &pipeline)
    }

    #[test]
    fn effects_come_after_those_they_name_and_see_what_they_need() {
        let effects = connected(&|tool| {
            vec![
                effect("announce", &["server"], &["deploy"], vec![]),
                effect("deploy", &["server"], &[], vec![tool]),
            ]
        })
        .unwrap()
        .effects;
        let names: Vec<&str> = effects.iter().map(|effect| effect.name.as_str()).collect();
        assert_eq!(names, ["deploy", "announce"]);
        assert_eq!(
            effects[0].needs[0].outputs,
            BTreeSet::from(["out".to_owned()])
        );
        assert_ne!(effects[0].needs[0].node, effects[0].gate["server"]);
    }

    #[test]
    fn names_that_are_not_there_are_errors() {
        let error = connected(&|_| vec![effect("deploy", &["sever"], &[], vec![])]).unwrap_err();
        assert!(matches!(error, Error::UnknownBuild { ref build, .. } if build == "sever"));
        let error = connected(&|_| vec![effect("deploy", &[], &["x"], vec![])]).unwrap_err();
        assert!(matches!(error, Error::UnknownEffect { ref after, .. } if after == "x"));
    }

    #[test]
    fn effects_that_wait_for_each_other_are_an_error() {
        let error = connected(&|_| {
            vec![
                effect("a", &[], &["b"], vec![]),
                effect("b", &[], &["a"], vec![]),
            ]
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "effects wait for each other: a, b");
    }
}
