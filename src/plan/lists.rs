//! Lists by number, in one piece: a quarter of a million inputs are gone through several times, and
//! that takes as long as finding them takes.

/// Lists by number.
#[derive(Debug, Clone)]
pub struct Lists<T> {
    all: Vec<T>,
    /// Where each begins. The one after the last begins where the last one ends.
    starts: Vec<usize>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            starts: vec![0],
        }
    }
}

impl<T> Lists<T> {
    /// Copies lists, whose numbers are in the order in which they come.
    pub fn of<L: IntoIterator<Item = T>>(lists: impl Iterator<Item = L>, items: usize) -> Self {
        let mut made = Self::default();
        made.all.reserve_exact(items);
        made.starts.reserve_exact(lists.size_hint().0);
        for list in lists {
            made.all.extend(list);
            made.starts.push(made.all.len());
        }
        made
    }

    /// Goes on with the lists of others.
    pub fn append(&mut self, mut others: Self) {
        let before = self.all.len();
        self.all.append(&mut others.all);
        let starts = others.starts.iter().skip(1);
        self.starts.extend(starts.map(|start| before + start));
    }

    /// The list of this number.
    pub fn of_one(&self, number: usize) -> &[T] {
        &self.all[self.starts[number]..self.starts[number + 1]]
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[T]> + ExactSizeIterator {
        let ends = self.starts.windows(2);
        ends.map(|ends| &self.all[ends[0]..ends[1]])
    }

    /// Says by number in whose lists it is, in order. Items name lists that there are.
    pub fn turned(&self, name: impl Fn(&T) -> u32) -> Lists<u32> {
        let mut starts = vec![0; self.starts.len()];
        for item in &self.all {
            starts[name(item) as usize] += 1;
        }
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let mut all = vec![0; end];
        // Each list is filled from its end, so that in the end its start is where it begins.
        for (at, list) in self.iter().enumerate().rev() {
            for item in list {
                let start = &mut starts[name(item) as usize];
                *start -= 1;
                all[*start] = number(at);
            }
        }
        Lists { all, starts }
    }
}

/// A number as it is kept: there are a quarter of a million.
pub fn number(count: usize) -> u32 {
    u32::try_from(count).expect("what is counted takes more than a byte each")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn turned_lists_say_who_names_whom(
            lists in prop::collection::vec(prop::collection::btree_set(0_u32..9, 0..5), 9),
        ) {
            let made = Lists::of(lists.iter().cloned(), 0);
            prop_assert_eq!(made.iter().len(), lists.len());
            for (at, list) in lists.iter().enumerate() {
                prop_assert!(made.of_one(at).iter().eq(list));
            }
            let (some, others) = lists.split_at(4);
            let mut joined = Lists::of(some.iter().cloned(), 0);
            joined.append(Lists::of(others.iter().cloned(), 0));
            prop_assert!(joined.iter().eq(made.iter()));
            let turned = made.turned(|&named| named);
            for named in 0..9_u32 {
                let who = (0..9_u32).filter(|&at| lists[at as usize].contains(&named));
                prop_assert!(who.eq(turned.of_one(named as usize).iter().copied()));
            }
        }
    }
}
