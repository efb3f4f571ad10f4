//! A store on a daemon that is lost in the middle of a run, in every way known: the run goes on.

pub(crate) mod setting;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use setting::{Gate, Scene, chain, events, kill, last_outcomes, lost, sleeping};

use super::conformance::proxy::Proxy;
use super::support::{Daemon, Kind, Place, Running, Seed, count, run, until};

#[test]
fn a_store_that_another_client_forks_is_made_anew_and_the_run_goes_on() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let mut gate = Gate::new("forked");
    let running = scene.start(&chain(&gate, ""));
    gate.wait(1);
    scene.fork();
    gate.open();
    let ran = running.end().ok();
    assert_eq!(lost(&ran), ["store"], "{}", ran.report());
    let lines = ran.json_lines();
    // Which copy the daemon takes then is its own choice: what is not in it is built again.
    let again: Vec<&Value> = events(&lines, "node-again")
        .map(|event| &event["name"])
        .collect();
    assert!(again.is_empty() || again == ["a"], "{}", ran.report());
    assert_eq!(lines.last().unwrap()["summary"]["built"], 3);
    assert_eq!(events(&lines, "outputs").count(), 3);
    scene.verify();
    // The daemon goes on with the copy where everything is.
    let again = scene.start(&chain(&gate, "")).end().ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    assert_eq!(lost(&again), [""; 0]);
}

#[test]
fn what_wakes_up_in_another_copy_of_the_store_is_sent_away() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let mut gate = Gate::new("stranger");
    let running = scene.start(&chain(&gate, ""));
    gate.wait(1);
    scene.fork();
    // Another run builds some of the same in the new copy, so that ops of the first start there: it
    // has as many slots.
    let first = sleeping(&gate.marker);
    let other = scene.start(&chain(&gate, "").replace("inherit a b c;", "inherit a b;"));
    gate.wait(2);
    let second = sleeping(&gate.marker);
    kill(*second.iter().find(|pid| !first.contains(pid)).unwrap());
    let other = other.end().ok();
    assert_eq!(lost(&other), [""; 0], "{}", other.report());
    gate.open();
    let ran = running.end().ok();
    assert!(!lost(&ran).is_empty(), "{}", ran.report());
    assert!(
        ran.stdout.contains("found another one in its place"),
        "{}",
        ran.report()
    );
    for (name, outcome) in last_outcomes(&ran) {
        assert!(
            ["built", "already-valid"].contains(&outcome.as_str()),
            "{name}: {}",
            ran.report()
        );
    }
    let lines = ran.json_lines();
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!(
        summary["built"].as_u64().unwrap() + summary["valid"].as_u64().unwrap(),
        3,
        "{summary}"
    );
    scene.verify();
}

#[test]
fn an_effect_that_runs_when_the_store_goes_is_run_once_and_the_next_one_waits_for_its_inputs() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let mut gate = Gate::new("effects");
    let pipeline = chain(
        &gate,
        r#"
          effects.one = effect "sleep 600; echo one";
          effects.two = effect "cat ${c}" // { after = [ "one" ]; };
        "#,
    )
    .replace(r#"node "a" "sleep 600""#, r#"node "a" "true""#);
    let running = scene.start(&pipeline);
    gate.wait(1);
    scene.fork();
    gate.open();
    let ran = running.end().ok();
    assert_eq!(lost(&ran), ["store"], "{}", ran.report());
    let lines = ran.json_lines();
    for effect in ["one", "two"] {
        let of = |event: &&Value| event["name"] == effect;
        assert_eq!(
            events(&lines, "node-started").filter(of).count(),
            1,
            "{}",
            ran.report()
        );
        let finished: Vec<_> = events(&lines, "node-finished").filter(of).collect();
        assert_eq!(finished.len(), 1);
        assert_eq!(finished[0]["outcome"]["outcome"], "succeeded");
    }
    let said = events(&lines, "node-log").map(|event| event["line"].as_str().unwrap());
    assert_eq!(said.filter(|line| ["one", "c"].contains(line)).count(), 2);
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!(
        (&summary["built"], &summary["effects_succeeded"]),
        (&3.into(), &2.into())
    );
    scene.verify();
}

