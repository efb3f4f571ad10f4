//! Starts Pontoon: everything is in the library.

fn main() {}
