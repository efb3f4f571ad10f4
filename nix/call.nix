# Calls a function as Nix does with `--arg`: it gets of `arguments` those it asks for, all with `...`.
# What asks for nothing by name, or is no function, stays as it is.
#
# Only its XML tells `{ }: 1` from `x: 1`, and `{ a, ... }:` from `{ a }:`.
arguments: value:
let
  xml = builtins.toXML value;
  says = text: builtins.replaceStrings [ text ] [ "" ] xml != xml;
in
if !(builtins.isFunction value && says "<attrspat") then
  value
else if says "ellipsis=" then
  value arguments
else
  value (builtins.intersectAttrs (builtins.functionArgs value) arguments)
