//! Very many installables in one call, and that many together are what each is alone.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{BuildUsers, Nix, Place, Ran, Release, Running, count, run};

/// A wrapper that writes down every call of `nix`, by the name that it is called by.
const COUNTING: &str = "#!/bin/bash
echo call >> \"$HOME/calls\"
case \" $* \" in *' eval --json '* | *' flake metadata '* | ' --version ') name=nix ;; *) name=nix-instantiate ;; esac
exec -a $name /usr/bin/nix \"$@\"
";

/// What the command itself may take, whatever `nix` takes.
const MEMORY_KIB: u64 = 128 << 10;

/// Where `many.nix` is in the flake, each for a third of what is asked for.
const FLAKE: &str = r"{
  outputs = { self }: {
    packages.x86_64-linux = import ./many.nix;
    legacyPackages.x86_64-linux.older = import ./many.nix;
    checks.x86_64-linux = import ./many.nix;
  };
}";

struct Counting<'p> {
    place: &'p Place,
    nix: Nix<'p>,
    file: String,
}

impl<'p> Counting<'p> {
    fn new(place: &'p Place, attributes: usize) -> Self {
        let wrapper = place.write("path/nix", COUNTING);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(wrapper, mode).unwrap();
        fs_err::create_dir_all(place.at("home")).unwrap();
        let text = format!(
            "let one = n: derivation {{ name = \"n${{toString n}}\"; system = \"x86_64-linux\"; \
             builder = \"/bin/sh\"; }}; in builtins.listToAttrs (builtins.genList (n: {{ \
             name = \"attribute-${{toString n}}\"; value = one n; }}) {attributes}) \
             // {{ bad = throw \"it is bad\"; }}"
        );
        place.write("flake/flake.nix", FLAKE);
        let file = place.write("flake/many.nix", text).display().to_string();
        let nix = Nix::new(place, "store", BuildUsers::Group);
        Self { place, nix, file }
    }

