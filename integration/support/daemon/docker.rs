//! `dockerd`: its configuration, its command, and what its client says of it.
//!
//! It starts a containerd for itself. No firewall rule is made: in a network namespace without a
//! way out there is nothing to translate, and no rule of the machine's can be meant.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use fs_err as fs;
use pontoon::engine::device::Users;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Daemon, Kind, get};
use crate::support::run;

/// What Debian's packages hold.
pub(super) fn debian() -> &'static Path {
    static DEBIAN: OnceLock<PathBuf> = OnceLock::new();
    DEBIAN.get_or_init(|| get("debian"))
}

/// The directory of dockerd 29.
fn newest() -> &'static Path {
    static NEWEST: OnceLock<PathBuf> = OnceLock::new();
    NEWEST.get_or_init(|| get("docker29"))
}

/// Docker's command.
pub(super) fn client() -> PathBuf {
    debian().join("usr/bin/docker")
}

pub(super) fn configure(kind: Kind, directory: &Path, more: &Value) {
    let mut settings = json!({
        "debug": true,
        "data-root": directory.join("root"),
        "exec-root": directory.join("exec"),
        "pidfile": directory.join("pid"),
        "hosts": [format!("unix://{}", directory.join("socket").display())],
        "iptables": false,
        "ip6tables": false,
        "ip-masq": false,
        "userland-proxy": false,
        "builder": { "gc": { "enabled": false } },
    });
    match kind {
        Kind::Docker20Bare => settings["bridge"] = json!("none"),
        Kind::Docker29Strong => {
            let granted = super::setup(directory, Users::Own).daemon_json();
            let granted: Value = serde_json::from_str(&granted).unwrap();
            settings["features"] = granted["features"].clone();
            settings["cdi-spec-dirs"] = granted["cdi-spec-dirs"].clone();
            settings["builder"]["entitlements"] = granted["builder"]["entitlements"].clone();
        }
        Kind::Docker20 | Kind::Docker29 => {}
        Kind::BuildKit | Kind::BuildKitStrong | Kind::BuildKitDevice => {
            unreachable!("it is no dockerd")
        }
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    fs::write(directory.join("daemon.json"), settings.to_string()).unwrap();
}

pub(super) fn command(kind: Kind, directory: &Path, command: &mut Command) {
    let debian = debian();
    let program = match kind {
        Kind::Docker20 | Kind::Docker20Bare => debian.join("usr/sbin/dockerd"),
        _ => newest().join("dockerd"),
    };
    let below = debian.display();
    command
        .arg(program)
        .arg("--config-file")
        .arg(directory.join("daemon.json"))
        .env(
            "PATH",
            format!("{below}/usr/sbin:{below}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        )
        .env("LD_LIBRARY_PATH", debian.join("lib/x86_64-linux-gnu"));
}

/// Whether it answers.
pub(super) fn serves(daemon: &Daemon<'_>) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// Where it keeps what ops write, and where in each.
pub(super) fn snapshots(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Docker20 | Kind::Docker20Bare => ("root/overlay2", "diff"),
        _ => (
            "root/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots",
            "fs",
        ),
    }
}

pub(super) fn records(daemon: &Daemon<'_>) -> BTreeMap<String, String> {
    let mut command = daemon.docker(&["system", "df", "-v", "--format", "{{json .BuildCache}}"]);
    let said = run(&mut command).ok().stdout;
    let all: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let all = all.as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            (text("ID"), text("CacheType") + ": " + &text("Description"))
        })
        .collect()
}

/// Ends the containerd of a dockerd that is gone. It dies with it anyway; but where process 1 is
/// slow to reap, its number looks alive, and the next dockerd would wait for it.
pub(super) fn end_containerd(directory: &Path) {
    let file = directory.join("exec/containerd/containerd.pid");
    let pid = fs::read_to_string(&file).ok();
    let pid = pid.and_then(|text| text.trim().parse().ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return;
    };
    // The number may be another's by now.
    let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let place = directory.as_os_str().as_encoded_bytes();
    if arguments.windows(place.len()).any(|part| part == place) {
        kill_process(pid, Signal::KILL).ok();
    }
    fs::remove_file(file).ok();
}
