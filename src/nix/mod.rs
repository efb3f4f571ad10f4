//! Nix's formats and rules, without I/O.
//!
//! Store paths, hashes and the derivation format come from the `nix-derivation` crate and are
//! re-exported here under Nix's own names; the rest of the program knows them from here only.
//! The logical store directory is always `/nix/store`.

pub mod derivation;
pub mod nar;
pub mod place;
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

pub use place::InStore;
pub use wanted::{Outputs, Wanted};

/// A store path that is quickly compared: the order is that of the texts, as a store path's own is.
///
/// The text is that of the digest as one number, whose first byte is the least (Nix spec §1.1), so
/// the greater part of that number nearly always decides, and takes one comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ranked<'a> {
    /// The greater part of its digest.
    pub rank: u128,
    /// The path.
    pub path: &'a StorePath,
}

impl<'a> From<&'a StorePath> for Ranked<'a> {
    fn from(path: &'a StorePath) -> Self {
        let greater = path.digest().last_chunk();
        let rank = u128::from_le_bytes(*greater.expect("a digest has 20 bytes"));
        Self { rank, path }
    }
}

/// Writes bytes in Nix's base 32 (Nix spec §1.1).
pub fn base32(bytes: &[u8]) -> String {
    nix_derivation::nixbase32::encode(bytes)
}

/// The full text of a store path, as its own `to_string` gives it, without the detours: a plan
/// writes a hundred thousand.
pub fn full_text(path: &StorePath) -> String {
    let mut text = String::with_capacity(STORE_DIR.len() + path.name().len() + 34);
    for part in [STORE_DIR, "/", digits(path).text(), "-", path.name()] {
        text.push_str(part);
    }
    text
}

/// The name of a store path in the store directory, as its own `to_basename` gives it.
pub fn base_name(path: &StorePath) -> String {
    let mut text = String::with_capacity(path.name().len() + 33);
    for part in [digits(path).text(), "-", path.name()] {
        text.push_str(part);
    }
    text
}

/// The digits of a store path's digest, eight and eight.
struct Digits([[u8; 8]; 4]);

impl Digits {
    fn text(&self) -> &str {
        str::from_utf8(self.0.as_flattened()).expect("digits are ASCII")
    }
}

fn digits(path: &StorePath) -> Digits {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut digits = [[0; 8]; 4];
    let (fives, _) = path.digest().as_chunks::<5>();
    // The first byte is the least of the number that is written.
    for (eight, five) in digits.iter_mut().zip(fives.iter().rev()) {
        let bytes = five.iter().rev();
        let mut number = bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        for digit in eight.iter_mut().rev() {
            *digit = DIGITS[(number % 32) as usize];
            number /= 32;
        }
    }
    Digits(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_full_text_is_the_one_that_a_path_has(digest: [u8; 20], name in "[a-z+_?=][a-z.]{0,9}") {
            let path = StorePath::from_parts(digest, &name).unwrap();
            prop_assert_eq!(full_text(&path), path.to_string());
            prop_assert_eq!(base_name(&path), path.to_basename());
        }

        #[test]
        fn ranked_paths_are_in_the_order_of_their_texts(
            digests in proptest::collection::vec((any::<[u8; 20]>(), 0..3_u8, "[a-c]{1,2}"), 1..12),
        ) {
            let path = |(mut digest, alike, name): ([u8; 20], u8, String)| {
                // Some differ in the lesser part alone, and some in the name alone.
                match alike {
                    0 => digest = [7; 20],
                    1 => digest[4..].fill(7),
                    _ => {}
                }
                StorePath::from_parts(digest, &name).unwrap()
            };
            let paths: Vec<StorePath> = digests.into_iter().map(path).collect();
            let mut ranked: Vec<Ranked<'_>> = paths.iter().map(Ranked::from).collect();
            ranked.sort_unstable();
            let ranked: Vec<String> = ranked.iter().map(|one| one.path.to_string()).collect();
            let mut texts: Vec<String> = paths.iter().map(ToString::to_string).collect();
            texts.sort_unstable();
            prop_assert_eq!(ranked, texts);
        }
    }
}
