
HF

true/Xÿÿÿÿÿÿÿÿÿ/'ÿÿÿÿÿÿÿÿÿ/s ÿÿÿÿÿÿÿÿÿ0ª
key €
K
I
Gsha256:d4fe59e3f88018d7ce96477c49fb7e6d07b6a6044d2a12ece695b4135eb937b6v
Gsha256:d4fe59e3f88018d7ce96477c49fb7e6d07b6a6044d2a12ece695b4135eb937b6+*
exec.meta.base*
exec.mount.secret