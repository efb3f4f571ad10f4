//! A hash for keys that are one number, and that nobody has chosen: it takes no longer than a look
//! into the table does.

use std::hash::{BuildHasher, Hasher};

/// Makes the hasher.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given;

/// The number, or what of it is left after it was spread over all bits.
pub struct Spread(u64);

impl BuildHasher for Given {
    type Hasher = Spread;

    fn build_hasher(&self) -> Spread {
        Spread(0)
    }
}

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let odd = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ number).wrapping_mul(odd).rotate_left(32);
    }
}
