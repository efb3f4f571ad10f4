//! What is there for haste makes the same cages.

use std::ops::ControlFlow;

use super::*;

/// A process on standby, and who made it.
fn standby(ground: Ground) -> (Nursery, Standby) {
    let mut nursery = Nursery::open().unwrap();
    nursery.ask(ground, None).unwrap();
    let standby = nursery.take().unwrap();
    assert!(nursery.take().is_none());
    (nursery, standby)
}

/// The output of a script in a process that was on standby, and how it ended.
fn on_standby(cage: &Cage, change: impl FnOnce(&mut Process), script: &str) -> (String, Exit) {
    let (nursery, mut standby) = standby(cage.ground.clone());
    assert!(standby.suits(cage));
    drop(nursery);
    let (from, to) = pipe();
    let mut process = shell(script, to.into());
    change(&mut process);
    let child = standby.start(cage, &process, &mut || ControlFlow::Continue(()));
    // The process has it, and nobody else.
    drop(process);
    let text = read(from);
    (text, child.unwrap().wait().unwrap())
}

#[test]
fn a_process_that_was_on_standby_is_as_any_other() {
    with_scratch(|dir| {
        let entries = [
            bind(dir.join("open"), "/open", Access::ReadOnly),
            Entry::Tmpfs {
                target: "/tmp".into(),
                size: Some(1 << 20),
                mode: 0o1777,
            },
            Entry::Chmod {
                path: "/tmp".into(),
                mode: 0o700,
            },
        ];
        let cage = cage(&dir.join("root"), entries);
        let change = |process: &mut Process| {
            process.identity = mapped(0, 0);
            // Longer than a message.
            let long = [b"LONG=".to_vec(), vec![b'x'; 100_000]].concat();
            process.environment.push(long);
        };
        let script = "ls -l / /tmp | cut -c 1-10; id -u; echo $$ ${#LONG}; umask; uname -n; \
            for f in /proc/self/fd/*; do echo $f; done; cat /proc/self/setgroups; \
            while read a b c d place options rest; do echo $place $options; done \
            </proc/self/mountinfo; while read k v; do case $k in \
            NoNewPrivs:|Seccomp:|SigIgn:|SigBlk:|CapEff:) echo $k$v;; esac; done \
            </proc/self/status; cat /proc/net/dev | cut -c 1-6; exit 7";
        let spawned = run(Some(&cage), change, script);
        assert_eq!(spawned.1, Exit::Code(7), "{}", spawned.0);
        assert_eq!(on_standby(&cage, change, script), spawned);
    });
}

#[test]
fn a_process_on_standby_holds_no_lock_and_dies_unwanted() {
    with_scratch(|dir| {
        use rustix::fs::{FlockOperation, flock};
        let path = dir.join("open/lock");
        let lock = fs_err::File::create(&path).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let (mut nursery, standby) = standby(ground(&dir.join("root"), ALL));
        drop(lock);
        let other = fs_err::File::open(&path).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(standby);
        // One that nobody takes ends too.
        nursery.ask(ground(&dir.join("root"), ALL), None).unwrap();
        drop(nursery);
        let wait = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(wait.unwrap_err(), rustix::io::Errno::CHILD);
        fs_err::remove_file(path).unwrap();
    });
}

#[test]
fn a_process_that_is_not_wanted_after_all_is_no_program() {
    with_scratch(|dir| {
        let cage = cage(
            &dir.join("root"),
            [bind(dir.join("open"), "/open", Access::ReadWrite)],
        );
        let mut process = shell("echo > /open/begun", pipe().1.into());
        // It waits for its maps.
        process.identity = mapped(0, 0);
        let (nursery, standby) = standby(cage.ground.clone());
        let started = standby.start(&cage, &process, &mut || ControlFlow::Break(()));
        assert!(matches!(started, Err(Error::Unwanted)));
        drop(nursery);
        let wait = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(wait.unwrap_err(), rustix::io::Errno::CHILD);
        assert!(!dir.join("open/begun").exists());
    });
}

