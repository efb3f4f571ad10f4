//! A store that cannot be written, understood, trusted, or had right now.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};

use fs_err as fs;
use rustix::process::Signal;

use super::Case;
use super::scene::Scene;
use crate::losses::setting::kill;
use crate::support::{Ran, Running, run, until};

pub(super) const CASES: &[(&str, Case)] = &[
    ("no room for a new store", |scene| {
        full(scene, "60k", "hello")
    }),
    ("no room to register what is imported", |scene| {
        full(scene, "100k", "hello")
    }),
    ("no room for an output", |scene| full(scene, "16m", "large")),
    ("no room for an import", no_room_for_import),
    ("no room for a log", |scene| full(scene, "16m", "noisy")),
    ("a builder that fills the disk", one_fills_it),
    ("no room for another file", |scene| {
        full(scene, "16m,nr_inodes=40", "hello")
    }),
    ("no room at any stage, and then room", ever_more_room),
    (
        "no room left where everything was built before",
        no_room_left,
    ),
    ("the store's file system is read-only", read_only),
    ("the store is a file", |scene| {
        scene.expect_no_store();
        let file = scene.place.write("file", "");
        elsewhere(scene, &file)
    }),
    ("the store is in `/proc`", |scene| {
        elsewhere(scene, Path::new("/proc/store"))
    }),
    (
        "programs in the store may not be started (`noexec`)",
        no_programs,
    ),
    ("a store of another schema", |scene| {
        replaced(scene, "nix/var/nix/db/schema", |_| b"11\n".to_vec())
    }),
    ("a schema that is no number", |scene| {
        replaced(scene, "nix/var/nix/db/schema", |_| b"ten".to_vec())
    }),
    ("a database that is none", |scene| {
        replaced(scene, "nix/var/nix/db/db.sqlite", |bytes| {
            vec![b'x'; bytes.len()]
        })
    }),
    ("a database with a damaged page", |scene| {
        replaced(scene, "nix/var/nix/db/db.sqlite", |mut bytes| {
            let second = 4096.min(bytes.len() / 2);
            bytes[second..].fill(0xff);
            bytes
        })
    }),
    ("a database that was cut off", |scene| {
        replaced(scene, "nix/var/nix/db/db.sqlite", |bytes| {
            bytes[..100].to_vec()
        })
    }),
    ("the store is a symbolic link", linked),
    (
        "a collector holds the store for longer than `--lock-timeout`",
        |scene| {
            scene.built("hello");
            let _holder = Holder::of(scene, "nix/var/nix/gc.lock");
            run(scene.build("behind").args(["--lock-timeout", "3"]))
        },
    ),
    (
        "another program holds an output for longer than `--lock-timeout`",
        |scene| {
            let drv = scene.drv("hello");
            let query = ["--query", "--outputs", drv.as_str()];
            let path = run(&mut scene.nix.command("nix-store", &query)).ok().stdout;
            let _holder = Holder::of(
                scene,
                &format!("{}.lock", path.trim().trim_start_matches('/')),
            );
            // It is told of before it is given up, by a machine with much to do, too.
            run(scene.build("hello").args(["--lock-timeout", "8"]))
        },
    ),
    ("a collector holds the store for some seconds", |scene| {
        let drv = scene.drv("hello");
        let holder = Holder::of(scene, "nix/var/nix/gc.lock");
        let running = Running::start(&mut scene.nix.pontoon(&["build", "--no-link", &drv]));
        running.has_said("is locked by", 1);
        drop(holder);
        running.end()
    }),
    (
        "a Nix that changes the schema holds the store for longer than `--lock-timeout`",
        |scene| {
            let drv = scene.drv("hello");
            let _holder = Holder::of(scene, "nix/var/nix/db/big-lock");
            let arguments = ["build", "--no-link", &drv, "--lock-timeout", "3"];
            run(&mut scene.nix.pontoon(&arguments))
        },
    ),
    (
        "another program writes to the database for longer than `--lock-timeout`",
        |scene| {
            let _holder = Writer::of(scene);
            run(scene.build("hello").args(["--lock-timeout", "3"]))
        },
    ),
    (
        "another program writes to the database for longer than `--lock-timeout` when a build is done",
        |scene| written_meanwhile(scene, "3"),
    ),
    (
        "another program writes to the database for some seconds when a build is done",
        |scene| written_meanwhile(scene, "60"),
    ),
    (
        "another program writes to the database for longer than `--lock-timeout` when derivations are imported",
        written_before_import,
    ),
];

/// A file system of its own below the store's root.
fn full(scene: &Scene<'_>, size: &str, attribute: &str) -> Ran {
    // Evaluated elsewhere: what is full is the build store.
    let drv = scene.drv(attribute);
    let root = scene.place.at("small");
    let options = format!("size={size},mode=755");
    scene.mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &root);
    build_in(scene, &root, &[&drv])
}

