/* bulk.c: rows of bw_fill_runs and bw_gather_runs with any numbers. What is refused writes nothing; what is filled is a run as
 * the protocol says and comes out of gather again; what gather takes lies inside its window, byte for byte. */
#include "fuzz.h"

#define SLOT 4096u
#define STREAM_OFF 0x0cu

/* A ring of a stream, exactly as large as its mask says, so that the sanitizer sees every step beside it. */
static uint8_t *stream_ring(uint64_t mask, uint8_t seed)
{
    uint8_t *ring = malloc((size_t)mask + 1);
    if (!ring)
        abort();
    for (size_t i = 0; i <= mask; i++)
        ring[i] = (uint8_t)(i * 131 + (i >> 8) * 7 + seed);
    return ring;
}

/* A mask that C believes must be true; any other must be refused. */
static uint64_t choose_mask(fuzz_input *in, uint64_t real)
{
    const uint8_t kind = fuzz_u8(in);
    if (kind & 15)
        return real;
    const uint64_t any = fuzz_u64(in);
    const bool believed = any < UINT64_C(1) << 40 && (any & (any + 1)) == 0;
    return believed ? real : any;
}

static void fill(fuzz_input *in, bw_ring *ring, bw_cipher *cipher)
{
    const uint64_t mask = (UINT64_C(1) << (4 + fuzz_u8(in) % 10)) - 1;
    uint8_t *source = stream_ring(mask, fuzz_u8(in));
    bw_fill row;
    memset(&row, 0, sizeof row);
    const uint8_t shape = fuzz_u8(in);
    row.counter = fuzz_number(in, shape & 1 ? UINT64_C(1) << BW_COUNTER_BITS : UINT64_C(1) << BW_GENERATION_BITS);
    row.offset = fuzz_number(in, shape & 2 ? UINT64_C(1) << 62 : 1u << 20);
    row.src = fuzz_u8(in) == 0xff ? 0 : (uint64_t)(uintptr_t)source;
    row.src_mask = choose_mask(in, mask);
    row.cid = fuzz_u32(in);
    row.stream = (uint32_t)fuzz_number(in, 1u << 30);
    row.slot = (uint32_t)fuzz_number(in, 2);
    row.start = (uint32_t)fuzz_number(in, SLOT);
    row.size = (uint16_t)fuzz_number(in, shape & 4 ? BW_RUN_OVERHEAD : 300);
    row.count = (uint16_t)fuzz_number(in, shape & 8 ? BW_RUN_PACKETS : 5);
    row.fin = fuzz_u8(in) & 1;
    if (fuzz_u8(in) == 0x55)
        row.fin = 2;
    const uint32_t payload = row.size > BW_RUN_OVERHEAD ? row.size - (uint32_t)BW_RUN_OVERHEAD : 1;
    const uint32_t most = row.count * payload;
    row.length = shape & 16 ? (uint32_t)fuzz_number(in, most + 1) : most - (most ? fuzz_u32(in) % payload : 0);
    row.cipher = shape & 32 ? (uint64_t)(uintptr_t)cipher : 0;

    static uint8_t before[SLOT];
    uint8_t *slot = bw_slot(ring, 0);
    for (size_t i = 0; i < SLOT; i++)
        slot[i] = (uint8_t)(i * 7 + 1);
    memcpy(before, slot, SLOT);
    const bw_fill asked = row;
    const int32_t done = bw_fill_runs(ring, &row, 1);
    PROMISE(done == 0 || done == 1);
    PROMISE((done == 1) == (row.error == 0));
    if (done == 0) {
        PROMISE(memcmp(before, slot, SLOT) == 0);
        free(source);
        return;
    }
    PROMISE(asked.src_mask == mask && asked.slot == 0 && asked.fin <= 1 && (asked.length == 0 || asked.src));
    const uint64_t bytes = (uint64_t)asked.length + (uint64_t)asked.count * BW_RUN_OVERHEAD;
    PROMISE(asked.start + bytes <= SLOT);
    PROMISE(memcmp(before, slot, asked.start) == 0);
    PROMISE(memcmp(before + asked.start + bytes, slot + asked.start + bytes, SLOT - asked.start - bytes) == 0);

    const uint32_t last = asked.length - (asked.count - 1u) * payload + BW_RUN_OVERHEAD;
    if (row.cipher) {
        const uint64_t all = asked.count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << asked.count) - 1;
        PROMISE(bw_open_run(cipher, ring, 0, asked.start, asked.size, asked.count, last, all) == all);
    }
    const uint8_t *p = slot + asked.start;
    for (uint32_t i = 0; i < asked.count; i++, p += asked.size) {
        const uint64_t offset = asked.offset + (uint64_t)i * payload;
        const uint32_t n = fuzz_packet_size(i, asked.count, asked.size, last) - BW_RUN_OVERHEAD;
        PROMISE(p[0] == BW_DATA && bw_get32(p + 1) == asked.cid && bw_get64(p + 5) == asked.counter + i);
        PROMISE(p[13] == (STREAM_OFF | (asked.fin && i + 1u == asked.count)));
        PROMISE((bw_get32(p + 14) ^ 0x80000000u) == asked.stream && (bw_get64(p + 18) ^ 0xc000000000000000u) == offset);
        for (uint32_t k = 0; k < n; k++)
            PROMISE(p[26 + k] == source[(offset + k) & mask]);
    }

    /* And back: everything is taken and lies where it lay. */
    uint8_t *target = stream_ring(mask, 0xee);
    bw_gather back = {.mask = asked.count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << asked.count) - 1, .offset = asked.offset,
                      .dst = (uint64_t)(uintptr_t)target, .dst_mask = mask, .low = asked.offset,
                      .high = asked.offset + asked.length, .stream = asked.stream, .slot = 0, .start = asked.start,
                      .size = asked.size, .last = (uint16_t)last, .count = asked.count};
    PROMISE(bw_gather_runs(ring, &back, 1) == 1);
    PROMISE(back.taken == back.mask && back.fin == asked.fin);
    for (uint32_t k = 0; k < asked.length; k++)
        PROMISE(target[(asked.offset + k) & mask] == source[(asked.offset + k) & mask]);
    free(target);
    free(source);
}

