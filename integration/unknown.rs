//! Effects of unknown outcome: which run tells of them.

use rustix::process::Signal;

use super::kills::{Scene, pipeline};
use super::support::{Held, Place, Ran, run};

#[test]
fn an_unknown_effect_is_told_of_by_the_next_run_of_its_pipeline_alone() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let held = Held::new(&place);
    scene.nix = scene.nix.with_sandbox_path(&held.sandbox_path());
    let first = scene.flake("first", Held::SCRIPT);
    let running = scene.start(&first, &[]);
    held.wait();
    running.signal(Signal::KILL);
    running.end();
    scene.assert_clean();
    let tells = |ran: &Ran| {
        ran.stdout
            .contains("the outcome of the effect `deploy` of run")
    };

    // Another flake has a pipeline and an effect of the same names.
    let second = scene.flake("second", "true");
    let other = scene.start(&second, &[]).end().ok();
    assert!(!tells(&other), "{}", other.report());
    // By now it is called otherwise.
    let renamed = pipeline("first", "true").replace("effects.deploy", "effects.publish");
    place.write("first/flake.nix", renamed);
    let next = scene.start(&first, &[]).end().ok();
    assert!(tells(&next), "{}", next.report());
    assert!(next.stdout.contains("no effect of this name any more"));
    let again = scene.start(&first, &[]).end().ok();
    assert!(!tells(&again), "told twice\n{}", again.report());
}

#[test]
fn two_checkouts_of_a_repository_are_one_pipeline() {
    let place = Place::new();
    let mut scene = Scene::new(&place);
    let held = Held::new(&place);
    scene.nix = scene.nix.with_sandbox_path(&held.sandbox_path());
    let clone = |name: &str, remote: &str, script: &str| {
        let flake = scene.flake(name, script);
        let git = |arguments: &[&str]| {
            let mut command = place.command("git");
            run(command.arg("-C").arg(&flake).args(arguments)).ok();
        };
        git(&["init", "--quiet"]);
        git(&["remote", "add", "origin", remote]);
        flake
    };
    let first = clone(
        "one",
        "https://job:token@example.org/team/tool.git",
        Held::SCRIPT,
    );
    let second = clone("two", "git@example.org:team/tool", "true");
    let running = scene.start(&first, &[]);
    held.wait();
    running.signal(Signal::KILL);
    running.end();
    scene.assert_clean();
    let records = format!("{:?}", scene.records());
    assert!(
        records.contains("example.org/team/tool#default"),
        "{records}"
    );
    assert!(!records.contains("token"), "{records}");
    let next = scene.start(&second, &[]).end().ok();
    let told = "the outcome of the effect `deploy` of run";
    assert!(next.stdout.contains(told), "{}", next.report());
}
