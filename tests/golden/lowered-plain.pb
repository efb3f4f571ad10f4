
ßÜ
š
/.pontoon/agent
build
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix)ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€ 'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€ +ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€€Kÿÿÿÿÿÿÿÿÿpontoon/slots/3/store
/nix/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix‘ÿÿÿÿÿÿÿÿÿ/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.54/nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5 ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix
K
I
Gsha256:d439edba1ee0aaa71cae581b50060e007618517679792ed4738563f59365d157ú
Gsha256:d439edba1ee0aaa71cae581b50060e007618517679792ed4738563f59365d157®!
llb.customnamebuild hello-1.0*
exec.meta.base*
exec.meta.network*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh*
exec.mount.tmpfs*
exec.mount.tmpfs.size2L
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drvbuild hello-1.0