#[test]
fn a_process_on_standby_suits_its_own_ground_as_long_as_it_lives() {
    with_scratch(|dir| {
        let here = cage(&dir.join("root"), []);
        let (_nursery, mut standby) = standby(here.ground.clone());
        let elsewhere = cage(&dir.join("open"), []);
        let open = Cage {
            ground: ground(&dir.join("root"), Namespaces { net: false, ..ALL }),
            ..cage(&dir.join("root"), [])
        };
        assert!(standby.suits(&here) && !standby.suits(&elsewhere) && !standby.suits(&open));
        standby.waiting_child().kill().unwrap();
        until(|| !standby.suits(&here));
    });
}

#[test]
fn errors_of_a_process_on_standby_name_program_and_step() {
    with_scratch(|dir| {
        let fail = |cage: &Cage, ground: Ground| {
            let mut process = shell("", pipe().1.into());
            process.program = b"/no/such/builder".to_vec();
            let (_nursery, standby) = standby(ground);
            standby
                .start(cage, &process, &mut || ControlFlow::Continue(()))
                .unwrap_err()
        };
        let mut cage = cage(&dir.join("root"), []);
        let error = fail(&cage, cage.ground.clone());
        assert!(matches!(&error, Error::Exec { program, .. } if program == "/no/such/builder"));
        let nowhere = ground(&dir.join("none"), ALL);
        let error = fail(&cage, nowhere);
        let step = Step::MountRoot;
        assert!(
            matches!(&error, Error::Step { step: at, .. } if *at == step),
            "{error}"
        );
        cage.entries.push(bind("/no/such", "/x", Access::ReadOnly));
        let error = fail(&cage, cage.ground.clone());
        assert_eq!(error.to_string(), "cannot find the source `/no/such`");
        let mut bare = cage.ground.clone();
        bare.entries.push(bind("/no/such", "/x", Access::ReadOnly));
        let error = fail(&cage, bare);
        assert_eq!(error.to_string(), "cannot find the source `/no/such`");
        let wait = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(wait.unwrap_err(), rustix::io::Errno::CHILD);
    });
}

#[test]
fn copies_of_a_shelf_have_what_was_on_it_then() {
    with_scratch(|dir| {
        let (open, place) = (dir.join("open"), dir.join("shelf"));
        // Its mounts are the caller's own.
        sys::unshare(libc::CLONE_NEWNS).unwrap();
        for name in ["shown", "a", "b"] {
            fs_err::create_dir_all(open.join(name)).unwrap();
            fs_err::write(open.join(name).join("what"), name).unwrap();
        }
        fs_err::create_dir_all(&place).unwrap();
        let shelf = Shelf::put_up(&open.join("shown"), &place).unwrap();
        let cage = |shelf: &Shelf| Cage {
            ground: Ground {
                unwanted: Some(place.clone()),
                ..ground(&dir.join("root"), ALL)
            },
            trees: vec![Tree {
                tree: shelf.copy().unwrap(),
                target: "/deep/store".into(),
            }],
            ..cage(&dir.join("root"), [])
        };
        shelf.add(&open.join("a"), "a").unwrap();
        let (one, script) = (
            cage(&shelf),
            "cd /deep/store; echo x >made; ls; cat [ab]/what; \
            echo y 2>/dev/null >a/what || echo refused; grep -c shelf /proc/self/mountinfo",
        );
        shelf.add(&open.join("b"), "b").unwrap();
        let two = cage(&shelf);
        drop(shelf);
        assert_eq!(fs_err::read_dir(&place).unwrap().count(), 0);
        let seen = |cage: &Cage| on_standby(cage, |_| (), script).0;
        assert_eq!(seen(&one), "a\nb\nmade\nwhat\narefused\n0\n");
        assert_eq!(seen(&two), "a\nb\nmade\nwhat\nabrefused\n0\n");
        assert_eq!(fs_err::read(open.join("shown/made")).unwrap(), b"x\n");
        for name in ["shown", "a", "b"] {
            fs_err::remove_dir_all(open.join(name)).unwrap();
        }
    });
}

fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "it is never so");
        std::thread::sleep(Duration::from_millis(5));
    }
}
