# A pipeline as data: builds as derivations, effects as strings with what those strings refer to.
#
# describe: a derivation as data (describe.nix)
# name:     which pipeline is wanted
# facts:    what is known about the commit, by name
# pipelines: the attribute set the user wrote
#
# What is wrong comes back as `errors`, each with the place and a message, not as an evaluation
# error: only the user's own code can throw. Nothing is forced behind the first wrong thing.
# Unknown names, cycles and durations are not looked at here: whoever reads the data does that.
describe:
{ name, facts }:
pipelines:
let
  inherit (builtins)
    attrNames attrValues concatMap concatStringsSep elem filter functionArgs
    getContext intersectAttrs isAttrs isFunction isInt isList isPath isString
    mapAttrs match replaceStrings toXML typeOf unsafeDiscardStringContext;

  fault = at: message: [ { inherit at message; } ];
  when = condition: faults: if condition then faults else [ ];
  isDerivation = value: isAttrs value && (value.type or null) == "derivation";
  kind = value:
    let type = typeOf value; in
    if isDerivation value then "a derivation"
    else { set = "a set"; list = "a list"; lambda = "a function"; string = "a string";
           int = "an integer"; bool = "a boolean"; float = "a float"; path = "a path"; }.${type} or type;
  mustBe = at: what: value: fault at "must be ${what}, but is ${kind value}";

  # Strings, and what becomes one with its context: a package, a file.
  isText = value:
    isString value || isPath value || isInt value
    || (isAttrs value && (value ? outPath || value ? __toString));
  text = value: if isInt value then toString value else "${value}";
  plain = value: unsafeDiscardStringContext (text value);

  index = list: builtins.genList (i: { inherit i; value = builtins.elemAt list i; }) (builtins.length list);
  texts = at: value:
    if !isList value then mustBe at "a list" value
    else concatMap (e: when (!isText e.value) (mustBe "${at}[${toString e.i}]" "a string" e.value)) (index value);
  names = at: value:
    if !isList value then mustBe at "a list of names" value
    else concatMap (e: when (!isString e.value) (mustBe "${at}[${toString e.i}]" "a name" e.value)) (index value);
  set = at: check: value:
    if !isAttrs value || isDerivation value then mustBe at "a set" value
    else concatMap (key: check "${at}.${key}" value.${key}) (attrNames value);
  fields = at: what: known: value:
    concatMap
      (key: when (!(elem key known))
        (fault "${at}${key}" "is not a field of ${what}; the fields are ${concatStringsSep ", " known}"))
      (attrNames value);

  # The function of the facts, if it is one. Only what it asks for is passed; all if it ends in
  # `...` or takes one name, which nothing but the XML form of a function tells.
  raw = pipelines.${name};
  function = if isAttrs raw && raw ? __functor then raw.__functor raw else raw;
  isCalled = isFunction function;
  asked = functionArgs function;
  shape = replaceStrings [ "\n" ] [ " " ] (toXML function);
  takesAll = match ".*<attrspat[^>]*ellipsis=.*" shape != null || match ".*<attrspat.*" shape == null;
  missing = when isCalled (filter (fact: !asked.${fact} && !(facts ? ${fact})) (attrNames asked));
  passed = if !isCalled then { } else if takesAll then facts else intersectAttrs asked facts;
  pipeline = if isCalled then function passed else raw;

  builds = pipeline.builds or { };
  effects = pipeline.effects or { };

  checkBuild = at: value: when (!isDerivation value) (mustBe at "a derivation" value);
  checkSecret = at: value:
    if !isAttrs value || isDerivation value then mustBe at "a set" value
    else
      fields "${at}." "a secret" [ "env" "file" ] value
      ++ when (value ? env && value ? file) (fault at "has both `env` and `file`: one of them, or neither")
      ++ when (value ? env && !isString value.env) (mustBe "${at}.env" "the name of a variable" value.env)
      ++ when (value ? file) (
        if isPath value.file then
          fault "${at}.file" "is a path, and Nix would copy the secret into the store: write it as a string"
        else if !isString value.file then mustBe "${at}.file" "a string" value.file
        else when (getContext value.file != { }) (fault "${at}.file" "refers to the store, where everybody can read it")
      );
  # An image of a registry is named, one in the store is where it lies.
  isReference = value: isString value && getContext value == { };
  checkImage = at: value:
    if isReference value then
      when (match "[./].*" value != null)
        (fault at "is a path outside the store: write it as a Nix path, not as a string")
    else inStore at "the name of an image, or an OCI layout in the store" value;
  inStore = at: what: value:
    if !isText value || isInt value then mustBe at what value
    else when (getContext (text value) == { })
      (fault at "is a path outside the store: write it as a Nix path, not as a string");
  isBuild = value: isAttrs value && !(isText value);
  checkDockerfile = at: value:
    if !isBuild value then inStore at "a directory with a Dockerfile, or a set" value
    else
      fields "${at}." "a dockerfile" [ "context" "file" "target" "args" ] value
      ++ (if value ? context then inStore "${at}.context" "a directory" value.context
          else fault "${at}.context" "is missing")
      ++ when (value ? file) (word "${at}.file" value.file)
      ++ when (value ? target) (word "${at}.target" value.target)
      ++ set "${at}.args" word (value.args or { });
  # What a daemon is told as it is: nothing of the store is in sight while it builds an image.
  word = at: value:
    if !isString value then mustBe at "a string" value
    else when (getContext value != { })
      (fault at "refers to the store, which the build of a Dockerfile does not see: copy it into the context");
  known = [
    "command" "tools" "environment" "after" "gate" "secrets" "timeout" "image" "dockerfile" "store"
  ];
  checkEffect = at: effect:
    if isDerivation effect then fault at "is a derivation: name it in `builds`"
    else if !isAttrs effect then mustBe at "a set" effect
    else
      fields "${at}." "an effect" known effect
      ++ (if effect ? command then texts "${at}.command" effect.command
          else fault "${at}.command" "is missing")
      ++ texts "${at}.tools" (effect.tools or [ ])
      ++ set "${at}.environment" (at: value: when (!isText value) (mustBe at "a string" value)) (effect.environment or { })
      ++ names "${at}.after" (effect.after or [ ])
      ++ when (effect ? gate) (names "${at}.gate" effect.gate)
      ++ set "${at}.secrets" checkSecret (effect.secrets or { })
      ++ when (effect ? timeout && !isInt effect.timeout && !isString effect.timeout)
        (mustBe "${at}.timeout" "seconds, or a string such as \"10m\"" effect.timeout)
      ++ when (effect ? image) (checkImage "${at}.image" effect.image)
      ++ when (effect ? dockerfile) (checkDockerfile "${at}.dockerfile" effect.dockerfile)
      ++ when (effect ? store && !isString effect.store) (mustBe "${at}.store" "\"whole\"" effect.store);

  errors =
    if missing != [ ] then [ ]
    else if !isAttrs pipeline || isDerivation pipeline then mustBe "" "a set" pipeline
    else
      fields "" "a pipeline" [ "builds" "effects" ] pipeline
      ++ set "builds" checkBuild builds
      ++ set "effects" checkEffect effects;

  normalEffect = effect:
    let
      tools = effect.tools or [ ];
      environment = effect.environment or { };
      image = effect.image or null;
      build = effect.dockerfile or null;
      place = if isBuild build then build.context else build;
      roots = filter (root: root != null) [ image place ];
      # One string holds the context of all.
      context = getContext (concatStringsSep "" (map text (effect.command ++ tools ++ attrValues environment ++ roots)));
      derivations = filter (path: context.${path} ? outputs || context.${path} ? allOutputs) (attrNames context);
    in
    {
      command = map plain effect.command;
      tools = map plain tools;
      environment = mapAttrs (_: plain) environment;
      after = map unsafeDiscardStringContext (effect.after or [ ]);
      gate = if effect ? gate then map unsafeDiscardStringContext effect.gate else null;
      secrets = mapAttrs (_: secret: { env = null; file = null; } // mapAttrs (_: unsafeDiscardStringContext) secret) (effect.secrets or { });
      timeout =
        if !(effect ? timeout) then null
        else if isInt effect.timeout then { seconds = effect.timeout; }
        else { text = unsafeDiscardStringContext effect.timeout; };
      image =
        if image == null then null
        else if isReference image then { reference = image; }
        else { layout = plain image; };
      dockerfile =
        if build == null then null
        else {
          context = plain place;
          file = build.file or null;
          target = build.target or null;
          args = build.args or { };
        };
      store = if effect ? store then unsafeDiscardStringContext effect.store else null;
      needs = map (drv: {
        inherit drv;
        outputs = context.${drv}.outputs or [ ];
        all = context.${drv}.allOutputs or false;
      }) derivations;
      # The text of a derivation (`drvPath`) is itself read by who names it.
      sources = filter (path: context.${path}.path or false || context.${path} ? allOutputs) (attrNames context);
    };

  sound = errors == [ ] && missing == [ ];
in
if !isAttrs pipelines then
  { version = 1; names = [ ]; found = false; }
else if !(pipelines ? ${name}) then
  { version = 1; names = attrNames pipelines; found = false; }
else
  {
    version = 1;
    found = true;
    names = attrNames pipelines;
    inherit errors missing;
    facts = attrNames passed;
    builds = if sound then mapAttrs (_: describe) builds else { };
    effects = if sound then mapAttrs (_: normalEffect) effects else { };
  }
