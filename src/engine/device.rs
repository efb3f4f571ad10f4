//! The store as a device of a daemon: what its configuration has to say, as files.
//!
//! A CDI device ([`STORE_DEVICE`]) binds a directory of the daemon's machine at `/nix` of every op
//! that asks for it (BuildKit spec §2.9). Unlike a cache mount no pruning, collection or `--no-cache`
//! of anybody's touches it, and real Nix can use the same directory as a store.
//!
//! | builders are | the device brings | for a machine |
//! |---|---|---|
//! | [`Users::Machine`] | the members of `nixbld` (or a stated range) and the locks of the machine's users | with a Nix of its own: each user builds for one of the two at a time |
//! | [`Users::Own`] | nothing | any: 52000 and up, one for each slot, whom nobody else uses |
//!
//! It has to be one of the two, because a host's Nix kills every process of a user around its own
//! builds, also those in containers (BuildKit spec §13.5).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::engine::embedded::machine::{Accounts, Builders, UserMapping};
use crate::engine::lower::STORE_DEVICE;
use crate::engine::{Device, DeviceAccess};

/// Where daemons look for devices without being told.
pub const USUAL_DIRECTORY: &str = "/etc/cdi";
/// The device's annotation that says where its store lies on the daemon's machine.
pub const PLACE: &str = "pontoon.dev/nix-directory";

/// Who builders are in a store that is a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// The machine's build users, under the locks of its own Nix.
    Machine,
    /// Users of the store's own, disjoint from `nixbld`.
    Own,
}

/// What a daemon's machine needs for the strong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The directory that becomes `/nix`.
    pub nix_dir: PathBuf,
    /// Who builders are.
    pub users: Users,
    /// Where the daemon looks for devices.
    pub directory: PathBuf,
}

/// A text that belongs into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

impl Setup {
    /// Returns the device, for a machine with these accounts.
    pub fn device(&self, accounts: &Accounts) -> Device {
        match self.users {
            Users::Machine => accounts
                .builders(UserMapping::Root, &self.nix_dir)
                .store_device(STORE_DEVICE, &self.nix_dir),
            // An agent that is told nothing takes the user of its slot.
            Users::Own => Builders::bind(STORE_DEVICE, &self.nix_dir),
        }
    }

    /// Returns the directories that have to be there before the first op.
    pub fn directories(&self, accounts: &Accounts) -> Vec<PathBuf> {
        let mounts = self.device(accounts).mounts;
        mounts.into_iter().map(|mount| mount.host).collect()
    }

    /// Writes the device as a CDI specification.
    pub fn specification(&self, accounts: &Accounts) -> File {
        let device = self.device(accounts);
        let (kind, name) = STORE_DEVICE.split_once('=').expect("it has a name");
        let mounts: Vec<Value> = device
            .mounts
            .iter()
            .map(|mount| {
                let access = match mount.access {
                    DeviceAccess::ReadOnly => "ro",
                    DeviceAccess::ReadWrite => "rw",
                };
                json!({
                    "hostPath": mount.host,
                    "containerPath": mount.container,
                    // With `rbind` a store that its machine mounts read-only stays so (spec §13.5).
                    "options": ["bind", access, "nosuid", "nodev"],
                })
            })
            .collect();
        let environment = device.environment.iter();
        let environment: Vec<String> = environment.map(|(k, v)| format!("{k}={v}")).collect();
        let mut edits = Map::from_iter([("mounts".to_owned(), Value::from(mounts))]);
        if !environment.is_empty() {
            edits.insert("env".to_owned(), Value::from(environment));
        }
        let specification = json!({
            "cdiVersion": "0.6.0",
            "kind": kind,
            "devices": [{
                "name": name,
                "annotations": {
                    // Who may solve on the daemon can grant it to himself anyway, and dockerd 28
                    // knows no other way.
                    "org.mobyproject.buildkit.device.autoallow": "true",
                    PLACE: self.nix_dir,
                },
                "containerEdits": edits,
            }],
        });
        File {
            path: self.directory.join("pontoon.json"),
            text: pretty(&specification),
        }
    }

