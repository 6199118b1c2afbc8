/*
 * send.c: trains to messages. One system call for as many trains as fit in its messages; what the kernel does not take is
 * offered again byte for byte, never framed or sealed again.
 *
 * Invariants: train.sent counts exactly the bytes that the kernel took; a train is finished when all were taken or error says
 * why the rest never will be; trains are taken strictly in order, so a return value of n means rows[first .. first + n).
 */
#include "cmsg.h"
#include "internal.h"

/* The least that every kernel with GSO takes (UDP_MAX_SEGMENTS; later ones take 128), and the most bytes that one IP packet
 * can carry as UDP payload: beyond either the kernel answers EINVAL or EMSGSIZE, and the train would be lost. */
#define GSO_SEGMENTS 64u
#define GSO_BYTES_V4 65507u
#define GSO_BYTES_V6 65527u

/* A call that does not wait is hardly ever interrupted; one that always is counts as EAGAIN, so that nothing spins here. */
#define INTERRUPTIONS_A_CALL 16u

static bool finished(const bw_train *t)
{
    return t->error != 0 || (t->length > 0 && t->sent >= t->length);
}

/* 0, or why this row can never be sent. */
static int32_t check(const bw_socket *s, const bw_ring *ring, const bw_train *t)
{
    const uint8_t *remote = t->path;
    const uint8_t *local = t->path + BW_ADDRESS;
    if (t->length == 0 || t->ecn > 3 || !bw_range_ok(ring, t->slot, t->start, t->length))
        return -EINVAL;
    if (t->segment && t->sent % t->segment != 0)
        return -EINVAL;
    if (remote[0] != 4 && !(remote[0] == 6 && s->info.family == 6))
        return -EAFNOSUPPORT;
    if (remote[0] == 4 && s->info.family == 6 && !s->info.dual)
        return -EAFNOSUPPORT;
    if (local[0] != 0 && local[0] != remote[0])
        return -EAFNOSUPPORT;
    return 0;
}

static bool has_source(const bw_socket *s, const bw_train *t)
{
    return s->source && !s->bound && t->path[BW_ADDRESS] != 0 && !(t->flags & BW_TRAIN_NO_SOURCE);
}

static bool has_ecn(const bw_socket *s, const bw_train *t)
{
    return s->info.ecn && t->ecn && !(t->flags & BW_TRAIN_NO_ECN);
}

/* Bytes of the next message of this train. */
static uint32_t next_bytes(const bw_socket *s, const bw_train *t, uint32_t sent, bool gso)
{
    const uint32_t left = t->length - sent;
    const uint32_t segment = t->segment;
    if (segment == 0 || left <= segment)
        return left;
    if (!gso || !s->info.gso || t->flags & (BW_TRAIN_NO_GSO | BW_TRAIN_SINGLE))
        return segment;
    uint32_t segments = (t->path[0] == 4 ? GSO_BYTES_V4 : GSO_BYTES_V6) / segment;
    if (segments > GSO_SEGMENTS)
        segments = GSO_SEGMENTS;
    if (segments == 0)
        segments = 1;   /* too long for any datagram: let the kernel say EMSGSIZE */
    const uint32_t bytes = left < segments * segment ? left : segments * segment;
    return s->short_tails && bytes % segment == 0 ? segment : bytes;
}

/* The last message may hold one segment only: then it goes without UDP_SEGMENT, which some drivers do not take for one. */
static uint32_t gso_size(const bw_train *t, uint32_t bytes)
{
    return t->segment && bytes > t->segment ? t->segment : 0;
}

static void compose(bw_socket *s, const bw_ring *ring, const bw_train *t, unsigned int m, uint32_t sent, uint32_t bytes,
                    bool ecn, bool source)
{
    bw_headers *h = &s->out;
    struct msghdr *header = &h->messages[m].msg_hdr;
    memset(&h->messages[m], 0, sizeof h->messages[m]);
    h->vectors[m].iov_base = bw_slot(ring, t->slot) + t->start + sent;
    h->vectors[m].iov_len = bytes;
    header->msg_iov = &h->vectors[m];
    header->msg_iovlen = 1;
    header->msg_name = &h->names[m];
    header->msg_namelen = bw_address_to(&h->names[m], t->path, s->info.family, s->info.dual != 0);
    bw_cmsg_write(header, &h->controls[m], t->path[0] == 6, s->info.family == 6, gso_size(t, bytes), ecn ? t->ecn : 0,
                  source ? t->path + BW_ADDRESS : NULL);
}

