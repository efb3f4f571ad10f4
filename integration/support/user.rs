//! Ordinary users to run as. They are made once, and stay.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use fs_err as fs;

use super::{Place, run};

/// An ordinary user of this machine, and what of a place is his.
pub(crate) struct User<'p> {
    place: &'p Place,
    uid: u32,
    gid: u32,
    home: PathBuf,
    executable: PathBuf,
}

impl<'p> User<'p> {
    /// A user with a range of subordinate ids, as `useradd` makes them.
    pub(crate) fn with_range(place: &'p Place) -> Self {
        Self::named(place, "pontoon-test", true)
    }

    /// A user with his own id alone.
    pub(crate) fn without_range(place: &'p Place) -> Self {
        Self::named(place, "pontoon-bare", false)
    }

    fn named(place: &'p Place, name: &str, has_range: bool) -> Self {
        let (uid, gid) = ids(place, name, has_range);
        let home = place.at(format!("home-of-{name}"));
        if !home.exists() {
            fs::create_dir(&home).unwrap();
            std::os::unix::fs::chown(&home, Some(uid), Some(gid)).unwrap();
        }
        // The target directory may be below one that only root may enter.
        let executable = place.at("pontoon");
        if !executable.exists() {
            fs::copy(env!("CARGO_BIN_EXE_pontoon"), &executable).unwrap();
            fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self {
            place,
            uid,
            gid,
            home,
            executable,
        }
    }

    /// A directory that is his, and his home.
    pub(crate) fn home(&self) -> &std::path::Path {
        &self.home
    }

    /// His user id.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Gives him a tree that root made.
    pub(crate) fn own(&self, path: &std::path::Path) {
        let owner = format!("{}:{}", self.uid, self.gid);
        run(self
            .place
            .command("chown")
            .args(["-R", "-h", &owner])
            .arg(path))
        .ok();
    }

    /// A command run as him, in his home, with no other group than his own.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.place.command(program);
        command
            .uid(self.uid)
            .gid(self.gid)
            .env("HOME", &self.home)
            .current_dir(&self.home);
        command
    }

    /// A copy of the built executable, run as him.
    pub(crate) fn pontoon(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.executable);
        command.args(arguments);
        command
    }
}

/// The user's ids; makes him if there is none of that name.
fn ids(place: &Place, name: &str, has_range: bool) -> (u32, u32) {
    // Two tests at once must not both make him.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let id = |flag| run(place.command("id").args([flag, name]));
    if !id("-u").status.success() {
        run(place
            .command("useradd")
            .args(["--create-home", "--user-group", name]))
        .ok();
    }
    if !has_range {
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = fs::read_to_string(file).unwrap_or_default();
            let prefix = format!("{name}:");
            if text.lines().any(|line| line.starts_with(&prefix)) {
                let others = text.lines().filter(|line| !line.starts_with(&prefix));
                fs::write(
                    file,
                    others.fold(String::new(), |all, line| all + line + "\n"),
                )
                .unwrap();
            }
        }
    }
    let number = |flag| {
        id(flag)
            .ok()
            .stdout
            .trim()
            .parse()
            .expect("`id` prints a number")
    };
    (number("-u"), number("-g"))
}
