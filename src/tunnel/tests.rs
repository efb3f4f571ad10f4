//! Whatever bytes come, a frame is yielded or an error named, nothing is held beyond the limits,
//! and what an agent or a conductor says is read as it was said.

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::event::Failure;
use crate::nix::StorePath;

/// Every frame of a stream, and what ends it: nothing, a frame that is cut off, or an error.
fn read(decoder: &mut Decoder, bytes: &[u8]) -> (Vec<Frame>, Result<(), FrameError>) {
    decoder.push(bytes);
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    // With what JSON escapes, and what takes several bytes.
    "[a-z\"\\\\\u{0}-\u{1f}äß→\u{10ffff}]{0,12}"
}

fn path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), "[a-zA-Z0-9+_?=-][a-zA-Z0-9+._?=-]{0,20}")
        .prop_map(|(digest, name)| StorePath::from_parts(digest, &name).unwrap())
}

fn paths() -> impl Strategy<Value = BTreeSet<StorePath>> {
    btree_set(path(), 0..4)
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        (any::<i32>(), any::<bool>())
            .prop_map(|(code, transient)| Failure::ExitCode { code, transient }),
        any::<u64>().prop_map(|seconds| Failure::TimedOut { seconds }),
        text().prop_map(|reason| Failure::Machine { reason }),
    ]
}

fn facts() -> impl Strategy<Value = PathFacts> {
    let kind = prop::sample::select(vec![
        PathKind::Mountable,
        PathKind::Symlink,
        PathKind::Unknown,
    ]);
    (path(), paths(), kind).prop_map(|(path, references, kind)| PathFacts {
        path,
        references,
        kind,
    })
}

fn standing() -> impl Strategy<Value = AttemptStanding> {
    prop_oneof![
        Just(AttemptStanding::Running),
        Just(AttemptStanding::Good),
        (text(), option::of(any::<i32>()))
            .prop_map(|(outcome, exit)| AttemptStanding::Bad { outcome, exit }),
        Just(AttemptStanding::NotStarted),
        text().prop_map(|detail| AttemptStanding::Unknown { detail }),
    ]
}

fn attempt() -> impl Strategy<Value = AttemptFacts> {
    (text(), text(), text(), any::<u64>(), standing()).prop_map(
        |(id, node, run, started, standing)| AttemptFacts {
            id,
            node,
            run,
            started,
            standing,
        },
    )
}

fn built() -> impl Strategy<Value = BuildResult> {
    prop_oneof![
        vec(facts(), 0..3).prop_map(|outputs| BuildResult::Built { outputs }),
        vec(facts(), 0..3).prop_map(|outputs| BuildResult::AlreadyValid { outputs }),
        failure().prop_map(|failure| BuildResult::Failed { failure }),
        Just(BuildResult::Cancelled),
        path().prop_map(|missing| BuildResult::StoreLost { missing }),
    ]
}

fn ran() -> impl Strategy<Value = EffectResult> {
    prop_oneof![
        Just(EffectResult::Succeeded),
        failure().prop_map(|failure| EffectResult::Failed { failure }),
        Just(EffectResult::Cancelled),
        path().prop_map(|missing| EffectResult::StoreLost { missing }),
    ]
}

fn from_agent() -> impl Strategy<Value = FromAgent> {
    let error = || text().prop_map(|text| MachineError { text });
    prop_oneof![
        (any::<u32>(), text(), text(), text()).prop_map(|(version, nonce, store, instance)| {
            FromAgent::Hello {
                version,
                nonce,
                store,
                instance,
            }
        }),
        error().prop_map(|error| FromAgent::Unfit { error }),
        Just(FromAgent::Idle),
        text().prop_map(|attempt| FromAgent::Started { attempt }),
        text().prop_map(|lock| FromAgent::Busy { lock }),
        text().prop_map(|lock| FromAgent::Waiting { lock }),
        vec(any::<usize>(), 0..9).prop_map(|which| FromAgent::Valid { which }),
        vec(path(), 0..4).prop_map(|paths| FromAgent::AllValid { paths }),
        Just(FromAgent::MoreValid),
        vec(facts(), 0..4).prop_map(|paths| FromAgent::Paths { paths }),
        Just(FromAgent::Rooted),
        vec(any::<u32>(), 0..9).prop_map(|slots| FromAgent::Leased { slots }),
        (any::<usize>(), any::<u64>())
            .prop_map(|(paths, bytes)| FromAgent::Imported { paths, bytes }),
        vec(attempt(), 0..3).prop_map(|attempts| FromAgent::Attempts { attempts }),
        built().prop_map(|result| FromAgent::Built { result }),
        ran().prop_map(|result| FromAgent::Ran { result }),
        error().prop_map(|error| FromAgent::Failed { error }),
    ]
}

