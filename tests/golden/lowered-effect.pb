
š—
h
/.pontoon/agent
effect
deploy PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix)ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€ 'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€ +ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€€‘ÿÿÿÿÿÿÿÿÿ/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.54/nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5 ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix;ÿÿÿÿÿÿÿÿÿ/run/secrets/TOKEN ÿÿÿÿÿÿÿÿÿ(0ª

TOKEN ¤
K
I
Gsha256:893f97559358668fa43106d31f61bfe5b1319ea4ba75489d6d282c1ac6e0ff6cÊ
Gsha256:893f97559358668fa43106d31f61bfe5b1319ea4ba75489d6d282c1ac6e0ff6cþ
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