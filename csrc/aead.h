/*
 * aead.h: what a back end of packet protection is to aead.c.
 *
 * A back end makes ciphers: structs that begin with a bw_cipher, whose calls point to its functions. They are given runs
 * that were checked: `count` packets (1 to 64) of `size` bytes side by side, the last of `last` bytes, none shorter than
 * header and tag.
 */
#ifndef BW_AEAD_H
#define BW_AEAD_H

#include "internal.h"

typedef struct {
    /* 0, or -ENOMEM or -EIO. */
    int32_t (*seal)(bw_cipher *cipher, uint8_t *packet, uint32_t size, uint32_t count, uint32_t last);

    /* Sets the bits in *opened (0 at first) of those packets of `mask` that verify and wipes the payload of the others of
     * `mask`; 0, or -ENOMEM before anything was touched. */
    int32_t (*open)(bw_cipher *cipher, uint8_t *packet, uint32_t size, uint32_t count, uint32_t last, uint64_t mask,
                    uint64_t *opened);

    /* Wipes the key and frees everything, the struct itself, too. */
    void (*dispose)(bw_cipher *cipher);
} bw_cipher_calls;

struct bw_cipher {
    const bw_cipher_calls *calls;
};

static inline uint32_t bw_key_size(uint32_t aead)
{
    return aead == 0 ? 16 : 32;
}

#endif
