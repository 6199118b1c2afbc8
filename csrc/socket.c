/*
 * socket.c: making a UDP socket, its options, and what this machine can do. Support is found by asking for it and reading it
 * back, never from the kernel's version.
 */
#include "address.h"
#include "cmsg.h"
#include "internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int open_udp(int domain)
{
#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
    const int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);
    return fd < 0 ? -errno : fd;
#else
    const int fd = socket(domain, SOCK_DGRAM, IPPROTO_UDP);
    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        const int error = -errno;
        close(fd);
        return error;
    }
    return fd;
#endif
}

static bool set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

/* UDP_SEGMENT is only ever read here: setting it sticks and would cut plain sends to pieces. */
static bool gso_there(int fd)
{
#ifdef UDP_SEGMENT
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &value, &size) == 0;
#else
    (void)fd;
    return false;
#endif
}

/* Kernels before 5.12 take the option but cannot say so, and have known defects with it: those count as without. */
static bool turn_gro_on(int fd)
{
#ifdef UDP_GRO
    int value = 0;
    socklen_t size = sizeof value;
    return set(fd, IPPROTO_UDP, UDP_GRO, 1) && getsockopt(fd, IPPROTO_UDP, UDP_GRO, &value, &size) == 0 && value != 0;
#else
    (void)fd;
    return false;
#endif
}

/* Ask past the system's limit first (that takes CAP_NET_ADMIN); what was granted is what the kernel reports, never what was asked. */
static uint32_t buffer(int fd, int option, int force, uint32_t asked)
{
    const int wanted = asked > INT32_MAX / 2 ? INT32_MAX / 2 : (int)asked;
    if (wanted > 0 && (force == 0 || !set(fd, SOL_SOCKET, force, wanted)))
        (void)set(fd, SOL_SOCKET, option, wanted);
    int granted = 0;
    socklen_t size = sizeof granted;
    if (getsockopt(fd, SOL_SOCKET, option, &granted, &size) != 0 || granted < 0)
        return 0;
    return (uint32_t)granted;
}

static bool has_mmsg(void)
{
#ifdef __linux__
    bw_message none;
    memset(&none, 0, sizeof none);
    return bw_mmsg_send(-1, &none, 1) != -ENOSYS && bw_mmsg_recv(-1, &none, 1) != -ENOSYS;
#else
    return false;
#endif
}

/* Never fragment and never believe an ICMP message about the MTU: RFC 8899 probing decides. At both levels, for a dual socket
 * sends IPv4 too. Any of it may be missing (ENOPROTOOPT, EOPNOTSUPP): then the path's MTU is the kernel's to judge. */
static void dont_fragment(int fd, bool v4, bool v6)
{
#if defined(IP_MTU_DISCOVER) && defined(IP_PMTUDISC_PROBE)
    if (v4)
        (void)set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
#elif defined(IP_DONTFRAG)
    if (v4)
        (void)set(fd, IPPROTO_IP, IP_DONTFRAG, 1);
#else
    (void)v4;
#endif
#if defined(IPV6_MTU_DISCOVER) && defined(IPV6_PMTUDISC_PROBE)
    if (v6)
        (void)set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
#endif
#ifdef IPV6_DONTFRAG
    if (v6)
        (void)set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
#else
    (void)v6;
#endif
}

/* Ask to be told ECN and the local address of what arrives. Whether the kernel takes both for this family. */
static bool ask_for_arrivals(int fd, bool v4, bool v6)
{
    bool source = true;
    if (v4) {
#ifdef IP_RECVTOS
        (void)set(fd, IPPROTO_IP, IP_RECVTOS, 1);   /* on a dual socket too: IPv4 there carries no IPV6_TCLASS */
#endif
        if (!v6) {
#if defined(IP_PKTINFO)
            source = set(fd, IPPROTO_IP, IP_PKTINFO, 1);
#elif defined(IP_RECVDSTADDR)
            source = set(fd, IPPROTO_IP, IP_RECVDSTADDR, 1);
#else
            source = false;
#endif
        }
    }
    if (v6) {
#ifdef IPV6_RECVTCLASS
        (void)set(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
#endif
#ifdef IPV6_RECVPKTINFO
        source = set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
#else
        source = false;
#endif
    }
    return source;
}

uint32_t bw_probe(void)
{
    uint32_t can = 0;
    if (has_mmsg())
        can |= BW_CAN_MMSG;
    int fd = open_udp(AF_INET);
    if (fd >= 0) {
        if (gso_there(fd))
            can |= BW_CAN_GSO;
        if (turn_gro_on(fd))
            can |= BW_CAN_GRO;
        if (ask_for_arrivals(fd, true, false))
            can |= BW_CAN_PKTINFO;
#ifdef IP_RECVTOS
        if (set(fd, IPPROTO_IP, IP_RECVTOS, 1))
            can |= BW_CAN_ECN;
#endif
#ifdef SO_RXQ_OVFL
        if (set(fd, SOL_SOCKET, SO_RXQ_OVFL, 1))
            can |= BW_CAN_DROPS;
#endif
        close(fd);
    }
    fd = open_udp(AF_INET6);
    if (fd >= 0) {
        can |= BW_CAN_IPV6;
        if (set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0))
            can |= BW_CAN_DUAL;
        close(fd);
    }
#ifdef MADV_WIPEONFORK
    bw_counters *counters = bw_counters_new(1);
    if (counters) {
        const long page = sysconf(_SC_PAGESIZE);
        void *memory = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory != MAP_FAILED) {
            if (madvise(memory, (size_t)page, MADV_WIPEONFORK) == 0)
                can |= BW_CAN_WIPE_ON_FORK;
            munmap(memory, (size_t)page);
        }
        bw_counters_free(counters);
    }
