//! `pontoon doctor` on real daemons: what it says is true there, and what it advises works.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::support::{Daemon, Kind, Place, Running, run};

/// What it finds out about a daemon.
fn examine(place: &Place, daemon: &Daemon<'_>) -> Value {
    let mut command = place.pontoon(&["doctor", "--json", "--store"]);
    command.arg(place.at("strong"));
    let ran = run(daemon.serve(&mut command)).ok();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let engines = report["engines"].as_array().unwrap();
    let page = include_str!("../docs/doctor.md");
    let facts = engines.iter().map(|engine| &engine["facts"]);
    for fact in facts
        .chain([&report["evaluation"]])
        .flat_map(|facts| facts.as_array().unwrap())
    {
        let name = fact["name"].as_str().unwrap();
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
    let ours = engines
        .iter()
        .find(|engine| engine["place"] == daemon.address());
    ours.unwrap_or_else(|| panic!("{report:#}")).clone()
}

/// The facts of an engine: name and state, with the text for a message.
fn facts(engine: &Value) -> BTreeMap<String, (String, String)> {
    let text = |fact: &Value, key: &str| fact[key].as_str().unwrap().to_owned();
    let facts = engine["facts"].as_array().unwrap().iter();
    facts
        .map(|fact| {
            (
                text(fact, "name"),
                (text(fact, "state"), text(fact, "text")),
            )
        })
        .collect()
}

#[test]
fn each_daemon_is_what_it_is_said_to_be() {
    for kind in [
        Kind::BuildKit,
        Kind::BuildKitStrong,
        Kind::Docker20,
        Kind::Docker20Bare,
        Kind::Docker29,
        Kind::Docker29Strong,
    ] {
        let place = Place::new();
        let daemon = Daemon::of(kind, &place);
        let engine = examine(&place, &daemon);
        let facts = facts(&engine);
        let state = |name: &str| facts[name].0.as_str();
        assert_eq!(
            (state("plain"), state("version")),
            ("ok", "ok"),
            "{kind:?} {facts:#?}"
        );
        assert_eq!(
            state("strong") == "ok",
            kind.is_strong(),
            "{kind:?} {facts:#?}"
        );
        let network = match kind {
            // It is the host's.
            Kind::Docker20Bare | Kind::BuildKit | Kind::BuildKitStrong => "warning",
            _ => "ok",
        };
        assert_eq!(state("network"), network, "{kind:?} {facts:#?}");
        assert_eq!(
            engine["changes"].as_array().unwrap().is_empty(),
            kind.is_strong(),
            "{kind:?}"
        );
    }
}

#[test]
fn what_is_advised_makes_a_plain_daemon_strong() {
    let place = Place::new();
    let mut daemon = Daemon::of(Kind::BuildKit, &place);
    let engine = examine(&place, &daemon);
    let text = |path: &str| {
        let changes = engine["changes"].as_array().unwrap();
        let change = changes.iter().find(|change| change["path"] == path);
        change.unwrap_or_else(|| panic!("no {path}"))["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // They are written as they are, but for where this daemon looks for devices.
    daemon.stop();
    place.write("daemon/cdi/pontoon.json", text("/etc/cdi/pontoon.json"));
    fs_err::create_dir_all(place.at("strong/nix")).unwrap();
    let directory = place.at("daemon/cdi");
    let settings = text("/etc/buildkit/buildkitd.toml").replace(
        "disabled = false",
        &format!(
            "disabled = false\n  specDirs = [\"{}\"]",
            directory.display()
        ),
    );
    let configuration = place.at("daemon/buildkitd.toml");
    let before = fs_err::read_to_string(&configuration).unwrap();
    let after = before.replace("[cdi]\n  disabled = true\n", &settings);
    assert_ne!(before, after);
    fs_err::write(&configuration, after).unwrap();
    daemon.restart();

    let engine = examine(&place, &daemon);
    assert_eq!(facts(&engine)["strong"].0, "ok", "{engine:#}");
    assert_eq!(engine["changes"], serde_json::json!([]));
}

#[test]
fn a_daemon_without_any_network_is_told_how_to_give_one() {
    let place = Place::new();
    let entitlements = serde_json::json!({ "network-host": false });
    let settings = serde_json::json!({ "builder": { "entitlements": entitlements } });
    let daemon = Daemon::configured(Kind::Docker20Bare, &place, &settings);
    let engine = examine(&place, &daemon);
    let (state, text) = facts(&engine)["network"].clone();
    assert_eq!(state, "missing", "{text}");
    assert!(text.contains("network bridge not found"), "{text}");
    let mut command = place.pontoon(&["doctor", "--fix"]);
    let fix = run(daemon.serve(&mut command)).ok();
    assert!(
        fix.stdout.contains("\"network-host\": true"),
        "{}",
        fix.report()
    );
}

#[test]
fn a_collector_that_takes_the_store_is_told_of_and_one_as_advised_is_not() {
    let place = Place::new();
    let rules = "  [[worker.oci.gcpolicy]]\n    all = true\n    maxUsedSpace = \"1GB\"\n";
    let mut daemon = Daemon::configured(Kind::BuildKit, &place, &Value::from(rules));
    let engine = examine(&place, &daemon);
    let (state, text) = facts(&engine)["collection"].clone();
    assert!(state == "warning" && text.contains("rules 0"), "{text}");
    let changes = engine["changes"].as_array().unwrap();
    let spares = |change: &&Value| change["text"].as_str().unwrap().contains("gcpolicy");
    let advised = changes.iter().find(spares).expect("it is advised")["text"].clone();
    let advised = advised.as_str().unwrap().replace("[worker.oci]\n", "");

    daemon.stop();
    let configuration = place.at("daemon/buildkitd.toml");
    let before = fs_err::read_to_string(&configuration).unwrap();
    fs_err::write(&configuration, before.replace(rules, &advised)).unwrap();
    daemon.restart();
    let engine = examine(&place, &daemon);
    assert_eq!(facts(&engine)["collection"].0, "ok", "{engine:#}");
}

#[test]
fn a_daemon_that_says_nothing_hides_no_other_and_ctrl_c_ends_it() {
    let place = Place::new();
    let socket = place.at("mute");
    let _listener = UnixListener::bind(&socket).unwrap();
    let doctor = || -> Command {
        let mut command = place.pontoon(&["doctor", "--store"]);
        command.arg(place.at("store"));
        let address = format!("unix://{}", socket.display());
        command.env("BUILDKIT_HOST", address);
        command
    };
    let begun = Instant::now();
    let ran = run(&mut doctor()).ok();
    assert!(begun.elapsed() < Duration::from_mins(1));
    assert!(
        ran.stdout.contains("ok       strong      an op ran"),
        "{}",
        ran.report()
    );
    assert!(
        ran.stdout.contains("missing  connection  "),
        "{}",
        ran.report()
    );

    let running = Running::start(&mut doctor());
    std::thread::sleep(Duration::from_secs(2));
    let begun = Instant::now();
    running.signal(Signal::INT);
    running.end().code(130);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
