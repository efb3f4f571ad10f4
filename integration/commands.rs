//! What can be typed: every way to name what is wanted, what comes of outputs, and every refusal.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::support::{BuildUsers, Nix, Place, Ran, run, sandbox_paths};

const FILE: &str = r##"
{ word ? "none" }:
let
  make = name: text: more: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ]; PATH = "/bin";
  } // more);
in rec {
  word-of = make "word" "echo ${word} $NIX_BUILD_CORES | cat > $out; echo said $out" { };
  many = make "many" "echo dev > $dev; echo out > $out; echo doc > $doc" { outputs = [ "out" "dev" "doc" ]; };
  shell = make "shell" "mkdir -p $out/bin; cp /bin/sh $out/bin/sh" { };
  hello = make "hello" ''
    mkdir -p $out/bin
    { echo "#!${shell}/bin/sh"; echo 'echo "hello $*"; test -d /etc'; } > $out/bin/hello
    chmod +x $out/bin/hello
  '' { };
  bad = make "bad" "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo line $i; done; exit 3" { };
  behind = make "behind" "cat ${bad} > $out" { };
  wrong = throw "thrown on purpose";
  missing = builtins.foldl' (a: b: a + b.absent) 1 [ { } ];
  pipelines.release = { rev ? "none", ... }: {
    builds = { inherit many; };
    effects.show.command = [ "${shell}/bin/sh" "-c" "echo ${word} shown" ];
  };
}
"##;

/// A store, and the file above.
pub(super) struct Stage<'p> {
    pub(super) place: &'p Place,
    pub(super) nix: Nix<'p>,
    pub(super) file: String,
}

impl<'p> Stage<'p> {
    pub(super) fn new(place: &'p Place) -> Self {
        let file = place.write("ci.nix", FILE);
        Self {
            place,
            nix: Nix::new(place, "store", BuildUsers::Group),
            file: file.to_str().unwrap().to_owned(),
        }
    }

    /// `pontoon` on the stage's store.
    pub(super) fn pontoon(&self, arguments: &[&str]) -> Command {
        self.nix.pontoon(arguments)
    }

    /// `pontoon build -f FILE`.
    pub(super) fn build(&self, arguments: &[&str]) -> Command {
        self.pontoon(&[&["build", "-f", &self.file], arguments].concat())
    }

    fn drv(&self, attribute: &str) -> String {
        self.nix
            .instantiate(Path::new(&self.file), Some(attribute))
            .remove(0)
            .split('!')
            .next()
            .unwrap()
            .to_owned()
    }
}

/// What was asked for, by name, with the names of its outputs.
type Results = Vec<(String, Vec<String>)>;

/// The results of a run with `--json`: names, and the names of their outputs.
fn results(ran: &Ran) -> Results {
    let events = ran.json_lines();
    let results = events.iter().filter(|event| event["event"] == "outputs");
    results
        .map(|event| {
            let outputs = event["outputs"].as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&event["name"]),
                outputs.map(|output| text(&output["name"])).collect(),
            )
        })
        .collect()
}

/// Results as a test writes them.
fn names(list: &[(&str, &[&str])]) -> Results {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    list.iter()
        .map(|(name, outputs)| ((*name).to_owned(), texts(outputs)))
        .collect()
}

#[test]
fn everything_that_names_something_names_it() {
    let place = Place::new();
    let stage = Stage::new(&place);
    place.write(
        "flake/flake.nix",
        format!(
            "{{ outputs = _: let all = ({FILE}) {{ }}; in {{
               packages.x86_64-linux = {{ inherit (all) many; default = all.word-of; }};
               checks.x86_64-linux.unit = all.word-of; }}; }}"
        ),
    );
    let flake = format!("path:{}", place.at("flake").display());
    let drv = stage.drv("many");
    let file = stage.file.as_str();
    let expression = format!("({FILE})");
    let named = |suffix: &str| format!("{flake}{suffix}");
    let all = &["dev", "doc", "out"][..];
    let cases: Vec<(Vec<&str>, Results)> = vec![
        (vec![&flake], names(&[(&flake, &["out"])])),
        (vec![], names(&[(".", &["out"])])),
        (
            vec!["-f", file, "-A", "many^dev,out", "-A", "word-of"],
            names(&[("many^dev,out", &["dev", "out"]), ("word-of", &["out"])]),
        ),
        (
            vec!["-f", file, "many", "--argstr", "word", "x"],
            names(&[("many", &["out"])]),
        ),
        (
            vec![
                "--expr",
                &expression,
                "-A",
                "many^*",
                "--arg",
                "word",
                "''${toString 1}''",
            ],
            names(&[("many^*", all)]),
        ),
        (vec![&drv], names(&[(&drv, all)])),
    ];
    for (arguments, expected) in cases {
        let arguments = [&["build", "--json", "--no-link"], &arguments[..]].concat();
        let mut command = stage.pontoon(&arguments);
        let ran = run(command.current_dir(place.at("flake"))).ok();
        assert_eq!(results(&ran), expected, "{}", ran.report());
    }
    let attributes = [named("#many^doc"), named("#checks.x86_64-linux.unit")];
    let arguments = [
        "build",
        "--json",
        "--no-link",
        &attributes[0],
        &attributes[1],
    ];
    let ran = run(&mut stage.pontoon(&arguments)).ok();
    let expected = names(&[(&attributes[0], &["doc"]), (&attributes[1], &["out"])]);
    assert_eq!(
        results(&ran),
        expected,
        "nothing was built, and yet it is named"
    );
    stage.nix.verify();
}

