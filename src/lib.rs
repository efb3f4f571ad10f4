//! Pontoon: Nix derivations as BuildKit operations over one shared store, then effects.
//!
//! The map, bottom up; `tests/it/layering.rs` holds it to this order:
//!
//! - [`nix`]: Nix's formats and rules, pure: store paths, derivations, NAR, reference scan.
//! - [`event`]: what can happen in a run, as plain data.
//! - [`sandbox`]: namespaces, mounts, ids, seccomp; the only unsafe code.
//! - [`store`]: a Nix store on disk: layout, database, locks, roots, registration.
//! - [`tunnel`]: the framed protocol between agent and conductor.
//! - [`agent`]: one derivation, or effect, in a prepared root; this executable inside an op.
//! - [`eval`]: drives the installed `nix`.
//! - [`pipeline`]: builds and effects as data; what is legal.
//! - [`plan`]: graph, decisions, reasons, order.
//! - [`llb`]: BuildKit's ops, marshalling, digests.
//! - [`buildkit`]: a client of a BuildKit daemon.
//! - [`engine`]: what runs ops: embedded, or a daemon; and the lowering of derivations and effects to ops.
//! - [`run`]: the conductor.
//! - [`doctor`]: what engines allow, and how to allow more.
//! - [`report`]: terminal, plain lines, JSON.
//! - [`cli`]: arguments, commands, messages.

pub mod agent;
pub mod buildkit;
pub mod cli;
pub mod doctor;
pub mod engine;
pub mod eval;
pub mod event;
pub mod llb;
pub mod nix;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod store;
pub mod tunnel;
