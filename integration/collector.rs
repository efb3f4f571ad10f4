//! Real Nix's collector beside a run: it waits for no build, takes nothing that the run needs, and
//! does not come between evaluation and the run's roots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::support::{BuildUsers, Held, Nix, Place, Running, rows, run, until};

fn collect(nix: &Nix<'_>) -> Running {
    Running::start(&mut nix.command("nix-store", &["--gc"]))
}

/// A valid path and a file of no meaning in the store directory: nobody needs either.
fn plant(nix: &Nix<'_>, place: &Place, name: &str) -> [PathBuf; 2] {
    let file = place.write(&format!("dead-{name}"), "dead");
    let mut add = nix.command("nix-store", &["--add"]);
    let path = run(add.arg(file)).ok().stdout;
    let junk = "/nix/store/00000000000000000000000000000000-junk";
    fs_err::write(nix.physical(junk), "junk").unwrap();
    [nix.physical(path.trim()), nix.physical(junk)]
}

/// Paths that no other test has: a collector finds them in the environment of any builder that
/// runs on this machine, and takes it for one of its store's.
fn expression(script: &str, salt: &str) -> String {
    format!(
        r#"let node = name: needs: script: derivation {{
             name = "${{name}}-{salt}"; inherit needs; system = "x86_64-linux"; builder = "/bin/sh";
             args = [ "-c" "${{script}}; echo $name $needs > $out" ]; }};
           in rec {{
             before = node "before" [ ./input ] ":"; held = node "held" [ before ] "{script}";
             after = node "after" [ held before ./other ] ":";
           }}"#
    )
}

fn a_collection_during_a_build(shape: &str) {
    let place = Place::new();
    let held = Held::new(&place);
    let nix = Nix::new(&place, "store", BuildUsers::Group).with_sandbox_path(&held.sandbox_path());
    place.write("input", place.path().display().to_string());
    place.write("other", format!("other than {}", place.path().display()));
    let file = place.write("held.nix", expression(Held::SCRIPT, shape));
    let mut command = nix.pontoon(&["build", "-A", "after", "--json", "--no-link"]);
    command.args(["--shape", shape, "-f"]).arg(&file);
    let mut build = Running::start(&mut command);
    held.wait();
    let before = rows(nix.root());
    let dead = plant(&nix, &place, shape);
    let ran = collect(&nix).end().ok();
    assert!(!build.has_ended(), "the build is still held");
    for path in &dead {
        assert!(
            !path.exists(),
            "`{}` is dead\n{}",
            path.display(),
            ran.report()
        );
    }
    let after = rows(nix.root());
    for path in before.keys() {
        assert!(
            after.contains_key(path),
            "the run needs `{path}`\n{}",
            ran.report()
        );
    }
    held.release();
    let ran = build.end().ok();
    assert_eq!(ran.outcomes()["built"], 3, "{}", ran.report());
    nix.verify();
    // When the run is over it holds nothing any more.
    collect(&nix).end().ok();
    assert!(rows(nix.root()).is_empty());
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn a_collection_does_not_wait_for_a_build_strong() {
    a_collection_during_a_build("strong");
}

#[test]
fn a_collection_does_not_wait_for_a_build_plain() {
    a_collection_during_a_build("plain");
}

/// An expression that imports from a derivation which is held: evaluation lasts until it is let
/// go. What it wrote before then is what a collector would take.
fn slow(place: &Place) -> PathBuf {
    place.write("input", place.path().display().to_string());
    let text = format!(
        r#"let
             node = name: needs: script: derivation {{
               inherit name needs; system = "x86_64-linux"; builder = "/bin/sh";
               args = [ "-c" "${{script}}; echo $name > $out" ]; }};
             first = node "first" [ ./input ] ":";
             imported = node "imported" [ ] "{}";
           in [ (builtins.seq first.drvPath (node (import (node "text" [ imported ] "echo '\"last\"' > $out; exit 0")) [ first ] ":")) ]"#,
        Held::SCRIPT
    );
    place.write("slow.nix", text)
}

/// Evaluates into `evaluation` and builds in `store`, while a collector wants to begin.
fn a_collection_during_evaluation(
    place: &Place,
    held: &Held,
    nix: &Nix<'_>,
    file: &Path,
    more: &[&str],
) {
    let mut command = nix.pontoon(&["build", "--json", "--no-link"]);
    command.args(more).arg("-f").arg(file);
    let mut build = Running::start(&mut command);
    held.wait();
    let evaluation = match more {
        [_, root] => nix.on(Path::new(root)),
        _ => nix.on(nix.root()),
    };
    let mut collector = collect(&evaluation);
    // Long enough for it to be done, were it not kept out.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!collector.has_ended() && !build.has_ended());
    held.release();
    let ran = build.end().ok();
    assert_eq!(ran.outcomes()["built"], 2, "{}", ran.report());
    until("the collector may begin", || collector.has_ended());
    collector.end().ok();
    nix.verify();
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn a_collection_waits_for_evaluation() {
    let place = Place::new();
    let held = Held::new(&place);
    let nix = Nix::new(&place, "store", BuildUsers::Group).with_sandbox_path(&held.sandbox_path());
    let file = slow(&place);
    a_collection_during_evaluation(&place, &held, &nix, &file, &[]);
}

#[test]
fn a_collection_of_another_evaluation_store_waits_for_the_import() {
    let place = Place::new();
    let held = Held::new(&place);
    let nix = Nix::new(&place, "store", BuildUsers::Group).with_sandbox_path(&held.sandbox_path());
    let file = slow(&place);
    let evaluation = place.at("evaluation").display().to_string();
    a_collection_during_evaluation(&place, &held, &nix, &file, &["--eval-store", &evaluation]);
}

#[test]
fn evaluation_waits_for_a_collection_and_can_be_interrupted() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let file = place.write("one.nix", expression(":", "alone"));
    place.write("input", place.path().display().to_string());
    place.write("other", format!("other than {}", place.path().display()));
    nix.instantiate(&file, Some("before"));
    // As a collector does.
    let lock = fs_err::File::open(place.at("store/nix/var/nix/gc.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let build = |attribute| {
        let mut command = nix.pontoon(&["build", "-A", attribute, "--no-link"]);
        Running::start(command.arg("-f").arg(&file))
    };
    let mut first = build("before");
    let own = format!("gc.lock` is locked by process {} ", std::process::id());
    first.has_said(&own, 1);
    assert!(!first.has_ended(), "a collector is at work");
    first.signal(rustix::process::Signal::INT);
    first.end().code(130);
    let second = build("before");
    std::thread::sleep(Duration::from_millis(200));
    drop(lock);
    second.end().ok();
}

#[test]
fn a_killed_command_leaves_no_evaluation_behind() {
    let place = Place::new();
    let held = Held::new(&place);
    let nix = Nix::new(&place, "store", BuildUsers::Group).with_sandbox_path(&held.sandbox_path());
    let file = slow(&place);
    let mut command = nix.pontoon(&["build", "--no-link"]);
    let build = Running::start(command.arg("-f").arg(&file));
    held.wait();
    build.signal(rustix::process::Signal::KILL);
    // Neither `nix` nor the builder of its import from derivation.
    place.assert_no_process_left(Duration::from_secs(5));
    build.end();
}
