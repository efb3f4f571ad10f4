//! A real `BuildKit` daemon as the engine, in the plain shape: the same paths, hashes and references
//! as embedded, and nothing that outlives a run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{
    BuildUsers, Kind, Nix, Place, Ran, Running, Scene, Seed, assert_same, attempts, count, graph,
    processes_with, rows, run, until,
};

/// The run's id, which every process of its ops has in its environment.
pub(crate) fn run_id(ran: &Ran) -> String {
    let events = ran.json_lines();
    let begun = events.iter().find(|event| event["event"] == "run-started");
    let run = begun.expect("a run has begun")["run"].as_str();
    run.expect("it is text").to_owned()
}

/// The output of a node that was built, by the node's name.
pub(crate) fn output(events: &[Value], name: &str) -> String {
    let built = events
        .iter()
        .find(|event| event["event"] == "node-finished" && event["name"] == name);
    let outputs = &built.expect("it finished")["outcome"]["outputs"];
    let path = outputs[0]["path"].as_str();
    path.unwrap_or_else(|| panic!("`{name}` has no output in {events:#?}"))
        .to_owned()
}

#[test]
fn a_graph_is_built_as_embedded_builds_it_and_only_once() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let size = count(12, 80);
    let file = place.write("graph.nix", graph(&mut Seed::new("buildkit"), size, "bk"));
    let build = ["build", "-j", "2", "-f", file.to_str().unwrap()];
    let ran = run(&mut scene.pontoon(&build)).ok();
    assert_eq!(ran.outcomes(), BTreeMap::from([("built".to_owned(), size)]));
    let install = "/.pontoon/delivery/pontoon agent install";
    let delivered = |scene: &Scene<'_>| {
        let ops = scene.daemon.ops();
        ops.iter().filter(|op| op.starts_with(install)).count()
    };
    assert_eq!((scene.ops("build"), delivered(&scene)), (size, 1));

    let embedded = Nix::new(&place, "embedded", BuildUsers::Group);
    run(embedded.pontoon(&build).arg("--no-link")).ok();
    let theirs = rows(embedded.root());
    let paths: Vec<&str> = theirs.keys().map(String::as_str).collect();
    assert!(paths.len() >= 2 * size, "{paths:?}");
    assert_same(&scene.daemon.root(), embedded.root(), paths);
    scene.daemon.verify(&scene.nix);

    let before = scene.daemon.ops().len();
    let again = run(&mut scene.pontoon(&build)).ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    // The one op asks what is valid; no agent is delivered twice.
    assert_eq!(scene.daemon.ops().len(), before + 1);
    assert_eq!(scene.ops("store"), 2);
    assert!(!place.at("result").exists(), "a link that leads nowhere");
}

pub(crate) const PIPELINE: &str = r#"
  let
    make = name: text: extra: derivation ({
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ];
      PATH = "/bin";
    } // extra);
    dep = make "dep" "echo dep > $out" { };
    stranger = make "stranger" "echo stranger > $out" { };
    hidden = builtins.unsafeDiscardStringContext "${stranger}";
    view = make "view" ''
      seen=$(ls -A /nix/store)
      for path in ${hidden} ${hidden}.lock /nix/var /.pontoon/store/store /.pontoon/tunnel; do
        ! ls $path 2> /dev/null || seen="$seen $path"
        ! cat $path 2> /dev/null || seen="$seen $path"
      done
      echo $seen > $out
      cat ${dep}
    '' { needs = [ dep ]; };
    fixed = make "fixed" "echo -n hello > $out" {
      outputHashMode = "flat"; outputHashAlgo = "sha256";
      outputHash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    };
    effect = variable: {
      command = [ "/bin/sh" "-euc" "t=$(cat $TOKEN_FILE); cat ${fixed}; echo ' told' $t" ];
      secrets.TOKEN.env = variable;
    };
  in {
    builds = { inherit dep stranger fixed view; };
    effects.one = effect "ONE";
    effects.two = effect "TWO";
  }
"#;

