//! The versions of Nix that people run: the machine's, and those of newer Debian suites.

use std::path::PathBuf;
use std::process::Command;

use super::{Place, count};

/// An installed Nix.
pub(crate) struct Release {
    /// The Debian suite that it is of; nothing for the machine's own.
    suite: Option<&'static str>,
    /// Where the suite's root directory is.
    root: Option<PathBuf>,
}

impl Release {
    /// The machine's Nix, Debian 13's, and in `make soak` the newest that a Debian suite has.
    ///
    /// # Panics
    ///
    /// If one is not there and cannot be fetched.
    pub(crate) fn all() -> Vec<Self> {
        let suites = &["trixie", "unstable"][..count(1, 2)];
        let machine = Self {
            suite: None,
            root: None,
        };
        let others = suites.iter().map(|suite| Self {
            suite: Some(suite),
            root: Some(fetched(suite)),
        });
        std::iter::once(machine).chain(others).collect()
    }

    /// What it is called in a test.
    pub(crate) fn name(&self) -> &'static str {
        self.suite.unwrap_or("machine")
    }

    /// The command with this Nix as the installed one. In a mount namespace of its own, `/usr` is
    /// that of the suite; all else is the machine's.
    pub(crate) fn enter(&self, place: &Place, inner: &Command) -> Command {
        const ENTER: &str = "mount --rbind \"$0/usr\" /usr && exec \"$@\"";
        let mut command = match &self.root {
            None => place.command(inner.get_program()),
            Some(root) => {
                let mut command = place.command("unshare");
                command.args(["--mount", "sh", "-ec", ENTER]);
                command.arg(root).arg(inner.get_program());
                command
            }
        };
        command.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }
}

/// The suite's root directory, which is in the cache of whoever runs the tests.
fn fetched(suite: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/debian/nix.sh");
    let made = Command::new(script).arg(suite).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{script} {suite} failed\n{said}");
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
}
