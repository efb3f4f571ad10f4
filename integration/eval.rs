//! Evaluation with the installed `nix`, into stores of its own below temporary directories.
//!
//! Needs root, for import from derivation builds in a store below a root, and a static busybox
//! as the shell in its sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pontoon::eval::{
    Error, EvalStore, Evaluated, Evaluator, Installable, Nix, PipelineRequest, PipelineSource,
    Request, Source, facts,
};
use pontoon::nix::Outputs;
use pontoon::pipeline;
use serde_json::Value;

const SYSTEM: &str = "x86_64-linux";

const FLAKE: &str = r#"{
  outputs = { self }:
    let
      make = name: more: derivation ({
        inherit name; system = "x86_64-linux"; builder = "/bin/sh";
        args = [ "-c" "echo said-by-builder; echo '{ name = \"imported\"; }' > $out" ];
      } // more);
      many = make "many" { outputs = [ "dev" "out" "doc" ]; };
    in {
      packages.x86_64-linux.default = make "default" { };
      packages.x86_64-linux.many = many;
      packages.x86_64-linux.meant = many // { meta.outputsToInstall = [ "doc" "dev" ]; };
      packages.x86_64-linux.chosen = many.doc // { outputSpecified = true; };
      packages.x86_64-linux.first = make "first" { outputs = [ "lib" "bin" ]; };
      imported = make (import (make "expression" { })).name { };
      slow = make (import (make "slow" { args = [ "-c" "while :; do :; done" ]; })).name { };
      failing = make (import (make "failing" { args = [ "-c" "echo last-words; exit 3" ]; })).name { };
      number = 3;
      bad = throw "thrown on purpose";
      pure = make (builtins.getEnv "HOME" + "-pure") { };
      pipelines.x86_64-linux = {
        default = { builds.many = many; };
        release = { rev, branch ? "none", ... }@facts: {
          builds = { inherit many; };
          effects.deploy = {
            command = [ "${many.dev}/bin/deploy" branch (builtins.toJSON facts) ];
            tools = [ many.doc ];
            environment.CONFIG = builtins.toFile "config" "x";
            secrets.KEY = { };
            timeout = "10m";
          };
        };
        narrow = { rev ? "absent" }: { effects.show.command = [ "show" rev ]; };
        wrong = { groups = { }; effects.x = { command = [ ]; wen = 1; }; };
        circle = { effects.a = { command = [ "a" ]; after = [ "b" ]; }; effects.b = { command = [ "b" ]; after = [ "a" ]; }; };
      };
      legacyPackages.x86_64-linux.pipelines.older.builds = { inherit many; };
    };
}"#;