    /// Plans things, and counts the calls of `nix`.
    fn plan(&self, before: &[&str], things: &[String]) -> (Ran, usize) {
        let calls = self.place.write("home/calls", "");
        let mut command = self.nix.pontoon(&["plan", "--json"]);
        let search = self.place.at("path").display().to_string();
        command
            .args(before)
            .args(things)
            .env("PATH", format!("{search}:/usr/bin:/bin"));
        let mut running = Running::start(&mut command);
        let mut most = 0;
        while !running.has_ended() {
            most = memory_kib(running.pid()).unwrap_or(most);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(most < MEMORY_KIB, "{most} KiB");
        let calls = fs_err::read_to_string(calls).unwrap().lines().count();
        (running.end(), calls)
    }

    /// Checks that all are planned as what real Nix has for them, and that one that is wrong is
    /// named. `attribute` is the number at the end of a thing's name.
    fn check(&self, before: &[&str], things: &[String], few: usize, wrong: &str) {
        let (ran, calls) = self.plan(before, things);
        let ran = ran.ok();
        assert!(calls <= few, "{calls} calls");
        assert!(ran.stderr.lines().count() < 30, "{}", ran.report());
        let planned = roots(&ran);
        assert_eq!(planned.len(), things.len());
        let file = std::path::Path::new(&self.file);
        for at in [0, 1, 2, things.len() / 2, things.len() - 1] {
            let (_, number) = things[at].rsplit_once('-').unwrap();
            let real = self
                .nix
                .instantiate(file, Some(&format!("attribute-{number}")));
            assert_eq!(planned[&things[at]]["drv"], real[0], "{}", things[at]);
        }

        let mut things = things.to_vec();
        things.insert(things.len() - 7, wrong.to_owned());
        let (ran, calls) = self.plan(before, &things);
        ran.code(3)
            .says(&format!("cannot evaluate `{wrong}`"))
            .says("it is bad");
        assert!(calls <= few + 40, "{calls} calls");
    }
}

/// The most memory that a process has had, while it is there.
fn memory_kib(pid: u32) -> Option<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// What is wanted in a plan, by its name.
fn roots(ran: &Ran) -> BTreeMap<String, Value> {
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let roots = document["roots"].as_array().unwrap();
    let name = |root: &Value| root["name"].as_str().unwrap().to_owned();
    roots
        .iter()
        .map(|root| (name(root), root.clone()))
        .collect()
}

/// They are what `nix-instantiate` makes of them, and take a handful of calls, also where one of
/// them is wrong.
#[test]
fn many_attributes_of_a_file_take_few_calls_of_nix() {
    let place = Place::new();
    let count = count(2_000, 10_000);
    let counting = Counting::new(&place, count);
    let attributes: Vec<String> = (0..count).map(|n| format!("attribute-{n}")).collect();
    counting.check(&["-f", &counting.file], &attributes, 4, "bad");
}

#[test]
fn many_attributes_of_an_expression_take_few_calls_of_nix() {
    let place = Place::new();
    let count = count(2_000, 10_000);
    let counting = Counting::new(&place, count);
    let text = fs_err::read_to_string(&counting.file).unwrap();
    let expression = format!("{{ ... }}: {{ inner = {text}; }}");
    let attributes: Vec<String> = (0..count).map(|n| format!("inner.attribute-{n}")).collect();
    counting.check(&["--expr", &expression], &attributes, 6, "inner.bad");
}

/// They lie in three places of the flake, each of which is looked at.
#[test]
fn many_outputs_of_a_flake_take_few_calls_of_nix() {
    let place = Place::new();
    let count = count(2_000, 10_000);
    let counting = Counting::new(&place, count);
    let flake = format!("path:{}", place.at("flake").display());
    let thirds = ["", "older.", "checks.x86_64-linux."];
    let installables: Vec<String> = (0..count)
        .map(|n| format!("{flake}#{}attribute-{n}", thirds[n % 3]))
        .collect();
    let wrong = format!("{flake}#older.bad");
    counting.check(&[], &installables, 16, &wrong);
}

/// Each is an output of the flake by itself.
#[test]
fn many_outputs_at_the_top_of_a_flake_take_few_calls_of_nix() {
    let place = Place::new();
    let count = count(2_000, 10_000);
    let counting = Counting::new(&place, count);
    let text = "{ outputs = { self }: import ./many.nix; }";
    place.write("flake/flake.nix", text);
    let flake = format!("path:{}", place.at("flake").display());
    let installables: Vec<String> = (0..count)
        .map(|n| format!("{flake}#attribute-{n}"))
        .collect();
    counting.check(&[], &installables, 16, &format!("{flake}#bad"));
}

/// `.drv` paths take no call at all.
#[test]
fn many_derivations_take_no_call_of_nix() {
    let place = Place::new();
    let count = count(1_000, 10_000);
    let counting = Counting::new(&place, count);
    let all = place.write(
        "all.nix",
        format!("removeAttrs (import {}) [ \"bad\" ]", counting.file),
    );
    let drvs = counting.nix.instantiate(&all, None);
    assert_eq!(drvs.len(), count);
    let calls = place.write("home/calls", "");
    let search = place.at("path").display().to_string();
    let drvs: Vec<&str> = drvs.iter().map(String::as_str).collect();
    let mut command = counting
        .nix
        .pontoon(&[&["build", "--dry-run"], drvs.as_slice()].concat());
    let ran = run(command.env("PATH", search)).ok();
    assert_eq!(fs_err::read_to_string(calls).unwrap(), "");
    assert!(
        ran.stderr.contains(&format!("{count} to build")),
        "{}",
        ran.report()
    );
    assert!(ran.stderr.lines().count() < 40, "{}", ran.report());
}

const MAKE: &str = r#"
  make = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // more);
"#;

/// Every way in which a path through an expression can be walked.
const EXPRESSION: &str = r#"
  { x ? 1, ... }@all: let MAKE in {
    plain = make "plain" { inherit x; };
    many = make "many" { outputs = [ "dev" "out" ]; };
    meant = make "meant" { outputs = [ "dev" "out" ]; } // { meta.outputsToInstall = [ "dev" ]; };
    list = [ (make "first" { }) { inner = make "inner" { }; } ];
    nothing = { }: { inner = make "of-nothing" { }; };
    some = { y, x ? 5 }: { inner = make "of-some" { inherit x y; }; };
    open = { ... }@given: { inner = make "of-all" { names = builtins.attrNames given; }; };
    object = { __functor = self: { x }: { inner = make "of-object" { inherit x; }; }; };
    last = { x }: make "last" { inherit x; };
    "a.b" = make "dotted" { };
    "7" = throw "nobody asks for this";
    unused = throw "nor for this";
  }
"#;

const PATHS: [&str; 15] = [
    "plain",
    "many",
    "many^dev,out",
    "meant",
    "list.0",
    "list.01.inner",
    "list.+1.inner",
    "nothing.inner",
    "some.inner",
    "open.inner",
    "object.inner",
    "last",
    "\"a.b\"",
    "\"a.b\"^*",
    "plain",
];

/// A flake where names are in several places; `SETS` are its packages.
const PLACES: &str = r#"{
  outputs = { self }: let MAKE in {
    SETS
    top = make "top" { };
    both = make "both-at-the-top" { };
    alpha = make "alpha" { source = self; };
    beta = make "beta" { outputs = [ "dev" "out" ]; };
    "7" = make "seven" { };
    deep.a = make "deep-a" { };
    deep.b = make "deep-b" { source = self; };
    "dotted.top".inner = make "dotted-top" { };
    "dotted.top"."1" = make "one" { };
    bad = throw "nobody asks for this";
  };
}"#;

const OUTPUTS: [&str; 12] = [
    "#top",
    "#alpha",
    "#beta^dev",
    "#7",
    "#both",
    "#both^out",
    "#deep.a",
    "#deep.b",
    "#\"dotted.top\".inner",
    "#%22dotted.top%22.inner",
    "#\"dotted.top\".1",
    "#deep.\"a\"",
];

const IN_SETS: [&str; 6] = [
    "",
    "#default",
    "#both.inner",
    "#old",
    "#deep.c",
    "#packages.x86_64-linux.old.inner",
];

