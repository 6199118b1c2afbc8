/*
 * fuzz.h: what the harnesses share: an input that is read piece by piece, promises whose breach aborts, and rings of which
 * only the leased slots may be touched.
 *
 * A harness is one file with LLVMFuzzerTestOneInput. Clang links it with libFuzzer; replay.c gives it a main of its own.
 */
#ifndef BW_FUZZ_H
#define BW_FUZZ_H

#include "aead.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROMISE(what)                                                                                                       \
    do {                                                                                                                    \
        if (!(what)) {                                                                                                      \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #what);                                      \
            abort();                                                                                                        \
        }                                                                                                                   \
    } while (0)

typedef struct {
    const uint8_t *at;
    size_t left;
} fuzz_input;

/* The next bytes; zeros behind the end. */
static inline void fuzz_bytes(fuzz_input *in, void *to, size_t n)
{
    const size_t have = n < in->left ? n : in->left;
    memset(to, 0, n);
    if (have)
        memcpy(to, in->at, have);
    in->at += have;
    in->left -= have;
}

static inline uint8_t fuzz_u8(fuzz_input *in)
{
    uint8_t v;
    fuzz_bytes(in, &v, sizeof v);
    return v;
}

static inline uint16_t fuzz_u16(fuzz_input *in)
{
    uint16_t v;
    fuzz_bytes(in, &v, sizeof v);
    return v;
}

static inline uint32_t fuzz_u32(fuzz_input *in)
{
    uint32_t v;
    fuzz_bytes(in, &v, sizeof v);
    return v;
}

static inline uint64_t fuzz_u64(fuzz_input *in)
{
    uint64_t v;
    fuzz_bytes(in, &v, sizeof v);
    return v;
}

/* A number near a border that matters, or any: `limit` is such a border. */
static inline uint64_t fuzz_number(fuzz_input *in, uint64_t limit)
{
    const uint8_t kind = fuzz_u8(in);
    const uint64_t any = kind & 1 ? fuzz_u64(in) : fuzz_u8(in);
    switch (kind >> 1 & 3) {
    case 0: return limit ? any % limit : 0;
    case 1: return limit - (any & 3);
    case 2: return limit + (any & 3);
    default: return any;
    }
}

/* A ring whose slots are leased as the bits of `leased` say (the first lease is slot 0). The others are poisoned: nobody has
 * any business there. */
static inline uint8_t *fuzz_arena(uint32_t slots, uint32_t slot_size, uint32_t leased)
{
    uint8_t *arena = bw_arena_new(slots, slot_size);
    if (!arena)
        abort();
    bw_ring *ring = bw_arena_ring(arena);
    for (uint32_t i = 0; i < slots; i++)
        if (bw_ring_lease(ring) != (int32_t)i)
            abort();
    for (uint32_t i = 0; i < slots; i++)
        if (!(leased >> i & 1)) {
            if (bw_ring_release(ring, i) != 0)
                abort();
            ASAN_POISON_MEMORY_REGION(bw_slot(ring, i), slot_size);
        }
    return arena;
}

static inline void fuzz_arena_free(uint8_t *arena)
{
    bw_ring *ring = bw_arena_ring(arena);
    ASAN_UNPOISON_MEMORY_REGION(ring->memory, (size_t)ring->books.slots * ring->books.slot_size);
    bw_arena_free(arena);
}

/* Bytes of a packet in a run of equal packets whose last one may be shorter. */
static inline uint32_t fuzz_packet_size(uint32_t i, uint32_t count, uint32_t size, uint32_t last)
{
    return i + 1 == count ? last : size;
}

#endif
