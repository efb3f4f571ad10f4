//! Reads Rust files as far as the other tests need: where they are, what they say without comments
//! and strings, which modules they declare. It knows tokens, not grammar.

use std::path::{Path, PathBuf};

/// The top of the repository.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Rust file.
pub(crate) struct File {
    /// Its path from the top of the repository.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) text: String,
}

/// Every `.rs` file below `dir`, in order of path; none where there is no such directory.
pub(crate) fn files(dir: &str) -> Vec<File> {
    let mut found = Vec::new();
    collect(&top().join(dir), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(dir: &Path, found: &mut Vec<File>) {
    let Ok(entries) = fs_err::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a directory can be read to its end").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs_err::read_to_string(&path).expect("a source file is text");
            let path = path
                .strip_prefix(top())
                .expect("it was found below the top")
                .to_owned();
            found.push(File { path, text });
        }
    }
}

/// The text with every comment and the inside of every literal blanked, line for line.
pub(crate) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|&c| if c == '\n' { c } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none does.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied();
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == Some('/') => find(chars, at, |i| chars[i] == '\n'),
        '/' if next(1) == Some('*') => block_comment(chars, at),
        '"' => string(chars, at),
        'r' if !word_before || (at > 0 && chars[at - 1] == 'b') => raw_string(chars, at),
        // A character, not a lifetime.
        '\'' if next(1) == Some('\\') => find(chars, at + 3, |i| chars[i] == '\'') + 1,
        '\'' if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, is: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|&i| is(i)).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < chars.len() {
        match chars[at..].get(..2) {
            Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
            Some(['*', '/']) if depth == 1 => return at + 2,
            Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn string(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string(chars: &[char], from: usize) -> usize {
    let quote = find(chars, from + 1, |i| chars[i] != '#');
    if chars.get(quote) != Some(&'"') {
        return from;
    }
    let hashes = quote - from - 1;
    let closes = |i: usize| {
        chars[i] == '"'
            && chars[i + 1..].len() >= hashes
            && chars[i + 1..i + 1 + hashes].iter().all(|&c| c == '#')
    };
    (find(chars, quote + 1, closes) + 1 + hashes).min(chars.len())
}

/// The names of the modules that `code` declares in files of their own.
pub(crate) fn declared(code: &str) -> Vec<String> {
    code.lines()
        .filter_map(|line| {
            let line = line.trim();
            let name = line.rsplit_once("mod ")?.1.strip_suffix(';')?;
            name.chars()
                .all(|c| c.is_alphanumeric() || c == '_')
                .then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn blanks_comments_and_literals() {
    let text = "a // crate::x\nb /* /* */ crate::y */ c \"crate::z \\\" \" r#\"crate::\" q\"# '\\'' '\"' 'l d";
    let blank = code(text);
    assert_eq!(
        blank.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "c", "'l", "d"]
    );
    assert_eq!(blank.lines().count(), 2);
}

#[test]
fn sees_declarations() {
    let text = "pub mod a;\nmod b;\npub(crate) mod c;\nmod d {\n}\nlet x = commod y;";
    assert_eq!(declared(text)[..3], ["a", "b", "c"]);
}
