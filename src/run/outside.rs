//! The network of what may reach one: fixed-output builds and effects.
//!
//! A dockerd without a bridge has none for ops by default. Where it grants that of its host they get
//! it, and the user is told; else nothing that needs one is begun.

use crate::engine;
use crate::engine::offer::Outside;
use crate::event::Event;
use crate::plan::{Decision, Effects, Graph, NodeIndex, Plan};
use crate::run::{EngineChoice, Options};

/// Refuses what the engine has no network for; returns what the user has to know of the one it has.
///
/// # Errors
///
/// [`engine::Error::NoNetwork`].
pub(super) fn admit(
    options: &Options,
    graph: &Graph,
    plan: &Plan,
    effects: &Effects,
) -> Result<Option<Event>, engine::Error> {
    let EngineChoice::BuildKit {
        address, outside, ..
    } = &options.engine
    else {
        return Ok(None);
    };
    if *outside == Outside::Default {
        return Ok(None);
    }
    let Some(what) = needy(graph, plan, effects) else {
        return Ok(None);
    };
    match outside {
        Outside::Nothing { reason } => Err(engine::Error::NoNetwork {
            address: address.to_string(),
            what,
            reason: reason.clone(),
        }),
        Outside::Default | Outside::Host { .. } => Ok(Some(Event::Warning {
            text: format!(
                "the daemon at `{address}` has no default network: fixed-output builds and effects \
                 use that of its host"
            ),
            hint: Some("with a bridge the daemon gives them one of their own".to_owned()),
        })),
    }
}

/// The first thing of a plan that may reach the network.
fn needy(graph: &Graph, plan: &Plan, effects: &Effects) -> Option<String> {
    let fixed = plan.nodes.iter().enumerate().find_map(|(index, decided)| {
        let parsed = &graph.node(NodeIndex(index)).parsed;
        let is_needy = matches!(decided.decision, Decision::Build(_)) && parsed.fixed;
        is_needy.then(|| format!("the fixed-output derivation `{}`", parsed.path))
    });
    let effect = || effects.effects.first();
    fixed.or_else(|| Some(format!("the effect `{}`", effect()?.name)))
}
