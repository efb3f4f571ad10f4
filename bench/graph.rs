//! Expressions of derivations that do next to nothing.

/// How the derivations depend on each other.
#[derive(Clone, Copy)]
pub enum Shape {
    /// All at once, and one that needs them all.
    Wide,
    /// Each needs the one before.
    Chain,
    /// Layers of 300; each needs five of the layer before, and all need one that fails.
    Layers,
}

impl Shape {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Chain => "chain",
            Self::Layers => "layers",
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
            Self::Layers => layers(size),
        };
        format!(
            "let step = name: needs: derivation {{\n  name = \"{shape}-{tag}-${{name}}\";\n  \
             inherit needs;\n  system = \"x86_64-linux\";\n  builder = \"/bin/sh\";\n  \
             args = [ \"-c\" \"echo $needs > $out\" ];\n}};\nin {wanted}\n",
            shape = self.name()
        )
    }
}

fn layers(size: usize) -> String {
    const WIDTH: usize = 300;
    let count = size - 2;
    format!(
        "let\n  fails = derivation {{ name = \"fails\"; system = \"x86_64-linux\"; \
         builder = \"/bin/sh\"; args = [ \"-c\" \"exit 1\" ]; }};\n  \
         node = n: step (toString n) (if n < {WIDTH} then [ fails ] else map (k: \
         builtins.elemAt nodes (n - n0 n - {WIDTH} + mod (n0 n * 7 + k * 61) {WIDTH})) [ 0 1 2 3 4 ]);\n  \
         mod = a: b: a - b * (a / b);\n  n0 = n: mod n {WIDTH};\n  \
         nodes = builtins.genList node {count};\n\
         in step \"all\" nodes"
    )
}
