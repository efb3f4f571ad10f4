//! A part of the store as the content of a mount: `agent export PATH`.
//!
//! A Dockerfile or an image is made by the daemon, which sees no cache mount. So an op of its own
//! copies what is needed into one of its outputs. It has no job and no tunnel.

use std::io;
use std::path::Path;

use crate::agent::{EXPORT, Shape};
use crate::nix::InStore;
use crate::store::NixDir;

/// Copies a directory of the store to [`EXPORT`].
///
/// # Errors
///
/// It is no directory, or cannot be copied.
pub fn run(place: &str, shape: Shape) -> io::Result<()> {
    let unknown = || io::Error::other(format!("`{place}` is not in the store"));
    let place = InStore::parse(place).ok_or_else(unknown)?;
    let mut source = NixDir::new(shape.nix_dir()).real(&place.path);
    source.extend(place.inside.split('/').filter(|part| !part.is_empty()));
    copy_all(&source, Path::new(EXPORT))
}

/// Copies what is in a directory. The copies are root's, with the modes they have.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs_err::create_dir(&target)?;
            copy_all(&source, &target)?;
            fs_err::set_permissions(&target, entry.metadata()?.permissions())?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs_err::read_link(&source)?, &target)?;
        } else {
            fs_err::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn copies_directories_links_and_modes() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs_err::create_dir_all(from.join("sub")).unwrap();
        fs_err::create_dir(&to).unwrap();
        fs_err::write(from.join("sub/run"), "text").unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| {
            fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&from.join("sub/run"), 0o555);
        set(&from.join("sub"), 0o555);
        std::os::unix::fs::symlink("sub/run", from.join("link")).unwrap();
        copy_all(&from, &to).unwrap();
        assert_eq!(fs_err::read_to_string(to.join("link")).unwrap(), "text");
        assert_eq!(
            fs_err::read_link(to.join("link")).unwrap(),
            Path::new("sub/run")
        );
        assert_eq!(
            (mode(&to.join("sub")), mode(&to.join("sub/run"))),
            (0o555, 0o555)
        );
        for below in ["from/sub", "to/sub"] {
            set(&place.path().join(below), 0o755);
        }
        let error = copy_all(&place.path().join("none"), &to).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
