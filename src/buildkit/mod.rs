//! A client of a `BuildKit` daemon: its control service, and the session it calls back on.
//!
//! | file | what |
//! |---|---|
//! | [`address`] | where a daemon is, and which kind: `buildkitd` or `dockerd` |
//! | [`connection`] | one HTTP/2 connection to it, made once; who it is that listens instead |
//! | [`dockerd`] | the way to the `BuildKit` in a dockerd |
//! | [`overheard`] | what a peer said first |
//! | [`control`] | its version; solving a definition |
//! | [`gateway`] | a job whose ops are solved one by one |
//! | [`container`] | a process in a container of such a job |
//! | [`progress`] | what the ops of a job write, and how far they are |
//! | [`workers`], [`records`] | what it says of itself; what is in its cache, and removing some |
//! | [`session`] | the tunnel on which the daemon is the client and we serve |
//! | [`ssh`], [`secrets`] | what we serve there: byte streams, secrets |
//! | [`filesync`], [`content`] | and there: directories, images in OCI layouts |
//! | [`auth`] | and there: logins for registries |
//! | [`errors`] | what a failed solve says, decoded |
//!
//! It knows LLB as bytes, and nothing of Nix or of ops. Everything is asynchronous and runs on
//! whatever runtime polls it; [`crate::engine::buildkit`] has the only one.
//! Left out: TLS.

pub mod address;
pub mod auth;
pub mod connection;
pub mod container;
pub mod content;
pub mod control;
pub mod dockerd;
pub mod errors;
pub mod filesync;
pub mod gateway;
pub mod overheard;
pub mod progress;
pub mod records;
pub mod secrets;
pub mod session;
pub mod ssh;
pub mod workers;

pub use address::{Address, Service};
pub use control::Daemon;
pub use errors::{Kind, SolveError};
pub use gateway::Job;
pub use session::{Services, Session};

/// The largest message taken from a daemon (spec rule 9).
const MAX_DECODED: usize = 64 << 20;
/// The largest message a daemon takes.
const MAX_ENCODED: usize = 16 << 20;
/// The largest message an older daemon takes.
const OLD_MAX_ENCODED: usize = 4 << 20;
/// What a request may have around its definition.
const AROUND: usize = 4 << 10;
/// How many bytes go into one message of a byte stream. A daemon takes a buffer of 32 KiB for a
/// message of that size, and for a longer one a cleared buffer of 1 MiB (grpc-go), so that clearing
/// would be most of its work: the message has 32 KiB with what is around the bytes.
const PIECE: usize = (32 << 10) - 16;
/// How much may be on its way on one stream, and on a connection.
const WINDOW: u32 = 4 << 20;

/// Holds the messages and services of `proto/` but `ops.proto`, as they are generated.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod protocol {
    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}
