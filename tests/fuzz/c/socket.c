/* socket.c: bw_send with rows of any numbers and bw_recv with messages of any kind, over a kernel of the input's making that
 * takes, refuses and delivers what it likes. Every message lies in a leased slot, no byte is offered twice or skipped, and
 * every slot comes back. */
#include "cmsg.h"
#include "fuzz.h"

#define SLOT 16384u
#define SLOTS 4u
#define ROWS 8u

static fuzz_input *kernel;
static bw_ring *ring;
static uint8_t leased;          /* bits: what messages may lie in */
static uint64_t taken;          /* bytes that the kernel took */
static unsigned int calls;

static const int errors[] = {EAGAIN, ENOBUFS, EINVAL, EIO, EMSGSIZE, ECONNREFUSED, ENETUNREACH, EPERM, EINTR, ENOMEM, EBADF};

static void look_at(const bw_message *message)
{
    const struct iovec *v = message->msg_hdr.msg_iov;
    const uint8_t *p = v->iov_base;
    PROMISE(message->msg_hdr.msg_iovlen == 1 && v->iov_len > 0);
    PROMISE(p >= ring->memory && p < ring->memory + (size_t)SLOTS * SLOT);
    const size_t at = (size_t)(p - ring->memory);
    PROMISE(leased >> at / SLOT & 1 && at % SLOT + v->iov_len <= SLOT);
}

static int send_some(int fd, bw_message *messages, unsigned int n)
{
    (void)fd;
    PROMISE(n >= 1 && n <= BW_MESSAGES && calls++ < 100000);
    for (unsigned int i = 0; i < n; i++) {
        look_at(&messages[i]);
        PROMISE(messages[i].msg_hdr.msg_namelen > 0 && messages[i].msg_hdr.msg_controllen <= BW_CONTROL);
    }
    if (kernel->left == 0) {
        for (unsigned int i = 0; i < n; i++)
            taken += messages[i].msg_hdr.msg_iov->iov_len;
        return (int)n;
    }
    const uint8_t answer = fuzz_u8(kernel);
    if (answer & 1)
        return -errors[(answer >> 1) % (sizeof errors / sizeof *errors)];
    const unsigned int some = answer >> 1 < n ? answer >> 1 : n;
    for (unsigned int i = 0; i < some; i++)
        taken += messages[i].msg_hdr.msg_iov->iov_len;
    return (int)some;
}

