# Many attributes of an expression at once: what `target` (target.nix) says of each.
#
# A path is walked as `nix eval --expr E PATH` does it: functions on the way are called (`call`,
# call.nix), the value itself once for all, and a number is an index of a list.
call: target: paths: value:
let
  called =
    value:
    if builtins.isAttrs value && value ? __functor then
      called (value.__functor value)
    else
      call value;
  step = value: name: if builtins.isInt name then builtins.elemAt value name else value.${name};
  root = called value;
  walk =
    path:
    builtins.foldl' (value: step (called value)) (step root (builtins.head path)) (builtins.tail path);
in
map (path: target (walk path)) paths
