//! From a decoded exec op to a cage: what `runc` is to a daemon.
//!
//! The parts of BuildKit's container that an op of ours can see are there (BuildKit spec §2.1):
//! private process, IPC and UTS namespaces, `/proc`, `/dev`, `/etc/hosts` and `/etc/resolv.conf`.
//! Left out: `/sys`, cgroups, the capability set; the agent uses none of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::{Device, DeviceAccess, SecretValue};
use crate::llb::{self, Exec, MountKind, Network, Op};
use crate::sandbox::{Access, Cage, Entry, Ground, Missing, Namespaces, devices};

/// What the helper knows of the machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// The socket that becomes the tunnel.
    pub tunnel: PathBuf,
    /// An empty directory for roots.
    pub scratch: PathBuf,
    /// Cache mounts by id.
    pub caches: BTreeMap<String, PathBuf>,
    /// Devices.
    pub devices: Vec<Device>,
}

/// An op that this engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The definition is not one.
    #[error("the definition cannot be decoded")]
    Decode(#[from] llb::DecodeError),
    /// Only a definition of one exec op can be run here.
    #[error("the embedded engine runs definitions of one exec op, not {what}")]
    Shape {
        /// What it is.
        what: String,
    },
    /// A mount of a kind that needs a daemon.
    #[error("the embedded engine has no source for the mount at `{dest}`")]
    Mount {
        /// Where.
        dest: String,
    },
    /// A cache mount that is not a store of ours.
    #[error("there is no cache mount `{id}` here")]
    Cache {
        /// Its id.
        id: String,
    },
    /// A device that is not there.
    #[error("there is no device `{name}` here")]
    Device {
        /// Its name.
        name: String,
    },
    /// A secret nobody gave.
    #[error("the op asks for the secret `{id}`, which was not given")]
    Secret {
        /// Its id.
        id: String,
    },
    /// What a selector names is not there (spec §2.1).
    #[error("open {selector}: no such file or directory")]
    Selector {
        /// The selector.
        selector: String,
    },
}

/// An op ready to be started.
#[derive(Debug)]
pub struct Container {
    /// Its walls.
    pub cage: Cage,
    /// Its program and arguments.
    pub arguments: Vec<String>,
    /// Its environment, the devices' included.
    pub environment: Vec<(String, String)>,
    /// Its working directory.
    pub directory: PathBuf,
}

impl Machine {
    /// Decodes a definition and furnishes its op.
    pub fn container(
        &self,
        definition: &[u8],
        secrets: &BTreeMap<String, SecretValue>,
    ) -> Result<Container, Refused> {
        let decoded = llb::decode(definition)?;
        let [node] = decoded.ops.as_slice() else {
            return Err(Refused::Shape {
                what: format!("{} ops", decoded.ops.len()),
            });
        };
        let Op::Exec(exec) = &node.op else {
            return Err(Refused::Shape {
                what: "a source".to_owned(),
            });
        };
        let mut entries = base(exec);
        let mut environment = exec.env.clone();
        for name in &exec.devices {
            let device = self.device(name)?;
            entries.extend(device.mounts.iter().map(|mount| Entry::Bind {
                source: mount.host.clone(),
                target: mount.container.clone(),
                access: match mount.access {
                    DeviceAccess::ReadOnly => Access::ReadOnly,
                    DeviceAccess::ReadWrite => Access::ReadWrite,
                },
                missing: Missing::Fails,
            }));
            environment.extend(device.environment.iter().cloned());
        }
        // Parents first, whatever order they were written in (spec §2.1).
        let mut mounts: Vec<&llb::Mount> = exec
            .mounts
            .iter()
            .filter(|mount| mount.dest != "/")
            .collect();
        mounts.sort_by_key(|mount| Path::new(&mount.dest).components().count());
        for mount in mounts {
            entries.extend(self.mount(mount, secrets)?);
        }
        Ok(Container {
            cage: Cage {
                ground: self.ground(exec),
                trees: Vec::new(),
                entries,
            },
            arguments: exec.args.clone(),
            environment,
            directory: PathBuf::from(&exec.cwd),
        })
    }

