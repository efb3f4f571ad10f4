//! Archives against Nix's own, arbitrary trees there and back, and damaged bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File { executable: bool, contents: Vec<u8> },
    Link(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Node>),
}

fn write_node(writer: &mut Writer<&mut Vec<u8>>, node: &Node) -> Result<(), Error> {
    match node {
        Node::File {
            executable,
            contents,
        } => writer.regular(*executable, contents.len() as u64, &mut contents.as_slice()),
        Node::Link(target) => writer.symlink(target),
        Node::Directory(children) => {
            writer.directory()?;
            for (name, child) in children {
                writer.entry(name)?;
                write_node(writer, child)?;
            }
            writer.end_directory()
        }
    }
}

fn archive(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    write_node(&mut writer, node).unwrap();
    writer.finish();
    bytes
}

fn read_node<R: io::Read>(reader: &mut Reader<R>, event: Event) -> Result<Node, Error> {
    Ok(match event {
        Event::Regular { executable, .. } => {
            let mut contents = Vec::new();
            let mut buffer = [0; 5];
            loop {
                let got = reader.read_contents(&mut buffer)?;
                if got == 0 {
                    break Node::File {
                        executable,
                        contents,
                    };
                }
                contents.extend_from_slice(&buffer[..got]);
            }
        }
        Event::Symlink { target } => Node::Link(target),
        Event::Directory => {
            let mut children = BTreeMap::new();
            while let Some(Event::Entry { name }) = reader.next_event()? {
                let event = reader.next_event()?.unwrap();
                children.insert(name, read_node(reader, event)?);
            }
            Node::Directory(children)
        }
        other => panic!("a node begins with {other:?}"),
    })
}

fn parse(bytes: &[u8]) -> Result<Node, Error> {
    let mut reader = Reader::new(bytes);
    let event = reader.next_event()?.unwrap();
    let node = read_node(&mut reader, event)?;
    assert_eq!(reader.next_event()?, None);
    reader.expect_end()?;
    assert_eq!(reader.offset(), bytes.len() as u64);
    Ok(node)
}

fn vectors() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/nar");
    let mut all: Vec<_> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs_err::read(path).unwrap())
        })
        .collect();
    all.sort();
    assert!(all.len() > 50);
    all
}

#[test]
fn every_archive_of_nix_is_read_and_written_again() {
    for (name, bytes) in vectors() {
        let node = parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(archive(&node) == bytes, "{name}");
    }
}

#[test]
fn every_truncation_is_an_error_with_its_place() {
    let bytes = archive(&sample());
    for length in 0..bytes.len() {
        match parse(&bytes[..length]) {
            Err(Error::Truncated { offset }) => assert!(offset <= length as u64),
            other => panic!("{length}: {other:?}"),
        }
    }
}

fn file(contents: &[u8]) -> Node {
    Node::File {
        executable: false,
        contents: contents.to_vec(),
    }
}

fn sample() -> Node {
    Node::Directory(BTreeMap::from([
        (b"a".to_vec(), file(b"12345")),
        (b"b".to_vec(), Node::Link(b"../x".to_vec())),
        (b"c".to_vec(), Node::Directory(BTreeMap::new())),
    ]))
}

#[test]
fn claimed_lengths_are_not_believed() {
    let mut bytes = archive(&file(b"x"));
    let place = bytes.len() - 16 - 16;
    bytes[place..place + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(parse(&bytes), Err(Error::Truncated { .. })));
    bytes[0..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    assert!(matches!(
        parse(&bytes),
        Err(Error::Unexpected { offset: 0, .. })
    ));
}

#[test]
fn order_names_targets_and_padding_are_checked() {
    let bytes = archive(&sample());
    let replace = |from: &[u8], to: &[u8]| {
        let place = bytes
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        let mut changed = bytes.clone();
        changed[place..place + to.len()].copy_from_slice(to);
        parse(&changed)
    };
    assert!(matches!(
        replace(b"b\0\0\0\0\0\0\0", b"a"),
        Err(Error::Order { .. })
    ));
    assert!(matches!(
        replace(b"b\0\0\0\0\0\0\0", b"/"),
        Err(Error::Name { .. })
    ));
    assert!(matches!(
        replace(b"a\0\0\0\0\0\0\0", b"."),
        Err(Error::Name { .. })
    ));
    assert!(matches!(
        replace(b"../x", b"..\0x"),
        Err(Error::Target { .. })
    ));
    assert!(matches!(
        replace(b"12345\0", b"12345!"),
        Err(Error::Padding { .. })
    ));
    let mut more = bytes.clone();
    more.push(0);
    assert!(matches!(parse(&more), Err(Error::Trailing { .. })));
}

fn nested(depth: usize) -> Node {
    (0..depth).fold(file(b""), |inner, _| {
        Node::Directory(BTreeMap::from([(b"d".to_vec(), inner)]))
    })
}

#[test]
fn depth_is_limited_on_both_sides() {
    let deepest = archive(&nested(63));
    assert!(parse(&deepest).is_ok());
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    assert!(matches!(
        write_node(&mut writer, &nested(64)),
        Err(Error::Depth { .. })
    ));

    let level = {
        let one = archive(&nested(1));
        let none = archive(&nested(0));
        one[24..one.len() - (none.len() - 24) - 32].to_vec()
    };
    let mut hostile = archive(&nested(0))[..24].to_vec();
    for _ in 0..100_000 {
        hostile.extend_from_slice(&level);
    }
    assert!(matches!(
        parse(&hostile),
        Err(Error::Depth { limit: 64, .. })
    ));
}

fn arbitrary_node() -> impl Strategy<Value = Node> {
    let name =
        prop::collection::vec(any::<u8>(), 1..12).prop_filter("a name", |name| is_name(name));
    let leaf = prop_oneof![
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(executable, contents)| Node::File {
                executable,
                contents
            }
        ),
        prop::collection::vec(1..=u8::MAX, 1..20).prop_map(Node::Link),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(Node::Directory)
    })
}

proptest! {
    #[test]
    fn trees_go_there_and_back(node in arbitrary_node()) {
        prop_assert_eq!(parse(&archive(&node)).unwrap(), node);
    }

    #[test]
    fn damaged_archives_are_refused_or_read_as_what_they_say(
        node in arbitrary_node(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = archive(&node);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(read) = parse(&bytes) {
            prop_assert_eq!(archive(&read), bytes);
        }
    }
}
