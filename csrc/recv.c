/*
 * recv.c: messages to runs. A slot holds 64 KiB because a GRO train may; so that single datagrams do not take one each, small
 * messages are moved together, behind one another, in one slot. Packets of one connection that came one by one then form runs
 * as if the kernel had delivered them as a train.
 *
 * Invariants: a slot that holds a run is in batch.held, every other leased one is returned before the end; at most max_slots
 * are leased; at most MESSAGES_A_CALL messages are taken, so that a flood starves nobody; no error is retried for ever.
 */
#include "cmsg.h"
#include "internal.h"

/* Moving 16 KiB (about 1 µs) is cheaper than the system call that another free slot would cost. */
#define PACK_BYTES 16384u

/* About half a millisecond of the kernel's work when each message is one datagram. */
#define MESSAGES_A_CALL 512u

/* Errors that earlier sends left behind (ICMP) come before data; so many are skipped in a call. */
#define ERRORS_A_CALL 16u

/* As in sending: an interrupted call is repeated, but not for ever. */
#define INTERRUPTIONS_A_CALL 16u

typedef struct {
    uint32_t slot;
    uint32_t used;
    bool any;
} packing;

static int take(bw_socket *s, unsigned int n)
{
    unsigned int interruptions = 0;
    for (;;) {
        s->info.stats.recv_calls++;
        const int got = s->recv(s->info.fd, s->in.messages, n);
        if (s->recv == bw_portable_recv && got > 0)   /* and the call that found nothing more */
            s->info.stats.recv_calls += (uint64_t)got - ((unsigned int)got == n);
        if (got == -EINTR && ++interruptions < INTERRUPTIONS_A_CALL)
            continue;
        if (got == -ENOSYS && s->recv != bw_portable_recv) {
            s->recv = bw_portable_recv;
            s->info.stats.mmsg_fallbacks++;
            continue;
        }
        return got == -EINTR ? -EAGAIN : got;
    }
}

/* Everything is set anew each time: the kernel wrote the lengths and flags of the last message here. */
static void prepare(bw_socket *s, const bw_ring *ring, const uint32_t *slots, unsigned int n)
{
    bw_headers *h = &s->in;
    for (unsigned int i = 0; i < n; i++) {
        struct msghdr *header = &h->messages[i].msg_hdr;
        memset(&h->messages[i], 0, sizeof h->messages[i]);
        h->vectors[i].iov_base = bw_slot(ring, slots[i]);
        h->vectors[i].iov_len = ring->books.slot_size;
        header->msg_name = &h->names[i];
        header->msg_namelen = sizeof h->names[i];
        header->msg_iov = &h->vectors[i];
        header->msg_iovlen = 1;
        header->msg_control = h->controls[i].bytes;
        header->msg_controllen = sizeof h->controls[i];
        h->rows[i] = slots[i];
    }
}

