//! One event of every kind, for the tests of every report and of the documentation.

use crate::event::{BuiltOutput, Event, Failure, NodeId, NodeKind, Outcome, Summary, VERSION};
use crate::nix::StorePath;

/// A store path that stays the same.
pub(crate) fn path(name: &str) -> StorePath {
    format!("/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-{name}")
        .parse()
        .unwrap()
}

/// The node of a derivation.
pub(crate) fn node(name: &str) -> NodeId {
    NodeId::derivation(&path(&format!("{name}.drv")))
}

/// The end of a build.
pub(crate) fn finished(name: &str, seconds: f64, outcome: Outcome) -> Event {
    let (node, kind) = (node(name), NodeKind::Build);
    Event::NodeFinished {
        node,
        kind,
        name: name.into(),
        outcome,
        seconds,
    }
}

/// The end of an effect.
pub(crate) fn effect(name: &str, seconds: f64, outcome: Outcome) -> Event {
    let (node, kind) = (NodeId::effect(name), NodeKind::Effect);
    Event::NodeFinished {
        node,
        kind,
        name: name.into(),
        outcome,
        seconds,
    }
}

/// A builder that exited with 1.
pub(crate) fn broken(tail: &[&str]) -> Outcome {
    Outcome::Failed {
        failure: Failure::ExitCode {
            code: 1,
            transient: false,
        },
        tail: tail.iter().map(ToString::to_string).collect(),
    }
}

/// A run in which everything happens.
pub(crate) fn everything() -> Vec<Event> {
    let mut events = beginning();
    events.extend(losses());
    events.extend(outcomes());
    let summary = Summary {
        valid: 2,
        built: 1,
        failed: 1,
        dependency_failed: 1,
        effects_succeeded: 1,
        effects_failed: 0,
        effects_held: 1,
        effects_unknown: 1,
        cancelled: 1,
    };
    events.push(Event::Outputs {
        name: ".#hello^out".into(),
        drv: path("hello-2.12.drv"),
        outputs: vec![BuiltOutput {
            name: "out".into(),
            path: path("hello-2.12"),
        }],
    });
    events.push(Event::RunFinished {
        summary,
        seconds: 75.2,
        exit_code: 100,
    });
    events
}

fn beginning() -> Vec<Event> {
    vec![
        Event::RunStarted {
            version: VERSION,
            run: "00c0ffee00c0ffee".into(),
            store: "/srv/store".into(),
            engine: "embedded (strong)".into(),
        },
        Event::Evaluating {
            installable: ".#hello".into(),
        },
        Event::Evaluated {
            targets: 1,
            seconds: 0.42,
            built_while_evaluating: vec![path("generated.nix")],
        },
        Event::Planned {
            derivations: 6,
            valid: 1,
            build: 5,
            effects: 3,
        },
        Event::Importing { paths: 12 },
        Event::Imported {
            paths: 12,
            bytes: 3_355_443,
            seconds: 0.2,
        },
        Event::NodeWaiting {
            node: node("hello-2.12"),
            reason: "another program's lock".into(),
        },
        Event::NodeStarted {
            node: node("hello-2.12"),
            kind: NodeKind::Build,
            name: "hello-2.12".into(),
            attempt: "00c0ffee00c0ffee-1".into(),
        },
        Event::NodeLog {
            node: node("hello-2.12"),
            line: "checking for gcc... yes".into(),
        },
        Event::Warning {
            text: "no binary cache is asked: 5 derivations might have been there".into(),
            hint: Some("`pontoon plan` lists them".into()),
        },
    ]
}

fn losses() -> Vec<Event> {
    vec![
        Event::Lost {
            what: crate::event::Lost::Engine,
            reason: "the daemon ended the session".into(),
            time: 1,
            of: 3,
        },
        Event::EngineAwaited {
            reason: "the BuildKit daemon does not listen".into(),
            seconds: 30,
        },
        Event::NodeAgain {
            node: node("hello-2.12"),
            kind: NodeKind::Build,
            name: "hello-2.12".into(),
            reason: "the engine was lost while it ran".into(),
        },
    ]
}

fn outcomes() -> Vec<Event> {
    let output = BuiltOutput {
        name: "out".into(),
        path: path("hello-2.12"),
    };
    vec![
        finished(
            "hello-2.12",
            3.12,
            Outcome::Built {
                outputs: vec![output],
            },
        ),
        finished("zlib-1.3", 0.0, Outcome::AlreadyValid),
        finished(
            "broken",
            61.0,
            broken(&["cc: no input files", "make: Error 1"]),
        ),
        finished(
            "needs-broken",
            0.0,
            Outcome::DependencyFailed {
                because: node("broken"),
            },
        ),
        finished("late", 0.0, Outcome::Cancelled),
        effect("announce", 0.7, Outcome::Succeeded),
        effect(
            "deploy",
            0.0,
            Outcome::Held {
                because: node("broken"),
            },
        ),
        effect(
            "push",
            2.0,
            Outcome::Unknown {
                detail: "its agent was killed".into(),
            },
        ),
    ]
}
