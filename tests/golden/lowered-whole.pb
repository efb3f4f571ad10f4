
ÉÆ
h
/.pontoon/agent
effect
deploy PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix.ÿÿÿÿÿÿÿÿÿ/nix ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix)ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€ 'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€ +ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€€Nÿÿÿÿÿÿÿÿÿ/run/secrets/TOKEN ÿÿÿÿÿÿÿÿÿ(0ª
0123456789abcdef-1/TOKEN ¤
K
I
Gsha256:024eab5f0a9c62312bfdab44fb5a939334ce6edd316e27b6199b99b1ec955cc8Ê
Gsha256:024eab5f0a9c62312bfdab44fb5a939334ce6edd316e27b6199b99b1ec955cc8þ
llb.customnameeffect deploy*
exec.meta.base*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.secret*
exec.mount.selector*
exec.mount.ssh*
exec.mount.tmpfs*
exec.mount.tmpfs.size2
effect:deployeffect deploy