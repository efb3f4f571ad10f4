//! What was typed, as data: the groups of options that commands share.
//!
//! Doc comments here are the help. What an option means is decided in [`super::settings`] and in
//! the commands; this file only knows its form.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, ValueEnum, ValueHint};

use super::commands::Command;
use super::settings::SandboxPath;

/// Build Nix derivations over one shared store, then run effects
///
/// Evaluation is the installed nix's own. What is not in the store yet is built, in a sandbox, by
/// an engine; effects (deployments) run after every build is good.
#[derive(Debug, Parser)]
#[command(
    name = "pontoon",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 good, 1 error, 2 usage, 3 evaluation failed, 4 no usable nix, \
                  5 plan refused, 6 store unusable, 7 engine unavailable, 20 an effect failed, \
                  21 an effect's outcome is unknown, 100 to 103 builds failed as Nix has it"
)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// The definition of what people type: without the commands that Pontoon starts by itself.
    pub fn shown() -> clap::Command {
        let whole = Self::command();
        let commands = whole.get_subcommands();
        let shown = commands.filter(|command| !command.is_hide_set()).cloned();
        let about = whole.get_about().cloned().unwrap_or_default();
        let long_about = whole.get_long_about().cloned().unwrap_or_default();
        let after_help = whole.get_after_help().cloned().unwrap_or_default();
        clap::Command::new("pontoon")
            .version(env!("CARGO_PKG_VERSION"))
            .about(about)
            .long_about(long_about)
            .after_help(after_help)
            .subcommand_required(true)
            .subcommands(shown)
    }
}

/// What is to be evaluated.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to evaluate")]
pub struct Evaluation {
    /// Evaluate this Nix file (as `nix-build` does) instead of a flake
    #[arg(short, long, value_name = "FILE", conflicts_with = "expr", value_hint = ValueHint::AnyPath)]
    pub file: Option<String>,

    /// Evaluate this Nix expression instead of a flake
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub expr: Option<String>,

    /// Take this attribute of the file or expression; more than once for several
    #[arg(short = 'A', long = "attr", value_name = "ATTR")]
    pub attributes: Vec<String>,

    /// Call the file or expression with NAME set to the Nix expression EXPR
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"], allow_hyphen_values = true)]
    pub arg: Vec<String>,

    /// Call the file or expression with NAME set to the string TEXT
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"], allow_hyphen_values = true)]
    pub argstr: Vec<String>,
}

/// How `nix` is called.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How to evaluate")]
pub struct NixOptions {
    /// Evaluate for this system instead of this machine's
    #[arg(long, value_name = "SYSTEM")]
    pub system: Option<String>,

    /// Pass a setting on to nix
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"], allow_hyphen_values = true)]
    pub option: Vec<String>,
}

/// Which stores.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where")]
pub struct Stores {
    /// Root directory of the store to build in: DIR/nix/store is created if need be
    ///
    /// Else `PONTOON_STORE`; else /nix where /nix/store exists and is writable; else one per user,
    /// below `$XDG_STATE_HOME/pontoon/store`.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub store: Option<String>,

    /// Root directory of the store that holds the .drv files, if it is another one
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub eval_store: Option<String>,
}

/// Which engine.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where")]
pub struct Engine {
    /// What runs the builds: `embedded` (this machine), `buildkit` or `docker` (a daemon)
    ///
    /// Else `PONTOON_ENGINE`; else `buildkit` where `BUILDKIT_HOST` is set. The daemon is the one
    /// `BUILDKIT_HOST` names (`unix:///PATH` or `tcp://HOST:PORT`), else the one at
    /// `unix:///run/buildkit/buildkitd.sock`; with `docker` the one `DOCKER_HOST` names, else the
    /// one at `unix:///var/run/docker.sock`. Its store is its own: `--store` then only
    /// says where nix evaluates.
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,

    /// How the engine isolates
    ///
    /// Else `strong` embedded. A daemon has `strong` ops where it allows them, which takes a store
    /// device and `security.insecure`, else `plain` ones.
    #[arg(long, value_enum, hide_short_help = true)]
    pub shape: Option<Shape>,
}

/// The two shapes of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// A sandbox of the agent's own for every derivation
    Strong,
    /// The engine's container is the sandbox
    Plain,
}

/// How to build.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How to build")]
pub struct Building {
    /// How many builds run at once [default: the number of processors]
    #[arg(short = 'j', long, value_name = "N|auto", value_parser = jobs)]
    pub max_jobs: Option<Jobs>,

