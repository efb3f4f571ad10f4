//! Names: of solves and sessions, and of the agent.

use std::io::Read as _;

use crate::nix::{HashAlgorithm, NixHasher, base32, hash_bytes};

/// How much of a file is read at a time.
const PIECE: usize = 64 << 10;

/// Names the agent by its content, so that every machine with the same one finds it delivered.
///
/// # Errors
///
/// The file cannot be read.
pub fn agent_id(program: &std::path::Path) -> std::io::Result<String> {
    let mut file = fs_err::File::open(program)?;
    let mut hasher = NixHasher::new(HashAlgorithm::Sha256);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            count => hasher.update(&piece[..count]),
        }
    }
    Ok(base32(&hasher.finalize().digest_as_bytes()[..20]))
}

/// A name of 25 characters in base 36, as daemons expect it; as unique as what it is made of.
pub(in crate::engine) fn unique(parts: &[&str]) -> String {
    let hash = hash_bytes(HashAlgorithm::Sha256, parts.join("\0").as_bytes());
    let bytes = &hash.digest_as_bytes()[..25];
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    bytes
        .iter()
        .map(|byte| char::from(digits[usize::from(*byte) % digits.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_the_form_daemons_expect() {
        let one = unique(&["job", "0123456789abcdef", "1"]);
        assert_ne!(one, unique(&["job", "0123456789abcdef", "2"]));
        assert_eq!(one.len(), 25);
        assert!(
            one.bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        );
    }
}
