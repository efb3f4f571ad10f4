//! The order of effects: `after` must not run in a circle.

use std::collections::{BTreeMap, BTreeSet};

/// Finds one cycle in `after`: its effects in order, the first repeated at the end.
///
/// Names that are not keys are ignored: an unknown effect is a fault of its own.
pub fn cycle(after: &BTreeMap<&str, &BTreeSet<String>>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    after.keys().find_map(|start| walk(start, after, &mut done))
}

/// Walks depth first with a stack of its own: a pipeline may be as deep as its author likes.
fn walk<'a>(
    start: &'a str,
    after: &BTreeMap<&'a str, &'a BTreeSet<String>>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if done.contains(start) {
        return None;
    }
    let mut path = vec![(start, after[start].iter())];
    while let Some((name, rest)) = path.last_mut() {
        let Some(next) = rest.next() else {
            done.insert(name);
            path.pop();
            continue;
        };
        if let Some(begin) = path.iter().position(|(name, _)| name == next) {
            let mut names: Vec<_> = path[begin..]
                .iter()
                .map(|(name, _)| (*name).into())
                .collect();
            names.push(next.clone());
            return Some(names);
        }
        if let Some((next, earlier)) = after.get_key_value(next.as_str())
            && !done.contains(next)
        {
            path.push((next, earlier.iter()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(edges: &[(&str, &[&str])]) -> Option<String> {
        let sets: BTreeMap<&str, BTreeSet<String>> = edges
            .iter()
            .map(|(name, after)| (*name, after.iter().map(ToString::to_string).collect()))
            .collect();
        let after = sets.iter().map(|(name, set)| (*name, set)).collect();
        cycle(&after).map(|names| names.join(" "))
    }

    #[test]
    fn names_the_cycle_alone() {
        assert_eq!(
            find(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]).unwrap(),
            "b c b"
        );
        assert_eq!(find(&[("a", &["a"])]).unwrap(), "a a");
    }

    #[test]
    fn accepts_diamonds_and_unknown_names() {
        assert_eq!(
            find(&[
                ("a", &["b", "c"]),
                ("b", &["d"]),
                ("c", &["d"]),
                ("d", &["x"])
            ]),
            None
        );
    }
}
