//! A daemon with a store, and what befalls it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pontoon::llb::{
    Access, CachePolicy, Definition, Exec, Metadata, Mount, MountKind, Network, Security, Sharing,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    BuildUsers, Daemon, Kind, Nix, Place, Ran, Running, processes_with, run, until,
};

/// A daemon, a store to evaluate in, and in it the shell of every builder.
pub(crate) struct Scene<'p> {
    pub(crate) place: &'p Place,
    pub(crate) daemon: Daemon<'p>,
    pub(crate) nix: Nix<'p>,
    paths: String,
}

impl<'p> Scene<'p> {
    pub(crate) fn new(place: &'p Place) -> Self {
        Self::of(Kind::BuildKit, place)
    }

    pub(crate) fn of(kind: Kind, place: &'p Place) -> Self {
        Self::around(place, |place| Daemon::of(kind, place))
    }

    /// With a daemon that is started once the place has what it needs.
    pub(crate) fn around(place: &'p Place, daemon: impl FnOnce(&'p Place) -> Daemon<'p>) -> Self {
        let nix = Nix::new(place, "evaluated", BuildUsers::Nobody);
        let added = run(&mut nix.command("nix-store", &["--add", "/bin/busybox"])).ok();
        let shell = added.stdout.trim();
        let paths = ["sh", "sleep", "cat", "wget"].map(|name| format!("/bin/{name}={shell}"));
        Self {
            place,
            daemon: daemon(place),
            nix,
            paths: paths.join(" "),
        }
    }

    pub(crate) fn pontoon(&self, arguments: &[&str]) -> Command {
        let mut command = self.nix.pontoon(arguments);
        command.args(["--json", "--sandbox-paths", &self.paths]);
        self.daemon.serve(&mut command);
        command
    }

    /// Starts a pipeline written as an expression.
    pub(crate) fn start(&self, pipeline: &str) -> Running {
        Running::start(&mut self.pontoon(&["run", "-j", "2", "--expr", pipeline]))
    }

    /// Every copy of the store that the daemon has, as directories on disk.
    pub(crate) fn copies(&self) -> Vec<PathBuf> {
        let snapshots = "daemon/root/runc-overlayfs/snapshots/snapshots";
        let snapshots = fs_err::read_dir(self.place.at(snapshots)).unwrap();
        snapshots
            .map(|entry| entry.unwrap().path().join("fs"))
            .filter(|directory| directory.join("pontoon/identity").exists())
            .collect()
    }

    /// Checks that real Nix finds nothing wrong with any copy of the store.
    pub(crate) fn verify(&self) {
        let copies = self.copies();
        assert!(!copies.is_empty());
        let root = self.place.at("verified");
        fs_err::create_dir_all(root.join("nix")).unwrap();
        let nix = self.nix.on(&root);
        let check = nix.command("nix-store", &["--verify", "--check-contents"]);
        for copy in copies {
            let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
            let mut command = self.place.command("unshare");
            command
                .args(["--mount", "sh", "-ec", script, "sh"])
                .arg(copy)
                .arg(root.join("nix"))
                .arg(check.get_program())
                .args(check.get_args())
                .env("NIX_CONF_DIR", nix.configuration());
            let ran = run(&mut command).ok();
            for word in ["disappeared", "modified", "error"] {
                assert!(!ran.stderr.contains(word), "{}", ran.report());
            }
        }
    }

    /// What another client's build with `--no-cache` and a cache mount of its own does to ours.
    pub(crate) fn fork(&self) {
        let file = self.place.write("foreign.pb", foreign());
        let client = self
            .daemon
            .buildctl(&["build", "--no-cache", "--progress", "plain"]);
        let mut command = self.place.command("sh");
        command
            .args(["-c", "file=$1; shift; exec \"$@\" < \"$file\"", "sh"])
            .arg(file)
            .arg(client.get_program())
            .args(client.get_args());
        // There is no such program: the cache mounts are forgotten before that shows.
        let ran = run(&mut command);
        assert!(ran.stderr.contains("/none"), "{}", ran.report());
    }
}