    /// Writes the lines that `buildkitd.toml` needs.
    pub fn buildkitd_toml(&self) -> String {
        let directory = if self.directory == Path::new(USUAL_DIRECTORY) {
            String::new()
        } else {
            format!("  specDirs = [{}]\n", json!(self.directory))
        };
        format!(
            "insecure-entitlements = [\"security.insecure\"]\n\n[cdi]\n  disabled = false\n{directory}"
        )
    }

    /// Writes what dockerd's `daemon.json` needs.
    pub fn daemon_json(&self) -> String {
        let mut settings = json!({
            "features": { "cdi": true },
            "builder": { "entitlements": { "security-insecure": true } },
        });
        if self.directory != Path::new(USUAL_DIRECTORY) {
            settings["cdi-spec-dirs"] = json!([self.directory]);
        }
        pretty(&settings)
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(users: Users) -> Setup {
        Setup {
            nix_dir: PathBuf::from("/srv/pontoon/nix"),
            users,
            directory: PathBuf::from("/srv/cdi"),
        }
    }

    fn accounts() -> Accounts {
        Accounts {
            passwd: "nixbld1:x:999:994::/:/x\nnixbld2:x:998:994::/:/x\n".to_owned(),
            group: "nixbld:x:994:nixbld1,nixbld2\n".to_owned(),
            ..Accounts::default()
        }
    }

    #[test]
    fn the_machines_users_come_with_their_locks() {
        let setup = setup(Users::Machine);
        let file = setup.specification(&accounts());
        assert_eq!(file.path, PathBuf::from("/srv/cdi/pontoon.json"));
        insta::assert_snapshot!(file.text, @r#"
        {
          "cdiVersion": "0.6.0",
          "devices": [
            {
              "annotations": {
                "org.mobyproject.buildkit.device.autoallow": "true",
                "pontoon.dev/nix-directory": "/srv/pontoon/nix"
              },
              "containerEdits": {
                "env": [
                  "PONTOON_BUILD_USERS=pool 994 999,998"
                ],
                "mounts": [
                  {
                    "containerPath": "/nix",
                    "hostPath": "/srv/pontoon/nix",
                    "options": [
                      "bind",
                      "rw",
                      "nosuid",
                      "nodev"
                    ]
                  },
                  {
                    "containerPath": "/.pontoon/userpool",
                    "hostPath": "/nix/var/nix/userpool",
                    "options": [
                      "bind",
                      "rw",
                      "nosuid",
                      "nodev"
                    ]
                  }
                ]
              },
              "name": "nix"
            }
          ],
          "kind": "pontoon.dev/store"
        }
        "#);
        let directories = setup.directories(&accounts());
        let expected = ["/srv/pontoon/nix", "/nix/var/nix/userpool"];
        assert_eq!(directories, expected.map(PathBuf::from));
    }

    #[test]
    fn users_of_its_own_need_nothing_but_the_store() {
        let setup = setup(Users::Own);
        let file = setup.specification(&accounts());
        let text: Value = serde_json::from_str(&file.text).unwrap();
        let edits = &text["devices"][0]["containerEdits"];
        assert_eq!(edits.get("env"), None);
        assert_eq!(edits["mounts"].as_array().unwrap().len(), 1);
        assert_eq!(edits["mounts"][0]["containerPath"], "/nix");
    }

    #[test]
    fn daemons_are_told_where_to_look_if_it_is_not_the_usual_place() {
        let elsewhere = setup(Users::Own);
        let usual = Setup {
            directory: PathBuf::from(USUAL_DIRECTORY),
            ..setup(Users::Own)
        };
        assert!(
            elsewhere
                .buildkitd_toml()
                .contains("specDirs = [\"/srv/cdi\"]")
        );
        assert!(elsewhere.daemon_json().contains("\"/srv/cdi\""));
        insta::assert_snapshot!(usual.buildkitd_toml() + &usual.daemon_json(), @r#"
        insecure-entitlements = ["security.insecure"]

        [cdi]
          disabled = false
        {
          "builder": {
            "entitlements": {
              "security-insecure": true
            }
          },
          "features": {
            "cdi": true
          }
        }
        "#);
    }
}
