//! Builds that an agent goes on with by itself: each is done once, and none whose input is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pontoon::tunnel::encode;
use rusqlite::Connection;
use serde_json::Value;

use super::support::{self, BuildUsers, Meddler, Nix, Place, Ran, Running, until};

const SIZE: usize = 12;

/// Each needs the one before; the one of this number ends so.
fn chain(number: usize, ends: &str) -> String {
    format!(
        r#"let
  step = before: n: derivation {{
    name = "step-${{toString n}}"; inherit before; system = "x86_64-linux"; builder = "/bin/sh";
    PATH = "/bin";
    args = [ "-euc" (if n == {number} then "{ends}" else "echo $before > $out") ];
  }};
in builtins.foldl' step "" (builtins.genList (n: n) {SIZE})
"#
    )
}

/// What came of a run, and how often an agent was told what comes next.
struct Seen {
    ran: Ran,
    told: usize,
}

impl Seen {
    fn of(running: Running, told: &AtomicUsize) -> Self {
        let ran = running.end();
        let told = told.load(Ordering::Relaxed);
        assert!(told > 0, "{}", ran.report());
        Self { ran, told }
    }

    /// Each node has one end, comes after its input, and began as often as that many may.
    fn is_in_order(&self) {
        let events = self.ran.json_lines();
        let all = |kind: &str| -> Vec<(Value, usize)> {
            let of_kind = events.iter().enumerate();
            let of_kind = of_kind.filter(|(_, event)| event["event"] == kind);
            of_kind
                .map(|(at, event)| (event["node"].clone(), at))
                .collect()
        };
        let ends = all("node-finished");
        let names: BTreeMap<String, usize> = ends
            .iter()
            .map(|(node, at)| (node.to_string(), *at))
            .collect();
        assert_eq!(names.len(), ends.len(), "{}", self.ran.report());
        assert_eq!(names.len(), SIZE, "{}", self.ran.report());
        let number = |node: &str| -> usize {
            let rest = node.split("-step-").nth(1).unwrap();
            rest.split('.').next().unwrap().parse().unwrap()
        };
        let by_number: BTreeMap<usize, usize> =
            names.iter().map(|(name, at)| (number(name), *at)).collect();
        for (node, at) in all("node-started") {
            let Some(before) = number(&node.to_string()).checked_sub(1) else {
                continue;
            };
            assert!(by_number[&before] < at, "{}", self.ran.report());
        }
    }

    fn count(&self, outcome: &str) -> usize {
        self.ran.outcomes().get(outcome).copied().unwrap_or(0)
    }
}

/// Starts a run of a chain with something in its tunnel that counts, and may do harm.
fn start(
    place: &Place,
    nix: &Nix<'_>,
    text: String,
    harm: impl Fn(&str, usize) -> bool + Send + Sync + 'static,
) -> (Running, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let (count, built) = (told.clone(), AtomicUsize::new(0));
    let directory = place.at(format!("tunnel-{}", attempts(nix)));
    fs_err::create_dir_all(&directory).unwrap();
    let meddler = Meddler::start(&directory, move |passing| {
        let name = passing.name();
        if name == "conductor then" {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let built = match name.as_str() {
            "agent built" => built.fetch_add(1, Ordering::Relaxed) + 1,
            _ => built.load(Ordering::Relaxed),
        };
        harm(&name, built).then(|| encode(passing.frame))
    });
    let file = place.write("chain.nix", text);
    let mut command = nix.pontoon(&["build", "--json", "--no-link", "-k", "-j", "2"]);
    command.args(["--shape", "strong"]).arg("-f").arg(file);
    command.env("PONTOON_TUNNEL_PROXY", meddler.variable());
    (Running::start(&mut command), told)
}

/// How many attempts are on record.
fn attempts(nix: &Nix<'_>) -> usize {
    support::attempts(&nix.root().join("nix")).len()
}

#[test]
fn a_chain_is_built_by_one_agent_that_knows_what_is_next() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let (running, told) = start(&place, &nix, chain(SIZE, ""), |_, _| false);
    let seen = Seen::of(running, &told);
    assert_eq!(seen.told, SIZE - 1, "{}", seen.ran.report());
    seen.is_in_order();
    assert_eq!((seen.count("built"), attempts(&nix)), (SIZE, SIZE));
    nix.verify();
}

#[test]
fn nothing_follows_a_build_that_failed() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let (running, told) = start(&place, &nix, chain(5, "sleep 0.3; exit 3"), |_, _| false);
    let seen = Seen::of(running, &told);
    seen.is_in_order();
    assert_eq!(seen.ran.status.code(), Some(100), "{}", seen.ran.report());
    let counts = ["built", "failed", "dependency-failed"].map(|outcome| seen.count(outcome));
    assert_eq!(counts, [5, 1, SIZE - 6], "{}", seen.ran.report());
    // The next one was known, and it was not tried.
    assert_eq!(attempts(&nix), 6);
    nix.verify();
}

