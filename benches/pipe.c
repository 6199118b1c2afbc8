/*
 * pipe.c: the same pipe without reliability, all in C: trains framed from a ring, sealed in place and sent with GSO; received
 * with GRO, opened in place and copied to a reused buffer, one loop a process, with a credit window and nothing else. It is
 * linked with the C core as it stands, so what Python adds to that is what burstwire is slower than this.
 *
 *   pipe SIZE BACKEND FILE serve                       answers orders until its input ends
 *   pipe SIZE BACKEND FILE run CONTROL DATA COUNT ALL  one transfer; ALL 1: every byte is compared
 *
 * FILE is the back end's library, as the dynamic linker finds it.
 *
 * Both print one line of JSON, as benches/pipe.py does; see there for the window and the sizes.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WINDOW (UINT64_C(1) << 20)
#define CREDIT (WINDOW / 8)
#define FLIGHT 8
#define SOURCE (1u << 20)
#define TARGET (1u << 19)
#define SAMPLE 32u
#define PATIENCE 5000
#define SLOTS 16
#define SLOT_SIZE 65536
#define RUNS 1024
#define BUFFER (4u << 20)

static char failure[200];

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (!failure[0])
        vsnprintf(failure, sizeof failure, format, arguments);
    va_end(arguments);
}

static void die(const char *what)
{
    fprintf(stderr, "pipe: %s%s%s\n", what, failure[0] ? ": " : "", failure);
    exit(1);
}

static bw_cipher *make_cipher(const char *backend, const char *file)
{
    static const uint8_t key[16];   /* it protects nothing */
    bw_cipher *made = NULL;
    if (strcmp(backend, "libcrypto") == 0) {
        const bw_libcrypto *lib = bw_libcrypto_open(file);
        made = lib ? bw_libcrypto_cipher(lib, 0, key, sizeof key) : NULL;
    }
    if (strcmp(backend, "ipsec-mb") == 0) {
        const bw_ipsecmb *lib = bw_ipsecmb_open(file);
        made = lib ? bw_ipsecmb_cipher(lib, 0, key, sizeof key) : NULL;
    }
    if (!made)
        die("this back end is not there");
    return made;
}

static uint8_t *make_source(void)
{
    uint8_t *source = malloc(SOURCE);
    if (!source)
        die("no memory");
    uint64_t state = 1;
    for (size_t i = 0; i < SOURCE; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        source[i] = (uint8_t)(state >> 56);
    }
    return source;
}

static void loopback(uint8_t *path, uint16_t port)   /* 24 bytes */
{
    memset(path, 0, BW_ADDRESS);
    path[0] = 4;
    path[2] = (uint8_t)(port >> 8);
    path[3] = (uint8_t)port;
    path[8] = 127;
    path[11] = 1;
}

static bw_socket *open_udp(void)
{
    uint8_t address[BW_ADDRESS];
    int32_t error = 0;
    loopback(address, 0);
    bw_socket *udp = bw_socket_open(address, BW_OPEN_GSO | BW_OPEN_GRO, BW_BACKEND_AUTO, BUFFER, BUFFER, &error);
    if (!udp)
        die("no socket");
    return udp;
}

static int open_plain(int type, uint16_t *port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    const int fd = socket(AF_INET, type, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&name, length) || getsockname(fd, (struct sockaddr *)&name, &length))
        die("no plain socket");
    *port = ntohs(name.sin_port);
    return fd;
}

static int connect_to(int fd, uint16_t port)
{
    const struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(fd, (const struct sockaddr *)&name, sizeof name);
}

static bool readable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, PATIENCE) == 1;
}

static bool same(const uint8_t *target, const uint8_t *source, uint64_t offset, uint64_t length)
{
    for (const uint64_t end = offset + length; offset < end; offset++)
        if (target[offset & (TARGET - 1)] != source[offset & (SOURCE - 1)])
            return false;
    return true;
}

/* Both ends of a run, or all of it. */
static bool arrived(const uint8_t *target, const uint8_t *source, uint64_t offset, uint64_t length, bool all)
{
    const uint64_t n = length < SAMPLE || all ? length : SAMPLE;
    return same(target, source, offset, n) && same(target, source, offset + length - n, n);
}

typedef struct {
    bw_socket *udp;
    bw_ring *ring;
    bw_cipher *cipher;
    uint32_t size;
    uint8_t *source;
} side;

static side make_side(uint32_t size, const char *backend, const char *file)
{
    uint8_t *arena = bw_arena_new(SLOTS, SLOT_SIZE);
    if (!arena)
        die("no memory");
    const side made = {open_udp(), bw_arena_ring(arena), make_cipher(backend, file), size, make_source()};
    return made;
}

/* --- receiving ---------------------------------------------------------------------------------------------------- */

