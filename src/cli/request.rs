//! What is asked of evaluation, in the command line's own words.

/// What is to be evaluated, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where attributes are looked for.
    pub source: Source,
    /// Installables of flakes and `.drv` paths, or attributes of a file or expression; in order,
    /// never empty.
    pub installables: Vec<String>,
    /// `--arg` and `--argstr`, in that order.
    pub arguments: Vec<Argument>,
    /// How.
    pub nix: Nix,
}

/// Which pipeline is to be evaluated, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineRequest {
    /// Where it is looked for.
    pub source: PipelineSource,
    /// The pipeline's name in a flake; the attribute in a file or expression, empty for its value.
    pub name: String,
    /// `--arg` and `--argstr`, in that order.
    pub arguments: Vec<Argument>,
    /// How.
    pub nix: Nix,
}

/// Where a pipeline is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineSource {
    /// A flake, without the name.
    Flake(String),
    /// `-f`.
    File(String),
    /// `--expr`.
    Expression(String),
}

/// How `nix` is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nix {
    /// `--system`.
    pub system: Option<String>,
    /// `--option`.
    pub options: Vec<(String, String)>,
}

/// Where attributes are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Every installable says it itself.
    Flakes,
    /// `-f`.
    File(String),
    /// `--expr`.
    Expression(String),
}

/// An argument of the file or expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A Nix expression.
    Expression {
        /// Its name.
        name: String,
        /// Its text.
        expression: String,
    },
    /// A string.
    Text {
        /// Its name.
        name: String,
        /// Its content.
        text: String,
    },
}
