//! Agents of other versions in a daemon's store: those nobody uses any more go, and a run that begins
//! in that very moment does not notice.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::support::{Kind, Place, Running, Scene, until};

const BUILD: &str = r#"{ name }: derivation {
  inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo $name > $out" ];
}"#;

fn build(scene: &Scene<'_>, place: &Place, name: &str) -> Running {
    let file = place.write("build.nix", BUILD);
    let mut command = scene.pontoon(&["build", "--argstr", "name", name]);
    Running::start(command.arg("-f").arg(file))
}

fn agents(scene: &Scene<'_>) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(scene.daemon.nix_dir().join("pontoon/agent")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn age(place: &Path, days: u64) {
    let file = std::fs::File::options().write(true).open(place).unwrap();
    let then = SystemTime::now() - Duration::from_hours(24 * days);
    file.set_modified(then).unwrap();
}

#[test]
fn an_agent_that_no_run_uses_goes_and_one_that_is_used_stays() {
    for kind in [Kind::BuildKit, Kind::BuildKitStrong, Kind::Docker20] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        build(&scene, &place, "first").end().ok();
        let own = agents(&scene);
        assert_eq!(own.len(), 1, "{kind:?} {own:?}");
        let [old, held, lately] = ["0old", "0held", "0lately"].map(|name| {
            let other = own[0].with_file_name(name);
            fs_err::write(&other, name).unwrap();
            other
        });
        age(&old, 8);
        age(&held, 8);
        age(&lately, 6);
        let lease = fs_err::File::open(&held).unwrap();
        flock(&lease, FlockOperation::LockShared).unwrap();
        build(&scene, &place, "second").end().ok();
        assert!(!old.exists(), "{kind:?}");
        assert!(
            held.exists() && lately.exists() && own[0].exists(),
            "{kind:?}"
        );
        drop(lease);
        build(&scene, &place, "third").end().ok();
        assert!(!held.exists() && lately.exists(), "{kind:?}");
        scene.daemon.verify(&scene.nix);
    }
}

#[test]
fn an_agent_that_is_removed_as_a_run_begins_is_delivered_again() {
    for kind in [Kind::BuildKit, Kind::BuildKitStrong, Kind::Docker20] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        build(&scene, &place, "first").end().ok();
        let own = agents(&scene).remove(0);
        // As the run of another version does it that is just removing this one.
        let removing = fs_err::File::open(&own).unwrap();
        flock(&removing, FlockOperation::LockExclusive).unwrap();
        let before = scene.ops("store");
        let running = build(&scene, &place, "second");
        until("the run's first op is there", || {
            scene.ops("store") > before
        });
        std::thread::sleep(Duration::from_millis(500));
        fs_err::remove_file(&own).unwrap();
        drop(removing);
        let ran = running.end().ok();
        assert_eq!(ran.outcomes()["built"], 1, "{kind:?} {}", ran.report());
        assert!(
            !ran.stdout.contains(r#""event":"lost""#),
            "{}",
            ran.report()
        );
        assert!(own.exists(), "{kind:?}");
        let again = build(&scene, &place, "second").end().ok();
        assert_eq!(again.outcomes().get("built"), None);
    }
}
