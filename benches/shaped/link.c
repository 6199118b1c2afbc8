/*
 * link.c: a link between two network namespaces. What one TUN device sends, the other one receives: after a queue that
 * drops its tail, at a rate, after a delay, with losses drawn from a seed. It knows IP packets, so UDP and TCP pass alike.
 *
 *   link SEED NAMESPACE DEVICE NAMESPACE DEVICE        NAMESPACE: an open file descriptor
 *
 * A TUN device without IFF_VNET_HDR has no offloads: the kernel cuts every train and every TCP segment to the MTU before
 * they come here, and puts none together on the other side. The devices go with this process, and it ends with its input.
 *
 * Each line of its input is an order, each answered by one line of JSON. DIRECTION 0 leads from the first device to the
 * second one.
 *
 *   set DIRECTION KEY VALUE    rate: bytes/s, 0: no limit; delay: ns; queue: bytes, 0: no limit; loss: of 2^32;
 *                              size: bytes; down: 0 or 1; jitter: ns
 *   report                     counters of both directions since the start
 *
 * The queue is counted in bytes that have not left yet. Both of what the rate and what the delay hold lie in one ring, in
 * order: a packet's time is settled when it comes, so that changes are for what comes later. Jitter is what a packet takes
 * at most to get to the queue, uniformly distributed; none overtakes another. Without it, flows whose packets are clocked by
 * this link's own departures lock into phases, and always the same one of them finds the queue full (Floyd and Jacobson,
 * "Traffic phase effects in packet-switched gateways", 1991).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)
#define SLOT 2048u
#define SLOTS (1u << 15)   /* in each direction: 45 MB of full packets */
#define BATCH 64           /* taken from one device before the other one and the timers have their turn */
#define UDP 17
#define TCP 6

enum protocol { IS_UDP, IS_TCP, IS_OTHER, PROTOCOLS };

static const char *const names[PROTOCOLS] = {"udp", "tcp", "other"};

typedef struct {
    uint64_t packets;     /* that came from the device */
    uint64_t bytes;
    uint64_t fragments;   /* of those */
    uint64_t largest;     /* of those, bytes of IP */
    uint64_t full;        /* dropped by the queue */
    uint64_t lost;        /* by chance */
    uint64_t oversize;    /* larger than what passes */
    uint64_t down;        /* while nothing passes */
    uint64_t delivered;
    uint64_t delivered_bytes;
} count;

typedef struct {
    uint64_t due;
    uint32_t length;
    uint32_t protocol;
} entry;

typedef struct {
    int from;
    int to;
    uint64_t rate;
    uint64_t delay;
    uint64_t queue;
    uint64_t loss;
    uint64_t size;
    uint64_t down;
    uint64_t jitter;
    uint64_t came;      /* the last packet, at the queue */
    uint64_t random;
    uint64_t free_at;   /* when the last packet of the queue will have left */
    uint64_t head;
    uint64_t tail;
    entry *entries;
    uint8_t *bytes;
    count counts[PROTOCOLS];
    uint64_t queued;        /* sum over the packets that came, of the bytes that they found in the queue */
    uint64_t queued_most;
    uint64_t arrivals;
    uint64_t late;          /* ns, sum over the packets delivered */
    uint64_t late_most;
    uint64_t refused;       /* by the device */
} direction;

static void die(const char *what)
{
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t clock_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static int open_tun(const char *namespace, const char *device)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    if (strlen(device) >= sizeof request.ifr_name)
        die("the device's name is too long");
    memcpy(request.ifr_name, device, strlen(device));
    if (setns(atoi(namespace), CLONE_NEWNET))
        die("cannot enter the namespace");
    const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        die("/dev/net/tun");
    if (ioctl(fd, TUNSETIFF, &request))
        die("cannot make the device");
    return fd;
}

static direction *open_direction(int from, int to, uint64_t seed)
{
    direction *d = calloc(1, sizeof *d);
    if (!d || !(d->entries = calloc(SLOTS, sizeof *d->entries)) || !(d->bytes = calloc(SLOTS, SLOT)))
        die("no memory");
    d->from = from;
    d->to = to;
    d->size = UINT64_MAX;
    d->random = seed;
    return d;
}

