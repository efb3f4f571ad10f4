//! One op's message to its typed form; everything the types do not have is refused by name.

use super::super::encode::NONE;
use super::super::pb::op::Op as Kind;
use super::super::{
    Access, Digest, Exec, Mount, MountKind, Network, Op, Security, Sharing, Source, pb,
};
use super::{DecodeError, unsupported};

/// Reads what an op does.
pub(super) fn op(digest: &Digest, message: pb::Op) -> Result<Op, DecodeError> {
    let kind = match message.op {
        Some(Kind::Exec(exec)) => return self::exec(digest, &message.inputs, exec).map(Op::Exec),
        Some(Kind::Source(source)) if message.inputs.is_empty() => {
            return Ok(Op::Source(Source {
                identifier: source.identifier,
                attributes: source.attrs,
            }));
        }
        Some(Kind::Source(_)) => return Err(unsupported(digest, "source with inputs")),
        Some(Kind::File(_)) => "file",
        Some(Kind::Build(_)) => "build",
        Some(Kind::Merge(_)) => "merge",
        Some(Kind::Diff(_)) => "diff",
        Some(Kind::Passthrough(_)) => "passthrough",
        None => "none",
    };
    Err(DecodeError::UnsupportedKind {
        digest: digest.clone(),
        kind,
    })
}

