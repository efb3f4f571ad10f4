//! Serde adapters: a store path travels as its full text, `/nix/store/<hash>-<name>`.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::nix::{StorePath, full_text};

/// A store path whose text is not kept: lists hold a hundred thousand.
struct Full<P>(P);

impl Serialize for Full<&StorePath> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&full_text(self.0))
    }
}

impl<'de> Deserialize<'de> for Full<StorePath> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text).map(Self)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = StorePath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store path")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StorePath, E> {
        text.parse()
            .map_err(|error| E::custom(format!("`{text}`: {error}")))
    }
}

/// One store path.
pub mod path {
    use serde::{Deserializer, Serializer};

    use super::Text;
    use crate::nix::StorePath;

    /// Writes the full text.
    pub fn serialize<S: Serializer>(path: &StorePath, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(path)
    }

    /// Parses the full text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StorePath, D::Error> {
        from.deserialize_str(Text)
    }
}

/// A store path or none.
pub mod option {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Full;
    use crate::nix::StorePath;

    /// Writes the full text or null.
    pub fn serialize<S: Serializer>(path: &Option<StorePath>, to: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => to.collect_str(path),
            None => to.serialize_none(),
        }
    }

    /// Parses the full text or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StorePath>, D::Error> {
        let path: Option<Full<StorePath>> = Option::deserialize(from)?;
        Ok(path.map(|path| path.0))
    }
}

/// A sequence of store paths, in a `Vec` or a `BTreeSet`.
pub mod paths {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    use super::Full;
    use crate::nix::StorePath;

    /// Writes a sequence of full texts.
    pub fn serialize<'a, S, C>(paths: &'a C, to: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        &'a C: IntoIterator<Item = &'a StorePath>,
    {
        to.collect_seq(paths.into_iter().map(Full))
    }

    /// Parses a sequence of full texts.
    pub fn deserialize<'de, D, C>(from: D) -> Result<C, D::Error>
    where
        D: Deserializer<'de>,
        C: FromIterator<StorePath>,
    {
        from.deserialize_seq(Sequence(PhantomData))
    }

    struct Sequence<C>(PhantomData<C>);

    impl<'de, C: FromIterator<StorePath>> Visitor<'de> for Sequence<C> {
        type Value = C;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence of store paths")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<C, A::Error> {
            let next = || texts.next_element::<Full<StorePath>>().transpose();
            let paths = std::iter::from_fn(next);
            paths.map(|path| path.map(|path| path.0)).collect()
        }
    }
}

/// Very many store paths as one text, a space between them: a text is read at once, where a sequence
/// is read word by word.
pub mod words {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    use crate::nix::{StorePath, full_text};

    /// Writes full texts.
    pub fn serialize<S: Serializer>(paths: &[StorePath], to: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = paths.iter().map(full_text).collect();
        to.serialize_str(&texts.join(" "))
    }

    /// Parses full texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<StorePath>, D::Error> {
        from.deserialize_str(Words)
    }

    struct Words;

    impl Visitor<'_> for Words {
        type Value = Vec<StorePath>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("store paths with spaces between them")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<StorePath>, E> {
            let words = text.split(' ').filter(|_| !text.is_empty());
            let parse = |word: &str| {
                let path = word.parse();
                path.map_err(|error| E::custom(format!("`{word}`: {error}")))
            };
            words.map(parse).collect()
        }
    }
}
