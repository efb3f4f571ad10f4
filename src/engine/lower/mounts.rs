//! What ops mount.

use super::{STORE_CACHE, TUNNEL};
use crate::llb::{Access, Mount, MountKind, Sharing};

pub(in crate::engine) fn socket() -> MountKind {
    MountKind::Ssh {
        id: TUNNEL.to_owned(),
        uid: 0,
        gid: 0,
        mode: 0o600,
        optional: false,
    }
}

pub(in crate::engine) fn cache() -> MountKind {
    MountKind::Cache {
        id: STORE_CACHE.to_owned(),
        sharing: Sharing::Shared,
    }
}

pub(in crate::engine) fn mount(
    dest: &str,
    kind: MountKind,
    access: Access,
    selector: Option<String>,
    output: Option<usize>,
) -> Mount {
    Mount {
        dest: dest.to_owned(),
        kind,
        access,
        selector,
        input: None,
        output,
    }
}

pub(in crate::engine) fn secret_file(dest: &str, id: String) -> Mount {
    let kind = MountKind::Secret {
        id,
        uid: 0,
        gid: 0,
        mode: 0o444,
        optional: false,
    };
    mount(dest, kind, Access::ReadOnly, None, None)
}

/// The id of a secret: the daemon asks for it by nothing else, so it is unique over all ops.
pub fn secret_id(nonce: &str, name: &str) -> String {
    format!("{nonce}/{name}")
}