static uint64_t receive(const side *s, uint64_t count, int credit, bool all)
{
    static bw_run runs[RUNS];
    static bw_gather rows[RUNS];
    static uint32_t held[BW_MESSAGES];
    static uint8_t target[TARGET];
    bw_batch batch = {.runs = runs, .held = held, .capacity = RUNS, .held_capacity = BW_MESSAGES};
    const uint64_t payload = s->size - BW_RUN_OVERHEAD;
    uint64_t got = 0;
    uint64_t reported = 0;
    while (got < count && !failure[0]) {
        const int32_t n = bw_recv(s->udp, s->ring, &batch, FLIGHT);
        if (n < 0)
            fail("cannot receive: %d", (int)n);
        if (n == 0 && !readable(bw_socket_look(s->udp)->fd))
            fail("%" PRIu64 " of %" PRIu64 " bytes came, then nothing for long", got, count);
        for (int32_t i = 0; i < n; i++) {
            const bw_run *run = &runs[i];
            const uint64_t mask = run->count == 64 ? UINT64_MAX : (UINT64_C(1) << run->count) - 1;
            const uint64_t offset = run->counter * payload;
            const uint64_t length = (run->count - 1u) * payload + run->last - BW_RUN_OVERHEAD;
            if (bw_open_run(s->cipher, s->ring, run->slot, run->start, run->size, run->count, run->last, mask) != mask)
                fail("not every packet from %" PRIu64 " on could be opened", run->counter);
            rows[i] = (bw_gather){
                .mask = mask, .offset = offset, .dst = (uint64_t)(uintptr_t)target, .dst_mask = TARGET - 1, .low = offset,
                .high = offset + length, .stream = 4, .slot = run->slot, .start = run->start, .size = run->size,
                .last = run->last, .count = run->count};
        }
        if (n > 0 && bw_gather_runs(s->ring, rows, (uint32_t)n) != n)
            fail("a run was not one of the stream");
        for (int32_t i = 0; i < n; i++) {
            const uint64_t length = rows[i].high - rows[i].low;
            if (rows[i].taken != rows[i].mask || !arrived(target, s->source, rows[i].offset, length, all))
                fail("wrong bytes at offset %" PRIu64, rows[i].offset);
            got += length;
        }
        if (n > 0 && bw_ring_release_all(s->ring, held, batch.held_count) != 0)
            fail("the books do not balance");
        batch.held_count = 0;
        if (got - reported >= CREDIT || got >= count) {
            uint8_t message[8];
            bw_put64(message, got);
            if (send(credit, message, sizeof message, 0) != sizeof message)
                fail("no credit could be sent");
            reported = got;
        }
    }
    return got;
}