#[test]
fn a_builder_sees_its_closure_alone_and_each_effect_its_own_secret() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let mut command = scene.pontoon(&["run", "-j", "2", "--expr", PIPELINE]);
    let ran = run(command.env("ONE", "first-word").env("TWO", "second-word")).ok();
    let events = ran.json_lines();
    let seen = scene.read(&output(&events, "view"));
    let seen: BTreeSet<&str> = seen.split_whitespace().collect();
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let closure = [base(&output(&events, "dep")), base(&scene.busybox)];
    let closure: BTreeSet<&str> = closure.iter().map(String::as_str).collect();
    assert_eq!(seen, closure);
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
    // Effects are never cached, builds are not repeated.
    let mut command = scene.pontoon(&["run", "--expr", PIPELINE]);
    let again = run(command.env("ONE", "a").env("TWO", "b")).ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    assert_eq!(again.outcomes()["succeeded"], 2);
    scene.daemon.verify(&scene.nix);
}

/// A build that takes long, and one that does not.
const SLOW: &str = r#"
  { script }: derivation {
    name = "slow"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
    args = [ "-euc" (script + "; echo done > $out") ];
  }
"#;

/// Starts the build, and returns it when its builder sleeps; `marker` is in its environment.
fn sleeping(place: &Place, scene: &Scene<'_>, marker: &str) -> Running {
    let file = place.write(
        "slow.nix",
        SLOW.replace("name =", &format!("MARKER = \"{marker}\"; name =")),
    );
    let mut command = scene.pontoon(&["build", "--argstr", "script", "sleep 600"]);
    let running = Running::start(command.arg("-f").arg(file));
    until("the builder sleeps", || {
        let found = processes_with(&format!("MARKER={marker}"));
        found.values().any(|line| line.starts_with("sleep 600"))
    });
    running
}

/// Waits until no process of an op is left, and returns how long that took.
pub(crate) fn all_gone(marker: &str, run: &str, since: Instant) -> Duration {
    loop {
        let mut left = processes_with(&format!("MARKER={marker}"));
        left.extend(processes_with(&format!("PONTOON_NONCE={run}")));
        if left.is_empty() {
            return since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(5), "left: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn completes(place: &Place, scene: &Scene<'_>) {
    let file = place.write("quick.nix", SLOW);
    let mut command = scene.pontoon(&["build", "--argstr", "script", "sleep 0"]);
    let ran = run(command.arg("-f").arg(file)).ok();
    assert_eq!(ran.outcomes()["built"], 1);
    scene.daemon.verify(&scene.nix);
}

#[test]
fn no_op_outlives_a_pontoon_that_was_killed() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    for signal in [Signal::KILL, Signal::TERM] {
        let marker = format!("killed-{}-{}", signal.as_raw(), std::process::id());
        let running = sleeping(&place, &scene, &marker);
        let since = Instant::now();
        running.signal(signal);
        let ran = running.end();
        let took = all_gone(&marker, &run_id(&ran), since);
        eprintln!("after {signal:?} every process of the op was gone in {took:?}");
        if signal == Signal::TERM {
            assert_eq!(ran.status.code(), Some(143), "{}", ran.report());
        }
    }
    completes(&place, &scene);
}

#[test]
fn an_effect_whose_daemon_died_is_unknown_and_never_started_again() {
    let place = Place::new();
    let mut scene = Scene::of(Kind::BuildKit, &place);
    let marker = format!("effect-{}", std::process::id());
    let pipeline = format!(
        r#"{{ builds = {{ }}; effects.deploy = {{
          command = [ "/bin/sh" "-c" "sleep 600" ]; environment = {{ MARKER = "{marker}"; PATH = "/bin"; }};
        }}; }}"#
    );
    let running = Running::start(&mut scene.pontoon(&["run", "--expr", &pipeline]));
    until("the effect sleeps", || {
        let found = processes_with(&format!("MARKER={marker}"));
        found.values().any(|line| line.starts_with("sleep 600"))
    });
    let since = Instant::now();
    scene.daemon.kill();
    until("the effect is gone", || {
        processes_with(&format!("MARKER={marker}")).is_empty()
    });
    eprintln!(
        "after the daemon's death every process of the op was gone in {:?}",
        since.elapsed()
    );
    scene.daemon.restart();
    let ran = running.end().code(21);
    assert_eq!(ran.outcomes()["unknown"], 1, "{}", ran.report());
    all_gone(&marker, &run_id(&ran), since);
    let records = attempts(&scene.daemon.nix_dir()).into_values();
    let texts = records.map(|record| record.to_string());
    let of_run: Vec<String> = texts.filter(|text| text.contains("deploy")).collect();
    assert_eq!(of_run.len(), 1, "{of_run:#?}");
    assert!(
        of_run[0].contains("killed with its lifeline"),
        "{of_run:#?}"
    );
    // The run has said so: the next one does not say it again, and runs it.
    let quick = pipeline.replace("sleep 600", "true");
    let ran = run(&mut scene.pontoon(&["run", "--expr", &quick])).ok();
    assert!(!ran.stdout.contains("is unknown"), "{}", ran.report());
}

