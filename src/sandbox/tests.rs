//! The sandbox on the kernel that runs the tests.
//!
//! Each case runs in a fork of the test, alone with one thread as the real callers are: as root if
//! the tests are run by root, and as an ordinary user in a user namespace. What needs several
//! users of the machine is in [`privileged`] and fails by name without root.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{getgid, getuid};

use super::ids::{self, UserMap};
use super::sys::{self, Cloned};
use super::*;

/// A user who may do nothing.
const ORDINARY: u32 = 1234;

/// Runs a case in a process of its own and passes on its panic.
fn alone(case: impl FnOnce()) {
    let (from, mut to) = pipe();
    match sys::fork().unwrap() {
        Cloned::Child => {
            let result = std::panic::catch_unwind(AssertUnwindSafe(case));
            if let Err(payload) = &result {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                to.write_all(text.unwrap_or_default().as_bytes()).ok();
            }
            sys::exit(i32::from(result.is_err()));
        }
        Cloned::Parent { pid, pidfd } => {
            drop(to);
            let exit = Child::new(pid, pidfd).wait().unwrap();
            assert!(exit == Exit::Code(0), "{exit:?}: {}", read(from));
        }
    }
}

/// Runs a case with each kind of privilege there is.
fn with_each_privilege(case: impl Fn()) {
    if getuid().is_root() {
        alone(&case);
    }
    alone(|| {
        become_ordinary();
        enter_single();
        case();
    });
}

fn become_ordinary() {
    if getuid().is_root() {
        let gid = rustix::process::Gid::from_raw(ORDINARY);
        let uid = rustix::process::Uid::from_raw(ORDINARY);
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        // Else /proc/self belongs to root, as after any change of ids without an exec.
        let dumpable = rustix::process::DumpableBehavior::Dumpable;
        rustix::process::set_dumpable_behavior(dumpable).unwrap();
    }
}

fn enter_single() {
    let map = UserMap::Single {
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
    };
    ids::enter_user_namespace(&map)
        .unwrap_or_else(|error| panic!("{error}: {:?}", ids::obstacle()));
}

fn pipe() -> (std::fs::File, std::fs::File) {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (from, to) = rustix::pipe::pipe_with(flags).unwrap();
    (from.into(), to.into())
}

fn read(mut from: std::fs::File) -> String {
    let mut text = Vec::new();
    from.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

const ALL: Namespaces = Namespaces {
    pid: true,
    ipc: true,
    uts: true,
    net: true,
};

fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) -> Entry {
    let (source, target) = (source.into(), target.into());
    Entry::Bind {
        source,
        target,
        access,
        missing: Missing::Fails,
    }
}

/// A cage with the host's programs.
fn cage(root: &Path, more: impl IntoIterator<Item = Entry>) -> Cage {
    let mut entries = vec![bind("/usr", "/usr", Access::ReadOnly)];
    for name in ["bin", "lib", "lib64"] {
        let target = PathBuf::from("usr").join(name);
        entries.push(Entry::Symlink {
            path: PathBuf::from("/").join(name),
            target,
        });
    }
    entries.push(Entry::Proc {
        target: "/proc".into(),
    });
    entries.push(bind("/dev/null", "/dev/null", Access::ReadWrite));
    entries.extend(more);
    Cage {
        root: root.to_owned(),
        root_mode: 0o755,
        entries,
        namespaces: ALL,
        hostname: Some("localhost".to_owned()),
    }
}

fn shell(script: &str, output: OwnedFd) -> Process {
    Process {
        program: b"/bin/sh".to_vec(),
        arguments: [&b"sh"[..], b"-c", script.as_bytes()]
            .map(<[u8]>::to_vec)
            .to_vec(),
        environment: vec![b"PATH=/bin:/usr/sbin".to_vec(), b"LC_ALL=C".to_vec()],
        directory: "/".into(),
        identity: Identity::Same,
        output,
        personality: Personality { linux32: false },
        filter: Filter::Nix,
    }
}

