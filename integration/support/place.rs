//! A directory of a test's own, and the processes that have to do with it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;

/// A new directory on disk, removed when dropped. Any user may pass through it: a store below
/// `/root` or the target directory would be out of reach for an ordinary user.
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes the directory, with an empty `home` in it.
    ///
    /// # Panics
    ///
    /// If the tests do not run as root.
    pub(crate) fn new() -> Self {
        Self::below("/var/tmp")
    }

    /// The same, elsewhere: some Nix builds nothing below a directory that anybody may write to.
    pub(crate) fn below(directory: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root: run `make test` as root"
        );
        let made = tempfile::Builder::new()
            .prefix("pontoon-test-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(directory)
            .unwrap_or_else(|error| panic!("no directory can be made in {directory}: {error}"));
        let place = Self { path: made.keep() };
        fs::create_dir(place.at("home")).unwrap();
        place
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub(crate) fn at(&self, below: impl AsRef<Path>) -> PathBuf {
        self.path.join(below)
    }

    /// Writes a file below it, with the directories that lead there.
    pub(crate) fn write(&self, below: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(below);
        fs::create_dir_all(path.parent().expect("it is below the place")).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A command that sees nothing of the machine's environment: its home is the place's, and
    /// neither Nix's nor Pontoon's variables are set.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.at("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "dumb")
            .current_dir(&self.path);
        command
    }

    /// The built executable, as root.
    pub(crate) fn pontoon(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_pontoon"));
        command.args(arguments);
        command
    }

    /// The processes that have to do with this place, as `pid: command line`: those that name it
    /// in their arguments, environment, working directory or executable, and those that live in a
    /// sandbox with something of it mounted.
    pub(crate) fn processes(&self) -> BTreeMap<u32, String> {
        let own = std::process::id();
        let entries = fs::read_dir("/proc").unwrap();
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own && self.concerns(*pid))
            .map(|pid| (pid, command_line(pid)))
            .collect()
    }

    fn concerns(&self, pid: u32) -> bool {
        let needle = self.path.as_os_str().as_encoded_bytes();
        let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // In our own mount namespace a mount of a test's says nothing of who uses it.
        let namespace = |proc: &Path| fs::read_link(proc.join("ns/mnt")).ok();
        let apart = namespace(&proc) != namespace(Path::new("/proc/self"));
        let files: &[&str] = if apart {
            &["cmdline", "environ", "mountinfo"]
        } else {
            &["cmdline", "environ"]
        };
        // A process may end at any moment: then it concerns nothing.
        files
            .iter()
            .any(|file| fs::read(proc.join(file)).is_ok_and(|bytes| holds(&bytes)))
            || ["cwd", "exe", "root"].iter().any(|link| {
                fs::read_link(proc.join(link))
                    .is_ok_and(|path| holds(path.as_os_str().as_encoded_bytes()))
            })
    }

    /// Waits until no process has to do with this place.
    ///
    /// # Panics
    ///
    /// If one is left when the time is over; it is killed first, so that it troubles no one.
    pub(crate) fn assert_no_process_left(&self, within: Duration) {
        let end = Instant::now() + within;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            if Instant::now() > end {
                kill(left.keys());
                panic!("left behind after {within:?}: {left:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        kill(self.processes().keys());
        // Root may remove what is read-only; only the test's own failure is of interest.
        let removed = fs::remove_dir_all(&self.path);
        if let (Err(error), false) = (removed, std::thread::panicking()) {
            panic!("a test left what cannot be removed: {error}");
        }
    }
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn kill<'a>(pids: impl Iterator<Item = &'a u32>) {
    for pid in pids {
        let pid = i32::try_from(*pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}
