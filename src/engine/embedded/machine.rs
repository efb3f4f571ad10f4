//! Who ops and builders are on this machine.
//!
//! | the caller | ops are | builders are |
//! |---|---|---|
//! | root, and a group `nixbld` with members | root | those members, under Nix's own locks |
//! | root, no such group | root | uids from [`STATED_BASE`] on, under locks in the same place |
//! | a user with a subordinate range and `newuidmap` | root of a user namespace with that range | uids from [`STATED_BASE`] on, inside it |
//! | any other user | root of a user namespace with one id | that one id: the user |
//!
//! No builder is the host's user 0 in any row.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::agent::{USER_POOL, USERS};
use crate::engine::{Device, DeviceAccess, DeviceMount};
use crate::sandbox::ids;

/// The first uid of builders where no group says who they are.
pub const STATED_BASE: u32 = 51_000;
/// How many there are.
const STATED_COUNT: u32 = 64;
/// Nix's place for the locks of build users, for every store of a machine.
const MACHINE_POOL: &str = "/nix/var/nix/userpool";
/// Nix's group of build users.
const GROUP: &str = "nixbld";

/// The ids an op's processes have on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserMapping {
    /// Those of the caller, who is root.
    Root,
    /// One: the caller's.
    Single {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// The caller's and a subordinate range.
    Subordinate {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// First and count of the user ids.
        uids: (u32, u32),
        /// First and count of the group ids.
        gids: (u32, u32),
    },
}

/// What is known of the machine's accounts, as text, so that the decision can be tested.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
    /// `/etc/subuid`.
    pub subuid: String,
    /// `/etc/subgid`.
    pub subgid: String,
    /// Whether `newuidmap` and `newgidmap` are installed.
    pub has_newuidmap: bool,
}

impl Accounts {
    /// Reads the machine's; a file that is not there is empty.
    pub fn of_this_machine() -> Self {
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let installed = |name: &str| {
            [
                "/usr/bin",
                "/bin",
                "/usr/sbin",
                "/sbin",
                "/run/wrappers/bin",
            ]
            .iter()
            .any(|directory| Path::new(directory).join(name).exists())
        };
        Self {
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
            subuid: read("/etc/subuid"),
            subgid: read("/etc/subgid"),
            has_newuidmap: installed("newuidmap") && installed("newgidmap"),
        }
    }

    /// Decides the mapping for a caller.
    pub fn mapping(&self, uid: u32, gid: u32) -> UserMapping {
        if uid == 0 {
            return UserMapping::Root;
        }
        let name = ids::user_name(&self.passwd, uid).unwrap_or_default();
        let uids = ids::subordinate(&self.subuid, &name, uid);
        let gids = ids::subordinate(&self.subgid, &name, uid);
        // The range has to reach the builders' ids, which start at the same number everywhere.
        let enough = STATED_BASE + STATED_COUNT + 2000;
        match (uids, gids) {
            (Some(uids), Some(gids))
                if self.has_newuidmap && uids.count > enough && gids.count > enough =>
            {
                UserMapping::Subordinate {
                    uid,
                    gid,
                    uids: (uids.start, uids.count),
                    gids: (gids.start, gids.count),
                }
            }
            _ => UserMapping::Single { uid, gid },
        }
    }

    /// Returns what the store's device adds for the builders: the variable that names them and
    /// the mount of their locks.
    pub fn builders(&self, mapping: UserMapping, nix_dir: &Path) -> Builders {
        match mapping {
            UserMapping::Single { .. } => Builders {
                variable: "single".to_owned(),
                locks: None,
            },
            UserMapping::Root => {
                let members =
                    ids::build_users(&self.group, &self.passwd, GROUP).unwrap_or_default();
                let variable = match members.first() {
                    Some(first) => {
                        let uids: Vec<String> =
                            members.iter().map(|user| user.uid.to_string()).collect();
                        format!("pool {} {}", first.gid, uids.join(","))
                    }
                    None => stated(),
                };
                Builders {
                    variable,
                    locks: Some(PathBuf::from(MACHINE_POOL)),
                }
            }
            UserMapping::Subordinate { .. } => Builders {
                variable: stated(),
                locks: Some(nix_dir.join("pontoon/userpool")),
            },
        }
    }
}

fn stated() -> String {
    let uids: Vec<String> = (STATED_BASE..STATED_BASE + STATED_COUNT)
        .map(|uid| uid.to_string())
        .collect();
    format!("pool {STATED_BASE} {}", uids.join(","))
}

/// Who builders are, for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builders {
    /// The value of the agent's variable.
    pub variable: String,
    /// The directory of the locks.
    pub locks: Option<PathBuf>,
}

impl Builders {
    /// Returns the device that is a store: its mount at `/nix`, its builders and their locks.
    pub fn store_device(&self, name: &str, nix_dir: &Path) -> Device {
        let mut device = Self::bind(name, nix_dir);
        device
            .mounts
            .extend(self.locks.iter().map(|locks| DeviceMount {
                host: locks.clone(),
                container: PathBuf::from(USER_POOL),
                access: DeviceAccess::ReadWrite,
            }));
        device
            .environment
            .push((USERS.to_owned(), self.variable.clone()));
        device
    }

    /// Returns the device that is a store and says nothing of builders.
    pub fn bind(name: &str, nix_dir: &Path) -> Device {
        Device {
            name: name.to_owned(),
            mounts: vec![DeviceMount {
                host: nix_dir.to_path_buf(),
                container: PathBuf::from("/nix"),
                access: DeviceAccess::ReadWrite,
            }],
            environment: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nann:x:1234:1234::/home/ann:/bin/sh\n\
                nixbld1:x:999:994::/var/empty:/bin/false\nnixbld2:x:998:994::/x:/bin/false\n"
                .to_owned(),
            group: "root:x:0:\nnixbld:x:994:nixbld1,nixbld2\n".to_owned(),
            subuid: "ann:100000:65536\n".to_owned(),
            subgid: "ann:200000:65536\n".to_owned(),
            has_newuidmap: true,
        }
    }

    #[test]
    fn root_builds_as_the_members_of_the_build_group() {
        let builders = accounts().builders(UserMapping::Root, Path::new("/s/nix"));
        assert_eq!(builders.variable, "pool 994 999,998");
        assert_eq!(builders.locks, Some(PathBuf::from("/nix/var/nix/userpool")));
    }

    #[test]
    fn root_without_a_build_group_uses_the_stated_range() {
        let accounts = Accounts {
            group: String::new(),
            ..accounts()
        };
        let builders = accounts.builders(UserMapping::Root, Path::new("/s/nix"));
        assert!(builders.variable.starts_with("pool 51000 51000,51001,"));
    }

    #[test]
    fn a_user_with_a_range_gets_it() {
        let mapping = accounts().mapping(1234, 1234);
        let expected = UserMapping::Subordinate {
            uid: 1234,
            gid: 1234,
            uids: (100_000, 65_536),
            gids: (200_000, 65_536),
        };
        assert_eq!(mapping, expected);
    }

    #[test]
    fn a_user_without_newuidmap_is_alone() {
        let accounts = Accounts {
            has_newuidmap: false,
            ..accounts()
        };
        assert_eq!(
            accounts.mapping(1234, 5),
            UserMapping::Single { uid: 1234, gid: 5 }
        );
    }
}
