//! Inputs stay mounted in a strong agent from build to build: each builder sees its own and no other,
//! as they are then.

use std::collections::BTreeSet;
use std::path::Path;

use super::support::{BuildUsers, Nix, Place, Running, run, until};

/// Builds of which each lists the store that it sees. What they need grows, and then is another.
const FILE: &str = r#"let
  make = name: before: needs: derivation {
    inherit name before needs; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
    args = [ "-euc" "cd /nix/store; for name in *; do echo $name; test -L $name || test -r $name; done > $out" ];
  };
  file = builtins.toFile "file" "a file";
  directory = builtins.path { name = "directory"; path = ./directory; };
  link = derivation {
    name = "link"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
    args = [ "-euc" "ln -s ${file} $out" ];
  };
  one = make "one" [ ] [ directory ];
  two = make "two" one [ file ];
  three = make "three" two [ link ];
  four = make "four" [ ] [ three file ];
  five = make "five" [ ] [ directory file ];
in [ one two three four five ]
"#;

/// Names of a closure, with that of the output itself.
fn expected(nix: &Nix<'_>, drv: &str) -> BTreeSet<String> {
    let inputs = run(&mut nix.command("nix-store", &["--query", "--references", drv]));
    let inputs = inputs.ok().stdout;
    let is_derivation = |path: &&str| path.strip_suffix(".drv").is_some();
    let (derivations, sources): (Vec<&str>, Vec<&str>) = inputs.lines().partition(is_derivation);
    let mut wanted: Vec<String> = sources.into_iter().map(str::to_owned).collect();
    for input in derivations {
        let outputs = run(&mut nix.command("nix-store", &["--query", "--outputs", input])).ok();
        wanted.extend(outputs.stdout.lines().map(str::to_owned));
    }
    let mut query = vec!["--query", "--requisites"];
    query.extend(wanted.iter().map(String::as_str));
    let closure = match wanted.len() {
        0 => String::new(),
        _ => run(&mut nix.command("nix-store", &query)).ok().stdout,
    };
    let output = run(&mut nix.command("nix-store", &["--query", "--outputs", drv])).ok();
    let names = closure.lines().chain(output.stdout.lines());
    names
        .map(|path| path.rsplit('/').next().unwrap().to_owned())
        .collect()
}

#[test]
fn each_builder_sees_its_inputs_whatever_was_mounted_before() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    fs_err::create_dir(place.at("directory")).unwrap();
    fs_err::write(place.at("directory/in"), "in").unwrap();
    let file = place.write("inputs.nix", FILE);
    let mut command = nix.pontoon(&["build", "--json", "--no-link", "-j", "1"]);
    command.args(["--shape", "strong"]).arg("-f").arg(&file);
    let ran = run(&mut command).ok();
    assert_eq!(ran.outcomes()["built"], 6, "{}", ran.report());
    for drv in nix.instantiate(&file, None) {
        let drv = drv.split('!').next().unwrap();
        let output = run(&mut nix.command("nix-store", &["--query", "--outputs", drv])).ok();
        let seen = fs_err::read_to_string(nix.physical(output.stdout.trim())).unwrap();
        let seen: BTreeSet<String> = seen.lines().map(str::to_owned).collect();
        assert_eq!(seen, expected(&nix, drv), "{drv}");
    }
    nix.verify();
    // Mount points wait for the next run; where the agent was ended before it had put them back they are
    // still in the slot's store, which is swept then. Nothing else is left.
    let slot = nix.root().join("nix/pontoon/slots/0");
    let left = |name: &str| fs_err::read_dir(slot.join(name)).unwrap().flatten();
    for point in left("store") {
        let metadata = point.metadata().unwrap();
        let is_empty = if metadata.is_dir() {
            fs_err::read_dir(point.path()).unwrap().count() == 0
        } else {
            metadata.is_file() && metadata.len() == 0
        };
        assert!(is_empty, "{}", point.path().display());
    }
    assert_eq!((left("shelf").count(), left("build").count()), (0, 0));
    assert!(left("points").count() + left("store").count() > 1);
}

/// Replaces a path of a store by one that others have made.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs_err::write(&new, content).unwrap();
    fs_err::rename(new, path).unwrap();
}

#[test]
fn an_input_that_was_made_again_meanwhile_is_seen_as_it_is_now() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let text = r#"let
      file = builtins.toFile "file" "old";
      make = name: before: script: derivation {
        inherit name before; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
        args = [ "-euc" "${script} ${file} > $out" ];
      };
    in make "second" (make "first" "" "sleep 3; cat") "cat"
    "#;
    let file = place.write("again.nix", text);
    let mut command = nix.pontoon(&["build", "--json", "--no-link", "-j", "1"]);
    command.args(["--shape", "strong"]).arg("-f").arg(file);
    let running = Running::start(&mut command);
    until("the first builder sleeps", || {
        let processes = place.processes();
        processes.values().any(|line| line.contains("sleep 3"))
    });
    let store = fs_err::read_dir(nix.root().join("nix/store")).unwrap();
    let mut names = store.map(|entry| entry.unwrap().path());
    let path = names.find(|path| path.to_string_lossy().ends_with("-file"));
    replace(&path.unwrap(), "new");
    let ran = running.end().ok();
    let events = ran.json_lines();
    let built = |name: &str| {
        let is_it =
            |event: &&serde_json::Value| event["event"] == "node-finished" && event["name"] == name;
        let event = events.iter().find(is_it).unwrap();
        let path = event["outcome"]["outputs"][0]["path"].as_str().unwrap();
        fs_err::read_to_string(nix.physical(path)).unwrap()
    };
    assert_eq!([built("first"), built("second")], ["old", "new"]);
}
