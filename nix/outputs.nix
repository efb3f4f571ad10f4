# Many outputs of a flake at once: what `target` (target.nix) says of each, `null` of those that
# are not here.
#
# A path is walked as `nix eval FLAKE#PATH` does it: nothing is called, a number is a name, and what
# is no set on the way is an error.
target: paths: value:
let
  walk =
    value: path:
    if path == [ ] then
      target value
    else if !(builtins.isAttrs value) then
      throw "a set is expected"
    else if builtins.hasAttr (builtins.head path) value then
      walk value.${builtins.head path} (builtins.tail path)
    else
      null;
in
map (walk value) paths
