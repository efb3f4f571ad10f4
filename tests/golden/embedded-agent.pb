
¢Ÿ
`
/.pontoon/agent
store PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=strong/:	localhostXÿÿÿÿÿÿÿÿÿ/Sÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon € 2
pontoon.dev/store=nix
K
I
Gsha256:c72edf5157c29bb48df20a11b15ac48e662d4ae293059cf5dcf9bca011a94261¾
Gsha256:c72edf5157c29bb48df20a11b15ac48e662d4ae293059cf5dcf9bca011a94261ò 
llb.customnamepontoon: store*
exec.meta.base*
exec.meta.cdi*
exec.meta.network*
exec.meta.security*
exec.mount.cache*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh2
storepontoon: store