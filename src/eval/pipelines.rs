//! Pipelines of a flake: where they are found, and how they become JSON.
//!
//! They lie at `pipelines.<system>.<name>`, else at `legacyPackages.<system>.pipelines.<name>`.
//! Our normaliser (`nix/normalise.nix`) does the rest inside `nix`; its answer is read by
//! `pipeline::from_json`, which this module does not know: it finds, the other judges.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::targets::DESCRIBE;
use super::{Error, Evaluator, check_argument, check_system, quote};
use crate::nix::StorePath;

const NORMALISE: &str = include_str!("../../nix/normalise.nix");

/// What `nix` says of an attribute that a flake lacks, in every version.
const ABSENT: &str = "does not provide attribute";

/// Which pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineRequest {
    /// The flake, without an attribute.
    pub flake: String,
    /// Its name.
    pub name: String,
    /// What is known, for a pipeline that is a function (see [`super::facts`]).
    pub facts: BTreeMap<String, Value>,
    /// The system it is written for.
    pub system: String,
}

/// A pipeline as the normaliser leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// For `pipeline::from_json`; also where there is no such pipeline.
    pub json: Vec<u8>,
    /// Names of all pipelines of the flake, so far as they were looked at.
    pub names: BTreeSet<String>,
    /// What Nix built itself on the way (import from derivation), in order.
    pub built_while_evaluating: Vec<StorePath>,
}

#[derive(Deserialize)]
struct Glance {
    found: bool,
    names: BTreeSet<String>,
}

impl Evaluator {
    /// Evaluates a pipeline, pure, to the normaliser's JSON.
    ///
    /// That there is none of this name, that a fact is missing, or a field is wrong, is part of
    /// the JSON; an error is only what `nix` itself fails with.
    pub fn pipeline(
        &self,
        request: &PipelineRequest,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<Normalised, Error> {
        check_system(&request.system)?;
        check_argument(&request.flake, "a flake reference")?;
        if request.flake.contains('#') {
            let what = "a pipeline's flake: its attribute is the pipeline's name";
            return Err(Error::Argument {
                text: request.flake.clone(),
                what,
            });
        }
        if request.name.contains('\0') {
            return Err(Error::Argument {
                text: request.name.clone(),
                what: "a pipeline's name",
            });
        }
        let function = apply(request);
        let system = &request.system;
        let places = [
            format!("pipelines.{system}"),
            format!("legacyPackages.{system}.pipelines"),
        ];
        let mut names = BTreeSet::new();
        let mut built = Vec::new();
        for place in places {
            let subject = format!("{}#{place}", request.flake);
            let arguments = [subject.as_str(), "--apply", &function].map(OsStr::new);
            let called = match self.eval(&subject, system, &arguments, on_progress) {
                Err(Error::Failed { text, .. }) if is_absent(&text, &place) => continue,
                outcome => outcome?,
            };
            let glance: Glance =
                serde_json::from_slice(&called.stdout).map_err(|error| Error::Answer {
                    subject,
                    answer: error.to_string(),
                })?;
            built.extend(called.built);
            names.extend(glance.names);
            if glance.found {
                let json = called.stdout;
                return Ok(Normalised {
                    json,
                    names,
                    built_while_evaluating: built,
                });
            }
        }
        let nothing = json!({ "version": 1, "found": false, "names": names });
        let json = nothing.to_string().into_bytes();
        Ok(Normalised {
            json,
            names,
            built_while_evaluating: built,
        })
    }

    /// The names of a flake's pipelines for one system.
    pub fn pipeline_names(
        &self,
        flake: &str,
        system: &str,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<BTreeSet<String>, Error> {
        // No pipeline can have the empty name: all places are looked at.
        let request = PipelineRequest {
            flake: flake.into(),
            name: String::new(),
            facts: BTreeMap::new(),
            system: system.into(),
        };
        Ok(self.pipeline(&request, on_progress)?.names)
    }
}

/// Whether the error is about the place we look at, not about something a pipeline refers to.
fn is_absent(text: &str, place: &str) -> bool {
    text.lines()
        .any(|line| line.contains(ABSENT) && line.contains(place))
}

/// The text for `--apply`. Name and facts enter as quoted data only.
fn apply(request: &PipelineRequest) -> String {
    let name = quote::string(&request.name);
    let facts = quote::data(&request.facts);
    format!("({NORMALISE}) ({DESCRIBE}) {{ name = {name}; facts = {facts}; }}")
}
