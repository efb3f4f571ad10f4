
A?

true/Xÿÿÿÿÿÿÿÿÿ/2
a.example/b=c2
a.example/b=d
K
I
Gsha256:9b35ba3dbabe8eca24a85092a1af885faa576423134a7d7b452734437ac7edadr
Gsha256:9b35ba3dbabe8eca24a85092a1af885faa576423134a7d7b452734437ac7edad'*
exec.meta.base*
exec.meta.cdi