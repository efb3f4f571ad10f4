//! The corpus, changed at random: whatever comes of it, a frame is read or an error named, in
//! either direction, and what was read can be said again.

use std::fmt::Debug;

use pontoon::tunnel::{
    Decoder, Frame, FromAgent, Limits, MAX_FRAME, MAX_GREETING, MAX_PIECE, ToAgent, encode, frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::corpus::streams;
use crate::support::{Seed, count};

/// Lengths at and around the limits.
fn lengths() -> Vec<u32> {
    let limits = [
        0,
        1,
        5,
        MAX_GREETING,
        MAX_PIECE,
        MAX_FRAME,
        1 << 31,
        u32::MAX as usize,
    ];
    let around = limits.map(|limit| [limit.saturating_sub(1), limit, limit + 1]);
    let fitting = around.as_flattened().iter();
    fitting
        .filter_map(|length| u32::try_from(*length).ok())
        .collect()
}

/// Changes a stream once; `other` is what parts may come from.
pub(super) fn change(seed: &mut Seed, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = seed.below(bytes.len() + 1);
    let end = (at + 1 + seed.below(40)).min(bytes.len());
    match seed.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << seed.below(8),
        1 if at < bytes.len() => bytes[at] = *seed.one_of(b"\0\x01\x02\x03\xff\"\\{}[],:-0e"),
        2 => bytes.truncate(at),
        3 if at < end => drop(bytes.drain(at..end)),
        4 if at < end => {
            let twice = bytes[at..end].to_vec();
            bytes.splice(at..at, twice);
        }
        5 => {
            let from = seed.below(other.len() + 1);
            let to = (from + seed.below(200)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        6 if bytes.len() > at + 4 => {
            let length = seed.one_of(&lengths()).to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&length);
        }
        _ if bytes.len() > 4 => {
            // The first frame's own length, as any other.
            let length = seed.one_of(&lengths()).to_le_bytes();
            bytes[..4].copy_from_slice(&length);
        }
        _ => bytes.push(0),
    }
}

/// Reads a message that may be any bytes.
fn hear<M: Serialize + DeserializeOwned + PartialEq + Debug>(payload: &[u8]) {
    match frame::parse::<M>(payload) {
        Ok(message) => {
            let Frame::Message(said) = Frame::message(&message) else {
                unreachable!("it is a message");
            };
            assert_eq!(frame::parse::<M>(&said).unwrap(), message);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 800, "{text}");
        }
    }
}

/// Reads a stream that comes in pieces.
fn read(seed: &mut Seed, bytes: &[u8]) {
    let mut decoder = Decoder::new(*seed.one_of(&[Limits::GREETING, Limits::TUNNEL]));
    let mut used = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let largest = *seed.one_of(&[1, 7, 4096, 64 << 10]);
        let (piece, later) = rest.split_at(rest.len().min(1 + seed.below(largest)));
        rest = later;
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    used += encode(&frame).len();
                    if let Frame::Message(payload) = frame {
                        hear::<FromAgent>(&payload);
                        hear::<ToAgent>(&payload);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(error.to_string().starts_with("tunnel frame of "), "{error}");
                    return;
                }
            }
        }
    }
    assert!(used <= bytes.len());
}

#[test]
fn changed_streams_are_read_or_refused() {
    let streams: Vec<Vec<u8>> = streams().into_values().collect();
    let mut seed = Seed::new("tunnel");
    for _ in 0..count(20_000, 2_000_000) {
        let mut bytes = seed.one_of(&streams).clone();
        let other = seed.one_of(&streams).clone();
        for _ in 0..=seed.below(4) {
            change(&mut seed, &mut bytes, &other);
        }
        read(&mut seed, &bytes);
    }
}
