//! The same things on each kind of daemon: whatever the engine is, the same derivations give the
//! same paths, hashes and references, builders see the same, and effects run as often.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use serde_json::Value;

use super::support::{
    BuildUsers, Kind, Nix, Place, Ran, Receiver, Running, Scene, assert_same, count, rows, run,
};

/// The kinds of a test: one in the gate, another one from test to test; all in soak.
fn kinds(gate: Kind) -> Vec<Kind> {
    if count(0, 1) == 0 {
        vec![gate]
    } else {
        Kind::all()
    }
}

/// The output of a node that was built, by the node's name.
fn output(ran: &Ran, name: &str) -> String {
    let events = ran.json_lines();
    let built = events
        .iter()
        .find(|event| event["event"] == "node-finished" && event["name"] == name);
    let path = built.and_then(|event| event["outcome"]["outputs"][0]["path"].as_str());
    path.unwrap_or_else(|| panic!("`{name}` has no output\n{}", ran.report()))
        .to_owned()
}

/// What a node wrote, line by line.
fn lines(ran: &Ran, node: &str) -> Vec<String> {
    let of_node = |event: &Value| event["event"] == "node-log" && event["node"] == node;
    let events = ran.json_lines();
    let logged = events.iter().filter(|event| of_node(event));
    logged
        .map(|event| event["line"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// A derivation of a shell script, as an expression; `more` are attributes.
fn script(name: &str, text: &str, more: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         PATH = \"/bin\"; args = [ \"-euc\" ''{text}'' ]; {more} }}"
    )
}

/// The example, with its tools in it; returns it as a reference.
fn example(place: &Place) -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let flake = place.at("flake");
    let mut copy = place.command("cp");
    run(copy.arg("-r").arg(format!("{here}/example")).arg(&flake)).ok();
    run(place
        .command(format!("{here}/scripts/seed.sh"))
        .arg(flake.join("seed")))
    .ok();
    format!("path:{}", flake.display())
}

#[test]
fn the_demo_is_built_as_nix_builds_it_and_published() {
    let place = Place::new();
    let flake = example(&place);
    let targets = ["packages", "checks"].map(|set| format!("{flake}#{set}.x86_64-linux"));
    let [packages, checks] = &targets;
    let targets = [
        format!("{packages}.hello"),
        format!("{packages}.site"),
        format!("{checks}.unit"),
    ];
    let real = Nix::new(&place, "real", BuildUsers::Group);
    run(real.command("nix", &["build", "--no-link"]).args(&targets)).ok();
    let theirs = rows(real.root());
    let built: Vec<&str> = theirs
        .iter()
        .filter(|(_, row)| row.deriver.is_some())
        .map(|(path, _)| path.as_str())
        .collect();
    assert!(built.len() >= 4, "{built:?}");
    for kind in Kind::all() {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        release(&scene, &place, &flake);
        assert_same(&scene.daemon.root(), real.root(), built.iter().copied());
        scene.daemon.verify(&scene.nix);
    }
}

/// Runs the demo's pipeline twice: what is built once is published twice.
fn release(scene: &Scene<'_>, place: &Place, flake: &str) {
    let receiver = Receiver::start(place, &scene.daemon);
    let (name, token) = Receiver::TOKEN;
    let release = || {
        let mut command = scene.pontoon(&["run", "-j", "2", &format!("{flake}#release")]);
        command.args(["--fact", &format!("receiver={}", receiver.address())]);
        run(command.args(["--fact", "rev=one"]).env(name, token)).ok()
    };
    let first = release();
    assert_eq!(first.outcomes()["built"], 6, "{}", first.report());
    assert_eq!(first.outcomes()["succeeded"], 1, "{}", first.report());
    let site = scene.read(&format!("{}/index.html", output(&first, "site")));
    assert!(site.contains("Hello, reader!"), "{site}");
    let published = ("one".to_owned(), site);
    assert_eq!(receiver.received(), slice::from_ref(&published));
    let second = release();
    assert_eq!(second.outcomes().get("built"), None, "{}", second.report());
    assert_eq!(receiver.received(), [published.clone(), published]);
    for ran in [first, second] {
        assert!(!ran.report().contains(token), "{}", ran.report());
    }
    assert_eq!(scene.ops("effect"), 2);
    // Nor is it in the store, or in anything else of the daemon's, where the agent's name is.
    let kept = scene.daemon.seen(&place.at("daemon"));
    for (text, is_kept) in [(token, false), ("pontoon/agent", true)] {
        let mut search = place.command("grep");
        let ran = run(search.args(["-rlsF", "--devices=skip", text]).arg(&kept));
        assert_eq!(!ran.stdout.is_empty(), is_kept, "{}", ran.report());
    }
}

#[test]
fn what_is_there_costs_one_question() {
    for kind in kinds(Kind::Docker20) {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        let expression = script("asked", "echo > $out", "");
        let build = ["build", "--expr", &expression];
        run(&mut scene.pontoon(&build)).ok();
        let (ops, records) = (scene.daemon.ops().len(), scene.daemon.records());
        let again = run(&mut scene.pontoon(&build)).ok();
        assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
        let asked = scene.daemon.ops().split_off(ops);
        // In strong an agent waits for what evaluation may bring.
        let waits = usize::from(kind.is_strong());
        let of = |task: &str| asked.iter().filter(|op| op.contains(task)).count();
        assert!(of(" store") <= 1 && of(" build") <= waits, "{asked:?}");
        assert!(asked.len() <= 1 + waits, "{asked:?}");
        let after = scene.daemon.records();
        let new: BTreeMap<_, _> = after
            .iter()
            .filter(|(id, _)| !records.contains_key(*id))
            .collect();
        // Its root, which it may have written to: an empty layer.
        assert!(new.len() <= asked.len(), "{kind:?}: {new:#?}");
    }
}

/// A builder that looks for what it should not find: by listing, by a path's very name, and through
/// other processes' eyes.
const VIEW: &str = r#"
  let
    make = name: text: more: derivation ({
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
      args = [ "-euc" text ];
    } // more);
    dep = make "dep" "mkdir $out; echo dep > $out/file" { };
    input = make "input" "ln -s $dep/file $out" { inherit dep; };
    stranger = make "stranger" "mkdir $out; echo stranger > $out/file" { };
    name = builtins.unsafeDiscardStringContext "${stranger}";
  in [ stranger (make "view" ''
    mkdir $out
    ls -A /nix/store > $out/listed
    : > $out/found
    base=''${hidden#/nix/store/}
    for root in "" /proc/self/root /proc/self/cwd/../.. /proc/$$/root $(ls -d /proc/[0-9]*/root); do
      for store in /nix/store /.pontoon/store/store /.pontoon/store/nix/store; do
        for path in $store/$base $store/$base/file $store/$base.lock; do
          ! stat $path 2> /dev/null >> $out/found
          ! cat $path 2> /dev/null >> $out/found
          ! ls -d $path 2> /dev/null >> $out/found
        done
      done
      ! ls $root/nix/var 2> /dev/null >> $out/found
    done
    ! ls /nix/store/.links 2> /dev/null >> $out/found
    ! ls -d /nix/store/*stranger* 2> /dev/null >> $out/found
    cat $input
  '' { inherit input; hidden = name; }) ]
"#;

#[test]
fn a_builder_finds_nothing_but_its_closure() {
    for kind in kinds(Kind::Docker20) {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        let file = place.write("view.nix", VIEW);
        let path = file.to_str().unwrap();
        // What is hidden is there before.
        let stranger = place.write("stranger.nix", format!("builtins.head (import {path})"));
        run(&mut scene.pontoon(&["build", "-f", stranger.to_str().unwrap()])).ok();
        let ran = run(&mut scene.pontoon(&["build", "-f", path])).ok();
        let view = output(&ran, "view");
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let expected = [
            output(&ran, "dep"),
            output(&ran, "input"),
            scene.busybox.clone(),
            view.clone(),
        ];
        let expected: BTreeSet<String> = expected.iter().map(|path| base(path)).collect();
        let listed = scene.read(&format!("{view}/listed"));
        let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        assert_eq!(listed, expected, "{kind:?}");
        assert_eq!(scene.read(&format!("{view}/found")), "", "{kind:?}");
    }
}

#[test]
fn the_store_is_there_after_many_runs() {
    for kind in kinds(Kind::Docker20) {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        let runs = count(5, 100);
        let mut last = "null".to_owned();
        let mut identity = String::new();
        for number in 0..runs {
            last = script(
                &format!("run-{number}"),
                "echo $before > $out",
                &format!("before = {last};"),
            );
            let ran = run(&mut scene.pontoon(&["build", "--expr", &last])).ok();
            // Everything of the runs before is still valid.
            assert_eq!(ran.outcomes()["built"], 1, "{number}: {}", ran.report());
            let found = fs_err::read_to_string(scene.daemon.nix_dir().join("pontoon/identity"));
            let found = found.unwrap();
            assert!(identity.is_empty() || identity == found, "{number}");
            identity = found;
        }
        // In strong the first one was begun before the agent was there.
        let begun = runs..=runs + usize::from(kind.is_strong());
        assert!(begun.contains(&scene.ops("build")), "{kind:?}");
        scene.daemon.verify(&scene.nix);
    }
}

#[test]
fn two_pipelines_at_once_deploy_twice() {
    for kind in kinds(Kind::Docker29) {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        let expression = format!(
            "{{ builds.shared = {}; effects.deploy = {{ command = [ \"/bin/sh\" \"-c\" \
             \"echo begun; sleep 2; cat /proc/sys/kernel/random/uuid\" ]; environment.PATH = \"/bin\"; }}; }}",
            script("shared", "sleep 1; echo > $out", "")
        );
        let start = || Running::start(&mut scene.pontoon(&["run", "--expr", &expression]));
        let ran = [start(), start()].map(|running| running.end().ok());
        for one in &ran {
            assert_eq!(one.outcomes()["succeeded"], 1, "{}", one.report());
        }
        let said = ran.each_ref().map(|ran| lines(ran, "effect:deploy"));
        assert!(said.iter().all(|lines| lines.len() == 2), "{said:?}");
        assert_ne!(said[0], said[1], "it ran once");
        assert_eq!(scene.ops("effect"), 2);
        // The build they share is there once, whoever made it.
        let derivers: Vec<_> = rows(&scene.daemon.root())
            .into_values()
            .filter_map(|row| row.deriver)
            .collect();
        assert_eq!(derivers.len(), 1, "{derivers:?}");
        scene.daemon.verify(&scene.nix);
    }
}

#[test]
fn a_failed_build_returns_its_whole_log() {
    for kind in kinds(Kind::Docker20) {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        let count = 120_000;
        let rest = "x".repeat(93);
        let text = format!("seq -w 1 {count} | sed 's/$/{rest}/'; exit 3");
        let expression = script("loud", &text, "");
        let ran = run(&mut scene.pontoon(&["build", "--expr", &expression])).code(100);
        let events = ran.json_lines();
        let finished = events
            .iter()
            .find(|event| event["event"] == "node-finished");
        let finished = finished.expect("it finished");
        assert_eq!(finished["outcome"]["failure"]["code"], 3, "{finished}");
        let logged = events.iter().filter(|event| event["event"] == "node-log");
        let mut number = 0;
        for line in logged {
            number += 1;
            let line = line["line"].as_str().unwrap();
            assert!(
                line.len() == 99 && line.starts_with(&format!("{number:06}x")),
                "{line}"
            );
        }
        assert_eq!(number, count, "{kind:?}");
        // It lies in the store too, as Nix keeps it.
        let root = scene.daemon.root();
        let mut kept = place.command("find");
        let kept = run(kept
            .arg(root.join("nix/var/log/nix/drvs/"))
            .args(["-type", "f"]))
        .ok();
        let file = kept.stdout.trim();
        let size = run(place
            .command("sh")
            .args(["-c", "bzcat \"$0\" | wc -c", file]))
        .ok();
        assert_eq!(size.stdout.trim(), (count * 100).to_string());
        scene.daemon.verify(&scene.nix);
    }
}
