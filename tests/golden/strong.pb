
ú÷
d
/nix/pontoon/agent/0123abcd
agent
jobs.PONTOON_NONCE=00000000000000000000000000000001/"0:0Xÿÿÿÿÿÿÿÿÿ/'ÿÿÿÿÿÿÿÿÿ/tmp ÿÿÿÿÿÿÿÿÿ0š€€€€:ÿÿÿÿÿÿÿÿÿ/.pontoon/tunnel ÿÿÿÿÿÿÿÿÿ0²
tunnel-8 € 2
pontoon.dev/store=main
K
I
Gsha256:8813bbe8a7462d8a8e18f0d10e574be481560027727a72c2e7f52a65417fdbf3û
Gsha256:8813bbe8a7462d8a8e18f0d10e574be481560027727a72c2e7f52a65417fdbf3¯
llb.customnamejobs*
exec.meta.base*
exec.meta.cdi*
exec.meta.security*
exec.mount.ssh*
exec.mount.tmpfs*
exec.mount.tmpfs.size2
	node-jobsjobs