//! Daemons in hardship: a full disk, memory that ends, clocks that are a day off. What went wrong is
//! said, the exit code is a documented one, and afterwards the store is sound and builds go on.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::support::{
    DAY, Daemon, Kind, Place, Ran, Running, Scene, later, make_foreign, processes_with, run, until,
};

/// A derivation of a shell script, as an expression.
fn script(name: &str, text: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         PATH = \"/bin\"; args = [ \"-euc\" ''{text}'' ]; }}"
    )
}

fn build(scene: &Scene<'_>, name: &str, text: &str) -> Ran {
    run(&mut scene.pontoon(&["build", "--expr", &script(name, text)]))
}

fn builds(scene: &Scene<'_>, name: &str) {
    let ran = build(scene, name, "echo > $out").ok();
    assert_eq!(ran.outcomes()["built"], 1, "{}", ran.report());
    scene.daemon.verify(&scene.nix);
}

fn on_a_full_disk(kind: Kind) {
    let place = Place::new();
    // Room for the agent and not much more.
    let scene = Scene::with(&place, Daemon::on_a_small_disk(kind, &place, 600));
    builds(&scene, "before");
    // Nix calls a failure on a full disk transient: the builder may not be to blame.
    let greedy = build(&scene, "greedy", "dd if=/dev/zero of=$out bs=1M count=1000").code(1);
    let said = greedy.stdout.contains("No space left on device");
    assert!(said, "{}", greedy.report());
    builds(&scene, "after");

    // Now the disk is full for all: for the daemon, the agent and the database.
    let ballast = scene.daemon.seen(&place.at("daemon/root/ballast"));
    let ballasting = run(place
        .command("dd")
        .args(["if=/dev/zero", "bs=4k"])
        .arg(format!("of={}", ballast.display())));
    assert!(
        ballasting.stderr.contains("No space left"),
        "{}",
        ballasting.report()
    );
    let full = build(&scene, "full", "echo > $out");
    let code = full.status.code();
    assert!(matches!(code, Some(1 | 6 | 7)), "{}", full.report());
    let words = ["no space left on device", "disk is full"];
    let text = full.stderr.to_lowercase();
    assert!(
        words.iter().any(|word| text.contains(word)),
        "{}",
        full.report()
    );
    fs_err::remove_file(ballast).unwrap();
    builds(&scene, "full");
}

#[test]
fn a_full_disk_of_buildkitd_is_told_of() {
    on_a_full_disk(Kind::BuildKit);
}

#[test]
fn a_full_disk_of_dockerd_is_told_of() {
    on_a_full_disk(Kind::Docker20);
}

/// Limits the memory of the container that a process lives in.
fn limit_memory(pid: u32, bytes: u64) {
    let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = |names: &str| {
        let of = |line: &str| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (controllers == names).then(|| path.trim_start_matches('/').to_owned())
        };
        groups.lines().find_map(of)
    };
    let file = if let Some(path) = group("memory") {
        let group = Path::new("/sys/fs/cgroup/memory").join(path);
        group.join("memory.limit_in_bytes")
    } else {
        let path = group("").expect("it is in a group");
        Path::new("/sys/fs/cgroup").join(path).join("memory.max")
    };
    fs_err::write(file, bytes.to_string()).unwrap();
}

#[test]
fn a_builder_that_runs_out_of_memory_fails() {
    for kind in [Kind::BuildKit, Kind::Docker20] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        builds(&scene, "before");
        let mark = format!("hungry-{}-{kind:?}", std::process::id());
        let text = format!(
            "export MARK={mark}; sleep 3 & wait; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"
        );
        let expression = script("hungry", &text);
        let running = Running::start(&mut scene.pontoon(&["build", "--expr", &expression]));
        let mut sleeper = None;
        until("the builder sleeps", || {
            let found = processes_with(&format!("MARK={mark}"));
            let asleep = found.iter().find(|(_, line)| line.starts_with("sleep 3"));
            sleeper = asleep.map(|(pid, _)| *pid);
            sleeper.is_some()
        });
        limit_memory(sleeper.expect("it was found"), 256 << 20);
        let ran = running.end().code(100);
        let events = ran.json_lines();
        let finished = events
            .iter()
            .find(|event| event["event"] == "node-finished");
        let outcome = &finished.expect("it finished")["outcome"];
        assert_eq!(outcome["outcome"], "failed", "{outcome}");
        builds(&scene, "after");
    }
}

#[test]
fn clocks_may_be_a_day_off() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    builds(&scene, "first");
    // First the clocks of daemon and conductor differ; the agents have the daemon's.
    for (name, seconds) in [("ahead", DAY), ("behind", -DAY)] {
        let expression = script(name, "echo > $out");
        let command = scene.pontoon(&["build", "--expr", &expression]);
        let ran = run(&mut later(&place, seconds, &command)).ok();
        assert_eq!(ran.outcomes()["built"], 1, "{}", ran.report());
        scene.daemon.verify(&scene.nix);
    }
    // The clock of the machine cannot be set, so the store is what a daemon with another one left.
    for (name, later) in [("future", true), ("past", false)] {
        let nix = scene.daemon.nix_dir();
        let now = SystemTime::now();
        let day = Duration::from_secs(DAY.unsigned_abs());
        let then = if later { now + day } else { now - day };
        let seconds = then
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        for below in ["pontoon", "var"] {
            let mut touch = place.command("find");
            touch
                .arg(nix.join(below))
                .args(["-exec", "touch", "--no-dereference", "--date"]);
            run(touch.arg(format!("@{seconds}")).args(["{}", "+"])).ok();
        }
        let database = Connection::open(nix.join("var/nix/db/db.sqlite")).unwrap();
        let changed = database
            .execute(
                "update ValidPaths set registrationTime = ?1",
                [seconds.cast_signed()],
            )
            .unwrap();
        assert!(changed > 0);
        drop(database);
        let again = build(&scene, "first", "echo > $out").ok();
        assert_eq!(again.outcomes().get("built"), None, "{}", again.report());
        builds(&scene, name);
    }
}

/// The agent lies in the store under a name made from its content; what is there need not be that.
#[test]
fn an_agent_that_cannot_be_executed_is_told_of() {
    for kind in [Kind::BuildKit, Kind::Docker20, Kind::BuildKitStrong] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        builds(&scene, "before");
        let agents = scene.daemon.nix_dir().join("pontoon/agent");
        let agents = fs_err::read_dir(agents).unwrap();
        let agent = agents.map(|entry| entry.unwrap().path()).next().unwrap();
        let whole = fs_err::read(&agent).unwrap();
        make_foreign(&agent);
        let ran = build(&scene, "foreign", "echo > $out").code(7);
        let text = ran.stderr.to_lowercase();
        assert!(text.contains("exec format error"), "{}", ran.report());
        // Once it is gone, a good one is delivered.
        fs_err::remove_file(&agent).unwrap();
        builds(&scene, "after");
        assert_eq!(fs_err::read(&agent).unwrap(), whole, "{kind:?}");
    }
}
