//! The Nix archive (NAR): Nix's serialisation of a file tree (Nix spec §3).
//!
//! A NAR says exactly what Nix regards as a tree's content: names, file bytes, link targets and one
//! executable bit; so its SHA-256 is the identity of a store path's content, and references are
//! searched in its bytes. [`Writer`] makes the one valid serialisation of a tree, [`Reader`] accepts
//! nothing else. Both stream and know only `io::Read` and `io::Write`; walking a real file tree is
//! the store's part.
//!
//! Names and link targets are bytes, not text. A reader never trusts a length: it allocates at most
//! a name's or a target's limit, and file contents pass through without being held.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

pub use read::{Event, Reader};
pub use write::Writer;

/// The text every archive begins with.
pub const MAGIC: &[u8] = b"nix-archive-1";
/// The most bytes a name may have.
pub const MAX_NAME: usize = 255;
/// The most bytes a link target may have.
pub const MAX_TARGET: usize = 4095;
/// The deepest nesting of directories that a reader accepts: what Nix accepts since 2.30.
pub const MAX_DEPTH_READ: usize = 64;
/// The deepest nesting that a writer makes, so that every reader takes it.
pub const MAX_DEPTH_WRITE: usize = 63;

/// Why an archive could not be read or written. Offsets count from the archive's first byte.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source failed.
    #[error("archive cannot be read at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// The source's own failure.
        #[source]
        source: io::Error,
    },
    /// The destination failed.
    #[error("archive cannot be written at byte {offset}")]
    Write {
        /// Where.
        offset: u64,
        /// The destination's own failure.
        #[source]
        source: io::Error,
    },
    /// The archive stops inside a node.
    #[error("archive ends too early, at byte {offset}")]
    Truncated {
        /// Where.
        offset: u64,
    },
    /// Something else stands where a token was due.
    #[error("archive has no {expected} at byte {offset}")]
    Unexpected {
        /// Where.
        offset: u64,
        /// What was due.
        expected: &'static str,
    },
    /// Padding that is not zero.
    #[error("archive has padding that is not zero at byte {offset}")]
    Padding {
        /// Where.
        offset: u64,
    },
    /// A name that no directory entry may have.
    #[error("archive has the bad file name `{name}` at byte {offset}")]
    Name {
        /// Where.
        offset: u64,
        /// The name, escaped.
        name: String,
    },
    /// Names that are not strictly increasing.
    #[error("archive has file name `{name}` out of order at byte {offset}")]
    Order {
        /// Where.
        offset: u64,
        /// The later name, escaped.
        name: String,
    },
    /// A link target that is empty, too long, or holds a NUL.
    #[error("archive has a bad link target at byte {offset}")]
    Target {
        /// Where.
        offset: u64,
    },
    /// Directories nested beyond the limit.
    #[error("archive nests directories deeper than {limit} at byte {offset}")]
    Depth {
        /// Where.
        offset: u64,
        /// The limit that holds here.
        limit: usize,
    },
    /// Bytes after the archive.
    #[error("archive is followed by other bytes at byte {offset}")]
    Trailing {
        /// Where.
        offset: u64,
    },
    /// A file gave fewer or more bytes than its announced size.
    #[error("file changed its size while it was archived: {announced} bytes announced")]
    Size {
        /// What was announced.
        announced: u64,
    },
}

/// How many zero bytes follow `length` bytes.
const fn padding(length: u64) -> usize {
    ((8 - length % 8) % 8) as usize
}

/// Whether `name` may name a directory entry.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// Whether `target` may be a link's target.
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= MAX_TARGET && !target.contains(&0)
}
