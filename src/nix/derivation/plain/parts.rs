//! Finds the parts of a plain file.

use std::collections::BTreeMap;
use std::ops::Range;

use memchr::memchr3;

use super::aterm::{Cursor, unescape};
use crate::nix::STORE_DIR;
use crate::nix::derivation::unsupported::ASKED;

/// What is found in a file, in its order.
pub(super) struct Parts<'a> {
    pub(super) outputs: Vec<Declared<'a>>,
    pub(super) inputs: Vec<Need>,
    /// From the beginning of the list of inputs to its end.
    pub(super) replaced: Range<usize>,
    pub(super) sources: Vec<Range<usize>>,
    pub(super) system: &'a str,
    pub(super) builder: &'a str,
    /// Those variables of [`ASKED`] that there are.
    pub(super) asked: BTreeMap<String, Vec<u8>>,
    /// The values of the variables that are named after outputs.
    pub(super) blanks: Vec<Range<usize>>,
}

/// An output as the file has it.
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) method: &'a str,
    pub(super) hash: &'a str,
}

/// Where an input is in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Need {
    pub(super) path: Range<usize>,
    /// The list of outputs.
    pub(super) outputs: Range<usize>,
}

impl<'a> Parts<'a> {
    /// Reads a text, if it is as Nix writes it.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        // Nix writes these as escapes.
        if memchr3(b'\n', b'\r', b'\t', text.as_bytes()).is_some() {
            return None;
        }
        let mut cursor = Cursor::new(text);
        cursor.skip("Derive(")?;
        let outputs = declared(&mut cursor)?;
        cursor.sign(b',')?;
        let start = cursor.at();
        let inputs = inputs(&mut cursor, text)?;
        let replaced = start..cursor.at();
        cursor.sign(b',')?;
        let sources = sources(&mut cursor, text)?;
        cursor.sign(b',')?;
        let system = cursor.word()?;
        cursor.sign(b',')?;
        let builder = cursor.word()?;
        cursor.sign(b',')?;
        cursor.list(|arguments| arguments.string().map(drop))?;
        cursor.sign(b',')?;
        let Variables { asked, blanks } = Variables::read(&mut cursor, text, &outputs)?;
        cursor.sign(b')')?;
        cursor.end()?;
        Some(Self {
            outputs,
            inputs,
            replaced,
            sources,
            system,
            builder,
            asked,
            blanks,
        })
    }
}

fn declared<'a>(cursor: &mut Cursor<'a>) -> Option<Vec<Declared<'a>>> {
    let mut all: Vec<Declared<'_>> = Vec::new();
    cursor.list(|cursor| {
        cursor.sign(b'(')?;
        let name = cursor.word()?;
        cursor.sign(b',')?;
        let path = cursor.word()?;
        cursor.sign(b',')?;
        let method = cursor.word()?;
        cursor.sign(b',')?;
        let hash = cursor.word()?;
        cursor.sign(b')')?;
        let is_sorted = all.last().is_none_or(|last| last.name < name);
        all.push(Declared {
            name,
            path,
            method,
            hash,
        });
        is_sorted.then_some(())
    })?;
    Some(all)
}

fn inputs(cursor: &mut Cursor<'_>, text: &str) -> Option<Vec<Need>> {
    let mut all: Vec<Need> = Vec::new();
    let mut last = "";
    cursor.list(|cursor| {
        cursor.sign(b'(')?;
        let path = cursor.place()?;
        let is_next = last < &text[path.clone()] && is_store_path(&text[path.clone()]);
        last = &text[path.clone()];
        cursor.sign(b',')?;
        let start = cursor.at();
        names(cursor)?;
        let outputs = start..cursor.at();
        cursor.sign(b')')?;
        all.push(Need { path, outputs });
        is_next.then_some(())
    })?;
    Some(all)
}

