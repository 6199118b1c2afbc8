/* parse.c: whatever lies in a slot and whatever lengths are claimed, bw_parse gives runs that lie in leased slots, agree with
 * the headers, and account for every datagram. */
#include "fuzz.h"

static uint32_t sizes[] = {256, 2048, 65536, 131072};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    const uint8_t shape = fuzz_u8(&in);
    const uint32_t slot_size = sizes[shape & 3];
    const uint32_t capacity = fuzz_u8(&in);
    const uint32_t held_capacity = fuzz_u8(&in) & 3;
    uint8_t *arena = fuzz_arena(4, slot_size, shape >> 2 & 15);
    bw_ring *ring = bw_arena_ring(arena);
    bw_run *runs = calloc(capacity + 1, sizeof *runs);
    uint32_t *held = calloc(held_capacity + 1, sizeof *held);
    if (!runs || !held)
        abort();
    ASAN_POISON_MEMORY_REGION(runs + capacity, sizeof *runs);
    bw_batch batch = {.runs = runs, .held = held, .capacity = capacity, .held_capacity = held_capacity};
    uint64_t datagrams = 0;
    uint32_t used[4] = {0};   /* what lies below was parsed: like the kernel, nobody writes there any more */

    for (uint32_t trains = fuzz_u8(&in) & 7; trains > 0; trains--) {
        const uint32_t slot = fuzz_u8(&in) & 0x80 ? fuzz_u32(&in) : fuzz_u8(&in) & 3;
        uint32_t start = (uint32_t)fuzz_number(&in, slot_size);
        if (slot < 4 && start < used[slot])
            start = used[slot];
        const uint32_t length = (uint32_t)fuzz_number(&in, slot_size - (start < slot_size ? start : 0));
        const uint32_t segment = (uint32_t)fuzz_number(&in, length);
        const uint8_t ecn = fuzz_u8(&in) & 7;
        uint8_t path[BW_PATH] = {4, 0, 0, fuzz_u8(&in) & 1};
        if (slot < 4 && ring->is_leased[slot] && start < slot_size) {
            /* Headers as a train has them, so that runs form; then bytes of the input's choice somewhere in them. */
            const uint8_t pattern = fuzz_u8(&in);
            const uint64_t first = (pattern & 1) ? fuzz_u64(&in) : fuzz_u8(&in);
            const uint32_t step = segment && segment <= slot_size ? segment : slot_size;
            uint8_t *base = bw_slot(ring, slot);
            uint64_t n = 0;
            for (uint32_t at = start; at + BW_HEADER <= slot_size && n < 300; at += step, n++) {
                base[at] = pattern & 2 ? BW_DATA : (uint8_t)(pattern >> 4);
                bw_put32(base + at + 1, pattern >> 2 & 1);
                bw_put64(base + at + 5, first + n);
            }
            for (uint32_t patches = fuzz_u8(&in) & 7; patches > 0; patches--)
                base[start + fuzz_u16(&in) % (slot_size - start)] = fuzz_u8(&in);
        }
        const uint32_t count = batch.count;
        const uint64_t overflow = batch.overflow;
        const int32_t result = bw_parse(ring, &batch, slot, start, length, segment, ecn, path);
        if (result < 0) {
            PROMISE(batch.count == count && batch.overflow == overflow);
            continue;
        }
        PROMISE(slot < 4 && ring->is_leased[slot] && length > 0 && (uint64_t)start + length <= slot_size && ecn <= 3);
        const uint32_t each = segment == 0 || segment > length ? length : segment;
        used[slot] = start + length;
        datagrams += (length + each - 1) / each;
        PROMISE((uint32_t)result == batch.count);
    }

    PROMISE(batch.count <= capacity && batch.held_count <= held_capacity);
    uint64_t told = batch.overflow;
    for (uint32_t i = 0; i < batch.count; i++) {
        const bw_run *run = &runs[i];
        bool is_held = false;
        for (uint32_t h = 0; h < batch.held_count; h++)
            is_held = is_held || held[h] == run->slot;
        PROMISE(is_held);
        PROMISE(run->count >= 1 && run->count <= BW_RUN_PACKETS && run->last >= 1 && run->last <= run->size && run->ecn <= 3);
        PROMISE(bw_range_ok(ring, run->slot, run->start, (uint64_t)run->size * (run->count - 1u) + run->last));
        PROMISE(run->count == 1 || run->type == BW_DATA);
        const uint8_t *p = bw_slot(ring, run->slot) + run->start;
        for (uint32_t n = 0; run->type == BW_DATA && n < run->count; n++, p += run->size) {
            PROMISE(fuzz_packet_size(n, run->count, run->size, run->last) >= BW_HEADER + BW_TAG);
            PROMISE(p[0] == BW_DATA && bw_get32(p + 1) == run->cid && bw_get64(p + 5) == run->counter + n);
            PROMISE(run->counter + n < UINT64_C(1) << BW_COUNTER_BITS);
            PROMISE((run->counter + n) >> BW_GENERATION_BITS == run->counter >> BW_GENERATION_BITS);
        }
        told += run->count;
    }
    PROMISE(told == datagrams);
    ASAN_UNPOISON_MEMORY_REGION(runs + capacity, sizeof *runs);
    free(runs);
    free(held);
    fuzz_arena_free(arena);
    return 0;
}
