
ùö
h
/.pontoon/agent
effect
deploy PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix.ÿÿÿÿÿÿÿÿÿ/nix ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix)ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€ 'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€ +ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€€
K
I
Gsha256:6df51a4c9d75fb484678d295608c5935784142386f3cf39553931c7d334c6d77³
Gsha256:6df51a4c9d75fb484678d295608c5935784142386f3cf39553931c7d334c6d77ç
llb.customnameeffect deploy*
exec.meta.base*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh*
exec.mount.tmpfs*
exec.mount.tmpfs.size2
effect:deployeffect deploy