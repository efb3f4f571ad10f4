//! Every version of Nix that is in reach: they mean the same to us, and we to them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::support::{BuildUsers, Nix, Place, Release, rows, run};

/// Newer Nix builds nothing below `/var/tmp`.
const BELOW: &str = "/var/lib";

/// A derivation of each kind that means something to an evaluator: structured attributes, fixed and
/// many outputs, numbers in JSON, a name that comes from a build.
const KINDS: &str = r#"
  rec {
    make = name: more: derivation ({
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
      args = [ "-euc" "echo $name > $out" ];
    } // more);
    structured = make "structured" { __structuredAttrs = true; list = [ 1 2.5 null true ]; };
    many = make "many" { outputs = [ "dev" "out" ]; args = [ "-euc" "echo $out > $dev; echo > $out" ]; };
    fixed = make "fixed" {
      outputHashMode = "flat"; outputHashAlgo = "sha256";
      outputHash = builtins.hashString "sha256" "fixed\n";
    };
    user = make "user" {
      inherit fixed;
      inherit (many) dev;
      text = builtins.toJSON { a = 1.5; b = "\t${fixed}"; };
      file = builtins.toFile "file" "text";
    };
    imported = make (import (make "expression" { args = [ "-c" "echo '\"from-a-build\"' > $out" ]; })) { };
  }
"#;

/// And of each kind of source.
const LIBRARY: &str = r#"
  let kinds = import ./kinds.nix; in kinds // {
    source = kinds.make "source" { src = ./file; tree = ./.; };
    filtered = kinds.make "filtered" {
      src = builtins.path { path = ./.; name = "part"; filter = path: _: baseNameOf path == "file"; };
    };
  }
"#;

const PIPELINE: &str = r#"
  { branch, ... }@facts:
  let library = import ./library.nix; in {
    builds = { inherit (library) user many; };
    effects.say = {
      command = [ "/bin/sh" "-c" "echo \"$1\"; cat $TEXT" "say" (builtins.toJSON facts) ];
      environment = { TEXT = library.user; PATH = "/bin"; };
      after = [ ];
      timeout = "5m";
    };
  }
"#;

const FLAKE: &str = r#"{
  inputs.other = { url = "path:OTHER"; flake = false; };
  outputs = { self, other }: {
    packages.x86_64-linux = import ./library.nix // {
      default = derivation {
        name = "default"; system = "x86_64-linux"; builder = "/bin/sh"; src = self; inherit other;
      };
    };
    pipelines.x86_64-linux.default = import ./pipeline.nix;
  };
}"#;

struct Scene {
    place: Place,
}

impl Scene {
    fn new() -> Self {
        let place = Place::below(BELOW);
        place.write("flake/file", "a file\n");
        place.write("flake/kinds.nix", KINDS);
        place.write("flake/library.nix", LIBRARY);
        place.write("flake/pipeline.nix", PIPELINE);
        place.write("other/file", "another file\n");
        let other = place.at("other");
        place.write(
            "flake/flake.nix",
            FLAKE.replace("OTHER", other.to_str().unwrap()),
        );
        Self { place }
    }

    /// The plan, where a version of Nix is the installed one.
    fn plan(&self, release: &Release, arguments: &[&str]) -> Value {
        let mut command = self.nix(release).pontoon(arguments);
        command.args(["--dry-run", "--json"]);
        let ran = run(&mut release.enter(&self.place, &command)).ok();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.report()))
    }

    /// Nix with a store for each version.
    fn nix(&self, release: &Release) -> Nix<'_> {
        let name = format!("store-{}", release.name());
        Nix::new(&self.place, &name, BuildUsers::Group)
    }

    /// A flake in a repository, as Nix has its address.
    fn repository(&self) -> String {
        let library = FLAKE.replace("inputs.other", "# ").replace(", other", "");
        self.place.write(
            "repository/flake.nix",
            library.replace("inherit other;", ""),
        );
        for name in ["file", "kinds.nix", "library.nix", "pipeline.nix"] {
            let text = fs_err::read(self.place.at("flake").join(name)).unwrap();
            self.place.write(&format!("repository/{name}"), text);
        }
        for arguments in [
            &["init", "--quiet"][..],
            &["add", "."],
            &["commit", "--quiet", "-m", "a"],
        ] {
            let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
            let mut git = self.place.command("git");
            git.args(identity).args(arguments);
            run(git.current_dir(self.place.at("repository"))).ok();
        }
        format!("git+file://{}", self.place.at("repository").display())
    }
}

#[test]
fn there_are_as_many_versions_as_are_named() {
    let place = Place::new();
    let releases = Release::all();
    let versions = releases.iter().map(|release| {
        let mut asked = place.command("nix");
        let answer = run(&mut release.enter(&place, asked.arg("--version")))
            .ok()
            .stdout;
        pontoon::eval::Version::parse(&answer).unwrap_or_else(|| panic!("no version: {answer}"))
    });
    let versions: BTreeSet<_> = versions.collect();
    assert_eq!(versions.len(), releases.len(), "{versions:?}");
    assert!(
        versions.iter().any(|version| version.to_string() == "2.26"),
        "{versions:?}"
    );
}

