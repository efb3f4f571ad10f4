//! The built executable beside real Nix, as root and as an ordinary user.
//!
//! These tests need root, `nix` and the other tools that `scripts/install.sh run` installs. Where
//! something is missing they fail and say so; none skips itself. `support` has what they share.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so does what it calls"
)]

mod agents;
mod ahead;
mod bad_input;
mod bootstrap;
mod buildkit;
mod collector;
mod commands;
mod concurrency;
mod conformance;
mod containers;
mod daemon_kills;
mod daemons;
mod demo;
mod doctor;
mod effects;
mod engine;
mod eval;
mod graphs;
mod hardship;
mod harness;
mod inputs;
mod installables;
mod jobs;
mod kills;
mod limits;
mod losses;
mod matrix;
mod networks;
mod outputs;
mod pipelines;
mod records;
mod releases;
mod roots;
mod strong;
mod support;
mod tunnel;
mod unknown;
mod users;
mod waking;
