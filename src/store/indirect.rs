//! Indirect roots: symlinks outside the store that keep what they point to (Nix spec §10.1).

use std::path::Path;

use super::{Error, NixDir};
use crate::nix::{HashAlgorithm, base32, hash_bytes};

/// Registers a symlink as a root, under the name real Nix gives it: `auto/<nix32 sha1 of its path>`.
pub fn add_indirect_root(dir: &NixDir, link: &Path) -> Result<(), Error> {
    use std::os::unix::ffi::OsStrExt;
    let folder = dir.gcroots().join("auto");
    fs_err::create_dir_all(&folder)?;
    let hash = hash_bytes(HashAlgorithm::Sha1, link.as_os_str().as_bytes());
    let place = folder.join(base32(hash.digest_as_bytes()));
    // Renamed into place: a collector that looks now sees the old link or the new one.
    let interim = folder.join(format!(".pontoon-{}", std::process::id()));
    let _ = fs_err::remove_file(&interim);
    fs_err::os::unix::fs::symlink(link, &interim)?;
    Ok(fs_err::rename(&interim, &place)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_root_as_nix_does() {
        let place = tempfile::tempdir().unwrap();
        let dir = NixDir::new(place.path());
        let link = Path::new("/home/u/result");
        add_indirect_root(&dir, link).unwrap();
        let root = dir.gcroots().join("auto/jlknlzmcc8vgpkzq233mzp2rfy9pnn48");
        assert_eq!(root.read_link().unwrap(), link);
    }
}
