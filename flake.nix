# Pontoon as a flake. It has no inputs: there is nothing to lock, and it evaluates offline. So it
# has no Rust compiler either; `make build` makes the executable.
{
  description = "Nix derivations as BuildKit operations over one shared store, then effects";

  outputs = _:
    let
      system = "x86_64-linux";
      normalise = import ./nix/normalise.nix (import ./nix/describe.nix);
    in
    {
      # What `pontoon` makes of a set of pipelines: to look at, and to test one without running it.
      # normalise { name = "release"; facts = { rev = "…"; }; } self.pipelines.x86_64-linux
      lib = { inherit normalise; };

      templates.default = {
        # A string, for Nix 2.8 looks for the path in the store alone.
        path = "${./example}";
        description = "A C program, its test and its site, released by Pontoon";
      };

      # True or false by evaluation alone: `nix flake check --no-build`.
      checks.${system}.normalise =
        let
          program = derivation { name = "program"; inherit system; builder = "/bin/sh"; };
          pipelines.release = { rev, ... }: {
            builds = { inherit program; };
            effects.publish.command = [ "${program}" rev ];
          };
          data = normalise { name = "release"; facts = { rev = "abc"; }; } pipelines;
          text = builtins.toJSON data;
        in
        if data.errors or [ ] == [ ] && builtins.match ".*\"abc\".*" text != null
        then program
        else throw "the normaliser does not accept a plain pipeline: ${text}";
    };
}
