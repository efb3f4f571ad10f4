//! Who a builder is: never the host's user 0 where there is a choice.
//!
//! | value of the op's variable | builders are |
//! |---|---|
//! | `pool GID UID,UID,…` | members of Nix's build group, or of a stated range, each taken under its lock |
//! | `single` | the one user there is (a user namespace with a single id) |
//! | absent (plain) | 52000 plus the slot's number: disjoint from `nixbld`, whose locks the op cannot see |
//!
//! The locks are Nix's own (`userpool/<uid>`, Nix spec §4.1), because real Nix kills every process
//! of a uid around its builds.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

/// The first uid of plain builders.
pub const PLAIN_BASE: u32 = 52_000;

/// The users an agent may build as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// Any of these, under its lock.
    Pool {
        /// Their group.
        gid: u32,
        /// The users.
        uids: Vec<u32>,
        /// Where the locks are.
        locks: PathBuf,
    },
    /// The only one: user 0 of a namespace, who is an ordinary user of the machine.
    Single,
    /// [`PLAIN_BASE`] plus the slot's number.
    BySlot,
}

/// A user that is ours until this is dropped.
#[derive(Debug)]
pub struct BuildUser {
    /// Its user id, as the agent sees it.
    pub uid: u32,
    /// Its group id, as the agent sees it.
    pub gid: u32,
    /// Whether the process is really another user than the agent.
    pub separate: bool,
    _lock: Option<OwnedFd>,
}

/// No user could be had.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// A lock file cannot be opened.
    #[error("cannot open the lock of build user {uid} at `{path}`")]
    Open {
        /// The user.
        uid: u32,
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Every user is taken.
    #[error("all {count} build users are taken by other builds")]
    AllTaken {
        /// How many there are.
        count: usize,
    },
}

impl Users {
    /// Reads the op's variable.
    pub fn read(value: Option<&str>) -> Self {
        let Some(value) = value else {
            return Self::BySlot;
        };
        let mut words = value.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("pool"), Some(gid), Some(uids)) => Self::Pool {
                gid: gid.parse().unwrap_or(65_534),
                uids: uids.split(',').filter_map(|uid| uid.parse().ok()).collect(),
                locks: PathBuf::from(super::USER_POOL),
            },
            _ => Self::Single,
        }
    }

    /// Takes a user for a build in `slot`.
    pub fn acquire(&self, slot: u32) -> Result<BuildUser, UsersError> {
        match self {
            Self::Single => Ok(BuildUser {
                uid: 0,
                gid: 0,
                separate: false,
                _lock: None,
            }),
            Self::BySlot => {
                let uid = PLAIN_BASE + slot;
                Ok(BuildUser {
                    uid,
                    gid: uid,
                    separate: true,
                    _lock: None,
                })
            }
            Self::Pool { gid, uids, locks } => {
                for uid in uids {
                    if let Some(lock) = try_lock(locks, *uid)? {
                        return Ok(BuildUser {
                            uid: *uid,
                            gid: *gid,
                            separate: true,
                            _lock: Some(lock),
                        });
                    }
                }
                Err(UsersError::AllTaken { count: uids.len() })
            }
        }
    }
}

fn try_lock(locks: &Path, uid: u32) -> Result<Option<OwnedFd>, UsersError> {
    let path = locks.join(uid.to_string());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file =
        open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|error| UsersError::Open {
            uid,
            path,
            source: error.into(),
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_pool() {
        let users = Users::read(Some("pool 994 999,998"));
        let Users::Pool { gid, uids, .. } = users else {
            panic!("not a pool")
        };
        assert_eq!((gid, uids), (994, vec![999, 998]));
    }

    #[test]
    fn gives_a_user_to_one_build_at_a_time() {
        let locks = tempfile::tempdir().unwrap();
        let users = Users::Pool {
            gid: 1,
            uids: vec![7, 8],
            locks: locks.path().to_path_buf(),
        };
        let first = users.acquire(0).unwrap();
        let second = users.acquire(1).unwrap();
        assert_eq!((first.uid, second.uid), (7, 8));
        assert!(matches!(
            users.acquire(2),
            Err(UsersError::AllTaken { count: 2 })
        ));
        drop(first);
        assert_eq!(users.acquire(2).unwrap().uid, 7);
    }
}
