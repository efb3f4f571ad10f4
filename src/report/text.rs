//! Makes text from builders harmless for a terminal, and measures and cuts it.
//!
//! A log line can hold anything: cursor movements, window titles, a device query whose answer ends
//! up in the shell, carriage returns, text that runs backwards. What may pass is printable text,
//! tabs, and SGR sequences that set colour or weight. The grammar of escape sequences is ECMA-48's:
//! `ESC [ parameters intermediates final`, string commands until BEL or `ESC \`, and two-character
//! escapes; each also in its one-character C1 form.

use std::iter::Peekable;
use std::str::Chars;

use super::style::Colour;

/// Makes one log line harmless. What was overwritten by a carriage return is left out, as a
/// terminal would show it; with [`Colour::Ansi`] colours stay and are closed at the end.
pub fn clean(line: &str, colour: Colour) -> String {
    let shown = line
        .trim_end_matches('\r')
        .rsplit('\r')
        .next()
        .unwrap_or_default();
    let mut out = String::with_capacity(shown.len());
    let mut coloured = false;
    let mut chars = shown.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' | '\u{80}'..='\u{9f}' => {
                if let Some(sgr) = escape(char, &mut chars)
                    && colour == Colour::Ansi
                {
                    coloured = true;
                    out.push_str(&sgr);
                }
            }
            '\t' => out.push('\t'),
            char if misleads(char) => out.extend(char.escape_default()),
            char => out.push(char),
        }
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// Makes a name harmless: no colour, no tab.
pub fn label(text: &str) -> String {
    clean(text, Colour::Never).replace('\t', " ")
}

/// An upper bound of the columns a harmless text without escape sequences takes. Wide scripts and
/// emoji take two; what is narrower than thought leaves a gap, never a wrapped line.
pub fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Cuts to at most `limit` columns; a cut shows as `…`.
pub fn cut(text: &str, limit: usize) -> String {
    if columns(text) <= limit {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for char in text.chars() {
        if used + width(char) + 1 > limit {
            break;
        }
        used += width(char);
        out.push(char);
    }
    if limit > 0 {
        out.push('…');
    }
    out
}

fn width(char: char) -> usize {
    if char < '\u{1100}' || ('\u{2000}'..'\u{2300}').contains(&char) {
        1
    } else {
        2
    }
}

/// Control characters, and those that reorder or break a line unseen.
fn misleads(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Takes an escape sequence whose first character has been taken; gives back an SGR that may stay.
fn escape(first: char, chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let kind = match first {
        '\u{1b}' => chars.next_if(|&next| !next.is_control())?,
        // The C1 form of `ESC x` is x + 0x40.
        c1 => char::from_u32(u32::from(c1) - 0x40)?,
    };
    match kind {
        '[' => control_sequence(chars),
        ']' | 'P' | 'X' | '^' | '_' => {
            skip_string(chars);
            None
        }
        ' '..='/' => {
            while chars.next_if(|next| matches!(next, ' '..='/')).is_some() {}
            chars.next_if(|next| matches!(next, '0'..='~'));
            None
        }
        _ => None,
    }
}

fn control_sequence(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut parameters = String::new();
    while let Some(char) = chars.next_if(|next| matches!(next, '0'..='?')) {
        parameters.push(char);
    }
    let mut plain = true;
    while chars.next_if(|next| matches!(next, ' '..='/')).is_some() {
        plain = false;
    }
    let last = chars.next_if(|next| matches!(next, '@'..='~'))?;
    (last == 'm' && plain && visible(&parameters)).then(|| format!("\u{1b}[{parameters}m"))
}

/// Whether SGR parameters only set colour and weight: no blinking, nothing hidden.
fn visible(parameters: &str) -> bool {
    if parameters.len() > 64 {
        return false;
    }
    let mut numbers = parameters.split(';');
    while let Some(number) = numbers.next() {
        match number {
            "38" | "48" => {
                let components = match numbers.next() {
                    Some("5") => 1,
                    Some("2") => 3,
                    _ => return false,
                };
                for _ in 0..components {
                    if numbers
                        .next()
                        .is_none_or(|part| part.parse::<u8>().is_err())
                    {
                        return false;
                    }
                }
            }
            "" => {}
            number => match number.parse::<u8>() {
                Ok(0..=4 | 7 | 9 | 21..=24 | 27 | 29..=37 | 39..=47 | 49 | 90..=97 | 100..=107) => {
                }
                _ => return false,
            },
        }
    }
    true
}

fn skip_string(chars: &mut Peekable<Chars<'_>>) {
    while let Some(char) = chars.next() {
        match char {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' if chars.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(line: &str) -> String {
        clean(line, Colour::Never)
    }

    #[test]
    fn commands_to_the_terminal_do_not_pass() {
        assert_eq!(plain("a\u{1b}[2J\u{1b}[1;1Hb"), "ab");
        assert_eq!(plain("a\u{1b}]0;title\u{7}b"), "ab");
        assert_eq!(
            plain("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b"),
            "alinkb"
        );
        assert_eq!(plain("a\u{1b}Pq#0\u{1b}\\b"), "ab");
        assert_eq!(plain("a\u{1b}cb\u{1b}(0c\u{9b}6nd"), "abcd");
        assert_eq!(plain("never ended \u{1b}]0;title"), "never ended ");
        assert_eq!(plain("ends in \u{1b}"), "ends in ");
    }

    #[test]
    fn carriage_returns_overwrite() {
        assert_eq!(plain("10%\r50%\r100%\r"), "100%");
        assert_eq!(plain("\r"), "");
    }

    #[test]
    fn what_misleads_is_spelled_out() {
        assert_eq!(plain("a\u{8}b\u{7}\u{202e}c"), "a\\u{8}b\\u{7}\\u{202e}c");
    }

    #[test]
    fn only_colour_stays_and_is_closed() {
        let keep = |line| clean(line, Colour::Ansi);
        assert_eq!(keep("\u{1b}[1;31mred"), "\u{1b}[1;31mred\u{1b}[0m");
        assert_eq!(keep("\u{1b}[38;5;8mgrey"), "\u{1b}[38;5;8mgrey\u{1b}[0m");
        assert_eq!(
            keep("\u{1b}[8mhidden\u{1b}[5mblinks\u{1b}[>4m"),
            "hiddenblinks"
        );
        assert_eq!(keep("plain"), "plain");
    }

    #[test]
    fn cuts_by_columns() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello world", 6), "hello…");
        assert_eq!(cut("日本語テキスト", 6), "日本…");
        assert_eq!(cut("hello", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_but_printable_text_comes_out(line in "(\\PC|[\u{1}-\u{9f}]|\\[|m|;){0,60}") {
            let out = plain(&line);
            prop_assert!(!out.chars().any(|char| char.is_control() && char != '\t'), "{out:?}");
        }

        #[test]
        fn a_cut_fits(text in "\\PC{0,40}", limit in 0_usize..50) {
            prop_assert!(columns(&cut(&text, limit)) <= limit);
        }
    }
}
