//! The tunnel under attack: streams that are wrong in every way that we could think of, and in ways
//! nobody thought of.
//!
//! `tests/corpus/tunnel/` has streams, recorded and made by hand; its table says what each comes
//! to. [`corpus`] compares, and cuts each off at every byte. [`fuzz`] changes them at random. In
//! [`live`] frames are changed on their way between real agents and a real conductor; which word
//! of whom comes to which error is in `bad_input`.

mod corpus;
mod fuzz;
mod live;
