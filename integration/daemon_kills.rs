//! Sudden deaths of `pontoon`, of a daemon and of agents at random moments of a graph of 50
//! derivations with an effect at its end: the run, or the next one, completes, and of the effect
//! the truth is told.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::losses::setting::{Scene, events, kill};
use super::support::{
    Kind, Place, Ran, Running, Seed, attempts, count, graph, processes_with, until,
};

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Pontoon,
    Daemon,
    Agent,
}

/// Sees every process that an effect is, without the effect's help: each is one attempt.
struct Witness {
    shared: Arc<Sight>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Sight {
    seen: Mutex<BTreeSet<u32>>,
    overlapped: AtomicBool,
    /// How often it has looked.
    looks: AtomicUsize,
    over: AtomicBool,
}

impl Witness {
    fn of(marker: &str) -> Self {
        let shared = Arc::<Sight>::default();
        let sight = Arc::clone(&shared);
        let marker = format!("MARKER={marker}");
        let thread = std::thread::spawn(move || {
            while !sight.over.load(Ordering::Relaxed) {
                let now: BTreeSet<u32> = processes_with(&marker).into_keys().collect();
                if now.len() > 1 {
                    sight.overlapped.store(true, Ordering::Relaxed);
                }
                sight.seen.lock().unwrap().extend(now);
                sight.looks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// How many attempts there were; none may have overlapped another.
    fn attempts(&self) -> usize {
        // What it is looking at just now counts too.
        let looks = self.shared.looks.load(Ordering::Relaxed);
        until("it has looked once more", || {
            self.shared.looks.load(Ordering::Relaxed) > looks
        });
        assert!(
            !self.shared.overlapped.load(Ordering::Relaxed),
            "two at once"
        );
        self.shared.seen.lock().unwrap().len()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The graph, and an effect that is one process for as long as it lasts.
fn pipeline(seed: &mut Seed, size: usize, salt: &str) -> String {
    format!(
        r#"{{
          builds = {};
          effects.deploy = {{
            command = [ "/bin/sh" "-c" "exec sleep 0.5" ];
            environment = {{ MARKER = "{salt}"; PATH = "/bin"; }};
          }};
        }}"#,
        graph(seed, size, salt)
    )
}

/// The processes of ops in a place, but for those of the daemon itself.
fn agents(place: &Place) -> Vec<u32> {
    let all = place.processes().into_iter();
    let agents = all.filter(|(_, line)| line.starts_with("/.pontoon/agent "));
    agents.map(|(pid, _)| pid).collect()
}

fn all_gone(place: &Place) {
    let since = Instant::now();
    while !agents(place).is_empty() {
        let left = place.processes();
        assert!(since.elapsed() < Duration::from_secs(5), "left: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Strikes a run; false if there was nothing to strike.
fn strike(scene: &mut Scene<'_>, running: &mut Running, blow: Blow, seed: &mut Seed) -> bool {
    if running.has_ended() {
        return false;
    }
    match blow {
        Blow::Pontoon => {
            running.signal(Signal::KILL);
            until("it is dead", || running.has_ended());
            all_gone(scene.place);
        }
        Blow::Daemon => {
            scene.daemon.kill();
            all_gone(scene.place);
            scene.daemon.restart();
        }
        Blow::Agent => {
            let mut found = vec![];
            until("there is one", || {
                found = agents(scene.place);
                !found.is_empty() || running.has_ended()
            });
            if found.is_empty() {
                return false;
            }
            kill(*seed.one_of(&found));
        }
    }
    true
}

/// Every line of a command that may have been killed while it wrote one.
fn lines(ran: &Ran) -> Vec<Value> {
    let lines = ran.stdout.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn run_id(ran: &Ran) -> Option<String> {
    let lines = lines(ran);
    Some(lines.first()?["run"].as_str()?.to_owned())
}

/// What is on record of the effects of a run: the end of each that was started.
fn records(scene: &Scene<'_>, run: &str) -> Vec<Value> {
    let all = attempts(&scene.daemon.nix_dir()).into_values();
    let of_run = all.filter(|one| one["run"] == run && one["kind"] == "effect");
    let ends = of_run.map(|mut one| one["end"].take());
    ends.filter(|end| end["verdict"] != "not-started").collect()
}

/// What was said must be what was recorded and seen.
fn assert_truthful(scene: &Scene<'_>, struck: &Ran, next: &Ran, seen: usize) {
    let Some(run) = run_id(struck) else {
        assert_eq!(seen, 0);
        return;
    };
    let records = records(scene, &run);
    assert!(
        (seen..=seen + 1).contains(&records.len()) && records.len() <= 1,
        "the effect was seen {seen} times: {records:#?}\n{}",
        struck.report()
    );
    let said = lines(struck);
    let finished = events(&said, "node-finished").find(|event| event["kind"] == "effect");
    let told = finished.map(|event| event["outcome"]["outcome"].as_str().unwrap());
    for end in records {
        let is_open = end.is_null() || end["verdict"] == "killed";
        let next_tells = next.stdout.contains(&format!("of run `{run}` is unknown"));
        assert_eq!(
            is_open,
            told == Some("unknown") || next_tells,
            "{end}\n{}\n{}",
            struck.report(),
            next.report()
        );
        assert!(told != Some("unknown") || !next_tells, "told twice");
        assert!(
            told != Some("succeeded") || end["verdict"] == "good",
            "{end}"
        );
    }
    if struck.status.code() == Some(0) {
        assert_eq!(told, Some("succeeded"), "{}", struck.report());
    }
}

/// Whether a run that was struck ended as it may. One that had not found its daemon yet, or whose
/// first agent had not spoken, has nothing to go on with.
fn is_truthful_end(struck: &Ran) -> bool {
    let had_begun = events(&lines(struck), "planned").next().is_some();
    match struck.status.code() {
        Some(0 | 21) => true,
        Some(7) => !had_begun,
        _ => false,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the test runner shows it when the test fails"
)]
fn survives(kind: Kind, each: usize) {
    let place = Place::new();
    let mut scene = Scene::of(kind, &place);
    let mut seed = Seed::new(&format!("daemon-kills-{kind:?}"));
    let start = |scene: &Scene<'_>, text: &str| {
        let mut command: Command = scene.pontoon(&["run", "-j", "2", "--expr", text]);
        Running::start(&mut command)
    };
    let whole = pipeline(&mut seed, 50, "whole");
    let ran = start(&scene, &whole).end().ok();
    let span = usize::try_from(ran.took.as_millis()).unwrap();
    for moment in 0..3 * each {
        let blow = [Blow::Pontoon, Blow::Daemon, Blow::Agent][moment % 3];
        let delay = Duration::from_millis(u64::try_from(seed.below(span)).unwrap());
        let salt = format!("{kind:?}-{moment}-{}", std::process::id());
        let text = pipeline(&mut seed, 50, &salt);
        let witness = Witness::of(&salt);
        let mut running = start(&scene, &text);
        std::thread::sleep(delay);
        let hit = strike(&mut scene, &mut running, blow, &mut seed);
        let struck = running.end();
        all_gone(&place);
        let attempts = witness.attempts();
        eprintln!(
            "{blow:?} after {delay:?}: {hit}, {:?} after {:?}",
            struck.status, struck.took
        );
        assert!(
            blow == Blow::Pontoon || is_truthful_end(&struck),
            "{}",
            struck.report()
        );
        let next = start(&scene, &text).end().ok();
        assert_eq!(witness.attempts(), attempts + 1, "{}", next.report());
        assert_truthful(&scene, &struck, &next, attempts);
    }
    scene.daemon.verify(&scene.nix);
}

#[test]
fn whatever_dies_around_a_buildkitd_the_graph_is_finished() {
    survives(Kind::BuildKit, count(3, 20));
}

#[test]
fn whatever_dies_around_a_dockerd_29_the_graph_is_finished() {
    survives(Kind::Docker29, count(3, 20));
}

#[test]
fn whatever_dies_around_a_dockerd_20_the_graph_is_finished() {
    survives(Kind::Docker20, count(3, 20));
}