/// What one builder has filled is there for the next one of the same agent.
fn one_fills_it(scene: &Scene<'_>) -> Ran {
    let drvs = ["greedy", "hello"].map(|attribute| scene.drv(attribute));
    let root = scene.place.at("small");
    scene.mount(&["-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs"], &root);
    let ran = build_in(scene, &root, &["-j1", &drvs[0], &drvs[1]]);
    assert!(ran.stderr.contains("built hello"), "{}", ran.report());
    ran
}

/// A disk that is full a little later each time, until all of it fits: evaluation, too, is there.
fn ever_more_room(scene: &Scene<'_>) -> Ran {
    for kib in (8..).step_by(8) {
        let root = scene.place.at(format!("disk-{kib}"));
        let options = format!("size={kib}k,mode=755");
        scene.mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &root);
        let arguments = ["build", "-f", &scene.file, "-A", "hello", "--no-link"];
        let nix = scene.nix.on(&root);
        let ran = scene.run(&mut nix.pontoon(&arguments));
        if ran.status.success() {
            scene.verify(&root);
            return ran;
        }
        assert!(
            ran.stderr.contains("is full") || ran.stderr.contains("No space left on device"),
            "{kib} KiB: {}",
            ran.report()
        );
    }
    unreachable!("the sizes never end")
}

/// Nix evaluates in a store whose disk has been filled up since.
fn no_room_left(scene: &Scene<'_>) -> Ran {
    let root = scene.place.at("filled");
    scene.mount(&["-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs"], &root);
    let nix = scene.nix.on(&root);
    let arguments = ["build", "-f", &scene.file, "-A", "hello", "--no-link"];
    scene.run(&mut nix.pontoon(&arguments)).ok();
    // What is still in the database's log would go on with the next one who opens it, and make room.
    scene.verify(&root);
    let rest = root.join("rest");
    let mut fill = scene.place.command("dd");
    fill.arg("if=/dev/zero")
        .arg(format!("of={}", rest.display()));
    scene.run(&mut fill).code(1);
    let ran = scene.run(&mut nix.pontoon(&arguments));
    scene.run(scene.place.command("rm").arg(&rest)).ok();
    scene.verify(&root);
    ran
}

fn build_in(scene: &Scene<'_>, root: &Path, what: &[&str]) -> Ran {
    let mut pontoon = scene.place.pontoon(&["build", "--no-link"]);
    pontoon
        .args(what)
        .arg("--store")
        .arg(root)
        .arg("--eval-store")
        .arg(scene.nix.root());
    let ran = scene.run(pontoon.env("NIX_CONF_DIR", scene.nix.configuration()));
    // What could be made of it is sound.
    let schema = root.join("nix/var/nix/db/schema");
    if scene
        .run(scene.place.command("test").arg("-s").arg(schema))
        .status
        .success()
    {
        scene.verify(root);
    }
    ran
}

fn no_room_for_import(scene: &Scene<'_>) -> Ran {
    let large = scene.place.write("large.bin", vec![7; 24 << 20]);
    let text = format!(
        "derivation {{ name = \"copy\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"cat ${{{}}} > $out\" ]; PATH = \"/bin\"; }}",
        large.display()
    );
    let file = scene.place.write("copy.nix", text);
    let drv = scene.nix.instantiate(&file, None).remove(0);
    let root = scene.place.at("small");
    scene.mount(&["-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs"], &root);
    build_in(scene, &root, &[&drv])
}

fn read_only(scene: &Scene<'_>) -> Ran {
    let drv = scene.drv("hello");
    scene.keep_unchanged();
    let root = scene.nix.root().to_owned();
    scene.mount(&["--bind", &root.display().to_string()], &root);
    let mut remount = scene.place.command("mount");
    scene
        .run(remount.args(["-o", "remount,bind,ro"]).arg(&root))
        .ok();
    scene.run(&mut scene.nix.pontoon(&["build", "--no-link", &drv]))
}

fn no_programs(scene: &Scene<'_>) -> Ran {
    let text = "let make = name: builder: args: derivation { inherit name builder args; \
                system = \"x86_64-linux\"; PATH = \"/bin\"; }; \
                tree = make \"tree\" \"/bin/sh\" [ \"-c\" \"mkdir -p $out/bin; cp /bin/sh $out/bin/sh\" ]; \
                in make \"inner\" \"${tree}/bin/sh\" [ \"-c\" \"echo > $out\" ]";
    let file = scene.place.write("inner.nix", text);
    let drv = scene.nix.instantiate(&file, None).remove(0);
    let root = scene.place.at("small");
    scene.mount(&["-t", "tmpfs", "-o", "noexec,mode=755", "tmpfs"], &root);
    build_in(scene, &root, &[&drv])
}

