//! What holds for the tree itself: its layers and its tidiness. No root, network or daemon.

mod layering;
mod source;
mod tidy;