#[test]
fn derivations_need_no_nix() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let drv = stage.drv("many");
    let empty = place.at("empty");
    fs_err::create_dir(&empty).unwrap();
    let paths = sandbox_paths().join(" ");
    let store = stage.nix.root().to_str().unwrap();
    let one = format!("{drv}^doc");
    let arguments = ["build", &one, "--store", store, "--sandbox-paths", &paths];
    let mut command = place.pontoon(&[&arguments[..], &["--print-out-paths"]].concat());
    let ran = run(command.env("PATH", &empty)).ok();
    assert!(ran.stdout.trim().ends_with("-many-doc"), "{}", ran.report());
    let mut command = place.pontoon(&["plan", &drv, "--store", store]);
    run(command.env("PATH", &empty)).ok();

    let file = stage.file.as_str();
    let mut command = place.pontoon(&["build", "-f", file, "--store", store]);
    run(command.env("PATH", &empty))
        .code(4)
        .says("no usable nix");
    let old = place.write("old/nix", "#!/bin/sh\necho 'nix (Nix) 2.3.16'\n");
    run(place.command("chmod").arg("+x").arg(&old)).ok();
    let mut command = place.pontoon(&["build", "-f", file, "--store", store]);
    let ran = run(command.env("PATH", place.at("old"))).code(4);
    ran.says("is Nix 2.3, but 2.8 or newer");
}

#[test]
fn evaluation_errors_are_shown_whole() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let ran = run(&mut stage.build(&["-A", "wrong"])).code(3);
    let ran = ran
        .says("error: evaluation failed")
        .says("thrown on purpose");
    drop(ran);
    let theirs = stage
        .nix
        .command("nix-instantiate", &[&stage.file, "-A", "missing"])
        .output();
    let theirs = String::from_utf8(theirs.unwrap().stderr).unwrap();
    assert!(theirs.contains("ci.nix:"), "{theirs}");
    let ran = run(&mut stage.build(&["-A", "missing"])).code(3);
    theirs.lines().fold(ran, Ran::says);
    run(&mut stage.build(&["-A", "absent"]))
        .code(3)
        .says("absent");
    run(&mut stage.build(&["-A", "many^man"]))
        .code(5)
        .says("no output `man`, only `dev`, `doc`, `out`");
    let expression = ["build", "--expr", "{ a = ", "-A", "a"];
    run(&mut stage.pontoon(&expression))
        .code(3)
        .says("syntax error");
}

#[test]
fn a_derivation_that_cannot_be_read_is_refused_by_name() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let (drv, needed) = (stage.drv("behind"), stage.drv("bad"));
    let file = stage.nix.physical(&needed);
    let whole = fs_err::read(&file).unwrap();
    fs_err::remove_file(&file).unwrap();
    let ran = run(&mut stage.pontoon(&["build", &drv])).code(5);
    ran.says("the plan is refused").says(&needed);
    let text = String::from_utf8(whole.clone()).unwrap();
    fs_err::write(&file, text.replace("exit 3", "exit 0")).unwrap();
    let ran = run(&mut stage.pontoon(&["build", &drv])).code(5);
    ran.says("the plan is refused").says(&needed);
    fs_err::write(&file, &whole[..whole.len() / 2]).unwrap();
    run(&mut stage.pontoon(&["plan", &drv]))
        .code(5)
        .says(&needed);
    // A cycle cannot have the right hashes: it is refused for either.
    let own = text.replace("[],[],", &format!("[(\"{needed}\",[\"out\"])],[],"));
    fs_err::write(&file, own).unwrap();
    run(&mut stage.pontoon(&["plan", &drv]))
        .code(5)
        .says(&needed);
    fs_err::write(&file, &whole).unwrap();
    run(&mut stage.pontoon(&["plan", &drv])).ok();
}