static void serve(const side *s)
{
    uint16_t control = 0;
    const int listener = open_plain(SOCK_STREAM, &control);
    if (listen(listener, 4))
        die("cannot listen");
    const uint8_t *local = bw_socket_look(s->udp)->local;
    printf("{\"control\": %u, \"port\": %u}\n", control, (unsigned)(local[2] << 8 | local[3]));
    fflush(stdout);
    struct pollfd wait[2] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    while (poll(wait, 2, -1) > 0) {
        char text[128];
        if (wait[0].revents) {
            if (read(0, text, sizeof text) <= 0)
                return;
            printf(failure[0] ? "{\"failures\": [\"%s\"]}\n" : "{\"failures\": []}\n", failure);
            fflush(stdout);
        }
        if (!(wait[1].revents & POLLIN))
            continue;
        uint64_t order[3];   /* bytes, the credit's port, whether all of them are compared; both sides are one machine */
        uint16_t own = 0;
        const int connection = accept(listener, NULL, NULL);
        const int credit = open_plain(SOCK_DGRAM, &own);
        if (connection < 0 || recv(connection, order, sizeof order, MSG_WAITALL) != sizeof order
            || connect_to(credit, (uint16_t)order[1]) || send(connection, "g", 1, 0) != 1)
            die("no order");
        const uint64_t got = failure[0] ? 0 : receive(s, order[0], credit, order[2] != 0);
        if (send(connection, &got, sizeof got, 0) != sizeof got)
            fail("the sender has gone");
        close(credit);
        close(connection);
    }
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static void flight(const side *s, bw_counters *counters, uint8_t *path, uint64_t offset, uint64_t length, uint32_t n,
                   uint64_t each)
{
    bw_fill fills[FLIGHT];
    bw_train trains[FLIGHT];
    const uint64_t payload = s->size - BW_RUN_OVERHEAD;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t bytes = length < each ? length : each;
        const uint32_t packets = (uint32_t)((bytes + payload - 1) / payload);
        const uint32_t whole = (uint32_t)(bytes + (uint64_t)packets * BW_RUN_OVERHEAD);
        const int32_t slot = bw_ring_lease(s->ring);
        const int64_t first = bw_counter_reserve(counters, 0, packets);
        if (slot < 0 || first < 0)
            die("no slot or no counter");
        fills[i] = (bw_fill){
            .counter = (uint64_t)first, .offset = offset, .src = (uint64_t)(uintptr_t)s->source, .src_mask = SOURCE - 1,
            .cid = 7, .stream = 4, .slot = (uint32_t)slot, .length = (uint32_t)bytes, .size = (uint16_t)s->size,
            .count = (uint16_t)packets};
        trains[i] = (bw_train){.slot = (uint32_t)slot, .length = whole, .segment = (uint16_t)s->size};
        memcpy(trains[i].path, path, BW_PATH);
        offset += bytes;
        length -= bytes;
    }
    if (bw_fill_runs(s->ring, fills, n) != (int32_t)n)
        die("cannot frame");
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t last = trains[i].length - (fills[i].count - 1u) * s->size;
        if (bw_seal_run(s->cipher, s->ring, fills[i].slot, 0, s->size, fills[i].count, last) != 0)
            die("cannot seal");
    }
    for (uint32_t done = 0; done < n;) {
        const int32_t more = bw_send(s->udp, s->ring, trains, done, n);
        if (more < 0)
            die("cannot send");
        done += (uint32_t)more;
        struct pollfd wait = {.fd = bw_socket_look(s->udp)->fd, .events = POLLOUT};
        if (done < n && poll(&wait, 1, PATIENCE) != 1)
            die("the socket takes no more");
    }
    for (uint32_t i = 0; i < n; i++)
        if (trains[i].error || bw_ring_release(s->ring, trains[i].slot) != 0)
            die("a train was refused");
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void run(const side *s, const char *backend, uint16_t control, uint16_t data, uint64_t count, bool all)
{
    uint8_t path[BW_PATH] = {0};
    uint16_t port = 0;
    const int credit = open_plain(SOCK_DGRAM, &port);
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    const uint64_t order[3] = {count, port, all};
    char go = 0;
    loopback(path, data);
    bw_counters *counters = bw_counters_new(1);
    if (!counters || bw_counter_start(counters, 0) != 0 || connect_to(connection, control)
        || send(connection, order, sizeof order, 0) != sizeof order || recv(connection, &go, 1, MSG_WAITALL) != 1)
        die("no receiver");
    const uint64_t payload = s->size - BW_RUN_OVERHEAD;
    uint64_t packets = 65507 / s->size;
    packets = packets < BW_RUN_PACKETS ? packets : BW_RUN_PACKETS;
    const uint64_t each = packets * payload;
    uint64_t sent = 0;
    uint64_t acknowledged = 0;
    const double started = now();
    while (acknowledged < count) {
        uint64_t n = (WINDOW - (sent - acknowledged)) / each;
        const uint64_t left = (count - sent + each - 1) / each;
        n = n < FLIGHT ? n : FLIGHT;
        n = n < left ? n : left;
        if (n > 0) {
            const uint64_t length = n * each < count - sent ? n * each : count - sent;
            flight(s, counters, path, sent, length, (uint32_t)n, each);
            sent += length;
        } else {
            uint8_t message[8];
            if (!readable(credit) || recv(credit, message, sizeof message, 0) != sizeof message)
                die("no credit came");
            acknowledged = bw_get64(message);
        }
    }
    uint64_t got = 0;
    if (recv(connection, &got, sizeof got, MSG_WAITALL) != sizeof got || got != count)
        die("not everything arrived");
    const double seconds = now() - started;
    const bw_socket_info *info = bw_socket_look(s->udp);
    printf("{\"task\": \"bulk\", \"count\": %" PRIu64 ", \"seconds\": %.9f, \"rate\": %.3f, \"about\": {\"aead\": \"%s\", "
           "\"datagram\": %u, \"window\": %" PRIu64 ", \"datagrams\": %" PRIu64 ", \"receive_buffer\": %u, "
           "\"send_buffer\": %u}}\n",
           count, seconds, (double)count / seconds, backend, s->size, WINDOW, info->stats.datagrams_sent,
           info->receive_buffer, info->send_buffer);
}

int main(int argc, char **argv)
{
    const uint32_t size = argc > 4 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    if (size < 64 || size > 65507 || (strcmp(argv[4], "serve") != 0 && argc != 9))
        die("SIZE BACKEND FILE serve | SIZE BACKEND FILE run CONTROL DATA COUNT ALL");
    const side made = make_side(size, argv[2], argv[3]);
    if (argc != 9)
        serve(&made);
    else
        run(&made, argv[2], (uint16_t)strtoul(argv[5], NULL, 10), (uint16_t)strtoul(argv[6], NULL, 10),
            strtoull(argv[7], NULL, 10), strcmp(argv[8], "1") == 0);
    return 0;
}
