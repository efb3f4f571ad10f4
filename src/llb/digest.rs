//! The name of an op: the SHA-256 of its bytes.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::Input;

/// Names an op, as `sha256:` and 64 lowercase hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Computes the digest of an op's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{:x}", Sha256::digest(bytes)))
    }

    /// Parses the text form, and nothing but the canonical one.
    pub fn parse(text: &str) -> Result<Self, ParseDigestError> {
        let canonical = |hex: &str| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if text.strip_prefix("sha256:").is_some_and(canonical) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseDigestError {
                text: text.to_owned(),
            })
        }
    }

    /// Returns the whole text, with its algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names an output of this op, to be another's input or a definition's result.
    pub fn output(&self, index: usize) -> Input {
        Input {
            digest: self.clone(),
            index,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Says that a text is no digest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a sha256 digest")]
pub struct ParseDigestError {
    /// What was given.
    pub text: String,
}
