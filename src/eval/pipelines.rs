//! Pipelines: where they are found, and how they become JSON.
//!
//! In a flake they lie at `pipelines.<system>.<name>`, else at
//! `legacyPackages.<system>.pipelines.<name>`; in a file or expression at the attribute named, or
//! they are its value.
//! Our normaliser (`nix/normalise.nix`) does the rest inside `nix`; its answer is read by
//! `pipeline::from_json`, which this module does not know: it finds, the other judges.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use serde::Deserialize;
use serde_json::{Value, json};

use super::nix::Purity;
use super::targets::{self, DESCRIBE};
use super::{Called, Error, Evaluator, check_argument, check_system, is_absent, quote};
use crate::nix::StorePath;

const NORMALISE: &str = include_str!("../../nix/normalise.nix");

/// Which pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineRequest {
    /// Where it is looked for.
    pub source: PipelineSource,
    /// Its name in a flake; the attribute path in a file or expression, empty for its value.
    pub name: String,
    /// What is known, for a pipeline that is a function (see [`super::facts`]).
    pub facts: BTreeMap<String, Value>,
    /// The system it is written for.
    pub system: String,
}

/// Where a pipeline is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineSource {
    /// A flake, without an attribute.
    Flake(String),
    /// A file or expression, with arguments for the functions on the way to the pipeline.
    Nix {
        /// Which.
        text: NixText,
        /// `--arg NAME EXPRESSION`.
        args: Vec<(String, String)>,
        /// `--argstr NAME TEXT`.
        argstrs: Vec<(String, String)>,
    },
}

/// Nix code that is no flake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NixText {
    /// A file, evaluated impure, as `-f` always is.
    File(OsString),
    /// An expression, evaluated pure.
    Expression(String),
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
        if request.name.contains('\0') {
            return Err(Error::Argument {
                text: request.name.clone(),
                what: "a pipeline's name",
            });
        }
        match &request.source {
            PipelineSource::Flake(flake) => self.of_flake(flake, request, on_progress),
            PipelineSource::Nix {
                text,
                args,
                argstrs,
            } => {
                let arguments = targets::arguments(args, argstrs)?;
                self.of_text(text, &arguments, request, on_progress)
            }
        }
    }

    fn of_flake(
        &self,
        flake: &str,
        request: &PipelineRequest,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<Normalised, Error> {
        check_argument(flake, "a flake reference")?;
        if flake.contains('#') {
            let what = "a pipeline's flake: its attribute is the pipeline's name";
            let text = flake.to_owned();
            return Err(Error::Argument { text, what });
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
            let subject = format!("{flake}#{place}");
            let arguments = [subject.as_str(), "--apply", &function].map(OsStr::new);
            let called = match self.eval(&subject, system, &arguments, Purity::Pure, on_progress) {
                Err(Error::Failed { text, .. }) if is_absent(&text, &place) => continue,
                outcome => outcome?,
            };
            let (found, some) = glance(&subject, &called)?;
            built.extend(called.built);
            names.extend(some);
            if found {
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

    fn of_text(
        &self,
        text: &NixText,
        arguments: &[OsString],
        request: &PipelineRequest,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<Normalised, Error> {
        let (flag, text, subject, purity) = match text {
            NixText::File(file) => {
                let subject = file.to_string_lossy().into_owned();
                ("--file", targets::guarded(file), subject, Purity::Impure)
            }
            NixText::Expression(text) => ("--expr", text.into(), "--expr".to_owned(), Purity::Pure),
        };
        let name = &request.name;
        let function = format!(
            "value: {} {{ {} = value; }}",
            apply(request),
            quote::string(name)
        );
        let mut more = vec![OsStr::new(flag), &text];
        if !name.is_empty() {
            check_argument(name, "an attribute")?;
            more.push(OsStr::new(name));
        }
        more.extend(["--apply", &function].map(OsStr::new));
        more.extend(arguments.iter().map(OsString::as_os_str));
        let called = self.eval(&subject, &request.system, &more, purity, on_progress)?;
        let (_, names) = glance(&subject, &called)?;
        Ok(Normalised {
            json: called.stdout,
            names,
            built_while_evaluating: called.built,
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
            source: PipelineSource::Flake(flake.into()),
            name: String::new(),
            facts: BTreeMap::new(),
            system: system.into(),
        };
        Ok(self.pipeline(&request, on_progress)?.names)
    }
}

/// Whether the pipeline was found, and the names of all that are there.
fn glance(subject: &str, called: &Called) -> Result<(bool, BTreeSet<String>), Error> {
    let glance: Glance = serde_json::from_slice(&called.stdout).map_err(|error| Error::Answer {
        subject: subject.to_owned(),
        answer: error.to_string(),
    })?;
    Ok((glance.found, glance.names))
}

/// The text for `--apply`. Name and facts enter as quoted data only.
fn apply(request: &PipelineRequest) -> String {
    let name = quote::string(&request.name);
    let facts = quote::data(&request.facts);
    format!("(({NORMALISE}) ({DESCRIBE}) {{ name = {name}; facts = {facts}; }})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_pipelines_has_every_field_of_an_effect() {
        let known = NORMALISE.split("known = [").nth(1).unwrap();
        let known = known.split("];").next().unwrap().split('"');
        let known: Vec<&str> = known.skip(1).step_by(2).collect();
        assert!(known.contains(&"command"));
        let page = include_str!("../../docs/pipelines.md");
        let table = page.split("An effect has these").nth(1).unwrap();
        let table = table.split("Any other field").next().unwrap().lines();
        let named: Vec<&str> = table
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(named, known);
    }
}
