# Pontoon as a flake. It has no inputs: there is nothing to lock, and it evaluates offline. So it
# has no Rust compiler either; `make build` makes the executable.
{
  description = "Nix derivations as BuildKit operations over one shared store, then effects";

  outputs = _: {
    templates.default = {
      path = "${./example}";
      description = "A C program, its test and its site, released by Pontoon";
    };
  };
}