#[test]
fn every_nix_gives_the_same_derivations_and_data() {
    let scene = Scene::new();
    let releases = Release::all();
    let flake = format!("path:{}", scene.place.at("flake").display());
    let file = |name: &str| format!("{}/flake/{name}", scene.place.path().display());
    let (library, pipeline) = (file("library.nix"), file("pipeline.nix"));
    let names = [
        "",
        "#source",
        "#filtered",
        "#structured",
        "#many^*",
        "#user",
        "#imported",
    ];
    let installables = names.map(|name| format!("{flake}{name}"));
    let mut of_flake = vec!["build"];
    of_flake.extend(installables.iter().map(String::as_str));
    let locks = releases.iter().map(|release| {
        // Each makes its own. What is evaluated is the flake that has one: only to older versions
        // is a new lock file already part of `self`.
        fs_err::remove_file(file("flake.lock")).ok();
        scene.plan(release, &["build", &flake]);
        fs_err::read_to_string(file("flake.lock")).unwrap()
    });
    let locks: BTreeSet<String> = locks.collect();
    assert_eq!(locks.len(), 1, "{locks:#?}");
    let (repository, branch) = (scene.repository(), "branch=a");
    let cases: [(&str, Vec<&str>); 6] = [
        ("flake", of_flake),
        ("repository", vec!["build", &repository]),
        ("file", vec!["build", "-f", &library]),
        (
            "expression",
            vec!["build", "--expr", KINDS, "user", "many^dev", "imported"],
        ),
        ("pipeline", vec!["run", &flake, "--fact", branch]),
        (
            "pipeline of a file",
            vec!["run", "-f", &pipeline, "--fact", branch],
        ),
    ];
    for (case, arguments) in cases {
        let answers = releases
            .iter()
            .map(|release| scene.plan(release, &arguments));
        let answers: Vec<_> = answers.collect();
        for (release, answer) in releases.iter().zip(&answers) {
            assert!(
                answer == &answers[0],
                "{case}, {}: {answer:#}\nmachine: {:#}",
                release.name(),
                answers[0]
            );
        }
    }
}

#[test]
fn every_nix_gives_an_effect_the_same_data() {
    let scene = Scene::new();
    let flake = format!("path:{}", scene.place.at("flake").display());
    let mut said = BTreeMap::new();
    for release in Release::all() {
        let nix = scene.nix(&release);
        let facts = ["--fact", "branch=a\"b", "--fact", "tag=${x}"];
        let mut command = nix.pontoon(&["run", &flake, "--json"]);
        let ran = run(&mut release.enter(&scene.place, command.args(facts))).ok();
        let events = ran.json_lines();
        let of_effect =
            |event: &&Value| event["event"] == "node-log" && event["node"] == "effect:say";
        let lines = events.iter().filter(of_effect);
        let lines: Vec<_> = lines.map(|event| event["line"].to_string()).collect();
        assert_eq!(lines.len(), 2, "{}", ran.report());
        said.insert(release.name(), lines);
        nix.verify();
    }
    for lines in said.values() {
        assert_eq!(lines, &said["machine"], "{said:#?}");
    }
}

/// Who has a store in hand.
enum Hand<'r> {
    Nix(&'r Release),
    Pontoon,
}

impl Hand<'_> {
    fn name(&self) -> &str {
        match self {
            Hand::Nix(release) => release.name(),
            Hand::Pontoon => "pontoon",
        }
    }

    /// Adds a derivation that needs all those before, and returns how many were built for that.
    fn build(&self, place: &Place, nix: &Nix<'_>, file: &str, names: &[String]) -> usize {
        let names = format!("[ {} ]", names.join(" "));
        let arguments = ["--arg", "names", &names];
        match self {
            Hand::Nix(release) => {
                let mut command = nix.command("nix-build", &["--no-out-link", file]);
                let ran = run(&mut release.enter(place, command.args(arguments))).ok();
                ran.stderr.matches("building '/nix/store/").count()
            }
            Hand::Pontoon => {
                let mut command = nix.pontoon(&["build", "--no-link", "--json", "-f", file]);
                let ran = run(command.args(arguments)).ok();
                ran.outcomes().get("built").copied().unwrap_or_default()
            }
        }
    }
}

const CHAIN: &str = r#"
  { names }:
  builtins.foldl' (before: name: derivation {
    inherit name before;
    system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
    outputs = [ "out" "more" ];
    args = [ "-euc" "echo $before $out > $out; mkdir $more; ln -s $out $more/link; echo say $name" ];
  }) null names
"#;

#[test]
fn a_store_of_any_is_used_and_verified_by_all() {
    let place = Place::below(BELOW);
    let file = place.write("chain.nix", CHAIN);
    let file = file.to_str().unwrap();
    let releases = Release::all();
    let hands = || releases.iter().map(Hand::Nix).chain([Hand::Pontoon]);
    for writer in hands() {
        let nix = Nix::new(&place, writer.name(), BuildUsers::Group);
        let mut names = vec!["\"a\"".to_owned(), "\"b\"".to_owned()];
        assert_eq!(writer.build(&place, &nix, file, &names), 2);
        for user in hands() {
            let told = format!("{} on the store of {}", user.name(), writer.name());
            assert_eq!(user.build(&place, &nix, file, &names), 0, "{told}");
            names.push(format!("\"of-{}\"", user.name()));
            assert_eq!(user.build(&place, &nix, file, &names), 1, "{told}");
        }
        for release in &releases {
            let verify = nix.command("nix-store", &["--verify", "--check-contents"]);
            let ran = run(&mut release.enter(&place, &verify)).ok();
            for word in ["disappeared", "modified", "error"] {
                assert!(!ran.stderr.contains(word), "{}", ran.report());
            }
        }
        let rows = rows(nix.root());
        let outputs = rows.values().filter(|row| row.deriver.is_some());
        assert_eq!(
            outputs.count(),
            2 * names.len(),
            "the store of {}",
            writer.name()
        );
    }
}
