//! What the tests share. Each test makes a [`Place`] and does everything below it:
//!
//! | wanted | use |
//! |---|---|
//! | a directory on disk that goes away, read-only trees and all | [`Place::new`] |
//! | a command with a time limit and a clean environment | [`Place::command`], [`run`] |
//! | the built executable | [`Place::pontoon`], [`User::pontoon`] |
//! | a command to be signalled, or waited for | [`Running`], [`until`] |
//! | real Nix on a chroot store, and the executable on the same | [`Nix`], [`Nix::pontoon`] |
//! | a real daemon of some [`Kind`], and its store as it lies on disk | [`Daemon`] |
//! | one that is the engine, and something in its builders' `/bin` | [`Scene`] |
//! | a registry that it can reach, and a small image | [`Registry`], [`Image`] |
//! | the demo's receiver, where its effects reach it | [`Receiver`] |
//! | somebody hostile between agents and conductor | [`Meddler`] |
//! | another version of Nix | [`Release`] |
//! | a derivation that builds until it is let go | [`Held`] |
//! | a program for another kind of machine | [`make_foreign`] |
//! | a random graph of derivations | [`graph()`] |
//! | what a store says of its paths, as rows and as `nix path-info` | [`rows`], [`Nix::path_info`] |
//! | what a store has on record of builds and effects | [`attempts()`] |
//! | an ordinary user, with or without subordinate ids | [`User`] |
//! | another time of day for a command and all that it starts | [`later`] |
//! | random choices, and how many of them | [`Seed`], [`count`] |
//! | no process of ours left behind | [`Place::assert_no_process_left`] |
//!
//! Nothing here knows what Pontoon should do: that is for the tests to say.

mod attempts;
mod clock;
mod daemon;
mod foreign;
mod graph;
mod held;
mod meddler;
mod nix;
mod place;
mod process;
mod random;
mod release;
mod rows;
mod scene;
mod user;

pub(crate) use attempts::attempts;
pub(crate) use clock::{DAY, YEAR, later};
pub(crate) use daemon::{Daemon, Image, Kind, Receiver, Registry, USER, processes_with};
pub(crate) use foreign::make_foreign;
pub(crate) use graph::graph;
pub(crate) use held::Held;
pub(crate) use meddler::{Meddler, Passing};
pub(crate) use nix::{BuildUsers, Nix, sandbox_paths};
pub(crate) use place::Place;
pub(crate) use process::{Ran, Running, run, until};
pub(crate) use random::{Seed, count};
pub(crate) use release::Release;
pub(crate) use rows::{Row, assert_same, rows};
pub(crate) use scene::Scene;
pub(crate) use user::User;
