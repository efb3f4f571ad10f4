//! Signals and sudden deaths at random moments: nothing is left, nothing is half done, and what
//! the records say is true.

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use super::support::{
    BuildUsers, Held, Nix, Place, Ran, Running, Seed, attempts, count, run, sandbox_paths, until,
};

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGINT to the command alone.
    Interrupt,
    /// SIGINT to its whole process group, as a terminal sends it.
    CtrlC,
    /// SIGTERM to the command.
    Terminate,
    /// SIGKILL to the command.
    Kill,
    /// SIGKILL to its helper process.
    KillHelper,
    /// SIGKILL to one of its agents.
    KillAgent,
}

const BLOWS: [Blow; 6] = [
    Blow::Interrupt,
    Blow::CtrlC,
    Blow::Terminate,
    Blow::Kill,
    Blow::KillHelper,
    Blow::KillAgent,
];

/// A small pipeline whose names hold `salt`; its effect writes a line before it does anything else.
pub(crate) fn pipeline(salt: &str, script: &str) -> String {
    format!(
        r#"{{ outputs = {{ self }}: let
          node = name: needs: derivation {{
            name = "{salt}-${{name}}"; inherit needs; system = "x86_64-linux"; builder = "/bin/sh";
            args = [ "-c" "sleep 0.1; echo $name $needs > $out" ];
          }};
          a = node "a" [ ]; b = node "b" [ a ]; c = node "c" [ a ]; d = node "d" [ b c ];
        in {{ pipelines.x86_64-linux.default = {{
          builds = {{ inherit d; e = node "e" [ ]; }};
          effects.deploy.command = [ "/bin/sh" "-c" "echo {salt} >> /log/effects; {script}" ];
        }}; }}; }}"#
    )
}

/// A store, and the directory where effects write their lines.
pub(crate) struct Scene<'p> {
    place: &'p Place,
    pub(crate) nix: Nix<'p>,
}

impl<'p> Scene<'p> {
    pub(crate) fn new(place: &'p Place) -> Self {
        place.write("log/effects", "");
        fs_err::create_dir(place.at("tmp")).unwrap();
        run(place.command("chmod").args(["-R", "a+rwX", "log"])).ok();
        let log = format!("/log={}", place.at("log").display());
        let busybox = sandbox_paths()
            .remove(0)
            .replacen("/bin/sh=", "/bin/sleep=", 1);
        let nix = Nix::new(place, "store", BuildUsers::Group)
            .with_sandbox_path(&log)
            .with_sandbox_path(&busybox);
        Self { place, nix }
    }

    /// Starts the pipeline in a process group of its own, with events on stdout.
    pub(crate) fn start(&self, flake: &Path, more: &[&str]) -> Running {
        let reference = format!("path:{}", flake.display());
        let mut command = self.nix.pontoon(&["run", &reference, "--json"]);
        command.args(more).env("TMPDIR", self.place.at("tmp"));
        command.process_group(0);
        Running::start(&mut command)
    }

    pub(crate) fn flake(&self, salt: &str, script: &str) -> std::path::PathBuf {
        let file = self
            .place
            .write(&format!("{salt}/flake.nix"), pipeline(salt, script));
        file.parent().expect("it is in a directory").to_owned()
    }

    /// The records of all attempts, by id.
    pub(crate) fn records(&self) -> BTreeMap<String, Value> {
        let records = attempts(&self.place.at("store/nix"));
        let running = records.values().find(|record| record["is_locked"] == true);
        assert!(
            running.is_none(),
            "no run lives, yet an attempt counts as running: {running:?}"
        );
        records
    }

    /// How often the effect of `salt` really began.
    fn lines(&self, salt: &str) -> usize {
        let text = fs_err::read_to_string(self.place.at("log/effects")).unwrap();
        text.lines().filter(|line| *line == salt).count()
    }

