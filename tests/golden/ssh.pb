
VT

true/Xÿÿÿÿÿÿÿÿÿ/5ÿÿÿÿÿÿÿÿÿ/agent ÿÿÿÿÿÿÿÿÿ0²
default ¶(
K
I
Gsha256:2450efa0fe9f9c2b8447d60e41f8104ac414ac3940934ada4804902212f0a7cds
Gsha256:2450efa0fe9f9c2b8447d60e41f8104ac414ac3940934ada4804902212f0a7cd(*
exec.meta.base*
exec.mount.ssh