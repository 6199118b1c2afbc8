/*
 * nonce.c: the counter half of the nonces, reserved in ranges. A pair of key and counter must never occur twice, whatever
 * happens: so a counter only grows, reserving is one atomic step, and the memory is wiped in the child of a fork.
 *
 * A counter is stored plus one. Zero is what a wiped, stopped or never started counter looks like, and nothing can be reserved
 * from it. The first word of the memory tells a fork from a counter that nobody started.
 */
#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

#define LIMIT (UINT64_C(1) << BW_COUNTER_BITS)

struct bw_counters {
    void *memory;
    _Atomic uint64_t *words;   /* the same: words[0] is 1 while alive, words[1 + index] the next counter + 1 */
    size_t bytes;
    uint32_t capacity;
    bool wiped_on_fork;        /* by the kernel */
    pid_t owner;               /* where the kernel cannot do it, who made the counters is compared each time */
};

bw_counters *bw_counters_new(uint32_t capacity)
{
    const long asked = sysconf(_SC_PAGESIZE);
    const size_t page = asked > 0 ? (size_t)asked : 4096;
    if (capacity == 0 || capacity > (1u << 24))
        return NULL;
    bw_counters *counters = calloc(1, sizeof *counters);
    if (!counters)
        return NULL;
    counters->bytes = (((size_t)capacity + 1) * sizeof(uint64_t) + page - 1) / page * page;
    counters->capacity = (uint32_t)(counters->bytes / sizeof(uint64_t)) - 1;
    void *memory = mmap(NULL, counters->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        free(counters);
        return NULL;
    }
#ifdef MADV_WIPEONFORK
    counters->wiped_on_fork = madvise(memory, counters->bytes, MADV_WIPEONFORK) == 0;
#endif
    counters->owner = getpid();
    counters->memory = memory;
    counters->words = memory;
    atomic_store(&counters->words[0], 1);
    return counters;
}

void bw_counters_free(bw_counters *counters)
{
    if (!counters)
        return;
    munmap(counters->memory, counters->bytes);
    free(counters);
}

uint32_t bw_counters_capacity(const bw_counters *counters)
{
    return counters ? counters->capacity : 0;
}

static int32_t check(const bw_counters *counters, uint32_t index)
{
    if (!counters)
        return -EBADF;
    if (index >= counters->capacity)
        return -ERANGE;
    if (atomic_load_explicit(&counters->words[0], memory_order_relaxed) == 0)
        return -EOWNERDEAD;
    if (!counters->wiped_on_fork && getpid() != counters->owner)
        return -EOWNERDEAD;
    return 0;
}

int32_t bw_counter_start(bw_counters *counters, uint32_t index)
{
    const int32_t bad = check(counters, index);
    if (bad < 0)
        return bad;
    uint64_t expected = 0;
    return atomic_compare_exchange_strong(&counters->words[1 + index], &expected, 1) ? 0 : -EALREADY;
}

int32_t bw_counter_stop(bw_counters *counters, uint32_t index)
{
    const int32_t bad = check(counters, index);
    if (bad < 0)
        return bad;
    return atomic_exchange(&counters->words[1 + index], 0) != 0 ? 0 : -ENOENT;
}

int64_t bw_counter_reserve(bw_counters *counters, uint32_t index, uint32_t n)
{
    const int32_t bad = check(counters, index);
    if (bad < 0)
        return bad;
    if (n == 0)
        return -EINVAL;
    _Atomic uint64_t *word = &counters->words[1 + index];
    uint64_t biased = atomic_load_explicit(word, memory_order_relaxed);
    do {
        if (biased == 0)
            return -ENOENT;
        if (biased - 1 > LIMIT - n)
            return -EOVERFLOW;
    } while (!atomic_compare_exchange_weak(word, &biased, biased + n));
    return (int64_t)(biased - 1);
}

int64_t bw_counter_peek(bw_counters *counters, uint32_t index)
{
    const int32_t bad = check(counters, index);
    if (bad < 0)
        return bad;
    const uint64_t biased = atomic_load(&counters->words[1 + index]);
    return biased == 0 ? -ENOENT : (int64_t)(biased - 1);
}

int32_t bw_counter_skip(bw_counters *counters, uint32_t index, uint64_t value)
{
    const int32_t bad = check(counters, index);
    if (bad < 0)
        return bad;
    if (value > LIMIT)
        return -EOVERFLOW;
    _Atomic uint64_t *word = &counters->words[1 + index];
    uint64_t biased = atomic_load(word);
    do {
        if (biased == 0)
            return -ENOENT;
        if (biased - 1 > value)
            return -EINVAL;
    } while (!atomic_compare_exchange_weak(word, &biased, value + 1));
    return 0;
}
