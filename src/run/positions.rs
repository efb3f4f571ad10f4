//! An agent's answer names paths by their positions in what it was asked: a plan asks for a hundred
//! thousand, and most of the answer would be their names.

use std::collections::BTreeSet;

use crate::nix::StorePath;

/// The paths that are meant, or why the answer makes no sense.
pub(super) fn those(
    asked: &BTreeSet<StorePath>,
    which: &[usize],
) -> Result<BTreeSet<StorePath>, String> {
    let mut rest = which.iter().peekable();
    let those = asked
        .iter()
        .enumerate()
        .filter(|(at, _)| rest.next_if_eq(&at).is_some())
        .map(|(_, path)| path.clone())
        .collect();
    match rest.next() {
        None => Ok(those),
        Some(at) => Err(format!(
            "its agent says that number {at} of {} paths is valid",
            asked.len()
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
        assert_eq!(those(&asked, &[]).unwrap(), BTreeSet::new());
        let sorted: Vec<StorePath> = asked.iter().cloned().collect();
        let two = [sorted[0].clone(), sorted[2].clone()];
        assert_eq!(those(&asked, &[0, 2]).unwrap(), two.into());
        for wrong in [[1, 3], [1, 0], [1, 1]] {
            assert!(those(&asked, &wrong).is_err(), "{wrong:?}");
        }
    }
}
