/*
 * ring.c: an arena of equal slots, leased and returned; nothing is allocated after the start.
 *
 * Invariants: free_count + leased == slots; a slot is on the stack exactly when is_leased is 0. The stack makes the hottest
 * slot the next one: few slots that stay in the cache copy about twice as fast as many in turn.
 */
#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_POPULATE
#define MAP_POPULATE 0
#endif

#define MAX_SLOTS 4096u
#define MAX_SLOT_SIZE (1u << 20)
#define BEFORE 256u              /* the ring's own struct ends this far before the first slot */

_Static_assert(sizeof(bw_ring) <= BEFORE, "the ring's struct fits before the first slot");

static void *map(size_t size, size_t page)
{
#ifdef __SANITIZE_ADDRESS__
    return aligned_alloc(page, size);   /* so that the sanitizer sees where the arena ends */
#else
    (void)page;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
#endif
}

static void unmap(void *memory, size_t size)
{
#ifdef __SANITIZE_ADDRESS__
    (void)size;
    free(memory);
#else
    munmap(memory, size);
#endif
}

uint8_t *bw_arena_new(uint32_t slots, uint32_t slot_size)
{
    const long asked = sysconf(_SC_PAGESIZE);
    const size_t page = asked > 0 ? (size_t)asked : 4096;
    if (slots == 0 || slots > MAX_SLOTS || slot_size < 64 || slot_size > MAX_SLOT_SIZE)
        return NULL;
    const size_t body = ((size_t)slots * slot_size + page - 1) / page * page;
    const size_t size = page + body;
    uint8_t *base = map(size, page);
    uint32_t *free_slots = calloc(slots, sizeof *free_slots);
    uint8_t *is_leased = calloc(slots, 1);
    if (!base || !free_slots || !is_leased) {
        if (base)
            unmap(base, size);
        free(free_slots);
        free(is_leased);
        return NULL;
    }
    memset(base, 0, size);   /* touches every page, where MAP_POPULATE does not exist */
    uint8_t *arena = base + page;
    bw_ring *ring = (bw_ring *)(void *)(arena - BEFORE);   /* bw_arena_ring, of what is not NULL */
    ring->books.slots = slots;
    ring->books.slot_size = slot_size;
    ring->memory = arena;
    ring->mapped = size;
    ring->header = page;
    ring->free_slots = free_slots;
    ring->is_leased = is_leased;
    ring->free_count = slots;
    for (uint32_t i = 0; i < slots; i++)
        free_slots[i] = slots - 1 - i;   /* slot 0 goes out first */
    atomic_flag_clear(&ring->lock);
    return arena;
}

bw_ring *bw_arena_ring(uint8_t *arena)
{
    return arena ? (bw_ring *)(void *)(arena - BEFORE) : NULL;
}

void bw_arena_free(uint8_t *arena)
{
    bw_ring *ring = bw_arena_ring(arena);
    if (!ring)
        return;
    free(ring->free_slots);
    free(ring->is_leased);
    unmap(arena - ring->header, ring->mapped);
}

static void lock(bw_ring *ring)
{
    while (atomic_flag_test_and_set_explicit(&ring->lock, memory_order_acquire)) {
    }
}

static void unlock(bw_ring *ring)
{
    atomic_flag_clear_explicit(&ring->lock, memory_order_release);
}

int32_t bw_ring_lease(bw_ring *ring)
{
    if (!ring)
        return -EBADF;
    int32_t slot = -ENOBUFS;
    lock(ring);
    if (ring->free_count == 0) {
        ring->books.exhausted++;
    } else {
        slot = (int32_t)ring->free_slots[--ring->free_count];
        ring->is_leased[slot] = 1;
        ring->books.leases++;
        if (++ring->books.leased > ring->books.high_water)
            ring->books.high_water = ring->books.leased;
    }
    unlock(ring);
    return slot;
}

int32_t bw_ring_release(bw_ring *ring, uint32_t slot)
{
    if (!ring)
        return -EBADF;
    if (slot >= ring->books.slots)
        return -ERANGE;
    int32_t result = -EALREADY;
    lock(ring);
    if (ring->is_leased[slot]) {
        ring->is_leased[slot] = 0;
        ring->free_slots[ring->free_count++] = slot;
        ring->books.leased--;
        result = 0;
    }
    unlock(ring);
    return result;
}

int32_t bw_ring_release_all(bw_ring *ring, const uint32_t *slots, uint32_t count)
{
    int32_t result = 0;
    for (uint32_t i = count; i > 0; i--) {   /* backwards, so that the next wake-up takes them in the same order */
        const int32_t one = bw_ring_release(ring, slots[i - 1]);
        if (one < 0)
            result = one;
    }
    return result;
}

void bw_ring_read_books(bw_ring *ring, bw_ring_books *out)
{
    lock(ring);
    *out = ring->books;
    unlock(ring);
}
