
¡

/.pontoon/agent
export
;/nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5/deploy PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nixÿÿÿÿÿÿÿÿÿ/.pontoon/export 
Ì
K
Gsha256:e212763ac43636c63e134d0cb2a7ffa6a14a72a7766e83babbc5bc25172a9e63ü
h
/.pontoon/agent
effect
deploy PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostX/ ÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ	/.pontoonSÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nixMÿÿÿÿÿÿÿÿÿ/etc/passwd ÿÿÿÿÿÿÿÿÿ(0ª#
0123456789abcdef-1//etc/passwd ¤Kÿÿÿÿÿÿÿÿÿ
/etc/group ÿÿÿÿÿÿÿÿÿ(0ª"
0123456789abcdef-1//etc/group ¤.ÿÿÿÿÿÿÿÿÿ/nix ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix)ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€ 'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€ +ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€€Nÿÿÿÿÿÿÿÿÿ/run/secrets/TOKEN ÿÿÿÿÿÿÿÿÿ(0ª
0123456789abcdef-1/TOKEN ¤
K
I
Gsha256:61d92685373df72e054ef517d996f922f97fa9fef3da8a5749ed5e488aff0faaß
Gsha256:61d92685373df72e054ef517d996f922f97fa9fef3da8a5749ed5e488aff0faa“
llb.customnameeffect deploy*
exec.meta.base*
exec.mount.bind*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.secret*
exec.mount.selector*
exec.mount.ssh*
exec.mount.tmpfs*
exec.mount.tmpfs.size2
effect:deployeffect deployÿ
Gsha256:e212763ac43636c63e134d0cb2a7ffa6a14a72a7766e83babbc5bc25172a9e63³R
llb.customname@read /nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5/deploy*
exec.meta.base*
exec.meta.network*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh2Q
effect:deploy@read /nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5/deploy