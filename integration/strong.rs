//! A real `BuildKit` daemon with the strong shape: its store is a directory that a device brings, the
//! sandboxes are ours, and agents go on from derivation to derivation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use pontoon::engine::device::Users;
use rustix::process::Signal;

use super::buildkit::{PIPELINE, all_gone, output, run_id};
use super::support::{
    BuildUsers, Daemon, Kind, Nix, Place, Running, Seed, assert_same, count, graph, processes_with,
    rows, run, sandbox_paths, until,
};

/// A daemon, a store to evaluate in, and in it the shell of every builder.
struct Scene<'p> {
    daemon: Daemon<'p>,
    nix: Nix<'p>,
    /// The daemon's store, for real Nix.
    store: Nix<'p>,
    /// The store path of a static busybox.
    shell: String,
}

impl<'p> Scene<'p> {
    fn new(place: &'p Place, users: Users) -> Self {
        let daemon = Daemon::strong(Kind::BuildKitStrong, place, users);
        Self::with(place, daemon)
    }

    fn with(place: &'p Place, daemon: Daemon<'p>) -> Self {
        let nix = Nix::new(place, "evaluated", BuildUsers::Nobody);
        let added = run(&mut nix.command("nix-store", &["--add", "/bin/busybox"]));
        Self {
            daemon,
            store: Nix::new(place, "daemon", BuildUsers::Group),
            shell: added.ok().stdout.trim().to_owned(),
            nix,
        }
    }

    fn pontoon(&self, arguments: &[&str]) -> Command {
        let paths = ["sh", "sleep", "cat", "ls", "wc", "id"]
            .map(|name| format!("/bin/{name}={}", self.shell))
            .join(" ");
        let mut command = self.nix.pontoon(arguments);
        command.args(["--json", "--sandbox-paths", &paths]);
        self.daemon.serve(&mut command);
        command
    }

    /// How many ops the daemon has run whose first argument is this.
    fn ops(&self, task: &str) -> usize {
        let does = |op: &&String| {
            let mut words = op.split(' ');
            let program = words.next().unwrap_or_default();
            program.starts_with("/nix/pontoon/agent/") && words.next() == Some(task)
        };
        self.daemon.ops().iter().filter(does).count()
    }

    fn read(&self, path: &str) -> String {
        fs_err::read_to_string(self.store.physical(path)).unwrap()
    }
}

#[test]
fn agents_go_on_from_build_to_build_and_make_what_embedded_makes() {
    for kind in Kind::STRONG {
        let place = Place::new();
        let daemon = Daemon::strong(kind, &place, Users::Machine);
        agents_go_on(&place, &Scene::with(&place, daemon));
    }
}

fn agents_go_on(place: &Place, scene: &Scene<'_>) {
    let size = count(40, 400);
    let file = place.write("graph.nix", graph(&mut Seed::new("strong"), size, "strong"));
    let build = ["build", "-j", "2", "-f", file.to_str().unwrap()];
    let ran = run(&mut scene.pontoon(&build)).ok();
    assert_eq!(ran.outcomes(), BTreeMap::from([("built".to_owned(), size)]));
    let begun = &ran.json_lines()[0]["engine"];
    let begun = begun.as_str().unwrap();
    assert!(begun.ends_with("(strong)"), "{begun}");
    // Two go on from build to build; the first was begun once more when the agent was there.
    let builds = scene.ops("build");
    assert!((1..=3).contains(&builds), "{builds} ops for {size} builds");

    let embedded = Nix::new(place, "embedded", BuildUsers::Group);
    run(embedded.pontoon(&build).arg("--no-link")).ok();
    let theirs = rows(embedded.root());
    let paths: Vec<&str> = theirs.keys().map(String::as_str).collect();
    assert!(paths.len() >= 2 * size, "{paths:?}");
    assert_same(scene.store.root(), embedded.root(), paths);
    scene.store.verify();

    let before = scene.daemon.ops().len();
    let again = run(&mut scene.pontoon(&build)).ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    // One op asks what is valid, one was begun for builds that did not come; no agent is delivered
    // twice.
    assert_eq!(scene.daemon.ops().len(), before + 2);
    assert_eq!(scene.ops("build"), builds + 1);
}

#[test]
fn a_builder_sees_its_closure_alone_and_each_effect_its_own_secret() {
    for kind in Kind::STRONG {
        let place = Place::new();
        let daemon = Daemon::strong(kind, &place, Users::Own);
        sees_its_closure_alone(&Scene::with(&place, daemon));
    }
}

