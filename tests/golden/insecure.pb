
#!

true/Xÿÿÿÿÿÿÿÿÿ/ 
K
I
Gsha256:89c49e5f6633d59278156e114a0604363afca3ece350f874854da7acfc5533fdŽ
Gsha256:89c49e5f6633d59278156e114a0604363afca3ece350f874854da7acfc5533fdC*
exec.meta.base*
exec.meta.network*
exec.meta.security