/// An op with a cache mount that has nothing to do with us.
fn foreign() -> Vec<u8> {
    let mount = |dest: &str, kind, output| Mount {
        dest: dest.to_owned(),
        kind,
        access: Access::ReadWrite,
        selector: None,
        input: None,
        output,
    };
    let cache = MountKind::Cache {
        id: "foreign".to_owned(),
        sharing: Sharing::Shared,
    };
    let exec = Exec {
        args: vec!["/none".to_owned()],
        env: vec![],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: None,
        mounts: vec![
            mount("/", MountKind::Scratch, Some(0)),
            mount("/cache", cache, None),
        ],
        network: Network::None,
        security: Security::Sandbox,
        devices: vec![],
        inputs: vec![],
    };
    let metadata = Metadata {
        custom_name: None,
        progress_group: None,
        cache: CachePolicy::Use,
        caps: std::collections::BTreeSet::new(),
    };
    let mut definition = Definition::new();
    let op = definition.exec(exec, metadata).unwrap();
    definition.marshal(&op.output(0)).unwrap()
}

/// Builds and effects that sleep until they are let go; their environment tells them from those of
/// other tests.
pub(crate) struct Gate {
    pub(crate) marker: String,
    open: Arc<AtomicBool>,
    porter: Option<JoinHandle<()>>,
}

impl Gate {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            marker: format!("{name}-{}", std::process::id()),
            open: Arc::default(),
            porter: None,
        }
    }

    /// Waits until so many sleep.
    pub(crate) fn wait(&self, sleepers: usize) {
        until("they sleep", || sleeping(&self.marker).len() == sleepers);
    }

    /// Lets all go, from now on.
    pub(crate) fn open(&mut self) {
        let (marker, closed) = (self.marker.clone(), Arc::clone(&self.open));
        self.porter = Some(std::thread::spawn(move || {
            while !closed.load(Ordering::Relaxed) {
                for pid in sleeping(&marker) {
                    kill(pid);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open.store(true, Ordering::Relaxed);
        if let Some(porter) = self.porter.take() {
            porter.join().ok();
        }
    }
}

pub(crate) fn sleeping(marker: &str) -> Vec<u32> {
    let found = processes_with(&format!("MARKER={marker}"));
    let sleepers = found
        .iter()
        .filter(|(_, line)| line.starts_with("sleep 600"));
    sleepers.map(|(pid, _)| *pid).collect()
}

pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    kill_process(pid.expect("a process id is positive"), Signal::KILL).ok();
}

pub(crate) fn events<'e>(ran: &'e [Value], kind: &'e str) -> impl Iterator<Item = &'e Value> {
    ran.iter().filter(move |event| event["event"] == kind)
}

/// What was said to be lost, in order.
pub(crate) fn lost(ran: &Ran) -> Vec<String> {
    let lines = ran.json_lines();
    let all = events(&lines, "lost").map(|event| event["what"].as_str().unwrap().to_owned());
    all.collect()
}

/// The last outcome of every node, by its name.
pub(crate) fn last_outcomes(ran: &Ran) -> BTreeMap<String, String> {
    let lines = ran.json_lines();
    let all = events(&lines, "node-finished").map(|event| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&event["name"]), text(&event["outcome"]["outcome"]))
    });
    all.collect()
}

/// A chain of three builds, the first of which waits at the gate; then effects.
pub(crate) fn chain(gate: &Gate, effects: &str) -> String {
    format!(
        r#"let
          node = name: script: derivation {{
            inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
            MARKER = "{marker}"; args = [ "-c" "${{script}}; echo ${{name}} > $out" ];
          }};
          a = node "a" "sleep 600";
          b = node "b" "cat ${{a}}";
          c = node "c" "cat ${{b}}";
          effect = script: {{
            command = [ "/bin/sh" "-c" script ];
            environment = {{ MARKER = "{marker}"; PATH = "/bin"; }};
          }};
        in {{ builds = {{ inherit a b c; }}; {effects} }}"#,
        marker = gate.marker
    )
}