    /// Nothing of a run that is over is left.
    pub(crate) fn assert_clean(&self) {
        self.place.assert_no_process_left(Duration::from_secs(5));
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        let needle = self.place.path().display().to_string();
        let left: Vec<_> = mounts
            .lines()
            .filter(|line| line.contains(&needle))
            .collect();
        assert!(left.is_empty(), "mounts are left: {left:#?}");
        self.nix.verify();
    }

    /// The directories of runs that lie in `TMPDIR`.
    fn directories(&self) -> usize {
        let entries = fs_err::read_dir(self.place.at("tmp")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("pontoon-"))
            .count()
    }
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let all = fs_err::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map(|(_, after)| after.to_owned());
        let field = after.and_then(|after| after.split_whitespace().nth(1)?.parse().ok());
        field == Some(parent)
    })
    .collect()
}

/// When a process began, in the kernel's own ticks: process ids begin again after some thousands.
fn begun(pid: u32) -> u64 {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, after)| after);
    let field = after.and_then(|after| after.split_whitespace().nth(19)?.parse().ok());
    field.unwrap_or(u64::MAX)
}

/// The helper of a running command.
fn helper(command: u32) -> Option<u32> {
    children(command).into_iter().find(|pid| {
        let line = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(b"pontoon\0helper\0")
    })
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself in the meantime.
    kill_process(pid.expect("a process id is a positive number"), signal).ok();
}

/// Strikes a running command; false if it ended before.
fn strike(running: &mut Running, blow: Blow, seed: &mut Seed, delay: Duration) -> bool {
    if !matches!(blow, Blow::KillHelper | Blow::KillAgent) {
        std::thread::sleep(delay);
    }
    match blow {
        Blow::Interrupt => running.signal(Signal::INT),
        Blow::Terminate => running.signal(Signal::TERM),
        Blow::Kill => running.signal(Signal::KILL),
        Blow::CtrlC => {
            let group = i32::try_from(running.pid()).ok().and_then(Pid::from_raw);
            kill_process_group(group.expect("it is positive"), Signal::INT).unwrap();
        }
        Blow::KillHelper | Blow::KillAgent => {
            let mut found = None;
            until("the helper is there", || {
                found = helper(running.pid());
                found.is_some() || running.has_ended()
            });
            let Some(helper) = found else { return false };
            std::thread::sleep(delay);
            if blow == Blow::KillHelper {
                send(helper, Signal::KILL);
            } else {
                let agents = children(helper);
                if agents.is_empty() {
                    return false;
                }
                send(*seed.one_of(&agents), Signal::KILL);
            }
        }
    }
    true
}

/// The exit codes that tell the truth about a run so struck. Zero is one of them everywhere: the
/// run may have been over.
fn codes(blow: Blow) -> &'static [i32] {
    match blow {
        Blow::Interrupt | Blow::CtrlC => &[0, 130],
        Blow::Terminate => &[0, 143],
        Blow::Kill => &[0],
        // Before there was a session; or an effect ran, and nobody knows how far it came.
        Blow::KillHelper => &[0, 7, 21],
        // It had not begun to keep house in the store, or ran the effect.
        Blow::KillAgent => &[0, 6, 7, 21],
    }
}

/// How soon a struck command ends; one that lost an agent or the helper goes on with the rest. A whole
/// run takes so long here.
fn prompt(blow: Blow, whole: Duration) -> Duration {
    match blow {
        Blow::KillAgent | Blow::KillHelper => Duration::from_secs(10) + 3 * whole,
        _ => Duration::from_secs(4) + whole,
    }
}

