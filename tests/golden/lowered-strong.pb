
ÜÙ
›
/.pontoon/agent
build
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=strong/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon € 2
pontoon.dev/store=nix
K
I
Gsha256:c06ba62aee8582a7cbe7973753effa3a6a4f80f295da8590aa048a381cd7355eÝ
Gsha256:c06ba62aee8582a7cbe7973753effa3a6a4f80f295da8590aa048a381cd7355e‘!
llb.customnamebuild hello-1.0*
exec.meta.base*
exec.meta.cdi*
exec.meta.security*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh2L
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drvbuild hello-1.0