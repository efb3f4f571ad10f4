//! Serde adapters: a store path travels as its full text, `/nix/store/<hash>-<name>`.

/// One store path.
pub mod path {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::nix::StorePath;

    /// Writes the full text.
    pub fn serialize<S: Serializer>(path: &StorePath, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(path)
    }

    /// Parses the full text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StorePath, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
    }
}

/// A store path or none.
pub mod option {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

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
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
    }
}

/// A sequence of store paths, in a `Vec` or a `BTreeSet`.
pub mod paths {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::nix::StorePath;

    /// Writes a sequence of full texts.
    pub fn serialize<'a, S, C>(paths: &'a C, to: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        &'a C: IntoIterator<Item = &'a StorePath>,
    {
        to.collect_seq(paths.into_iter().map(ToString::to_string))
    }

    /// Parses a sequence of full texts.
    pub fn deserialize<'de, D, C>(from: D) -> Result<C, D::Error>
    where
        D: Deserializer<'de>,
        C: FromIterator<StorePath>,
    {
        Vec::<String>::deserialize(from)?
            .into_iter()
            .map(|text| {
                text.parse()
                    .map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
            })
            .collect()
    }
}
