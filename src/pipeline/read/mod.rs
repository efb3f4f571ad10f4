//! From the normaliser's JSON to a [`Pipeline`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::check::Faults;
use super::{Dockerfile, Effect, Pipeline, Reference, Root, Secret, StoreView, duration};
use crate::nix::{InStore, Outputs, StorePath, Wanted};

/// The version of the normaliser's answer that this reader understands.
const VERSION: u32 = 1;

/// A pipeline with what was found on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Names of the facts it was given: those it asked for.
    pub facts: BTreeSet<String>,
}

/// One thing that is wrong in a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Where, as an attribute path below the pipeline; empty for the pipeline itself.
    pub at: String,
    /// What.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_str() {
            "" => f.write_str(&self.message),
            at => write!(f, "`{at}` {}", self.message),
        }
    }
}

/// Why there is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The JSON is not the normaliser's.
    #[error("the normalised pipeline cannot be read")]
    Json(#[source] serde_json::Error),
    /// Another version's normaliser.
    #[error("the normalised pipeline has version {version}, not {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// There is no pipeline of this name.
    #[error("no pipeline is called `{name}`; {}", listed(names))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that exist.
        names: Vec<String>,
    },
    /// It asks for facts that are not known.
    #[error(
        "pipeline `{name}` needs {}, which is not known here",
        quoted("the fact ", facts)
    )]
    MissingFacts {
        /// The pipeline.
        name: String,
        /// The facts, required and absent.
        facts: Vec<String>,
    },
    /// It is wrong.
    #[error("pipeline `{name}`: {}", joined(faults))]
    Faults {
        /// The pipeline.
        name: String,
        /// Every fault found, in the order of the text.
        faults: Vec<Fault>,
    },
}

fn quoted(before: &str, names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("{before}`{name}`"))
        .collect::<Vec<_>>()
        .join(" and ")
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "there are none".into(),
        names => format!("there are: {}", names.join(", ")),
    }
}

fn joined(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the normaliser says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    version: u32,
    found: bool,
    names: Vec<String>,
    #[serde(default)]
    errors: Vec<Fault>,
    #[serde(default)]
    missing: Vec<String>,
    #[serde(default)]
    facts: BTreeSet<String>,
    #[serde(default)]
    builds: BTreeMap<String, Described>,
    #[serde(default)]
    effects: BTreeMap<String, RawEffect>,
}

