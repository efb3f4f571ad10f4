
“
§
/nix/pontoon/agent/0123abcd
build
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=strong/:	localhostXÿÿÿÿÿÿÿÿÿ/9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon € 2
pontoon.dev/store=nix
K
I
Gsha256:34bf28e9960b241869a0b564a008190db953973827d2a4c651016d9bd01b426a
Gsha256:34bf28e9960b241869a0b564a008190db953973827d2a4c651016d9bd01b426aÄ!
llb.customnamebuild hello-1.0*
exec.meta.base*
exec.meta.cdi*
exec.meta.security*
exec.mount.ssh2L
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drvbuild hello-1.0