//! Daemons with no default network: everything that needs none works, and the rest is given that of
//! the host where the daemon grants it, and a clear word where it does not.

use serde_json::{Value, json};

use super::losses::setting::{self, Gate, chain, last_outcomes, lost};
use super::support::{Daemon, Kind, Place, Ran, Scene, run};

/// A build that needs no network, one that may have one, and an effect. Each tells the sockets of the
/// network it is on.
const PIPELINE: &str = r#"
  let
    make = name: text: extra: derivation ({
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ];
      PATH = "/bin";
    } // extra);
    closed = make "closed" "cat /proc/net/unix > $out" { };
    fixed = make "fixed" "cat /proc/net/unix >&2; echo -n hello > $out" {
      outputHashMode = "flat"; outputHashAlgo = "sha256";
      outputHash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    };
    effect.command = [ "/bin/sh" "-euc" "PATH=/bin; cat ${fixed} /proc/net/unix" ];
  in {
    whole = { builds = { inherit closed fixed; }; effects.tell = effect; };
    fixed = { builds = { inherit closed fixed; }; };
    closed = { builds = { inherit closed; }; };
  }
"#;

/// Runs one of the pipelines.
fn start(scene: &Scene<'_>, pipeline: &str) -> Ran {
    let arguments = ["run", "-j", "1", "--expr", PIPELINE, "-A", pipeline];
    run(&mut scene.pontoon(&arguments))
}

/// Whether what a node wrote names the daemon's socket, which is on the network of its host alone.
fn is_on_the_host(scene: &Scene<'_>, events: &[Value], name: &str) -> bool {
    let socket = scene.daemon.socket().display().to_string();
    let lines = events.iter().filter(|event| {
        let node = event["node"].as_str().unwrap_or_default();
        event["event"] == "node-log" && node.contains(name)
    });
    let lines: Vec<&str> = lines.map(|event| event["line"].as_str().unwrap()).collect();
    assert!(!lines.is_empty(), "{name} tells nothing");
    lines.iter().any(|line| line.contains(&socket))
}

fn warnings(events: &[Value]) -> usize {
    let is_meant = |event: &&Value| {
        event["event"] == "warning"
            && event["text"]
                .as_str()
                .unwrap()
                .contains("no default network")
    };
    events.iter().filter(is_meant).count()
}

#[test]
fn without_a_bridge_only_what_needs_a_network_has_that_of_the_host() {
    for kind in [Kind::Docker20, Kind::Docker29, Kind::Docker29Strong] {
        let place = Place::new();
        let daemon = Daemon::configured(kind, &place, &json!({ "bridge": "none" }));
        let scene = Scene::with(&place, daemon);
        let ran = start(&scene, "closed").ok();
        let events = ran.json_lines();
        assert_eq!(warnings(&events), 0, "{kind:?} {}", ran.report());
        let engine = events[0]["engine"].as_str().unwrap();
        assert_eq!(engine.ends_with("(strong)"), kind.is_strong(), "{engine}");
        let closed = run(&mut scene.pontoon(&["run", "--expr", PIPELINE, "-A", "closed"])).ok();
        let outputs = closed.json_lines();
        let output = outputs.iter().find(|event| event["event"] == "outputs");
        let path = output.unwrap()["outputs"][0]["path"]
            .as_str()
            .unwrap()
            .to_owned();
        let socket = scene.daemon.socket().display().to_string();
        assert!(!scene.read(&path).contains(&socket), "{kind:?}");

        let ran = start(&scene, "whole").ok();
        let events = ran.json_lines();
        assert_eq!(warnings(&events), 1, "{kind:?} {}", ran.report());
        assert_eq!(ran.outcomes()["built"], 1, "{kind:?} {}", ran.report());
        assert_eq!(ran.outcomes()["succeeded"], 1, "{kind:?} {}", ran.report());
        for name in ["fixed", "effect:tell"] {
            assert!(
                is_on_the_host(&scene, &events, name),
                "{kind:?} {}",
                ran.report()
            );
        }
        // What is there needs no network, nor a word about it.
        let again = start(&scene, "fixed").ok();
        assert_eq!(warnings(&again.json_lines()), 0, "{}", again.report());
        scene.daemon.verify(&scene.nix);
    }
}

#[test]
fn a_daemon_that_grants_no_network_refuses_only_what_needs_one_and_before_anything_runs() {
    for kind in [Kind::Docker20, Kind::Docker29, Kind::Docker29Strong] {
        let place = Place::new();
        let entitlements = json!({ "network-host": false, "security-insecure": kind.is_strong() });
        let builder = json!({ "gc": { "enabled": false }, "entitlements": entitlements });
        let settings = json!({ "bridge": "none", "builder": builder });
        let daemon = Daemon::configured(kind, &place, &settings);
        let scene = Scene::with(&place, daemon);
        for (pipeline, what) in [("fixed", "-fixed.drv"), ("whole", "-fixed.drv")] {
            let ran = start(&scene, pipeline)
                .code(7)
                .says("has no default network")
                .says(what)
                .says(&scene.daemon.address())
                .says("\"network-host\": true")
                .says("--bridge=none");
            assert!(!ran.stdout.contains("node-started"), "{}", ran.report());
        }
        let ran = start(&scene, "closed").ok();
        assert_eq!(ran.outcomes()["built"], 1, "{kind:?} {}", ran.report());
    }
}

/// A run that began with a network, whose daemon comes back without a bridge before the effect.
fn restarted(place: &Place, entitlements: &Value) -> Ran {
    let mut scene = setting::Scene::of(Kind::Docker20, place);
    let mut gate = Gate::new("bridge");
    let running = scene.start(&chain(&gate, r#"effects.tell = effect "true";"#));
    gate.wait(1);
    // A builder begins before its run hears of it, which it does through the daemon.
    running.has_said("node-started", 1);
    scene.daemon.kill();
    let builder = json!({ "gc": { "enabled": false }, "entitlements": entitlements });
    let settings = json!({ "bridge": "none", "builder": builder });
    scene.daemon.restart_configured(&settings);
    gate.open();
    let ran = running.end();
    assert_eq!(lost(&ran), ["engine"], "{}", ran.report());
    ran
}

#[test]
fn a_daemon_that_comes_back_without_a_bridge_is_asked_for_a_network_once_more() {
    let place = Place::new();
    let ran = restarted(&place, &json!({ "network-host": false }))
        .code(7)
        .says("has no default network")
        .says("the effect `tell`")
        .says("\"network-host\": true")
        .says("--bridge=none");
    // Nothing has begun but the build that was there before.
    assert_eq!(ran.stdout.matches("node-started").count(), 1);
    assert_eq!(last_outcomes(&ran).len(), 4, "{}", ran.report());

    let place = Place::new();
    let ran = restarted(&place, &json!({ "network-host": true })).ok();
    assert_eq!(warnings(&ran.json_lines()), 1, "{}", ran.report());
    assert_eq!(ran.outcomes()["succeeded"], 1, "{}", ran.report());
}

#[test]
fn where_there_is_a_network_nothing_is_on_that_of_the_host_of_a_dockerd() {
    let place = Place::new();
    let scene = Scene::of(Kind::Docker20, &place);
    let ran = start(&scene, "whole").ok();
    let events = ran.json_lines();
    assert_eq!(warnings(&events), 0, "{}", ran.report());
    for name in ["fixed", "effect:tell"] {
        assert!(!is_on_the_host(&scene, &events, name), "{}", ran.report());
    }
}
