//! From a [`Request`] to derivations and the outputs wanted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::installable::{Installable, Subject, split_outputs};
use super::nix::Purity;
use super::{Called, Error, Evaluated, Evaluator, Request, Source, check_argument, quote};
use crate::nix::{Outputs, StorePath, Wanted};

/// Our function that makes data of a derivation.
pub(super) const DESCRIBE: &str = include_str!("../../nix/describe.nix");
const TARGET: &str = include_str!("../../nix/target.nix");
const CALL: &str = include_str!("../../nix/call.nix");

/// What our function says of one installable.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    target: Option<Target>,
    #[serde(default)]
    found: String,
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(with = "crate::nix::text::path")]
    drv_path: StorePath,
    outputs: Vec<String>,
    wanted: BTreeSet<String>,
}

impl Request {
    /// The outcome where it takes no evaluation: all that is asked for are `.drv` paths.
    ///
    /// All their outputs are wanted where none are named, as `nix-store --realise` has it.
    pub fn without_nix(&self) -> Option<Evaluated> {
        let Source::Installables(installables) = &self.source else {
            return None;
        };
        let direct = installables.iter().map(Installable::direct);
        let wanted = direct.collect::<Option<_>>()?;
        Some(Evaluated {
            wanted,
            built_while_evaluating: Vec::new(),
            impure: false,
        })
    }
}

impl Installable {
    /// What is wanted, if that takes no evaluation.
    pub(super) fn direct(&self) -> Option<Wanted> {
        let Subject::Derivation(drv) = &self.subject else {
            return None;
        };
        Some(Wanted {
            name: self.to_string(),
            drv: drv.clone(),
            outputs: self.outputs.clone().unwrap_or(Outputs::All),
        })
    }
}

impl Evaluator {
    /// Evaluates what is asked for. Progress goes to `on_progress`, line by line; errors do not:
    /// they come back, whole.
    pub fn evaluate(
        &self,
        request: &Request,
        on_progress: &mut dyn FnMut(&str),
    ) -> Result<Evaluated, Error> {
        let arguments = !(request.args.is_empty() && request.argstrs.is_empty());
        let mut job = Job {
            evaluator: self,
            request,
            on_progress,
            built: Vec::new(),
        };
        let (wanted, impure) = match &request.source {
            Source::Installables(_) if arguments => return Err(Error::FlakeArguments),
            Source::Installables(all) => (job.installables(all)?, false),
            Source::Expression { text, attributes } => {
                (job.expression(text, or_whole(attributes))?, false)
            }
            Source::File { file, attributes } => (job.file(file, or_whole(attributes))?, true),
        };
        Ok(Evaluated {
            wanted,
            built_while_evaluating: job.built,
            impure,
        })
    }
}

pub(super) struct Job<'a> {
    evaluator: &'a Evaluator,
    pub(super) request: &'a Request,
    on_progress: &'a mut dyn FnMut(&str),
    built: Vec<StorePath>,
}

