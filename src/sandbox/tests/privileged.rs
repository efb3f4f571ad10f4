//! What takes the machine's root.

use std::os::unix::fs::MetadataExt;

use super::*;

fn root(case: impl FnOnce(&Path)) {
    assert!(getuid().is_root(), "this test must be run by root");
    let dir = scratch();
    alone(|| case(dir.path()));
}

#[test]
fn mapped_builder_is_its_user_outside() {
    root(|dir| {
        let cage = cage(
            &dir.join("root"),
            [
                bind(dir.join("open"), "/open", Access::ReadWrite),
                Entry::Directory {
                    path: "/build".into(),
                    mode: 0o700,
                    owner: (990, 991),
                },
                Entry::Directory {
                    path: "/store".into(),
                    mode: 0o1775,
                    owner: (0, 991),
                },
            ],
        );
        let script = "id -u; id -g; id -G; stat -c %u:%g /build /store /usr; echo >/build/x; \
            echo >/store/x; echo >/open/x; (echo >/x) 2>/dev/null || echo denied";
        let (seen, exit) = run(
            Some(&cage),
            |process| process.identity = mapped(990, 991),
            script,
        );
        let expected = "1000\n100\n100\n1000:100\n65534:100\n65534:65534\ndenied\n";
        assert_eq!((&*seen, exit), (expected, Exit::Code(0)));
        let made = fs_err::metadata(dir.join("open/x")).unwrap();
        assert_eq!((made.uid(), made.gid()), (990, 991));
    });
}

#[test]
fn plain_builder_is_another_user_in_the_same_root() {
    root(|_| {
        let script = "id -u; id -g; id -G; head -c 1 /proc/1/mem 2>/dev/null || echo denied";
        let change =
            |process: &mut Process| process.identity = Identity::User { uid: 990, gid: 991 };
        let (seen, exit) = run(None, change, script);
        assert_eq!((&*seen, exit), ("990\n991\n991\ndenied\n", Exit::Code(0)));
    });
}

#[test]
fn terminal_belongs_to_its_user() {
    root(|_| {
        let slave = std::fs::File::from(pty(Some((990, 991))).unwrap().slave);
        let slave = slave.metadata().unwrap();
        assert_eq!((slave.uid(), slave.gid()), (990, 991));
    });
}

#[test]
fn kill_user_kills_only_that_user() {
    root(|_| {
        let sleeper = |uid| {
            let mut process = shell("sleep 1000 & sleep 1000", pipe().1.into());
            process.identity = Identity::User { uid, gid: 991 };
            spawn(None, process).unwrap()
        };
        let (mut killed, mut spared) = (sleeper(58_990), sleeper(58_991));
        kill_user(58_990).unwrap();
        assert_eq!(killed.wait().unwrap(), Exit::Signal(9));
        assert_eq!(spared.try_wait().unwrap(), None);
        kill_user(58_991).unwrap();
        assert_eq!(spared.wait().unwrap(), Exit::Signal(9));
        kill_user(58_991).unwrap();
        assert!(matches!(kill_user(0), Err(Error::KillUser { uid: 0, .. })));
    });
}

#[test]
fn death_of_the_parent_kills_a_plain_builder() {
    root(|_| {
        let (mut from, to) = pipe();
        let Cloned::Parent { pid, pidfd } = sys::clone(0).unwrap() else {
            let mut process = shell("echo up; exec sleep 1000", to.into());
            process.identity = Identity::User { uid: 990, gid: 991 };
            let child = spawn(None, process).unwrap();
            std::thread::sleep(Duration::from_secs(1000));
            drop(child);
            sys::exit(0);
        };
        drop(to);
        from.read_exact(&mut [0; 3]).unwrap();
        let mut parent = Child::new(pid, pidfd);
        parent.kill().unwrap();
        parent.wait().unwrap();
        assert_eq!(read(from), "");
    });
}

#[test]
fn subordinate_ids_give_an_ordinary_user_several_builders() {
    root(|dir| {
        // As if the machine knew this user, and for this process only.
        sys::unshare(libc::CLONE_NEWNS).unwrap();
        let private = rustix::mount::MountPropagationFlags::PRIVATE
            | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let ids = format!("{ORDINARY}:100000:65536\n");
        let user = format!("root:x:0:0::/:/bin/sh\nx:x:{ORDINARY}:{ORDINARY}::/:/bin/sh\n");
        for (file, text) in [("subuid", &ids), ("subgid", &ids), ("passwd", &user)] {
            fs_err::write(dir.join(file), text).unwrap();
            rustix::mount::mount_bind(dir.join(file), format!("/etc/{file}")).unwrap();
        }
        become_ordinary();
        let range = ids::subordinate(&ids, "x", ORDINARY).unwrap();
        let (uid, gid) = (ORDINARY, ORDINARY);
        let map = UserMap::Subordinate {
            uid,
            gid,
            uids: range,
            gids: range,
        };
        ids::enter_user_namespace(&map).unwrap();
        let build = Entry::Directory {
            path: "/build".into(),
            mode: 0o700,
            owner: (990, 991),
        };
        let cage = cage(&dir.join("root"), [build]);
        let script = "id -u; id -g; stat -c %u:%g /build; echo >/build/x";
        let (seen, exit) = run(
            Some(&cage),
            |process| process.identity = mapped(990, 991),
            script,
        );
        assert_eq!((&*seen, exit), ("1000\n100\n1000:100\n", Exit::Code(0)));
        let user = |process: &mut Process| process.identity = Identity::User { uid: 5, gid: 6 };
        assert_eq!(run(None, user, "id -u; id -G").0, "5\n6\n");
        kill_user(5).unwrap();
    });
}