fn exec(digest: &Digest, inputs: &[pb::Input], exec: pb::ExecOp) -> Result<Exec, DecodeError> {
    let bad = |field| DecodeError::BadField {
        digest: digest.clone(),
        field,
    };
    let (network, security) = (network(&exec), security(&exec));
    refuse(digest, &[("secretenv", !exec.secretenv.is_empty())])?;
    refuse(
        digest,
        &[(
            "cdiDevices.optional",
            exec.cdi_devices.iter().any(|it| it.optional),
        )],
    )?;
    let meta = exec.meta.ok_or_else(|| bad("meta"))?;
    refuse_meta(digest, &meta)?;
    let variable = |text: &String| {
        let (name, value) = text.split_once('=').ok_or_else(|| bad("meta.env"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    Ok(Exec {
        env: meta
            .env
            .iter()
            .map(variable)
            .collect::<Result<_, DecodeError>>()?,
        args: meta.args,
        cwd: meta.cwd,
        user: meta.user,
        hostname: given(meta.hostname),
        mounts: exec
            .mounts
            .into_iter()
            .map(|it| mount(digest, it))
            .collect::<Result<_, DecodeError>>()?,
        network: network.ok_or_else(|| bad("network"))?,
        security: security.ok_or_else(|| bad("security"))?,
        devices: exec
            .cdi_devices
            .into_iter()
            .map(|device| device.name)
            .collect(),
        inputs: inputs
            .iter()
            .map(|it| super::input(digest, it))
            .collect::<Result<_, DecodeError>>()?,
    })
}

fn network(exec: &pb::ExecOp) -> Option<Network> {
    Some(match pb::NetMode::try_from(exec.network).ok()? {
        pb::NetMode::Unset => Network::Default,
        pb::NetMode::None => Network::None,
        pb::NetMode::Host => Network::Host,
    })
}

fn security(exec: &pb::ExecOp) -> Option<Security> {
    Some(match pb::SecurityMode::try_from(exec.security).ok()? {
        pb::SecurityMode::Sandbox => Security::Sandbox,
        pb::SecurityMode::Insecure => Security::Insecure,
    })
}

/// Refuses what would change the process. `removeMountStubsRecursive` only changes what is left in
/// a root afterwards, so both values pass.
fn refuse_meta(digest: &Digest, meta: &pb::Meta) -> Result<(), DecodeError> {
    refuse(
        digest,
        &[
            ("meta.proxy_env", meta.proxy_env.is_some()),
            ("meta.extraHosts", !meta.extra_hosts.is_empty()),
            ("meta.ulimit", !meta.ulimit.is_empty()),
            ("meta.cgroupParent", !meta.cgroup_parent.is_empty()),
            ("meta.validExitCodes", !meta.valid_exit_codes.is_empty()),
        ],
    )
}

fn refuse(digest: &Digest, fields: &[(&'static str, bool)]) -> Result<(), DecodeError> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(unsupported(digest, field)),
        None => Ok(()),
    }
}

fn mount(digest: &Digest, mount: pb::Mount) -> Result<Mount, DecodeError> {
    let bad = |field| DecodeError::BadField {
        digest: digest.clone(),
        field,
    };
    refuse(
        digest,
        &[
            ("mount.resultID", !mount.result_id.is_empty()),
            ("mount.contentCache", mount.content_cache != 0),
        ],
    )?;
    let input = number(mount.input).ok_or_else(|| bad("mount.input"))?;
    Ok(Mount {
        kind: kind(&mount, input.is_some()).map_err(bad)?,
        dest: mount.dest,
        access: if mount.readonly {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        },
        selector: given(mount.selector),
        input,
        output: number(mount.output).ok_or_else(|| bad("mount.output"))?,
    })
}

/// Reads a mount's kind; the error is the name of the field that is wrong. Options of other kinds
/// are errors too, for an engine reading them differently would do something else.
fn kind(mount: &pb::Mount, has_input: bool) -> Result<MountKind, &'static str> {
    let kind = pb::MountType::try_from(mount.mount_type).map_err(|_| "mount.mountType")?;
    let stray = [
        (
            "mount.TmpfsOpt",
            mount.tmpfs_opt.is_some() && kind != pb::MountType::Tmpfs,
        ),
        (
            "mount.cacheOpt",
            mount.cache_opt.is_some() && kind != pb::MountType::Cache,
        ),
        (
            "mount.secretOpt",
            mount.secret_opt.is_some() && kind != pb::MountType::Secret,
        ),
        (
            "mount.SSHOpt",
            mount.ssh_opt.is_some() && kind != pb::MountType::Ssh,
        ),
    ];
    if let Some((field, _)) = stray.iter().find(|(_, stray)| *stray) {
        return Err(field);
    }
    Ok(match kind {
        pb::MountType::Bind if has_input => MountKind::Bind,
        pb::MountType::Bind => MountKind::Scratch,
        pb::MountType::Cache => {
            let options = mount.cache_opt.clone().ok_or("mount.cacheOpt")?;
            let sharing = pb::CacheSharingOpt::try_from(options.sharing)
                .map_err(|_| "mount.cacheOpt.sharing")?;
            MountKind::Cache {
                id: options.id,
                sharing: cache_sharing(sharing),
            }
        }
        pb::MountType::Tmpfs => {
            let size = mount.tmpfs_opt.as_ref().map(|options| options.size);
            MountKind::Tmpfs {
                size: size.filter(|size| *size != 0),
            }
        }
        pb::MountType::Secret => {
            let pb::SecretOpt {
                id,
                uid,
                gid,
                mode,
                optional,
            } = mount.secret_opt.clone().ok_or("mount.secretOpt")?;
            MountKind::Secret {
                id,
                uid,
                gid,
                mode,
                optional,
            }
        }
        pb::MountType::Ssh => {
            let pb::SshOpt {
                id,
                uid,
                gid,
                mode,
                optional,
            } = mount.ssh_opt.clone().ok_or("mount.SSHOpt")?;
            MountKind::Ssh {
                id,
                uid,
                gid,
                mode,
                optional,
            }
        }
    })
}

fn cache_sharing(sharing: pb::CacheSharingOpt) -> Sharing {
    match sharing {
        pb::CacheSharingOpt::Shared => Sharing::Shared,
        pb::CacheSharingOpt::Private => Sharing::Private,
        pb::CacheSharingOpt::Locked => Sharing::Locked,
    }
}

/// Reads -1 as none; the outer none is a number that `BuildKit` does not define.
#[expect(clippy::option_option, reason = "wrong and absent are different")]
fn number(value: i64) -> Option<Option<usize>> {
    if value == NONE {
        Some(None)
    } else {
        usize::try_from(value).ok().map(Some)
    }
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
