//! What is named while files are read: paths, which get numbers, and sets of outputs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::nix::STORE_DIR;
use crate::nix::derivation::{OutputPaths, Wanted};

/// Locks for the numbers of paths: with so many, two threads seldom want the same.
const SHARDS: usize = 64;

/// The numbers of paths, by their full texts.
pub(super) struct Numbers {
    shards: [Mutex<HashMap<Box<str>, usize>>; SHARDS],
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

/// Sets of outputs, each kept once by each thread: they are counted a hundred thousand times, and
/// two threads that count the same would wait for each other.
pub(super) struct Sets {
    out: Arc<BTreeSet<String>>,
    others: HashMap<Box<str>, Arc<BTreeSet<String>>>,
}

impl Default for Sets {
    fn default() -> Self {
        Self {
            out: Arc::new(["out".to_owned()].into()),
            others: HashMap::new(),
        }
    }
}

impl Sets {
    /// The set of what is wanted.
    pub fn wanted(&mut self, wanted: Wanted<'_>) -> Arc<BTreeSet<String>> {
        let key = wanted.key();
        if key == r#"["out"]"# {
            return self.out.clone();
        }
        if let Some(known) = self.others.get(&*key) {
            return known.clone();
        }
        let set = Arc::new(wanted.names());
        self.others.insert(key.into(), set.clone());
        set
    }

    /// The set of the names of a derivation's outputs.
    pub fn of(&mut self, outputs: &OutputPaths) -> Arc<BTreeSet<String>> {
        if outputs.keys().eq(["out"]) {
            return self.out.clone();
        }
        let names = outputs.keys().map(ToOwned::to_owned).collect();
        self.wanted(Wanted::Named(&names))
    }
}
