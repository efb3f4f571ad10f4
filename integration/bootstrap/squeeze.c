/* Compresses what it reads with zlib, makes it plain again, and writes that with its size. */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

int main(void)
{
    unsigned char plain[4096], packed[8192], back[4096];
    uLongf packed_size = sizeof packed, back_size = sizeof back;
    uLong size = fread(plain, 1, sizeof plain, stdin);

    if (compress(packed, &packed_size, plain, size) != Z_OK
        || uncompress(back, &back_size, packed, packed_size) != Z_OK
        || back_size != size || memcmp(plain, back, size) != 0)
        return 1;
    printf("%lu: ", back_size);
    fwrite(back, 1, back_size, stdout);
    return 0;
}