impl Answer {
    /// Names of all pipelines beside the one asked for, itself included where it exists.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Described {
    #[serde(with = "crate::nix::text::path")]
    pub(super) drv_path: StorePath,
    pub(super) outputs: Vec<String>,
    pub(super) wanted: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEffect {
    pub(super) command: Vec<String>,
    pub(super) tools: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) after: BTreeSet<String>,
    pub(super) gate: Option<BTreeSet<String>>,
    pub(super) secrets: BTreeMap<String, RawSecret>,
    pub(super) timeout: Option<RawTimeout>,
    pub(super) image: Option<RawImage>,
    pub(super) dockerfile: Option<RawDockerfile>,
    pub(super) store: Option<String>,
    pub(super) needs: Vec<RawNeed>,
    #[serde(with = "crate::nix::text::paths")]
    pub(super) sources: BTreeSet<StorePath>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawSecret {
    pub(super) env: Option<String>,
    pub(super) file: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTimeout {
    Seconds(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawImage {
    Reference(String),
    Layout(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDockerfile {
    pub(super) context: String,
    pub(super) file: Option<String>,
    pub(super) target: Option<String>,
    pub(super) args: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawNeed {
    #[serde(with = "crate::nix::text::path")]
    drv: StorePath,
    outputs: BTreeSet<String>,
    all: bool,
}

/// Reads the normaliser's answer about the pipeline `name`.
///
/// # Errors
///
/// No such pipeline; a required fact is missing; or faults: all of the first stage that has any
/// (Nix's own look at the fields, then names, cycles, durations and texts here).
pub fn from_json(name: &str, json: &[u8]) -> Result<Read, Error> {
    let answer: Answer = serde_json::from_slice(json).map_err(Error::Json)?;
    let name = name.to_owned();
    if answer.version != VERSION {
        return Err(Error::Version {
            version: answer.version,
        });
    }
    if !answer.found {
        return Err(Error::Unknown {
            name,
            names: answer.names,
        });
    }
    if !answer.missing.is_empty() {
        return Err(Error::MissingFacts {
            name,
            facts: answer.missing,
        });
    }
    let mut faults = Faults(answer.errors);
    if faults.0.is_empty() {
        faults.check(&answer.builds, &answer.effects);
    }
    if !faults.0.is_empty() {
        return Err(Error::Faults {
            name,
            faults: faults.0,
        });
    }
    let pipeline = convert(name, answer.builds, answer.effects);
    Ok(Read {
        pipeline,
        facts: answer.facts,
    })
}

pub(super) fn timeout(raw: &RawTimeout) -> Option<Duration> {
    match raw {
        RawTimeout::Text(text) => duration::parse(text),
        RawTimeout::Seconds(seconds) => u64::try_from(*seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
    }
}

/// The root that an effect's fields name; an error is the field and what is wrong with it.
pub(super) fn root(raw: &RawEffect) -> Result<Root, (&'static str, &'static str)> {
    const IN_STORE: &str = "is not in the store";
    match (&raw.image, &raw.dockerfile) {
        (Some(RawImage::Reference(text)), _) => Reference::parse(text).map(Root::Image).ok_or((
            "image",
            "is no name of an image, such as `docker.io/library/busybox:1.36`",
        )),
        (Some(RawImage::Layout(text)), _) => InStore::parse(text)
            .map(Root::Layout)
            .ok_or(("image", IN_STORE)),
        (None, Some(build)) => {
            let context = InStore::parse(&build.context).ok_or(("dockerfile.context", IN_STORE))?;
            Ok(Root::Dockerfile(Dockerfile {
                context,
                file: build
                    .file
                    .clone()
                    .unwrap_or_else(|| "Dockerfile".to_owned()),
                target: build.target.clone(),
                args: build.args.clone(),
            }))
        }
        (None, None) => Ok(Root::Empty),
    }
}

fn convert(
    name: String,
    builds: BTreeMap<String, Described>,
    effects: BTreeMap<String, RawEffect>,
) -> Pipeline {
    let all: BTreeSet<String> = builds.keys().cloned().collect();
    let effects = effects
        .into_iter()
        .map(|(name, raw)| (name.clone(), effect(name, raw, &all)))
        .collect();
    let builds = builds
        .into_iter()
        .map(|(name, build)| {
            let outputs = Outputs::Names(build.wanted);
            (
                name.clone(),
                Wanted {
                    name,
                    drv: build.drv_path,
                    outputs,
                },
            )
        })
        .collect();
    Pipeline {
        name,
        builds,
        effects,
    }
}

fn effect(name: String, raw: RawEffect, builds: &BTreeSet<String>) -> Effect {
    let root = root(&raw).unwrap_or(Root::Empty);
    let secrets = raw.secrets.into_iter().map(|(name, secret)| {
        let from = match (secret.file, secret.env) {
            (Some(file), _) => Secret::File(file),
            (None, Some(variable)) => Secret::Variable(variable),
            (None, None) => Secret::Variable(name.clone()),
        };
        (name, from)
    });
    let needs = raw.needs.into_iter().map(|need| {
        let all = need.all || need.outputs.is_empty();
        let name = need.drv.name().trim_end_matches(".drv").to_owned();
        let outputs = if all {
            Outputs::All
        } else {
            Outputs::Names(need.outputs)
        };
        Wanted {
            name,
            drv: need.drv,
            outputs,
        }
    });
    Effect {
        name,
        root,
        store: match raw.store {
            Some(_) => StoreView::Whole,
            None => StoreView::Closure,
        },
        command: raw.command,
        tools: raw.tools,
        environment: raw.environment,
        after: raw.after,
        gate: raw.gate.unwrap_or_else(|| builds.clone()),
        secrets: secrets.collect(),
        timeout: raw.timeout.as_ref().and_then(timeout),
        needs: needs.collect(),
        sources: raw.sources,
    }
}

#[cfg(test)]
mod tests;
