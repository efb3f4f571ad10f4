//! What agents and conductor should never say to each other, each said once or again and again.

use fs_err as fs;
use pontoon::tunnel::{Frame, encode};
use serde_json::{Value, json};

use super::Case;
use super::scene::Scene;
use crate::support::{Meddler, Passing, Ran, run};

pub(super) const CASES: &[(&str, Case)] = &[
    ("an agent of another version", |scene| {
        build(scene, |said| {
            edited(said, "agent hello", "/version", json!(99))
        })
    }),
    ("a conductor of another version", |scene| {
        build(scene, |said| {
            edited(said, "conductor welcome", "/version", json!(99))
        })
    }),
    ("an agent that does not say hello", |scene| {
        build(scene, |said| {
            words(said, "agent hello", &json!({ "say": "idle" }))
        })
    }),
    ("an agent that says hello for too long", |scene| {
        let name = Value::from("x".repeat(70_000));
        build(scene, move |said| {
            edited(said, "agent hello", "/store", name.clone())
        })
    }),
    ("an agent that has another's place", |scene| {
        build(scene, |said| {
            let own = said.connection > 0;
            let nonce = format!(
                "{}-store",
                said.message()["nonce"].as_str()?.split('-').next()?
            );
            own.then(|| edited(said, "agent hello", "/nonce", json!(nonce)))?
        })
    }),
    ("the store's agent answers something else", |scene| {
        build(scene, |said| {
            words(said, "agent valid", &json!({ "say": "rooted" }))
        })
    }),
    ("the store's agent names what nobody asked for", |scene| {
        build(scene, |said| {
            edited(said, "agent valid", "/which", json!([7, 900]))
        })
    }),
    ("the store's agent says what is no text", |scene| {
        build(scene, |said| {
            bytes(
                said,
                "agent valid",
                &Frame::Message(b"{\"say\":\"\xff\"}".to_vec()),
            )
        })
    }),
    ("the store's agent says what is no message", |scene| {
        build(scene, |said| {
            words(said, "agent valid", &json!({ "say": "abracadabra" }))
        })
    }),
    ("a frame of an unknown kind", |scene| {
        build(scene, |said| raw(said, "agent valid", &[2, 0, 0, 0, 9, 0]))
    }),
    ("a frame of no bytes", |scene| {
        build(scene, |said| raw(said, "agent valid", &[0, 0, 0, 0]))
    }),
    ("a frame of 4 gigabytes", |scene| {
        build(scene, |said| raw(said, "agent valid", &[0xff; 8]))
    }),
    ("a frame that is cut off, once", |scene| {
        once(scene, |said| {
            raw(said, "agent valid", &[100, 0, 0, 0, 0, b'{'])
        })
    }),
    ("a log of 2 megabytes in one frame", |scene| {
        build(scene, |said| {
            bytes(said, "agent started", &Frame::Log(vec![b'x'; 2 << 20]))
        })
    }),
    ("a builder's agent that sends data", |scene| {
        build(scene, |said| {
            bytes(said, "agent started", &Frame::Data(vec![0; 10]))
        })
    }),
    (
        "a builder's agent that asks for two jobs at once",
        |scene| build(scene, |said| twice(said, "agent idle")),
    ),
    ("a builder's agent that names another's attempt", |scene| {
        build(scene, |said| {
            edited(said, "agent started", "/attempt", json!("0000-1-1"))
        })
    }),
    ("a builder's agent that tells of other outputs", |scene| {
        let other = "/nix/store/00000000000000000000000000000000-other";
        build(scene, move |said| {
            edited(said, "agent built", "/result/outputs/0/path", json!(other))
        })
    }),
    ("a builder's agent that tells of an effect", |scene| {
        let effect = json!({ "say": "ran", "result": { "result": "succeeded" } });
        build(scene, move |said| words(said, "agent built", &effect))
    }),
    (
        "a builder's agent that gets data in the place of a job",
        |scene| {
            build(scene, |said| {
                bytes(said, "conductor build", &Frame::Data(vec![0; 10]))
            })
        },
    ),
    ("a builder's agent that gets a second job", |scene| {
        build(scene, |said| twice(said, "conductor build"))
    }),
    ("a builder's agent that gets the store's job", |scene| {
        let job = json!({ "say": "lease", "count": 1 });
        build(scene, move |said| words(said, "conductor build", &job))
    }),
    ("the store's agent gets a log", |scene| {
        build(scene, |said| {
            bytes(said, "conductor root", &Frame::Log(vec![0; 10]))
        })
    }),
    ("a run whose name leads elsewhere", |scene| {
        build(scene, |said| {
            edited(said, "conductor root", "/run", json!("../../../other"))
        })
    }),
    ("a NAR that is longer than it says", |scene| {
        import(scene, |said| {
            nar(said, |bytes| bytes.extend_from_within(..))
        })
    }),
    ("a NAR that is shorter than it says", |scene| {
        import(scene, |said| {
            nar(said, |bytes| bytes.truncate(bytes.len() - 8))
        })
    }),
    ("a NAR with a file of 16 exbibytes", |scene| {
        import(scene, |said| {
            nar(said, |bytes| {
                let at = find(bytes, b"contents").expect("it has a file") + 8;
                bytes[at..at + 8].fill(0xff);
            })
        })
    }),
    ("a NAR with another byte in it", |scene| {
        import(scene, |said| {
            nar(said, |bytes| {
                let at = find(bytes, b"Derive").expect("it is a derivation");
                bytes[at] ^= 1;
            })
        })
    }),
    ("a NAR with a message in it", |scene| {
        import(scene, |said| {
            let message = encode(&Frame::message(&json!({ "say": "import-end" })));
            let frame = (said.name() == "conductor data").then(|| encode(said.frame))?;
            Some([message, frame].concat())
        })
    }),
    ("an import that is somewhere else", |scene| {
        let other = "/nix/store/00000000000000000000000000000000-hello.drv";
        import(scene, move |said| {
            edited(said, "conductor import", "/header/path", json!(other))
        })
    }),
    (
        "an effect's agent makes no sense when it has ended",
        |scene| effect(scene, |said| raw(said, "agent ran", &[1, 0, 0, 0, 7])),
    ),
    ("an effect's agent makes no sense while it runs", |scene| {
        effect(scene, |said| raw(said, "agent started", &[1, 0, 0, 0, 7]))
    }),
];