#[test]
fn a_store_that_is_pruned_while_its_daemon_is_away_is_filled_again() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let mut gate = Gate::new("pruned");
    let running = scene.start(&chain(&gate, ""));
    gate.wait(1);
    // In use it is not pruned, and nothing is lost.
    run(&mut scene.daemon.buildctl(&["prune", "--all"])).ok();
    assert_eq!(scene.copies().len(), 1);
    gate.open();
    until("the second build has begun", || {
        scene.copies()[0].join("store").read_dir().is_ok()
    });
    scene.daemon.kill();
    for copy in scene.copies() {
        // What `prune` does to a daemon that does not know that the mount is in use.
        fs_err::remove_dir_all(&copy).unwrap();
        fs_err::create_dir(&copy).unwrap();
    }
    scene.daemon.restart();
    let ran = running.end().ok();
    assert_eq!(lost(&ran), ["engine"], "{}", ran.report());
    assert_eq!(ran.json_lines().last().unwrap()["summary"]["built"], 3);
    scene.verify();
    // Between runs it is pruned by name.
    run(&mut scene
        .daemon
        .buildctl(&["prune", "--filter", "type==exec.cachemount"]))
    .ok();
    assert_eq!(scene.copies().len(), 0);
    let again = scene.start(&chain(&gate, "")).end().ok();
    assert_eq!(again.outcomes()["built"], 3);
    scene.verify();
}

#[test]
fn a_collector_with_tight_limits_takes_no_store_that_is_in_use() {
    let place = Place::new();
    let tight = "  gc = true\n  [[worker.oci.gcpolicy]]\n    all = true\n    keepDuration = 1\n    \
                 maxUsedSpace = 1\n";
    let scene = Scene::around(&place, |place| {
        Daemon::configured(Kind::BuildKit, place, &tight.into())
    });
    let mut gate = Gate::new("collected");
    let running = scene.start(&chain(&gate, ""));
    gate.wait(1);
    // The daemon collects once a minute: waited for in soak alone. A client may ask for the same.
    std::thread::sleep(Duration::from_secs(u64::try_from(count(0, 70)).unwrap()));
    let collect = [
        "prune",
        "--all",
        "--keep-duration",
        "1ms",
        "--keep-storage",
        "0.000001",
    ];
    for _ in 0..5 {
        run(&mut scene.daemon.buildctl(&collect)).ok();
    }
    gate.open();
    let ran = running.end().ok();
    // Before the first op that holds it, it may have gone.
    assert!(lost(&ran).len() <= 1, "{}", ran.report());
    assert_eq!(ran.outcomes()["built"], 3, "{}", ran.report());
    scene.verify();
    // Afterwards nothing holds it.
    run(&mut scene.daemon.buildctl(&collect)).ok();
    assert_eq!(scene.copies().len(), 0);
    let again = scene.start(&chain(&gate, "")).end().ok();
    assert_eq!(again.outcomes()["built"], 3, "{}", again.report());
    scene.verify();
}

#[test]
fn what_is_lost_again_and_again_ends_the_run_with_a_reason() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let gate = Gate::new("again");
    let running = scene.start(&chain(&gate, ""));
    for begun in 1..=4 {
        gate.wait(1);
        // The run hears of it after it began, through the daemon.
        running.has_said("node-started", begun);
        scene.daemon.kill();
        until("its op is gone", || sleeping(&gate.marker).is_empty());
        scene.daemon.restart();
    }
    let ran = running
        .end()
        .code(7)
        .says("3 times before it was planned anew");
    assert_eq!(lost(&ran), ["engine"; 3], "{}", ran.report());
    let lines = ran.json_lines();
    assert_eq!(events(&lines, "node-again").count(), 3, "{}", ran.report());
    // Every node has an outcome all the same.
    assert_eq!(last_outcomes(&ran).len(), 3, "{}", ran.report());
    scene.verify();
}