/* Messages for the rows from i on; stops before a row that cannot be sent, so that order is kept. */
static unsigned int fill_messages(bw_socket *s, const bw_ring *ring, bw_train *rows, uint32_t i, uint32_t count)
{
    bw_headers *h = &s->out;
    unsigned int m = 0;
    for (; i < count && m < BW_MESSAGES; i++) {
        bw_train *t = &rows[i];
        if (finished(t))
            continue;
        if (m > 0 && check(s, ring, t) != 0)
            break;
        const bool ecn = has_ecn(s, t);
        const bool source = has_source(s, t);
        uint32_t sent = t->sent;
        bool first = true;
        while (sent < t->length && m < BW_MESSAGES) {
            const uint32_t bytes = next_bytes(s, t, sent, true);
            if (!first && gso_size(t, bytes) == gso_size(t, (uint32_t)h->vectors[m - 1].iov_len)) {
                /* Same destination and same control as the message before: share them. */
                h->messages[m] = h->messages[m - 1];
                h->messages[m].msg_len = 0;
                h->vectors[m].iov_base = bw_slot(ring, t->slot) + t->start + sent;
                h->vectors[m].iov_len = bytes;
                h->messages[m].msg_hdr.msg_iov = &h->vectors[m];
            } else {
                compose(s, ring, t, m, sent, bytes, ecn, source);
            }
            h->rows[m] = i;
            first = false;
            sent += bytes;
            m++;
        }
    }
    return m;
}

/* n messages to the kernel: how many it took, or a negative errno for the first. */
static int transmit(bw_socket *s, unsigned int n)
{
    unsigned int interruptions = 0;
    for (;;) {
        s->info.stats.send_calls++;
        const int sent = s->send(s->info.fd, s->out.messages, n);
        if (s->send == bw_portable_send && sent > 0)   /* and the one that was refused */
            s->info.stats.send_calls += (uint64_t)sent - ((unsigned int)sent == n);
        if (sent == -EINTR && ++interruptions < INTERRUPTIONS_A_CALL)
            continue;
        if (sent == -ENOSYS && s->send != bw_portable_send) {
            s->send = bw_portable_send;
            s->info.stats.mmsg_fallbacks++;
            continue;
        }
        return sent == 0 || sent == -EINTR ? -EAGAIN : sent;
    }
}

static void account(bw_socket *s, bw_train *t, uint32_t bytes)
{
    const uint32_t segment = t->segment ? t->segment : t->length;
    t->sent += bytes;
    s->info.stats.bytes_sent += bytes;
    const uint32_t datagrams = (bytes + segment - 1) / segment;
    s->info.stats.datagrams_sent += datagrams;
    if (datagrams > 1) {
        s->info.stats.gso_sends++;
        s->info.stats.gso_datagrams += datagrams;
    }
}

/* The next segment alone: 1 when it was sent, else a negative errno. */
static int send_one(bw_socket *s, const bw_ring *ring, bw_train *t, bool ecn, bool source)
{
    const uint32_t bytes = next_bytes(s, t, t->sent, false);
    compose(s, ring, t, 0, t->sent, bytes, ecn, source);
    const int sent = transmit(s, 1);
    if (sent == 1)
        account(s, t, bytes);
    return sent;
}

/* What a local address that this machine no longer has looks like: EINVAL, or on later kernels as if there were no route. */
static bool may_be_source(int error)
{
    return error == EINVAL || error == ENETUNREACH || error == EADDRNOTAVAIL;
}

/* What takes the same route: the IP address and its scope decide, not the port. */
static bool same_destination(const bw_train *a, const bw_train *b)
{
    return a->path[0] == b->path[0] && memcmp(a->path + 4, b->path + 4, BW_ADDRESS - 4) == 0;
}

static int32_t blocked(int error)
{
    if (error == EAGAIN || error == EWOULDBLOCK)
        return BW_BLOCKED_AGAIN;
    /* The queue of an interface or the kernel's memory is full. With IP_RECVERR off most such drops look like success. */
    return error == ENOBUFS || error == ENOMEM ? BW_BLOCKED_NOBUFS : BW_BLOCKED_NO;
}

