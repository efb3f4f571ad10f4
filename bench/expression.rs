//! Expressions of derivations that do next to nothing.

use std::path::Path;

/// How the derivations depend on each other.
#[derive(Clone, Copy)]
pub enum Shape {
    /// All at once, and one that needs them all.
    Wide,
    /// Each needs the one before.
    Chain,
}

impl Shape {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Chain => "chain",
        }
    }

    /// An expression of `size` derivations, whose paths no other `tag` has.
    pub fn expression(self, size: usize, tag: &str) -> String {
        let rest = size - 1;
        let wanted = match self {
            Self::Wide => {
                format!("step \"all\" (builtins.genList (n: step (toString n) [ ]) {rest})")
            }
            Self::Chain => format!(
                "builtins.foldl' (before: n: step (toString n) [ before ]) (step \"first\" [ ]) \
                 (builtins.genList (n: n) {rest})"
            ),
        };
        format!(
            "let step = name: needs: derivation {{\n  name = \"{shape}-{tag}-${{name}}\";\n  \
             inherit needs;\n  system = \"x86_64-linux\";\n  builder = \"/bin/sh\";\n  \
             args = [ \"-c\" \"echo $needs > $out\" ];\n}};\nin {wanted}\n",
            shape = self.name()
        )
    }
}

/// The same with a shell that is an input: a daemon sees nothing of the machine.
pub fn with_tools(expression: &str, tools: &Path) -> String {
    let shell = format!("\"${{{}}}/bin/sh\"", tools.display());
    expression.replace("\"/bin/sh\"", &shell)
}