#endif
    return can;
}

static bool unspecified(const uint8_t *address)
{
    static const uint8_t zero[16];
    return memcmp(address + 8, zero, address[0] == 4 ? 4 : 16) == 0;
}

static int32_t set_up(bw_socket *s, const uint8_t *address, uint32_t flags, int32_t backend, uint32_t receive_buffer,
                      uint32_t send_buffer)
{
    bw_socket_info *info = &s->info;
    const bool v6 = address[0] == 6;
    const bool dual = v6 && (flags & BW_OPEN_DUAL);
    const bool v4 = !v6 || dual;
    if (address[0] != 4 && address[0] != 6)
        return -EAFNOSUPPORT;
    if (backend != BW_BACKEND_PORTABLE) {
        const bool there = has_mmsg();
        if (backend == BW_BACKEND_MMSG && !there)
            return -ENOTSUP;
        backend = there ? BW_BACKEND_MMSG : BW_BACKEND_PORTABLE;
    }
    const int fd = open_udp(v6 ? AF_INET6 : AF_INET);
    if (fd < 0)
        return fd;
    info->fd = fd;
    info->family = v6 ? 6 : 4;
    info->dual = dual;
    info->backend = backend;
    info->ecn = 1;
    s->send = bw_portable_send;
    s->recv = bw_portable_recv;
#ifdef __linux__
    if (backend == BW_BACKEND_MMSG) {
        s->send = bw_mmsg_send;
        s->recv = bw_mmsg_recv;
        s->can_gso = gso_there(fd);
        info->gso = s->can_gso && (flags & BW_OPEN_GSO);
        s->short_tails = flags & BW_OPEN_SHORT_TAILS;
        info->gro = (flags & BW_OPEN_GRO) && turn_gro_on(fd);
        if (!info->gro)
            (void)set(fd, IPPROTO_UDP, UDP_GRO, 0);
    }
#endif
    if (v6 && !set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !dual))
        return -errno;
    dont_fragment(fd, v4, v6);
    s->source = ask_for_arrivals(fd, v4, v6);
#ifdef IP_RECVERR
    /* Off (the default, made certain): with it, an ICMP error from one dead peer fails the next send to a living one. */
    if (v4)
        (void)set(fd, IPPROTO_IP, IP_RECVERR, 0);
    if (v6)
        (void)set(fd, IPPROTO_IPV6, IPV6_RECVERR, 0);
#endif
#ifdef SO_RXQ_OVFL
    (void)set(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
#endif
#if defined(SO_RCVBUFFORCE) && defined(SO_SNDBUFFORCE)
    info->receive_buffer = buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, receive_buffer);
    info->send_buffer = buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, send_buffer);
#else
    info->receive_buffer = buffer(fd, SO_RCVBUF, 0, receive_buffer);
    info->send_buffer = buffer(fd, SO_SNDBUF, 0, send_buffer);
#endif
    bw_name name;
    const socklen_t length = bw_address_to(&name, address, info->family, dual);
    if (length == 0)
        return -EAFNOSUPPORT;
    if (bind(fd, &name.sa, length) != 0)
        return -errno;
    s->bound = !unspecified(address);
    socklen_t got = sizeof name;
    memset(&name, 0, sizeof name);
    if (getsockname(fd, &name.sa, &got) != 0)
        return -errno;
    return bw_address_from(info->local, &name) ? 0 : -EAFNOSUPPORT;
}

bw_socket *bw_socket_open(const uint8_t *address, uint32_t flags, int32_t backend, uint32_t receive_buffer,
                          uint32_t send_buffer, int32_t *error)
{
    bw_socket *s = calloc(1, sizeof *s);
    if (!s) {
        *error = -ENOMEM;
        return NULL;
    }
    s->info.fd = -1;
    *error = set_up(s, address, flags, backend, receive_buffer, send_buffer);
    if (*error < 0) {
        bw_socket_free(s);
        return NULL;
    }
    return s;
}

void bw_socket_close(bw_socket *socket)
{
    if (socket && socket->info.fd >= 0) {
        close(socket->info.fd);
        socket->info.fd = -1;
    }
}

void bw_socket_free(bw_socket *socket)
{
    bw_socket_close(socket);
    free(socket);
}

const bw_socket_info *bw_socket_look(const bw_socket *socket)
{
    return socket ? &socket->info : NULL;
}

int32_t bw_socket_set_gso(bw_socket *socket, int32_t on)
{
    if (!socket)
        return -EBADF;
    if (on && !socket->can_gso)
        return -ENOTSUP;
    socket->info.gso = on != 0;
    return 0;
}