/// What the events said must be what the records say.
fn assert_truthful(ran: &Ran, records: &BTreeMap<String, Value>) {
    // The last line of a killed command may be cut.
    let events: Vec<Value> = ran
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of_kind = |kind: &str| {
        let kind = kind.to_owned();
        events
            .iter()
            .filter(move |event| event["event"] == kind.as_str())
    };
    let attempts = of_kind("node-started").map(|event| (event["node"].to_string(), event));
    // A node that was started again is judged by its last attempt.
    for started in attempts.collect::<BTreeMap<_, _>>().into_values() {
        let id = started["attempt"].as_str().unwrap();
        let record = records
            .get(id)
            .unwrap_or_else(|| panic!("`{id}` began without a record\n{}", ran.report()));
        let finished = of_kind("node-finished").rfind(|event| event["node"] == started["node"]);
        let said = finished.map(|event| event["outcome"]["outcome"].as_str().unwrap());
        let recorded = record["end"]["outcome"].as_str();
        let agree = match (said, recorded) {
            (Some("built"), end) => end == Some("built"),
            (Some("succeeded"), end) => end == Some("succeeded"),
            // The record may know more than what was told.
            _ => true,
        };
        assert!(
            agree,
            "an event says {said:?}, its record {record}\n{}",
            ran.report()
        );
    }
}

#[test]
fn whatever_is_killed_whenever_the_next_run_completes() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let mut seed = Seed::new("kills");
    let began = Instant::now();
    let whole = scene.flake("whole", "sleep 0.2");
    scene.start(&whole, &[]).end().ok();
    let took_whole = began.elapsed();
    let span = usize::try_from(took_whole.as_millis()).unwrap();
    for moment in 0..count(20, 200) {
        let blow = BLOWS[moment % BLOWS.len()];
        let shape = if seed.chance(25) { "plain" } else { "strong" };
        let delay = Duration::from_millis(u64::try_from(seed.below(span)).unwrap());
        let salt = format!("m{moment}");
        let what = format!("{salt}: {blow:?} after {delay:?}, {shape}");
        let flake = scene.flake(&salt, "sleep 0.2");
        let before = scene.records();
        let mut running = scene.start(&flake, &["--shape", shape]);
        let struck = strike(&mut running, blow, &mut seed, delay);
        let then = Instant::now();
        until("the command has ended", || running.has_ended());
        let took = then.elapsed();
        let ran = running.end();
        println!("{what}: {:?} {:?} after {took:?}", struck, ran.status);
        assert!(
            !struck || took < prompt(blow, took_whole),
            "{what}: {took:?}\n{}",
            ran.report()
        );
        // Before there are handlers the kernel ends it; for a shell that is the same.
        let code = ran
            .status
            .code()
            .or(ran.status.signal().map(|signal| 128 + signal));
        assert!(
            blow == Blow::Kill || code.is_some_and(|code| codes(blow).contains(&code)),
            "{what}\n{}",
            ran.report()
        );
        scene.assert_clean();
        let records = scene.records();
        assert_truthful(&ran, &records);
        let effects = || {
            let new = records.iter().filter(|(id, _)| !before.contains_key(*id));
            new.filter(|(_, record)| record["kind"] == "effect")
        };
        let known = effects().filter(|(_, record)| record["end"]["outcome"] == "succeeded");
        let lines = scene.lines(&salt);
        assert!(
            (known.count()..=effects().count()).contains(&lines),
            "{what}: the effect began {lines} times, its records are {:#?}",
            effects().collect::<Vec<_>>()
        );
        scene.start(&flake, &["--shape", shape]).end().ok();
        assert_eq!(
            scene.lines(&salt),
            lines + 1,
            "{what}: the effect runs again"
        );
    }
    scene.assert_clean();
    assert_eq!(scene.directories(), 0, "directories of dead runs pile up");
}

