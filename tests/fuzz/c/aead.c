/* aead.c: runs of any claimed shape, sealed and opened by every back end in C. What is no run is refused and touches nothing;
 * what was sealed opens; what was changed does not, and is wiped; no byte beside the run changes. */
#include "fuzz.h"

#define SLOT 8192u

static bw_libcrypto *libcrypto;
static bw_ipsecmb *ipsecmb;

static bw_cipher *make(uint8_t which, uint32_t aead, const uint8_t *key, uint32_t size)
{
    if (which & 1 && ipsecmb)
        return bw_ipsecmb_cipher(ipsecmb, aead, key, size);
    return libcrypto ? bw_libcrypto_cipher(libcrypto, aead, key, size) : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool asked;
    if (!asked) {
        asked = true;
        libcrypto = bw_libcrypto_open("libcrypto.so.3");
        ipsecmb = bw_ipsecmb_open("libIPSec_MB.so.1");
    }
    fuzz_input in = {data, size};
    const uint8_t shape = fuzz_u8(&in);
    const uint32_t aead = (uint32_t)fuzz_number(&in, BW_AEADS);
    uint32_t key_size = bw_key_size(aead);
    if (shape & 2 && fuzz_u8(&in) == 0)
        key_size = (uint32_t)fuzz_number(&in, key_size);
    uint8_t key[64] = {0};
    fuzz_bytes(&in, key, 4);
    bw_cipher *cipher = key_size <= sizeof key ? make(shape, aead, key, key_size) : NULL;
    PROMISE(!cipher || (aead < BW_AEADS && key_size == bw_key_size(aead)));
    uint8_t *arena = fuzz_arena(2, SLOT, 1);
    bw_ring *ring = bw_arena_ring(arena);

    bw_protect row;
    memset(&row, 0, sizeof row);
    row.cipher = (uint64_t)(uintptr_t)cipher;
    row.mask = fuzz_u64(&in);
    row.slot = (uint32_t)fuzz_number(&in, 2);
    row.start = (uint32_t)fuzz_number(&in, shape & 4 ? SLOT : 64);
    row.count = (uint16_t)fuzz_number(&in, shape & 8 ? BW_RUN_PACKETS : 4);
    row.size = (uint16_t)fuzz_number(&in, shape & 16 ? BW_HEADER + BW_TAG : row.count ? SLOT / row.count : SLOT);
    row.last = shape & 32 ? row.size : (uint16_t)fuzz_number(&in, shape & 64 ? BW_HEADER + BW_TAG : row.size);

    static uint8_t plain[SLOT], now[SLOT];
    uint8_t *slot = bw_slot(ring, 0);
    for (size_t i = 0; i < SLOT; i++)
        plain[i] = (uint8_t)(i * 31 + (i >> 8) + shape);
    memcpy(slot, plain, SLOT);
    const bw_protect given = row;
    const bool good = bw_seal_runs(ring, &row, 1) == 1;
    PROMISE(good == (row.error == 0));
    if (!good) {
        PROMISE(memcmp(slot, plain, SLOT) == 0);
        PROMISE(bw_open_runs(ring, &row, 1) == 0 && row.error != 0 && row.opened == 0);
        PROMISE(memcmp(slot, plain, SLOT) == 0);
        PROMISE(bw_open_run(cipher, ring, given.slot, given.start, given.size, given.count, given.last, given.mask) == 0);
    } else {
        const uint32_t first = given.start, count = given.count;
        const uint64_t end = (uint64_t)given.size * (count - 1u) + given.last + first;
        PROMISE(cipher && given.slot == 0 && count >= 1 && count <= BW_RUN_PACKETS && end <= SLOT);
        PROMISE(given.last >= BW_HEADER + BW_TAG && given.last <= given.size);
        PROMISE(memcmp(slot, plain, first) == 0 && memcmp(slot + end, plain + end, SLOT - end) == 0);
        uint64_t spoiled = 0;
        for (uint32_t n = fuzz_u8(&in) & 3; n > 0; n--) {
            const uint32_t i = fuzz_u8(&in) % count;
            const uint32_t bytes = fuzz_packet_size(i, count, given.size, given.last);
            if (spoiled >> i & 1)
                continue;
            /* byte 0 to 12: the header, which is nonce and associated data; then ciphertext and tag */
            slot[first + (size_t)i * given.size + fuzz_u16(&in) % bytes] ^= (uint8_t)(1u << (fuzz_u8(&in) & 7));
            spoiled |= UINT64_C(1) << i;
        }
        memcpy(now, slot, SLOT);
        row = given;
        PROMISE(bw_open_runs(ring, &row, 1) == 1 && row.error == 0);
        const uint64_t run = count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
        PROMISE(row.opened == (given.mask & run & ~spoiled));
        PROMISE(memcmp(slot, now, first) == 0 && memcmp(slot + end, now + end, SLOT - end) == 0);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t bytes = fuzz_packet_size(i, count, given.size, given.last) - (BW_HEADER + BW_TAG);
            const size_t body = first + (size_t)i * given.size + BW_HEADER;
            PROMISE(memcmp(slot + body - BW_HEADER, now + body - BW_HEADER, BW_HEADER) == 0);
            if (row.opened >> i & 1)
                PROMISE(memcmp(slot + body, plain + body, bytes) == 0);
            else if (!(given.mask >> i & 1))
                PROMISE(memcmp(slot + body, now + body, bytes + BW_TAG) == 0);
            else
                for (uint32_t k = 0; k < bytes; k++)
                    PROMISE(slot[body + k] == 0);
        }
    }
    bw_cipher_free(cipher);
    fuzz_arena_free(arena);
    return 0;
}