#[test]
fn a_daemon_that_dies_during_the_import_gets_all_of_it_again() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let mut seed = Seed::new("import");
    let size = 32 << 20;
    let words = (0..size / 8).flat_map(|_| seed.next().to_le_bytes());
    place.write("big/source", words.collect::<Vec<u8>>());
    let expression = format!(
        r#"derivation {{
          name = "big"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
          args = [ "-c" "cat $source/source > $out" ]; source = {};
        }}"#,
        place.at("big").display()
    );
    let file = place.write("big.nix", expression);
    // Little goes through but the import: this is in the middle of it, with most of it to come or not.
    let moment = (1 << 20) + seed.below(size - (2 << 20));
    let proxy = Proxy::holding(place.path(), moment);
    let mut command = scene.pontoon(&["build"]);
    command.env("PONTOON_TUNNEL_PROXY", proxy.variable());
    let running = Running::start(command.arg("-f").arg(file));
    until("so much of it has come", || proxy.carried() >= moment);
    scene.daemon.kill();
    proxy.let_go();
    let since = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    scene.daemon.restart();
    let ran = running.end().ok();
    eprintln!("it went on {:?} after the daemon's death", since.elapsed());
    assert_eq!(lost(&ran), ["engine"], "{}", ran.report());
    assert_eq!(ran.outcomes()["built"], 1);
    let lines = ran.json_lines();
    assert_eq!(events(&lines, "importing").count(), 2, "{}", ran.report());
    assert!(proxy.carried() > moment + size);
    scene.verify();
}

#[test]
fn a_daemon_that_is_frozen_for_a_while_is_told_of_and_waited_for() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let mut gate = Gate::new("frozen");
    let running = scene.start(&chain(&gate, ""));
    gate.wait(1);
    scene.daemon.freeze();
    std::thread::sleep(Duration::from_secs(18));
    scene.daemon.thaw();
    gate.open();
    let ran = running.end().ok();
    let silent = "the daemon has not answered for 10 s";
    assert_eq!(ran.stdout.matches(silent).count(), 1, "{}", ran.report());
    assert_eq!(lost(&ran), [""; 0], "{}", ran.report());
    assert_eq!(ran.outcomes()["built"], 3);
}

#[test]
fn a_daemon_that_stays_frozen_counts_as_lost() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let gate = Gate::new("stiff");
    let running = scene.start(&chain(&gate, ""));
    gate.wait(1);
    scene.daemon.freeze();
    let ran = running.end().code(7).says("did not come back");
    scene.daemon.thaw();
    assert_eq!(lost(&ran), ["engine"], "{}", ran.report());
    // Nothing of it goes on once the daemon does.
    until("its op is gone", || sleeping(&gate.marker).is_empty());
    scene.verify();
}

#[test]
fn a_daemon_that_does_not_come_back_is_waited_for_and_the_wait_can_be_ended() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let gate = Gate::new("away");
    let waiting = scene.start(&chain(&gate, ""));
    let stopped = scene.start(&chain(&gate, ""));
    gate.wait(1);
    for run in [&waiting, &stopped] {
        run.has_said("\"planned\"", 1);
    }
    scene.daemon.kill();
    until("the op is gone", || sleeping(&gate.marker).is_empty());
    std::thread::sleep(Duration::from_secs(2));
    let since = Instant::now();
    stopped.signal(Signal::INT);
    let stopped = stopped.end().code(130);
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "{}",
        stopped.report()
    );
    let ran = waiting.end().code(7).says("did not come back");
    assert!(ran.took > Duration::from_secs(30), "{}", ran.report());
    for ran in [&stopped, &ran] {
        assert_eq!(lost(ran), ["engine"], "{}", ran.report());
        let lines = ran.json_lines();
        assert_eq!(events(&lines, "engine-awaited").count(), 1);
        assert_eq!(last_outcomes(ran).len(), 3, "{}", ran.report());
    }
    scene.daemon.restart();
}
