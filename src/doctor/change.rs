//! Lines of configuration that make more possible, ready to be written.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::doctor::Kind;
use crate::engine::device::{Setup, USUAL_DIRECTORY, Users};
use crate::engine::embedded::machine::Accounts;

/// What a file has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is for: a few words.
    pub reason: String,
    /// The file, on the machine of the daemon.
    pub path: PathBuf,
    /// How much of the file it is.
    pub extent: Extent,
    /// The text.
    pub text: String,
}

/// How much of a file a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it: a file of ours.
    Whole,
    /// A part: what else is there stays.
    Part,
}

impl Extent {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
        }
    }
}

/// Where strong's store will be, if nobody says.
pub const USUAL_STORE: &str = "/var/lib/pontoon/nix";

/// How a daemon's machine would have a strong shape with its store in `nix_dir`.
pub fn setup(nix_dir: Option<&Path>) -> Setup {
    let nix_dir = nix_dir.unwrap_or(Path::new(USUAL_STORE));
    Setup {
        nix_dir: nix_dir.to_path_buf(),
        // Only in the store of a Nix do both build for the same paths.
        users: if nix_dir == Path::new("/nix") {
            Users::Machine
        } else {
            Users::Own
        },
        directory: PathBuf::from(USUAL_DIRECTORY),
    }
}

/// What a daemon needs so that it allows the strong shape.
pub fn strong(kind: Kind, setup: &Setup, accounts: &Accounts) -> Vec<Change> {
    let reason = "the strong shape".to_owned();
    let device = setup.specification(accounts);
    let settings = match kind {
        Kind::Embedded => return Vec::new(),
        Kind::Buildkitd => setup.buildkitd_toml(),
        Kind::Dockerd => setup.daemon_json(),
    };
    vec![
        Change {
            reason: reason.clone(),
            path: device.path,
            extent: Extent::Whole,
            text: device.text,
        },
        Change {
            reason,
            path: configuration(kind),
            extent: Extent::Part,
            text: settings,
        },
    ]
}

/// What a daemon without a network for ops needs so that they may use that of its host.
pub fn host_network(kind: Kind) -> Change {
    let text = match kind {
        Kind::Dockerd => {
            let settings = json!({ "builder": { "entitlements": { "network-host": true } } });
            format!("{settings:#}\n")
        }
        Kind::Embedded | Kind::Buildkitd => {
            "insecure-entitlements = [\"network.host\"]\n".to_owned()
        }
    };
    Change {
        reason: "a network for fixed-output builds and effects, that of the host".to_owned(),
        path: configuration(kind),
        extent: Extent::Part,
        text,
    }
}

/// Rules of a collector that neither remove nor measure the store: what is a week old goes.
pub fn collection(kind: Kind, executor: &str) -> Change {
    let types = [
        "regular",
        "internal",
        "frontend",
        "source.local",
        "source.git.checkout",
    ];
    let text = match kind {
        Kind::Dockerd => {
            let rules = types.map(|kind| {
                json!({ "all": true, "filter": [format!("type={kind}"), "unused-for=168h"] })
            });
            let settings = json!({ "builder": { "gc": { "enabled": true, "policy": rules } } });
            format!("{settings:#}\n")
        }
        Kind::Embedded | Kind::Buildkitd => {
            let filters = types.map(|kind| format!("\"type=={kind}\"")).join(", ");
            format!(
                "[worker.{executor}]\n  gc = true\n  [[worker.{executor}.gcpolicy]]\n    \
                 all = true\n    keepDuration = \"168h\"\n    filters = [{filters}]\n"
            )
        }
    };
    Change {
        reason: "a collector that spares a store in a cache mount".to_owned(),
        path: configuration(kind),
        extent: Extent::Part,
        text,
    }
}

fn configuration(kind: Kind) -> PathBuf {
    PathBuf::from(match kind {
        Kind::Embedded | Kind::Buildkitd => "/etc/buildkit/buildkitd.toml",
        Kind::Dockerd => "/etc/docker/daemon.json",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_told_to_spare_the_store() {
        insta::assert_snapshot!(collection(Kind::Buildkitd, "oci").text, @r#"
        [worker.oci]
          gc = true
          [[worker.oci.gcpolicy]]
            all = true
            keepDuration = "168h"
            filters = ["type==regular", "type==internal", "type==frontend", "type==source.local", "type==source.git.checkout"]
        "#);
        insta::assert_snapshot!(collection(Kind::Dockerd, "").text.lines().take(12).collect::<Vec<_>>().join("\n"), @r#"
        {
          "builder": {
            "gc": {
              "enabled": true,
              "policy": [
                {
                  "all": true,
                  "filter": [
                    "type=regular",
                    "unused-for=168h"
                  ]
                },
        "#);
    }

    #[test]
    fn ops_are_let_to_the_network_of_the_host() {
        insta::assert_snapshot!(host_network(Kind::Buildkitd).text, @r#"insecure-entitlements = ["network.host"]"#);
        insta::assert_snapshot!(host_network(Kind::Dockerd).text, @r#"
        {
          "builder": {
            "entitlements": {
              "network-host": true
            }
          }
        }
        "#);
    }

    #[test]
    fn a_store_of_nix_is_built_in_as_its_users() {
        assert_eq!(setup(Some(Path::new("/nix"))).users, Users::Machine);
        assert_eq!(setup(None).users, Users::Own);
        let changes = strong(Kind::Buildkitd, &setup(None), &Accounts::default());
        let shown: Vec<String> = changes
            .iter()
            .map(|change| format!("{} {}", change.extent.word(), change.path.display()))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @"
        whole /etc/cdi/pontoon.json
        part /etc/buildkit/buildkitd.toml
        ");
    }
}
