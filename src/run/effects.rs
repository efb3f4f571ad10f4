//! Effects in a run: when one may start, what it is given, and what holds it.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::lower::{EffectInputs, Reach, secret_id};
use crate::engine::root::{LAYOUTS, accounts, op_root};
use crate::engine::{self, Op, SecretValue, Shape};
use crate::event::{NodeId, Outcome};
use crate::nix::StorePath;
use crate::pipeline::{Effect, Root, StoreView};
use crate::plan::{Effects, NodeIndex};
use crate::run::conduct::Conductor;
use crate::run::course::{Course, EffectState, Job};
use crate::run::material::Material;
use crate::run::schedule::State;
use crate::run::session::Session;
use crate::run::{EngineChoice, Error, Options};
use crate::tunnel::{EffectJob, EffectRoot, EffectStore};

/// What an effect's standing is made of.
enum Gate {
    /// Everything it waits for is good.
    Open,
    /// Something is still to come.
    Waiting,
    /// Something it waits for will never be good.
    Held(NodeId),
}

/// Refuses what the engine cannot give to an effect.
pub(super) fn admit(options: &Options, effects: &Effects) -> Result<(), engine::Error> {
    for effect in &effects.effects {
        if options.engine != EngineChoice::Embedded {
            continue;
        }
        if effect.root != Root::Empty {
            return Err(engine::Error::NoRoots {
                effect: effect.name.clone(),
                root: effect.root.to_string(),
            });
        }
        if effect.store == StoreView::Whole && options.shape == Shape::Plain {
            let effect = effect.name.clone();
            return Err(engine::Error::NoWalls { effect });
        }
    }
    Ok(())
}

/// Refuses what this daemon cannot give to an effect.
pub(super) fn admit_there(session: &Session<'_>, effects: &Effects) -> Result<(), engine::Error> {
    for effect in &effects.effects {
        if matches!(effect.root, Root::Layout(_)) && !session.can(LAYOUTS) {
            return Err(engine::Error::TooOldForRoot {
                effect: effect.name.clone(),
                root: effect.root.to_string(),
                capability: LAYOUTS,
            });
        }
    }
    Ok(())
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

    /// Whether an effect waits for this build.
    pub(super) fn has_effect_behind(&self, node: NodeIndex) -> bool {
        let mut effects = self.planned.effects.effects.iter().zip(&self.effects);
        effects.any(|(effect, state)| {
            let mut needs = effect.needs.iter().map(|need| need.node);
            *state == EffectState::Waiting
                && (effect.gate.values().any(|gate| *gate == node)
                    || needs.any(|need| need == node))
        })
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
        let root = self.course.planned.effects.effects[index].root.clone();
        let store = self.course.planned.effects.effects[index].store;
        let closure = match store {
            StoreView::Closure => {
                let mut roots = self.effect_roots(index);
                if root == Root::Empty {
                    roots.extend(self.session.tools().cloned());
                }
                self.mountable_closure(roots)?
            }
            StoreView::Whole => Vec::new(),
        };
        let secrets = self
            .course
            .pipeline
            .and_then(|run| run.secrets.get(&name).cloned())
            .unwrap_or_default();
        let inputs = EffectInputs {
            name: &name,
            root: &root,
            store,
            closure: closure.iter().collect(),
            secrets: secrets.keys().map(String::as_str).collect(),
        };
        let nonce = self.session.nonce();
        let definition = self.session.lowering.effect(&inputs, &nonce)?;
        self.course.effects[index] = EffectState::Running;
        self.employ(nonce.clone(), Job::Effect(index), Reach::Network, None);
        let by_id = |(name, value): (String, SecretValue)| (secret_id(&nonce, &name), value);
        let mut secrets: BTreeMap<String, SecretValue> = secrets.into_iter().map(by_id).collect();
        if root != Root::Empty {
            secrets.extend(accounts(&nonce).map(|(id, value)| (id, SecretValue(value))));
        }
        let here = match &root {
            Root::Layout(place) => Material::open(self.course.options)?.place(place)?,
            _ => None,
        };
        let root = op_root(&root, here, self.session.lowering.outside);
        self.session.start(Op {
            nonce,
            definition,
            secrets,
            root,
        })
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
            pipeline: self.course.pipeline.map(|run| run.origin.clone()),
            command: effect.command.clone(),
            environment: environment(effect),
            tools: tools(effect),
            roots: self.effect_roots(index),
            secrets: effect.secrets.keys().cloned().collect(),
            timeout: timeout.map(|limit| limit.as_secs()),
            silence: self.course.options.silence.map(|limit| limit.as_secs()),
            sandbox_paths: match effect.root {
                Root::Empty => self.session.sandbox_paths.clone(),
                // An image has a shell of its own, or none.
                _ => Vec::new(),
            },
            root: match effect.root {
                Root::Empty => EffectRoot::Empty,
                Root::Image(_) | Root::Layout(_) | Root::Dockerfile(_) => EffectRoot::Image,
            },
            store: match effect.store {
                StoreView::Closure => EffectStore::Closure,
                StoreView::Whole => EffectStore::Whole,
            },
        }
    }
}

/// The environment of an effect: what every room has, then what it asks for.
fn environment(effect: &Effect) -> Vec<(String, String)> {
    let mut environment: BTreeMap<String, String> = [
        ("HOME", "/build"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    if effect.store == StoreView::Whole {
        // Nix takes user 0 for one who has build users.
        environment.insert("NIX_CONFIG".to_owned(), "build-users-group =".to_owned());
    }
    // With an image its own directories come after: the agent knows them.
    if effect.root == Root::Empty {
        let path = match tools(effect) {
            none if none.is_empty() => "/path-not-set".to_owned(),
            tools => tools.join(":"),
        };
        environment.insert("PATH".to_owned(), path);
    }
    for name in effect.secrets.keys() {
        let file = format!("{}/{name}", crate::agent::SECRETS);
        environment.insert(format!("{name}_FILE"), file);
    }
    environment.extend(effect.environment.clone());
    environment.into_iter().collect()
}

fn tools(effect: &Effect) -> Vec<String> {
    let directory = |tool: &String| format!("{tool}/bin");
    effect.tools.iter().map(directory).collect()
}
