//! A definition as text, one paragraph an op, for people and for tests.
//!
//! ```text
//! #0 sha256:… exec `hello` (node-hello)
//!   run /agent build
//!   mount / scratch rw, output 0
//!   mount /nix/store cache pontoon-store shared rw, selector pontoon/slots/3/store
//!
//! result #0 output 0
//! ```
//!
//! Lines are in the order of the fields of [`Exec`]; what has its usual value is not shown.
//! Words that a reader could not tell apart (empty, with spaces, with control characters) are in
//! quotes, so nothing in a definition can move a terminal's cursor.
//! The text is for reading: there is no way back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use super::{
    Access, CachePolicy, Decoded, Digest, Exec, Input, Mount, MountKind, Network, Node, Op,
    Security, Sharing, Source,
};

/// Renders a definition.
pub fn render(decoded: &Decoded) -> String {
    let mut text = String::new();
    let numbers = decoded
        .ops
        .iter()
        .map(|node| &node.digest)
        .zip(0..)
        .collect();
    let ops = Ops { numbers };
    for node in &decoded.ops {
        ops.node(&mut text, node).expect("a string grows as needed");
        text.push('\n');
    }
    writeln!(text, "result {}", ops.input(&decoded.result)).expect("a string grows as needed");
    text
}

/// Gives ops the numbers under which others mention them.
struct Ops<'a> {
    numbers: BTreeMap<&'a Digest, usize>,
}

impl Ops<'_> {
    fn input(&self, input: &Input) -> String {
        match self.numbers.get(&input.digest) {
            Some(number) => format!("#{number} output {}", input.index),
            None => format!("{} output {}", input.digest, input.index),
        }
    }

    fn node(&self, text: &mut String, node: &Node) -> fmt::Result {
        if let Some(number) = self.numbers.get(&node.digest) {
            write!(text, "#{number} ")?;
        }
        let kind = if matches!(node.op, Op::Exec(_)) {
            "exec"
        } else {
            "source"
        };
        write!(text, "{} {kind}", node.digest)?;
        if let Some(name) = &node.metadata.custom_name {
            write!(text, " `{}`", name.escape_debug())?;
        }
        if let Some(group) = &node.metadata.progress_group {
            write!(text, " ({})", group.id.escape_debug())?;
        }
        text.push('\n');
        match &node.op {
            Op::Exec(exec) => self.exec(text, exec)?,
            Op::Source(source) => self::source(text, source)?,
        }
        if let Some(platform) = &node.platform {
            let parts = [&platform.os, &platform.architecture, &platform.variant];
            line(
                text,
                "platform",
                parts.into_iter().filter(|part| !part.is_empty()),
            )?;
        }
        if node.metadata.cache == CachePolicy::Ignore {
            line(text, "cache", ["ignored"])?;
        }
        line(text, "caps", &node.metadata.caps)
    }

    fn exec(&self, text: &mut String, exec: &Exec) -> fmt::Result {
        line(text, "run", &exec.args)?;
        for (name, value) in &exec.env {
            line(text, "env", [&format!("{name}={value}")])?;
        }
        if exec.cwd != "/" {
            line(text, "cwd", [&exec.cwd])?;
        }
        if !exec.user.is_empty() {
            line(text, "user", [&exec.user])?;
        }
        line(text, "hostname", &exec.hostname)?;
        for mount in &exec.mounts {
            writeln!(
                text,
                "  mount {} {}",
                word(&mount.dest),
                self.mount(mount, exec)
            )?;
        }
        match exec.network {
            Network::Default => {}
            Network::None => line(text, "network", ["none"])?,
            Network::Host => line(text, "network", ["host"])?,
        }
        if exec.security == Security::Insecure {
            line(text, "security", ["insecure"])?;
        }
        line(text, "devices", &exec.devices)?;
        let mounted = |place| exec.mounts.iter().any(|mount| mount.input == Some(place));
        let ordering = exec
            .inputs
            .iter()
            .enumerate()
            .filter(|(place, _)| !mounted(*place));
        for (_, input) in ordering {
            writeln!(text, "  after {}", self.input(input))?;
        }
        Ok(())
    }

    fn mount(&self, mount: &Mount, exec: &Exec) -> String {
        let source = mount.input.and_then(|place| exec.inputs.get(place));
        let source = source.map(|input| format!(" {}", self.input(input)));
        let access = if mount.access == Access::ReadOnly {
            "ro"
        } else {
            "rw"
        };
        let selector = mount
            .selector
            .as_ref()
            .map(|it| format!(", selector {}", word(it)));
        let output = mount.output.filter(|_| mount.makes_output());
        let output = output.map(|output| format!(", output {output}"));
        let [source, selector, output] = [source, selector, output].map(Option::unwrap_or_default);
        format!("{}{source} {access}{selector}{output}", kind(&mount.kind))
    }
}

fn kind(kind: &MountKind) -> String {
    match kind {
        MountKind::Scratch => "scratch".into(),
        MountKind::Bind => "bind".into(),
        MountKind::Cache { id, sharing } => {
            let sharing = match sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
                Sharing::Locked => "locked",
            };
            format!("cache {} {sharing}", word(id))
        }
        MountKind::Tmpfs { size: None } => "tmpfs".into(),
        MountKind::Tmpfs { size: Some(size) } => format!("tmpfs {size}"),
        MountKind::Secret {
            id,
            uid,
            gid,
            mode,
            optional,
        } => {
            format!(
                "secret {} {uid}:{gid} {mode:04o}{}",
                word(id),
                asked(*optional)
            )
        }
        MountKind::Ssh {
            id,
            uid,
            gid,
            mode,
            optional,
        } => {
            format!(
                "ssh {} {uid}:{gid} {mode:04o}{}",
                word(id),
                asked(*optional)
            )
        }
    }
}

