//! The reference scan: which store paths a build's output mentions (Nix spec §5.4).
//!
//! A *hash part* is the 32 characters at the beginning of a store path's base name. An output refers
//! to a candidate when the hash part occurs anywhere in the output's NAR: with or without the store
//! directory, inside longer runs of such characters, across any boundary of reads.
//!
//! [`Examiner`] is an `io::Write` that hashes, measures and scans in one pass.

use std::collections::{BTreeSet, HashMap};
use std::io;

use sha2::{Digest, Sha256};

use super::StorePath;

/// How long a hash part is.
const LENGTH: usize = 32;
/// What must be kept between two pieces.
const TAIL: usize = LENGTH - 1;
/// How many bits of a window's first bytes choose a bit of the filter.
const FILTER_BITS: u32 = 16;

/// `true` for the characters of Nix's base 32.
const BASE32: [bool; 256] = {
    let mut table = [false; 256];
    let alphabet = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut index = 0;
    while index < alphabet.len() {
        table[alphabet[index] as usize] = true;
        index += 1;
    }
    table
};

/// Searches a stream for the hash parts of candidates.
pub struct Scanner {
    candidates: HashMap<[u8; LENGTH], Vec<StorePath>>,
    filter: Vec<u64>,
    found: BTreeSet<StorePath>,
    tail: Vec<u8>,
}

impl Scanner {
    /// Searches for these paths. Two with one hash part are found together.
    pub fn new<'a>(candidates: impl IntoIterator<Item = &'a StorePath>) -> Self {
        let mut scanner = Self {
            candidates: HashMap::new(),
            filter: vec![0; 1 << (FILTER_BITS - 6)],
            found: BTreeSet::new(),
            tail: Vec::with_capacity(2 * TAIL),
        };
        for path in candidates {
            let name = path.to_basename();
            let hash_part: [u8; LENGTH] = name.as_bytes()[..LENGTH]
                .try_into()
                .expect("a base name begins with a hash part");
            let bit = filter_bit(&hash_part);
            scanner.filter[bit / 64] |= 1 << (bit % 64);
            scanner
                .candidates
                .entry(hash_part)
                .or_default()
                .push(path.clone());
        }
        scanner
    }

    /// Scans the next piece of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        if self.candidates.is_empty() {
            return;
        }
        let mut seam = std::mem::take(&mut self.tail);
        let kept = seam.len();
        seam.extend_from_slice(&piece[..piece.len().min(TAIL)]);
        if kept > 0 {
            self.scan(&seam);
        }
        self.scan(piece);
        if piece.len() >= TAIL {
            seam.clear();
            seam.extend_from_slice(&piece[piece.len() - TAIL..]);
        } else {
            seam.drain(..seam.len().saturating_sub(TAIL));
        }
        self.tail = seam;
    }

    /// Returns the candidates that occurred.
    pub fn finish(self) -> BTreeSet<StorePath> {
        self.found
    }

    /// Looks at the last character of a window first: one that is no base 32 rules out every window
    /// that holds it. Most of a binary is passed in steps of nearly 32 bytes.
    fn scan(&mut self, bytes: &[u8]) {
        let mut start = 0;
        let mut known = 0;
        'windows: while let Some(window) = bytes.get(start..start + LENGTH) {
            for place in (known..LENGTH).rev() {
                if !BASE32[usize::from(window[place])] {
                    start += place + 1;
                    known = 0;
                    continue 'windows;
                }
            }
            let window: &[u8; LENGTH] = window.try_into().expect("the window has this length");
            let bit = filter_bit(window);
            if self.filter[bit / 64] >> (bit % 64) & 1 == 1
                && let Some(paths) = self.candidates.get(window)
            {
                self.found.extend(paths.iter().cloned());
            }
            start += 1;
            known = TAIL;
        }
    }
}

/// The filter's bit for a hash part: cheap, and decides nearly all windows of a long base-32 run.
fn filter_bit(window: &[u8; LENGTH]) -> usize {
    let head = u64::from_le_bytes(window[..8].try_into().expect("eight bytes"));
    usize::try_from(head.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS))
        .expect("sixteen bits")
}

/// What one pass over a NAR found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// SHA-256 of the NAR.
    pub nar_hash: [u8; 32],
    /// Its length.
    pub nar_size: u64,
    /// The candidates it mentions.
    pub references: BTreeSet<StorePath>,
}

