# A derivation as data, without building it. Reading `drvPath` writes the `.drv` file.
#
# `wanted` is what is realised where the user names no outputs: the one selected
# (`hello.dev`), else what its `meta` says, else `out`, else the first.
derivation:
let
  outputs = derivation.outputs or [ "out" ];
  meta = derivation.meta or { };
in
{
  drvPath = builtins.unsafeDiscardStringContext derivation.drvPath;
  name = derivation.name or "";
  system = derivation.system or "";
  inherit outputs;
  wanted =
    if derivation.outputSpecified or false then
      [ derivation.outputName ]
    else if meta ? outputsToInstall then
      meta.outputsToInstall
    else if builtins.elem "out" outputs then
      [ "out" ]
    else
      [ (builtins.head outputs) ];
}
