//! `buildkitd`: its configuration, its command, and what its client says of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fs_err as fs;
use pontoon::engine::device::Users;
use serde_json::Value;

use super::{Daemon, Kind, get};
use crate::support::run;

/// The directory of `buildkitd` and `buildctl`, built once for all tests and checkouts.
pub(super) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| get("buildkit"))
}

pub(super) fn configure(kind: Kind, directory: &Path, lines: &str) {
    let below = directory.display();
    let granted = match kind {
        Kind::BuildKitStrong => super::setup(directory, Users::Own).buildkitd_toml(),
        Kind::BuildKitDevice => {
            let granted = super::setup(directory, Users::Own).buildkitd_toml();
            let (_, devices) = granted.split_once("\n\n").expect("it has two parts");
            devices.to_owned()
        }
        _ => "[cdi]\n  disabled = true\n".to_owned(),
    };
    let configuration = format!(
        "debug = true\nroot = \"{below}/root\"\n{granted}\
         [grpc]\n  address = [\"unix://{below}/socket\"]\n\
         [otel]\n  socketPath = \"{below}/otel\"\n\
         [worker.containerd]\n  enabled = false\n\
         [worker.oci]\n  snapshotter = \"overlayfs\"\n  networkMode = \"host\"\n  \
         binary = \"runc\"\n"
    );
    // A table is opened once: what is said of collection goes on where the last one ends.
    let collection = if lines.contains("gcpolicy") {
        ""
    } else {
        "  gc = false\n"
    };
    let text = configuration + collection + lines;
    fs::write(directory.join("buildkitd.toml"), text).unwrap();
}

pub(super) fn command(directory: &Path, command: &mut Command) {
    command
        .arg(programs().join("buildkitd"))
        .arg("--config")
        .arg(directory.join("buildkitd.toml"));
}

pub(super) fn records(daemon: &Daemon<'_>) -> BTreeMap<String, String> {
    let mut command = daemon.buildctl(&["du", "--format", "{{json .}}"]);
    let said = run(&mut command).ok().stdout;
    let all: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let all = all.as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            (text("id"), text("recordType") + ": " + &text("description"))
        })
        .collect()
}
