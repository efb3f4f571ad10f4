//! The report for people: one line for each fact, then what to do; and the files of `--fix`.

use std::fmt::Write as _;

use crate::doctor::{Ability, Examined, Extent, Fact, Report};

/// Writes the report.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    for engine in &report.engines {
        writeln!(text, "{}  {}", engine.kind.word(), engine.place).expect("a string takes all");
        facts(&mut text, &engine.facts);
        advice(&mut text, engine);
        text.push('\n');
    }
    text.push_str("evaluation\n");
    facts(&mut text, &report.evaluation);
    text.push('\n');
    text.push_str(match report.ability() {
        Ability::Builds => "builds can run\n",
        Ability::None => "no engine can run builds\n",
    });
    text
}

fn facts(text: &mut String, facts: &[Fact]) {
    for fact in facts {
        let (state, name) = (fact.state.word(), fact.name);
        writeln!(text, "  {state:<8} {name:<11} {}", fact.text).expect("a string takes all");
    }
}

fn advice(text: &mut String, engine: &Examined) {
    for change in &engine.changes {
        let (reason, path) = (&change.reason, change.path.display());
        if change.extent == Extent::Whole {
            // Files of our own are long.
            writeln!(
                text,
                "\n  for {reason}, write {path}: `pontoon doctor --fix` shows it"
            )
            .expect("a string takes all");
            continue;
        }
        writeln!(text, "\n  for {reason}, add to {path}:").expect("a string takes all");
        for line in change.text.lines() {
            let line = format!("    {line}");
            writeln!(text, "{}", line.trim_end()).expect("a string takes all");
        }
    }
    if !engine.changes.is_empty() {
        text.push_str("\n  then restart the daemon\n");
    }
}

/// Writes the files that would change something, each below a line with its path.
pub fn files(report: &Report) -> String {
    let mut text = String::new();
    let mut seen = Vec::new();
    for change in report.engines.iter().flat_map(|engine| &engine.changes) {
        if seen.contains(&change) {
            continue;
        }
        seen.push(change);
        let how = match change.extent {
            Extent::Whole => "the whole file",
            Extent::Part => "to be added to what is there",
        };
        let path = change.path.display();
        write!(
            text,
            "==> {path} ({how}; {})\n{}\n",
            change.reason, change.text
        )
        .expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::doctor::{Change, Kind};

    fn sample() -> Report {
        let mut embedded = Examined::new(Kind::Embedded, "this machine");
        embedded.ability = Ability::Builds;
        embedded.facts = vec![
            Fact::fine("strong", "an op ran and made namespaces of its own"),
            Fact::warning(
                "users",
                "builders are you (1000): `newuidmap` is not installed",
            ),
        ];
        let mut daemon = Examined::new(Kind::Buildkitd, "unix:///run/b.sock");
        daemon.facts = vec![Fact::missing(
            "strong",
            "`security.insecure`\nis not granted",
        )];
        let device = Change {
            reason: "the strong shape".to_owned(),
            path: PathBuf::from("/etc/cdi/pontoon.json"),
            extent: Extent::Whole,
            text: "{}\n".to_owned(),
        };
        daemon.changes = vec![
            device,
            Change {
                reason: "the strong shape".to_owned(),
                path: PathBuf::from("/etc/buildkit/buildkitd.toml"),
                extent: Extent::Part,
                text: "insecure-entitlements = [\"security.insecure\"]\n\n[cdi]\n".to_owned(),
            },
        ];
        Report {
            engines: vec![embedded, daemon],
            evaluation: vec![Fact::fine("nix", "2.8 at /usr/bin/nix")],
        }
    }

    #[test]
    fn a_report_is_lines() {
        insta::assert_snapshot!(report(&sample()), @r#"
        embedded  this machine
          ok       strong      an op ran and made namespaces of its own
          warning  users       builders are you (1000): `newuidmap` is not installed

        buildkitd  unix:///run/b.sock
          missing  strong      `security.insecure` is not granted

          for the strong shape, write /etc/cdi/pontoon.json: `pontoon doctor --fix` shows it

          for the strong shape, add to /etc/buildkit/buildkitd.toml:
            insecure-entitlements = ["security.insecure"]

            [cdi]

          then restart the daemon

        evaluation
          ok       nix         2.8 at /usr/bin/nix

        builds can run
        "#);
    }

    #[test]
    fn a_fix_is_files() {
        insta::assert_snapshot!(files(&sample()), @r#"
        ==> /etc/cdi/pontoon.json (the whole file; the strong shape)
        {}

        ==> /etc/buildkit/buildkitd.toml (to be added to what is there; the strong shape)
        insecure-entitlements = ["security.insecure"]

        [cdi]
        "#);
    }

    #[test]
    fn a_report_is_json_too() {
        insta::assert_snapshot!(crate::doctor::json::report(&sample()), @r#"
        {
          "builds": true,
          "engines": [
            {
              "builds": true,
              "changes": [],
              "engine": "embedded",
              "facts": [
                {
                  "name": "strong",
                  "state": "ok",
                  "text": "an op ran and made namespaces of its own"
                },
                {
                  "name": "users",
                  "state": "warning",
                  "text": "builders are you (1000): `newuidmap` is not installed"
                }
              ],
              "place": "this machine"
            },
            {
              "builds": false,
              "changes": [
                {
                  "extent": "whole",
                  "path": "/etc/cdi/pontoon.json",
                  "reason": "the strong shape",
                  "text": "{}\n"
                },
                {
                  "extent": "part",
                  "path": "/etc/buildkit/buildkitd.toml",
                  "reason": "the strong shape",
                  "text": "insecure-entitlements = [\"security.insecure\"]\n\n[cdi]\n"
                }
              ],
              "engine": "buildkitd",
              "facts": [
                {
                  "name": "strong",
                  "state": "missing",
                  "text": "`security.insecure` is not granted"
                }
              ],
              "place": "unix:///run/b.sock"
            }
          ],
          "evaluation": [
            {
              "name": "nix",
              "state": "ok",
              "text": "2.8 at /usr/bin/nix"
            }
          ],
          "version": 1
        }
        "#);
    }
}
