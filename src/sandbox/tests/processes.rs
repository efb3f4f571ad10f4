//! The state a program starts in, how it ends, and what it may not call.

use super::*;

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
        let file = fs_err::File::create(&path).unwrap();
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
        let file = fs_err::File::create(&path).unwrap().as_raw_fd();
        let kept = fs_err::File::create(&path).unwrap();
        let (fchmod, fsetxattr, file) = (94, 228, kept.as_raw_fd().max(file));
        let missing = sys::call32(fchmod, file, 0o4755) == -libc::ENOSYS;
        assert!(!missing, "this kernel has no 32-bit calls");
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

/// Not an assertion: machines differ. `--nocapture` shows it.
#[test]
fn time_of_a_cage() {
    with_scratch(|dir| {
        let build = bind(dir.join("open"), "/build", Access::ReadWrite);
        let cage = |namespaces| Cage {
            ground: ground(&dir.join("root"), namespaces),
            ..cage(&dir.join("root"), [build.clone()])
        };
        let line = |name: &str, cage: Option<&Cage>, identity, filter| {
            let mut times: Vec<_> = (0..100)
                .map(|_| {
                    let mut process = shell("", pipe().1.into());
                    process.program = b"/usr/bin/true".to_vec();
                    (process.identity, process.filter) = (identity, filter);
                    let begin = Instant::now();
                    let mut child = spawn(cage, process).unwrap();
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
        let all = cage(ALL);
        let text = [
            format!("ids {map}"),
            line("no cage", None, Identity::Same, Filter::None),
            line(
                "cage, no net",
                Some(&cage(Namespaces { net: false, ..ALL })),
                Identity::Same,
                Filter::None,
            ),
            line("cage", Some(&all), Identity::Same, Filter::None),
            line(
                "cage, mapped, filter",
                Some(&all),
                mapped(0, 0),
                Filter::Nix,
            ),
        ];
        std::io::stderr()
            .write_all(text.concat().as_bytes())
            .unwrap();
    });
}
