//! From the normaliser's JSON to a [`Pipeline`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::{Effect, Pipeline, Secret, duration, order};
use crate::nix::{Outputs, StorePath, Wanted};

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
struct Described {
    #[serde(with = "crate::nix::text::path")]
    drv_path: StorePath,
    outputs: Vec<String>,
    wanted: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEffect {
    command: Vec<String>,
    tools: Vec<String>,
    environment: BTreeMap<String, String>,
    after: BTreeSet<String>,
    gate: Option<BTreeSet<String>>,
    secrets: BTreeMap<String, RawSecret>,
    timeout: Option<RawTimeout>,
    needs: Vec<RawNeed>,
    #[serde(with = "crate::nix::text::paths")]
    sources: BTreeSet<StorePath>,
}

#[derive(Debug, Deserialize)]
struct RawSecret {
    env: Option<String>,
    file: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawTimeout {
    Seconds(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
struct RawNeed {
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

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, at: &str, message: impl Into<String>) {
        self.0.push(Fault {
            at: at.into(),
            message: message.into(),
        });
    }

    fn check(
        &mut self,
        builds: &BTreeMap<String, Described>,
        effects: &BTreeMap<String, RawEffect>,
    ) {
        for (name, build) in builds {
            let at = format!("builds.{name}");
            self.file_name(&at, name);
            if let Some(output) = build
                .wanted
                .iter()
                .find(|name| !build.outputs.contains(name))
            {
                self.add(
                    &at,
                    format!("wants the output `{output}`, which it does not have"),
                );
            }
            if build.wanted.is_empty() {
                self.add(&at, "wants no outputs");
            }
        }
        for (name, effect) in effects {
            self.effect(&format!("effects.{name}"), name, effect, builds, effects);
        }
        let after = effects
            .iter()
            .map(|(name, effect)| (name.as_str(), &effect.after))
            .collect();
        if let Some(cycle) = order::cycle(&after) {
            self.add(
                "effects",
                format!("wait for each other: {}", cycle.join(" after ")),
            );
        }
    }

    fn effect(
        &mut self,
        at: &str,
        name: &str,
        effect: &RawEffect,
        builds: &BTreeMap<String, Described>,
        effects: &BTreeMap<String, RawEffect>,
    ) {
        self.file_name(at, name);
        if effect.command.first().is_none_or(String::is_empty) {
            self.add(&format!("{at}.command"), "is empty: it must name a program");
        }
        let texts = effect.command.iter().map(|text| ("command", text));
        let texts = texts.chain(effect.tools.iter().map(|text| ("tools", text)));
        for (field, text) in texts {
            self.text(&format!("{at}.{field}"), text);
        }
        for (key, value) in &effect.environment {
            let at = format!("{at}.environment.{key}");
            self.variable(&at, key);
            self.text(&at, value);
        }
        for other in effect
            .after
            .iter()
            .filter(|other| !effects.contains_key(*other))
        {
            self.add(
                &format!("{at}.after"),
                format!("names `{other}`, which is no effect"),
            );
        }
        for build in effect
            .gate
            .iter()
            .flatten()
            .filter(|build| !builds.contains_key(*build))
        {
            self.add(
                &format!("{at}.gate"),
                format!("names `{build}`, which is no build"),
            );
        }
        for (key, secret) in &effect.secrets {
            self.secret(&format!("{at}.secrets.{key}"), key, secret);
        }
        if let Some(raw) = &effect.timeout
            && timeout(raw).is_none()
        {
            let message = "must be seconds above zero, or a string such as `45s`, `10m`, `1h30m`";
            self.add(&format!("{at}.timeout"), message);
        }
    }

    fn secret(&mut self, at: &str, name: &str, secret: &RawSecret) {
        self.file_name(at, name);
        match (&secret.env, &secret.file) {
            (_, Some(file)) if file.is_empty() => self.add(at, "has an empty `file`"),
            (_, Some(file)) => self.text(at, file),
            (Some(variable), None) => self.variable(at, variable),
            (None, None) => self.variable(at, name),
        }
    }

    /// Effects and secrets become file names, builds may.
    fn file_name(&mut self, at: &str, name: &str) {
        let bad = |c: char| c == '/' || c.is_control();
        if matches!(name, "" | "." | "..") || name.len() > 200 || name.contains(bad) {
            self.add(at, "has a name that cannot be a file name");
        }
    }

    fn variable(&mut self, at: &str, name: &str) {
        if name.is_empty() || name.contains(['=', '\0']) {
            self.add(at, format!("names `{name}`, which cannot be a variable"));
        }
    }

    fn text(&mut self, at: &str, text: &str) {
        if text.contains('\0') {
            self.add(at, "contains a NUL character");
        }
    }
}

fn timeout(raw: &RawTimeout) -> Option<Duration> {
    match raw {
        RawTimeout::Text(text) => duration::parse(text),
        RawTimeout::Seconds(seconds) => u64::try_from(*seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DRV: &str = "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-d.drv";

    fn effect_with(change: impl FnOnce(&mut Value)) -> Value {
        let mut effect = json!({
            "command": ["/bin/deploy"], "tools": [], "environment": {}, "after": [], "gate": null,
            "secrets": {}, "timeout": null, "needs": [], "sources": [],
        });
        change(&mut effect);
        effect
    }

    fn read(effects: &Value) -> Result<Read, Error> {
        let answer = json!({
            "version": 1, "found": true, "names": ["release"], "facts": ["rev"],
            "errors": [], "missing": [], "effects": effects,
            "builds": { "d": { "drvPath": DRV, "name": "d", "system": "x86_64-linux",
                               "outputs": ["out", "dev"], "wanted": ["out"] } },
        });
        from_json("release", answer.to_string().as_bytes())
    }

    fn fault(change: impl FnOnce(&mut Value)) -> String {
        read(&json!({ "deploy": effect_with(change) }))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_effect_waits_for_all_builds_unless_it_says_otherwise() {
        let narrow = effect_with(|effect| effect["gate"] = json!([]));
        let read = read(&json!({ "a": effect_with(|_| ()), "b": narrow })).unwrap();
        assert_eq!(
            read.pipeline.effects["a"].gate,
            BTreeSet::from(["d".into()])
        );
        assert_eq!(read.pipeline.effects["b"].gate, BTreeSet::new());
        assert_eq!(read.facts, BTreeSet::from(["rev".into()]));
        assert_eq!(read.pipeline.builds["d"].drv.to_string(), DRV);
    }

    #[test]
    fn reads_secrets_timeouts_and_needs() {
        let effect = effect_with(|effect| {
            effect["secrets"] = json!({ "A": { "env": null, "file": null },
                                        "B": { "env": "X", "file": null },
                                        "C": { "env": null, "file": "/run/c" } });
            effect["timeout"] = json!({ "text": "1h30m" });
            effect["needs"] = json!([{ "drv": DRV, "outputs": ["dev"], "all": false },
                                     { "drv": DRV, "outputs": [], "all": true }]);
        });
        let read = read(&json!({ "deploy": effect })).unwrap();
        let effect = &read.pipeline.effects["deploy"];
        assert_eq!(effect.secrets["A"], Secret::Variable("A".into()));
        assert_eq!(effect.secrets["B"], Secret::Variable("X".into()));
        assert_eq!(effect.secrets["C"], Secret::File("/run/c".into()));
        assert_eq!(effect.timeout, Some(Duration::from_secs(5400)));
        assert_eq!(
            effect.needs[0].outputs,
            Outputs::Names(BTreeSet::from(["dev".into()]))
        );
        assert_eq!(
            (effect.needs[1].name.as_str(), &effect.needs[1].outputs),
            ("d", &Outputs::All)
        );
    }

    #[test]
    fn names_what_is_wrong() {
        let cases = [
            (
                fault(|e| e["command"] = json!([])),
                "`effects.deploy.command` is empty",
            ),
            (fault(|e| e["command"] = json!(["a\0"])), "contains a NUL"),
            (
                fault(|e| e["after"] = json!(["x"])),
                "names `x`, which is no effect",
            ),
            (
                fault(|e| e["after"] = json!(["deploy"])),
                "deploy after deploy",
            ),
            (
                fault(|e| e["gate"] = json!(["x"])),
                "names `x`, which is no build",
            ),
            (
                fault(|e| e["timeout"] = json!({ "text": "10" })),
                "`effects.deploy.timeout` must be seconds",
            ),
            (
                fault(|e| e["timeout"] = json!({ "seconds": 0 })),
                "`effects.deploy.timeout` must be seconds",
            ),
            (
                fault(|e| e["environment"] = json!({ "A=B": "" })),
                "cannot be a variable",
            ),
            (
                fault(|e| e["secrets"] = json!({ "a/b": { "env": "A", "file": null } })),
                "cannot be a file name",
            ),
        ];
        for (message, expected) in cases {
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn carries_the_faults_of_nix_and_missing_facts() {
        let answer = json!({ "version": 1, "found": true, "names": [], "missing": ["tag", "rev"] });
        let error = from_json("p", answer.to_string().as_bytes()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the fact `tag` and the fact `rev`"),
            "{error}"
        );
        let faults = json!([{ "at": "groups", "message": "is not a field" }]);
        let answer = json!({ "version": 1, "found": true, "names": [], "errors": faults });
        let error = from_json("p", answer.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "pipeline `p`: `groups` is not a field");
        let answer = json!({ "version": 1, "found": false, "names": ["a", "b"] });
        let error = from_json("p", answer.to_string().as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no pipeline is called `p`; there are: a, b"
        );
    }
}
