//! Starts processes: the parent's side, and the order of the child's.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use libc::{CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, c_int};

use super::child::Child;
use super::error::{Error, text};
use super::line::{Line, Word};
use super::sys::{self, Cloned};
use super::{Cage, Ground, Identity, Process, cage, filter, state};

/// Starts a program, in a cage or in the caller's own root.
///
/// The output is given away, so that it ends with the program and those it leaves it to.
///
/// Returns when the program is executed; a child that was killed before counts as one that was,
/// and its [`Exit`](super::Exit) says so.
///
/// # Errors
///
/// [`Error::Exec`] if the program cannot be executed, [`Error::Step`] if it did not come to that.
pub fn spawn(cage: Option<&Cage>, process: Process) -> Result<Child, Error> {
    let image = Image::new(&process)?;
    let namespaces = cage.map_or(0, |cage| namespaces(&cage.ground));
    let identity = process.identity;
    start(namespaces, move |line| {
        match execute(cage, &process, &image, &line) {
            Ok(never) => match never {},
            Err(error) => {
                line.report(&error);
                FAILED
            }
        }
    })
    .and_then(|(child, line)| accompany(child, identity, &line))
}

/// Runs a function as a process of its own in a cage; its result is the exit code, 101 if it
/// panics. It is a copy of the caller, as it is at the call.
///
/// Returns when the cage is made and the function begins. It runs with the caller's privilege,
/// `/dev/null` as standard input and output, the caller's standard error, and of the other
/// descriptors those in `keep`. Signals have their default action, but SIGPIPE is ignored.
///
/// # Errors
///
/// [`Error::Step`] if the cage cannot be made.
pub fn spawn_call(
    cage: &Cage,
    keep: &[BorrowedFd<'_>],
    body: impl FnOnce() -> i32,
) -> Result<Child, Error> {
    start(namespaces(&cage.ground), |line| {
        match prepare(cage, keep, &line) {
            Ok(()) => {
                drop(line);
                body()
            }
            Err(error) => {
                line.report(&error);
                FAILED
            }
        }
    })
    .and_then(|(child, line)| accompany(child, Identity::Same, &line))
}

/// The code of a child whose error is told over the line.
pub(super) const FAILED: i32 = 1;
/// The code of a panic, as Rust's own.
const PANICKED: i32 = 101;

/// The texts for the kernel, made before the child is.
pub(super) struct Image {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    filter: Option<Vec<libc::sock_filter>>,
}

impl Image {
    pub(super) fn new(process: &Process) -> Result<Self, Error> {
        let texts = |texts: &[Vec<u8>]| -> Result<Vec<CString>, Error> {
            texts.iter().map(|bytes| text(bytes)).collect()
        };
        Ok(Self {
            program: text(&process.program)?,
            arguments: texts(&process.arguments)?,
            environment: texts(&process.environment)?,
            filter: match process.filter {
                super::Filter::None => None,
                super::Filter::Nix => Some(filter::nix()),
            },
        })
    }
}

pub(super) fn namespaces(ground: &Ground) -> c_int {
    let wanted = ground.namespaces;
    [
        (wanted.pid, CLONE_NEWPID),
        (wanted.ipc, CLONE_NEWIPC),
        (wanted.uts, CLONE_NEWUTS),
        (wanted.net, CLONE_NEWNET),
    ]
    .into_iter()
    .filter_map(|(wanted, flag)| wanted.then_some(flag))
    .fold(CLONE_NEWNS, |flags, flag| flags | flag)
}

/// Makes the child.
pub(super) fn start(
    namespaces: c_int,
    body: impl FnOnce(Line) -> i32,
) -> Result<(Child, Line), Error> {
    let (ours, theirs) = Line::pair().map_err(|source| Error::Line { source })?;
    match sys::clone(namespaces).map_err(|source| Error::Clone { source })? {
        Cloned::Child => {
            // A parent's side held here would hide the parent's death.
            drop(ours);
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| body(theirs)));
            sys::exit(result.unwrap_or(PANICKED));
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            Ok((Child::new(pid, pidfd), ours))
        }
    }
}

/// Accompanies a child to its program.
pub(super) fn accompany(mut child: Child, identity: Identity, line: &Line) -> Result<Child, Error> {
    loop {
        let answer = match line.hear() {
            Ok(Word::Gone) => return Ok(child),
            Ok(Word::Failed(error)) => Err(error),
            Ok(Word::Ready) => Err(Error::Line {
                source: std::io::ErrorKind::InvalidData.into(),
            }),
            Ok(Word::NeedsMaps) => write_maps(child.pid(), identity)
                .and_then(|()| line.allow().map_err(|source| Error::Line { source })),
            Err(source) => Err(Error::Line { source }),
        };
        if let Err(error) = answer {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
    }
}

/// Writes the maps of a child's user namespace, which takes privilege outside of it.
fn write_maps(pid: u32, identity: Identity) -> Result<(), Error> {
    let Identity::Mapped { outside, inside } = identity else {
        return Ok(());
    };
    let write = |name: &str, contents: String| {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        fs_err::write(&path, contents).map_err(|source| Error::Map { path, source })
    };
    write("uid_map", format!("{} {} 1", inside.0, outside.0))?;
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("{} {} 1", inside.1, outside.1))
}

/// The whole way of a child to its program.
fn execute(
    cage: Option<&Cage>,
    process: &Process,
    image: &Image,
    line: &Line,
) -> Result<Infallible, Error> {
    state::detach(line)?;
    let mut null = state::null()?;
    if let Some(cage) = cage {
        cage::enter(&cage.ground)?.furnish(&cage.trees, &cage.entries)?;
        // Where the cage has one, its name means something in there.
        null = state::null().unwrap_or(null);
    }
    become_program(process, image, &null, line)
}

/// The last steps, from the root of the program on.
pub(super) fn become_program(
    process: &Process,
    image: &Image,
    null: &OwnedFd,
    line: &Line,
) -> Result<Infallible, Error> {
    state::change_directory(&process.directory)?;
    state::become_user(process.identity, line)?;
    // A change of ids takes back the first one.
    state::bond(line)?;
    state::set_streams(null, &process.output)?;
    state::limit(process.personality)?;
    if let Some(filter) = &image.filter {
        state::install_filter(filter)?;
    }
    let source = sys::execve(&image.program, &image.arguments, &image.environment);
    let program = image.program.to_string_lossy().into_owned();
    Err(Error::Exec { program, source })
}

/// The way of a child to a function.
fn prepare(cage: &Cage, keep: &[BorrowedFd<'_>], line: &Line) -> Result<(), Error> {
    state::detach(line)?;
    sys::ignore_broken_pipes();
    let null = state::null()?;
    cage::enter(&cage.ground)?.furnish(&cage.trees, &cage.entries)?;
    state::close_others(&null, keep, line)
}
