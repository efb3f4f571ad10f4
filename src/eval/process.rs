//! Runs a program and listens to it; the only place that starts processes for evaluation.
//!
//! The program gets the environment it is given and nothing else, no stdin, and its stderr line
//! by line to a callback. It stays in our process group, so that Ctrl-C reaches it as well and
//! that a key's passphrase can be asked for on the terminal, as with `nix` itself.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often the cancel flag is looked at.
const TICK: Duration = Duration::from_millis(25);
/// How soon the end of a program is looked for that has closed its pipes: it is on its way out.
const SOON: Duration = Duration::from_micros(500);
/// How long a cancelled program may take to clean up, then how long an ended one's pipes, held
/// open by a grandchild, are still listened to.
const GRACE: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What it is called: `argv[0]`, by which `nix` tells its older commands apart.
    pub called: String,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; here if not given.
    pub directory: Option<PathBuf>,
}

/// What it did.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// All it wrote to stdout.
    pub stdout: Vec<u8>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

/// Why it did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot run `{}`", path.display())]
    Start {
        /// The executable.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It could not be waited for.
    #[error("cannot wait for `{}`", path.display())]
    Wait {
        /// The executable.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The caller's flag was raised.
    #[error("cancelled")]
    Cancelled,
}

enum Heard {
    Line(Vec<u8>),
    Stdout(Vec<u8>),
}

/// Runs the program to its end, or until `cancel` is raised.
///
/// Cancelled, it gets SIGTERM, upon which `nix` stops its builders, and SIGKILL when it dawdles.
pub fn run(
    program: &Program,
    cancel: &AtomicBool,
    on_line: &mut dyn FnMut(&str),
) -> Result<Finished, Error> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    let mut child = command(program).spawn().map_err(|source| Error::Start {
        path: program.path.clone(),
        source,
    })?;
    let heard = listen(&mut child);
    let outcome = attend(&mut child, &heard, cancel, on_line);
    match outcome {
        Ok(_) if cancel.load(Ordering::Relaxed) => Err(Error::Cancelled),
        Ok(finished) => Ok(finished),
        Err(source) => Err(Error::Wait {
            path: program.path.clone(),
            source,
        }),
    }
}

fn command(program: &Program) -> Command {
    let mut command = Command::new(&program.path);
    command
        .arg0(&program.called)
        .args(&program.arguments)
        .env_clear()
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    command
}

/// One thread a pipe. They end with their pipes and are not waited for.
fn listen(child: &mut Child) -> Receiver<Heard> {
    let (sender, heard) = channel();
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let lines = sender.clone();
    thread::spawn(move || read_stdout(stdout, &sender));
    thread::spawn(move || read_lines(stderr, &lines));
    heard
}

fn read_stdout(mut stdout: impl Read, sender: &Sender<Heard>) {
    let mut bytes = Vec::new();
    // A broken pipe ends the output like its end does; the exit code tells what happened.
    let _ = stdout.read_to_end(&mut bytes);
    let _ = sender.send(Heard::Stdout(bytes));
}

fn read_lines(stderr: impl Read, sender: &Sender<Heard>) {
    let mut reader = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if sender.send(Heard::Line(line)).is_err() => return,
            Ok(_) => {}
        }
    }
}

fn attend(
    child: &mut Child,
    heard: &Receiver<Heard>,
    cancel: &AtomicBool,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<Finished> {
    let mut stdout = Vec::new();
    let mut asked: Option<Instant> = None;
    let mut ended: Option<Instant> = None;
    let mut pause = SOON;
    loop {
        match heard.recv_timeout(TICK) {
            Ok(Heard::Stdout(bytes)) => stdout = bytes,
            Ok(Heard::Line(line)) => on_line(String::from_utf8_lossy(&line).trim_end()),
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(pause);
                pause = (2 * pause).min(TICK);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|since| since.elapsed() > GRACE) {
            break;
        }
        if ended.is_none() && cancel.load(Ordering::Relaxed) {
            match asked {
                None => {
                    signal(child, Signal::TERM);
                    asked = Some(Instant::now());
                }
                Some(since) if since.elapsed() > GRACE => signal(child, Signal::KILL),
                Some(_) => {}
            }
        }
    }
    Ok(Finished {
        ending: child.wait()?.into(),
        stdout,
    })
}

/// The child is not reaped yet when this is called, so its id is still its own.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended in between; then there is nothing to do.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a path is a file that somebody may execute.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs_err::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            path: "/bin/sh".into(),
            called: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("A".into(), "1".into())],
            directory: None,
        }
    }

    #[test]
    fn hears_both_streams_and_the_ending() {
        let mut lines = Vec::new();
        let program = shell("echo out $A $HOME; echo one >&2; printf two >&2; read x; exit 3");
        let cancel = AtomicBool::new(false);
        let finished = run(&program, &cancel, &mut |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(finished.ending, Ending::Code(3));
        assert_eq!(finished.stdout, b"out 1\n");
        assert_eq!(lines, ["one", "two"]);
        let finished = run(&shell("kill -9 $$"), &cancel, &mut |_| ()).unwrap();
        assert_eq!(finished.ending, Ending::Signal(9));
    }

    #[test]
    fn cancel_ends_it() {
        let cancel = AtomicBool::new(false);
        let begun = Instant::now();
        let program = shell("echo up >&2; while :; do sleep 0.1; done");
        let outcome = run(&program, &cancel, &mut |_| {
            cancel.store(true, Ordering::Relaxed);
        });
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn does_not_wait_for_what_a_grandchild_keeps_open() {
        let begun = Instant::now();
        let cancel = AtomicBool::new(false);
        run(&shell("sleep 30 & echo x"), &cancel, &mut |_| ()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
