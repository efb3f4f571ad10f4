//! The tunnel: the framed protocol between an agent and the conductor, over one byte stream.
//!
//! The agent connects to a Unix socket in its root (on BuildKit: an SSH-forward mount) and says
//! [`FromAgent::Hello`]; the conductor answers [`ToAgent::Welcome`] and gives it one job at a time.
//! The stream is also the *lifeline*: an agent whose stream ends kills what it runs and goes.
//!
//! It uses nothing that a plain byte pipe lacks: no descriptors are passed, no peer credentials
//! are asked for, and no half-close means anything (one does not reach a container; BuildKit spec
//! §13.3). The end of a stream of NAR bytes is therefore a frame of its own.
//!
//! | frame | kind | payload |
//! |---|---|---|
//! | message | 0 | JSON: [`FromAgent`] or [`ToAgent`] |
//! | log | 1 | bytes a builder wrote, as they came |
//! | data | 2 | bytes of a NAR; an empty one ends it |
//!
//! A frame is its length (4 bytes, little-endian, of kind and payload together), the kind (one
//! byte) and the payload. What is longer than its limit, of an unknown kind, or not expected where
//! it comes, ends the connection: the stream cannot be trusted any more.
//!
//! | frame | at most |
//! |---|---|
//! | a message | [`MAX_FRAME`] |
//! | a log, data | [`MAX_PIECE`] |
//! | any before the greeting | [`MAX_GREETING`] |
//!
//! A message that was read takes 48 times its bytes at most, whatever is in it. The worst is a list of
//! one-digit numbers: for each two bytes 32 of what is read and 8 of what is made of it, both in lists
//! that may be twice as long, and the message itself, also while it comes.

pub mod frame;
pub mod message;
#[cfg(test)]
mod tests;

pub use frame::{Decoder, Frame, FrameError, Limits, MAX_FRAME, MAX_GREETING, MAX_PIECE, encode};
pub use message::{
    AttemptFacts, AttemptStanding, BuildJob, BuildResult, EffectJob, EffectResult, EffectRoot,
    EffectStore, FromAgent, ImportHeader, MachineError, PathFacts, PathKind, QueryScope,
    SandboxPath, ToAgent,
};

/// The protocol's version: agent and conductor are one executable today, but an op may outlive
/// an upgrade; a peer of another version is refused by name.
pub const VERSION: u32 = 2;

/// Where an agent finds the tunnel's socket in its root.
pub const SOCKET: &str = "/.pontoon/tunnel";