#[test]
fn an_effect_whose_agent_is_killed_is_unknown() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let held = Held::new(&place);
    scene.nix = scene.nix.with_sandbox_path(&held.sandbox_path());
    for shape in ["strong", "plain"] {
        let flake = scene.flake(shape, Held::SCRIPT);
        let before = scene.records();
        let running = scene.start(&flake, &["--shape", shape]);
        held.wait();
        let helper = helper(running.pid()).expect("it runs an effect");
        let agents = children(helper);
        // The agent of builds has children too, which wait for the next build.
        let is_effect = |process: &u32| {
            let line = fs_err::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("/held/runs")
        };
        let agent = agents
            .iter()
            .find(|agent| children(**agent).iter().any(is_effect));
        send(
            *agent.expect("the effect is its agent's child"),
            Signal::KILL,
        );
        let ran = running.end().code(21);
        assert!(ran.took < Duration::from_secs(30), "{}", ran.report());
        assert_eq!(ran.outcomes()["unknown"], 1, "{}", ran.report());
        let records = scene.records();
        let new = records.iter().filter(|(id, _)| !before.contains_key(*id));
        let effects: Vec<_> = new
            .filter(|(_, record)| record["kind"] == "effect")
            .collect();
        assert_eq!(effects.len(), 1, "{effects:#?}");
        assert!(effects[0].1["end"].is_null(), "{effects:#?}");
        assert_eq!(scene.lines(shape), 1);
        scene.assert_clean();
    }
}

#[test]
fn an_effect_whose_engine_is_killed_is_unknown() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let held = Held::new(&place);
    scene.nix = scene.nix.with_sandbox_path(&held.sandbox_path());
    let flake = scene.flake("engine", Held::SCRIPT);
    let running = scene.start(&flake, &[]);
    held.wait();
    send(
        helper(running.pid()).expect("it runs an effect"),
        Signal::KILL,
    );
    let ran = running.end().code(21);
    assert_eq!(ran.outcomes()["unknown"], 1, "{}", ran.report());
    assert!(
        ran.stdout.contains(r#""event":"lost","what":"engine""#),
        "{}",
        ran.report()
    );
    scene.assert_clean();
}

#[test]
fn an_effect_goes_on_to_its_end_when_the_agent_of_the_store_is_killed() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let held = Held::new(&place);
    scene.nix = scene.nix.with_sandbox_path(&held.sandbox_path());
    let flake = scene.flake("lost", Held::SCRIPT);
    let running = scene.start(&flake, &[]);
    held.wait();
    let helper = helper(running.pid()).expect("it runs an effect");
    // The first op of a run keeps house.
    let store = children(helper).into_iter().min_by_key(|pid| begun(*pid));
    send(store.expect("it keeps house"), Signal::KILL);
    std::thread::sleep(Duration::from_millis(500));
    held.release();
    let ran = running.end().ok();
    assert!(
        ran.stdout.contains(r#""event":"lost","what":"store""#),
        "{}",
        ran.report()
    );
    assert_eq!(ran.outcomes()["succeeded"], 1, "{}", ran.report());
    assert_eq!(scene.lines("lost"), 1);
    let records = scene.records();
    let effect = records.values().find(|record| record["kind"] == "effect");
    assert_eq!(effect.unwrap()["end"]["outcome"], "succeeded");
    scene.assert_clean();
}

#[test]
fn ctrl_c_ends_an_effect_in_good_order() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let held = Held::new(&place);
    scene.nix = scene.nix.with_sandbox_path(&held.sandbox_path());
    let flake = scene.flake("order", Held::SCRIPT);
    let mut seed = Seed::new("ctrl-c");
    let mut running = scene.start(&flake, &[]);
    held.wait();
    strike(&mut running, Blow::CtrlC, &mut seed, Duration::ZERO);
    let ran = running.end().code(130);
    assert_eq!(ran.outcomes().get("unknown"), None, "{}", ran.report());
    assert_eq!(ran.outcomes()["cancelled"], 1, "{}", ran.report());
    let records = scene.records();
    let effect = records
        .values()
        .find(|record| record["kind"] == "effect")
        .unwrap();
    assert_eq!(effect["end"]["outcome"], "cancelled");
    scene.assert_clean();
    assert_eq!(scene.directories(), 0);
}