fn sees_its_closure_alone(scene: &Scene<'_>) {
    let mut command = scene.pontoon(&["run", "-j", "2", "--expr", PIPELINE]);
    let ran = run(command.env("ONE", "first-word").env("TWO", "second-word")).ok();
    let events = ran.json_lines();
    let seen = scene.read(&output(&events, "view"));
    let seen: BTreeSet<&str> = seen.split_whitespace().collect();
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let closure = [base(&output(&events, "dep")), base(&scene.shell)];
    let closure: BTreeSet<&str> = closure.iter().map(String::as_str).collect();
    assert_eq!(seen, closure);
    // What sandbox paths bring is seen, and is no reference.
    let rows = rows(scene.store.root());
    let references = &rows[&output(&events, "view")].references;
    assert!(!references.contains(&scene.shell), "{references:?}");
    assert_eq!(scene.read(&output(&events, "fixed")), "hello");
    for (effect, word) in [("one", "first-word"), ("two", "second-word")] {
        let node = format!("effect:{effect}");
        let lines: Vec<_> = events
            .iter()
            .filter(|event| event["event"] == "node-log" && event["node"] == node)
            .map(|event| event["line"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(lines, [format!("hello told {word}")], "{effect}");
    }
    let mut command = scene.pontoon(&["run", "--expr", PIPELINE]);
    let again = run(command.env("ONE", "a").env("TWO", "b")).ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    assert_eq!(again.outcomes()["succeeded"], 2);
    scene.store.verify();
}

/// An expression of one derivation, with something to be known by in its environment.
fn one(name: &str, marker: &str, script: &str) -> String {
    format!(
        r#"derivation {{
          name = "{name}"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
          MARKER = "{marker}"; args = [ "-euc" "{script}" ];
        }}"#
    )
}

/// Starts a build, and returns it when its builder sleeps.
fn sleeping(scene: &Scene<'_>, marker: &str) -> Running {
    let expression = one("slow", marker, "sleep 600; echo done > $out");
    let running = Running::start(&mut scene.pontoon(&["build", "--expr", &expression]));
    until("the builder sleeps", || {
        let found = processes_with(&format!("MARKER={marker}"));
        found.values().any(|line| line.starts_with("sleep 600"))
    });
    running
}

fn builds(scene: &Scene<'_>, name: &str) {
    let expression = one(name, "none", "echo done > $out");
    let ran = run(&mut scene.pontoon(&["build", "--expr", &expression])).ok();
    assert_eq!(ran.outcomes()["built"], 1, "{}", ran.report());
    scene.store.verify();
}

#[test]
fn no_op_outlives_a_pontoon_that_was_killed_or_its_daemon() {
    let place = Place::new();
    let mut scene = Scene::new(&place, Users::Machine);
    let marker = format!("strong-killed-{}", std::process::id());
    let running = sleeping(&scene, &marker);
    let since = Instant::now();
    running.signal(Signal::KILL);
    let took = all_gone(&marker, &run_id(&running.end()), since);
    eprintln!("after a kill every process of the op was gone in {took:?}");
    builds(&scene, "after-a-kill");

    let running = sleeping(&scene, &marker);
    let since = Instant::now();
    scene.daemon.kill();
    let took = all_gone(&marker, &marker, since);
    // It may wait for the daemon to come back.
    running.signal(Signal::TERM);
    let ran = running.end();
    let code = ran.status.code();
    assert!(matches!(code, Some(7 | 143)), "{}", ran.report());
    eprintln!("after the daemon's death every process of the op was gone in {took:?}");
    scene.daemon.restart();
    builds(&scene, "after-a-death");
}

#[test]
fn neither_pruning_nor_a_foreign_build_without_cache_touches_the_store() {
    let place = Place::new();
    let scene = Scene::new(&place, Users::Own);
    builds(&scene, "first");
    let marker = format!("strong-pruned-{}", std::process::id());
    let running = sleeping(&scene, &marker);
    run(&mut scene.daemon.buildctl(&["prune", "--all"])).ok();
    // A definition with the cache mount of a plain store: to load it with `--no-cache` clears it.
    let definition = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lowered-plain.pb");
    let foreign = scene
        .daemon
        .buildctl(&["build", "--no-cache", "--progress", "plain"])
        .stdin(Stdio::from(
            fs_err::File::open(definition).unwrap().into_parts().0,
        ))
        .output()
        .unwrap();
    assert!(!foreign.status.success(), "it has no tunnel");
    // The run is not disturbed, and what it needs later is still there.
    let sleeper = processes_with(&format!("MARKER={marker}"));
    assert!(!sleeper.is_empty());
    running.signal(Signal::TERM);
    running.end().code(143);
    let expression = one("first", "none", "echo done > $out");
    let again = run(&mut scene.pontoon(&["build", "--expr", &expression])).ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    builds(&scene, "second");
}

