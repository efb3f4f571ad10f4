# What an installable stands for: `{ target = …; }`, or `{ found = "a set"; names = […]; }` where
# it is no derivation, so that the message can name what is there.
#
# `call` calls a function (call.nix), `describe` makes data of a derivation (describe.nix).
call: describe: value:
let
  result = call value;
in
if builtins.isAttrs result && (result.type or null) == "derivation" then
  { target = describe result; }
else
  {
    found = builtins.typeOf result;
    names = if builtins.isAttrs result then builtins.attrNames result else [ ];
  }