fn sandbox_paths() -> impl Strategy<Value = Vec<SandboxPath>> {
    let one = (text(), text()).prop_map(|(target, source)| SandboxPath { target, source });
    vec(one, 0..3)
}

fn limits() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
    (option::of(any::<u64>()), option::of(any::<u64>()))
}

fn build_job() -> impl Strategy<Value = BuildJob> {
    let slot = option::of(any::<u32>());
    let (names, cores) = (vec(text(), 0..3), any::<u32>());
    (
        path(),
        names,
        text(),
        cores,
        limits(),
        sandbox_paths(),
        slot,
    )
        .prop_map(
            |(drv, wanted, run, cores, (timeout, silence), sandbox_paths, slot)| BuildJob {
                drv,
                wanted,
                run,
                cores,
                timeout,
                silence,
                sandbox_paths,
                slot,
            },
        )
}

fn effect_job() -> impl Strategy<Value = EffectJob> {
    let words = || vec(text(), 0..3);
    let environment = vec((text(), text()), 0..3);
    let root = prop::sample::select(vec![EffectRoot::Empty, EffectRoot::Image]);
    let store = prop::sample::select(vec![EffectStore::Closure, EffectStore::Whole]);
    let names = (
        text(),
        option::of(text()),
        text(),
        words(),
        words(),
        words(),
    );
    let seen = (environment, paths(), sandbox_paths(), root, store);
    (names, seen, limits()).prop_map(|(names, seen, (timeout, silence))| {
        let (name, pipeline, run, command, tools, secrets) = names;
        let (environment, roots, sandbox_paths, root, store) = seen;
        EffectJob {
            name,
            run,
            pipeline,
            command,
            environment,
            tools,
            roots,
            secrets,
            timeout,
            silence,
            sandbox_paths,
            root,
            store,
        }
    })
}

fn header() -> impl Strategy<Value = ImportHeader> {
    (
        path(),
        paths(),
        option::of(path()),
        option::of(text()),
        text(),
    )
        .prop_map(|(path, references, deriver, ca, nar_hash)| ImportHeader {
            path,
            references,
            deriver,
            ca,
            nar_hash,
        })
}

