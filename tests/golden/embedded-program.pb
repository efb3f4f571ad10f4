
›˜
e
/bin/busybox
sh
-c
4cat /secret > /store/made; echo $WORD >> /store/madeWORD=of Go's bytes/Xÿÿÿÿÿÿÿÿÿ/5ÿÿÿÿÿÿÿÿÿbin/bin ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix7ÿÿÿÿÿÿÿÿÿstore/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nix-ÿÿÿÿÿÿÿÿÿ/secret ÿÿÿÿÿÿÿÿÿ0ª	
word €
K
I
Gsha256:542427acaab4e8787ec0859e11bf11a4f289dc139029756e7f03c2be7c978aadŽ
Gsha256:542427acaab4e8787ec0859e11bf11a4f289dc139029756e7f03c2be7c978aadÂ
llb.customname	a program*
exec.meta.base*
exec.meta.network*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.secret*
exec.mount.selector2
program	a program