fn elsewhere(scene: &Scene<'_>, root: &Path) -> Ran {
    let mut pontoon =
        scene
            .place
            .pontoon(&["build", "--no-link", "-f", &scene.file, "-A", "hello"]);
    pontoon.arg("--store").arg(root);
    run(pontoon.env("NIX_CONF_DIR", scene.nix.configuration()))
}

/// A store with another file in place of one of its own. Nix would refuse it as well, or worse:
/// it stays as it is.
fn replaced(scene: &Scene<'_>, file: &str, change: fn(Vec<u8>) -> Vec<u8>) -> Ran {
    let drv = scene.drv("hello");
    let place = scene.nix.root().join(file);
    for log in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{log}", place.display())).ok();
    }
    let changed = change(fs::read(&place).unwrap());
    fs::write(&place, changed).unwrap();
    scene.keep_unchanged();
    run(&mut scene.nix.pontoon(&["build", "--no-link", &drv]))
}

fn linked(scene: &Scene<'_>) -> Ran {
    let drv = scene.drv("hello");
    let root = scene.place.at("linked");
    fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(scene.nix.root().join("nix"), root.join("nix")).unwrap();
    let mut pontoon = scene
        .place
        .pontoon(&["build", "--no-link", &drv, "--store"]);
    pontoon.arg(&root).arg("--eval-store").arg(scene.nix.root());
    run(pontoon.env("NIX_CONF_DIR", scene.nix.configuration()))
}

/// A builder sleeps when the database is locked, and is woken then.
fn written_meanwhile(scene: &Scene<'_>, limit: &str) -> Ran {
    let drv = scene.drv("slow");
    let arguments = ["build", "--no-link", &drv, "--lock-timeout", limit];
    let running = Running::start(&mut scene.nix.pontoon(&arguments));
    let sleeper = || {
        let processes = scene.place.processes().into_iter();
        let mut sleepers = processes.filter(|(_, line)| line.starts_with("sleep 900"));
        sleepers.next().map(|(pid, _)| pid)
    };
    until("the builder sleeps", || sleeper().is_some());
    let writer = Writer::of(scene);
    kill(sleeper().expect("it sleeps for long"));
    running.has_said("is locked by", 1);
    if limit == "3" {
        return running.end();
    }
    drop(writer);
    running.end()
}

/// Nix evaluates until a pipe is written to; meanwhile the database of the build store is locked.
fn written_before_import(scene: &Scene<'_>) -> Ran {
    scene.built("hello");
    let pipe = scene.place.at("pipe");
    run(scene.place.command("mkfifo").arg(&pipe)).ok();
    let text = format!(
        "derivation {{ name = builtins.readFile {}; system = \"x86_64-linux\"; builder = \"/bin/sh\"; }}",
        pipe.display()
    );
    let file = scene.place.write("piped.nix", &text);
    let other = scene.place.at("other");
    let mut pontoon = scene
        .nix
        .pontoon(&["build", "--no-link", "--lock-timeout", "3"]);
    pontoon.arg("-f").arg(file).arg("--eval-store").arg(other);
    let running = Running::start(&mut pontoon);
    // Opened for writing as soon as Nix reads.
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let _holder = Writer::of(scene);
    writer.write_all(b"imported").unwrap();
    drop(writer);
    running.end()
}

/// Another program that holds a lock until it is dropped.
struct Holder(Option<Running>);

impl Holder {
    /// Locks a file of the store, for writing.
    fn of(scene: &Scene<'_>, file: &str) -> Self {
        let path = scene.nix.root().join(file);
        let ready = scene.place.at("locked");
        let script = "exec 9>>\"$1\"; flock 9; : > \"$2\"; exec sleep 100";
        let mut command = scene.place.command("sh");
        command.args(["-c", script, "sh"]).arg(path).arg(&ready);
        let running = Running::start(&mut command);
        until("the lock is held", || ready.exists());
        Self(Some(running))
    }
}

/// Another program that writes to the store's database until it is dropped.
struct Writer(Child);

impl Writer {
    fn of(scene: &Scene<'_>) -> Self {
        scene.drv("hello");
        let ready = scene.place.at("writing");
        let mut command = scene.place.command("sqlite3");
        command.arg(scene.nix.root().join("nix/var/nix/db/db.sqlite"));
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut orders = child.stdin.as_ref().expect("it is a pipe");
        writeln!(orders, "begin immediate;\n.shell : > {}", ready.display()).unwrap();
        until("the database is held", || ready.exists());
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It ends with what it reads.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.signal(Signal::TERM);
            running.end();
        }
    }
}