static void gather(fuzz_input *in, bw_ring *ring)
{
    const uint64_t mask = (UINT64_C(1) << (4 + fuzz_u8(in) % 10)) - 1;
    uint8_t *target = stream_ring(mask, 0xee);
    uint8_t *expected = stream_ring(mask, 0xee);
    bw_gather row;
    memset(&row, 0, sizeof row);
    const uint8_t shape = fuzz_u8(in);
    row.offset = fuzz_number(in, shape & 1 ? UINT64_C(1) << 62 : 5000);
    row.low = shape & 2 ? row.offset + fuzz_u16(in) % 600 : fuzz_number(in, UINT64_C(1) << 62);
    row.high = shape & 4 ? row.low + fuzz_number(in, mask + 1) : fuzz_number(in, UINT64_C(1) << 62);
    row.dst = fuzz_u8(in) == 0xff ? 0 : (uint64_t)(uintptr_t)target;
    row.dst_mask = choose_mask(in, mask);
    row.stream = (uint32_t)fuzz_number(in, 1u << 30);
    row.slot = (uint32_t)fuzz_number(in, 2);
    row.start = (uint32_t)fuzz_number(in, SLOT);
    row.size = (uint16_t)fuzz_number(in, shape & 8 ? BW_RUN_OVERHEAD : 300);
    row.last = (uint16_t)(shape & 16 ? row.size : fuzz_number(in, row.size));
    row.count = (uint16_t)fuzz_number(in, shape & 32 ? BW_RUN_PACKETS : 5);
    row.mask = fuzz_u64(in);
    if (shape & 64 && row.count < 64)
        row.mask &= (UINT64_C(1) << row.count) - 1;
    const uint32_t payload = row.size > BW_RUN_OVERHEAD ? row.size - (uint32_t)BW_RUN_OVERHEAD : 0;
    uint8_t *slot = bw_slot(ring, 0);
    for (size_t i = 0; i < SLOT; i++)
        slot[i] = (uint8_t)(i * 7 + 1);
    for (uint32_t i = 0; i < row.count && i < 64; i++) {   /* frames as they should be, in most of the packets */
        const uint64_t at = row.start + (uint64_t)i * row.size + BW_HEADER;
        if (at + BW_STREAM_HEADER > SLOT)
            break;
        slot[at] = (uint8_t)(STREAM_OFF | (i + 1u == row.count && shape & 128));
        bw_put32(slot + at + 1, row.stream | 0x80000000u);
        bw_put64(slot + at + 5, (row.offset + (uint64_t)i * payload) | 0xc000000000000000u);
    }
    for (uint32_t patches = fuzz_u8(in) & 7; patches > 0; patches--)
        slot[(row.start + fuzz_u16(in)) % SLOT] = fuzz_u8(in);

    const bw_gather asked = row;
    const int32_t done = bw_gather_runs(ring, &row, 1);
    PROMISE(done == 0 || done == 1);
    PROMISE((row.taken & ~asked.mask) == 0);
    if (done == 1) {
        PROMISE(asked.slot == 0 && asked.dst && asked.dst_mask == mask && asked.low <= asked.high);
        PROMISE(asked.high - asked.low <= mask + 1);
        for (uint32_t i = 0; i < asked.count; i++) {
            if (!(row.taken >> i & 1))
                continue;
            const uint8_t *p = slot + asked.start + (size_t)i * asked.size + BW_HEADER;
            const uint32_t n = fuzz_packet_size(i, asked.count, asked.size, asked.last) - BW_RUN_OVERHEAD;
            const uint64_t offset = asked.offset + (uint64_t)i * payload;
            PROMISE((p[0] & ~1u) == STREAM_OFF && bw_get32(p + 1) == (asked.stream | 0x80000000u));
            PROMISE(bw_get64(p + 5) == (offset | 0xc000000000000000u) && offset + n <= asked.high);
            for (uint32_t k = 0; k < n; k++)
                if (offset + k >= asked.low)
                    expected[(offset + k) & mask] = p[BW_STREAM_HEADER + k];
        }
    } else {
        PROMISE(row.taken == 0 && row.fin == 0);
    }
    PROMISE(!row.fin || row.taken >> (asked.count - 1) & 1);
    PROMISE(memcmp(target, expected, (size_t)mask + 1) == 0);
    free(target);
    free(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bw_libcrypto *lib;
    static bool asked;
    if (!asked) {
        lib = bw_libcrypto_open("libcrypto.so.3");
        asked = true;
    }
    fuzz_input in = {data, size};
    uint8_t *arena = fuzz_arena(2, SLOT, 1);
    bw_ring *ring = bw_arena_ring(arena);
    bw_cipher *cipher = lib ? bw_libcrypto_cipher(lib, 0, (const uint8_t *)"sixteen bytes...", 16) : NULL;
    if (fuzz_u8(&in) & 1)
        fill(&in, ring, cipher);
    else
        gather(&in, ring);
    bw_cipher_free(cipher);
    fuzz_arena_free(arena);
    return 0;
}
