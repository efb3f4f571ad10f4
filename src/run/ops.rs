//! The ops of a plan, for looking at: the definitions an engine would get, with a nonce that stays
//! the same.
//!
//! A run makes an op when its node is ready, and knows more by then: in *plain* it mounts the whole
//! closure of a build or effect, here only what it refers to itself; in *strong* the op of one
//! build goes on with others, so a run has no more ops than jobs, here every build has its own.

use std::collections::BTreeSet;

use crate::engine::lower::{EffectInputs, Lowering, PlainInputs};
use crate::nix::StorePath;
use crate::pipeline::{Pipeline, StoreView};
use crate::plan::{Decision, NodeIndex};
use crate::run::start::reach;
use crate::run::{Error, Options, Planned, engine};
use crate::tunnel::SandboxPath;

/// The nonce of every op that is only looked at.
const NONCE: &str = "plan";

/// Lowers a plan: the store's housekeeping, each build, most urgent first, and each effect.
pub fn ops(
    options: &Options,
    planned: &Planned,
    pipeline: Option<&Pipeline>,
    sandbox_paths: &[SandboxPath],
) -> Result<Vec<Vec<u8>>, Error> {
    let mut lowering = engine::lowering(options, &engine::outside(options, 0)?)?;
    lowering.sandbox_paths = engine::sandbox_paths(options, sandbox_paths)?;
    let mut ops = vec![lowering.store(NONCE)?];
    for node in &planned.plan.order {
        if matches!(planned.plan.node(*node).decision, Decision::Build(_)) {
            ops.push(build(&lowering, planned, *node)?);
        }
    }
    for effect in &planned.effects.effects {
        let mut seen = BTreeSet::new();
        if effect.store == StoreView::Closure {
            seen.extend(effect.sources.iter().cloned());
            for need in &effect.needs {
                seen.extend(outputs(planned, need.node, &need.outputs));
            }
        }
        let secrets = pipeline
            .and_then(|pipeline| pipeline.effects.get(&effect.name))
            .into_iter()
            .flat_map(|effect| effect.secrets.keys().map(String::as_str));
        let inputs = EffectInputs {
            name: &effect.name,
            root: &effect.root,
            store: effect.store,
            closure: seen.iter().collect(),
            secrets: secrets.collect(),
        };
        ops.push(lowering.effect(&inputs, NONCE)?);
    }
    Ok(ops)
}

fn build(lowering: &Lowering, planned: &Planned, node: NodeIndex) -> Result<Vec<u8>, Error> {
    let node = planned.graph.node(node);
    let mut inputs: BTreeSet<StorePath> = node.parsed.sources.iter().cloned().collect();
    for input in node.inputs() {
        inputs.extend(outputs(planned, input.node, input.outputs));
    }
    let inputs = PlainInputs {
        slot: 0,
        closure: inputs.iter().collect(),
    };
    Ok(lowering.build(&node.parsed.path, reach(node.parsed), &inputs, NONCE)?)
}

fn outputs(planned: &Planned, node: NodeIndex, names: &BTreeSet<String>) -> Vec<StorePath> {
    let known = &planned.graph.node(node).parsed.outputs;
    let paths = names.iter().filter_map(|name| known.get(name)?.clone());
    paths.collect()
}
