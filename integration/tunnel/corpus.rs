//! The corpus, stream by stream.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fs_err as fs;
use pontoon::tunnel::{Decoder, Frame, FrameError, FromAgent, Limits, ToAgent, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where it lies.
fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/tunnel"))
}

/// Every stream by the name of its file.
pub(super) fn streams() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory()).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let streams = files.filter(|name| name != "README.md");
    streams
        .map(|name| (name.clone(), fs::read(directory().join(name)).unwrap()))
        .collect()
}

/// The table of `README.md`: what each stream comes to.
fn table() -> BTreeMap<String, String> {
    let text = fs::read_to_string(directory().join("README.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let (name, comes_to) = line.strip_prefix("| `")?.split_once("` | ")?;
        let comes_to = comes_to.strip_suffix(" |")?;
        Some((name.to_owned(), comes_to.to_owned()))
    });
    rows.collect()
}

/// A message as whoever says it would say it again; its name is in `say`.
fn again<M: Serialize + DeserializeOwned>(payload: &[u8]) -> Result<String, FrameError> {
    let message: M = frame::parse(payload)?;
    let value = serde_json::to_value(&message).expect("it was JSON");
    Ok(value["say"]
        .as_str()
        .expect("a message has a name")
        .to_owned())
}

/// Why a stream is refused: of a message what is wrong with it, and not all of it.
fn reason(error: &FrameError) -> String {
    match error {
        FrameError::Message { source, .. } => {
            let text = source.to_string();
            let what = text.split(", expected").next().unwrap_or_default();
            format!("not understood: {what}")
        }
        other => other.to_string(),
    }
}

/// Reads a stream as the other end would, as far as it is good: every frame's name, and an error's
/// text.
pub(super) fn read(name: &str, bytes: &[u8]) -> (Vec<String>, Option<String>) {
    let mut decoder = Decoder::new(Limits::GREETING);
    decoder.push(bytes);
    let mut words = Vec::new();
    loop {
        let frame = match decoder.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return (words, None),
            Err(error) => return (words, Some(reason(&error))),
        };
        let word = match frame {
            Frame::Log(bytes) => Ok(format!("{} of a log", bytes.len())),
            Frame::Data(bytes) => Ok(format!("{} of data", bytes.len())),
            Frame::Message(payload) if name.starts_with("agent") => again::<FromAgent>(&payload),
            Frame::Message(payload) => again::<ToAgent>(&payload),
        };
        match word {
            Ok(word) => words.push(word),
            Err(error) => return (words, Some(reason(&error))),
        }
        // Both ends greet first.
        decoder.limit(Limits::TUNNEL);
    }
}

#[test]
fn every_stream_comes_to_what_its_row_says() {
    let table = table();
    let streams = streams();
    let names: Vec<&String> = table.keys().collect();
    assert_eq!(names, streams.keys().collect::<Vec<_>>());
    assert!(streams.len() > 30, "{}", streams.len());
    let mut wrong = Vec::new();
    for (name, bytes) in &streams {
        let (mut words, error) = read(name, bytes);
        words.extend(error.map(|error| format!("**{error}**")));
        let found = words.join(", ");
        if found != table[name] {
            wrong.push(format!("| `{name}` | {found} |"));
        }
    }
    assert!(
        wrong.is_empty(),
        "these rows are others:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_stream_cut_off_anywhere_is_its_beginning() {
    for (name, bytes) in streams() {
        let whole = read(&name, &bytes);
        for end in 0..bytes.len() {
            let (words, error) = read(&name, &bytes[..end]);
            assert!(whole.0.starts_with(&words), "{name} to {end}: {words:?}");
            // An error comes with the byte that is wrong, and is the same one then.
            assert!(
                error.is_none() || error == whole.1,
                "{name} to {end}: {error:?}"
            );
        }
    }
}