struct Setup {
    directory: tempfile::TempDir,
    evaluator: Evaluator,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let environment: Vec<_> = [
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), directory.path().as_os_str().to_owned()),
        ]
        .into();
        let cancel = Arc::new(AtomicBool::new(false));
        let search = std::env::var_os("PATH");
        let nix = Nix::find(None, search.as_deref(), &environment, &cancel).unwrap();
        let shell = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|path| PathBuf::from(path).exists());
        let options = [
            ("sandbox", "true".to_owned()),
            ("sandbox-paths", format!("/bin/sh={}", shell.unwrap())),
            ("substitute", "false".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let store = EvalStore::Root(directory.path().join("root"));
        let evaluator = Evaluator {
            nix: nix.path,
            environment,
            store,
            options: options.into(),
            cancel,
            leash: None,
        };
        let setup = Self {
            directory,
            evaluator,
        };
        setup.write("flake/flake.nix", FLAKE);
        setup
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn flake(&self) -> String {
        format!("path:{}/flake", self.directory.path().display())
    }

    fn request(source: Source) -> Request {
        Request {
            source,
            args: vec![],
            argstrs: vec![],
            system: SYSTEM.into(),
        }
    }

    fn installables(&self, attributes: &[&str]) -> Result<Evaluated, Error> {
        let parse = |text: &&str| Installable::parse(&format!("{}{text}", self.flake())).unwrap();
        let source = Source::Installables(attributes.iter().map(parse).collect());
        self.evaluator.evaluate(&Self::request(source), &mut |_| ())
    }

    fn pipeline(
        &self,
        name: &str,
        facts: &[(&str, Value)],
    ) -> Result<pipeline::Read, pipeline::Error> {
        let facts = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let request = PipelineRequest {
            source: PipelineSource::Flake(self.flake()),
            name: name.into(),
            facts: facts.collect(),
            system: SYSTEM.into(),
        };
        let normalised = self.evaluator.pipeline(&request, &mut |_| ()).unwrap();
        pipeline::from_json(name, &normalised.json)
    }
}

fn names(list: &[&str]) -> Outputs {
    Outputs::Names(list.iter().map(ToString::to_string).collect())
}

#[test]
fn flakes_give_derivations_and_the_outputs_nix_build_would_choose() {
    let setup = Setup::new();
    let typed = [
        "",
        "#many",
        "#meant",
        "#first",
        "#chosen",
        "#many^*",
        "#many^doc,out",
    ];
    let evaluated = setup.installables(&typed).unwrap();
    let outputs: Vec<_> = evaluated
        .wanted
        .iter()
        .map(|wanted| wanted.outputs.clone())
        .collect();
    let expected = [
        names(&["out"]),
        names(&["out"]),
        names(&["dev", "doc"]),
        names(&["lib"]),
        names(&["doc"]),
        Outputs::All,
        names(&["doc", "out"]),
    ];
    assert_eq!(outputs, expected);
    assert!(!evaluated.impure && evaluated.built_while_evaluating.is_empty());
    for wanted in &evaluated.wanted {
        let file = format!("root{}", wanted.drv);
        assert!(setup.directory.path().join(file).exists(), "{}", wanted.drv);
    }
}

#[test]
fn flakes_are_evaluated_pure() {
    let evaluated = Setup::new().installables(&["#pure"]).unwrap();
    assert_eq!(evaluated.wanted[0].drv.name(), "-pure.drv");
}

#[test]
fn errors_are_clear_or_nix_own() {
    let setup = Setup::new();
    let error = |attribute: &str| setup.installables(&[attribute]).unwrap_err().to_string();
    assert!(error("#number").contains("is an integer, not a derivation"));
    assert!(error("#packages.x86_64-linux").contains("is a set, not a derivation; it has chosen"));
    assert!(error("#bad").contains("thrown on purpose"));
    assert!(error("#failing").contains("> last-words"));
    assert!(error("#absent").contains("does not provide attribute"));
    assert!(error("#many^man").contains("has no output `man`; it has dev, out, doc"));
}

#[test]
fn import_from_derivation_is_listed_and_its_log_shown() {
    let setup = Setup::new();
    let source = Source::Installables(vec![
        Installable::parse(&format!("{}#imported", setup.flake())).unwrap(),
    ]);
    let mut lines = Vec::new();
    let evaluated = setup
        .evaluator
        .evaluate(&Setup::request(source), &mut |line| {
            lines.push(line.to_owned());
        })
        .unwrap();
    assert_eq!(evaluated.wanted[0].drv.name(), "imported.drv");
    let built: Vec<_> = evaluated
        .built_while_evaluating
        .iter()
        .map(pontoon::nix::StorePath::name)
        .collect();
    assert_eq!(built, ["expression.drv"]);
    assert!(
        lines.contains(&"expression> said-by-builder".to_owned()),
        "{lines:?}"
    );
    assert!(
        setup
            .installables(&["#imported"])
            .unwrap()
            .built_while_evaluating
            .is_empty()
    );
}

#[test]
fn cancelling_ends_nix_and_its_builder() {
    let setup = Setup::new();
    let source = Source::Installables(vec![
        Installable::parse(&format!("{}#slow", setup.flake())).unwrap(),
    ]);
    let cancel = setup.evaluator.cancel.clone();
    let begun = Instant::now();
    let outcome = setup
        .evaluator
        .evaluate(&Setup::request(source), &mut |line| {
            if line.starts_with("building") {
                cancel.store(true, Ordering::Relaxed);
            }
        });
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

const FILE: &str = r#"{ suffix ? "none", number ? 1 }:
let make = name: outputs: derivation { inherit name outputs; system = "x86_64-linux"; builder = "/bin/sh"; };
in {
  a = make "a-${suffix}-${toString (number + 1)}" [ "out" ];
  b = make "b" [ "dev" "out" ];
  env = make ("env" + builtins.getEnv "NIX_PATH" + builtins.getEnv "SECRET") [ "out" ];
}"#;

#[test]
fn files_are_evaluated_as_nix_build_does() {
    let mut setup = Setup::new();
    setup
        .evaluator
        .environment
        .push(("NIX_PATH".into(), "-seen".into()));
    setup
        .evaluator
        .environment
        .push(("SECRET".into(), "-leaked".into()));
    let file = setup.write("default.nix", FILE);
    let request = |attributes: &[&str]| Request {
        source: Source::File {
            file: file.clone().into(),
            attributes: attributes.iter().map(ToString::to_string).collect(),
        },
        args: vec![("number".into(), "1 + 1".into())],
        argstrs: vec![("suffix".into(), "x".into())],
        system: SYSTEM.into(),
    };
    let evaluate =
        |attributes: &[&str]| setup.evaluator.evaluate(&request(attributes), &mut |_| ());
    let all = evaluate(&[]).unwrap();
    assert!(all.impure);
    let shown: Vec<_> = all
        .wanted
        .iter()
        .map(|wanted| (wanted.name.as_str(), wanted.outputs.clone()))
        .collect();
    let out = || names(&["out"]);
    assert_eq!(
        shown,
        [
            ("a-x-3", out()),
            ("b", names(&["dev"])),
            ("env-seen", out())
        ]
    );
    let one = evaluate(&["b^out", "a"]).unwrap();
    assert_eq!(
        (one.wanted[0].name.as_str(), &one.wanted[0].outputs),
        ("b^out", &out())
    );
    assert_eq!(one.wanted[1].drv.name(), "a-x-3.drv");
    assert!(
        evaluate(&["absent"])
            .unwrap_err()
            .to_string()
            .contains("absent")
    );
}

#[test]
fn expressions_are_pure_and_take_arguments() {
    let setup = Setup::new();
    let evaluate = |text: &str, attributes: &[&str]| {
        let request = Request {
            source: Source::Expression {
                text: text.into(),
                attributes: attributes.iter().map(ToString::to_string).collect(),
            },
            args: vec![("number".into(), "4".into())],
            argstrs: vec![("suffix".into(), "${x}\"".into())],
            system: SYSTEM.into(),
        };
        setup.evaluator.evaluate(&request, &mut |_| ())
    };
    let text = FILE.replace("${suffix}", "${toString (builtins.stringLength suffix)}");
    let evaluated = evaluate(&text, &["a", "b^*"]).unwrap();
    assert_eq!(evaluated.wanted[0].drv.name(), "a-5-5.drv");
    assert_eq!(evaluated.wanted[1].outputs, Outputs::All);
    assert_eq!(
        evaluate(&text, &["env"]).unwrap().wanted[0].drv.name(),
        "env.drv"
    );
    assert!(!evaluated.impure);
    let whole = evaluate(&format!("x@{{ ... }}: ({text}) x // {{ }}"), &[]).unwrap_err();
    assert!(whole.to_string().contains("it has a, b, env"), "{whole}");
    let called = evaluate(&format!("{{ number, ... }}@x: (({text}) x).a"), &[]).unwrap();
    assert_eq!(called.wanted[0].drv.name(), "a-5-5.drv");
}

#[test]
fn a_pipeline_gets_its_facts_as_data() {
    let setup = Setup::new();
    let branch = "${abort\"x\"}\\\r\n'' $$ é";
    let facts = [
        ("rev", "r1".into()),
        ("branch", branch.into()),
        ("dirty", true.into()),
    ];
    let read = setup.pipeline("release", &facts).unwrap();
    assert_eq!(
        read.facts,
        ["branch", "dirty", "rev"].map(String::from).into()
    );
    let effect = &read.pipeline.effects["deploy"];
    assert!(effect.command[0].ends_with("-many-dev/bin/deploy"));
    assert_eq!(effect.command[1], branch);
    let seen: BTreeMap<String, Value> = serde_json::from_str(&effect.command[2]).unwrap();
    assert_eq!(
        (&seen["dirty"], &seen["branch"]),
        (&true.into(), &branch.into())
    );
    assert_eq!(effect.needs.len(), 1);
    assert_eq!(effect.needs[0].outputs, names(&["dev", "doc"]));
    assert_eq!(effect.needs[0].drv, read.pipeline.builds["many"].drv);
    assert_eq!(effect.sources.iter().next().unwrap().name(), "config");
    assert_eq!(effect.gate, BTreeSet::from(["many".into()]));
    assert_eq!(effect.timeout, Some(Duration::from_mins(10)));
    let narrow = setup.pipeline("narrow", &facts).unwrap();
    assert_eq!(narrow.pipeline.effects["show"].command, ["show", "r1"]);
}

#[test]
fn what_is_wrong_with_a_pipeline_is_named() {
    let setup = Setup::new();
    let error = |name: &str| setup.pipeline(name, &[]).unwrap_err().to_string();
    assert!(error("release").contains("the fact `rev`"));
    assert!(error("wrong").contains("`groups` is not a field of a pipeline"));
    assert!(error("wrong").contains("`effects.x.wen` is not a field of an effect"));
    assert!(error("circle").contains("a after b after a"));
    let unknown = error("absent");
    assert!(
        unknown.contains("circle, default, narrow, older, release, wrong"),
        "{unknown}"
    );
}

#[test]
fn pipelines_are_found_at_both_places() {
    let setup = Setup::new();
    assert!(
        setup
            .pipeline("older", &[])
            .unwrap()
            .pipeline
            .builds
            .contains_key("many")
    );
    let names = setup
        .evaluator
        .pipeline_names(&setup.flake(), SYSTEM, &mut |_| ())
        .unwrap();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>().join(" "),
        "circle default narrow older release wrong"
    );
    setup.write("flake/flake.nix", "{ outputs = { self }: { }; }");
    let error = setup.pipeline("default", &[]).unwrap_err().to_string();
    assert!(error.contains("there are none"), "{error}");
}

#[test]
fn facts_come_from_git() {
    let setup = Setup::new();
    let directory = setup.directory.path().join("repository");
    fs_err::create_dir(&directory).unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let status = Command::new("git")
            .args(identity)
            .args(arguments)
            .current_dir(&directory)
            .env("HOME", setup.directory.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
    };
    let search = std::env::var_os("PATH");
    let program = pontoon::eval::nix::on_search_path("git", search.as_deref()).unwrap();
    let ask = || {
        let environment = &setup.evaluator.environment;
        facts::from_git(&program, &directory, environment, &setup.evaluator.cancel).unwrap()
    };
    assert!(ask().is_empty());
    git(&["init", "-b", "main${x}"]);
    assert!(!ask().contains_key("rev"));
    fs_err::write(directory.join("a"), "1").unwrap();
    git(&["add", "a"]);
    git(&["commit", "-m", "a"]);
    let clean = ask();
    assert_eq!(
        (&clean["branch"], &clean["dirty"]),
        (&"main${x}".into(), &false.into())
    );
    assert_eq!(clean["rev"].as_str().unwrap().len(), 40);
    assert!(!clean.contains_key("tag"));
    git(&["tag", "v1"]);
    git(&["checkout", "--detach"]);
    fs_err::write(directory.join("a"), "2").unwrap();
    let tagged = ask();
    assert_eq!(
        (&tagged["tag"], &tagged["dirty"]),
        (&"v1".into(), &true.into())
    );
    assert!(!tagged.contains_key("branch"));
}