/* Whether its slot is in use now. */
static bool deliver(bw_socket *s, bw_ring *ring, bw_batch *batch, unsigned int m, packing *pack)
{
    bw_socket_stats *stats = &s->info.stats;
    bw_message *message = &s->in.messages[m];
    struct msghdr *header = &message->msg_hdr;
    uint32_t length = message->msg_len;
    uint32_t slot = s->in.rows[m];
    uint8_t path[BW_PATH];
    bw_arrival arrival;
    bw_cmsg_read(header, &arrival);

    stats->trains_received++;
    stats->bytes_received += length;
    if (arrival.has_drops) {
        stats->kernel_drops += arrival.drops - s->drops;   /* the kernel counts modulo 2^32 */
        s->drops = arrival.drops;
    }
    if (header->msg_flags & MSG_CTRUNC) {
        stats->control_truncated++;
        if (s->info.gro && arrival.segment == 0)
            return false;   /* one datagram or many? Not known any more */
    }
    if (header->msg_flags & MSG_TRUNC) {
        stats->truncated++;
        length = arrival.segment ? length - length % arrival.segment : 0;   /* whole segments are good */
        if (length == 0)
            return false;
    }
    if (length == 0) {   /* legal, and nothing to us */
        stats->datagrams_received++;
        stats->empty++;
        return false;
    }
    stats->datagrams_received += arrival.segment ? (length + arrival.segment - 1) / arrival.segment : 1;
    if (!bw_address_from(path, &s->in.names[m]))
        return false;
    memcpy(path + BW_ADDRESS, arrival.local, BW_ADDRESS);

    uint32_t start = 0;
    bool own = true;
    const uint32_t size = ring->books.slot_size;
    if (length <= PACK_BYTES && pack->any && length <= size - pack->used) {
        memcpy(bw_slot(ring, pack->slot) + pack->used, bw_slot(ring, slot), length);
        slot = pack->slot;
        start = pack->used;
        pack->used += length;
        stats->packed++;
        own = false;
    }
    const uint64_t lost = batch->overflow;
    if (bw_parse(ring, batch, slot, start, length, arrival.segment, arrival.ecn, path) < 0)
        return false;
    stats->overflow += batch->overflow - lost;
    if (own && (!pack->any || length < pack->used)) {   /* the slot with more room takes what follows */
        pack->slot = slot;
        pack->used = length;
        pack->any = true;
    }
    return own;
}

int32_t bw_recv(bw_socket *socket, bw_ring *ring, bw_batch *batch, uint32_t max_slots)
{
    if (!socket || socket->info.fd < 0 || !ring)
        return -EBADF;
    if (batch->held_count != 0)
        return -EBUSY;
    batch->count = 0;
    if (max_slots > BW_MESSAGES)
        max_slots = BW_MESSAGES;
    if (max_slots > batch->held_capacity)
        max_slots = batch->held_capacity;

    uint32_t slots[BW_MESSAGES];
    uint32_t spare = 0;
    while (spare < max_slots) {
        const int32_t slot = bw_ring_lease(ring);
        if (slot < 0)
            break;
        slots[spare++] = (uint32_t)slot;
    }
    if (spare == 0)
        socket->info.stats.no_slot++;

    packing pack = {0, 0, false};
    uint32_t messages = 0;
    uint32_t errors = 0;
    int32_t result = 0;
    while (spare > 0 && messages < MESSAGES_A_CALL) {
        /* A train has up to 64 runs (more only from a kernel that sends longer trains): ask for what the table can take. */
        const uint32_t room = (batch->capacity - batch->count) / BW_RUN_PACKETS;
        if (room == 0 && batch->count > 0)
            break;
        const unsigned int asked = room == 0 ? 1 : room < spare ? room : spare;
        prepare(socket, ring, slots, asked);
        const int got = take(socket, asked);
        if (got < 0) {
            if (got == -EAGAIN || got == -EWOULDBLOCK || got == -ENOMEM || got == -ENOBUFS)
                break;
            if (got == -EBADF || got == -ENOTSOCK || got == -EFAULT || got == -EINVAL || got == -EACCES) {
                result = got;
                break;
            }
            socket->info.stats.receive_errors++;   /* an ICMP answer to something sent earlier: it ends nothing */
            if (++errors >= ERRORS_A_CALL)
                break;
            continue;
        }
        uint32_t kept = 0;
        for (unsigned int m = 0; m < (unsigned int)got; m++)
            if (!deliver(socket, ring, batch, m, &pack))
                slots[kept++] = socket->in.rows[m];
        for (uint32_t m = (uint32_t)got; m < spare; m++)
            slots[kept++] = slots[m];
        spare = kept;
        messages += (uint32_t)got;
        if ((unsigned int)got < asked)
            break;
    }
    (void)bw_ring_release_all(ring, slots, spare);
    if (result < 0 && batch->count == 0)
        return result;
    return (int32_t)batch->count;
}
