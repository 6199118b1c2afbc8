/*
 * threads.c: what several threads may do to the C core at the same time, for tools that watch memory: ThreadSanitizer
 * (`make test-tsan`) and valgrind (`make test-valgrind`). Nothing of Python takes part.
 *
 *     threads ROUNDS [race]
 *
 * Threads share one ring and one pool of counters. Each leases slots, frames, seals, opens and gathers packets in them with
 * ciphers of its own, and takes numbers of a counter that all share. A slot that two hold at once, a number that comes twice
 * or a byte that arrives changed ends it; a memory access that is not ordered is what the tools see. With `race` the threads
 * also add to one plain variable, which ThreadSanitizer must report.
 */
#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 4
#define SLOTS 6
#define PACKETS 16
#define SIZE 1200
#define CHUNK (SIZE - BW_HEADER - 13 - BW_TAG)   /* behind the header of the STREAM frame */
#define STREAM 65536
#define LIBRARY "libcrypto.so.3"

#define PROMISE(what)                                                                                                       \
    do {                                                                                                                    \
        if (!(what)) {                                                                                                      \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #what);                                      \
            exit(1);                                                                                                        \
        }                                                                                                                   \
    } while (0)

static bw_ring *ring;
static bw_counters *counters;
static bw_libcrypto *library;        /* NULL: packets are framed and gathered in the clear */
static uint32_t shared_counter;
static uint32_t rounds;
static bool race;
static long sum;
static int holder[SLOTS];            /* plain memory: only who holds the slot may touch it */
static atomic_uchar *taken;          /* by number: how often it was given out */

typedef struct {
    int number;
    pthread_t thread;
} worker;

/* Lays a run with the bytes of `from` into a slot, and brings it to `to`, sealed in between where there is a cipher. */
static void carry(bw_cipher *cipher, uint32_t slot, uint64_t counter, const uint8_t *from, uint8_t *to)
{
    bw_fill fill = {.counter = counter, .src = (uint64_t)(uintptr_t)from, .src_mask = STREAM - 1, .cid = 7, .stream = 4,
                    .slot = slot, .length = PACKETS * CHUNK, .size = SIZE, .count = PACKETS,
                    .cipher = (uint64_t)(uintptr_t)cipher};
    PROMISE(bw_fill_runs(ring, &fill, 1) == 1);
    bw_gather gather = {.mask = (UINT64_C(1) << PACKETS) - 1, .dst = (uint64_t)(uintptr_t)to, .dst_mask = STREAM - 1,
                        .high = STREAM, .stream = 4, .slot = slot, .size = SIZE, .last = SIZE, .count = PACKETS};
    if (cipher)
        PROMISE(bw_open_run(cipher, ring, slot, 0, SIZE, PACKETS, SIZE, gather.mask) == gather.mask);
    PROMISE(bw_gather_runs(ring, &gather, 1) == 1);
    PROMISE(gather.taken == (UINT64_C(1) << PACKETS) - 1);
    PROMISE(memcmp(from, to, PACKETS * CHUNK) == 0);
}

static void *work(void *argument)
{
    const worker *me = argument;
    uint8_t key[32], *from = malloc(STREAM), *to = calloc(1, STREAM);
    PROMISE(from && to);
    for (uint32_t i = 0; i < STREAM; i++)
        from[i] = (uint8_t)(i * 31 + (uint32_t)me->number);
    for (uint32_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(me->number + 1);
    bw_cipher *cipher = NULL;
    for (uint32_t round = 0; round < rounds; round++) {
        if (library && round % 8 == 0) {   /* keys come and go */
            const uint32_t aead = round / 8 % BW_AEADS;
            bw_cipher_free(cipher);
            cipher = bw_libcrypto_cipher(library, aead, key, aead == 0 ? 16 : 32);
            PROMISE(cipher);
        }
        const int64_t first = bw_counter_reserve(counters, shared_counter, PACKETS);
        PROMISE(first >= 0);
        for (uint32_t i = 0; i < PACKETS; i++)
            PROMISE(atomic_fetch_add(&taken[first + i], 1) == 0);
        const int32_t slot = bw_ring_lease(ring);
        if (slot < 0)   /* all are out: more threads than slots have two each */
            continue;
        PROMISE(holder[slot] == 0);
        holder[slot] = me->number + 1;
        carry(cipher, (uint32_t)slot, (uint64_t)first, from, to);
        PROMISE(holder[slot] == me->number + 1);
        holder[slot] = 0;
        PROMISE(bw_ring_release(ring, (uint32_t)slot) == 0);
        if (race)
            sum++;
    }
    bw_cipher_free(cipher);
    free(from);
    free(to);
    return NULL;
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000;
    race = argc > 2 && strcmp(argv[2], "race") == 0;
    uint8_t *arena = bw_arena_new(SLOTS, 65536);
    counters = bw_counters_new(4);
    taken = calloc((size_t)rounds * THREADS * PACKETS, sizeof *taken);
    PROMISE(arena && counters && taken);
    ring = bw_arena_ring(arena);
    library = bw_libcrypto_open(LIBRARY);
    shared_counter = 1;
    PROMISE(bw_counter_start(counters, shared_counter) == 0);
    worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i].number = i;
        PROMISE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        PROMISE(pthread_join(workers[i].thread, NULL) == 0);
    PROMISE(bw_counter_peek(counters, shared_counter) == (int64_t)rounds * THREADS * PACKETS);
    bw_ring_books books;
    bw_ring_read_books(ring, &books);
    PROMISE(books.leased == 0);
    printf("%d threads, %u rounds each: %u numbers, none twice; %s\n", THREADS, rounds, rounds * THREADS * PACKETS,
           library ? "sealed and opened with libcrypto" : "no libcrypto, so in the clear");
    bw_libcrypto_close(library);
    bw_counters_free(counters);
    bw_arena_free(arena);
    free(taken);
    return 0;
}
