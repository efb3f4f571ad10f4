//! What an op tells the agent it wakes, in arguments and environment, and where it has what.

use std::fmt;
use std::path::Path;

/// The op's environment variable with its nonce.
pub const NONCE: &str = "PONTOON_NONCE";
/// The op's environment variable with its shape: `strong` or `plain`.
pub const SHAPE: &str = "PONTOON_SHAPE";
/// Set by the device that brings the store: who builders may be, see [`Users`](super::users::Users).
pub const USERS: &str = "PONTOON_BUILD_USERS";

/// The op's environment variable with that of the image at its root: a list in JSON, `NAME=VALUE`
/// each.
pub const IMAGE: &str = "PONTOON_IMAGE";

/// The program of every plain op.
pub const PLAIN_PROGRAM: &str = "/.pontoon/agent";
/// Where a strong op has the agents of its store; its program is one of them.
pub const STRONG_PROGRAMS: &str = "/nix/pontoon/agent/";
/// What of an op's root is the agent's alone.
pub const OWN: &str = "/.pontoon";
/// Where a plain op has the whole store.
pub const PLAIN_STORE: &str = "/.pontoon/store";
/// Where an op has the locks of the machine's build users.
pub const USER_POOL: &str = "/.pontoon/userpool";
/// Below this a strong op has what `sandbox-paths` ask for, each at its target.
pub const SANDBOX_PATHS: &str = "/.pontoon/sandbox";
/// Where an op that copies a part of the store puts it.
pub const EXPORT: &str = "/.pontoon/export";
/// Where an effect's secrets are.
pub const SECRETS: &str = "/run/secrets";

/// What an op tells the agent it wakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The subcommand.
    pub task: Task,
    /// Which op this is.
    pub nonce: String,
    /// Where the store is and who makes the sandbox.
    pub shape: Shape,
    /// The value of [`USERS`], if any.
    pub users: Option<String>,
    /// The environment of the image at the op's root.
    pub image: Vec<(String, String)>,
}

/// The agent's subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Serve the run: roots, queries, imports, slots.
    Store,
    /// Build.
    Build,
    /// Run an effect.
    Effect,
    /// Tell what the op sees.
    Probe,
}

/// Who makes the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The agent.
    Strong,
    /// The op.
    Plain,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strong => "strong",
            Self::Plain => "plain",
        })
    }
}

impl Shape {
    /// Reads the op's variable.
    pub fn read(text: &str) -> Option<Self> {
        [Self::Strong, Self::Plain]
            .into_iter()
            .find(|shape| shape.to_string() == text)
    }

    /// Where an op of this shape has the whole store.
    pub fn nix_dir(self) -> &'static Path {
        Path::new(match self {
            Self::Strong => "/nix",
            Self::Plain => PLAIN_STORE,
        })
    }
}

impl Orders {
    /// Reads the arguments after the program's name, and the environment, of an op.
    pub fn read(arguments: &[String], environment: &[(String, String)]) -> Option<Self> {
        let variable = |name: &str| {
            environment
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, v)| v.clone())
        };
        let task = match arguments.first()?.as_str() {
            "store" => Task::Store,
            "build" => Task::Build,
            "effect" => Task::Effect,
            "probe" => Task::Probe,
            _ => return None,
        };
        let shape = Shape::read(&variable(SHAPE)?)?;
        Some(Self {
            task,
            nonce: variable(NONCE)?,
            shape,
            users: variable(USERS),
            image: variables_of(variable(IMAGE).as_deref().unwrap_or("[]"))?,
        })
    }
}

fn variables_of(variables: &str) -> Option<Vec<(String, String)>> {
    let variables: Vec<String> = serde_json::from_str(variables).ok()?;
    let pairs = variables.iter().filter_map(|text| text.split_once('='));
    Some(
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}
