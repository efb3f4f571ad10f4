
þû
±
/.pontoon/agent
agent
build
9/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drvPONTOON_STORE_ID=5f0c.PONTOON_NONCE=00000000000000000000000000000000/:	localhostXÿÿÿÿÿÿÿÿÿ/Uÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-store;ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-storeMÿÿÿÿÿÿÿÿÿpontoon/slots/3/store
/nix/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-store“ÿÿÿÿÿÿÿÿÿ/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.54/nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5 ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-store)ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€*ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€ :ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
tunnel-7 €
K
I
Gsha256:e0f5c88ec324faa4c5d78dbef7595a4446fe861af0b531e3bdd77c5dec821dfb·
Gsha256:e0f5c88ec324faa4c5d78dbef7595a4446fe861af0b531e3bdd77c5dec821dfbë
llb.customnamehello*
exec.meta.base*
exec.meta.network*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh*
exec.mount.tmpfs*
exec.mount.tmpfs.size2

node-hellohello