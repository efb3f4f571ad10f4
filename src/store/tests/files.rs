//! Roots, attempts, slots, logs: our own files.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use super::*;
use crate::store::attempts::{Attempt, Durability, End, Kind, Seen, Standing, Verdict};

#[test]
fn links_of_a_dead_run_go_when_the_next_begins() {
    let scene = Scene::new();
    drop(scene.open());
    let a = path('a', "a");
    let link = |run: &str| {
        scene
            .dir
            .gcroots()
            .join("pontoon")
            .join(run)
            .join(a.to_basename())
    };
    let mut first = Roots::open(&scene.dir, "first").unwrap();
    first.link([&a, &a]).unwrap();
    assert_eq!(link("first").metadata().unwrap().nlink(), 1);
    assert!(Roots::open(&scene.dir, "first").is_err());
    fs_err::create_dir_all(scene.dir.gcroots().join("pontoon/dead/x")).unwrap();
    let mut second = Roots::open(&scene.dir, "second").unwrap();
    second.link([&a]).unwrap();
    assert!(!scene.dir.gcroots().join("pontoon/dead").exists());
    assert!(link("first").symlink_metadata().is_ok());
    drop(first);
    assert!(link("first").symlink_metadata().is_err());
    assert!(link("second").symlink_metadata().is_ok());
    drop(second);
    assert_eq!(fs_err::read_dir(scene.dir.runs()).unwrap().count(), 0);
    assert!(matches!(
        Roots::open(&scene.dir, "../x"),
        Err(Error::Name { .. })
    ));
}

fn attempt(id: &str, kind: Kind, started: u64) -> Attempt {
    Attempt {
        id: id.to_owned(),
        node: "node".to_owned(),
        kind,
        pipeline: None,
        run: "run".to_owned(),
        pid: 1,
        started,
    }
}

fn end() -> End {
    End {
        verdict: Verdict::Good,
        outcome: "built".to_owned(),
        exit: Some(0),
        ended: 9,
    }
}

