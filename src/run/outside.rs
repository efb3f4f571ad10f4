//! The network of what may reach one: fixed-output builds and effects.
//!
//! A dockerd without a bridge has none for ops by default. Where it grants that of its host they get
//! it, and the user is told; else nothing that needs one is begun. A daemon that was lost may have
//! come back without: what is concluded by then needs none.

use crate::engine;
use crate::engine::offer::Outside;
use crate::event::Event;
use crate::plan::NodeIndex;
use crate::run::EngineChoice;
use crate::run::course::{Course, EffectState};
use crate::run::session::Session;

/// Refuses what the engine has no network for; returns what the user has to know of the one it has.
///
/// # Errors
///
/// [`engine::Error::NoNetwork`].
pub(super) fn admit(
    session: &Session<'_>,
    course: &Course<'_>,
) -> Result<Option<Event>, engine::Error> {
    let EngineChoice::BuildKit { address, .. } = &course.options.engine else {
        return Ok(None);
    };
    if session.outside == Outside::Default {
        return Ok(None);
    }
    let Some(what) = needy(course) else {
        return Ok(None);
    };
    match &session.outside {
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

/// The first thing to come that may reach the network.
fn needy(course: &Course<'_>) -> Option<String> {
    let planned = &course.planned;
    let mut nodes = (0..planned.plan.nodes.len()).map(NodeIndex);
    let fixed = nodes.find_map(|node| {
        let parsed = &planned.graph.node(node).parsed;
        let is_needy = parsed.fixed && course.schedule.is_to_start(node);
        is_needy.then(|| format!("the fixed-output derivation `{}`", parsed.path))
    });
    let mut effects = planned.effects.effects.iter().zip(&course.effects);
    fixed.or_else(|| {
        let (effect, _) = effects.find(|(_, state)| **state == EffectState::Waiting)?;
        Some(format!("the effect `{}`", effect.name))
    })
}
