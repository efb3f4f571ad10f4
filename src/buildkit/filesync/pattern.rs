//! Patterns over slash-separated paths, as `.dockerignore` has them.
//!
//! | in a pattern | matches |
//! |---|---|
//! | `?`, `*` | one, or any number, of anything but `/` |
//! | `[a-z]`, `[^a]` | one of, or none of, these |
//! | `**/` | any number of directories, none included |
//! | `**` at an end | anything |
//! | `\x` | `x` itself |
//!
//! A leading `!` makes an exception from the patterns before it. What matches a directory matches
//! everything in it.

/// A list of patterns.
#[derive(Debug, Clone)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    exception: bool,
    tokens: Vec<Token>,
    /// What every match begins with, if there is more to it: up to the first special character.
    literal: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    One(char),
    /// Any but `/`.
    Any,
    /// Any number of any but `/`.
    Some,
    /// Any number of anything.
    All,
    /// Nothing, or anything up to and with a `/`.
    Directories,
    /// One of these ranges, or none of them.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Which of the patterns a directory matched: what is in it need not be tried again.
pub(super) type Matched = Vec<bool>;

impl Patterns {
    /// Reads a list; none if there is nothing in it.
    pub(super) fn new(texts: &[String]) -> Result<Option<Self>, String> {
        let mut patterns = Vec::new();
        for text in texts.iter().map(|text| text.trim()) {
            if text.is_empty() {
                continue;
            }
            let (exception, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            let text = clean(text);
            if exception && text == "." {
                return Err("the pattern `!` excepts nothing".to_owned());
            }
            let tokens = parse(&text).ok_or_else(|| format!("`{text}` is no pattern"))?;
            let special = text.find(['*', '?', '[', '\\']).unwrap_or(text.len());
            patterns.push(Pattern {
                exception,
                tokens,
                literal: text[..special].to_owned(),
            });
        }
        Ok(Some(Self { patterns }).filter(|list| !list.patterns.is_empty()))
    }

    /// Whether a path matches, given what its directory matched.
    pub(super) fn matches(&self, path: &str, parent: Option<&Matched>) -> (bool, Matched) {
        let mut verdict = false;
        let matched = self.patterns.iter().enumerate().map(|(number, pattern)| {
            let by_parent = parent.is_some_and(|parent| parent[number]);
            // One that could not change the verdict is not tried.
            let matches = by_parent || pattern.exception == verdict && pattern.matches(path);
            if matches {
                verdict = !pattern.exception;
            }
            matches
        });
        let matched = matched.collect();
        (verdict, matched)
    }

    /// Whether something in a directory that does not match itself may match.
    pub(super) fn may_match_in(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        let mut wanted = self.patterns.iter().filter(|pattern| !pattern.exception);
        wanted.any(|pattern| reaches(&pattern.literal, &below))
    }

    /// Whether something in a directory that matches may be an exception.
    pub(super) fn may_except_in(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        let mut excepted = self.patterns.iter().filter(|pattern| pattern.exception);
        excepted.any(|pattern| reaches(&pattern.literal, &below))
    }
}

/// Whether a path that begins with the literal can be below the directory, or begin above it.
fn reaches(literal: &str, below: &str) -> bool {
    literal.starts_with(below) || below.starts_with(literal)
}

impl Pattern {
    /// Follows every way through the pattern at once.
    fn matches(&self, path: &str) -> bool {
        let mut at = vec![false; self.tokens.len() + 1];
        at[0] = true;
        self.skip(&mut at);
        let mut inside = vec![false; self.tokens.len()];
        for char in path.chars() {
            let mut next = vec![false; at.len()];
            for (number, token) in self.tokens.iter().enumerate() {
                match token {
                    Token::Directories => {
                        inside[number] |= at[number];
                        next[number + 1] |= inside[number] && char == '/';
                    }
                    _ if !at[number] => {}
                    Token::One(one) => next[number + 1] |= *one == char,
                    Token::Any => next[number + 1] |= char != '/',
                    Token::Some => next[number] |= char != '/',
                    Token::All => next[number] = true,
                    Token::Class { negated, ranges } => {
                        let found = ranges
                            .iter()
                            .any(|(from, to)| (*from..=*to).contains(&char));
                        next[number + 1] |= found != *negated;
                    }
                }
            }
            self.skip(&mut next);
            at = next;
        }
        at[self.tokens.len()]
    }

