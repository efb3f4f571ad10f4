
ÙÖ
l
/nix/pontoon/agent/0123abcd
store PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=strong/:	localhostXÿÿÿÿÿÿÿÿÿ/9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon € 2
pontoon.dev/store=nix
K
I
Gsha256:4648c02f1521bd0d03a5fc2efae6038da128669de361c9c13385756808ae067cñ
Gsha256:4648c02f1521bd0d03a5fc2efae6038da128669de361c9c13385756808ae067c¥ 
llb.customnamepontoon: store*
exec.meta.base*
exec.meta.cdi*
exec.meta.network*
exec.meta.security*
exec.mount.ssh2
storepontoon: store