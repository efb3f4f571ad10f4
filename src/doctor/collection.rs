//! Whether a daemon's collector may take the store, which is a cache mount (BuildKit spec §9.2).
//!
//! A rule takes a record if one of its filters matches it, or if it has none. A filter is selectors
//! with commas between, all of which must match; the grammar is containerd's:
//!
//! | selector | matches if |
//! |---|---|
//! | `field` | the record has the field |
//! | `field==value` | it is this |
//! | `field!=value` | it is not, or there is none |
//! | `field~=pattern` | the pattern is found in it |
//!
//! A value may be quoted. Of the store's record the type is known, that it is mutable and private,
//! and that it is idle when it is in danger. What cannot be known may match.
//!
//! There is a second danger. A rule with limits of size makes the daemon measure *everything*, also
//! what no filter matches, and an op that starts while an idle store is measured gets another, empty
//! one (measured).

use crate::buildkit::records::CACHE_MOUNT;
use crate::buildkit::workers::Rule;

/// What a collector does to a store that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Danger {
    /// The rules that may remove it, by number from 0.
    pub remove: Vec<usize>,
    /// The rules that make the daemon measure it.
    pub measure: Vec<usize>,
}

/// Reads the rules of a collector.
pub fn danger(rules: &[Rule]) -> Danger {
    let numbers = |is_so: &dyn Fn(&Rule) -> bool| {
        let found = rules.iter().enumerate().filter(|(_, rule)| is_so(rule));
        found.map(|(number, _)| number).collect()
    };
    Danger {
        remove: numbers(&may_remove),
        measure: numbers(&|rule| {
            [rule.reserved, rule.most_used, rule.least_free]
                .iter()
                .any(|limit| *limit != 0)
        }),
    }
}

fn may_remove(rule: &Rule) -> bool {
    rule.filters.is_empty() || rule.filters.iter().any(|filter| may_match(filter))
}

fn may_match(filter: &str) -> bool {
    selectors(filter)
        .iter()
        .all(|selector| may_select(selector))
}

fn may_select(selector: &str) -> bool {
    let operator = ["==", "!=", "~="].into_iter().find_map(|operator| {
        let (field, value) = selector.split_once(operator)?;
        Some((field.trim(), operator, unquoted(value.trim())))
    });
    let Some((field, operator, value)) = operator else {
        // Presence.
        return !matches!(selector.trim(), "immutable" | "inuse" | "shared");
    };
    match (field, operator) {
        ("type", "==") => value == CACHE_MOUNT,
        ("type", "!=") => value != CACHE_MOUNT,
        ("type", "~=") => may_be_found(&value),
        // These have no value, only presence.
        ("mutable" | "immutable" | "inuse" | "shared" | "private", "==") => value.is_empty(),
        _ => true,
    }
}

/// Whether a pattern may be found in the type. One that is more than plain text may.
fn may_be_found(pattern: &str) -> bool {
    let plain = pattern
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    // A dot stands for itself, too.
    !plain || CACHE_MOUNT.contains(pattern)
}

/// Cuts at commas outside of quotes.
fn selectors(filter: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut quote = None;
    for c in filter.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == ',' => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().expect("it begins with one").push(c);
    }
    found
}

fn unquoted(value: &str) -> String {
    let inner = ['"', '\'', '/', '|']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    inner.unwrap_or(value).to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule(filters: &[&str], limits: [i64; 3]) -> Rule {
        Rule {
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
            keep: Duration::from_hours(48),
            reserved: limits[0],
            most_used: limits[1],
            least_free: limits[2],
        }
    }

    #[test]
    fn which_filters_may_take_a_cache_mount() {
        let may = [
            "",
            "type==exec.cachemount",
            "type==\"exec.cachemount\"",
            "type!=regular",
            "type~=exec",
            "type~=/^exec\\..*/",
            "type~=(regular|exec.cachemount)",
            "mutable,private",
            "description~=cached",
            "id!=x,type==exec.cachemount",
            "type!='a,b'",
        ];
        for filter in may {
            assert!(may_match(filter), "{filter}");
        }
        let may_not = [
            "type==regular",
            "type!=exec.cachemount",
            "type~=source",
            "inuse",
            "shared",
            "immutable",
            "type==exec.cachemount,inuse",
            "description~=cached,type=='regular'",
            "type==\"a,type==exec.cachemount\"",
        ];
        for filter in may_not {
            assert!(!may_match(filter), "{filter}");
        }
    }

    #[test]
    fn the_default_rules_take_and_measure_the_store() {
        let first = [
            "type==source.local",
            "type==exec.cachemount",
            "type==source.git.checkout",
        ];
        let default = [
            rule(&first, [0, 512 << 20, 0]),
            rule(&[], [10 << 30, 100 << 30, 51 << 30]),
        ];
        let expected = Danger {
            remove: vec![0, 1],
            measure: vec![0, 1],
        };
        assert_eq!(danger(&default), expected);
        let spared = [
            rule(&["type==source.local", "type==source.git.checkout"], [0; 3]),
            rule(&["type==regular"], [0, 0, 10 << 30]),
        ];
        let expected = Danger {
            remove: vec![],
            measure: vec![1],
        };
        assert_eq!(danger(&spared), expected);
        assert_eq!(danger(&[rule(&[], [0; 3])]).remove, [0]);
    }
}
