//! Random choices that can be repeated, and how many of them.

/// A source of choices (`SplitMix64`). Its seed is printed, which the test runner shows when the
/// test fails; `PONTOON_SEED` repeats it.
pub(crate) struct Seed {
    state: u64,
}

impl Seed {
    /// The seed of `PONTOON_SEED`, else a new one; a test's name makes it differ from its siblings.
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it when the test fails"
    )]
    pub(crate) fn new(test: &str) -> Self {
        let given = variable("PONTOON_SEED").map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("PONTOON_SEED is not a number: `{text}`"))
        });
        let seed: u64 = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::try_from(now.expect("it is after 1970").as_micros()).unwrap_or(u64::MAX)
        });
        eprintln!("{test}: PONTOON_SEED={seed}");
        let mixed = test
            .bytes()
            .fold(seed, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
        Self { state: mixed }
    }

    /// One whose choices follow from a choice of another.
    pub(crate) fn of(state: u64) -> Self {
        Self { state }
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a usize has 64 bits");
        usize::try_from(self.next() % bound).expect("it is below a usize")
    }

    /// Whether something with `percent` chances of 100 happens.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of some things.
    pub(crate) fn one_of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }
}

/// How often to do something: `reduced` in the gate, `full` in `make soak`.
pub(crate) fn count(reduced: usize, full: usize) -> usize {
    if variable("PONTOON_SOAK").is_some() {
        full
    } else {
        reduced
    }
}

/// The one place where tests read the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
