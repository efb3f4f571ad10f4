//! Real Nix on a chroot store, configured by its own file and by nothing of the machine's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Place, Ran, run};

/// Who runs builders when Nix runs as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildUsers {
    /// The members of `nixbld`, each one builder at a time.
    Group,
    /// Nobody: builders run as root in their sandbox.
    Nobody,
}

/// Real Nix with a store of its own.
pub(crate) struct Nix<'p> {
    place: &'p Place,
    root: PathBuf,
    configuration: PathBuf,
}

impl<'p> Nix<'p> {
    /// Nix whose store is `<place>/<name>`: sandboxed, one core, no substituters, and in the sandbox the
    /// [`sandbox_paths`].
    pub(crate) fn new(place: &'p Place, name: &str, users: BuildUsers) -> Self {
        let group = match users {
            BuildUsers::Group => "nixbld",
            BuildUsers::Nobody => "",
        };
        let paths = sandbox_paths().join(" ");
        let file = place.write(
            &format!("conf-{name}/nix.conf"),
            format!(
                "experimental-features = nix-command flakes\nsandbox = true\nsandbox-fallback = false\n\
                 substitute = false\nsubstituters =\ncores = 1\nmax-jobs = 2\nsystem-features =\n\
                 build-users-group = {group}\nsandbox-paths = {paths}\n"
            ),
        );
        let configuration = file.parent().expect("it is in a directory").to_owned();
        Self {
            place,
            root: place.at(name),
            configuration,
        }
    }

    /// The same Nix, with one more path in the sandbox.
    pub(crate) fn with_sandbox_path(self, path: &str) -> Self {
        let file = self.configuration.join("nix.conf");
        let text = fs_err::read_to_string(&file).unwrap();
        fs_err::write(&file, text.trim_end().to_owned() + " " + path + "\n").unwrap();
        self
    }

    /// The same Nix, with one more line in its settings, which wins over those above it.
    pub(crate) fn with_setting(self, line: &str) -> Self {
        let file = self.configuration.join("nix.conf");
        let text = fs_err::read_to_string(&file).unwrap();
        fs_err::write(&file, text + line + "\n").unwrap();
        self
    }

    /// The store's root, as `--store` takes it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of its `nix.conf`, for `NIX_CONF_DIR`.
    pub(crate) fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Where a store path lies on disk.
    pub(crate) fn physical(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A command of Nix's on this store: `nix-build`, `nix-store`, `nix`, ….
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.place.command(program);
        command.args(arguments).arg("--store").arg(&self.root);
        command.env("NIX_CONF_DIR", &self.configuration);
        command
    }

    /// Evaluates an expression's file and returns the `.drv` paths of an attribute, or of all.
    pub(crate) fn instantiate(&self, file: &Path, attribute: Option<&str>) -> Vec<String> {
        let mut command = self.command("nix-instantiate", &[]);
        command.arg(file);
        if let Some(attribute) = attribute {
            command.args(["-A", attribute]);
        }
        run(&mut command)
            .ok()
            .stdout
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Builds derivations; returns how it ended, with an output path on every line of stdout.
    pub(crate) fn realise(&self, drvs: &[&str]) -> Ran {
        run(&mut self.command(
            "nix-store",
            &[&["--realise", "--keep-going"], drvs].concat(),
        ))
    }

    /// The derivations that Nix would build to realise some, as `.drv` paths.
    pub(crate) fn would_build(&self, drvs: &[&str]) -> BTreeSet<String> {
        let arguments = [&["--realise", "--dry-run"], drvs].concat();
        let ran = run(&mut self.command("nix-store", &arguments)).ok();
        ran.stderr
            .lines()
            .skip_while(|line| !line.contains("will be built"))
            .skip(1)
            .map_while(|line| line.strip_prefix("  "))
            .map(str::to_owned)
            .collect()
    }

    /// The built executable on this store, with these settings: `command` and what follows it.
    pub(crate) fn pontoon(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.pontoon(arguments);
        command
            .arg("--store")
            .arg(&self.root)
            .env("NIX_CONF_DIR", &self.configuration);
        command
    }

    /// What `nix path-info --json` says of some paths, each without its time of registration.
    pub(crate) fn path_info(&self, paths: &[&str]) -> Vec<Value> {
        let ran = run(&mut self.command("nix", &[&["path-info", "--json"], paths].concat())).ok();
        let mut infos = infos(serde_json::from_str(&ran.stdout).unwrap());
        for info in &mut infos {
            info.as_object_mut()
                .expect("it is an object")
                .remove("registrationTime");
        }
        infos.sort_by_key(|info| info["path"].to_string());
        infos
    }

    /// Checks that real Nix finds nothing wrong with a store, which may be one of ours.
    pub(crate) fn verify(&self) {
        let ran = run(&mut self.command("nix-store", &["--verify", "--check-contents"])).ok();
        for word in ["disappeared", "modified", "error"] {
            assert!(
                !ran.stderr.contains(word),
                "the store is not sound\n{}",
                ran.report()
            );
        }
    }

    /// The same Nix, on another store.
    pub(crate) fn on(&self, root: &Path) -> Self {
        Self {
            place: self.place,
            root: root.to_owned(),
            configuration: self.configuration.clone(),
        }
    }
}

/// The answer of `nix path-info --json`: a list, or in newer versions a map by path.
fn infos(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(infos) => infos,
        Value::Object(by_path) => by_path
            .into_iter()
            .map(|(path, mut info)| {
                info["path"] = path.into();
                info
            })
            .collect(),
        other => panic!("no list and no map: {other}"),
    }
}

/// The programs that builders find in `/bin`, as `sandbox-paths` has them: each is a static
/// busybox under a name. The test vectors were made with exactly these.
pub(crate) fn sandbox_paths() -> Vec<String> {
    const NAMES: &[&str] = &[
        "sh", "mkdir", "ln", "chmod", "cat", "cp", "echo", "touch", "env", "sort", "uname", "tr",
        "head", "printf", "id", "ls", "dd",
    ];
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(|path| fs_err::canonicalize(path).unwrap_or_default())
        .find(|path| path.exists())
        .expect("busybox-static is installed: `scripts/install.sh run` does it");
    NAMES
        .iter()
        .map(|name| format!("/bin/{name}={}", busybox.display()))
        .collect()
}
