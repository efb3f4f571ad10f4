//! From what was typed to what is asked of evaluation; shared by the commands that evaluate.

use crate::cli::args::{Evaluation, NixOptions, pairs};
use crate::cli::error::Error;
use crate::cli::request::{Argument, Nix, PipelineRequest, PipelineSource, Request, Source};

/// What to build: installables of flakes, or attributes of a file or expression.
///
/// Nothing typed means the flake here, or the whole file or expression.
pub fn builds(
    typed: &Evaluation,
    options: &NixOptions,
    installables: &[String],
) -> Result<Request, Error> {
    let source = source(typed)?;
    let nothing = match source {
        Source::Flakes => ".",
        Source::File(_) | Source::Expression(_) => "",
    };
    let mut wanted: Vec<String> = installables.to_vec();
    wanted.extend(typed.attributes.iter().cloned());
    if wanted.is_empty() {
        wanted.push(nothing.to_owned());
    }
    Ok(Request {
        source,
        installables: wanted,
        arguments: arguments(typed),
        nix: nix(options),
    })
}

/// Which pipeline is meant: `FLAKE#NAME`, where the flake here and the name `default` need not be
/// said, or an attribute of a file or expression, where none means its value.
pub fn pipeline(
    typed: &Evaluation,
    options: &NixOptions,
    names: &[String],
) -> Result<PipelineRequest, Error> {
    let all = names.iter().chain(&typed.attributes);
    let all: Vec<&str> = all.map(String::as_str).collect();
    let name = match all.as_slice() {
        [] => "",
        [name] => name,
        _ => return Err(Error::usage("one pipeline runs at a time: name one")),
    };
    let (source, name) = match source(typed)? {
        Source::File(file) => (PipelineSource::File(file), name),
        Source::Expression(text) => (PipelineSource::Expression(text), name),
        Source::Flakes => {
            let (flake, name) = name.split_once('#').unwrap_or((name, ""));
            let flake = if flake.is_empty() { "." } else { flake };
            let name = if name.is_empty() { "default" } else { name };
            (PipelineSource::Flake(flake.to_owned()), name)
        }
    };
    Ok(PipelineRequest {
        source,
        name: name.to_owned(),
        arguments: arguments(typed),
        nix: nix(options),
    })
}

fn arguments(typed: &Evaluation) -> Vec<Argument> {
    let expressions = pairs(&typed.arg)
        .into_iter()
        .map(|(name, expression)| Argument::Expression { name, expression });
    let texts = pairs(&typed.argstr)
        .into_iter()
        .map(|(name, text)| Argument::Text { name, text });
    expressions.chain(texts).collect()
}

fn nix(typed: &NixOptions) -> Nix {
    Nix {
        system: typed.system.clone(),
        options: pairs(&typed.option),
    }
}

fn source(typed: &Evaluation) -> Result<Source, Error> {
    match (&typed.file, &typed.expr) {
        (Some(file), _) => Ok(Source::File(file.clone())),
        (None, Some(expression)) => Ok(Source::Expression(expression.clone())),
        (None, None) if !typed.attributes.is_empty() => {
            Err(Error::usage("`--attr` needs a file or an expression")
                .hint("an attribute of a flake is written `FLAKE#ATTR`"))
        }
        (None, None) if !(typed.arg.is_empty() && typed.argstr.is_empty()) => Err(Error::usage(
            "`--arg` and `--argstr` need a file or an expression: a flake takes no arguments",
        )),
        (None, None) => Ok(Source::Flakes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builds(typed: &Evaluation, installables: &[&str]) -> Result<Request, Error> {
        let installables: Vec<String> = installables.iter().map(ToString::to_string).collect();
        super::builds(typed, &NixOptions::default(), &installables)
    }

    #[test]
    fn nothing_means_what_is_here() {
        let flake = Evaluation::default();
        let file = Evaluation {
            file: Some("ci.nix".into()),
            ..Evaluation::default()
        };
        assert_eq!(builds(&flake, &[]).unwrap().installables, ["."]);
        assert_eq!(builds(&file, &[]).unwrap().installables, [""]);
    }

    #[test]
    fn a_pipeline_is_named_behind_its_flake() {
        let names = |reference: Option<&str>| {
            let typed: Vec<String> = reference.map(str::to_owned).into_iter().collect();
            let request = pipeline(&Evaluation::default(), &NixOptions::default(), &typed).unwrap();
            (request.source, request.name)
        };
        let is = |flake: &str, name: &str| {
            let flake = PipelineSource::Flake(flake.to_owned());
            (flake, name.to_owned())
        };
        assert_eq!(names(None), is(".", "default"));
        assert_eq!(names(Some("#release")), is(".", "release"));
        assert_eq!(names(Some("./sub")), is("./sub", "default"));
        assert_eq!(names(Some("path:/a?dir=b#x")), is("path:/a?dir=b", "x"));
    }

    #[test]
    fn a_file_or_expression_is_a_pipeline_or_has_some() {
        let file = |attributes: &[&str]| Evaluation {
            file: Some("ci.nix".into()),
            attributes: attributes.iter().map(ToString::to_string).collect(),
            ..Evaluation::default()
        };
        let names = |typed: &Evaluation| {
            pipeline(typed, &NixOptions::default(), &[]).map(|request| request.name)
        };
        assert_eq!(names(&file(&[])).unwrap(), "");
        assert_eq!(names(&file(&["a.b"])).unwrap(), "a.b");
        assert!(names(&file(&["a", "b"])).is_err());
    }

    #[test]
    fn attributes_follow_what_was_typed_without_a_flag() {
        let typed = Evaluation {
            file: Some("x".into()),
            attributes: vec!["b".into()],
            arg: vec!["n".into(), "1".into()],
            ..Evaluation::default()
        };
        let request = builds(&typed, &["a^dev"]).unwrap();
        assert_eq!(request.installables, ["a^dev", "b"]);
        assert_eq!(request.arguments.len(), 1);
    }

    #[test]
    fn a_flake_takes_neither_attributes_nor_arguments() {
        let two = || vec!["a".to_owned(), "1".to_owned()];
        let none = Evaluation::default;
        for typed in [
            Evaluation {
                attributes: vec!["a".into()],
                ..none()
            },
            Evaluation {
                arg: two(),
                ..none()
            },
            Evaluation {
                argstr: two(),
                ..none()
            },
        ] {
            assert!(builds(&typed, &["."]).is_err());
        }
    }
}
