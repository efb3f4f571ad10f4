//! The report for programs; `docs/doctor.md` says what it holds.

use serde_json::{Value, json};

use crate::doctor::{Ability, Change, Examined, Fact, Report};

/// The version of the form.
const VERSION: u32 = 1;

/// Writes the report as one JSON object.
pub fn report(report: &Report) -> String {
    let value = json!({
        "version": VERSION,
        "builds": report.ability() == Ability::Builds,
        "engines": report.engines.iter().map(engine).collect::<Vec<_>>(),
        "evaluation": facts(&report.evaluation),
    });
    format!("{value:#}\n")
}

fn engine(engine: &Examined) -> Value {
    json!({
        "engine": engine.kind.word(),
        "place": engine.place,
        "builds": engine.ability == Ability::Builds,
        "facts": facts(&engine.facts),
        "changes": engine.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn facts(facts: &[Fact]) -> Vec<Value> {
    let fact = |fact: &Fact| {
        json!({
            "name": fact.name,
            "state": fact.state.word(),
            "text": fact.text,
        })
    };
    facts.iter().map(fact).collect()
}

fn change(change: &Change) -> Value {
    json!({
        "reason": change.reason,
        "path": change.path,
        "extent": change.extent.word(),
        "text": change.text,
    })
}