static int receive_some(int fd, bw_message *messages, unsigned int n)
{
    (void)fd;
    PROMISE(n >= 1 && n <= BW_MESSAGES && calls++ < 100000);
    if (kernel->left == 0)
        return -EAGAIN;
    const uint8_t answer = fuzz_u8(kernel);
    if (answer & 1)
        return -errors[(answer >> 1) % (sizeof errors / sizeof *errors)];
    const unsigned int some = answer >> 1 < n ? answer >> 1 : n;
    for (unsigned int i = 0; i < some; i++) {
        struct msghdr *h = &messages[i].msg_hdr;
        const uint8_t kind = fuzz_u8(kernel);
        uint32_t length = (uint32_t)fuzz_number(kernel, kind & 1 ? SLOT : 100);
        const uint32_t room = (uint32_t)h->msg_iov->iov_len;
        PROMISE(room == SLOT && h->msg_controllen == BW_CONTROL);
        h->msg_flags = kind & 2 ? MSG_CTRUNC : 0;
        if (length > room) {
            length = room;
            h->msg_flags |= MSG_TRUNC;
        }
        uint8_t *p = h->msg_iov->iov_base;
        const uint8_t first = fuzz_u8(kernel), step = fuzz_u8(kernel);
        const int segment = kind & 4 ? (int)fuzz_number(kernel, length) : 0;
        for (uint32_t at = 0, k = 0; at < length; at += step + 13u, k++) {
            p[at] = kind & 8 ? BW_DATA : first;
            if (at + BW_HEADER <= length) {
                bw_put32(p + at + 1, first & 1);
                bw_put64(p + at + 5, k);
            }
        }
        messages[i].msg_len = length;
        bw_name *name = h->msg_name;
        memset(name, 0, sizeof *name);
        name->sa.sa_family = kind & 16 ? AF_INET : kind & 32 ? AF_INET6 : AF_UNIX;
        name->in.sin_port = first;
        struct msghdr control = {.msg_control = h->msg_control, .msg_controllen = 0};
        if (kind & 4)
            bw_cmsg_put(&control, IPPROTO_UDP, UDP_GRO, &segment, sizeof segment);
        if (kind & 64) {
            const int tos = first;
            bw_cmsg_put(&control, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
        }
        h->msg_controllen = control.msg_controllen;
    }
    return (int)some;
}

static void sending(fuzz_input *in, bw_socket *s)
{
    bw_train rows[ROWS];
    memset(rows, 0, sizeof rows);
    const uint32_t count = 1 + fuzz_u8(in) % ROWS;
    uint64_t asked = 0;
    for (uint32_t i = 0; i < count; i++) {
        bw_train *t = &rows[i];
        const uint8_t shape = fuzz_u8(in);
        t->slot = shape & 1 ? fuzz_u8(in) & 3 : (uint32_t)fuzz_number(in, SLOTS);
        t->start = shape & 2 ? fuzz_u8(in) : (uint32_t)fuzz_number(in, SLOT);
        t->length = (uint32_t)fuzz_number(in, shape & 4 ? SLOT - 256 : 100);
        t->segment = (uint16_t)(shape & 8 ? fuzz_u8(in) + 1u : fuzz_number(in, t->length));
        t->ecn = shape & 16 ? fuzz_u8(in) : 0;
        t->path[0] = shape & 32 ? 4 : fuzz_u8(in) & 7;
        t->path[BW_ADDRESS] = shape & 64 ? t->path[0] : fuzz_u8(in) & 7;
        if (fuzz_u8(in) == 0x33)
            t->sent = (uint32_t)fuzz_number(in, t->length);
        asked += t->sent;
    }
    const uint32_t first = fuzz_u8(in) == 0x44 ? (uint32_t)fuzz_number(in, count) : 0;
    taken = 0;
    const int32_t done = bw_send(s, ring, rows, first, count);
    if (first > count) {
        PROMISE(done == -EINVAL);
        return;
    }
    PROMISE(done >= 0 && (uint32_t)done <= count - first);
    PROMISE((uint32_t)done == count - first || s->info.blocked != BW_BLOCKED_NO);
    uint64_t sent = 0;
    for (uint32_t i = 0; i < count; i++) {
        const bw_train *t = &rows[i];
        sent += t->sent;
        PROMISE(t->error <= 0);
        if (i >= first && i < first + (uint32_t)done)
            PROMISE(t->error != 0 || t->sent >= t->length);
    }
    PROMISE(sent - asked == taken && s->info.stats.bytes_sent == taken);
}

static void receiving(fuzz_input *in, bw_socket *s)
{
    bw_run runs[130];
    uint32_t held[SLOTS];
    const uint32_t held_capacity = fuzz_u8(in) % (SLOTS + 1), capacity = 1 + fuzz_u8(in) % 130u;
    bw_batch batch = {.runs = runs, .held = held, .capacity = capacity, .held_capacity = held_capacity};
    const uint32_t max_slots = fuzz_u8(in) & 7;
    const uint32_t before = ring->books.leased;
    const int32_t count = bw_recv(s, ring, &batch, max_slots);
    PROMISE(batch.held_count <= held_capacity && batch.held_count <= max_slots);
    PROMISE(ring->books.leased == before + batch.held_count);
    PROMISE(count < 0 ? batch.count == 0 && batch.held_count == 0 : (uint32_t)count == batch.count && batch.count <= capacity);
    for (uint32_t i = 0; i < batch.count; i++)
        PROMISE(bw_range_ok(ring, runs[i].slot, runs[i].start, (uint64_t)runs[i].size * (runs[i].count - 1u) + runs[i].last));
    PROMISE(bw_ring_release_all(ring, held, batch.held_count) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    const uint8_t shape = fuzz_u8(&in);
    bw_socket *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    leased = shape & 1 ? fuzz_u8(&in) & 15 : 15;
    uint8_t *arena = bw_arena_new(SLOTS, SLOT);
    ring = bw_arena_ring(arena);
    for (uint32_t i = 0; i < SLOTS; i++)
        (void)bw_ring_lease(ring);
    s->info.fd = 0;   /* never used: the kernel is here */
    s->info.family = shape & 2 ? 6 : 4;
    s->info.dual = shape >> 2 & 1;
    s->info.gso = s->info.gro = shape >> 3 & 1;
    s->info.ecn = shape >> 4 & 1;
    s->bound = shape >> 5 & 1;
    s->source = shape >> 6 & 1;
    s->send = send_some;
    s->recv = receive_some;
    kernel = &in;
    calls = 0;
    if (shape & 128) {
        for (uint32_t i = 0; i < SLOTS; i++)
            if (leased >> i & 1)
                (void)bw_ring_release(ring, i);
        receiving(&in, s);
    } else {
        for (uint32_t i = 0; i < SLOTS; i++)
            if (!(leased >> i & 1))
                (void)bw_ring_release(ring, i);
        sending(&in, s);
    }
    bw_arena_free(arena);
    free(s);
    return 0;
}
