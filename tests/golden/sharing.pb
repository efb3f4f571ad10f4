
‡„

true/Xÿÿÿÿÿÿÿÿÿ/6ÿÿÿÿÿÿÿÿÿ/private ÿÿÿÿÿÿÿÿÿ0¢
pontoon-store-ÿÿÿÿÿÿÿÿÿ/locked ÿÿÿÿÿÿÿÿÿ0¢	
other
K
I
Gsha256:2830eff34ea7e82edd535f47f08f34b8935f75396e7594f117db52bea120c2d0“
Gsha256:2830eff34ea7e82edd535f47f08f34b8935f75396e7594f117db52bea120c2d0H*
exec.meta.base*
exec.mount.cache*
exec.mount.cache.sharing