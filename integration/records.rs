//! What ops leave with a daemon: it goes, and nothing else does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::{Daemon, Kind, Place, Running, Scene, Seed, count, run, until};

/// As many derivations as it is told, each with its own text.
const MANY: &str = "{ n, mark }: builtins.genList (i: derivation {
    name = \"many-${mark}-${toString i}\"; system = \"x86_64-linux\";
    builder = \"/bin/sh\"; args = [ \"-c\" \"echo ${mark} > $out\" ];
  }) n";

#[expect(
    clippy::print_stderr,
    reason = "the test runner shows it when the test fails"
)]
fn build(scene: &Scene<'_>, place: &Place, number: usize, mark: &str) -> BTreeMap<String, usize> {
    let file = place.write("many.nix", MANY);
    let number = number.to_string();
    let build = [
        "build",
        "-j",
        "2",
        "-f",
        file.to_str().unwrap(),
        "--arg",
        "n",
        &number,
    ];
    let mut command = scene.pontoon(&build);
    let ran = run(command.args(["--argstr", "mark", mark])).ok();
    // What is out of the ordinary, for whoever reads why a number is wrong.
    let ordinary = ["node-started", "\"built\"", "outputs"];
    let is_odd = |line: &&str| !ordinary.iter().any(|text| line.contains(text));
    for line in ran.stdout.lines().filter(is_odd) {
        eprintln!("{line}");
    }
    ran.outcomes()
}

fn ours(daemon: &Daemon<'_>) -> usize {
    let records = daemon.records();
    let is_ours = |what: &&String| {
        what.starts_with("regular: mount / from exec /.pontoon/")
            || *what == "source.local: local source for pontoon-agent"
    };
    records.values().filter(is_ours).count()
}

#[test]
fn pruning_leaves_the_store_and_what_is_other_peoples() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    place.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY Dockerfile /kept\n",
    );
    let context = place.at("context");
    let local = |name: &str| format!("{name}={}", context.display());
    run(&mut scene.daemon.buildctl(&[
        "build",
        "--frontend",
        "dockerfile.v0",
        "--local",
        &local("context"),
        "--local",
        &local("dockerfile"),
    ]))
    .ok();
    let theirs = scene.daemon.records();
    assert!(!theirs.is_empty());
    assert_eq!(build(&scene, &place, 5, "a").get("built"), Some(&5));
    assert!(ours(&scene.daemon) >= 6);

    let prune = |arguments: &[&str]| {
        let mut command = place.pontoon(&["engine", "prune"]);
        run(scene.daemon.serve(command.args(arguments))).ok().stdout
    };
    // For a moment after a run the daemon still has some in use.
    until("all of them are idle", || {
        let before = ours(&scene.daemon);
        let said = prune(&["--dry-run"]);
        before >= 6 && said.starts_with(&format!("would remove {before} records"))
    });
    let said = prune(&[]);
    assert!(said.starts_with("removed "), "{said}");
    // What is left is the op that held the store meanwhile.
    assert_eq!(ours(&scene.daemon), 1);
    let left = scene.daemon.records();
    for (id, what) in &theirs {
        assert_eq!(left.get(id), Some(what));
    }
    assert_eq!(build(&scene, &place, 5, "a").get("built"), None);
    scene.daemon.verify(&scene.nix);
}

#[test]
fn what_ops_leave_does_not_grow_without_end() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let many = count(150, 1500);
    let begun = Instant::now();
    for mark in ["a", "b"] {
        let outcomes = build(&scene, &place, many, mark);
        // Where the answer of an op is lost on its way, what it made is found valid.
        let made = ["built", "already-valid"].map(|outcome| outcomes.get(outcome).unwrap_or(&0));
        assert_eq!(made.into_iter().sum::<usize>(), many, "{outcomes:?}");
    }
    // However busy the daemon was: a thousand are left, and what was made between two looks at them.
    let made_in_a_second = 2 * many / usize::try_from(begun.elapsed().as_secs()).unwrap().max(1);
    let left = ours(&scene.daemon);
    let most = 1000 + 30 * made_in_a_second;
    assert!((200..=most).contains(&left), "{left} of {most}");
    // A run that finds everything valid leaves one more, unless it is its turn to remove some, where
    // there are 250: that is nobody's of 250 in one of ten million cases.
    build(&scene, &place, 60, "few");
    let removed = (0..300).any(|_| {
        let before = ours(&scene.daemon);
        assert_eq!(build(&scene, &place, 60, "few").get("built"), None);
        ours(&scene.daemon) < before
    });
    assert!(removed, "{}", ours(&scene.daemon));
    // While a builder is at work a daemon has time, and what it removes nobody waits for.
    let few_are_left = (0..20).any(|number| {
        let slow = format!(
            r#"derivation {{
              name = "slow-{number}"; system = "x86_64-linux"; builder = "/bin/sh";
              args = [ "-c" "/bin/sleep 2; echo > $out" ];
            }}"#
        );
        run(&mut scene.pontoon(&["build", "--expr", &slow])).ok();
        ours(&scene.daemon) <= 250
    });
    assert!(few_are_left, "{}", ours(&scene.daemon));
    scene.daemon.verify(&scene.nix);
}

/// A daemon before 0.12 holds a lock for ever if it cannot tell of what it has removed and has more
/// to remove: nothing that wants its cache goes on then.
#[expect(
    clippy::print_stderr,
    reason = "the test runner shows it when the test fails"
)]
fn survives_deaths_amid_removals(kind: Kind, deaths: usize) {
    let place = Place::new();
    let scene = Scene::of(kind, &place);
    let mut seed = Seed::new(&format!("removals-{kind:?}"));
    let prune = || {
        let mut command = place.pontoon(&["engine", "prune"]);
        Running::start(scene.daemon.serve(&mut command))
    };
    build(&scene, &place, 60, "whole");
    let span = usize::try_from(prune().end().ok().took.as_millis()).unwrap();
    for death in 0..deaths {
        build(&scene, &place, 60, &format!("died-{death}"));
        let pruning = prune();
        let delay = seed.below(span);
        std::thread::sleep(Duration::from_millis(u64::try_from(delay).unwrap()));
        pruning.signal(Signal::KILL);
        let left = pruning.end().status;
        eprintln!(
            "after {delay} of {span} ms: {left}, {} records are left",
            ours(&scene.daemon)
        );
        let file = place.write("one.nix", MANY);
        let file = file.to_str().unwrap();
        let after = format!("after-{death}");
        let one = [
            "build", "-f", file, "--arg", "n", "1", "--argstr", "mark", &after,
        ];
        let mut next = Running::start(&mut scene.pontoon(&one));
        until("the daemon goes on", || next.has_ended());
        next.end().ok();
    }
    scene.daemon.verify(&scene.nix);
}

#[test]
fn a_daemon_of_2020_goes_on_where_a_client_dies_amid_removals() {
    survives_deaths_amid_removals(Kind::Docker20, count(3, 20));
}

#[test]
fn a_daemon_of_today_goes_on_where_a_client_dies_amid_removals() {
    survives_deaths_amid_removals(Kind::BuildKit, count(2, 10));
}
