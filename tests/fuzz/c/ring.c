/* ring.c: slots and counters against models of them: every slot is handed out once, every counter too. */
#include "fuzz.h"

#define SLOTS 9u
#define INDEXES 4u

static void slots(fuzz_input *in)
{
    const uint32_t count = 1 + fuzz_u8(in) % SLOTS;
    uint8_t *arena = bw_arena_new(count, 64);
    bw_ring *ring = bw_arena_ring(arena);
    bool leased[SLOTS] = {false};
    uint32_t out = 0, high = 0;
    uint64_t leases = 0, exhausted = 0;
    PROMISE(arena != NULL);
    while (in->left) {
        const uint8_t op = fuzz_u8(in);
        if (op & 1) {
            const int32_t slot = bw_ring_lease(ring);
            if (out == count) {
                PROMISE(slot == -ENOBUFS);
                exhausted++;
                continue;
            }
            PROMISE(slot >= 0 && (uint32_t)slot < count && !leased[slot]);
            memset(bw_slot(ring, (uint32_t)slot), op, 64);
            leased[slot] = true;
            leases++;
            if (++out > high)
                high = out;
        } else if (op & 2) {
            const uint32_t slot = op & 4 ? fuzz_u32(in) : op >> 4;
            const int32_t result = bw_ring_release(ring, slot);
            PROMISE(result == (slot >= count ? -ERANGE : leased[slot] ? 0 : -EALREADY));
            if (result == 0) {
                leased[slot] = false;
                out--;
            }
        } else {
            uint32_t some[4];
            const uint32_t n = op >> 3 & 3;
            int32_t expected = 0;
            for (uint32_t i = 0; i < n; i++)
                some[i] = fuzz_u8(in) & 15;
            for (uint32_t i = n; i > 0; i--) {
                const uint32_t slot = some[i - 1];
                if (slot >= count)
                    expected = -ERANGE;
                else if (!leased[slot])
                    expected = -EALREADY;
                else
                    leased[slot] = false, out--;
            }
            PROMISE(bw_ring_release_all(ring, some, n) == expected);
        }
        bw_ring_books books;
        bw_ring_read_books(ring, &books);
        PROMISE(books.slots == count && books.leased == out && books.high_water == high && books.leases == leases);
        PROMISE(books.exhausted == exhausted);
    }
    bw_arena_free(arena);
}

static void counters(fuzz_input *in)
{
    bw_counters *counters = bw_counters_new(1 + fuzz_u8(in) % INDEXES);
    const uint32_t capacity = bw_counters_capacity(counters);
    uint64_t next[INDEXES] = {0};
    bool started[INDEXES] = {false};
    const uint64_t limit = UINT64_C(1) << BW_COUNTER_BITS;
    PROMISE(counters != NULL && capacity >= INDEXES);
    while (in->left) {
        const uint8_t op = fuzz_u8(in);
        const uint32_t i = op >> 4 < 14 ? (op >> 4) % INDEXES : (uint32_t)fuzz_number(in, capacity);
        const bool known = i < INDEXES;
        if (i >= capacity) {
            PROMISE(bw_counter_reserve(counters, i, 1) == -ERANGE && bw_counter_start(counters, i) == -ERANGE);
            PROMISE(bw_counter_stop(counters, i) == -ERANGE && bw_counter_skip(counters, i, 1) == -ERANGE);
        } else if (!known) {
            PROMISE(bw_counter_reserve(counters, i, 1) == -ENOENT && bw_counter_peek(counters, i) == -ENOENT);
        } else if ((op & 7) == 0) {
            PROMISE(bw_counter_start(counters, i) == (started[i] ? -EALREADY : 0));
            if (!started[i])
                next[i] = 0;
            started[i] = true;
        } else if ((op & 7) == 1) {
            PROMISE(bw_counter_stop(counters, i) == (started[i] ? 0 : -ENOENT));
            started[i] = false;
        } else if ((op & 7) < 5) {
            const uint32_t n = (uint32_t)fuzz_number(in, BW_RUN_PACKETS);
            const int64_t first = bw_counter_reserve(counters, i, n);
            if (n == 0) {
                PROMISE(first == -EINVAL);
            } else if (!started[i]) {
                PROMISE(first == -ENOENT);
            } else if (n > limit - next[i]) {
                PROMISE(first == -EOVERFLOW);
            } else {
                PROMISE(first >= 0 && (uint64_t)first == next[i]);
                next[i] += n;
            }
        } else {
            const uint64_t value = fuzz_number(in, limit);
            const int32_t result = bw_counter_skip(counters, i, value);
            if (!started[i])
                PROMISE(result == -ENOENT || result == -EOVERFLOW || result == -EINVAL);
            else if (result == 0) {
                PROMISE(value >= next[i] && value <= limit);
                next[i] = value;
            } else
                PROMISE(value < next[i] || value > limit);
        }
        if (known)
            PROMISE(bw_counter_peek(counters, i) == (started[i] ? (int64_t)next[i] : -ENOENT));
    }
    bw_counters_free(counters);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    const uint8_t which = fuzz_u8(&in);
    if (which & 1) {
        counters(&in);
    } else if (which & 2) {   /* numbers of any size, as long as a good pair takes no memory worth speaking of */
        const uint32_t slots_asked = (uint32_t)fuzz_number(&in, 4096), slot_size = (uint32_t)fuzz_number(&in, 64);
        const bool good = slots_asked >= 1 && slots_asked <= 4096 && slot_size >= 64 && slot_size <= 1u << 20;
        if (good && (uint64_t)slots_asked * slot_size > 1u << 20)
            return 0;
        uint8_t *arena = bw_arena_new(slots_asked, slot_size);
        PROMISE((arena != NULL) == good);
        bw_arena_free(arena);
    } else {
        slots(&in);
    }
    return 0;
}
