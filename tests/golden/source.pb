
{y
aoci-layout://pontoon/root@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
	oci.storepontoon
ZX
local://agent!
local.includepattern	["agent"]$
local.sharedkeyhintpontoon-agent

I
Gsha256:86a3ba9bce9d77e45851529b0554d0fe93f58cf334eab96bf6c97b90df0fe6cb
I
Gsha256:beee4749b8c12d585c97871bdc1ae1f93277440f2b50f2d6eb3095dceff18884„
'
/agentLANG=CNAME=grÃ¶ÃŸe âœ“/X/ ÿÿÿÿÿÿÿÿÿ(/agent/agent ÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ/outÿÿÿÿÿÿÿÿÿ/log 
a
K
Gsha256:bfa3d53f06e59db2c572239564edef2035cf96a40cf3312087c4a5a7d18ae081

true/X/
K
I
Gsha256:faacef42d5eaa32f26f2ffbd22ddf1d887c77f84546664e8c8faa18080fa2dfaŒ
Gsha256:86a3ba9bce9d77e45851529b0554d0fe93f58cf334eab96bf6c97b90df0fe6cbA
llb.customnameroot*
source.ocilayout2
	node-rootrootŸ
Gsha256:beee4749b8c12d585c97871bdc1ae1f93277440f2b50f2d6eb3095dceff18884T*
source.local* 
source.local.includepatterns*
source.local.sharedkeyhint
Gsha256:bfa3d53f06e59db2c572239564edef2035cf96a40cf3312087c4a5a7d18ae081B*
exec.meta.base*
exec.mount.bind*
exec.mount.selectort
Gsha256:faacef42d5eaa32f26f2ffbd22ddf1d887c77f84546664e8c8faa18080fa2dfa)*
exec.meta.base*
exec.mount.bind