/// A destination that hashes, measures and scans what is written to it.
pub struct Examiner {
    hash: Sha256,
    size: u64,
    scanner: Scanner,
}

impl Examiner {
    /// Scans for these candidates.
    pub fn new<'a>(candidates: impl IntoIterator<Item = &'a StorePath>) -> Self {
        Self {
            hash: Sha256::new(),
            size: 0,
            scanner: Scanner::new(candidates),
        }
    }

    /// Returns the result.
    pub fn finish(self) -> Examined {
        Examined {
            nar_hash: self.hash.finalize().into(),
            nar_size: self.size,
            references: self.scanner.finish(),
        }
    }
}

impl io::Write for Examiner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.scanner.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASHES: [&str; 3] = [
        "00000000000000000000000000000000",
        "qysjcg5xyij7ngs68q7ilsswhjcian7m",
        "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
    ];

    fn candidates() -> Vec<StorePath> {
        HASHES
            .iter()
            .map(|hash| StorePath::from_basename(format!("{hash}-x").as_bytes()).unwrap())
            .collect()
    }

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut scanner = Scanner::new(&candidates());
        for piece in pieces {
            scanner.feed(piece);
        }
        scanner
            .finish()
            .iter()
            .map(|path| path.to_basename()[..LENGTH].to_owned())
            .collect()
    }

    #[test]
    fn a_hash_part_is_found_across_every_boundary_and_inside_longer_runs() {
        let text = format!("zz{}zz!", HASHES[1]);
        for cut in 0..=text.len() {
            let (left, right) = text.as_bytes().split_at(cut);
            assert_eq!(scan([left, right]), [HASHES[1]], "{cut}");
        }
        assert_eq!(scan(text.as_bytes().chunks(1)), [HASHES[1]]);
        assert!(scan([text.to_uppercase().as_bytes()]).is_empty());
        assert!(scan([&text.as_bytes()[..33]]).is_empty());
    }

    #[test]
    fn two_paths_with_one_hash_part_are_both_found() {
        let paths = ["a", "b"].map(|name| {
            StorePath::from_basename(format!("{}-{name}", HASHES[1]).as_bytes()).unwrap()
        });
        let mut scanner = Scanner::new(&paths);
        scanner.feed(HASHES[1].as_bytes());
        assert_eq!(scanner.finish().len(), 2);
    }

    #[test]
    fn the_archive_with_references_over_a_boundary_gives_nix_s_answer() {
        let manifest: serde_json::Value =
            serde_json::from_slice(include_bytes!("../../tests/vectors/manifest.json")).unwrap();
        let outputs: Vec<_> = manifest["derivations"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|derivation| derivation["outputs"].as_object())
            .flat_map(serde_json::Map::values)
            .filter(|output| output["nar"].is_string())
            .collect();
        let everything: BTreeSet<StorePath> = outputs
            .iter()
            .flat_map(|output| output["references"].as_array().unwrap())
            .map(|path| path.as_str().unwrap().parse().unwrap())
            .collect();
        for output in outputs {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/nar/");
            let bytes =
                fs_err::read(format!("{folder}{}", output["nar"].as_str().unwrap())).unwrap();
            let expected: BTreeSet<StorePath> = output["references"]
                .as_array()
                .unwrap()
                .iter()
                .map(|path| path.as_str().unwrap().parse().unwrap())
                .collect();
            let mut examiner = Examiner::new(&everything);
            for piece in bytes.chunks(4096) {
                io::Write::write_all(&mut examiner, piece).unwrap();
            }
            let result = examiner.finish();
            assert!(result.references.is_superset(&expected), "{output}");
            assert_eq!(result.nar_size, output["narSize"].as_u64().unwrap());
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_search(
            parts in prop::collection::vec(
                prop_oneof![
                    "[0a]{0,40}",
                    "[0-9a-z/. ]{0,40}",
                    prop::sample::select(HASHES.to_vec()).prop_map(ToOwned::to_owned),
                ],
                0..12,
            ),
            cuts in prop::collection::vec(1_usize..50, 1..30),
        ) {
            let text = parts.concat();
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            let mut naive: Vec<String> =
                HASHES.iter().filter(|hash| text.contains(**hash)).map(ToString::to_string).collect();
            naive.sort();
            let mut found = scan(pieces);
            found.sort();
            prop_assert_eq!(found, naive);
        }
    }
}