#[test]
fn a_pruned_store_is_made_again_and_one_in_use_is_not_pruned() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let prune = || run(&mut scene.daemon.buildctl(&["prune", "--all"])).ok();
    completes(&place, &scene);
    prune();
    // Neither the output nor the agent is there any more.
    completes(&place, &scene);

    let marker = format!("pruned-{}", std::process::id());
    let running = sleeping(&place, &scene, &marker);
    prune();
    let sleeper = processes_with(&format!("MARKER={marker}"));
    for pid in sleeper.keys() {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::KILL).ok();
    }
    let ran = running.end();
    assert_ne!(ran.status.code(), Some(7), "{}", ran.report());
    // What the first run built is still valid.
    let file = place.write("quick.nix", SLOW);
    let mut command = scene.pontoon(&["build", "--argstr", "script", "sleep 0"]);
    let again = run(command.arg("-f").arg(file)).ok();
    assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
    scene.daemon.verify(&scene.nix);
}

#[test]
fn a_failed_build_is_a_failed_build() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let file = place.write("slow.nix", SLOW);
    let script = "echo last words; exit 3";
    let mut command = scene.pontoon(&["build", "--argstr", "script", script]);
    let ran = run(command.arg("-f").arg(file)).code(100);
    let events = ran.json_lines();
    let failed = events
        .iter()
        .find(|event| event["event"] == "node-finished")
        .expect("it finished");
    assert_eq!(failed["outcome"]["failure"]["code"], 3, "{failed}");
    assert_eq!(failed["outcome"]["tail"][0], "last words");
    scene.daemon.verify(&scene.nix);
}

#[test]
fn a_daemon_is_reached_over_tcp_by_two_runs_at_once() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let socket = scene.daemon.address().replacen("unix://", "", 1);
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", relay.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in relay.incoming().flatten() {
            let daemon = UnixStream::connect(&socket).unwrap();
            let (mut up, mut down) = (stream.try_clone().unwrap(), daemon.try_clone().unwrap());
            let (mut from, mut to) = (stream, daemon);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut down, &mut up));
        }
    });
    let runs = ["one", "two"].map(|name| {
        let mut seed = Seed::new(name);
        let file = place.write(&format!("{name}.nix"), graph(&mut seed, 6, name));
        let mut command = scene.pontoon(&["build", "-j", "2"]);
        command.arg("-f").arg(file).env("BUILDKIT_HOST", &address);
        Running::start(&mut command)
    });
    for running in runs {
        assert_eq!(running.end().ok().outcomes()["built"], 6);
    }
    scene.daemon.verify(&scene.nix);
}

#[test]
fn what_a_daemon_cannot_do_is_said_by_name() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let file = place.write("slow.nix", SLOW);
    let build = |address: &str, more: &[&str]| {
        let mut command = scene.nix.pontoon(&["build", "--argstr", "script", "true"]);
        command
            .arg("-f")
            .arg(&file)
            .args(more)
            .env("BUILDKIT_HOST", address);
        run(&mut command)
    };
    let none = format!("unix://{}", place.at("none").display());
    build(&none, &["--sandbox-paths", ""])
        .code(7)
        .says("No such file or directory");
    let daemon = scene.daemon.address();
    build(&daemon, &["--sandbox-paths", "/bin/sh=/bin/busybox"])
        .code(7)
        .says("the sandbox path `/bin/sh=/bin/busybox` is not in the store");
    build("ssh://host", &[]).code(2).says("ssh://host");

    let socket = place.at("stranger");
    let listener = UnixListener::bind(&socket).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
        // What is unread when it closes would be answered by an error, and not by its words.
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let address = format!("unix://{}", socket.display());
    build(&address, &["--sandbox-paths", ""])
        .code(7)
        .says("is not a buildkitd: it says `220 mail.example.org ESMTP`");
    stranger.join().unwrap();
}
