//! Who builds, in which shape, and by which way derivations reach the build store.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::support::{BuildUsers, Nix, Place, User};
use super::proxy::Proxy;

/// Who runs Pontoon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// User 0.
    Root,
    /// An ordinary user with subordinate ids.
    Ranged,
    /// An ordinary user without.
    Bare,
}

/// Who, and which shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) who: Who,
    pub(crate) shape: &'static str,
}

/// All there are: plain takes two users at least.
pub(crate) const SETTINGS: [Setting; 5] = [
    Setting::of(Who::Root, "strong"),
    Setting::of(Who::Root, "plain"),
    Setting::of(Who::Ranged, "strong"),
    Setting::of(Who::Ranged, "plain"),
    Setting::of(Who::Bare, "strong"),
];

impl Setting {
    const fn of(who: Who, shape: &'static str) -> Self {
        Self { who, shape }
    }

    /// Whether the sandbox is Nix's own, so that nothing a builder sees may differ.
    pub(crate) fn is_strong(self) -> bool {
        self.shape == "strong"
    }
}

/// How derivations reach the build store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are there.
    Same,
    /// They lie in another store, and go through the tunnel.
    Apart,
    /// Likewise, and a proxy is in the tunnel.
    Proxied,
}

/// All ways.
pub(crate) const WAYS: [Way; 3] = [Way::Same, Way::Apart, Way::Proxied];

/// Makes stores and commands for settings and ways.
pub(crate) struct Ways<'p> {
    place: &'p Place,
    /// Real Nix as root: the evaluation store, and the one to be compared with.
    pub(crate) nix: Nix<'p>,
}

impl<'p> Ways<'p> {
    /// With this sandbox path besides the usual ones.
    pub(crate) fn new(place: &'p Place, sandbox_path: Option<&str>) -> Self {
        let mut nix = Nix::new(place, "real", BuildUsers::Group);
        if let Some(path) = sandbox_path {
            nix = nix.with_sandbox_path(path);
        }
        Self { place, nix }
    }

    /// The user of a setting.
    pub(crate) fn user(&self, who: Who) -> Option<User<'p>> {
        match who {
            Who::Root => None,
            Who::Ranged => Some(User::with_range(self.place)),
            Who::Bare => Some(User::without_range(self.place)),
        }
    }

    /// A directory for a store of somebody; not there yet.
    pub(crate) fn store(&self, setting: Setting, way: Way) -> PathBuf {
        let Setting { who, shape } = setting;
        let name = format!("{who:?}-{shape}-{way:?}");
        let directory = self.place.at(name);
        fs_err::create_dir_all(&directory).unwrap();
        if let Some(user) = self.user(who) {
            user.own(&directory);
        }
        directory.join("store")
    }

    /// `pontoon build` of derivations, into the store.
    pub(crate) fn build(&self, setting: Setting, way: Way, store: &Path, drvs: &[&str]) -> Command {
        let mut command = self.pontoon(setting, &["build", "--no-link", "--cores", "1"]);
        command
            .args(["--shape", setting.shape, "--store"])
            .arg(store)
            .args(drvs);
        if way != Way::Same {
            command.arg("--eval-store").arg(self.nix.root());
        }
        command
    }

    /// The built executable, as the setting's user.
    pub(crate) fn pontoon(&self, setting: Setting, arguments: &[&str]) -> Command {
        let mut command = match self.user(setting.who) {
            None => self.place.pontoon(arguments),
            Some(user) => user.pontoon(arguments),
        };
        command.env("NIX_CONF_DIR", self.nix.configuration());
        command
    }

    /// A proxy for a command, if the way has one.
    pub(crate) fn proxy(&self, setting: Setting, way: Way, command: &mut Command) -> Option<Proxy> {
        if way != Way::Proxied {
            return None;
        }
        let directory = self.store(setting, way).with_file_name("");
        let proxy = Proxy::start(&directory);
        command.env("PONTOON_TUNNEL_PROXY", proxy.variable());
        Some(proxy)
    }

    /// Real Nix on a store of its own, to be compared with what a setting builds: an ordinary
    /// user's sandbox has no other owner than himself, also with Nix.
    pub(crate) fn reference(&self, who: Who) -> Nix<'p> {
        match who {
            Who::Bare => {
                let directory = self.place.at("real-of-bare");
                fs_err::create_dir_all(&directory).unwrap();
                self.nix.on(&directory.join("store"))
            }
            Who::Root | Who::Ranged => self.nix.on(self.nix.root()),
        }
    }

    /// A command of real Nix on the store of a reference, as its owner.
    pub(crate) fn nix_command(&self, who: Who, program: &str, arguments: &[&str]) -> Command {
        let reference = self.reference(who);
        if who != Who::Bare {
            return reference.command(program, arguments);
        }
        let user = User::without_range(self.place);
        user.own(reference.root().parent().expect("it is in a directory"));
        let mut command = user.command(program);
        command
            .args(arguments)
            .arg("--store")
            .arg(reference.root())
            .env("NIX_CONF_DIR", reference.configuration());
        command
    }
}
