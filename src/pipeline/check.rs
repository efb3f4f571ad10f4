//! What is legal across the fields of a pipeline: names, cycles, durations, texts.

use std::collections::BTreeMap;

use super::order;
use super::read::{Described, Fault, RawDockerfile, RawEffect, RawSecret, root, timeout};

/// What was found so far.
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    fn add(&mut self, at: &str, message: impl Into<String>) {
        self.0.push(Fault {
            at: at.into(),
            message: message.into(),
        });
    }

    /// Looks at all of a pipeline.
    pub(super) fn check(
        &mut self,
        builds: &BTreeMap<String, Described>,
        effects: &BTreeMap<String, RawEffect>,
    ) {
        for (name, build) in builds {
            let at = format!("builds.{name}");
            self.file_name(&at, name);
            if let Some(output) = build
                .wanted
                .iter()
                .find(|name| !build.outputs.contains(name))
            {
                self.add(
                    &at,
                    format!("wants the output `{output}`, which it does not have"),
                );
            }
            if build.wanted.is_empty() {
                self.add(&at, "wants no outputs");
            }
        }
        for (name, effect) in effects {
            self.effect(&format!("effects.{name}"), name, effect, builds, effects);
        }
        let after = effects
            .iter()
            .map(|(name, effect)| (name.as_str(), &effect.after))
            .collect();
        if let Some(cycle) = order::cycle(&after) {
            self.add(
                "effects",
                format!("wait for each other: {}", cycle.join(" after ")),
            );
        }
    }

    fn effect(
        &mut self,
        at: &str,
        name: &str,
        effect: &RawEffect,
        builds: &BTreeMap<String, Described>,
        effects: &BTreeMap<String, RawEffect>,
    ) {
        self.file_name(at, name);
        if effect.command.first().is_none_or(String::is_empty) {
            self.add(&format!("{at}.command"), "is empty: it must name a program");
        }
        let texts = effect.command.iter().map(|text| ("command", text));
        let texts = texts.chain(effect.tools.iter().map(|text| ("tools", text)));
        for (field, text) in texts {
            self.text(&format!("{at}.{field}"), text);
        }
        for (key, value) in &effect.environment {
            let at = format!("{at}.environment.{key}");
            self.variable(&at, key);
            self.text(&at, value);
        }
        for other in effect
            .after
            .iter()
            .filter(|other| !effects.contains_key(*other))
        {
            self.add(
                &format!("{at}.after"),
                format!("names `{other}`, which is no effect"),
            );
        }
        for build in effect
            .gate
            .iter()
            .flatten()
            .filter(|build| !builds.contains_key(*build))
        {
            self.add(
                &format!("{at}.gate"),
                format!("names `{build}`, which is no build"),
            );
        }
        for (key, secret) in &effect.secrets {
            self.secret(&format!("{at}.secrets.{key}"), key, secret);
        }
        if let Some(raw) = &effect.timeout
            && timeout(raw).is_none()
        {
            let message = "must be seconds above zero, or a string such as `45s`, `10m`, `1h30m`";
            self.add(&format!("{at}.timeout"), message);
        }
        self.root(at, effect);
    }

    fn root(&mut self, at: &str, effect: &RawEffect) {
        if effect.image.is_some() && effect.dockerfile.is_some() {
            self.add(at, "has both `image` and `dockerfile`: it has one root");
        } else if let Err((field, message)) = root(effect) {
            self.add(&format!("{at}.{field}"), message);
        }
        if let Some(build) = &effect.dockerfile {
            self.dockerfile(&format!("{at}.dockerfile"), build);
        }
        if effect
            .store
            .as_deref()
            .is_some_and(|store| store != "whole")
        {
            self.add(&format!("{at}.store"), "must be \"whole\"");
        }
    }

    fn dockerfile(&mut self, at: &str, build: &RawDockerfile) {
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        if build
            .file
            .as_ref()
            .is_some_and(|file| !file.split('/').all(plain))
        {
            self.add(&format!("{at}.file"), "must be a file below the context");
        }
        let texts = [("file", &build.file), ("target", &build.target)];
        for (field, text) in texts {
            self.text(
                &format!("{at}.{field}"),
                text.as_deref().unwrap_or_default(),
            );
        }
        if build.target.as_deref() == Some("") {
            self.add(&format!("{at}.target"), "is empty");
        }
        for (key, value) in &build.args {
            let at = format!("{at}.args.{key}");
            self.variable(&at, key);
            self.text(&at, value);
        }
    }

    fn secret(&mut self, at: &str, name: &str, secret: &RawSecret) {
        self.file_name(at, name);
        match (&secret.env, &secret.file) {
            (_, Some(file)) if file.is_empty() => self.add(at, "has an empty `file`"),
            (_, Some(file)) => self.text(at, file),
            (Some(variable), None) => self.variable(at, variable),
            (None, None) => self.variable(at, name),
        }
    }

    /// Effects and secrets become file names, builds may.
    fn file_name(&mut self, at: &str, name: &str) {
        let bad = |c: char| c == '/' || c.is_control();
        if matches!(name, "" | "." | "..") || name.len() > 200 || name.contains(bad) {
            self.add(at, "has a name that cannot be a file name");
        }
    }

    fn variable(&mut self, at: &str, name: &str) {
        if name.is_empty() || name.contains(['=', '\0']) {
            self.add(at, format!("names `{name}`, which cannot be a variable"));
        }
    }

    fn text(&mut self, at: &str, text: &str) {
        if text.contains('\0') {
            self.add(at, "contains a NUL character");
        }
    }
}