impl Job<'_> {
    /// Calls `nix eval` with what it is to evaluate, and a function for the value.
    pub(super) fn eval(
        &mut self,
        subject: &str,
        evaluated: &[&OsStr],
        function: &str,
    ) -> Result<Vec<u8>, Error> {
        let arguments = self.arguments()?;
        let mut more = evaluated.to_vec();
        more.extend(["--apply", function].map(OsStr::new));
        more.extend(arguments.iter().map(OsString::as_os_str));
        let system = &self.request.system;
        let called = self
            .evaluator
            .eval(subject, system, &more, Purity::Pure, self.on_progress)?;
        self.remember(&called);
        Ok(called.stdout)
    }

    /// Calls `nix` with something else than an evaluation.
    pub(super) fn ask(&mut self, subject: &str, more: &[OsString]) -> Result<Vec<u8>, Error> {
        let mut arguments = self.evaluator.settings(&self.request.system)?;
        arguments.extend_from_slice(more);
        let evaluator = self.evaluator;
        let called = evaluator.call(subject, "nix", arguments, Purity::Pure, self.on_progress)?;
        Ok(called.stdout)
    }

    /// Evaluates a file as `nix-build` does: one derivation, or all in a set, with the output
    /// each is selected by.
    fn file(&mut self, file: &OsStr, attributes: &[String]) -> Result<Vec<Wanted>, Error> {
        let mut wanted = Vec::new();
        for (some, outputs) in together(attributes)? {
            wanted.extend(self.attributes(file, &some, outputs.as_ref())?);
        }
        Ok(wanted)
    }

    /// Evaluates attributes with one call of `nix`. If it fails, halves tell which one is to blame,
    /// so that the error names that one and is what Nix says of it alone.
    fn attributes(
        &mut self,
        file: &OsStr,
        attributes: &[&str],
        outputs: Option<&Outputs>,
    ) -> Result<Vec<Wanted>, Error> {
        let subject = match attributes {
            [""] => file.to_string_lossy().into_owned(),
            [one] => (*one).to_owned(),
            many => format!("{} attributes of {}", many.len(), file.to_string_lossy()),
        };
        let failed = match self.instantiate(&subject, file, attributes) {
            Ok(stdout) => match instantiated(&subject, attributes, outputs, &stdout) {
                Err(failed @ Error::NoDerivation { .. }) => failed,
                other => return other,
            },
            Err(failed @ Error::Failed { .. }) if attributes.len() > 1 => failed,
            Err(other) => return Err(other),
        };
        if attributes.len() == 1 {
            return Err(failed);
        }
        let (first, second) = attributes.split_at(attributes.len() / 2);
        let mut wanted = self.attributes(file, first, outputs)?;
        wanted.extend(self.attributes(file, second, outputs)?);
        Ok(wanted)
    }

    fn instantiate(
        &mut self,
        subject: &str,
        file: &OsStr,
        attributes: &[&str],
    ) -> Result<Vec<u8>, Error> {
        let mut arguments = self.evaluator.settings(&self.request.system)?;
        arguments.extend(self.arguments()?);
        for attribute in attributes {
            let (path, _) = split_outputs(attribute)?;
            if !path.is_empty() {
                check_argument(path, "an attribute")?;
                arguments.extend(["-A", path].map(OsString::from));
            }
        }
        arguments.push(guarded(file));
        let evaluator = self.evaluator;
        let called = evaluator.call(
            subject,
            "nix-instantiate",
            arguments,
            Purity::Impure,
            self.on_progress,
        )?;
        self.remember(&called);
        Ok(called.stdout)
    }

    fn arguments(&self) -> Result<Vec<OsString>, Error> {
        arguments(&self.request.args, &self.request.argstrs)
    }

    /// The same as expressions, for a function that is not an attribute's but the value itself:
    /// `nix eval --apply` would not call it.
    fn expressions(&self) -> BTreeMap<&str, String> {
        let args = self.request.args.iter();
        let argstrs = self.request.argstrs.iter();
        args.map(|(name, text)| (name.as_str(), format!("({text}\n)")))
            .chain(argstrs.map(|(name, text)| (name.as_str(), quote::string(text))))
            .collect()
    }

    /// Our function that calls functions with the arguments.
    pub(super) fn call(&self) -> String {
        let arguments = self.expressions().into_iter();
        let arguments: Vec<_> = arguments
            .map(|(name, value)| format!("{name} = {value};"))
            .collect();
        format!("({CALL}) {{ {} }}", arguments.join(" "))
    }

    /// Our function that says what a value stands for.
    pub(super) fn target(&self) -> String {
        format!("({TARGET}) ({}) ({DESCRIBE})", self.call())
    }

    fn remember(&mut self, called: &Called) {
        for drv in &called.built {
            if !self.built.contains(drv) {
                self.built.push(drv.clone());
            }
        }
    }
}

impl Answer {
    /// What is wanted of it, given the outputs that were typed.
    pub(super) fn wanted(self, subject: &str, typed: Option<&Outputs>) -> Result<Wanted, Error> {
        match self.target {
            Some(target) => target.wanted(subject, typed),
            None => Err(Error::NotDerivation {
                subject: subject.into(),
                found: article(&self.found),
                names: self.names,
            }),
        }
    }
}

impl Target {
    fn wanted(self, subject: &str, typed: Option<&Outputs>) -> Result<Wanted, Error> {
        let outputs = typed.cloned().unwrap_or(Outputs::Names(self.wanted));
        if let Outputs::Names(names) = &outputs
            && let Some(output) = names.iter().find(|name| !self.outputs.contains(name))
        {
            let (subject, output) = (subject.to_owned(), output.clone());
            return Err(Error::NoOutput {
                subject,
                output,
                outputs: self.outputs,
            });
        }
        Ok(Wanted {
            name: subject.into(),
            drv: self.drv_path,
            outputs,
        })
    }
}

/// `--arg` and `--argstr` as `nix` takes them.
pub(super) fn arguments(
    args: &[(String, String)],
    argstrs: &[(String, String)],
) -> Result<Vec<OsString>, Error> {
    let args = args.iter().map(|pair| ("--arg", pair));
    let argstrs = argstrs.iter().map(|pair| ("--argstr", pair));
    let mut arguments = Vec::new();
    for (flag, (name, value)) in args.chain(argstrs) {
        if !quote::is_identifier(name) {
            return Err(Error::Argument {
                text: name.clone(),
                what: "an argument's name",
            });
        }
        arguments.extend([flag, name, value].map(OsString::from));
    }
    Ok(arguments)
}

/// The attributes, or the empty one, which means the whole.
fn or_whole(attributes: &[String]) -> &[String] {
    const WHOLE: &[String] = &[String::new()];
    if attributes.is_empty() {
        WHOLE
    } else {
        attributes
    }
}

/// Reads what a function of ours made.
pub(super) fn read<T: DeserializeOwned>(subject: &str, stdout: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(stdout).map_err(|error| Error::Answer {
        subject: subject.into(),
        answer: error.to_string(),
    })
}

/// A file whose name begins like an option; `<nixpkgs>` and addresses stay as they are.
pub(super) fn guarded(file: &OsStr) -> OsString {
    match file.as_encoded_bytes().first() {
        Some(b'-') => {
            let mut guarded = OsString::from("./");
            guarded.push(file);
            guarded
        }
        _ => file.to_owned(),
    }
}