/// The output of a script, and how it ended.
fn run(cage: Option<&Cage>, change: impl FnOnce(&mut Process), script: &str) -> (String, Exit) {
    let (from, to) = pipe();
    let mut process = shell(script, to.into());
    change(&mut process);
    let mut child = spawn(cage, process).unwrap();
    let text = read(from);
    (text, child.wait().unwrap())
}

fn output(cage: &Cage, script: &str) -> String {
    let (text, exit) = run(Some(cage), |_| (), script);
    assert_eq!(exit, Exit::Code(0), "{text}");
    text
}

/// A directory that everybody may use.
fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("sandbox")
        .tempdir_in("/tmp")
        .unwrap();
    rustix::fs::chmod(dir.path(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    for name in ["root", "open"] {
        fs_err::create_dir(dir.path().join(name)).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o777);
        rustix::fs::chmod(dir.path().join(name), mode).unwrap();
    }
    dir
}

/// Runs a case with each privilege and a directory with `root` and `open`.
fn with_scratch(case: impl Fn(&Path)) {
    let dir = scratch();
    with_each_privilege(|| case(dir.path()));
}

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
fn builder_is_process_one_alone_and_in_nix_state() {
    with_scratch(|dir| {
        let cage = cage(&dir.join("root"), []);
        let script = "echo $$; cd /proc; for p in [0-9]*; do echo $p; done; umask; ulimit -S -c; \
            for f in self/fd/*; do echo $f; done; set -- $(cat self/stat); echo $6; \
            while read k v; do case $k in NoNewPrivs:|Seccomp:|SigIgn:|SigBlk:) echo $k$v;; esac; \
            done <self/status";
        let seen = output(&cage, script);
        // Descriptor 3 is the shell's own, for the directory that it lists.
        let seen: Vec<_> = seen.lines().filter(|line| *line != "self/fd/3").collect();
        let expected = [
            "1",
            "1",
            "0022",
            "0",
            "self/fd/0",
            "self/fd/1",
            "self/fd/2",
            "1",
            "SigBlk:0000000000000000",
            "SigIgn:0000000000000000",
            "NoNewPrivs:1",
            "Seccomp:2",
        ];
        assert_eq!(seen, expected);
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

fn mapped(uid: u32, gid: u32) -> Identity {
    Identity::Mapped {
        outside: (uid, gid),
        inside: (1000, 100),
    }
}

#[test]
fn mapped_builder_is_another_user_inside() {
    with_scratch(|dir| {
        let cage = cage(
            &dir.join("root"),
            [bind(dir.join("open"), "/open", Access::ReadWrite)],
        );
        let script = "id -u; id -g; stat -c %u:%g /open/made / >/dev/null; echo >/open/made; \
            stat -c %u:%g /open/made; cat /proc/self/setgroups";
        let (seen, exit) = run(
            Some(&cage),
            |process| process.identity = mapped(0, 0),
            script,
        );
        assert_eq!(exit, Exit::Code(0));
        let lines: Vec<_> = seen
            .lines()
            .filter(|line| !line.contains("No such file"))
            .collect();
        assert_eq!(lines, ["1000", "100", "1000:100", "deny"]);
        fs_err::remove_file(dir.join("open/made")).unwrap();
    });
}

#[test]
fn personality_makes_a_32_bit_machine() {
    with_scratch(|dir| {
        let cage = cage(&dir.join("root"), []);
        let script = "uname -m; cat /proc/self/personality";
        assert_eq!(output(&cage, script), "x86_64\n00040000\n");
        let change = |process: &mut Process| process.personality.linux32 = true;
        assert_eq!(run(Some(&cage), change, script).0, "i686\n00040008\n");
    });
}

#[test]
fn errors_name_program_and_step() {
    with_scratch(|dir| {
        let mut cage = cage(&dir.join("root"), []);
        let start = |cage: &Cage| {
            let mut process = shell("", pipe().1.into());
            process.program = b"/no/such/builder".to_vec();
            spawn(Some(cage), process).unwrap_err()
        };
        let error = start(&cage);
        assert!(matches!(&error, Error::Exec { program, source }
            if program == "/no/such/builder" && source.raw_os_error() == Some(libc::ENOENT)));
        cage.entries
            .push(bind("/no/such/source", "/x", Access::ReadOnly));
        let error = start(&cage);
        assert_eq!(
            error.to_string(),
            "cannot find the source `/no/such/source`"
        );
        assert!(matches!(
            error,
            Error::Step {
                step: Step::Source,
                ..
            }
        ));
        // Nobody is left behind.
        let wait = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(wait.unwrap_err(), rustix::io::Errno::CHILD);
    });
}

#[test]
fn filter_refuses_set_ids_and_attributes() {
    with_scratch(|dir| {
        let path = dir.join("open/f");
        let file = std::fs::File::create(&path).unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        sys::install_filter(&filter::nix()).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode;
        let chmod = |bits| rustix::fs::chmod(&path, mode(bits)).err();
        let refused = Some(rustix::io::Errno::PERM);
        assert_eq!(
            [chmod(0o4755), chmod(0o2755), chmod(0o1755)],
            [refused, refused, None]
        );
        assert_eq!(rustix::fs::fchmod(&file, mode(0o6755)).err(), refused);
        let at = rustix::fs::AtFlags::empty();
        let chmodat = |bits| rustix::fs::chmodat(rustix::fs::CWD, &path, mode(bits), at).err();
        assert_eq!([chmodat(0o4700), chmodat(0o700)], [refused, None]);
        let set = rustix::fs::fsetxattr(&file, "user.x", b"1", rustix::fs::XattrFlags::empty());
        assert_eq!(set.err(), Some(rustix::io::Errno::NOTSUP));
        fs_err::remove_file(&path).unwrap();
    });
}

#[test]
fn filter_reaches_32_bit_calls() {
    with_scratch(|dir| {
        use std::os::fd::AsRawFd;
        let path = dir.join("open/g");
        let file = std::fs::File::create(&path).unwrap().as_raw_fd();
        let kept = std::fs::File::create(&path).unwrap();
        let (fchmod, fsetxattr, file) = (94, 228, kept.as_raw_fd().max(file));
        if sys::call32(fchmod, file, 0o4755) == -libc::ENOSYS {
            panic!("this kernel has no 32-bit calls");
        }
        rustix::thread::set_no_new_privs(true).unwrap();
        sys::install_filter(&filter::nix()).unwrap();
        assert_eq!(sys::call32(fchmod, file, 0o4755), -libc::EPERM);
        assert_eq!(sys::call32(fchmod, file, 0o755), 0);
        assert_eq!(sys::call32(fsetxattr, file, 0), -libc::ENOTSUP);
        fs_err::remove_file(&path).unwrap();
    });
}

#[test]
fn death_of_the_parent_kills_the_builder() {
    with_scratch(|dir| {
        for identity in [Identity::Same, mapped(0, 0)] {
            let cage = cage(&dir.join("root"), []);
            let (from, to) = pipe();
            let Cloned::Parent { pid, pidfd } = sys::clone(0).unwrap() else {
                let mut process = shell("sleep 1000 & echo up; sleep 1000", to.into());
                process.identity = identity;
                let child = spawn(Some(&cage), process).unwrap();
                std::thread::sleep(Duration::from_secs(1000));
                drop(child);
                sys::exit(0);
            };
            drop(to);
            let mut parent = Child::new(pid, pidfd);
            let mut from = from;
            from.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(parent.try_wait().unwrap(), None);
            parent.kill().unwrap();
            assert_eq!(parent.wait().unwrap(), Exit::Signal(9));
            // The pipe ends when the last process of the cage is gone.
            assert_eq!(read(from), "");
        }
    });
}

#[test]
fn killing_process_one_ends_the_cage() {
    with_scratch(|dir| {
        let (from, to) = pipe();
        let process = shell("sleep 1000 & echo up; kill -9 $$; sleep 1000", to.into());
        let mut child = spawn(Some(&cage(&dir.join("root"), [])), process).unwrap();
        let mut from = from;
        from.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Signal(9));
        assert_eq!(child.wait().unwrap(), Exit::Signal(9));
        assert_eq!(read(from), "");
    });
}

#[test]
fn terminal_is_raw_and_ends_with_its_last_slave() {
    with_scratch(|dir| {
        let pty = pty(None).unwrap();
        let devpts = [Entry::DevPts {
            target: "/dev/pts".into(),
        }];
        let script = "printf 'a\\nb\\n'; test -c /dev/pts/ptmx && test -t 1 && echo yes";
        let process = shell(script, pty.slave);
        let mut child = spawn(Some(&cage(&dir.join("root"), devpts)), process).unwrap();
        let (mut text, mut bytes) = (Vec::new(), [0; 100]);
        let end = loop {
            match rustix::io::read(&pty.master, &mut bytes) {
                Ok(length) => text.extend_from_slice(&bytes[..length]),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (&text[..], end),
            (&b"a\nb\nyes\n"[..], rustix::io::Errno::IO)
        );
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
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
        let lost = std::fs::File::open("/dev/zero").unwrap();
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

/// Not an assertion: machines differ. `--nocapture` shows it.
#[test]
fn time_of_a_cage() {
    with_scratch(|dir| {
        let build = bind(dir.join("open"), "/build", Access::ReadWrite);
        let cage = |namespaces| Cage {
            namespaces,
            ..cage(&dir.join("root"), [build.clone()])
        };
        let line = |name: &str, cage: Option<Cage>, identity, filter| {
            let mut times: Vec<_> = (0..100)
                .map(|_| {
                    let mut process = shell("", pipe().1.into());
                    process.program = b"/usr/bin/true".to_vec();
                    (process.identity, process.filter) = (identity, filter);
                    let begin = Instant::now();
                    let mut child = spawn(cage.as_ref(), process).unwrap();
                    let started = begin.elapsed();
                    child.wait().unwrap();
                    (started, begin.elapsed())
                })
                .collect();
            times.sort();
            let ((least, _), (middle, ended)) = (times[0], times[50]);
            format!("{name}: start {least:?} to {middle:?}, end {ended:?}\n")
        };
        let map = fs_err::read_to_string("/proc/self/uid_map").unwrap();
        let all = Some(cage(ALL));
        let text = [
            format!("ids {map}"),
            line("no cage", None, Identity::Same, Filter::None),
            line(
                "cage, no net",
                Some(cage(Namespaces { net: false, ..ALL })),
                Identity::Same,
                Filter::None,
            ),
            line("cage", all.clone(), Identity::Same, Filter::None),
            line("cage, mapped, filter", all, mapped(0, 0), Filter::Nix),
        ];
        std::io::stderr()
            .write_all(text.concat().as_bytes())
            .unwrap();
    });
}

/// What takes the machine's root; `--include-ignored` runs it.
mod privileged {
    use super::*;

    fn root(case: impl FnOnce(&Path)) {
        assert!(getuid().is_root(), "this test must be run by root");
        let dir = scratch();
        alone(|| case(dir.path()));
    }

    #[test]
    #[ignore = "needs root"]
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
            use std::os::unix::fs::MetadataExt;
            assert_eq!((made.uid(), made.gid()), (990, 991));
        });
    }

    #[test]
    #[ignore = "needs root"]
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
    #[ignore = "needs root"]
    fn terminal_belongs_to_its_user() {
        root(|_| {
            use std::os::unix::fs::MetadataExt;
            let slave = std::fs::File::from(pty(Some((990, 991))).unwrap().slave);
            let slave = slave.metadata().unwrap();
            assert_eq!((slave.uid(), slave.gid()), (990, 991));
        });
    }

    #[test]
    #[ignore = "needs root"]
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
    #[ignore = "needs root"]
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
    #[ignore = "needs root"]
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
}