/*
 * The first message, of this train, was refused. EINVAL says little (a device that cannot segment or a local address that is
 * gone; an old kernel that does not take IP_TOS), and EIO hardly more (no checksum offload; some Androids mean IP_TOS). So the
 * same bytes go out again with one suspect less at a time, as one segment; the one whose absence helps is remembered: GSO
 * for this destination in the rest of this call, for the device of another may have it.
 * The other errors are about this packet (EMSGSIZE) or its way (ENETUNREACH, EPERM): the train ends, the next one is tried.
 * Returns false when the socket is blocked.
 */
static bool settle(bw_socket *s, const bw_ring *ring, bw_train *rows, uint32_t row, uint32_t count, int error)
{
    bw_train *t = &rows[row];
    bw_socket_stats *stats = &s->info.stats;
    const bool ecn = has_ecn(s, t);
    const bool source = has_source(s, t);
    int now = error;
    if (source && may_be_source(error) && error != EINVAL) {
        const int sent = send_one(s, ring, t, ecn, false);
        if (sent > 0) {
            t->flags |= BW_TRAIN_NO_SOURCE;
            stats->source_fallbacks++;
            return true;
        }
        now = -sent;
    } else if (error == ECONNREFUSED) {
        /* Not about this packet: an ICMP answer to an earlier one, which the kernel hands over in its place. Once more. */
        const int sent = send_one(s, ring, t, ecn, source);
        if (sent > 0)
            return true;
        now = -sent;
    } else if (error == EINVAL || error == EIO) {
        const bool gso = gso_size(t, next_bytes(s, t, t->sent, true)) != 0;
        const struct {
            bool applies, ecn, source;
        } attempts[] = {
            {gso, ecn, source},
            {ecn, false, source},
            {source, ecn, false},
            {ecn && source, false, false},
        };
        for (unsigned int i = 0; i < sizeof attempts / sizeof *attempts; i++) {
            if (!attempts[i].applies)
                continue;
            const int sent = send_one(s, ring, t, attempts[i].ecn, attempts[i].source);
            if (sent > 0) {
                if (i == 0) {
                    t->flags |= BW_TRAIN_NO_GSO;
                    stats->gso_fallbacks++;
                    for (uint32_t later = row + 1; later < count; later++)
                        if (same_destination(t, &rows[later]))
                            rows[later].flags |= BW_TRAIN_SINGLE;
                }
                if (ecn && !attempts[i].ecn) {
                    s->info.ecn = 0;
                    t->flags |= BW_TRAIN_NO_ECN;
                    stats->ecn_fallbacks++;
                }
                if (source && !attempts[i].source) {
                    /* This address is gone, others are not: the socket goes on naming them. */
                    t->flags |= BW_TRAIN_NO_SOURCE;
                    stats->source_fallbacks++;
                }
                return true;
            }
            now = -sent;
            if (now != EINVAL && now != EIO && !(source && may_be_source(now)))
                break;
        }
    }
    s->info.blocked = blocked(now);
    if (s->info.blocked)
        return false;
    t->error = -now;
    stats->trains_refused++;
    return true;
}

int32_t bw_send(bw_socket *socket, bw_ring *ring, bw_train *rows, uint32_t first, uint32_t count)
{
    if (!socket || socket->info.fd < 0 || !ring)
        return -EBADF;
    if (first > count)
        return -EINVAL;
    socket->info.blocked = BW_BLOCKED_NO;
    uint32_t i = first;
    while (i < count) {
        bw_train *t = &rows[i];
        if (finished(t)) {
            i++;
            continue;
        }
        t->error = check(socket, ring, t);
        if (t->error != 0) {
            socket->info.stats.trains_refused++;
            continue;
        }
        const unsigned int n = fill_messages(socket, ring, rows, i, count);
        const int sent = transmit(socket, n);
        if (sent < 0) {
            if (!settle(socket, ring, rows, i, count, -sent))
                break;
            continue;
        }
        for (int m = 0; m < sent; m++)
            account(socket, &rows[socket->out.rows[m]], (uint32_t)socket->out.vectors[m].iov_len);
    }
    return (int32_t)(i - first);
}
