//! From typed ops to the bytes `BuildKit`'s Go code would write.

use prost::Message;

use super::pb::op::Op as Kind;
use super::{
    Access, CachePolicy, Exec, Input, Metadata, Mount, MountKind, Network, Op, Security, Sharing,
    pb,
};

/// Is the key of [`Metadata::custom_name`] in `BuildKit`'s descriptions.
pub(super) const CUSTOM_NAME: &str = "llb.customname";

/// Is "no input" and "no output".
pub(super) const NONE: i64 = -1;

/// Encodes an op as `protobuf-go` does when told to be deterministic.
///
/// It writes members of a oneof after all other fields, `prost` in the order of numbers; so the op
/// is written once without its kind and once with nothing else.
pub(super) fn canonical(mut op: pb::Op) -> Vec<u8> {
    let kind = op.op.take();
    let mut bytes = op.encode_to_vec();
    let kind = pb::Op {
        op: kind,
        ..pb::Op::default()
    };
    kind.encode(&mut bytes).expect("a vector grows as needed");
    bytes
}

/// Encodes the op that names a definition's result.
pub(super) fn terminal(result: &Input) -> Vec<u8> {
    canonical(pb::Op {
        inputs: vec![input(result)],
        ..pb::Op::default()
    })
}

/// Turns an op into its message.
pub(super) fn op(op: &Op) -> pb::Op {
    let kind = match op {
        Op::Exec(exec) => Kind::Exec(exec_op(exec)),
        Op::Source(source) => Kind::Source(pb::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attributes.clone(),
        }),
    };
    let inputs = op.inputs().iter().map(input).collect();
    pb::Op {
        inputs,
        op: Some(kind),
        ..pb::Op::default()
    }
}

/// Turns metadata into its message.
pub(super) fn metadata(metadata: &Metadata) -> pb::OpMetadata {
    let name = metadata
        .custom_name
        .iter()
        .map(|name| (CUSTOM_NAME.to_owned(), name.clone()));
    pb::OpMetadata {
        ignore_cache: metadata.cache == CachePolicy::Ignore,
        description: name.collect(),
        caps: metadata
            .caps
            .iter()
            .map(|cap| (cap.clone(), true))
            .collect(),
        progress_group: metadata
            .progress_group
            .as_ref()
            .map(|group| pb::ProgressGroup {
                id: group.id.clone(),
                name: group.name.clone(),
                weak: false,
            }),
        ..pb::OpMetadata::default()
    }
}

fn input(input: &Input) -> pb::Input {
    pb::Input {
        digest: input.digest.to_string(),
        index: number(Some(input.index)),
    }
}

/// What a container is made of that is no op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Its mounts, each marshalled.
    pub mounts: Vec<Vec<u8>>,
    /// Its process, marshalled.
    pub meta: Vec<u8>,
    /// Its network, by the number it has on the wire.
    pub network: i32,
}

/// Encodes an op's mounts, process and network one by one; inputs and devices are not in them.
pub fn parts(exec: &Exec) -> Parts {
    Parts {
        mounts: exec
            .mounts
            .iter()
            .map(|one| mount(one).encode_to_vec())
            .collect(),
        meta: meta(exec).encode_to_vec(),
        network: network(exec.network).into(),
    }
}

fn network(network: Network) -> pb::NetMode {
    match network {
        Network::Default => pb::NetMode::Unset,
        Network::None => pb::NetMode::None,
        Network::Host => pb::NetMode::Host,
    }
}

fn exec_op(exec: &Exec) -> pb::ExecOp {
    let security = match exec.security {
        Security::Sandbox => pb::SecurityMode::Sandbox,
        Security::Insecure => pb::SecurityMode::Insecure,
    };
    let device = |name: &String| pb::CdiDevice {
        name: name.clone(),
        optional: false,
    };
    pb::ExecOp {
        meta: Some(meta(exec)),
        mounts: exec.mounts.iter().map(mount).collect(),
        network: network(exec.network).into(),
        security: security.into(),
        secretenv: Vec::new(),
        cdi_devices: exec.devices.iter().map(device).collect(),
    }
}

fn meta(exec: &Exec) -> pb::Meta {
    pb::Meta {
        args: exec.args.clone(),
        env: exec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        hostname: exec.hostname.clone().unwrap_or_default(),
        // Mountpoints must not stay behind in a root that becomes an output.
        remove_mount_stubs_recursive: true,
        ..pb::Meta::default()
    }
}

fn mount(mount: &Mount) -> pb::Mount {
    let mut message = pb::Mount {
        input: number(mount.input),
        selector: mount.selector.clone().unwrap_or_default(),
        dest: mount.dest.clone(),
        output: number(mount.output),
        readonly: mount.access == Access::ReadOnly,
        ..pb::Mount::default()
    };
    let kind = match &mount.kind {
        MountKind::Scratch | MountKind::Bind => pb::MountType::Bind,
        MountKind::Cache { id, sharing } => {
            let sharing = cache_sharing(*sharing).into();
            message.cache_opt = Some(pb::CacheOpt {
                id: id.clone(),
                sharing,
            });
            pb::MountType::Cache
        }
        MountKind::Tmpfs { size } => {
            message.tmpfs_opt = Some(pb::TmpfsOpt {
                size: size.unwrap_or(0),
            });
            pb::MountType::Tmpfs
        }
        MountKind::Secret {
            id,
            uid,
            gid,
            mode,
            optional,
        } => {
            let (id, uid, gid, mode, optional) = (id.clone(), *uid, *gid, *mode, *optional);
            message.secret_opt = Some(pb::SecretOpt {
                id,
                uid,
                gid,
                mode,
                optional,
            });
            pb::MountType::Secret
        }
        MountKind::Ssh {
            id,
            uid,
            gid,
            mode,
            optional,
        } => {
            let (id, uid, gid, mode, optional) = (id.clone(), *uid, *gid, *mode, *optional);
            message.ssh_opt = Some(pb::SshOpt {
                id,
                uid,
                gid,
                mode,
                optional,
            });
            pb::MountType::Ssh
        }
    };
    message.mount_type = kind.into();
    message
}

fn cache_sharing(sharing: Sharing) -> pb::CacheSharingOpt {
    match sharing {
        Sharing::Shared => pb::CacheSharingOpt::Shared,
        Sharing::Private => pb::CacheSharingOpt::Private,
        Sharing::Locked => pb::CacheSharingOpt::Locked,
    }
}

fn number(index: Option<usize>) -> i64 {
    index.map_or(NONE, |index| {
        i64::try_from(index).expect("an index into a list in memory")
    })
}