#[test]
fn strong_is_refused_clearly_and_plain_is_what_is_left() {
    let place = Place::new();
    let expression = one("refused", "none", "echo done > $out");
    let build = |scene: &Scene<'_>, more: &[&str]| {
        run(scene.pontoon(&["build", "--expr", &expression]).args(more))
    };
    for why in ["it has no device", "security.insecure is not allowed"] {
        let daemon = match why {
            "it has no device" => Daemon::start(&place),
            _ => Daemon::of(Kind::BuildKitDevice, &place),
        };
        let scene = Scene::with(&place, daemon);
        build(&scene, &["--shape", "strong"])
            .code(7)
            .says(why)
            .says("insecure-entitlements = [\"security.insecure\"]");
        let ran = build(&scene, &[]).ok();
        let engine = ran.json_lines()[0]["engine"].to_string();
        assert!(engine.ends_with("(plain)\""), "{engine}");
    }
    let scene = Scene::new(&place, Users::Own);
    build(&scene, &["--sandbox-paths", "/bin/sh=/bin/busybox"])
        .code(7)
        .says("the sandbox path `/bin/sh=/bin/busybox` is not in the store");
    let ran = build(&scene, &["--shape", "plain"]).ok();
    let engine = ran.json_lines()[0]["engine"].to_string();
    assert!(engine.ends_with("(plain)\""), "{engine}");
    assert_eq!(
        build(&scene, &["--shape", "strong"]).ok().outcomes()["built"],
        1
    );
}

/// Builds that take a moment each, so that those of two programs meet.
fn moments(salt: &str, size: usize) -> String {
    format!(
        r#"builtins.genList (n: derivation {{
          name = "{salt}-${{toString n}}"; system = "x86_64-linux"; builder = "/bin/sh";
          args = [ "-euc" "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; echo $n > $out" ];
        }}) {size}"#
    )
}

#[test]
fn real_nix_builds_in_the_same_store_at_the_same_time() {
    for users in [Users::Machine, Users::Own] {
        let place = Place::new();
        let scene = Scene::new(&place, users);
        let size = count(30, 300);
        let ours = place.write("ours.nix", moments("ours", size));
        let theirs = place.write("theirs.nix", moments("theirs", size));
        let ours = ours.to_str().unwrap();
        let pontoon = Running::start(&mut scene.pontoon(&["build", "-j", "2", "-f", ours]));
        let paths = sandbox_paths().join(" ");
        let options = ["--no-out-link", "--option", "sandbox-paths", &paths];
        let mut command = scene.store.command("nix-build", &options);
        let nix = run(command.arg(theirs)).ok();
        assert_eq!(nix.stdout.lines().count(), size, "{}", nix.report());
        let ran = pontoon.end().ok();
        assert_eq!(ran.outcomes()["built"], size, "{}", ran.report());
        eprintln!("{users:?}: nix took {:?}, we {:?}", nix.took, ran.took);
        scene.store.verify();
    }
}

#[test]
fn a_store_on_this_machine_can_be_named_as_the_one_to_evaluate_in() {
    let place = Place::new();
    let scene = Scene::new(&place, Users::Machine);
    let added = run(&mut scene.store.command("nix-store", &["--add", "/bin/busybox"])).ok();
    let path = format!("/bin/sh={}", added.stdout.trim());
    let expression = one("named", "none", "echo of the build; echo done > $out");
    let mut command = scene
        .store
        .pontoon(&["build", "--json", "--expr", &expression]);
    command.args(["--sandbox-paths", &path]);
    let ran = run(scene.daemon.serve(&mut command)).ok();
    let events = ran.json_lines();
    assert!(!events.iter().any(|event| event["event"] == "importing"));
    let path = output(&events, "named");
    assert_eq!(scene.read(&path), "done\n");
    let log = run(&mut scene.store.pontoon(&["log", &path])).ok();
    assert_eq!(log.stdout.trim(), "of the build");
    scene.store.verify();
}

#[test]
fn agents_that_wait_make_room_where_few_ops_may_run() {
    let place = Place::new();
    // One for the store, and one.
    let few = serde_json::json!("  max-parallelism = 2\n");
    let daemon = Daemon::configured(Kind::BuildKitStrong, &place, &few);
    let scene = Scene::with(&place, daemon);
    // What has a fixed output may reach the network, and takes an op of its own.
    let text = r#"
        let
          make = name: text: more: derivation ({
            inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ];
          } // more);
          first = make "first" "echo > $out" { };
          fetched = make "fetched" "read -r _ < ${first}; echo hello > $out" {
            outputHashMode = "flat"; outputHashAlgo = "sha256";
            outputHash = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
          };
        in make "last" "read -r line < ${fetched}; echo $line > $out" { }
    "#;
    let file = place.write("few.nix", text);
    let mut pontoon = scene.pontoon(&["build", "--no-link", "-j", "2"]);
    let ran = run(pontoon.arg("-f").arg(file)).ok();
    assert_eq!(ran.outcomes(), BTreeMap::from([("built".to_owned(), 3)]));
    assert_eq!(scene.ops("build"), 3);
    scene.store.verify();
}