/* SplitMix64 (Steele, Lea, Flood 2014): any seed will do. */
static uint32_t draw(direction *d)
{
    uint64_t z = d->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* Of an IPv6 packet the first header only: the kernel puts a fragment header there, if any. */
static enum protocol classify(const uint8_t *packet, size_t length, bool *fragment)
{
    *fragment = false;
    int kind = -1;
    if (length >= 20 && packet[0] >> 4 == 4) {
        *fragment = (packet[6] & 0x3f) || packet[7];   /* more fragments, or an offset; not "don't fragment" */
        kind = packet[9];
    } else if (length >= 40 && packet[0] >> 4 == 6) {
        *fragment = packet[6] == 44;
        kind = *fragment ? packet[40] : packet[6];
    }
    return kind == UDP ? IS_UDP : kind == TCP ? IS_TCP : IS_OTHER;
}

static void arrive(direction *d, size_t length, uint64_t now)
{
    uint8_t *const packet = d->bytes + (d->tail % SLOTS) * SLOT;
    bool fragment;
    const enum protocol protocol = classify(packet, length, &fragment);
    count *const c = &d->counts[protocol];
    c->packets++;
    c->bytes += length;
    c->fragments += fragment;
    if (length > c->largest)
        c->largest = length;
    if (d->down) {
        c->down++;
        return;
    }
    if (length > d->size) {
        c->oversize++;
        return;
    }
    if (d->loss && draw(d) < d->loss) {
        c->lost++;
        return;
    }
    if (d->jitter) {
        now += draw(d) % d->jitter;
        if (now < d->came)
            now = d->came;
        d->came = now;
    }
    if (d->free_at < now)
        d->free_at = now;
    if (d->rate) {
        const uint64_t waiting = (uint64_t)((double)(d->free_at - now) * (double)d->rate / 1e9);
        d->queued += waiting;
        d->arrivals++;
        if (d->queue && waiting + length > d->queue) {
            c->full++;
            return;
        }
        if (waiting + length > d->queued_most)
            d->queued_most = waiting + length;
        d->free_at += length * SECOND / d->rate;
    }
    uint64_t due = d->free_at + d->delay;
    if (d->tail != d->head && due < d->entries[(d->tail - 1) % SLOTS].due)
        due = d->entries[(d->tail - 1) % SLOTS].due;   /* the delay was made shorter: nothing overtakes */
    d->entries[d->tail % SLOTS] = (entry){due, (uint32_t)length, protocol};
    d->tail++;
}

static void take(direction *d)
{
    for (int i = 0; i < BATCH; i++) {
        if (d->tail - d->head == SLOTS)
            die("more is on its way than fits");
        const ssize_t length = read(d->from, d->bytes + (d->tail % SLOTS) * SLOT, SLOT);
        if (length <= 0)
            return;
        arrive(d, (size_t)length, clock_now());
    }
}

/* When the next packet is due; UINT64_MAX when there is none. */
static uint64_t deliver(direction *d)
{
    while (d->head != d->tail) {
        const entry *e = &d->entries[d->head % SLOTS];
        const uint64_t now = clock_now();
        if (e->due > now)
            return e->due;
        const uint64_t late = now - e->due;
        d->late += late;
        if (late > d->late_most)
            d->late_most = late;
        if (write(d->to, d->bytes + (d->head % SLOTS) * SLOT, e->length) == (ssize_t)e->length) {
            d->counts[e->protocol].delivered++;
            d->counts[e->protocol].delivered_bytes += e->length;
        } else {
            d->refused++;
        }
        d->head++;
    }
    return UINT64_MAX;
}

static void report(direction *const *directions, bool realtime)
{
    printf("{\"realtime\": %s, \"directions\": [", realtime ? "true" : "false");
    for (int i = 0; i < 2; i++) {
        const direction *d = directions[i];
        printf("%s{\"queued\": %" PRIu64 ", \"queued_most\": %" PRIu64 ", \"arrivals\": %" PRIu64 ", \"late\": %" PRIu64
               ", \"late_most\": %" PRIu64 ", \"refused\": %" PRIu64,
               i ? ", " : "", d->queued, d->queued_most, d->arrivals, d->late, d->late_most, d->refused);
        for (int p = 0; p < PROTOCOLS; p++) {
            const count *c = &d->counts[p];
            printf(", \"%s\": {\"packets\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"fragments\": %" PRIu64
                   ", \"largest\": %" PRIu64 ", \"full\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"oversize\": %" PRIu64
                   ", \"down\": %" PRIu64 ", \"delivered\": %" PRIu64 ", \"delivered_bytes\": %" PRIu64 "}",
                   names[p], c->packets, c->bytes, c->fragments, c->largest, c->full, c->lost, c->oversize, c->down,
                   c->delivered, c->delivered_bytes);
        }
        printf("}");
    }
    printf("]}\n");
}

static void order(direction *const *directions, const char *line, bool realtime)
{
    unsigned which = 0;
    char key[16];
    uint64_t value = 0;
    if (strcmp(line, "report") == 0) {
        report(directions, realtime);
    } else if (sscanf(line, "set %u %15s %" SCNu64, &which, key, &value) == 3 && which < 2) {
        direction *d = directions[which];
        uint64_t *const field = strcmp(key, "rate") == 0 ? &d->rate
            : strcmp(key, "delay") == 0                  ? &d->delay
            : strcmp(key, "queue") == 0                  ? &d->queue
            : strcmp(key, "loss") == 0                   ? &d->loss
            : strcmp(key, "size") == 0                   ? &d->size
            : strcmp(key, "down") == 0                   ? &d->down
            : strcmp(key, "jitter") == 0                 ? &d->jitter
                                                         : NULL;
        if (field)
            *field = value;
        printf("{\"set\": %s}\n", field ? "true" : "false");
    } else {
        printf("{\"set\": false}\n");
    }
    fflush(stdout);
}

/* Every whole line of what has come; false at the end of the input. */
static bool listen_to(direction *const *directions, bool realtime)
{
    static char text[4096];
    static size_t held;
    const ssize_t more = read(0, text + held, sizeof text - 1 - held);
    if (more <= 0)
        return false;
    held += (size_t)more;
    text[held] = 0;
    for (char *end; (end = memchr(text, '\n', held));) {
        *end = 0;
        order(directions, text, realtime);
        held -= (size_t)(end + 1 - text);
        memmove(text, end + 1, held);
    }
    return held < sizeof text - 1;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "link SEED NAMESPACE DEVICE NAMESPACE DEVICE\n");
        return 2;
    }
    const uint64_t seed = strtoull(argv[1], NULL, 10);
    const int first = open_tun(argv[2], argv[3]);
    const int second = open_tun(argv[4], argv[5]);
    direction *const directions[2] = {open_direction(first, second, 2 * seed), open_direction(second, first, 2 * seed + 1)};
    /* What is measured across this link must not wait for a busy neighbour; a few percent of one processor suffice. */
    const struct sched_param priority = {.sched_priority = 1};
    const bool realtime = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
    prctl(PR_SET_TIMERSLACK, 1L);
    printf("{\"ready\": true}\n");
    fflush(stdout);
    struct pollfd wait[3] = {{.fd = 0, .events = POLLIN}, {.fd = first, .events = POLLIN}, {.fd = second, .events = POLLIN}};
    for (;;) {
        const uint64_t forth = deliver(directions[0]);
        const uint64_t back = deliver(directions[1]);
        const uint64_t next = forth < back ? forth : back;
        const uint64_t now = clock_now();
        const uint64_t left = next > now ? next - now : 0;
        const struct timespec pause = {.tv_sec = (time_t)(left / SECOND), .tv_nsec = (long)(left % SECOND)};
        if (ppoll(wait, 3, next == UINT64_MAX ? NULL : &pause, NULL) < 0 && errno != EINTR)
            die("cannot wait");
        if (wait[0].revents && !listen_to(directions, realtime))
            return 0;
        if (wait[1].revents & POLLIN)
            take(directions[0]);
        if (wait[2].revents & POLLIN)
            take(directions[1]);
    }
}
