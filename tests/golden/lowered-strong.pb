
•’
§
/nix/pontoon/agent/0123abcd
build
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=strong/:	localhostXÿÿÿÿÿÿÿÿÿ/9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon € 2
pontoon.dev/store=nix
K
I
Gsha256:139375e22f094115f3cb4e3594d66cd8f631c0d7074e4b37ef713c03a49073a7§
Gsha256:139375e22f094115f3cb4e3594d66cd8f631c0d7074e4b37ef713c03a49073a7Û!
llb.customnamebuild hello-1.0*
exec.meta.base*
exec.meta.cdi*
exec.meta.network*
exec.meta.security*
exec.mount.ssh2L
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drvbuild hello-1.0