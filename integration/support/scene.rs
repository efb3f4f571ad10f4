//! A daemon that is the engine, and what its builders find in `/bin`.

use std::process::Command;

use super::{BuildUsers, Daemon, Kind, Nix, Place, run};

/// A daemon, a store of this machine to evaluate in, and in it a busybox for every builder.
pub(crate) struct Scene<'p> {
    /// The engine.
    pub(crate) daemon: Daemon<'p>,
    /// Real Nix, which evaluates.
    pub(crate) nix: Nix<'p>,
    /// The store path of a static busybox.
    pub(crate) busybox: String,
}

impl<'p> Scene<'p> {
    /// The programs of busybox that builders find in `/bin`.
    const NAMES: &'static [&'static str] = &[
        "sh", "sleep", "cat", "ls", "wc", "mkdir", "cp", "ln", "dd", "seq", "sed", "stat", "id",
    ];

    /// With a daemon of this kind.
    pub(crate) fn of(kind: Kind, place: &'p Place) -> Self {
        Self::with(place, Daemon::of(kind, place))
    }

    /// With this daemon.
    pub(crate) fn with(place: &'p Place, daemon: Daemon<'p>) -> Self {
        let nix = Nix::new(place, "evaluated", BuildUsers::Nobody);
        let added = run(&mut nix.command("nix-store", &["--add", "/bin/busybox"]));
        Self {
            daemon,
            busybox: added.ok().stdout.trim().to_owned(),
            nix,
        }
    }

    /// The executable with this engine: `command` and what follows it.
    pub(crate) fn pontoon(&self, arguments: &[&str]) -> Command {
        let paths = Self::NAMES
            .iter()
            .map(|name| format!("/bin/{name}={}", self.busybox))
            .collect::<Vec<_>>()
            .join(" ");
        let mut command = self.nix.pontoon(arguments);
        command.args(["--json", "--sandbox-paths", &paths]);
        self.daemon.serve(&mut command);
        command
    }

    /// A file of the daemon's store, as text.
    pub(crate) fn read(&self, path: &str) -> String {
        fs_err::read_to_string(self.daemon.root().join(path.trim_start_matches('/'))).unwrap()
    }

    /// How many ops the daemon has run that are our agent at this task.
    pub(crate) fn ops(&self, task: &str) -> usize {
        let does = |op: &&String| {
            let mut words = op.split(' ');
            let program = words.next().unwrap_or_default();
            program.contains("pontoon/agent") && words.next() == Some(task)
        };
        self.daemon.ops().iter().filter(does).count()
    }
}
