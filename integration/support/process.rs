//! Runs a command to its end, within a time limit, and says everything when it fails.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Longer than anything a test waits for; a program that hangs must not hang the gate.
const LIMIT: Duration = Duration::from_mins(5);

/// What came of a command.
pub(crate) struct Ran {
    /// The command, as it was given.
    pub(crate) command: String,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output; what is not UTF-8 is replaced.
    pub(crate) stdout: String,
    /// Its standard error, likewise.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Ran {
    /// Checks that it ended with 0.
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// Checks how it ended.
    pub(crate) fn code(self, code: i32) -> Self {
        assert!(
            self.status.code() == Some(code),
            "expected exit code {code}\n{}",
            self.report()
        );
        self
    }

    /// Checks that standard error says something.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "expected `{text}` on stderr\n{}",
            self.report()
        );
        self
    }

    /// Every line of standard output as JSON.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let line = |line| {
            serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("{e}: `{line}`\n{}", self.report()))
        };
        self.stdout.lines().map(line).collect()
    }

    /// How often each outcome (`built`, `failed`, …) is in the events on standard output.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for event in self
            .json_lines()
            .iter()
            .filter(|event| event["event"] == "node-finished")
        {
            let outcome = event["outcome"]["outcome"]
                .as_str()
                .expect("an outcome has a name");
            *counts.entry(outcome.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Everything known about it.
    pub(crate) fn report(&self) -> String {
        let end = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, signal) => format!("signal {signal:?}"),
        };
        format!(
            "$ {}\n{end} after {:?}\n-- stdout\n{}\n-- stderr\n{}",
            self.command, self.took, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end, with nothing on its standard input.
///
/// # Panics
///
/// If it cannot be started, or has not ended after five minutes.
pub(crate) fn run(command: &mut Command) -> Ran {
    Running::start(command).end()
}

/// A command that was started.
pub(crate) struct Running {
    command: String,
    child: Child,
    start: Instant,
    stdout: Reader,
    stderr: Reader,
}

impl Running {
    /// Starts it, with nothing on its standard input.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub(crate) fn start(command: &mut Command) -> Self {
        let shown = show(command);
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));
        let stdout = Reader::of(child.stdout.take().expect("it is a pipe"));
        let stderr = Reader::of(child.stderr.take().expect("it is a pipe"));
        Self {
            command: shown,
            child,
            start,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_some()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a process id is a positive number");
        rustix::process::kill_process(pid, signal).expect("an unreaped child can be signalled");
    }

    /// Waits until it has said something so many times.
    ///
    /// # Panics
    ///
    /// If it has not within a minute, or ends without.
    pub(crate) fn has_said(&self, text: &str, times: usize) {
        let readers = [&self.stdout, &self.stderr];
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            let goes_on = readers.iter().any(|reader| !reader.thread.is_finished());
            let [stdout, stderr] = readers.map(Reader::so_far);
            if stdout.matches(text).count() + stderr.matches(text).count() >= times {
                return;
            }
            assert!(
                goes_on && Instant::now() < end,
                "`{}` did not say `{text}`\n-- stdout\n{stdout}\n-- stderr\n{stderr}",
                self.command
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it has not ended five minutes after its start.
    pub(crate) fn end(mut self) -> Ran {
        let status = wait(&mut self.child, self.start + LIMIT);
        let took = self.start.elapsed();
        let [stdout, stderr] = [self.stdout, self.stderr].map(Reader::end);
        let command = self.command;
        match status {
            Some(status) => Ran {
                command,
                status,
                stdout,
                stderr,
                took,
            },
            None => panic!("`{command}` did not end\n-- stdout\n{stdout}\n-- stderr\n{stderr}"),
        }
    }
}

/// Waits until something holds.
///
/// # Panics
///
/// If it does not within a minute.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Reads a pipe to its end while other things happen.
struct Reader {
    read: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let read = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&read);
        let thread = std::thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            loop {
                match pipe.read(&mut bytes) {
                    Ok(length @ 1..) => into.lock().unwrap().extend(&bytes[..length]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // What was read until an error is what there is to say.
                    _ => break,
                }
            }
        });
        Self { read, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.read.lock().unwrap()).into_owned()
    }

    fn end(self) -> String {
        let Self { read, thread } = self;
        thread.join().expect("the reader does not panic");
        String::from_utf8_lossy(&read.lock().unwrap()).into_owned()
    }
}

/// Waits until `end`; then kills the child and returns nothing.
fn wait(child: &mut Child, end: Instant) -> Option<ExitStatus> {
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    None
}
