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

mod cages;
mod haste;
mod privileged;
mod processes;

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
    // A root who may not drop groups is already an ordinary user's, in a namespace of its own.
    let groups = fs_err::read_to_string("/proc/self/setgroups").unwrap();
    if getuid().is_root() && groups == "allow\n" {
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
        ground: ground(root, ALL),
        trees: Vec::new(),
        entries,
    }
}

fn ground(root: &Path, namespaces: Namespaces) -> Ground {
    Ground {
        root: root.to_owned(),
        root_mode: 0o755,
        namespaces,
        hostname: namespaces.uts.then(|| "localhost".to_owned()),
        unwanted: None,
        entries: Vec::new(),
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

fn mapped(uid: u32, gid: u32) -> Identity {
    Identity::Mapped {
        outside: (uid, gid),
        inside: (1000, 100),
    }
}