fn to_agent() -> impl Strategy<Value = ToAgent> {
    let words = || vec(text(), 0..3);
    let list = || vec(path(), 0..4);
    let scope = prop::sample::select(vec![QueryScope::Paths, QueryScope::Closure]);
    prop_oneof![
        any::<u32>().prop_map(|version| ToAgent::Welcome { version }),
        (text(), list(), list()).prop_map(|(run, temporary, links)| ToAgent::Root {
            run,
            temporary,
            links,
        }),
        words().prop_map(|links| ToAgent::Keep { links }),
        (list(), scope).prop_map(|(paths, scope)| ToAgent::Query { paths, scope }),
        any::<usize>().prop_map(|at_most| ToAgent::QueryAll { at_most }),
        any::<u32>().prop_map(|count| ToAgent::Lease { count }),
        header().prop_map(|header| ToAgent::Import { header }),
        Just(ToAgent::ImportEnd),
        (text(), words()).prop_map(|(run, ids)| ToAgent::Attempts { run, ids }),
        (text(), text(), words()).prop_map(|(run, pipeline, effects)| ToAgent::Unsettled {
            run,
            pipeline,
            effects
        }),
        build_job().prop_map(ToAgent::Build),
        (path(), build_job()).prop_map(|(after, job)| ToAgent::Then { after, job }),
        effect_job().prop_map(ToAgent::Effect),
        Just(ToAgent::Cancel),
        Just(ToAgent::Bye),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    (0..3, vec(any::<u8>(), 0..300)).prop_map(|(kind, bytes)| match kind {
        0 => Frame::Message(bytes),
        1 => Frame::Log(bytes),
        _ => Frame::Data(bytes),
    })
}

/// Reads a message as it was said, nothing of it before its last byte, and whatever a changed byte
/// makes of it: another message or an error that has a name and does not repeat all of it.
fn holds_for<M>(message: &M, at: usize, change: u8) -> Result<(), TestCaseError>
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut bytes = encode(&Frame::message(message));
    for end in 0..bytes.len() {
        let mut decoder = Decoder::new(Limits::TUNNEL);
        let (frames, ended) = read(&mut decoder, &bytes[..end]);
        prop_assert!(
            frames.is_empty() && ended.is_ok(),
            "cut off after {end} bytes"
        );
    }
    let (frames, _) = read(&mut Decoder::new(Limits::TUNNEL), &bytes);
    let [Frame::Message(payload)] = frames.as_slice() else {
        panic!("{frames:?}");
    };
    prop_assert_eq!(&frame::parse::<M>(payload).unwrap(), message);
    let at = at % bytes.len();
    bytes[at] ^= change;
    let (frames, _) = read(&mut Decoder::new(Limits::TUNNEL), &bytes);
    for frame in frames {
        if let Frame::Message(payload) = frame
            && let Err(error) = frame::parse::<M>(&payload)
        {
            let text = error.to_string();
            prop_assert!(
                text.contains("is not understood") && text.len() < 800,
                "{text}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_an_agent_says_is_understood(
        message in from_agent(), at in any::<usize>(), change in 1_u8..,
    ) {
        holds_for(&message, at, change)?;
    }

    #[test]
    fn what_a_conductor_says_is_understood(
        message in to_agent(), at in any::<usize>(), change in 1_u8..,
    ) {
        holds_for(&message, at, change)?;
    }

    #[test]
    fn frames_survive_any_cutting(
        frames in vec(frame(), 0..12),
        cuts in vec(1_usize..50, 1..40),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
        let mut decoder = Decoder::new(Limits::TUNNEL);
        let mut seen = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            let (frames, ended) = read(&mut decoder, head);
            ended.unwrap();
            seen.extend(frames);
            rest = tail;
        }
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn noise_is_a_frame_or_an_error(noise in vec(any::<u8>(), 0..200)) {
        for limits in [Limits::GREETING, Limits::TUNNEL] {
            let (frames, ended) = read(&mut Decoder::new(limits), &noise);
            let used: usize = frames.iter().map(|frame| encode(frame).len()).sum();
            prop_assert!(used <= noise.len());
            if let (Ok(()), Some(head)) = (ended, noise[used..].first_chunk()) {
                // It waits for the rest, which its limits allow.
                let length = u32::from_le_bytes(*head) as usize;
                prop_assert!((1..=limits.message).contains(&length), "{length}");
            }
        }
    }

    #[test]
    fn no_limit_is_passed(length in any::<u32>(), kind in any::<u8>()) {
        let mut head = length.to_le_bytes().to_vec();
        head.push(kind);
        let length = length as usize;
        for limits in [Limits::GREETING, Limits::TUNNEL, Limits::PAIR] {
            let limit = if kind == 0 { limits.message } else { limits.piece };
            let mut decoder = Decoder::new(limits);
            match read(&mut decoder, &head).1 {
                Ok(()) => prop_assert!((1..=limit).contains(&length) && kind < 3),
                Err(FrameError::Length { length: told, .. }) => {
                    prop_assert_eq!(told, length);
                    prop_assert!(length == 0 || length > limit);
                }
                Err(FrameError::Kind { kind: told }) => prop_assert!(told == kind && kind > 2),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_stream_of_noise_is_not_collected() {
    let mut decoder = Decoder::new(Limits::TUNNEL);
    // It announces the largest frame of a log and more.
    let head = [0, 0, 0x10, 0x01, 1];
    let (_, ended) = read(&mut decoder, &head);
    let error = ended.unwrap_err();
    assert!(
        matches!(error, FrameError::Length { limit, .. } if limit == MAX_PIECE),
        "{error}"
    );
}

#[test]
fn strangers_are_not_listened_to_for_long() {
    let long = encode(&Frame::Message(vec![b' '; MAX_GREETING]));
    let (_, ended) = read(&mut Decoder::new(Limits::GREETING), &long[..5]);
    assert!(matches!(ended, Err(FrameError::Length { .. })));
    let mut decoder = Decoder::new(Limits::GREETING);
    decoder.limit(Limits::TUNNEL);
    assert_eq!(read(&mut decoder, &long).0.len(), 1);
}

#[test]
fn an_error_is_no_longer_than_anybody_reads() {
    let text = "→".repeat(100_000);
    let said = FromAgent::Failed {
        error: MachineError { text: text.clone() },
    };
    let Frame::Message(payload) = Frame::message(&said) else {
        panic!("it is a message");
    };
    match frame::parse(&payload).unwrap() {
        FromAgent::Failed { error } => {
            assert!(text.starts_with(&error.text) && (16_000..17_000).contains(&error.text.len()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_that_are_not_copied_are_the_same_frame() {
    let bytes = b"nix-archive-1".to_vec();
    let mut stream = frame::data_head(bytes.len()).to_vec();
    stream.extend_from_slice(&bytes);
    assert_eq!(stream, encode(&Frame::Data(bytes)));
}

#[test]
fn a_stream_longer_than_what_is_read_at_a_time_is_read_whole() {
    let frames = [Frame::Data(vec![7; 200 << 10]), Frame::Data(Vec::new())];
    let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
    let (mut rest, mut decoder) = (stream.as_slice(), Decoder::new(Limits::TUNNEL));
    let mut seen = Vec::new();
    while decoder.read(&mut rest).unwrap() > 0 {
        while let Some(frame) = decoder.next_frame().unwrap() {
            seen.push(frame);
        }
    }
    assert_eq!(seen, frames);
}
