//! Where a case plays: a store, a file of derivations, and what is to hold afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use rustix::process::Signal;

use crate::support::{BuildUsers, Nix, Place, Ran, Running, run, until};

/// Derivations that cases build; `hello` is good.
const FILE: &str = r#"
let
  make = name: text: more: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ]; PATH = "/bin";
  } // more);
in rec {
  hello = make "hello" "echo hello > $out" { };
  behind = make "behind" "cat ${hello} > $out" { };
  tree = make "tree" "mkdir -p $out/bin; cp /bin/sh $out/bin/sh" { };
  behind-tree = make "behind-tree" "ls ${tree} > $out" { };
  elsewhere = make "elsewhere" "echo > $out" { system = "aarch64-linux"; };
  large = make "large" "dd if=/dev/zero of=$out bs=1048576 count=24" { };
  slow = make "slow" "sleep 900 || true; echo slow > $out" { };
  failing = make "failing" "exit 3" { };
  foreign = make "foreign" "" { builder = ./foreign; };
  noisy = make "noisy" "head -c 24000000 /dev/urandom; echo > $out" { };
  greedy = make "greedy" "cat /dev/zero > all || true; head -c 24000000 /dev/urandom" { };
  fixed = make "fixed" "echo hello > $out" {
    outputHashMode = "flat"; outputHashAlgo = "sha256";
    outputHash = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
  };
  held = make "held" "while :; do :; done" { };
}
"#;

/// What is to hold of the store afterwards.
enum Afterwards {
    /// Real Nix finds nothing wrong with it.
    Sound,
    /// Each file that was there is as it was.
    Unchanged(BTreeMap<PathBuf, Vec<u8>>),
    /// There is none, or it is gone with its file system.
    Nothing,
}

/// A store, and a file of derivations.
pub(super) struct Scene<'p> {
    pub(super) place: &'p Place,
    pub(super) nix: Nix<'p>,
    /// The file, as an argument.
    pub(super) file: String,
    afterwards: RefCell<Afterwards>,
    /// Holds the mount namespace of the scene's own mounts. In the tests' own, every process that
    /// starts meanwhile would have them.
    room: RefCell<Option<Running>>,
}

impl<'p> Scene<'p> {
    pub(super) fn new(place: &'p Place) -> Self {
        let file = place.write("ci.nix", FILE);
        Self {
            place,
            nix: Nix::new(place, "store", BuildUsers::Group),
            file: file.display().to_string(),
            afterwards: RefCell::new(Afterwards::Sound),
            room: RefCell::default(),
        }
    }

    /// `pontoon build -f FILE --no-link -A ATTRIBUTE`.
    pub(super) fn build(&self, attribute: &str) -> Command {
        let arguments = ["build", "-f", &self.file, "--no-link", "-A", attribute];
        self.nix.pontoon(&arguments)
    }

    /// Builds one that is good.
    pub(super) fn built(&self, attribute: &str) -> String {
        let ran = run(self.build(attribute).arg("--print-out-paths")).ok();
        ran.stdout.trim().to_owned()
    }

    /// The `.drv` of an attribute.
    pub(super) fn drv(&self, attribute: &str) -> String {
        self.nix
            .instantiate(Path::new(&self.file), Some(attribute))
            .remove(0)
    }

    /// A file of the store, made writable for a moment and written anew.
    pub(super) fn damage(&self, path: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let place = self.nix.physical(path);
        let changed = change(fs::read(&place).unwrap());
        fs::remove_file(&place).unwrap();
        fs::write(&place, changed).unwrap();
    }

    /// Mounts a file system that [`Scene::run`] sees.
    pub(super) fn mount(&self, arguments: &[&str], at: &Path) {
        fs::create_dir_all(at).unwrap();
        self.room.borrow_mut().get_or_insert_with(|| {
            let ready = self.place.at("ready");
            let script = "touch \"$1\"; exec sleep 600";
            let mut command = self.place.command("unshare");
            command.args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ]);
            let room = Running::start(command.arg(&ready));
            until("the mount namespace is there", || ready.exists());
            room
        });
        self.run(self.place.command("mount").args(arguments).arg(at))
            .ok();
    }

    /// Runs a command among the scene's mounts.
    pub(super) fn run(&self, command: &mut Command) -> Ran {
        let Some(pid) = self.room.borrow().as_ref().map(Running::pid) else {
            return run(command);
        };
        let mut inside = self.place.command("nsenter");
        inside
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg("--wd=.");
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        run(&mut inside)
    }

    /// Checks that real Nix finds nothing wrong with a store.
    pub(super) fn verify(&self, root: &Path) {
        let nix = self.nix.on(root);
        let ran = self
            .run(&mut nix.command("nix-store", &["--verify", "--check-contents"]))
            .ok();
        for word in ["disappeared", "modified", "error"] {
            assert!(!ran.stderr.contains(word), "{}", ran.report());
        }
    }

    /// From now on each file of the store must stay as it is.
    pub(super) fn keep_unchanged(&self) {
        *self.afterwards.borrow_mut() = Afterwards::Unchanged(files(self.nix.root()));
    }

    /// There is no store to look at afterwards.
    pub(super) fn expect_no_store(&self) {
        *self.afterwards.borrow_mut() = Afterwards::Nothing;
    }

    /// Looks at the store, and takes away what was mounted.
    pub(super) fn settle(&self) {
        if let Some(room) = self.room.take() {
            room.signal(Signal::KILL);
            room.end();
        }
        match &*self.afterwards.borrow() {
            Afterwards::Sound if self.nix.root().join("nix/var").exists() => self.nix.verify(),
            Afterwards::Unchanged(before) => {
                let after = files(self.nix.root());
                for (path, content) in before {
                    let same = after.get(path) == Some(content);
                    assert!(same, "`{}` has changed", path.display());
                }
            }
            Afterwards::Sound | Afterwards::Nothing => {}
        }
    }
}

/// Every regular file of a store's root, with its content; what Pontoon keeps there is its own.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() && !path.ends_with("nix/pontoon") {
                open.push(path);
            } else if kind.is_file() {
                let content = fs::read(&path).unwrap();
                found.insert(path, content);
            }
        }
    }
    found
}
