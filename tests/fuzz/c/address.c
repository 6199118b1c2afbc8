/* address.c: addresses of 24 bytes to socket addresses and back, and control messages of any content, cut off as the kernel
 * cuts them: nothing outside is read, and what a socket address says survives the round trip. */
#include "cmsg.h"
#include "fuzz.h"

static void addresses(fuzz_input *in)
{
    uint8_t address[BW_ADDRESS], again[BW_ADDRESS];
    fuzz_bytes(in, address, sizeof address);
    const uint8_t shape = fuzz_u8(in);
    const int32_t family = shape & 1 ? 4 : 6;
    bw_name name;
    const socklen_t size = bw_address_to(&name, address, family, (shape & 2) != 0);
    PROMISE(size == 0 || size == (family == 4 ? sizeof name.in : sizeof name.in6));
    if (size == 0) {
        PROMISE(family == 4 ? address[0] != 4 : address[0] != 6 && !(address[0] == 4 && shape & 2));
        return;
    }
    PROMISE(bw_address_from(again, &name));
    bw_name back;
    PROMISE(again[0] == 4 || again[0] == 6);
    PROMISE(again[0] == 6 || family == 4 || bw_is_mapped((const uint8_t *)&name.in6.sin6_addr));
    PROMISE(memcmp(again + 2, address + 2, 2) == 0);
    /* once brought to its one form, an address stays as it is */
    if (bw_address_to(&back, again, family, true)) {
        uint8_t third[BW_ADDRESS];
        PROMISE(bw_address_from(third, &back) && memcmp(third, again, BW_ADDRESS) == 0);
    }
}

/* Control messages as the kernel writes them (put_cmsg): one that does not fit is cut, its length with it. */
static void control(fuzz_input *in)
{
    const size_t room = fuzz_u8(in) % (BW_CONTROL + 1);
    uint8_t *memory = aligned_alloc(16, (room + 31) / 16 * 16);
    if (!memory)
        abort();
    struct msghdr header = {.msg_control = memory, .msg_controllen = 0};
    size_t used = 0;
    const int levels[] = {IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, SOL_SOCKET};
    const int types[] = {IP_PKTINFO, IP_TOS, IPV6_PKTINFO, IPV6_TCLASS, UDP_GRO, SO_RXQ_OVFL};
    while (in->left && room - used >= sizeof(struct cmsghdr)) {
        const uint8_t what = fuzz_u8(in);
        size_t length = CMSG_LEN(fuzz_u8(in) % 40);
        if (length > room - used)
            length = room - used;
        struct cmsghdr *c = (struct cmsghdr *)(void *)(memory + used);
        memset(c, 0, sizeof *c);
        c->cmsg_level = levels[what & 3];
        c->cmsg_type = (what >> 2 & 7) < 6 ? types[what >> 2 & 7] : fuzz_u8(in);
        c->cmsg_len = length;
        fuzz_bytes(in, CMSG_DATA(c), length - sizeof *c);
        const size_t space = CMSG_SPACE(length - sizeof *c);
        used += space < room - used ? space : room - used;
    }
    header.msg_controllen = used;
    ASAN_POISON_MEMORY_REGION(memory + (used + 7) / 8 * 8, (room + 31) / 16 * 16 - (used + 7) / 8 * 8);
    bw_arrival arrival;
    bw_cmsg_read(&header, &arrival);
    PROMISE(arrival.ecn <= 3);
    PROMISE(arrival.local[0] == 4 || arrival.local[0] == 6 || (arrival.local[0] == 0 && !arrival.has_local));
    ASAN_UNPOISON_MEMORY_REGION(memory, (room + 31) / 16 * 16);
    free(memory);
}

static void written(fuzz_input *in)
{
    bw_control control_bytes;
    struct msghdr header;
    bw_arrival arrival;
    uint8_t local[BW_ADDRESS];
    memset(&header, 0, sizeof header);
    fuzz_bytes(in, local, sizeof local);
    const uint8_t shape = fuzz_u8(in);
    const uint32_t segment = fuzz_u16(in);
    local[0] = shape & 1 ? 4 : 6;
    const bool v6 = (shape & 2) != 0 || local[0] == 6;
    bw_cmsg_write(&header, &control_bytes, local[0] == 6, v6, segment, shape >> 4 & 3, shape & 4 ? local : NULL);
    PROMISE(header.msg_controllen <= BW_CONTROL && (header.msg_control == NULL) == (header.msg_controllen == 0));
    bw_cmsg_read(&header, &arrival);
    PROMISE(arrival.ecn == (shape >> 4 & 3) && arrival.has_local == ((shape & 4) != 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    switch (fuzz_u8(&in) & 3) {
    case 0: addresses(&in); break;
    case 1: written(&in); break;
    default: control(&in);
    }
    return 0;
}
