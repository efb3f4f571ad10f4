//! What is named while files are read: paths, which get numbers, and sets of outputs.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Names;
use crate::nix::STORE_DIR;
use crate::nix::derivation::{OutputPaths, Wanted};
use crate::plan::lists::number;

/// Locks for the numbers of paths: with so many, two threads seldom want the same.
const SHARDS: usize = 64;

/// The numbers of paths, by their full texts.
pub(super) struct Numbers {
    shards: [Mutex<HashMap<Box<str>, usize, ByDigest>>; SHARDS],
    count: AtomicUsize,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
        }
    }
}

impl Numbers {
    /// The number of a path. `first` is called with a new one before anybody else knows it.
    pub fn of(&self, text: &str, first: impl FnOnce(usize)) -> usize {
        // The digest comes next, and any sign of it is as good as another.
        let sign = text.as_bytes().get(STORE_DIR.len() + 1);
        let shard = &self.shards[usize::from(*sign.unwrap_or(&0)) % SHARDS];
        let mut numbers = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = numbers.get(text) {
            return number;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        first(number);
        numbers.insert(text.into(), number);
        number
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Hashes of a path only as much of its digest as tells it from others, with a secret of its own.
#[derive(Default)]
struct ByDigest(RandomState);

impl BuildHasher for ByDigest {
    type Hasher = Digest;

    fn build_hasher(&self) -> Digest {
        Digest(self.0.build_hasher())
    }
}

struct Digest(DefaultHasher);

impl Hasher for Digest {
    fn write(&mut self, text: &[u8]) {
        let start = STORE_DIR.len() + 1;
        let digest = text.get(start..start + 16);
        self.0.write(digest.unwrap_or(text));
    }

    /// Ends a text.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// Sets of outputs, each with a number.
#[derive(Default)]
pub(super) struct Sets(Mutex<Known>);

#[derive(Default)]
struct Known {
    numbers: HashMap<Box<str>, u32>,
    sets: Vec<Names>,
}

impl Sets {
    /// The number of what is wanted, whose key is `key`.
    fn of(&self, key: &str, wanted: Wanted<'_>) -> u32 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = all.numbers.get(key) {
            return number;
        }
        let number = number(all.sets.len());
        all.sets.push(Arc::new(wanted.names()));
        all.numbers.insert(key.into(), number);
        number
    }

    /// All of them, by number.
    pub fn into_sets(self) -> Vec<Names> {
        let all = self.0.into_inner();
        all.unwrap_or_else(PoisonError::into_inner).sets
    }
}

/// The sets that a thread has met: asked a hundred thousand times, it asks nobody else.
pub(super) struct Met<'a> {
    sets: &'a Sets,
    /// What nearly everybody wants: its number, once it has one.
    out: Option<u32>,
    numbers: HashMap<Box<str>, u32>,
    /// The names of derivations' outputs. They are counted, and two threads that count the same
    /// would wait for each other.
    names: HashMap<Box<str>, Names>,
}

/// How a set that has but the name `out` is written.
const OUT: &str = r#"["out"]"#;

impl<'a> Met<'a> {
    /// Begins with none.
    pub fn new(sets: &'a Sets) -> Self {
        Self {
            sets,
            out: None,
            numbers: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// The number of what is wanted.
    pub fn wanted(&mut self, wanted: Wanted<'_>) -> u32 {
        let key = wanted.key();
        if key == OUT {
            return *self.out.get_or_insert_with(|| self.sets.of(&key, wanted));
        }
        if let Some(&number) = self.numbers.get(&*key) {
            return number;
        }
        let number = self.sets.of(&key, wanted);
        self.numbers.insert(key.into(), number);
        number
    }

    /// The names of a derivation's outputs.
    pub fn names(&mut self, outputs: &OutputPaths) -> Names {
        let key: Vec<&str> = outputs.keys().collect();
        let key = key.join(" ");
        if let Some(names) = self.names.get(&*key) {
            return names.clone();
        }
        let names: Names = Arc::new(outputs.keys().map(ToOwned::to_owned).collect());
        self.names.insert(key.into(), names.clone());
        names
    }
}
