
¥¢
o
/.pontoon/agent
agent
effect
deploy.PONTOON_NONCE=ffffffffffffffffffffffffffffffffEMPTY=NOTE=a=b/Xÿÿÿÿÿÿÿÿÿ/;ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-store•ÿÿÿÿÿÿÿÿÿ0store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.05/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0 ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-storeEÿÿÿÿÿÿÿÿÿ/run/secrets/token ÿÿÿÿÿÿÿÿÿ0ª
deploy.tokenèd €Gÿÿÿÿÿÿÿÿÿ/run/secrets/extra ÿÿÿÿÿÿÿÿÿ0ª
deploy.extraèd €(:ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
tunnel-9 €
K
I
Gsha256:fb8f318a1e50c59010275c43846e942e6ea24da65e8fec8c598688c48d96d57c‰
Gsha256:fb8f318a1e50c59010275c43846e942e6ea24da65e8fec8c598688c48d96d57c½
llb.customnamedeploy*
exec.meta.base*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.secret*
exec.mount.selector*
exec.mount.ssh2
node-deploydeploy