    /// How many processors one build may use (`NIX_BUILD_CORES`); 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cores: u32,

    /// Go on with what does not need a failed build (this is the default)
    #[arg(short, long, conflicts_with = "fail_fast")]
    pub keep_going: bool,

    /// Stop everything at the first failure
    #[arg(long)]
    pub fail_fast: bool,

    /// End a build or effect that runs longer than this; 0 means no limit
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub timeout: Duration,

    /// End a build or effect that writes nothing for this long; 0 means no limit
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub max_silent_time: Duration,

    /// Give up on a lock of the store that another program holds for longer than this; 0 means never
    ///
    /// After two seconds it is said which lock it is, and who holds it.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub lock_timeout: Duration,

    /// Make these paths of the machine visible to builders: `TARGET[=SOURCE][?]`, separated by spaces
    ///
    /// With `?` a path may be missing. More than once for several; "" for none.
    /// Else what the installed nix is set to.
    #[arg(long, value_name = "PATHS", value_parser = SandboxPath::parse_list)]
    pub sandbox_paths: Vec<SandboxPaths>,
}

/// One `--sandbox-paths`.
pub type SandboxPaths = std::sync::Arc<[SandboxPath]>;

/// `-j`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jobs {
    /// As many as there are processors.
    Auto,
    /// This many.
    Number(std::num::NonZeroUsize),
}

/// What to show.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to show")]
pub struct Report {
    /// Show every line that builders and effects write
    #[arg(short = 'L', long, conflicts_with = "quiet")]
    pub print_build_logs: bool,

    /// Show failures and warnings only
    #[arg(short, long)]
    pub quiet: bool,

    /// Write events to stdout, one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// What to do with outputs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to do with outputs")]
pub struct Links {
    /// Name of the links to the outputs: PATH, PATH-dev, PATH-1, …
    #[arg(
        short, long, value_name = "PATH", default_value = "result", conflicts_with = "no_link",
        value_hint = ValueHint::AnyPath
    )]
    pub out_link: PathBuf,

    /// Make no links
    #[arg(long)]
    pub no_link: bool,

    /// Write the outputs' paths to stdout
    #[arg(long, conflicts_with = "json")]
    pub print_out_paths: bool,
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The argument of the pipeline's function.
    pub name: String,
    /// Its value, a string.
    pub value: String,
}

/// Parses `NAME=VALUE`; the value may hold anything.
pub fn fact(text: &str) -> Result<Fact, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Fact {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// Pairs the values of an option that takes two.
pub fn pairs(values: &[String]) -> Vec<(String, String)> {
    values
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn jobs(text: &str) -> Result<Jobs, String> {
    if text == "auto" {
        return Ok(Jobs::Auto);
    }
    text.parse()
        .map(Jobs::Number)
        .map_err(|_| "write a number from 1, or `auto`".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "write whole seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn takes_options_as_nix_does() {
        let Command::Build(build) = parse(
            "pontoon build -f ci.nix -A a -A b --arg n -1 --argstr s x=y --option cores 3 -j auto \
             --no-link --sandbox-paths /bin=/b? --timeout 5",
        )
        .unwrap() else {
            panic!("not a build")
        };
        assert_eq!(build.evaluation.attributes, ["a", "b"]);
        assert_eq!(
            pairs(&build.evaluation.arg),
            [("n".to_owned(), "-1".to_owned())]
        );
        assert_eq!(
            pairs(&build.evaluation.argstr),
            [("s".to_owned(), "x=y".to_owned())]
        );
        assert_eq!(
            pairs(&build.nix.option),
            [("cores".to_owned(), "3".to_owned())]
        );
        assert_eq!(build.building.max_jobs, Some(Jobs::Auto));
        assert_eq!(build.building.timeout, Duration::from_secs(5));
        assert!(build.building.sandbox_paths[0][0].optional);
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for line in [
            "pontoon",
            "pontoon build -f a --expr b",
            "pontoon build -o a --no-link",
            "pontoon build --keep-going --fail-fast",
            "pontoon build --print-out-paths --json",
            "pontoon build -q -L",
            "pontoon build -j 0",
            "pontoon build --arg one",
            "pontoon build --sandbox-paths bin",
            "pontoon run --format dot",
            "pontoon run --fact name",
            "pontoon exec",
            "pontoon log a b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_fact_may_hold_anything() {
        let fact = fact("branch=${abort\"x\"}=1").unwrap();
        assert_eq!(
            (fact.name.as_str(), fact.value.as_str()),
            ("branch", "${abort\"x\"}=1")
        );
    }
}
