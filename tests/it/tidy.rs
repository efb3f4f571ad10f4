//! Holds what `STYLE.md` says of files: their size, their first line, their names, and that each
//! is part of the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::source::{self, File};

/// The most lines a file's body may have, unit tests apart.
const LIMIT: usize = 500;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "helpers", "common", "misc", "manager", "imp",
];

/// Where Rust files lie, and from which file each of them is reached.
const ROOTS: &[(&str, &[&str])] = &[
    ("src", &["src/lib.rs", "src/main.rs"]),
    ("tests/it", &["tests/it/main.rs"]),
    ("integration", &["integration/main.rs"]),
    ("bench", &["bench/main.rs"]),
];

fn all_files() -> impl Iterator<Item = File> {
    ROOTS.iter().flat_map(|(dir, _)| source::files(dir))
}

fn check(complaints: &[String]) {
    assert!(complaints.is_empty(), "untidy:\n{}", complaints.join("\n"));
}

#[test]
fn files_are_short() {
    let complaints: Vec<_> = all_files()
        .map(|file| {
            let body = file
                .text
                .lines()
                .take_while(|line| *line != "#[cfg(test)]")
                .count();
            (file.path, body)
        })
        .filter(|(_, body)| *body > LIMIT)
        .map(|(path, body)| format!("{}: {body} lines, limit {LIMIT}", path.display()))
        .collect();
    check(&complaints);
}

#[test]
fn files_open_with_their_purpose() {
    let complaints: Vec<_> = all_files()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| format!("{}: does not open with `//!`", file.path.display()))
        .collect();
    check(&complaints);
}

#[test]
fn names_say_something() {
    let named = |path: &Path| {
        path.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            EMPTY_NAMES.contains(&part.strip_suffix(".rs").unwrap_or(&part))
        })
    };
    let complaints: Vec<_> = all_files()
        .filter(|file| named(&file.path))
        .map(|file| format!("{}: a name that says nothing", file.path.display()))
        .collect();
    check(&complaints);
}

#[test]
fn every_file_is_part_of_the_program() {
    let mut complaints = Vec::new();
    for (dir, roots) in ROOTS {
        let mut reached = BTreeSet::new();
        for root in *roots {
            reach(Path::new(root), &mut reached);
        }
        for file in source::files(dir) {
            if !reached.contains(&file.path) {
                complaints.push(format!("{}: no `mod` leads to it", file.path.display()));
            }
        }
    }
    check(&complaints);
}

/// A variable is a literal of its own wherever it is read or set.
#[test]
fn every_variable_of_ours_is_documented() {
    let pages = ["docs/environment.md", "docs/performance.md"];
    let read = |page| fs_err::read_to_string(source::top().join(page)).expect("it is there");
    let pages = pages.map(read).concat();
    let mut complaints = Vec::new();
    // Unit tests may have variables of any name.
    let is_test = |file: &File| file.path.iter().any(|part| part == "tests");
    for file in all_files().filter(|file| !is_test(file)) {
        for word in file.text.split('"').filter(|word| is_variable(word)) {
            if !pages.contains(&format!("`{word}`")) {
                complaints.push(format!("{}: no page has {word}", file.path.display()));
            }
        }
    }
    check(&complaints);
}

fn is_variable(word: &str) -> bool {
    let name = word.strip_prefix("PONTOON_");
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// Adds a file and all that its `mod` declarations lead to.
fn reach(path: &Path, reached: &mut BTreeSet<PathBuf>) {
    let Ok(text) = fs_err::read_to_string(source::top().join(path)) else {
        return;
    };
    reached.insert(path.to_owned());
    let parent = path.parent().expect("a file has a directory");
    let stem = path.file_stem().expect("a file has a name");
    let base = match stem.to_str() {
        Some("mod" | "lib" | "main") => parent.to_owned(),
        _ => parent.join(stem),
    };
    for name in source::declared(&source::code(&text)) {
        reach(&base.join(format!("{name}.rs")), reached);
        reach(&base.join(name).join("mod.rs"), reached);
    }
}

/// Says which lines outside `home` hold any of some words; comments and strings do not count.
fn only_in(home: &str, words: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in source::files("src") {
        if file.path.starts_with(home) {
            continue;
        }
        for (number, line) in source::code(&file.text).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                complaints.push(format!(
                    "{}:{}: belongs in {home}: {}",
                    file.path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    complaints
}

#[test]
fn only_cli_reads_the_environment() {
    check(&only_in(
        "src/cli",
        &["env::var", "env::home_dir", "env::args"],
    ));
}

#[test]
fn only_the_system_calls_are_unsafe() {
    check(&only_in(
        "src/sandbox/sys.rs",
        &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
    ));
}

#[test]
fn tests_are_never_ignored() {
    let complaints: Vec<_> = all_files()
        .filter(|file| source::code(&file.text).contains("#[ignore"))
        .map(|file| {
            format!(
                "{}: a test that never runs checks nothing",
                file.path.display()
            )
        })
        .collect();
    check(&complaints);
}

#[test]
fn the_gate_runs_what_the_readme_says() {
    let read = |path: &str| fs_err::read_to_string(source::top().join(path)).unwrap();
    assert!(read("README.md").contains("\n    make test\n"));
    assert!(read(".ci/run").contains("\nexec make test\n"));
}
