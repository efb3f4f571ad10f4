//! One thing to evaluate: what `nix` is given for it alone, and its path where that can be walked
//! beside others.
//!
//! A path is split here only as far as `nix` certainly splits it the same way.

use std::ffi::OsStr;

use super::installable::{Installable, Subject, split_outputs};
use super::targets::Answer;
use super::{Error, check_argument};
use crate::nix::{Outputs, Wanted};

/// One thing to evaluate.
pub(super) struct Asked<'a> {
    /// What it is called in a message.
    pub(super) subject: String,
    outputs: Option<Outputs>,
    /// What `nix eval` is given to evaluate it alone.
    pub(super) arguments: Vec<&'a OsStr>,
    /// Its flake.
    pub(super) flake: &'a str,
    /// Its path, if it can be walked beside others.
    pub(super) path: Option<Vec<String>>,
}

impl<'a> Asked<'a> {
    /// A flake's output; nothing for a derivation.
    pub(super) fn of_flake(installable: &'a Installable) -> Option<Self> {
        let Subject::Flake(reference) = &installable.subject else {
            return None;
        };
        let (flake, attribute) = reference.split_once('#').unwrap_or((reference, ""));
        Some(Self {
            subject: installable.to_string(),
            outputs: installable.outputs.clone(),
            arguments: vec![OsStr::new(reference)],
            flake,
            path: path(attribute),
        })
    }

    /// An attribute of an expression, or its value where the attribute is empty.
    pub(super) fn of_expression(text: &'a str, attribute: &'a str) -> Result<Self, Error> {
        let (selected, outputs) = split_outputs(attribute)?;
        let mut arguments = vec![OsStr::new("--expr"), OsStr::new(text)];
        if !selected.is_empty() {
            check_argument(selected, "an attribute")?;
            arguments.push(OsStr::new(selected));
        }
        let subject = if attribute.is_empty() {
            "--expr"
        } else {
            attribute
        };
        let numbers_fit = |path: &Vec<String>| path.iter().all(|name| index(name).is_ok());
        Ok(Self {
            subject: subject.to_owned(),
            outputs,
            arguments,
            flake: "",
            path: path(selected).filter(numbers_fit),
        })
    }

    /// What is wanted, by the answer of our function.
    pub(super) fn wanted(&self, answer: Answer) -> Result<Wanted, Error> {
        answer.wanted(&self.subject, self.outputs.as_ref())
    }
}

/// Splits an attribute path as `nix` does: at dots outside of quotes. Nothing for the empty path,
/// and where that may not be all there is to it: characters that mean something in an address,
/// names that are empty or begin like a number with its sign.
fn path(text: &str) -> Option<Vec<String>> {
    let mut names = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => names.push(String::new()),
            c if c.is_ascii_alphanumeric() || "._+-".contains(c) => names.last_mut()?.push(c),
            _ => return None,
        }
    }
    let plain = |name: &String| !name.is_empty() && !name.starts_with(['+', '-']);
    (!quoted && names.iter().all(plain)).then_some(names)
}

/// The number that a name of an expression's path is, if it is one.
pub(super) fn index(name: &str) -> Result<Option<u32>, std::num::ParseIntError> {
    let digits = name.chars().all(|c| c.is_ascii_digit());
    digits.then(|| name.parse()).transpose()
}

/// A name in the path of a flake's output.
pub(super) fn quoted(name: &str) -> String {
    if name.contains('.') {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn splits_what_is_certain() {
        for (text, expected) in [
            ("a", &["a"][..]),
            ("a.b-c_d.0", &["a", "b-c_d", "0"]),
            ("\"a.b\".c++", &["a.b", "c++"]),
            ("a\"b\"", &["ab"]),
        ] {
            assert_eq!(path(text), Some(names(expected)), "{text}");
        }
        for text in [
            "", ".", "a.", ".a", "a..b", "\"a", "a.\"\"", "a.+1", "a.-1", "%61", "a b", "é", "a?b",
            "a#b",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }
}
