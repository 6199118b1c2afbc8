/*
 * aead.h: what a back end of packet protection is to aead.c.
 *
 * A back end makes ciphers: structs that begin with a bw_cipher, whose calls point to its functions. Those do one packet
 * each, in place, with a nonce of 12 bytes and a tag of BW_TAG. They check nothing: aead.c did.
 */
#ifndef BW_AEAD_H
#define BW_AEAD_H

#include "internal.h"

typedef struct {
    /* Ciphertext takes the place of body[0..size), and the tag is written. 0, or -ENOMEM or -EIO. */
    int32_t (*seal)(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                    uint32_t size, uint8_t *tag);

    /* 1: the tag verified, compared in constant time, and body is plaintext; 0: it did not, and body is garbage, to be wiped;
     * or -ENOMEM before anything was touched. */
    int32_t (*open)(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                    uint32_t size, const uint8_t *tag);

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
