
1/
-docker-image://docker.io/library/busybox:1.36
Ü
I
Gsha256:7e9442da169da5a6885e59b3b72f9e746af8a1867587f05df40d05a23ae08b3dŽ
h
/.pontoon/agent
effect
deploy PONTOON_NONCE=0123456789abcdef-1PONTOON_SHAPE=plain/:	localhostX/ ÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ	/.pontoonSÿÿÿÿÿÿÿÿÿpontoon/agent/0123abcd/.pontoon/agent ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nix9ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
pontoon €9ÿÿÿÿÿÿÿÿÿ/.pontoon/store ÿÿÿÿÿÿÿÿÿ0¢
pontoon-nixMÿÿÿÿÿÿÿÿÿ/etc/passwd ÿÿÿÿÿÿÿÿÿ(0ª#
0123456789abcdef-1//etc/passwd ¤Kÿÿÿÿÿÿÿÿÿ
/etc/group ÿÿÿÿÿÿÿÿÿ(0ª"
0123456789abcdef-1//etc/group ¤,ÿÿÿÿÿÿÿÿÿ
/nix/store ÿÿÿÿÿÿÿÿÿ0š€€€ )ÿÿÿÿÿÿÿÿÿ/build ÿÿÿÿÿÿÿÿÿ0š€€€€ 'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€ +ÿÿÿÿÿÿÿÿÿ/dev/shm ÿÿÿÿÿÿÿÿÿ0š€€€€‘ÿÿÿÿÿÿÿÿÿ/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.54/nix/store/5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5 ÿÿÿÿÿÿÿÿÿ(0¢
pontoon-nixNÿÿÿÿÿÿÿÿÿ/run/secrets/TOKEN ÿÿÿÿÿÿÿÿÿ(0ª
0123456789abcdef-1/TOKEN ¤
K
I
Gsha256:7ae7a62e735720ba491b7c619702c0c47ead695c0fb916ecd59c14892f94d8c6ß
Gsha256:7ae7a62e735720ba491b7c619702c0c47ead695c0fb916ecd59c14892f94d8c6“
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
effect:deployeffect deployë
Gsha256:7e9442da169da5a6885e59b3b72f9e746af8a1867587f05df40d05a23ae08b3dŸE
llb.customname3effect deploy: image docker.io/library/busybox:1.36*
source.image2D
effect:deploy3effect deploy: image docker.io/library/busybox:1.36