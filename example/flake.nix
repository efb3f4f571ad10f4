# A small but whole project: its tools, a library, a program, a test, a site, and a release that
# publishes the site. It has no inputs: everything it builds with lies in `seed/`, which
# `scripts/seed.sh` fills from packages installed on this machine (pure evaluation sees nothing
# outside the flake, and binaries are not committed).
{
  description = "A C program, its test and its site, released by Pontoon";

  outputs = _:
    let
      system = "x86_64-linux";

      # Each becomes a store path of its own, so that a change in one rebuilds only what uses it.
      source = name: path: builtins.path { inherit name path; };
      seedShell = source "seed-shell" ./seed/shell;
      seedCompiler = source "seed-compiler" ./seed/compiler;

      # A derivation whose builder is a shell script. The sandbox holds no `/bin/sh`: the builder is
      # the seed's own shell, and `PATH` starts with what the derivation asks for.
      script = { name, tools ? [ shell ], text, ... }@args:
        derivation (removeAttrs args [ "text" "tools" ] // {
          inherit system;
          builder = "${seedShell}/bin/busybox";
          args = [ "sh" "-euc" text ];
          PATH = builtins.concatStringsSep ":" (map (tool: "${tool}/bin") tools);
        });

      shell = script {
        name = "shell";
        tools = [ seedShell ];
        text = ''
          busybox mkdir -p $out/bin
          busybox cp ${seedShell}/bin/busybox $out/bin/busybox
          for applet in $(busybox --list); do
            [ $applet = busybox ] || busybox ln -s busybox $out/bin/$applet
          done
        '';
      };

      # A C compiler that writes static programs: it needs its own loader only to run itself.
      compiler = script {
        name = "compiler";
        text = ''
          mkdir -p $out/bin
          cp -R ${seedCompiler}/lib ${seedCompiler}/libc ${seedCompiler}/libexec $out/
          cat > $out/bin/tcc <<EOF
          #!${shell}/bin/sh
          exec $out/lib/ld-linux-x86-64.so.2 --library-path $out/lib $out/libexec/tcc "\$@"
          EOF
          cat > $out/bin/cc <<EOF
          #!${shell}/bin/sh
          exec $out/bin/tcc -B$out/lib/tcc -nostdinc -I$out/libc/include -I$out/lib/tcc/include "\$@"
          EOF
          cat > $out/bin/cc-static <<EOF
          #!${shell}/bin/sh
          # cc-static PROGRAM OBJECT…: a static program.
          program=\$1; shift
          exec $out/bin/tcc -B$out/lib/tcc -static -nostdlib -o \$program $out/libc/lib/crt1.o $out/libc/lib/crti.o \
            "\$@" $out/libc/lib/libc.a $out/lib/tcc/libtcc1.a $out/libc/lib/crtn.o
          EOF
          chmod +x $out/bin/*
        '';
      };

      greet = script {
        name = "greet";
        tools = [ shell compiler ];
        src = source "greet-source" ./src/greet;
        text = ''
          mkdir -p $out/include $out/lib
          cc -c $src/greet.c -o greet.o
          tcc -ar rcs $out/lib/libgreet.a greet.o
          cp $src/greet.h $out/include/
        '';
      };

      hello = script {
        name = "hello";
        tools = [ shell compiler ];
        src = source "hello-source" ./src/hello;
        text = ''
          mkdir -p $out/bin
          cc -I${greet}/include -c $src/hello.c -o hello.o
          cc-static $out/bin/hello hello.o ${greet}/lib/libgreet.a
        '';
      };

      unit = script {
        name = "unit";
        text = ''
          [ "$(${hello}/bin/hello)" = "Hello, world!" ]
          [ "$(${hello}/bin/hello bridge)" = "Hello, bridge!" ]
          echo "2 greetings are right" | tee $out
        '';
      };

      site = script {
        name = "site";
        text = ''
          mkdir -p $out
          {
            echo "<!doctype html><title>hello</title>"
            echo "<p>$(${hello}/bin/hello reader)</p>"
          } > $out/index.html
        '';
      };
    in
    {
      packages.${system} = {
        inherit shell compiler greet hello site;
        default = hello;
      };

      checks.${system} = { inherit unit; };

      # A function of facts: `rev` comes from git where there is one, `receiver` from
      # `--fact receiver=URL`.
      pipelines.${system}.release = { rev ? "no-revision", receiver ? "http://127.0.0.1:8765/cgi-bin/publish", ... }: {
        builds = { inherit hello site; tests = unit; };
        effects.publish = {
          command = [ "${shell}/bin/sh" "-eu" "${source "publish.sh" ./publish.sh}" "${site}/index.html" ];
          tools = [ shell ];
          environment = { RECEIVER = receiver; REVISION = rev; };
          # The value of the variable, as a file whose path the command finds in `TOKEN_FILE`.
          secrets.TOKEN.env = "DEMO_TOKEN";
          timeout = "1m";
        };
      };
    };
}
