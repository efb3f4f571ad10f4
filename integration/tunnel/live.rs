//! Real agents, a real conductor, and frames that change on their way between them: the run ends
//! as documented, real Nix finds nothing wrong with the store, and no process is left.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use pontoon::tunnel::{Frame, encode};

use super::corpus::streams;
use super::fuzz::change;
use crate::support::{
    BuildUsers, Kind, Meddler, Nix, Passing, Place, Running, Scene, Seed, count, run,
};

/// A build behind a build, and an effect behind both.
const FILE: &str = r#"
{ ... }: let
  make = name: text: derivation {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ]; PATH = "/bin";
  };
  first = make "first" "echo first; echo > $out";
  second = make "second" "cat ${first} > $out";
in {
  builds = { inherit first second; };
  effects.deploy = {
    command = [ "/bin/sh" "-euc" "echo deployed; cat ${second}" ];
    environment.PATH = "/bin";
  };
}
"#;

/// Which frames are changed, and how: few, at random.
struct Chance {
    seed: Seed,
    /// How many frames of 100 are changed.
    percent: usize,
    streams: Vec<Vec<u8>>,
}

impl Chance {
    fn new(seed: &mut Seed) -> Self {
        Self {
            percent: *seed.one_of(&[1, 3, 10, 30]),
            seed: Seed::of(seed.next()),
            streams: streams().into_values().collect(),
        }
    }

    fn instead(&mut self, passing: &Passing<'_>) -> Option<Vec<u8>> {
        if !self.seed.chance(self.percent) {
            return None;
        }
        let mut bytes = encode(passing.frame);
        let other = self.seed.one_of(&self.streams).clone();
        match self.seed.below(5) {
            // It is left out.
            0 => bytes.clear(),
            // It comes twice.
            1 => bytes.extend(bytes.clone()),
            2 => bytes.extend(other),
            3 => bytes = encode(&Frame::Data(bytes)),
            _ => change(&mut self.seed, &mut bytes, &other),
        }
        Some(bytes)
    }
}

/// Runs the pipeline once with a meddler in the tunnel; returns whether it meddled.
fn meddled(place: &Place, number: usize, seed: &mut Seed, mut command: Command) -> bool {
    let chance = Mutex::new(Chance::new(seed));
    let directory = place.at(format!("tunnel-{number}"));
    fs_err::create_dir(&directory).unwrap();
    let meddler = Meddler::start(&directory, move |passing| {
        chance.lock().unwrap().instead(passing)
    });
    command.env("PONTOON_TUNNEL_PROXY", meddler.variable());
    let ran = run(&mut command);
    let code = ran.status.code().unwrap_or(-1);
    let documented = matches!(code, 0 | 1 | 6 | 7 | 20 | 21 | 100..=103);
    assert!(documented, "{}", ran.report());
    assert!(!ran.stderr.contains("panicked"), "{}", ran.report());
    let explained = code == 0 || ran.stderr.contains("error:") || ran.stdout.contains("failed");
    assert!(explained, "{}", ran.report());
    if meddler.meddled() == 0 {
        assert_eq!(code, 0, "{}", ran.report());
    }
    meddler.meddled() > 0
}

#[test]
fn runs_end_as_documented_whatever_is_in_the_tunnel() {
    let mut seed = Seed::new("tunnel of the embedded engine");
    let mut times = 0;
    for number in 0..count(12, 400) {
        let place = Place::new();
        let nix = Nix::new(&place, "store", BuildUsers::Group);
        let file = place.write("ci.nix", FILE);
        let shape = *seed.one_of(&["strong", "plain"]);
        let mut command = nix.pontoon(&["run", "--json", "--shape", shape]);
        command.arg("-f").arg(file);
        if seed.chance(50) {
            command.arg("--eval-store").arg(place.at("evaluated"));
        }
        times += usize::from(meddled(&place, number, &mut seed, command));
        if nix.root().join("nix/var/nix/db/db.sqlite").exists() {
            nix.verify();
        }
        place.assert_no_process_left(Duration::from_secs(10));
    }
    assert!(times > 0, "nothing was changed");
}

#[test]
fn runs_on_a_daemon_end_as_documented_whatever_is_in_the_tunnel() {
    let mut seed = Seed::new("tunnel of a daemon");
    for kind in [Kind::BuildKit, Kind::BuildKitStrong] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        let file = place.write("ci.nix", FILE);
        let file = file.to_str().unwrap();
        run(&mut scene.pontoon(&["run", "-f", file])).ok();
        for number in 0..count(3, 80) {
            let text = FILE.replace("echo first", &format!("echo first {number}"));
            let file = place.write("ci.nix", text);
            let command = scene.pontoon(&["run", "-f", file.to_str().unwrap()]);
            meddled(&place, number, &mut seed, command);
            scene.daemon.verify(&scene.nix);
        }
        // Whoever speaks the truth is still served.
        run(&mut scene.pontoon(&["run", "-f", file])).ok();
    }
}

/// The most memory that a process has had, in bytes.
fn peak(pid: u32) -> Option<usize> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

#[test]
fn a_message_takes_no_more_memory_than_is_said() {
    // What conductors take for themselves.
    const OWN: usize = 128 << 20;
    let size = count(4, 60) << 20;
    for (what, start, one) in [
        ("what nobody asked for", "{\"say\":\"idle\",\"x\":[", "0,"),
        ("positions", "{\"say\":\"valid\",\"which\":[", "0,"),
        ("slots", "{\"say\":\"leased\",\"slots\":[", "0,"),
    ] {
        let place = Place::new();
        let nix = Nix::new(&place, "store", BuildUsers::Group);
        let file = place.write("ci.nix", FILE);
        let message = format!("{start}{}0]}}", one.repeat(size / one.len()));
        let frame = encode(&Frame::Message(message.into_bytes()));
        let directory = place.at("tunnel");
        fs_err::create_dir(&directory).unwrap();
        let meddler = Meddler::start(&directory, move |passing| {
            (passing.name() == "agent valid").then(|| frame.clone())
        });
        let mut command = nix.pontoon(&["run"]);
        command.arg("-f").arg(file);
        command.env("PONTOON_TUNNEL_PROXY", meddler.variable());
        let mut running = Running::start(&mut command);
        let mut most = 0;
        while !running.has_ended() {
            most = most.max(peak(running.pid()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(2));
        }
        let ran = running.end().code(6);
        assert!(
            meddler.meddled() > 0 && ran.stderr.len() < 2000,
            "{}",
            ran.report()
        );
        assert!(
            most > size && most < 48 * size + OWN,
            "{what}: {most} of {size}"
        );
    }
}
