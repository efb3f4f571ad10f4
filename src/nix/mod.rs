//! Nix's formats and rules, without I/O.
//!
//! Store paths, hashes and the derivation format come from the `nix-derivation` crate and are
//! re-exported here under Nix's own names; the rest of the program knows them from here only.
//! The logical store directory is always `/nix/store`.

pub mod derivation;
pub mod nar;
pub mod refscan;
pub mod rewrite;
pub mod text;
pub mod wanted;

pub use nix_derivation::{
    CAHash, ContentAddressMethod, Derivation, HashAlgorithm, NixHash, NixHasher, Output, StoreDir,
    StorePath, hash_bytes,
};

/// The logical store directory: what is hashed, stored and shown, wherever the files lie.
pub const STORE_DIR: &str = "/nix/store";

pub use wanted::{Outputs, Wanted};

/// Writes bytes in Nix's base 32 (Nix spec §1.1).
pub fn base32(bytes: &[u8]) -> String {
    nix_derivation::nixbase32::encode(bytes)
}

/// Cuts a path below `/nix/store` into its store path and the rest, which begins with `/` if
/// there is any.
pub fn store_part(path: &str) -> Option<(StorePath, &str)> {
    let name = path.strip_prefix(STORE_DIR)?.strip_prefix('/')?;
    let (name, inside) = name.split_at(name.find('/').unwrap_or(name.len()));
    let store_path = format!("{STORE_DIR}/{name}").parse().ok()?;
    Some((store_path, inside.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_a_path_of_the_store_in_two() {
        const BUSYBOX: &str = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-busybox";
        let cut = |text: &str| store_part(text).map(|(path, inside)| format!("{path} {inside}"));
        assert_eq!(cut(BUSYBOX).unwrap(), format!("{BUSYBOX} "));
        let inside = cut(&format!("{BUSYBOX}/bin/sh")).unwrap();
        assert_eq!(inside, format!("{BUSYBOX} /bin/sh"));
        for text in ["/bin/sh", "/nix/store", "/nix/store/busybox/bin/sh"] {
            assert_eq!(cut(text), None, "{text}");
        }
    }
}
