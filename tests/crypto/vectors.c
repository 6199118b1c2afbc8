/*
 * vectors.c: one packet of any nonce and any additional data, by the cipher behind a handle. The transport has 13 bytes of
 * additional data with the nonce among them; published vectors do not.
 */
#include "aead.h"

int32_t vector_seal(uint64_t cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                    uint32_t size, uint8_t *tag)
{
    bw_cipher *one = (bw_cipher *)(uintptr_t)cipher;
    return one->calls->seal(one, nonce, aad, aad_size, body, size, tag);
}

int32_t vector_open(uint64_t cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                    uint32_t size, const uint8_t *tag)
{
    bw_cipher *one = (bw_cipher *)(uintptr_t)cipher;
    return one->calls->open(one, nonce, aad, aad_size, body, size, tag);
}