/// Something in the place of a message.
fn bytes(said: &Passing<'_>, name: &str, instead: &Frame) -> Option<Vec<u8>> {
    (said.name() == name).then(|| encode(instead))
}

fn raw(said: &Passing<'_>, name: &str, instead: &[u8]) -> Option<Vec<u8>> {
    (said.name() == name).then(|| instead.to_vec())
}

fn words(said: &Passing<'_>, name: &str, instead: &Value) -> Option<Vec<u8>> {
    bytes(said, name, &Frame::message(instead))
}

fn twice(said: &Passing<'_>, name: &str) -> Option<Vec<u8>> {
    (said.name() == name).then(|| encode(said.frame).repeat(2))
}

/// The message with something else at a place in it.
fn edited(said: &Passing<'_>, name: &str, place: &str, value: Value) -> Option<Vec<u8>> {
    let mut message = said.message();
    if said.name() == name
        && let Some(there) = message.pointer_mut(place)
    {
        *there = value;
        return Some(encode(&Frame::message(&message)));
    }
    None
}

/// A frame of a NAR that is a whole one, changed.
fn nar(said: &Passing<'_>, change: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let Frame::Data(bytes) = said.frame else {
        return None;
    };
    find(bytes, b"Derive").map(|_| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        encode(&Frame::Data(bytes))
    })
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window == word)
}

fn meddle(
    scene: &Scene<'_>,
    mut command: std::process::Command,
    meddle: impl Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Ran {
    let directory = scene.place.at("tunnel");
    fs::create_dir(&directory).unwrap();
    let meddler = Meddler::start(&directory, meddle);
    let ran = run(command.env("PONTOON_TUNNEL_PROXY", meddler.variable()));
    assert!(
        meddler.meddled() > 0,
        "nothing was changed\n{}",
        ran.report()
    );
    ran
}

fn build(
    scene: &Scene<'_>,
    instead: impl Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Ran {
    meddle(scene, scene.build("hello"), instead)
}

/// In the run's first connection alone.
fn once(
    scene: &Scene<'_>,
    instead: impl Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Ran {
    build(scene, move |said| {
        (said.connection == 0).then(|| instead(said))?
    })
}

/// A build whose derivation comes from another store.
fn import(
    scene: &Scene<'_>,
    instead: impl Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Ran {
    let mut command = scene.build("hello");
    command.arg("--eval-store").arg(scene.place.at("evaluated"));
    meddle(scene, command, instead)
}

fn effect(
    scene: &Scene<'_>,
    instead: impl Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Ran {
    // A moment long.
    let pipeline = "{ builds = { }; effects.deploy = { command = [ \"/bin/sh\" \"-c\" \
                    \"n=0; while [ $n -lt 400000 ]; do n=$((n + 1)); done\" ]; environment.PATH = \"/bin\"; }; }";
    meddle(
        scene,
        scene.nix.pontoon(&["run", "--expr", pipeline]),
        instead,
    )
}