    fn ground(&self, exec: &Exec) -> Ground {
        let hostname = exec.hostname.as_deref().unwrap_or("buildkitsandbox");
        Ground {
            root: self.scratch.clone(),
            root_mode: 0o755,
            namespaces: Namespaces {
                pid: true,
                ipc: true,
                uts: true,
                net: exec.network == Network::None,
            },
            hostname: Some(hostname.to_owned()),
            unwanted: None,
            entries: Vec::new(),
        }
    }

    fn device(&self, name: &str) -> Result<&Device, Refused> {
        let found = self.devices.iter().find(|device| device.name == name);
        found.ok_or_else(|| Refused::Device {
            name: name.to_owned(),
        })
    }

    fn mount(
        &self,
        mount: &llb::Mount,
        secrets: &BTreeMap<String, SecretValue>,
    ) -> Result<Option<Entry>, Refused> {
        let target = PathBuf::from(&mount.dest);
        let access = match mount.access {
            llb::Access::ReadOnly => Access::ReadOnly,
            llb::Access::ReadWrite => Access::ReadWrite,
        };
        match &mount.kind {
            // The agent is this very program: its fork needs no file.
            MountKind::Cache { .. } if mount.dest == crate::engine::lower::AGENT => Ok(None),
            MountKind::Cache { id, .. } => {
                let base = self
                    .caches
                    .get(id)
                    .ok_or_else(|| Refused::Cache { id: id.clone() })?;
                let source = match &mount.selector {
                    Some(selector) => base.join(selector),
                    None => base.clone(),
                };
                if source.symlink_metadata().is_err() {
                    let selector = mount.selector.clone().unwrap_or_default();
                    return Err(Refused::Selector { selector });
                }
                Ok(Some(Entry::Bind {
                    source,
                    target,
                    access,
                    missing: Missing::Fails,
                }))
            }
            MountKind::Tmpfs { size } => {
                let size = size.and_then(|size| u64::try_from(size).ok());
                // As BuildKit's: sticky and open to all.
                Ok(Some(Entry::Tmpfs {
                    target,
                    size,
                    mode: 0o1777,
                }))
            }
            MountKind::Secret {
                id, mode, optional, ..
            } => match secrets.get(id) {
                Some(value) => Ok(Some(Entry::File {
                    path: target,
                    contents: value.0.clone(),
                    mode: *mode,
                })),
                None if *optional => Ok(None),
                None => Err(Refused::Secret { id: id.clone() }),
            },
            MountKind::Ssh { .. } => Ok(Some(Entry::Bind {
                source: self.tunnel.clone(),
                target,
                access: Access::ReadWrite,
                missing: Missing::Fails,
            })),
            MountKind::Scratch => Ok(Some(Entry::Tmpfs {
                target,
                size: None,
                mode: 0o755,
            })),
            MountKind::Bind => Err(Refused::Mount {
                dest: mount.dest.clone(),
            }),
        }
    }
}

/// What every container has before its own mounts.
fn base(exec: &Exec) -> Vec<Entry> {
    let mut entries = vec![
        Entry::Proc {
            target: "/proc".into(),
        },
        Entry::Directory {
            path: "/tmp".into(),
            mode: 0o1777,
            owner: (0, 0),
        },
        // The agent's own: no builder looks in.
        Entry::Directory {
            path: "/.pontoon".into(),
            mode: 0o700,
            owner: (0, 0),
        },
    ];
    entries.extend(devices());
    if !exec.mounts.iter().any(|mount| mount.dest == "/dev/shm") {
        entries.push(Entry::Tmpfs {
            target: "/dev/shm".into(),
            size: Some(64 << 20),
            mode: 0o1777,
        });
    }
    if exec.network == Network::None {
        let contents = b"127.0.0.1 localhost\n::1 localhost\n".to_vec();
        entries.push(Entry::File {
            path: "/etc/hosts".into(),
            contents,
            mode: 0o444,
        });
    } else {
        let shown = ["/etc/hosts", "/etc/resolv.conf", "/etc/services"];
        entries.extend(shown.map(Entry::of_the_machine));
    }
    entries
}
