//! Random graphs of trivial derivations.

use std::fmt::Write as _;

use super::Seed;

/// An expression: a set of `size` derivations `n0`, `n1`, …, each of which needs some before it.
///
/// Some have two outputs, and a need may be on either. `salt` goes into every name, so that two
/// graphs share no path.
pub(crate) fn graph(seed: &mut Seed, size: usize, salt: &str) -> String {
    let mut text = format!(
        "let\n  node = name: outputs: needs: derivation {{\n    name = \"{salt}-${{name}}\";\n    \
         inherit outputs needs;\n    system = \"x86_64-linux\";\n    builder = \"/bin/sh\";\n    \
         args = [ \"-c\" \"for output in $outputs; do eval path=\\\\$$output; \
         echo $name $needs > $path; done\" ];\n  }};\nin rec {{\n"
    );
    let mut has_two: Vec<bool> = Vec::new();
    for node in 0..size {
        let two = seed.chance(25);
        let outputs = if two {
            "[ \"out\" \"dev\" ]"
        } else {
            "[ \"out\" ]"
        };
        let mut needs = String::new();
        for (before, two) in has_two.iter().enumerate() {
            // About two needs each, whatever the size.
            if seed.below(node) < 2 {
                let output = if *two && seed.chance(50) {
                    "dev"
                } else {
                    "out"
                };
                write!(needs, " n{before}.{output}").expect("a string takes all");
            }
        }
        writeln!(text, "  n{node} = node \"n{node}\" {outputs} [{needs} ];")
            .expect("a string takes all");
        has_two.push(two);
    }
    text + "}\n"
}