#[test]
fn a_failure_says_what_failed_and_how_to_see_more() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let store = stage.nix.root().display().to_string();
    let (bad, behind) = (stage.drv("bad"), stage.drv("behind"));
    let ran = run(&mut stage.pontoon(&["build", &behind])).code(100);
    let ran = ran
        .says("the last 25 lines")
        .says("> line 16\n")
        .says("> line 40\n")
        .says("dependency failed behind: needs bad")
        .says(&format!("pontoon log {bad} --store {store}"))
        .says(&format!("pontoon build '{bad}^*' --store {store}"))
        .says(&format!("nix-store -r {bad} --store {store}"));
    assert!(!ran.stderr.contains("> line 15\n"), "{}", ran.report());
    let whole = run(&mut place.pontoon(&["log", &bad, "--store", &store])).ok();
    assert_eq!(whole.stdout.lines().count(), 40);
    assert_eq!(whole.stdout.lines().next(), Some("line 1"));
    let nix = run(&mut stage.nix.command("nix", &["log", &bad])).ok();
    assert_eq!(nix.stdout, whole.stdout);
    let again = format!("{bad}^*");
    run(&mut place.pontoon(&["build", &again, "--store", &store, "--sandbox-paths", ""]));
    let ran = run(&mut place.pontoon(&["log", &stage.drv("many"), "--store", &store]));
    ran.code(1).says("there is no log");
    run(&mut place.pontoon(&["log", "effect:show"]))
        .code(2)
        .says("the log of an effect is not kept");
}

#[test]
fn a_plan_has_every_form_and_builds_nothing() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let plan = |more: &[&str]| {
        let arguments = [&["plan", "-f", &stage.file], more].concat();
        run(&mut stage.pontoon(&arguments)).ok().stdout
    };
    let text = plan(&["-A", "behind"]);
    assert!(text.contains("2 to build"), "{text}");
    assert!(
        text.contains("binary caches are not consulted yet: 2 of the 2"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&plan(&["-A", "behind", "--json"])).unwrap();
    assert!(json.is_object());
    assert!(plan(&["-A", "behind", "--format", "dot"]).starts_with("digraph"));
    for shape in ["strong", "plain"] {
        let readable = ["-A", "behind", "--shape", shape, "--format", "llb-text"];
        let text = plan(&readable);
        for name in ["`pontoon: store`", "`build bad`", "`build behind`"] {
            assert!(text.contains(name), "{text}");
        }
        assert_eq!(text, plan(&readable), "its nonce is fixed");
    }
    let mut bytes = stage.pontoon(&["plan", "-f", &stage.file, "-A", "behind", "--format", "llb"]);
    let bytes = bytes.output().unwrap().stdout;
    // One definition after the other is a definition: every op is in it, and an end for each.
    let definition = <pontoon::llb::pb::Definition as prost::Message>::decode(&*bytes).unwrap();
    assert_eq!((definition.def.len(), definition.metadata.len()), (6, 3));

    let text = plan(&["--pipeline", "-A", "pipelines.release"]);
    assert!(text.contains("show: once good: many"), "{text}");
    let arguments = [
        "run",
        "-f",
        &stage.file,
        "-A",
        "pipelines.release",
        "--dry-run",
    ];
    assert_eq!(run(&mut stage.pontoon(&arguments)).ok().stdout, text);
    let dry = run(&mut stage.build(&["-A", "behind", "--dry-run"])).ok();
    assert!(
        dry.stdout.is_empty() && dry.stderr.contains("2 to build"),
        "{}",
        dry.report()
    );
    let drvs = [stage.drv("behind"), stage.drv("many")];
    let drvs: Vec<&str> = drvs.iter().map(String::as_str).collect();
    assert_eq!(stage.nix.would_build(&drvs).len(), 3, "nothing was built");
}

#[test]
fn a_pipeline_may_be_a_file_or_an_expression() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let written = |arguments: &[&str]| {
        let ran = run(&mut stage.pontoon(&[&["run", "-L"], arguments].concat())).ok();
        ran.stderr
    };
    let text = written(&[
        "-f",
        &stage.file,
        "-A",
        "pipelines.release",
        "--argstr",
        "word",
        "file",
    ]);
    assert!(text.contains("effect show> file shown"), "{text}");
    assert!(text.contains("a file is evaluated impure"), "{text}");
    let expression = format!("({FILE}) {{ word = \"expression\"; }}");
    let text = written(&["--expr", &expression, "-A", "pipelines.release"]);
    assert!(text.contains("effect show> expression shown"), "{text}");
    let text = written(&[
        "--expr",
        "{ rev ? \"r\" }: { effects.e.command = [ \"/bin/echo\" rev ]; }",
        "--fact",
        "rev=given",
    ]);
    assert!(text.contains("effect e> given"), "{text}");
    let two = ["run", "-f", &stage.file, "-A", "a", "-A", "b"];
    run(&mut stage.pontoon(&two)).code(2).says("one pipeline");
}
