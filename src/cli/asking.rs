//! From what was typed to what evaluation takes: the same things in two modules' words.

use std::path::PathBuf;

use super::error::{Error, Kind};
use super::request::{Argument, Nix, PipelineRequest, PipelineSource, Request, Source};
use crate::eval;

/// What evaluation is asked for builds.
pub fn evaluation(request: &Request) -> Result<eval::Request, Error> {
    let attributes = || {
        request
            .installables
            .iter()
            .filter(|typed| !typed.is_empty())
            .cloned()
            .collect()
    };
    let source = match &request.source {
        Source::Flakes => {
            let parsed = request
                .installables
                .iter()
                .map(|typed| eval::Installable::parse(typed));
            let parsed = parsed.collect::<Result<_, _>>();
            eval::Source::Installables(parsed.map_err(|source| Error::new(Kind::Usage, source))?)
        }
        Source::File(file) => eval::Source::File {
            file: file.into(),
            attributes: attributes(),
        },
        Source::Expression(text) => eval::Source::Expression {
            text: text.clone(),
            attributes: attributes(),
        },
    };
    let (args, argstrs) = arguments(&request.arguments);
    Ok(eval::Request {
        source,
        args,
        argstrs,
        system: system(&request.nix),
    })
}

/// Where evaluation looks for a pipeline.
pub fn pipeline_source(request: &PipelineRequest) -> eval::PipelineSource {
    let text = match &request.source {
        PipelineSource::Flake(flake) => return eval::PipelineSource::Flake(flake.clone()),
        PipelineSource::File(file) => eval::NixText::File(file.into()),
        PipelineSource::Expression(text) => eval::NixText::Expression(text.clone()),
    };
    let (args, argstrs) = arguments(&request.arguments);
    eval::PipelineSource::Nix {
        text,
        args,
        argstrs,
    }
}

/// Where a file lies, or the directory itself: git is asked there.
pub fn directory_of(file: &str) -> Option<PathBuf> {
    let path = PathBuf::from(file);
    match path.parent() {
        _ if path.is_dir() => Some(path),
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(parent) if parent.is_dir() => Some(parent.to_owned()),
        _ => None,
    }
}

type Pairs = Vec<(String, String)>;

/// `--arg` and `--argstr` apart.
fn arguments(all: &[Argument]) -> (Pairs, Pairs) {
    let (mut args, mut argstrs) = (vec![], vec![]);
    for argument in all.iter().cloned() {
        match argument {
            Argument::Expression { name, expression } => args.push((name, expression)),
            Argument::Text { name, text } => argstrs.push((name, text)),
        }
    }
    (args, argstrs)
}

/// The system evaluated for: what was typed, else this machine's.
pub fn system(nix: &Nix) -> String {
    nix.system.clone().unwrap_or_else(eval::host_system)
}
