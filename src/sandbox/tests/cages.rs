//! What a process finds, and what it cannot reach.

use super::*;

#[test]
fn only_the_given_entries_exist() {
    with_scratch(|dir| {
        let entries = [
            Entry::Directory {
                path: "/build/deep".into(),
                mode: 0o700,
                owner: (0, 0),
            },
            Entry::File {
                path: "/etc/passwd".into(),
                contents: b"here".to_vec(),
                mode: 0o444,
            },
            Entry::Tmpfs {
                target: "/tmp".into(),
                size: Some(1 << 20),
                mode: 0o1777,
            },
            Entry::Chmod {
                path: "/etc".into(),
                mode: 0o555,
            },
            Entry::Bind {
                source: "/no/such/thing".into(),
                target: "/skipped".into(),
                access: Access::ReadOnly,
                missing: Missing::Skipped,
            },
        ];
        let cage = cage(&dir.join("root"), entries);
        let seen = output(
            &cage,
            "ls /; cat /etc/passwd; stat -c ' %a' /etc /build /build/deep /tmp",
        );
        let expected =
            "bin\nbuild\ndev\netc\nlib\nlib64\nproc\ntmp\nusr\nhere 555\n 755\n 700\n 1777\n";
        assert_eq!(seen, expected);
        let mounts = output(
            &cage,
            "while read a b c d p rest; do echo $p; done </proc/self/mountinfo",
        );
        let mounts: Vec<_> = mounts
            .lines()
            .filter(|path| !path.starts_with("/usr/"))
            .collect();
        assert_eq!(mounts, ["/", "/usr", "/proc", "/dev/null", "/tmp"]);
        assert_eq!(fs_err::read_dir(dir.join("root")).unwrap().count(), 0);
    });
}

#[test]
fn host_and_network_are_its_own() {
    with_scratch(|dir| {
        let cage = cage(&dir.join("root"), []);
        let script = "uname -n; cat /proc/sys/kernel/domainname; \
            while read n r; do case $n in *:) echo $n;; esac; done </proc/net/dev";
        assert_eq!(output(&cage, script), "localhost\n(none)\nlo:\n");
        let mut child = spawn_call(&cage, &[], || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            std::net::TcpStream::connect(address).unwrap();
            std::net::TcpListener::bind("[::1]:0").unwrap();
            7
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(7));
    });
}

#[test]
fn read_only_binds_cannot_be_written_and_others_can() {
    with_scratch(|dir| {
        let open = dir.join("open");
        fs_err::write(open.join("a"), "old").unwrap();
        let cage = cage(
            &dir.join("root"),
            [
                bind(&open, "/ro", Access::ReadOnly),
                bind(&open, "/rw", Access::ReadWrite),
                bind(open.join("a"), "/file", Access::ReadOnly),
            ],
        );
        let script = "echo x >/ro/a && echo wrote; echo x >/file && echo wrote; \
            mount -o remount,rw,bind /ro 2>/dev/null && umask 0 && false; echo new >/rw/a; cat /file";
        let seen = run(
            Some(&cage),
            |process| process.identity = mapped(0, 0),
            script,
        )
        .0;
        let refusals = seen.matches("Read-only file system").count();
        assert_eq!(
            (refusals, seen.contains("wrote"), seen.ends_with("new\n")),
            (2, false, true)
        );
        fs_err::remove_file(open.join("a")).unwrap();
    });
}

#[test]
fn binds_follow_links_in_the_outer_root_and_stay_in_the_inner() {
    with_scratch(|dir| {
        let (open, root) = (dir.join("open"), dir.join("root"));
        fs_err::write(open.join("real"), "real").unwrap();
        std::os::unix::fs::symlink(open.join("real"), open.join("link")).unwrap();
        std::os::unix::fs::symlink(&open, open.join("out")).unwrap();
        let cage = cage(
            &root,
            [
                bind(open.join("link"), "/link", Access::ReadOnly),
                bind(&open, "/rw", Access::ReadWrite),
                // An absolute link in a bound tree leads to a place inside.
                Entry::Directory {
                    path: open.clone(),
                    mode: 0o755,
                    owner: (0, 0),
                },
                Entry::File {
                    path: "/rw/out/made".into(),
                    contents: b"in".to_vec(),
                    mode: 0o644,
                },
            ],
        );
        let seen = output(&cage, &format!("cat /link; cat {}/made", open.display()));
        assert_eq!(seen, "realin");
        assert!(!open.join("made").exists());
        for name in ["real", "link", "out"] {
            fs_err::remove_file(open.join(name)).unwrap();
        }
    });
}

#[test]
fn cages_nest_in_a_function_of_this_executable() {
    with_scratch(|dir| {
        let open = dir.join("open");
        let outer = cage(
            &dir.join("root"),
            [
                bind(&open, "/open", Access::ReadWrite),
                Entry::Directory {
                    path: "/inner".into(),
                    mode: 0o755,
                    owner: (0, 0),
                },
                Entry::DevPts {
                    target: "/dev/pts".into(),
                },
                Entry::Symlink {
                    path: "/dev/ptmx".into(),
                    target: "pts/ptmx".into(),
                },
            ],
        );
        let (from, to) = pipe();
        let lost = fs_err::File::open("/dev/zero").unwrap();
        let mut child = spawn_call(&outer, &[to.as_fd()], || {
            assert_eq!(std::process::id(), 1);
            assert!(rustix::fs::fstat(lost.as_fd()).is_err());
            let terminal = pty(None).unwrap();
            let inner = cage(Path::new("/inner"), [bind("/open", "/o", Access::ReadOnly)]);
            let change = |process: &mut Process| process.identity = mapped(0, 0);
            let (text, exit) = run(Some(&inner), change, "id -u; echo $$; ls /; test -d /o");
            drop(terminal);
            (&to).write_all(text.as_bytes()).unwrap();
            i32::from(exit != Exit::Code(0))
        })
        .unwrap();
        std::mem::forget(lost);
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
        drop(to);
        assert_eq!(read(from), "1000\n1\nbin\ndev\nlib\nlib64\no\nproc\nusr\n");
        let mut child = spawn_call(&outer, &[], || panic!("as it must")).unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(101));
    });
}