fn asked(optional: bool) -> impl Display {
    if optional { " optional" } else { "" }
}

fn source(text: &mut String, source: &Source) -> fmt::Result {
    line(text, "from", [&source.identifier])?;
    source
        .attributes
        .iter()
        .try_for_each(|(key, value)| line(text, "attribute", [&format!("{key}={value}")]))
}

/// Writes a line of words, or none where there are none.
fn line<T: AsRef<str>>(
    text: &mut String,
    title: &str,
    words: impl IntoIterator<Item = T>,
) -> fmt::Result {
    let words: Vec<_> = words
        .into_iter()
        .map(|it| word(it.as_ref()).into_owned())
        .collect();
    if words.is_empty() {
        Ok(())
    } else {
        writeln!(text, "  {title} {}", words.join(" "))
    }
}

fn word(text: &str) -> Cow<'_, str> {
    let plain = |char: char| !char.is_whitespace() && !matches!(char, '"' | '\\');
    if text.is_empty() || !text.chars().all(plain) || text.escape_debug().ne(text.chars()) {
        Cow::Owned(format!("{text:?}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    #[test]
    fn shows_a_plain_build() {
        let bytes = include_bytes!("../../tests/golden/plain.pb");
        insta::assert_snapshot!(render(&decode(bytes).unwrap()), @r#"
        #0 sha256:e0f5c88ec324faa4c5d78dbef7595a4446fe861af0b531e3bdd77c5dec821dfb exec `hello` (node-hello)
          run /.pontoon/agent agent build /nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv
          env PONTOON_STORE_ID=5f0c
          env PONTOON_NONCE=00000000000000000000000000000000
          hostname localhost
          mount / scratch rw, output 0
          mount /.pontoon/agent cache pontoon-store shared ro, selector pontoon/agent/0123abcd
          mount /.pontoon/store cache pontoon-store shared rw
          mount /nix/store cache pontoon-store shared rw, selector pontoon/slots/3/store
          mount /nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5 cache pontoon-store shared ro, selector store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5
          mount /build tmpfs 4294967296 rw
          mount /tmp tmpfs 1073741824 rw
          mount /dev/shm tmpfs 67108864 rw
          mount /.pontoon/tunnel ssh tunnel-7 0:0 0600 rw
          network none
          caps exec.meta.base exec.meta.network exec.mount.cache exec.mount.cache.sharing exec.mount.selector exec.mount.ssh exec.mount.tmpfs exec.mount.tmpfs.size

        result #0 output 0
        "#);
    }

    #[test]
    fn shows_inputs_by_number() {
        let bytes = include_bytes!("../../tests/golden/source.pb");
        insta::assert_snapshot!(render(&decode(bytes).unwrap()), @r#"
        #0 sha256:86a3ba9bce9d77e45851529b0554d0fe93f58cf334eab96bf6c97b90df0fe6cb source `root` (node-root)
          from oci-layout://pontoon/root@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
          attribute oci.store=pontoon
          caps source.ocilayout

        #1 sha256:beee4749b8c12d585c97871bdc1ae1f93277440f2b50f2d6eb3095dceff18884 source
          from local://agent
          attribute "local.includepattern=[\"agent\"]"
          attribute local.sharedkeyhint=pontoon-agent
          caps source.local source.local.includepatterns source.local.sharedkeyhint

        #2 sha256:bfa3d53f06e59db2c572239564edef2035cf96a40cf3312087c4a5a7d18ae081 exec
          run /agent
          env LANG=C
          env "NAME=größe ✓"
          mount / bind #0 output 0 ro
          mount /agent bind #1 output 0 ro, selector /agent
          mount /out scratch rw, output 0
          mount /log scratch rw, output 1
          caps exec.meta.base exec.mount.bind exec.mount.selector

        #3 sha256:faacef42d5eaa32f26f2ffbd22ddf1d887c77f84546664e8c8faa18080fa2dfa exec
          run true
          mount / bind #2 output 1 rw, output 0
          caps exec.meta.base exec.mount.bind

        result #3 output 0
        "#);
    }

    #[test]
    fn shows_what_only_orders() {
        let bytes = include_bytes!("../../tests/golden/ordering.pb");
        insta::assert_snapshot!(render(&decode(bytes).unwrap()), @"
        #0 sha256:ca9f62dcd416ddd7bbbb30134c940ea13bc13299ee84282f7f29329ed11b89e5 exec
          run step a
          mount / scratch rw, output 0
          caps exec.meta.base

        #1 sha256:4344b8ca045cba8db08439d858e02667c2c3b14dda754edf85359c8fc01ecdc0 exec
          run step b
          mount / scratch rw, output 0
          after #0 output 0
          caps exec.meta.base

        #2 sha256:4d161e8499defee4b18cbaa5fc86566f5e56e1b180be8ad5764a790214bd0bca exec
          run step c
          mount / scratch rw, output 0
          after #0 output 0
          caps exec.meta.base

        #3 sha256:a80a3acf710f47a2355bf73f03d272e2571f5b008e05e2bd0d6c75135b9b7380 exec `last` (node-last)
          run step d
          mount / scratch rw, output 0
          after #1 output 0
          after #2 output 0
          cache ignored
          caps exec.meta.base meta.ignorecache

        result #3 output 0
        ");
    }

    #[test]
    fn quotes_what_would_mislead() {
        for text in ["", "a b", "a\nb", "\u{1b}[2J", "\"", "\u{202e}"] {
            assert!(word(text).starts_with('"'), "{text:?}");
            assert!(!word(text).contains('\u{1b}'));
        }
        assert_eq!(word("größe=✓"), "größe=✓");
    }
}
