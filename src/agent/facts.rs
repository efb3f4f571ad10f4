//! What a conductor is told of valid paths.

use crate::store::{NixDir, PathInfo};
use crate::tunnel::{PathFacts, PathKind};

/// Returns the facts of paths.
pub(super) fn of(dir: &NixDir, infos: impl IntoIterator<Item = PathInfo>) -> Vec<PathFacts> {
    infos.into_iter().map(|info| fact(dir, info)).collect()
}

fn fact(dir: &NixDir, info: PathInfo) -> PathFacts {
    let kind = match dir.real(&info.path).symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => PathKind::Symlink,
        Ok(_) => PathKind::Mountable,
        Err(_) => PathKind::Unknown,
    };
    PathFacts {
        path: info.path,
        references: info.references,
        kind,
    }
}