/// How many bytes of attributes one call of `nix` gets: a process takes 2 MB at least, its
/// environment and the pointers to each argument included.
const BYTES: usize = 256 << 10;

/// Cuts attributes into runs that one call can evaluate: with the same outputs typed behind them,
/// because a line of the answer does not say which attribute it is of.
#[expect(clippy::type_complexity, reason = "it is said once")]
fn together(attributes: &[String]) -> Result<Vec<(Vec<&str>, Option<Outputs>)>, Error> {
    let mut runs: Vec<(Vec<&str>, Option<Outputs>)> = Vec::new();
    let mut bytes = 0;
    for attribute in attributes {
        let (_, outputs) = split_outputs(attribute)?;
        bytes += attribute.len() + 32;
        match runs.last_mut() {
            Some((run, same)) if *same == outputs && bytes <= BYTES => run.push(attribute),
            _ => {
                bytes = attribute.len() + 32;
                runs.push((vec![attribute], outputs));
            }
        }
    }
    Ok(runs)
}

/// Reads the lines of `nix-instantiate`: `/nix/store/….drv`, with `!dev` if the output selected
/// is not `out`.
fn instantiated(
    subject: &str,
    attributes: &[&str],
    typed: Option<&Outputs>,
    stdout: &[u8],
) -> Result<Vec<Wanted>, Error> {
    let text = String::from_utf8_lossy(stdout);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    // An attribute may be many derivations, but has to be one at least.
    if lines.len() < attributes.len() {
        return Err(Error::NoDerivation {
            subject: subject.into(),
        });
    }
    let wanted = lines.iter().enumerate().map(|(at, line)| {
        let (path, output) = line.split_once('!').unwrap_or((line, "out"));
        let drv: StorePath = path.parse().map_err(|_| Error::Answer {
            subject: subject.into(),
            answer: (*line).to_owned(),
        })?;
        let name = match (attributes, lines.len()) {
            ([_], 1) => subject.to_owned(),
            (names, count) if names.len() == count => names[at].to_owned(),
            _ => drv.name().trim_end_matches(".drv").to_owned(),
        };
        let selected = || Outputs::Names(BTreeSet::from([output.to_owned()]));
        let outputs = typed.cloned().unwrap_or_else(selected);
        Ok(Wanted { name, drv, outputs })
    });
    wanted.collect()
}

fn article(kind: &str) -> String {
    match kind {
        "int" => "an integer".into(),
        "lambda" => "a function".into(),
        "null" => "null".into(),
        kind => format!("a {kind}"),
    }
}

/// What could have been selected instead, for the message.
pub(super) fn choice(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    match names {
        [] => String::new(),
        names => format!(
            "; it has {}{more}",
            names[..names.len().min(SHOWN)].join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-d.drv";

    #[test]
    fn derivations_need_no_nix() {
        let request = |texts: &[&str]| Request {
            source: Source::Installables(
                texts
                    .iter()
                    .map(|text| Installable::parse(text).unwrap())
                    .collect(),
            ),
            args: vec![],
            argstrs: vec![],
            system: "x86_64-linux".into(),
        };
        let wanted = request(&[DRV, &format!("{DRV}!dev")])
            .without_nix()
            .unwrap()
            .wanted;
        assert_eq!(wanted[0].outputs, Outputs::All);
        assert_eq!(
            wanted[1].outputs,
            Outputs::Names(BTreeSet::from(["dev".into()]))
        );
        assert_eq!(request(&[DRV, "."]).without_nix(), None);
    }

    #[test]
    fn attributes_with_the_same_outputs_go_together() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let cut = |list: &[&str]| {
            let list = texts(list);
            let runs = together(&list).unwrap();
            runs.iter().map(|(run, _)| run.len()).collect::<Vec<_>>()
        };
        assert_eq!(cut(&["a", "b^out", "c^out", "d^dev", "e"]), [1, 2, 1, 1]);
        assert_eq!(cut(&["a", "b", "c"]), [3]);
        let long = "x".repeat(BYTES / 2);
        assert_eq!(cut(&["a", &long, &long, "b"]), [2, 2]);
    }

    #[test]
    fn reads_lines_of_nix_instantiate() {
        let text = format!("{DRV}!dev\n{DRV}\n");
        let wanted = instantiated("f.nix", &[""], None, text.as_bytes()).unwrap();
        assert_eq!(
            wanted[0].outputs,
            Outputs::Names(BTreeSet::from(["dev".into()]))
        );
        assert_eq!(
            wanted[1].outputs,
            Outputs::Names(BTreeSet::from(["out".into()]))
        );
        assert_eq!(wanted[0].name, "d");
        let wanted = instantiated("a", &["a"], Some(&Outputs::All), DRV.as_bytes()).unwrap();
        assert_eq!(
            (wanted[0].name.as_str(), &wanted[0].outputs),
            ("a", &Outputs::All)
        );
        assert!(matches!(
            instantiated("a", &["a"], None, b""),
            Err(Error::NoDerivation { .. })
        ));
    }
}
