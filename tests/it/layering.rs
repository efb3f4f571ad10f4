//! Holds the layers: a module names only those that the table lets it name.
//!
//! It looks for `crate::NAME`, alone or in a braced import, and for `super::NAME` where that can
//! only be a top-level module; comments and strings do not count, test modules do.

use std::path::Path;

use crate::source;

/// Every module and what it may use; `ARCHITECTURE.md` shows the same table.
const LAYERS: &[(&str, &[&str])] = &[
    ("nix", &[]),
    ("event", &["nix"]),
    ("sandbox", &[]),
    ("store", &["nix"]),
    ("tunnel", &["nix", "event"]),
    ("agent", &["nix", "event", "store", "sandbox", "tunnel"]),
    ("eval", &["nix"]),
    ("pipeline", &["nix"]),
    ("plan", &["nix", "pipeline"]),
    ("llb", &[]),
    ("buildkit", &[]),
    (
        "engine",
        &[
            "nix", "event", "sandbox", "store", "tunnel", "agent", "pipeline", "plan", "llb",
            "buildkit",
        ],
    ),
    (
        "run",
        &[
            "nix", "event", "sandbox", "store", "tunnel", "agent", "eval", "pipeline", "plan",
            "llb", "buildkit", "engine",
        ],
    ),
    (
        "doctor",
        &[
            "nix", "event", "sandbox", "store", "tunnel", "agent", "eval", "pipeline", "plan",
            "llb", "buildkit", "engine",
        ],
    ),
    ("report", &["nix", "event", "plan"]),
    (
        "cli",
        &[
            "nix", "event", "sandbox", "store", "tunnel", "agent", "eval", "pipeline", "plan",
            "llb", "buildkit", "engine", "run", "doctor", "report",
        ],
    ),
];

/// A top-level module that a file names: its line, from 1, and its name.
type Named = (usize, String);

/// The modules that `code` names by `crate::`.
fn named(code: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let word_before = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        // `$crate::` is the same crate.
        if word_before {
            continue;
        }
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + "crate::".len()..];
        found.extend(
            heads(rest)
                .into_iter()
                .map(|(lines, name)| (line + lines, name)),
        );
    }
    found
}

/// The first names of a path, or of each path in a braced group, with how many lines further.
fn heads(rest: &str) -> Vec<(usize, String)> {
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![(0, identifier(rest))];
    };
    let mut found = Vec::new();
    let (mut depth, mut at_head, mut lines) = (1, true, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            '\n' => lines += 1,
            ',' if depth == 1 => at_head = true,
            c if at_head && (c.is_alphabetic() || c == '_') => {
                found.push((lines, identifier(&group[at..])));
                at_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The top-level modules that `code`, a file of `module`, reaches by `super::`.
fn by_super(code: &str, module: &str) -> Vec<Named> {
    let own = |name: &str| {
        let base = source::top().join("src").join(module);
        base.join(format!("{name}.rs")).exists() || base.join(name).exists()
    };
    code.match_indices("super::")
        .map(|(at, prefix)| {
            let line = 1 + code[..at].matches('\n').count();
            (line, identifier(&code[at + prefix.len()..]))
        })
        .filter(|(_, name)| LAYERS.iter().any(|(layer, _)| layer == name) && !own(name))
        .collect()
}

/// The top-level module a file below `src` belongs to; none for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let inner = path.strip_prefix("src").ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

#[test]
fn modules_name_only_those_below() {
    let mut broken = Vec::new();
    for file in source::files("src") {
        let Some(module) = module_of(&file.path) else {
            continue;
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) else {
            broken.push(format!(
                "{}: `{module}` is not in the table",
                file.path.display()
            ));
            continue;
        };
        let code = source::code(&file.text);
        for (line, name) in named(&code).into_iter().chain(by_super(&code, &module)) {
            let is_layer = LAYERS.iter().any(|(layer, _)| *layer == name);
            if is_layer && name != module && !allowed.contains(&name.as_str()) {
                broken.push(format!(
                    "{}:{line}: `{module}` must not name `{name}`",
                    file.path.display()
                ));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "the layers are broken:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_library_declares_what_the_table_lists() {
    let library = fs_err::read_to_string(source::top().join("src/lib.rs")).unwrap();
    let mut declared = source::declared(&source::code(&library));
    let mut listed: Vec<_> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    declared.sort();
    listed.sort();
    assert_eq!(declared, listed);
}

#[test]
fn the_architecture_shows_the_table() {
    let text = fs_err::read_to_string(source::top().join("ARCHITECTURE.md")).unwrap();
    for (module, allowed) in LAYERS {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{module}` |")))
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{module}`"));
        let uses = row.split('|').nth(2).expect("a row has two columns");
        if uses.contains('`') {
            let shown: Vec<_> = uses
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|n| *n != "eval")
                .collect();
            let all_above = uses.contains("all above");
            assert!(
                all_above || shown == *allowed,
                "ARCHITECTURE.md on `{module}`: {uses}"
            );
        }
    }
}

#[test]
fn sees_every_form_of_naming() {
    let code = "use crate::nix::StorePath;\nuse crate::{\n  plan::{Graph, run},\n  store,\n};\n\
                fn f() { crate::cli::g(); mycrate::eval(); }";
    let names: Vec<_> = named(code)
        .into_iter()
        .map(|(line, name)| format!("{line}:{name}"))
        .collect();
    assert_eq!(names, ["1:nix", "3:plan", "4:store", "6:cli"]);
}
