//! `BuildKit`'s build definitions: typed ops, their exact bytes, their digests, and the way back.
//!
//! A *definition* is a list of serialized *ops* and a *terminal*, an op of no kind whose only input
//! names the result.
//! An op's *digest* is that of its bytes, and inputs name ops by digest, so encoding is part of
//! identity: a daemon decodes every op, encodes it again its own way, and reports on the digests it
//! computed so. Ours must be equal, which asks for `protobuf-go`'s deterministic form:
//!
//! | rule | here |
//! |---|---|
//! | fields ascending, the oneof of an op last | [`encode`] writes an op in two parts |
//! | map entries in key order | `btree_map` in `build.rs` |
//! | a map entry has its key and value even when empty | empty values are refused, see [`Error`] |
//! | "no input", "no output" are -1, written out | [`encode`], never left to a default |
//! | strings are UTF-8 | by type |
//!
//! `tests/golden` holds definitions made by `BuildKit`'s own Go package, and the tests compare bytes.
//!
//! [`Exec`] and [`Source`] are what Pontoon can say, not all that protobuf can.
//! [`decode()`] refuses by name whatever else would change what a definition does: other kinds of op,
//! fields without a place in these types, fields unknown altogether.
//!
//! Platform: a [`Definition`] never writes one.
//! An absent platform becomes the daemon's when the op is loaded, *after* its digest was taken, so
//! the bytes stay the same; Nix's own `system` check is what keeps an op off a wrong machine.
//! [`decode()`] keeps one that it finds.
//!
//! Source: the `BuildKit` protocol spec, §1.

mod caps;
mod decode;
mod definition;
mod digest;
mod encode;
pub mod graft;
mod op;
#[cfg(test)]
mod tests;
pub mod text;
mod validate;

pub use decode::{DecodeError, Decoded, Node, Platform, decode};
pub use definition::{Definition, Error};
pub use digest::{Digest, ParseDigestError};
pub use encode::{Parts, parts};
pub use op::{
    Access, CachePolicy, Exec, Input, Metadata, Mount, MountKind, Network, Op, ProgressGroup,
    Security, Sharing, Source,
};
pub use validate::Fault;

/// Holds the messages of `proto/ops.proto` as `prost` generates them.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}

/// Limits a definition: what `buildkitd` since 0.14 and `dockerd` since 27.2 take in one message.
///
/// The request around a definition counts too, so a definition close to this may still be refused
/// by the daemon (spec §1.7).
pub const MESSAGE_LIMIT: usize = 16 << 20;

/// Limits a definition for older daemons, which take gRPC's default.
pub const OLD_MESSAGE_LIMIT: usize = 4 << 20;