/// Goes past a list of names that is not empty.
fn names(cursor: &mut Cursor<'_>) -> Option<()> {
    let mut last = None;
    cursor.list(|cursor| {
        let name = cursor.word()?;
        let is_next = last.is_none_or(|last| last < name);
        last = Some(name);
        is_next.then_some(())
    })?;
    last.map(drop)
}

/// The names in a list that was read with [`names`].
pub(in super::super) fn words(list: &str) -> impl Iterator<Item = &str> {
    list[2..list.len() - 2].split("\",\"")
}

fn sources(cursor: &mut Cursor<'_>, text: &str) -> Option<Vec<Range<usize>>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    cursor.list(|cursor| {
        let source = cursor.place()?;
        let path = &text[source.clone()];
        let last = all.last().map(|last| &text[last.clone()]);
        let is_next = last.is_none_or(|last| last < path) && is_store_path(path);
        all.push(source);
        is_next.then_some(())
    })?;
    Some(all)
}

/// Whether this is a store path, without making one. Names that begin with a dot are left to the
/// long way.
fn is_store_path(text: &str) -> bool {
    let within = text
        .strip_prefix(STORE_DIR)
        .and_then(|rest| rest.strip_prefix('/'));
    let parts = within.and_then(|within| within.as_bytes().split_at_checked(32));
    let Some((digest, [b'-', name @ ..])) = parts else {
        return false;
    };
    let all = |bytes: &[u8], sign: u8| {
        // Without a way out in the middle this is quick.
        let common = bytes
            .iter()
            .fold(sign, |common, byte| common & SIGNS[usize::from(*byte)]);
        common == sign
    };
    all(digest, IN_DIGEST)
        && (1..=211).contains(&name.len())
        && name[0] != b'.'
        && all(name, IN_NAME)
}

/// May be in the digest of a store path.
const IN_DIGEST: u8 = 1;
/// May be in the name of a store path.
const IN_NAME: u8 = 2;
/// What each byte may be in.
const SIGNS: [u8; 256] = {
    let mut signs = [0; 256];
    let mut byte = 0_u8;
    loop {
        let at = byte as usize;
        if matches!(byte, b'0'..=b'9' | b'a'..=b'd' | b'f'..=b'n' | b'p'..=b's' | b'v'..=b'z') {
            signs[at] |= IN_DIGEST;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b'?' | b'=') {
            signs[at] |= IN_NAME;
        }
        if byte == u8::MAX {
            break signs;
        }
        byte += 1;
    }
};

/// What matters of the variables.
struct Variables {
    /// Those of [`ASKED`] that there are.
    asked: BTreeMap<String, Vec<u8>>,
    blanks: Vec<Range<usize>>,
}

impl Variables {
    /// Every output has a variable that holds its path.
    fn read(cursor: &mut Cursor<'_>, text: &str, outputs: &[Declared<'_>]) -> Option<Self> {
        let mut found = Self {
            asked: BTreeMap::new(),
            blanks: Vec::with_capacity(outputs.len()),
        };
        let mut last = None;
        let mut asked = ASKED.into_iter().peekable();
        cursor.list(|cursor| {
            cursor.sign(b'(')?;
            let name = cursor.word()?;
            cursor.sign(b',')?;
            let value = cursor.string()?;
            cursor.sign(b')')?;
            let is_next = last.is_none_or(|last| last < name) && name != "__json";
            last = Some(name);
            while asked.next_if(|asked| *asked < name).is_some() {}
            if asked.next_if(|asked| *asked == name).is_some() {
                let value = unescape(&text[value.clone()]);
                found.asked.insert(name.to_owned(), value);
            }
            // Both are sorted, and none may be left out.
            let output = outputs.get(found.blanks.len());
            if let Some(output) = output.filter(|output| output.name == name) {
                if text[value.clone()] != *output.path {
                    return None;
                }
                found.blanks.push(value);
            }
            is_next.then_some(())
        })?;
        (found.blanks.len() == outputs.len()).then_some(found)
    }
}
