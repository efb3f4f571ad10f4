//! Numbered places that stay where they are, so that threads use them while others add more.

use std::sync::OnceLock;

/// How many places the first piece has; each further piece has as many as all before it.
const FIRST: usize = 256;
/// As many pieces as numbers can need.
const PIECES: usize = 56;

/// Places for every number. One is made when it, or a neighbour, is first asked for.
pub struct Arena<T>([OnceLock<Box<[T]>>; PIECES]);

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; PIECES])
    }
}

impl<T: Default> Arena<T> {
    /// The place of this number.
    pub fn get(&self, number: usize) -> &T {
        let (piece, start) = match number / FIRST {
            0 => (0, 0),
            times => {
                let power = times.ilog2();
                (power as usize + 1, FIRST << power)
            }
        };
        let made = self.0[piece].get_or_init(|| {
            let count = start.max(FIRST);
            std::iter::repeat_with(T::default).take(count).collect()
        });
        &made[number - start]
    }
}

impl<T> Arena<T> {
    /// All places, in the order of numbers.
    pub fn into_places(self) -> impl Iterator<Item = T> {
        let pieces = self.0.into_iter().filter_map(OnceLock::into_inner);
        pieces.flat_map(Vec::from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_number_has_one_place() {
        let arena: Arena<AtomicUsize> = Arena::default();
        let count = 5 * FIRST;
        for number in 0..count {
            arena.get(number).fetch_add(number, Ordering::Relaxed);
        }
        let places = arena.into_places().map(AtomicUsize::into_inner);
        assert!(places.take(count).eq(0..count));
    }
}