    /// Goes past what may match nothing.
    fn skip(&self, at: &mut [bool]) {
        for (number, token) in self.tokens.iter().enumerate() {
            if at[number] && matches!(token, Token::Some | Token::All | Token::Directories) {
                at[number + 1] = true;
            }
        }
    }
}

fn parse(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        tokens.push(match char {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let slash = chars.next_if_eq(&'/').is_some();
                let words = !text[2..].contains(['*', '?', '[', '\\']);
                if chars.peek().is_none() || tokens.is_empty() && !slash && words {
                    Token::All
                } else {
                    Token::Directories
                }
            }
            '*' => Token::Some,
            '?' => Token::Any,
            '[' => class(&mut chars)?,
            '\\' => Token::One(chars.next()?),
            other => Token::One(other),
        });
    }
    Some(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next()? {
        '\\' => chars.next(),
        other => Some(other),
    };
    while chars.peek() != Some(&']') || ranges.is_empty() {
        let from = one(chars)?;
        let to = match chars.next_if_eq(&'-') {
            Some(_) => one(chars)?,
            None => from,
        };
        ranges.push((from, to));
    }
    chars.next();
    Some(Token::Class { negated, ranges })
}

/// Writes a path in its shortest form; the root and nothing at all are `.`.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return ".".to_owned();
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Patterns::new(&texts).unwrap().unwrap()
    }

    /// What matches when directories are entered one by one, as a walk does.
    fn matches(texts: &[&str], path: &str) -> bool {
        let patterns = patterns(texts);
        let mut parent: Option<Matched> = None;
        let mut verdict = false;
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let (now, matched) = patterns.matches(&path[..at], parent.as_ref());
            parent = Some(matched);
            verdict = now;
        }
        verdict
    }

    #[test]
    fn matches_as_dockerignore_does() {
        for (pattern, path, expected) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "ab", false),
            ("/a/", "a", true),
            ("a/./b", "a/b", true),
            ("*.md", "README.md", true),
            ("*.md", "doc/README.md", false),
            ("**/*.md", "doc/deep/README.md", true),
            ("**/*.md", "README.md", true),
            ("**/a", "ba", false),
            ("**a", "x/ba", true),
            ("**", "x/y", true),
            ("a/**", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("?at", "cat", true),
            ("?at", "/at", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]]", "]", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("a.c", "abc", false),
            ("ä?", "äö", true),
        ] {
            assert_eq!(matches(&[pattern], path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn an_exception_holds_until_a_later_pattern() {
        let list = ["docs", "!docs/keep", "docs/keep/not"];
        assert!(matches(&list, "docs/x"));
        assert!(!matches(&list, "docs/keep/x"));
        assert!(matches(&list, "docs/keep/not/x"));
        assert!(!matches(&["*", "!a/b"], "a/b"));
    }

    #[test]
    fn says_where_there_is_nothing_to_be_found() {
        let list = patterns(&["src/app", "*.md", "!docs/keep"]);
        assert!(list.may_match_in("src") && list.may_match_in("src/app"));
        // A pattern that begins with a star may match anywhere.
        assert!(list.may_match_in("other"));
        assert!(!patterns(&["src/app"]).may_match_in("other"));
        assert!(list.may_except_in("docs") && !list.may_except_in("doc"));
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for text in ["[a", r"a\", "!"] {
            assert!(Patterns::new(&[text.to_owned()]).is_err(), "{text}");
        }
        assert!(Patterns::new(&[" ".to_owned()]).unwrap().is_none());
    }
}
