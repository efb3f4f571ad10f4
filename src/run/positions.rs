//! An agent's answer names paths by their positions in what it was asked: a plan asks for a hundred
//! thousand, and most of the answer would be their names.

use std::collections::BTreeSet;

use crate::nix::StorePath;

/// The paths that are meant, or why the answer makes no sense.
pub(super) fn those(asked: Vec<StorePath>, which: &[usize]) -> Result<BTreeSet<StorePath>, String> {
    let count = asked.len();
    let mut rest = which.iter().peekable();
    let those = asked
        .into_iter()
        .enumerate()
        .filter(|(at, _)| rest.next_if_eq(&at).is_some())
        .map(|(_, path)| path)
        .collect();
    match rest.next() {
        None => Ok(those),
        Some(at) => Err(format!(
            "its agent says that number {at} of {count} paths is valid"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_name_paths_in_order_and_nothing_else() {
        let path = |n: u8| StorePath::from_parts([n; 20], "x").unwrap();
        let asked: BTreeSet<StorePath> = [1, 2, 3].map(path).into();
        let sorted: Vec<StorePath> = asked.into_iter().collect();
        assert_eq!(those(sorted.clone(), &[]).unwrap(), BTreeSet::new());
        let two = [sorted[0].clone(), sorted[2].clone()];
        assert_eq!(those(sorted.clone(), &[0, 2]).unwrap(), two.into());
        for wrong in [[1, 3], [1, 0], [1, 1]] {
            assert!(those(sorted.clone(), &wrong).is_err(), "{wrong:?}");
        }
    }
}
