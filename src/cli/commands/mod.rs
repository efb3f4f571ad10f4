//! The commands, one file each: what can be typed, then what it does.

pub mod agent;
pub mod build;
pub mod completions;
pub mod doctor;
pub mod engine;
pub mod exec;
pub mod helper;
pub mod leash;
pub mod log;
pub mod man;
pub mod plan;
pub mod run;
pub mod target;

use clap::Subcommand;

use super::error::Error;
use super::surroundings::Surroundings;

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "a variant's doc would replace the command's help"
)]
pub enum Command {
    Build(build::Args),
    Run(run::Args),
    Plan(plan::Args),
    Log(log::Args),
    Exec(exec::Args),
    Doctor(doctor::Args),
    Engine(engine::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    Agent(agent::Args),
    #[command(hide = true)]
    Helper(helper::Args),
    #[command(hide = true)]
    Leash(leash::Args),
}

impl Command {
    /// Runs the command to its exit code.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        match self {
            Self::Build(args) => args.run(around),
            Self::Run(args) => args.run(around),
            Self::Plan(args) => args.run(around),
            Self::Log(args) => args.run(around),
            Self::Exec(args) => args.run(around),
            Self::Doctor(args) => args.run(around),
            Self::Engine(args) => args.run(around),
            Self::Completions(args) => args.run(),
            Self::Man(args) => args.run(),
            Self::Agent(args) => args.run(),
            Self::Helper(args) => args.run(),
            Self::Leash(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::CommandFactory;

    use crate::cli::args::Arguments;

    /// Set it to write the page anew.
    const UPDATE: &str = "PONTOON_UPDATE_DOCS";

    #[test]
    fn the_whole_help_is_documented() {
        let page = page();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
        if std::env::var_os(UPDATE).is_some() {
            fs_err::write(path, &page).unwrap();
        }
        let documented = fs_err::read_to_string(path).unwrap();
        assert!(
            documented == page,
            "docs/commands.md is not the help: run this with {UPDATE}=1"
        );
    }

    fn page() -> String {
        let mut root = Arguments::command().term_width(100).max_term_width(100);
        root.build();
        let mut page = "# Commands\n\nThe help of every command; a test compares. \
                        Exit codes: [exit-codes.md](exit-codes.md). \
                        Events: [json-events.md](json-events.md).\n"
            .to_owned();
        section(&mut page, "pontoon", &mut root.clone());
        for command in root
            .get_subcommands_mut()
            .filter(|command| !command.is_hide_set())
        {
            let name = format!("pontoon {}", command.get_name());
            if command.get_name() == "help" {
                continue;
            }
            section(&mut page, &name, command);
            for inner in command.get_subcommands_mut() {
                if inner.get_name() != "help" {
                    section(&mut page, &format!("{name} {}", inner.get_name()), inner);
                }
            }
        }
        page
    }

    fn section(page: &mut String, name: &str, command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(
            page,
            "\n## {name}\n\n```text\n{}\n```\n",
            help.join("\n").trim_end()
        )
        .unwrap();
    }
}
