//! Names of images: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
//!
//! As everywhere, a name without a host is one of Docker Hub's, and one without a slash is in its
//! `library`; without a tag and a digest the tag is `latest`. A first component is a host if it has
//! a dot or a colon, or is `localhost`. The grammar is that of the OCI distribution specification.

use std::fmt;

use serde::{Serialize, Serializer};

const HUB: &str = "docker.io";

/// The name of an image, written out in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(String);

impl Reference {
    /// Parses a name and completes it; none where it is no name.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (host, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => (HUB, rest),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        let sound = host_is_sound(host)
            && name.len() < 256
            && name.split('/').all(component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !sound {
            return None;
        }
        let library = if host == HUB && !name.contains('/') {
            "library/"
        } else {
            ""
        };
        let mut full = format!("{host}/{library}{name}");
        match (tag, digest) {
            (None, None) => full += ":latest",
            (tag, _) => full.extend(tag.map(|tag| format!(":{tag}"))),
        }
        full.extend(digest.map(|digest| format!("@{digest}")));
        Some(Self(full))
    }

    /// Returns the name in full.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn host_is_sound(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Lower-case words joined by `.`, `_`, `__` or any number of `-`.
fn component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| is_word(*b));
    let bytes = text.as_bytes();
    let mut joints = bytes
        .split(|b| is_word(*b))
        .filter(|joint| !joint.is_empty());
    ends(bytes.first())
        && ends(bytes.last())
        && joints
            .all(|joint| matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match text.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_names_as_everybody_does() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("owner/app", "docker.io/owner/app:latest"),
            ("ghcr.io/o/app:v1", "ghcr.io/o/app:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b_c:x", "localhost:5000/a/b_c:x"),
            ("127.0.0.1:5000/a__b--c", "127.0.0.1:5000/a__b--c:latest"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().as_str(), full);
            assert_eq!(Reference::parse(full).unwrap().as_str(), full);
        }
        let pinned = Reference::parse(&format!("busybox@{digest}")).unwrap();
        assert_eq!(
            pinned.as_str(),
            format!("docker.io/library/busybox@{digest}")
        );
        let both = format!("quay.io/a:1@{digest}");
        assert_eq!(Reference::parse(&both).unwrap().as_str(), both);
    }

    #[test]
    fn refuses_what_is_no_name() {
        for text in [
            "",
            "/nix/store/x",
            "./layout",
            "Busybox",
            "a b",
            "a:",
            "a:b:c",
            "a@sha256:12",
            "a@md5:00",
            "host.example:port/a",
            "host.example/",
            "-a",
            "a..b",
            "a___b",
            "docker-image://a",
            "http://host/a",
        ] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
