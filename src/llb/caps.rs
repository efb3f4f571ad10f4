//! The capabilities an op asks of an engine.
//!
//! An engine that does not know a field ignores it in silence; one that does not know a capability
//! refuses the op.
//! Listed is what would do something else, not merely look different, if it were ignored
//! (spec §1.6); names are `BuildKit`'s.

use std::collections::BTreeSet;

use super::{CachePolicy, Exec, Mount, MountKind, Network, Op, Security, Source};

/// Lists what an op needs.
pub(super) fn of(op: &Op, cache: CachePolicy) -> BTreeSet<String> {
    let mut caps = match op {
        Op::Exec(exec) => of_exec(exec),
        Op::Source(source) => of_source(source),
    };
    if cache == CachePolicy::Ignore {
        caps.insert("meta.ignorecache");
    }
    caps.into_iter().map(str::to_owned).collect()
}

fn of_exec(exec: &Exec) -> BTreeSet<&'static str> {
    let mut caps = BTreeSet::from(["exec.meta.base"]);
    if exec.network != Network::Default {
        caps.insert("exec.meta.network");
    }
    if exec.security == Security::Insecure {
        caps.insert("exec.meta.security");
    }
    if !exec.devices.is_empty() {
        caps.insert("exec.meta.cdi");
    }
    caps.extend(exec.mounts.iter().flat_map(of_mount));
    caps
}

fn of_mount(mount: &Mount) -> impl Iterator<Item = &'static str> {
    let kind: &[&str] = match &mount.kind {
        MountKind::Scratch => &[],
        MountKind::Bind => &["exec.mount.bind"],
        MountKind::Cache { .. } => &["exec.mount.cache", "exec.mount.cache.sharing"],
        MountKind::Tmpfs { size: None } => &["exec.mount.tmpfs"],
        MountKind::Tmpfs { size: Some(_) } => &["exec.mount.tmpfs", "exec.mount.tmpfs.size"],
        MountKind::Secret { .. } => &["exec.mount.secret"],
        MountKind::Ssh { .. } => &["exec.mount.ssh"],
    };
    kind.iter()
        .copied()
        .chain(mount.selector.is_some().then_some("exec.mount.selector"))
}

fn of_source(source: &Source) -> BTreeSet<&'static str> {
    let scheme = match source.identifier.split_once("://") {
        Some(("docker-image", _)) => Some("source.image"),
        Some(("oci-layout", _)) => Some("source.ocilayout"),
        Some(("local", _)) => Some("source.local"),
        _ => None,
    };
    let attributes = source.attributes.keys().filter_map(|key| of_attribute(key));
    scheme.into_iter().chain(attributes).collect()
}

fn of_attribute(key: &str) -> Option<&'static str> {
    Some(match key {
        "image.resolvemode" => "source.image.resolvemode",
        "image.checksum" => "source.image.checksum",
        "image.layerlimit" => "source.image.layerlimit",
        "local.session" => "source.local.sessionid",
        "local.unique" => "source.local.unique",
        "local.sharedkeyhint" => "source.local.sharedkeyhint",
        "local.includepattern" => "source.local.includepatterns",
        "local.excludepatterns" => "source.local.excludepatterns",
        "local.followpaths" => "source.local.followpaths",
        "local.differ" => "source.local.differ",
        "local.metadatatransfer" => "source.local.metadatatransfer",
        _ => return None,
    })
}