#[test]
fn nothing_follows_a_build_when_the_run_is_stopped() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let (running, told) = start(&place, &nix, chain(5, "sleep 60"), |_, _| false);
    until("the builder sleeps", || {
        let processes = place.processes();
        processes.values().any(|line| line.contains("sleep 60"))
    });
    running.signal(rustix::process::Signal::TERM);
    let seen = Seen::of(running, &told);
    seen.is_in_order();
    assert_eq!(seen.ran.status.code(), Some(143), "{}", seen.ran.report());
    let counts = ["built", "cancelled"].map(|outcome| seen.count(outcome));
    assert_eq!(counts, [5, SIZE - 5], "{}", seen.ran.report());
    assert_eq!(attempts(&nix), 6);
    place.assert_no_process_left(Duration::from_secs(10));
    nix.verify();
}

#[test]
fn an_agent_that_is_lost_between_two_builds_loses_neither() {
    // Heard last of it: that a build is done, that it asks for the next, that it has begun that.
    for (last, at) in [("agent built", 3), ("agent idle", 4), ("agent started", 5)] {
        let place = Place::new();
        let nix = Nix::new(&place, "store", BuildUsers::Group);
        let slow = chain(9, "sleep 3; echo $before > $out");
        let cut = move |name: &str, built| name == last && built == at;
        let (running, told) = start(&place, &nix, slow, cut);
        let seen = Seen::of(running, &told);
        seen.is_in_order();
        assert_eq!(seen.ran.status.code(), Some(0), "{}", seen.ran.report());
        let good = seen.count("built") + seen.count("already-valid");
        assert_eq!(good, SIZE, "{last}: {}", seen.ran.report());
        assert!(seen.count("built") >= SIZE - 1, "{}", seen.ran.report());
        place.assert_no_process_left(Duration::from_secs(10));
        nix.verify();
    }
}

fn database(nix: &Nix<'_>) -> Connection {
    Connection::open(nix.root().join("nix/var/nix/db/db.sqlite")).unwrap()
}

#[test]
fn a_build_that_is_registered_late_holds_up_what_follows() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    // Quick enough to be registered while the next sandbox comes about.
    let slow = chain(5, "sleep 0.8; echo $before > $out");
    let (running, told) = start(&place, &nix, slow, |_, _| false);
    until("the builder sleeps", || {
        let processes = place.processes();
        processes.values().any(|line| line.contains("sleep 0.8"))
    });
    let database = database(&nix);
    database.execute_batch("begin immediate").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    database.execute_batch("rollback").unwrap();
    let seen = Seen::of(running, &told);
    seen.is_in_order();
    assert_eq!(seen.told, SIZE - 1, "{}", seen.ran.report());
    assert_eq!((seen.count("built"), attempts(&nix)), (SIZE, SIZE));
    nix.verify();
}

#[test]
fn what_follows_a_build_that_cannot_be_registered_never_was() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let (running, told) = start(&place, &nix, chain(0, "echo 0 > $out"), |_, _| false);
    Seen::of(running, &told);
    let database = database(&nix);
    let refuse = "create trigger refuse before insert on ValidPaths when new.path like '%-step-5'
        begin select raise(abort, 'not this one'); end";
    database.execute_batch(refuse).unwrap();
    let before = attempts(&nix);
    let (running, told) = start(&place, &nix, chain(SIZE, ""), |_, _| false);
    let seen = Seen::of(running, &told);
    assert_eq!(seen.ran.status.code(), Some(1), "{}", seen.ran.report());
    assert!(
        seen.ran.stdout.contains("not this one"),
        "{}",
        seen.ran.report()
    );
    seen.is_in_order();
    let counts = ["built", "failed", "dependency-failed"].map(|outcome| seen.count(outcome));
    assert_eq!(counts, [5, 1, SIZE - 6], "{}", seen.ran.report());
    // The next one was at most prepared, and nobody heard of it.
    assert!(
        (6..=7).contains(&(attempts(&nix) - before)),
        "{}",
        attempts(&nix)
    );
    let events = seen.ran.json_lines();
    let started = events
        .iter()
        .filter(|event| event["event"] == "node-started");
    assert_eq!(started.count(), 6, "{}", seen.ran.report());
    place.assert_no_process_left(Duration::from_secs(10));

    database.execute_batch("drop trigger refuse").unwrap();
    let (running, told) = start(&place, &nix, chain(SIZE, ""), |_, _| false);
    let again = Seen::of(running, &told);
    assert_eq!(again.count("built"), SIZE - 5, "{}", again.ran.report());
    nix.verify();
}
