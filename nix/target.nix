# What an installable stands for: `{ target = …; }`, or `{ found = "a set"; names = […]; }` where
# it is no derivation, so that the message can name what is there.
#
# `arguments` are given to a function as Nix gives `--arg`: those it asks for, all with `...`.
describe: arguments: value:
let
  asked = builtins.functionArgs value;
  open = builtins.match ".*<attrspat[^>]*ellipsis=.*" (flat (builtins.toXML value)) != null;
  flat = builtins.replaceStrings [ "\n" ] [ " " ];
  result =
    if builtins.isFunction value && (asked != { } || open) then
      value (if open then arguments else builtins.intersectAttrs asked arguments)
    else
      value;
in
if builtins.isAttrs result && (result.type or null) == "derivation" then
  { target = describe result; }
else
  {
    found = builtins.typeOf result;
    names = if builtins.isAttrs result then builtins.attrNames result else [ ];
  }
