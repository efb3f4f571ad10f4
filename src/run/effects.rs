//! Effects in a run: when one may start, what it is given, and what holds it.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::SecretValue;
use crate::engine::lower::secret_id;
use crate::event::{NodeId, Outcome};
use crate::nix::StorePath;
use crate::pipeline::Effect;
use crate::run::Error;
use crate::run::conduct::Conductor;
use crate::run::course::{Course, EffectState, Job};
use crate::run::schedule::State;
use crate::tunnel::EffectJob;

/// What an effect's standing is made of.
enum Gate {
    /// Everything it waits for is good.
    Open,
    /// Something is still to come.
    Waiting,
    /// Something it waits for will never be good.
    Held(NodeId),
}

impl Course<'_> {
    /// Gives an outcome to every effect that will never start.
    pub(super) fn settle_effects(&mut self) {
        for index in 0..self.effects.len() {
            if self.effects[index] != EffectState::Waiting {
                continue;
            }
            let outcome = if self.is_stopping() {
                Outcome::Cancelled
            } else if let Gate::Held(because) = self.gate(index) {
                Outcome::Held { because }
            } else {
                continue;
            };
            self.conclude(&Job::Effect(index), outcome, 0.0);
        }
    }

    /// Returns an effect whose gate is open.
    pub(super) fn next_effect(&self) -> Option<usize> {
        (0..self.effects.len()).find(|index| {
            self.effects[*index] == EffectState::Waiting && matches!(self.gate(*index), Gate::Open)
        })
    }

    fn gate(&self, index: usize) -> Gate {
        let effect = &self.planned.effects.effects[index];
        let mut waiting = false;
        let needs = effect.needs.iter().map(|need| need.node);
        for node in effect.gate.values().copied().chain(needs) {
            match self.standing(node) {
                State::Good => {}
                State::Bad => {
                    let drv = &self.planned.graph.node(node).parsed.path;
                    return Gate::Held(NodeId::derivation(drv));
                }
                _ => waiting = true,
            }
        }
        for (other, state) in self.effects.iter().enumerate() {
            let name = &self.planned.effects.effects[other].name;
            if !effect.after.contains(name) {
                continue;
            }
            match state {
                EffectState::Succeeded => {}
                EffectState::Over => return Gate::Held(NodeId::effect(name)),
                EffectState::Waiting | EffectState::Running => waiting = true,
            }
        }
        if waiting { Gate::Waiting } else { Gate::Open }
    }
}

impl Conductor<'_, '_, '_> {
    /// Starts the op of an effect.
    pub(super) fn start_effect(&mut self, index: usize) -> Result<(), Error> {
        let name = self.course.planned.effects.effects[index].name.clone();
        let roots = self.effect_roots(index);
        let closure = self.mountable_closure(roots)?;
        let closure: Vec<&StorePath> = closure.iter().collect();
        let secrets = self
            .course
            .pipeline
            .and_then(|run| run.secrets.get(&name).cloned())
            .unwrap_or_default();
        let names: Vec<&str> = secrets.keys().map(String::as_str).collect();
        let nonce = self.session.nonce();
        let definition = self
            .session
            .lowering
            .effect(&name, &closure, &names, &nonce)?;
        self.course.effects[index] = EffectState::Running;
        self.employ(nonce.clone(), Job::Effect(index), None);
        let by_id = |(name, value): (String, SecretValue)| (secret_id(&nonce, &name), value);
        let secrets = secrets.into_iter().map(by_id).collect();
        self.session.start(nonce, definition, secrets)
    }

    fn effect_roots(&self, index: usize) -> BTreeSet<StorePath> {
        let effect = &self.course.planned.effects.effects[index];
        let mut roots = effect.sources.clone();
        for need in &effect.needs {
            let outputs = &self.course.planned.graph.node(need.node).parsed.outputs;
            roots.extend(
                need.outputs
                    .iter()
                    .filter_map(|name| outputs.get(name)?.clone()),
            );
        }
        roots
    }

    /// Describes an effect for its agent.
    pub(super) fn effect_job(&self, index: usize) -> EffectJob {
        let name = &self.course.planned.effects.effects[index].name;
        let effect = self
            .course
            .pipeline
            .and_then(|run| run.pipeline.effects.get(name))
            .expect("planned effects come from the pipeline");
        let timeout = effect.timeout.or(self.course.options.timeout);
        EffectJob {
            name: name.clone(),
            run: self.course.options.run.clone(),
            command: effect.command.clone(),
            environment: environment(effect),
            roots: self.effect_roots(index),
            secrets: effect.secrets.keys().cloned().collect(),
            timeout: timeout.map(|limit| limit.as_secs()),
            silence: self.course.options.silence.map(|limit| limit.as_secs()),
            sandbox_paths: self.session.sandbox_paths.clone(),
        }
    }
}

/// The environment of an effect: what every room has, then what it asks for.
fn environment(effect: &Effect) -> Vec<(String, String)> {
    let path: Vec<String> = effect
        .tools
        .iter()
        .map(|tool| format!("{tool}/bin"))
        .collect();
    let path = if path.is_empty() {
        "/path-not-set".to_owned()
    } else {
        path.join(":")
    };
    let mut environment: BTreeMap<String, String> = [
        ("PATH", path.as_str()),
        ("HOME", "/build"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for name in effect.secrets.keys() {
        let file = format!("{}/{name}", crate::agent::SECRETS);
        environment.insert(format!("{name}_FILE"), file);
    }
    environment.extend(effect.environment.clone());
    environment.into_iter().collect()
}
