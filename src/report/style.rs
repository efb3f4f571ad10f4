//! Ink, durations, sizes and shell quoting: how small things look in every human report.

use std::borrow::Cow;

/// Whether escape sequences for colour may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Text alone: no terminal, `NO_COLOR`, or `TERM=dumb`.
    Never,
    /// SGR sequences.
    Ansi,
}

/// What colour says besides the word it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// It went well.
    Good,
    /// It failed.
    Bad,
    /// Somebody should look.
    Warn,
    /// Of lesser weight.
    Faint,
    /// A heading.
    Strong,
}

impl Colour {
    /// Writes `text` in an ink.
    pub fn paint(self, ink: Ink, text: &str) -> Cow<'_, str> {
        if self == Self::Never {
            return Cow::Borrowed(text);
        }
        let code = match ink {
            Ink::Good => "32",
            Ink::Bad => "31;1",
            Ink::Warn => "33",
            Ink::Faint => "2",
            Ink::Strong => "1",
        };
        Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m"))
    }
}

/// A length of time as people say it: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 1 min`.
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 9.95 here, and the cast saturates"
    )]
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A size in binary units: `512 B`, `3.2 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut size = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}

/// `1 derivation`, `2 derivations`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A word as a POSIX shell takes it back.
pub fn quote(word: &str) -> Cow<'_, str> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&byte);
    if !word.is_empty() && word.bytes().all(safe) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_said() {
        let said: Vec<String> = [0.04, 9.94, 9.96, 59.6, 185.0, 7260.0, f64::NAN]
            .map(duration)
            .to_vec();
        assert_eq!(
            said,
            [
                "0.0 s",
                "9.9 s",
                "10 s",
                "1 min 0 s",
                "3 min 5 s",
                "2 h 1 min",
                "0 s"
            ]
        );
    }

    #[test]
    fn sizes_change_unit_before_they_grow_long() {
        assert_eq!(
            [0, 1023, 1024, 1_048_575].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB"]
        );
    }

    #[test]
    fn quoting_survives_a_shell() {
        assert_eq!(quote("/nix/store/x.drv"), "/nix/store/x.drv");
        assert_eq!(quote("x.drv^*"), "'x.drv^*'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn without_colour_text_stays_text() {
        assert_eq!(Colour::Never.paint(Ink::Bad, "failed"), "failed");
        assert_eq!(
            Colour::Ansi.paint(Ink::Bad, "failed"),
            "\u{1b}[31;1mfailed\u{1b}[0m"
        );
    }
}
