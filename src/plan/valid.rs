//! What is valid, to be asked tens of thousands of times.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use super::given::Given;
use crate::nix::StorePath;

/// Valid paths.
pub(super) struct Valid<'a>(HashSet<Digested<'a>, Given>);

impl Valid<'_> {
    /// Whether a path is one of them.
    pub fn contains(&self, path: &StorePath) -> bool {
        self.0.contains(&Digested(path))
    }
}

impl<'a> FromIterator<&'a StorePath> for Valid<'a> {
    fn from_iter<I: IntoIterator<Item = &'a StorePath>>(paths: I) -> Self {
        Self(paths.into_iter().map(Digested).collect())
    }
}

/// A path whose digest is hash enough: what is valid was put into a store, so nobody has chosen it.
#[derive(PartialEq, Eq)]
struct Digested<'a>(&'a StorePath);

impl Hash for Digested<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = self.0.digest().first_chunk();
        state.write_u64(u64::from_le_bytes(*first.expect("a digest has 20 bytes")));
    }
}
