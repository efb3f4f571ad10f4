//! Records of attempts.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::store::attempts::{
    Attempt, Builds, Durability, End, Kind, Running, Seen, Standing, Verdict,
};

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

fn standing(scene: &Scene, id: &str) -> Standing {
    attempts::read(&scene.dir, id).unwrap().unwrap().standing
}

fn begin_build(scene: &Scene, builds: &mut Builds, id: &str) -> Running {
    builds
        .begin(&scene.dir, attempt(id, Kind::Build, 1))
        .unwrap()
}

#[test]
fn an_attempt_is_running_then_ended_or_unknown() {
    let scene = Scene::new();
    drop(scene.open());
    let standing = |id: &str| standing(&scene, id);
    let good = attempt("good", Kind::Effect, 1);
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
    let all: Vec<_> = attempts::effects(&scene.dir)
        .unwrap()
        .into_iter()
        .map(|record| record.attempt)
        .collect();
    assert_eq!(all, [cut, dead, good]);
    let text = fs_err::read_to_string(scene.dir.attempts().join("good.json")).unwrap();
    assert!(
        text.starts_with(r#"{"version":2,"id":"good","node":"node","kind":"effect""#),
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

/// An agent may begin its next build before the end of the last one is on record.
#[test]
fn the_builds_of_an_agent_have_one_file() {
    let scene = Scene::new();
    drop(scene.open());
    let standing = |id: &str| standing(&scene, id);
    let mut builds = Builds::default();
    let mut begin = |id: &str| begin_build(&scene, &mut builds, id);
    let (one, two) = (begin("agent-1"), begin("agent-2"));
    assert_eq!(standing("agent-1"), Standing::Running);
    one.end(&end()).unwrap();
    assert_eq!(standing("agent-1"), Standing::Ended(end()));
    assert_eq!(standing("agent-2"), Standing::Running);
    let bad = End {
        verdict: Verdict::Bad,
        ..end()
    };
    two.end(&bad).unwrap();
    assert_eq!(standing("agent-2"), Standing::Ended(bad.clone()));
    // Nobody heard of it, so that its id is taken again.
    begin("agent-3").end(&bad).unwrap();
    let again = begin("agent-3");
    assert_eq!(standing("agent-3"), Standing::Running);
    again.end(&end()).unwrap();
    assert_eq!(standing("agent-3"), Standing::Ended(end()));
    drop(begin("agent-4"));
    assert_eq!(standing("agent-4"), Standing::Running, "its agent lives");
    drop(builds);
    assert_eq!(read_dead(&scene, "agent-4").standing, Standing::Unknown);
    assert_eq!(standing("agent-1"), Standing::Ended(end()));
    for none in ["agent-5", "agent-", "agent", "other-1"] {
        assert_eq!(attempts::read(&scene.dir, none).unwrap(), None, "{none}");
    }
    let folder = fs_err::read_dir(scene.dir.attempts()).unwrap();
    let names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["agent.jsonl"]);
    assert!(attempts::effects(&scene.dir).unwrap().is_empty());
}

/// A disk that is full takes a part of a line, and the next one whole when there is room again; a crash
/// of the machine may end a file anywhere.
#[test]
fn a_line_that_was_cut_off_spoils_no_other() {
    let scene = Scene::new();
    drop(scene.open());
    let standing = |id: &str| standing(&scene, id);
    let mut builds = Builds::default();
    let mut begin = |id: &str| begin_build(&scene, &mut builds, id);
    let far = End {
        outcome: "so weit, schön".to_owned(),
        ..end()
    };
    begin("agent-1").end(&end()).unwrap();
    let two = begin("agent-2");
    let place = scene.dir.attempts().join("agent.jsonl");
    let mut file = fs_err::OpenOptions::new()
        .append(true)
        .open(&place)
        .unwrap();
    let part = b"\n{\"id\":\"agent-2\",\"verdict\":\"bad\",\"outcome\":\"sch\xc3";
    file.write_all(part).unwrap();
    begin("agent-3").end(&far).unwrap();
    assert_eq!(standing("agent-1"), Standing::Ended(end()));
    assert_eq!(standing("agent-2"), Standing::Running);
    assert_eq!(standing("agent-3"), Standing::Ended(far));
    drop((two, builds));
    assert_eq!(read_dead(&scene, "agent-2").standing, Standing::Unknown);
    let bytes = fs_err::read(&place).unwrap();
    for end in 0..bytes.len() {
        fs_err::write(&place, &bytes[..end]).unwrap();
        for id in ["agent-1", "agent-2", "agent-3"] {
            attempts::read(&scene.dir, id).unwrap();
        }
    }
}

/// Before, each build had a file of its own.
#[test]
fn builds_of_older_versions_are_read_and_are_no_effects() {
    let scene = Scene::new();
    drop(scene.open());
    let old = |number: u64| {
        let attempt = attempt(&format!("old-{number}"), Kind::Build, number);
        drop(attempts::begin(&scene.dir, attempt, Durability::Lazy).unwrap());
    };
    old(0);
    assert_eq!(read_dead(&scene, "old-0").standing, Standing::Unknown);
    assert!(attempts::effects(&scene.dir).unwrap().is_empty());
    for number in 1..=attempts::KEPT as u64 {
        old(number);
    }
    for number in 0..=attempts::KEPT as u64 {
        read_dead(&scene, &format!("old-{number}"));
    }
    attempts::prune(&scene.dir).unwrap();
    assert_eq!(attempts::read(&scene.dir, "old-0").unwrap(), None);
    assert!(attempts::read(&scene.dir, "old-1").unwrap().is_some());
}

#[test]
fn old_records_go_but_never_an_effect_nobody_knows_the_end_of() {
    let scene = Scene::new();
    drop(scene.open());
    let begin = |id: &str, started: u64| {
        let attempt = attempt(id, Kind::Effect, started);
        attempts::begin(&scene.dir, attempt, Durability::Lazy).unwrap()
    };
    drop(begin("e", 0));
    for number in 0..attempts::KEPT as u64 + 5 {
        begin(&format!("b{number}"), number + 1)
            .end(&end())
            .unwrap();
    }
    let all = || attempts::effects(&scene.dir).unwrap().len();
    attempts::tidy(&scene.dir).unwrap();
    assert_eq!(all(), attempts::KEPT + 6, "a few more are no reason");
    attempts::prune(&scene.dir).unwrap();
    assert_eq!(all(), attempts::KEPT + 1);
    assert!(attempts::read(&scene.dir, "e").unwrap().is_some());
    assert!(attempts::read(&scene.dir, "b4").unwrap().is_none());
    assert!(attempts::read(&scene.dir, "b5").unwrap().is_some());
}

#[test]
fn old_records_of_builds_go_by_what_they_take_but_not_while_their_agent_lives() {
    let scene = Scene::new();
    drop(scene.open());
    let begin = |agent: &str| {
        let mut builds = Builds::default();
        drop(begin_build(&scene, &mut builds, &format!("{agent}-1")));
        builds
    };
    let alive = begin("alive");
    let unfinished = |name: &str, age: Duration| {
        let path = scene.dir.attempts().join(name);
        let file = fs_err::File::create(&path).unwrap();
        file.file().set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let stray = scene.dir.attempts().join("stray.jsonl");
    fs_err::create_dir(&stray).unwrap();
    let writing = unfinished(".new-1", Duration::from_mins(1));
    let left = unfinished(".new-2", Duration::from_hours(2));
    for number in 0..8 {
        let agent = format!("agent{number}");
        drop(begin(&agent));
        let place = scene.dir.attempts().join(format!("{agent}.jsonl"));
        let mut file = fs_err::OpenOptions::new().append(true).open(place).unwrap();
        file.write_all(b"\n").unwrap();
        file.set_len(attempts::KEPT_BUILDS / 4).unwrap();
        let later = SystemTime::now() + Duration::from_secs(number);
        file.file().set_modified(later).unwrap();
        read_dead(&scene, &format!("{agent}-1"));
    }
    let long_ago = SystemTime::UNIX_EPOCH;
    fs_err::File::open(&stray)
        .unwrap()
        .file()
        .set_modified(long_ago)
        .unwrap();
    attempts::tidy(&scene.dir).unwrap();
    let is_there = |agent: &str| {
        let record = attempts::read(&scene.dir, &format!("{agent}-1")).unwrap();
        record.is_some()
    };
    let kept: Vec<bool> = (0..8)
        .map(|number| is_there(&format!("agent{number}")))
        .collect();
    assert_eq!(kept, [false, false, false, false, true, true, true, true]);
    assert!(is_there("alive"));
    assert!(stray.exists() && writing.exists() && !left.exists());
    drop(alive);
    read_dead(&scene, "alive-1");
    attempts::tidy(&scene.dir).unwrap();
    assert!(!is_there("alive"));
}