/// The record of an attempt whose process is gone. What another test forks in that moment has the lock
/// too, until it has closed what it inherited.
fn read_dead(scene: &Scene, id: &str) -> attempts::Record {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let record = attempts::read(&scene.dir, id).unwrap().unwrap();
        if record.standing != Standing::Running || Instant::now() > end {
            return record;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_attempt_is_running_then_ended_or_unknown() {
    let scene = Scene::new();
    drop(scene.open());
    let standing = |id: &str| attempts::read(&scene.dir, id).unwrap().unwrap().standing;
    let good = attempt("good", Kind::Build, 1);
    let running = attempts::begin(&scene.dir, good.clone(), Durability::Lazy).unwrap();
    assert_eq!(standing("good"), Standing::Running);
    running.end(&end()).unwrap();
    assert_eq!(standing("good"), Standing::Ended(end()));
    let dead = attempt("dead", Kind::Effect, 2);
    drop(attempts::begin(&scene.dir, dead.clone(), Durability::Synced).unwrap());
    assert_eq!(read_dead(&scene, "dead").standing, Standing::Unknown);
    assert_eq!(attempts::read(&scene.dir, "none").unwrap(), None);
    fs_err::write(scene.dir.attempts().join("broken.json"), "{").unwrap();
    assert!(matches!(
        attempts::read(&scene.dir, "broken"),
        Err(Error::Record { .. })
    ));
    // As a crash of the machine in the middle of the last write leaves it.
    let cut = attempt("cut", Kind::Effect, 3);
    drop(attempts::begin(&scene.dir, cut.clone(), Durability::Lazy).unwrap());
    let place = scene.dir.attempts().join("cut.json");
    let text = fs_err::read_to_string(&place).unwrap() + r#"{"outcome":"su"#;
    fs_err::write(&place, text).unwrap();
    assert_eq!(read_dead(&scene, "cut").standing, Standing::Unknown);
    let all: Vec<_> = attempts::list(&scene.dir)
        .unwrap()
        .into_iter()
        .map(|record| record.attempt)
        .collect();
    assert_eq!(all, [cut, dead, good]);
    let text = fs_err::read_to_string(scene.dir.attempts().join("good.json")).unwrap();
    assert!(
        text.starts_with(r#"{"version":2,"id":"good","node":"node","kind":"build""#),
        "{text}"
    );
}

#[test]
fn of_an_unknown_end_a_person_is_told_once() {
    let scene = Scene::new();
    drop(scene.open());
    let read = |id: &str| attempts::read(&scene.dir, id).unwrap().unwrap();
    let begin = |id: &str| {
        let attempt = attempt(id, Kind::Effect, 1);
        attempts::begin(&scene.dir, attempt, Durability::Lazy).unwrap()
    };
    let live = begin("live");
    assert!(!read("live").is_unsettled());
    live.end(&end()).unwrap();
    assert!(!read("live").is_unsettled());
    drop(begin("dead"));
    let killed = End {
        verdict: Verdict::Killed,
        ..end()
    };
    begin("killed").end(&killed).unwrap();
    let seen = Seen {
        seen_by: "run".to_owned(),
        seen: 7,
    };
    for id in ["dead", "killed"] {
        let before = read_dead(&scene, id);
        assert!(before.is_unsettled(), "{before:?}");
        attempts::mark_seen(&scene.dir, id, &seen).unwrap();
        let after = read(id);
        assert!(!after.is_unsettled(), "{after:?}");
        assert_eq!(
            (after.standing, after.seen),
            (before.standing, Some(seen.clone()))
        );
    }
    // Before there were verdicts.
    let place = scene.dir.attempts().join("live.json");
    let text = fs_err::read_to_string(&place).unwrap();
    fs_err::write(&place, text.replace(r#""verdict":"good","#, "")).unwrap();
    let old = read("live");
    assert!(matches!(old.standing, Standing::Ended(_)) && !old.is_unsettled());
}

#[test]
fn old_records_go_but_never_an_effect_nobody_knows_the_end_of() {
    let scene = Scene::new();
    drop(scene.open());
    drop(attempts::begin(&scene.dir, attempt("e", Kind::Effect, 0), Durability::Lazy).unwrap());
    for number in 0..attempts::KEPT as u64 + 5 {
        let attempt = attempt(&format!("b{number}"), Kind::Build, number + 1);
        let running = attempts::begin(&scene.dir, attempt, Durability::Lazy).unwrap();
        running.end(&end()).unwrap();
    }
    let all = || attempts::list(&scene.dir).unwrap().len();
    attempts::tidy(&scene.dir).unwrap();
    assert_eq!(all(), attempts::KEPT + 6, "a few more are no reason");
    assert_eq!(attempts::prune(&scene.dir).unwrap(), 5);
    assert_eq!(
        attempts::list(&scene.dir).unwrap().len(),
        attempts::KEPT + 1
    );
    assert!(attempts::read(&scene.dir, "e").unwrap().is_some());
    assert!(attempts::read(&scene.dir, "b4").unwrap().is_none());
    assert!(attempts::read(&scene.dir, "b5").unwrap().is_some());
}

#[test]
fn a_slot_with_a_builder_in_it_is_neither_leased_nor_swept() {
    let scene = Scene::new();
    drop(scene.open());
    let lease = Slot::lease(&scene.dir).unwrap();
    let (number, made) = (lease.number(), lease.store_dir().join("made"));
    let occupied = Occupied::begin(&scene.dir, number).unwrap().unwrap();
    assert!(Occupied::begin(&scene.dir, number).unwrap().is_none());
    fs_err::write(&made, "").unwrap();
    // Whoever leased it dies, and the builder is still at it.
    drop(lease);
    assert!(Slot::try_lease(&scene.dir, number).unwrap().is_none());
    assert_ne!(Slot::lease(&scene.dir).unwrap().number(), number);
    assert!(made.exists());
    drop(occupied);
    assert_eq!(Slot::lease(&scene.dir).unwrap().number(), number);
    assert!(!made.exists());
}

#[test]
fn a_slot_is_leased_once_and_swept() {
    let scene = Scene::new();
    drop(scene.open());
    let (first, second) = (
        Slot::lease(&scene.dir).unwrap(),
        Slot::lease(&scene.dir).unwrap(),
    );
    assert_eq!((first.number(), second.number()), (0, 1));
    assert!(Slot::try_lease(&scene.dir, 0).unwrap().is_none());
    let left = first.store_dir().join("left");
    fs_err::create_dir_all(left.join("inner")).unwrap();
    fs_err::set_permissions(&left, std::fs::Permissions::from_mode(0o0)).unwrap();
    let inode = first.store_dir().metadata().unwrap().ino();
    drop(first);
    let again = Slot::lease(&scene.dir).unwrap();
    assert_eq!(again.number(), 0);
    assert!(!left.exists());
    let metadata = again.store_dir().metadata().unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o7777), (inode, 0o1775));
}

#[test]
fn logs_are_nix_s_also_of_a_silent_build() {
    let scene = Scene::new();
    drop(scene.open());
    let drv = path('a', "a.drv");
    let read = || {
        let mut text = Vec::new();
        logs::open(&scene.dir, &drv)
            .unwrap()
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        text
    };
    assert!(logs::open(&scene.dir, &drv).unwrap().is_none());
    let log = logs::LogWriter::create(&scene.dir, &drv).unwrap();
    assert!(
        log.place()
            .ends_with(format!("drvs/aa/{}-a.drv.bz2", "a".repeat(30)))
    );
    log.finish().unwrap();
    assert_eq!(
        fs_err::metadata(logs::place(&scene.dir, &drv))
            .unwrap()
            .len(),
        14
    );
    assert_eq!(read(), b"");
    let mut log = logs::LogWriter::create(&scene.dir, &drv).unwrap();
    log.write_all(b"a\rb\xff\n").unwrap();
    log.finish().unwrap();
    assert_eq!(read(), b"a\rb\xff\n");
    fs_err::remove_file(logs::place(&scene.dir, &drv)).unwrap();
    fs_err::write(logs::place(&scene.dir, &drv).with_extension(""), "plain").unwrap();
    assert_eq!(read(), b"plain");
}
