//! Runs a command to its end, within a time limit, and says everything when it fails.

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything a test waits for; a program that hangs must not hang the gate.
const LIMIT: Duration = Duration::from_secs(300);

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

/// Runs a command with nothing on its standard input.
///
/// # Panics
///
/// If it cannot be started, or has not ended after five minutes.
pub(crate) fn run(command: &mut Command) -> Ran {
    let shown = show(command);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));
    let stdout = reader(child.stdout.take().expect("it is a pipe"));
    let stderr = reader(child.stderr.take().expect("it is a pipe"));
    let status = wait(&mut child, start + LIMIT);
    let stdout = stdout.join().expect("the reader does not panic");
    let stderr = stderr.join().expect("the reader does not panic");
    let took = start.elapsed();
    match status {
        Some(status) => Ran {
            command: shown,
            status,
            stdout,
            stderr,
            took,
        },
        None => panic!("`{shown}` did not end\n-- stdout\n{stdout}\n-- stderr\n{stderr}"),
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until then is what there is to say.
        pipe.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
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