/// Checks that with every Nix they are together what each is alone; returns what the last one says.
fn same_as_alone(
    scene: &Nix<'_>,
    place: &Place,
    before: &[&str],
    things: &[String],
) -> BTreeMap<String, Value> {
    let mut last = BTreeMap::new();
    for release in Release::all() {
        let plan = |things: &[String]| {
            let mut command: Command = scene.pontoon(&["plan", "--json"]);
            let arguments = ["--arg", "x", "3", "--argstr", "y", "why"];
            command.args(before).args(things);
            if !before.is_empty() {
                command.args(arguments);
            }
            roots(&run(&mut release.enter(place, &command)).ok())
        };
        let together = plan(things);
        let alone = things
            .iter()
            .flat_map(|one| plan(std::slice::from_ref(one)));
        let alone: BTreeMap<String, Value> = alone.collect();
        assert_eq!(together, alone, "{}", release.name());
        last = together;
    }
    last
}

#[test]
fn many_attributes_of_an_expression_are_what_each_is_alone() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let expression = EXPRESSION.replace("MAKE", MAKE);
    let things = PATHS.map(str::to_owned);
    same_as_alone(&nix, &place, &["--expr", &expression], &things);
}

#[test]
fn many_outputs_of_a_flake_are_what_each_is_alone() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let sets = r#"
      packages.x86_64-linux = {
        default = make "default" { outputs = [ "dev" "out" ]; };
        both = make "both-in-packages" { } // { inner = make "inner" { }; };
        bad = throw "nobody asks for this";
      };
      legacyPackages.x86_64-linux = {
        both = make "both-in-legacy" { };
        old = make "old" { };
        deep.c = make "deep-c" { };
      };
    "#;
    // A package that is called as the set of packages, and holds what is also beside it.
    let shadowing = r#"
      packages.x86_64-linux = {
        default = make "default" { };
        both = make "both-in-packages" { } // { inner = make "inner" { }; };
        old = make "old" { };
        deep.c = make "deep-c" { };
        packages.x86_64-linux = {
          old.inner = make "shadowing" { };
          old.type = "shadow";
          deep.a = make "shadowing-deep" { };
        };
      };
    "#;
    for (name, sets) in [("none", ""), ("both", sets), ("shadowing", shadowing)] {
        let text = PLACES.replace("MAKE", MAKE).replace("SETS", sets);
        place.write(&format!("{name}/flake.nix"), text);
        let flake = format!("path:{}", place.at(name).display());
        let in_sets = match name {
            "none" => &[],
            "both" => &IN_SETS[..5],
            _ => &IN_SETS[..],
        };
        let things = OUTPUTS.iter().chain(in_sets);
        let things: Vec<String> = things.map(|thing| format!("{flake}{thing}")).collect();
        same_as_alone(&nix, &place, &[], &things);
    }
}

/// The system that Nix's settings name, and not we, is the one whose packages are meant.
#[test]
fn many_outputs_of_a_flake_are_of_the_system_in_the_settings() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group).with_setting("system = i686-linux");
    let text = r#"{
      outputs = { self }: let
        MAKE
        of = system: builtins.listToAttrs (map
          (name: { inherit name; value = make "${name}-${system}" { inherit system; }; })
          [ "a" "b" "c" "d" "e" "f" ]);
      in {
        packages.i686-linux = of "i686-linux";
        packages.x86_64-linux = of "x86_64-linux";
      };
    }"#;
    place.write("flake/flake.nix", text.replace("MAKE", MAKE));
    let flake = format!("path:{}", place.at("flake").display());
    let things = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{flake}#{name}"));
    for root in same_as_alone(&nix, &place, &[], &things).values() {
        let drv = root["drv"].as_str().unwrap();
        assert!(drv.ends_with("-i686-linux.drv"), "{drv}");
    }
}

/// A flake whose lock file is written by the first evaluation, and that contains itself.
#[test]
fn many_outputs_of_a_flake_see_one_lock_file() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    place.write("other/file", "");
    let text = r#"{
      inputs.other = { url = "path:OTHER"; flake = false; };
      outputs = { self, other }: let MAKE in {
        packages.x86_64-linux = builtins.listToAttrs (map
          (name: { inherit name; value = make "of-all" { all = self; }; })
          [ "a" "b" "c" "d" "e" "f" ]);
      };
    }"#;
    let text = text
        .replace("MAKE", MAKE)
        .replace("OTHER", place.at("other").to_str().unwrap());
    place.write("flake/flake.nix", text);
    let flake = format!("path:{}", place.at("flake").display());
    let things = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{flake}#{name}"));
    for release in Release::all() {
        fs_err::remove_file(place.at("flake/flake.lock")).ok();
        let mut command = nix.pontoon(&["plan", "--json"]);
        command.args(&things);
        let roots = roots(&run(&mut release.enter(&place, &command)).ok());
        let drvs: std::collections::BTreeSet<String> = roots
            .into_values()
            .map(|root| root["drv"].to_string())
            .collect();
        assert_eq!(drvs.len(), 1, "{}", release.name());
    }
}
