//! A store path, or something in it.

use std::fmt;

use super::{STORE_DIR, StorePath};

/// A file or directory of the store: a store path and the way on from there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InStore {
    /// The store path that it is, or is in.
    pub path: StorePath,
    /// Where in that path it is, beginning with `/`; empty for the path itself.
    pub inside: String,
}

impl InStore {
    /// Cuts an absolute path in two; none where it does not lie in the store, or goes up.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(STORE_DIR)?.strip_prefix('/')?;
        let (name, inside) = name.split_at(name.find('/').unwrap_or(name.len()));
        let path = format!("{STORE_DIR}/{name}").parse().ok()?;
        let inside = inside.trim_end_matches('/');
        let is_plain = |part| !matches!(part, "" | "." | "..");
        let plain = inside.is_empty() || inside[1..].split('/').all(is_plain);
        plain.then(|| Self {
            path,
            inside: inside.to_owned(),
        })
    }

    /// Returns it as a mount's selector below the nix directory.
    pub fn selector(&self) -> String {
        format!("store/{}{}", self.path.to_basename(), self.inside)
    }
}

impl fmt::Display for InStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, self.inside)
    }
}

impl serde::Serialize for InStore {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSYBOX: &str = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-busybox";

    #[test]
    fn cuts_a_path_of_the_store_in_two() {
        let cut = |text: &str| InStore::parse(text).map(|it| format!("{} {}", it.path, it.inside));
        assert_eq!(cut(BUSYBOX).unwrap(), format!("{BUSYBOX} "));
        assert_eq!(cut(&format!("{BUSYBOX}/")).unwrap(), format!("{BUSYBOX} "));
        let inside = cut(&format!("{BUSYBOX}/bin/sh")).unwrap();
        assert_eq!(inside, format!("{BUSYBOX} /bin/sh"));
        let up = format!("{BUSYBOX}/../other");
        for text in [
            "/bin/sh",
            "/nix/store",
            "/nix/storey/x",
            "/nix/store/busybox/bin/sh",
            &up,
        ] {
            assert_eq!(cut(text), None, "{text}");
        }
    }

    #[test]
    fn is_shown_and_selected() {
        let place = InStore::parse(&format!("{BUSYBOX}/bin/sh")).unwrap();
        assert_eq!(place.to_string(), format!("{BUSYBOX}/bin/sh"));
        let expected = "store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-busybox/bin/sh";
        assert_eq!(place.selector(), expected);
    }
}
