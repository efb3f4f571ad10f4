//! Durations as people write them: `45s`, `10m`, `1h30m`.
//!
//! Units descend and appear once each; a bare number is seconds only as a Nix integer, so that
//! `timeout = "10"` is not taken for minutes by its reader.

use std::time::Duration;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Parses `1h30m`; `None` where it is no duration, or zero, or too long to count in seconds.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let (_, worth) = units.find(|(name, _)| *name == unit)?;
        seconds = seconds.checked_add(number.checked_mul(*worth)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_in_descending_order() {
        let seconds = |text| parse(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("45s"), Some(45));
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("1d2h3m4s"), Some(93_784));
    }

    #[test]
    fn rejects_everything_else() {
        for text in [
            "",
            "10",
            "m",
            "10x",
            "30m1h",
            "1m1m",
            "-1s",
            "0s",
            "1 m",
            "99999999999999999d",
            "1µ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
