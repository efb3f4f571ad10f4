# Real packages, compiled from Debian's sources by Debian's compiler, with nothing of the machine's:
#
#   busybox (static) ─ tools ─ each .deb unpacked ─ toolchain ─ compiler ─ sources ─ packages ─ checks
#
# `seed.sh` fetches what it begins with; `seed` is the directory that it prints.
{ seed, system ? "x86_64-linux" }:
let
  # Fixed inputs: their hashes are those that `seed.sh` wrote down.
  hashes = builtins.fromJSON (builtins.readFile (seed + "/seed.json"));
  fetched = file: builtins.path {
    path = seed + "/${file}";
    name = baseNameOf file;
    recursive = false;
    sha256 = hashes.${file};
  };
  matching = pattern: builtins.concatMap
    (file: let found = builtins.match pattern file; in if found == null then [ ] else found)
    (builtins.attrNames hashes);

  busybox = builtins.path { path = seed + "/busybox"; name = "busybox"; };
  early = name: script: attributes: derivation (attributes // {
    inherit name system;
    builder = "${busybox}/bin/busybox";
    args = [ "sh" "-euc" script ];
  });

  # Every program of busybox under its own name.
  tools = early "tools" ''
    box=${busybox}/bin/busybox
    $box mkdir -p $out/bin
    for name in $($box --list); do $box ln -s $box $out/bin/$name; done
  '' { };

  unpack = name: early "deb-${name}" ''
    mkdir $out
    dpkg-deb -x $deb $out
    cd $out
    rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/zoneinfo
  '' { PATH = "${tools}/bin"; deb = fetched "debs/${name}.deb"; };

  # All packages in one tree. Programs name their loader and libraries in it; links that were
  # absolute lead into it.
  toolchain = early "toolchain" ''
    mkdir -p $out/usr/bin $out/usr/lib $out/usr/lib64
    for name in bin lib lib64; do ln -s usr/$name $out/$name; done
    for deb in $debs; do
      for name in bin lib lib64 usr; do
        [ ! -d $deb/$name ] || cp -R $deb/$name/. $out/$name/
      done
      find $out -type d ! -perm -200 -exec chmod u+w {} +
    done
    find $out -type l | while read -r link; do
      target=$(readlink $link)
      case $target in /*) ln -sfn $out$target $link ;; esac
    done

    loader=$out/lib64/ld-linux-x86-64.so.2
    libraries=$out/lib/x86_64-linux-gnu
    # Debian's postinst scripts make these.
    ln -s bash $out/bin/sh
    ln -s gawk $out/bin/awk
    cp $out/bin/patchelf .
    patchelf() { $loader --library-path $libraries ./patchelf "$@"; }
    find $out/usr/bin $out/usr/lib/gcc -type f -perm -100 | while read -r file; do
      ! patchelf --print-interpreter $file > /dev/null 2>&1 || {
        chmod u+w $file
        patchelf --set-interpreter $loader --force-rpath --set-rpath $libraries $file
      }
    done
  '' { PATH = "${tools}/bin"; debs = map unpack (matching "debs/(.*)[.]deb"); };

  # What it links runs in a sandbox, too: with the loader and the C library of the toolchain.
  compiler = early "compiler" ''
    mkdir -p $out/bin
    cat > $out/bin/cc <<END
    #!${toolchain}/bin/bash
    exec ${toolchain}/bin/gcc --sysroot=${toolchain} \
      -Wl,-dynamic-linker,${toolchain}/lib64/ld-linux-x86-64.so.2 \
      -Wl,-rpath,${toolchain}/lib/x86_64-linux-gnu "\$@"
    END
    chmod +x $out/bin/cc
    ln -s cc $out/bin/gcc
  '' { PATH = "${tools}/bin"; };

  run = name: script: attributes: derivation ({
    inherit name system;
    builder = "${toolchain}/bin/bash";
    # The shell must outlive the last command: one that closes its standard error before it exits
    # is killed by Nix, which takes that for the end.
    args = [ "-euc" "${script}\nexit 0" ];
    PATH = "${compiler}/bin:${toolchain}/bin";
    CONFIG_SHELL = "${toolchain}/bin/bash";
    SHELL = "${toolchain}/bin/bash";
    MAKEFLAGS = "SHELL=${toolchain}/bin/bash";
    CFLAGS = "-O1";
    LC_ALL = "C";
    SOURCE_DATE_EPOCH = "1";
  } // attributes);

  # A source package with Debian's patches, where it has any.
  source = name:
    let archive = kind: fetched (builtins.head (matching "(sources/${name}[.]${kind}[.]tar[.].*)"));
    in run "source-${name}" ''
      mkdir $out
      tar -x --strip-components=1 -C $out -f $orig
      tar -x -f $debian
      cd $out
      series=$NIX_BUILD_TOP/debian/patches/series
      [ ! -e $series ] || sed 's/#.*//' $series | while read -r file; do
        [ -z "$file" ] || patch -p1 < ''${series%/*}/$file
      done
      find . -type f -perm -100 -exec sed -i "1s|^#! */bin/sh|#!$SHELL|" {} +
    '' { orig = archive "orig"; debian = archive "debian"; };

  package = name: script: attributes: run name ''
    cp -R --preserve=timestamps ${source name} source
    chmod -R u+w source
    cd source
    ${script}
  '' attributes;

  zlib = package "zlib" ''
    ./configure --prefix=$out
    make install
  '' { };

  hello = package "hello" ''
    ./configure --prefix=$out --disable-nls --disable-dependency-tracking
    make
    make install
  '' { };

  # Debian's makefile wants libtool; the compiler does as well.
  lua = package "lua5.4" ''
    cd src
    echo '#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"' > lua5.4-deb-multiarch.h
    for file in l*.c; do cc -O1 -DLUA_USE_POSIX -c $file; done
    mkdir -p $out/bin $out/lib $out/include
    ar rc $out/lib/liblua.a $(ls *.o | grep -v '^luac*[.]o$')
    cc -o $out/bin/lua lua.o $out/lib/liblua.a -lm
    cp lua.h luaconf.h lualib.h lauxlib.h lua5.4-deb-multiarch.h $out/include
  '' { };

  # Its tools write the time into what they make.
  sqlite = package "sqlite3" ''
    sed -i "s/^set today .*/set today $SOURCE_DATE_EPOCH/" tool/*.tcl
    export TCL_LIBRARY=$(echo ${toolchain}/usr/share/tcltk/tcl8.*)
    ./configure --disable-tcl --disable-readline
    make sqlite3.c shell.c
    mkdir -p $out/bin $out/lib $out/include
    cc -O0 -fPIC -shared -o $out/lib/libsqlite3.so sqlite3.c -lm
    cc -O0 -DSQLITE_HAVE_ZLIB -I. -I${zlib}/include -o $out/bin/sqlite3 shell.c \
      -L$out/lib -lsqlite3 -L${zlib}/lib -lz -lm -Wl,-rpath,$out/lib,-rpath,${zlib}/lib
    cp sqlite3.h sqlite3ext.h $out/include
  '' { };

  # Programs of our own that link what was built.
  squeeze = run "squeeze" ''
    mkdir -p $out/bin
    cc -O1 -I${zlib}/include -o $out/bin/squeeze ${./squeeze.c} \
      -L${zlib}/lib -lz -Wl,-rpath,${zlib}/lib
  '' { };
  count = run "count" ''
    mkdir -p $out/bin
    cc -O1 -I${lua}/include -I${sqlite}/include -o $out/bin/count ${./count.c} \
      -L${sqlite}/lib -lsqlite3 ${lua}/lib/liblua.a -lm -Wl,-rpath,${sqlite}/lib
  '' { };

  checks = {
    hello = run "check-hello" "${hello}/bin/hello --greeting='from source' > $out" { };
    squeeze = run "check-squeeze" "echo squeezed and back | ${squeeze}/bin/squeeze > $out" { };
    lua = run "check-lua" ''
      ${lua}/bin/lua -e 'local s = 0; for i = 1, 10 do s = s + i * i end; print(s)' > $out
    '' { };
    sqlite = run "check-sqlite" ''
      echo compressed > file
      ${sqlite}/bin/sqlite3 archive -A -c file
      rm file
      ${sqlite}/bin/sqlite3 archive -A -x file
      ${sqlite}/bin/sqlite3 :memory: "select sum(value) from generate_series(1, 100)" > $out
      cat file >> $out
    '' { };
    count = run "check-count" "${count}/bin/count > $out" { };
  };
in {
  inherit toolchain compiler hello zlib lua sqlite squeeze count checks;
  all = run "all" ''
    mkdir -p $out/bin
    for package in $packages; do ln -s $package/bin/* $out/bin/; done
    cat $checks > $out/checks
  '' {
    packages = [ hello lua sqlite squeeze count ];
    checks = builtins.attrValues checks;
  };
}
