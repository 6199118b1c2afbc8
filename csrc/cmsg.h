/*
 * cmsg.h: control messages, written and read. What is easy to get wrong:
 *  - room is CMSG_SPACE, the length written is CMSG_LEN, headers are aligned; no control at all is msg_controllen 0;
 *  - UDP_SEGMENT is a u16 (an int is EINVAL), UDP_GRO arrives as a 4-byte int (two bytes would work on little-endian only);
 *  - IP_TOS arrives as one byte and is sent as an int on Linux, IPV6_TCLASS is an int both ways (a byte is EINVAL);
 *  - to an IPv4-mapped destination IPV6_TCLASS is silently ignored: IP_TOS it must be, on an IPv6 socket too; and what arrives
 *    there from IPv4 carries IP_TOS, but its local address as a mapped IPV6_PKTINFO;
 *  - every message is looked at, and its length is checked before its data is read.
 */
#ifndef BW_CMSG_H
#define BW_CMSG_H

#include "address.h"
#include "internal.h"

#ifdef __linux__
#include <netinet/udp.h>
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_RXQ_OVFL
#define SO_RXQ_OVFL 40
#endif
#endif

static inline void bw_cmsg_put(struct msghdr *header, int level, int type, const void *data, size_t size)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)((uint8_t *)header->msg_control + header->msg_controllen);
    memset(c, 0, CMSG_SPACE(size));
    c->cmsg_level = level;
    c->cmsg_type = type;
#ifdef __linux__
    c->cmsg_len = CMSG_LEN(size);
    header->msg_controllen += CMSG_SPACE(size);
#else
    c->cmsg_len = (socklen_t)CMSG_LEN(size);
    header->msg_controllen += (socklen_t)CMSG_SPACE(size);
#endif
    memcpy(CMSG_DATA(c), data, size);
}

/* segment 0: no GSO. local NULL: the kernel chooses. */
static inline void bw_cmsg_write(struct msghdr *header, bw_control *control, bool to_v6, bool v6_socket, uint32_t segment,
                                 uint32_t ecn, const uint8_t *local)
{
    header->msg_control = control->bytes;
    header->msg_controllen = 0;
#ifdef UDP_SEGMENT
    if (segment) {
        const uint16_t value = (uint16_t)segment;
        bw_cmsg_put(header, IPPROTO_UDP, UDP_SEGMENT, &value, sizeof value);
    }
#else
    (void)segment;
#endif
    if (ecn && to_v6) {
#ifdef IPV6_TCLASS
        const int value = (int)ecn;
        bw_cmsg_put(header, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof value);
#endif
    } else if (ecn) {
#ifdef __linux__
        const int value = (int)ecn;
#else
        const uint8_t value = (uint8_t)ecn;
#endif
        bw_cmsg_put(header, IPPROTO_IP, IP_TOS, &value, sizeof value);
    }
    if (local && v6_socket) {
#ifdef IPV6_PKTINFO
        struct in6_pktinfo info;
        uint8_t ip[16];
        memset(&info, 0, sizeof info);
        if (local[0] == 4) {
            memcpy(ip, bw_mapped_prefix, sizeof bw_mapped_prefix);
            memcpy(ip + 12, local + 8, 4);
        } else {
            memcpy(ip, local + 8, 16);
            info.ipi6_ifindex = bw_get32(local + 4);   /* 0 unless link-local: routing chooses the interface */
        }
        memcpy(&info.ipi6_addr, ip, 16);
        bw_cmsg_put(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
#endif
    } else if (local) {
#if defined(IP_PKTINFO)
        struct in_pktinfo info;
        memset(&info, 0, sizeof info);
        memcpy(&info.ipi_spec_dst, local + 8, 4);
        bw_cmsg_put(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
#elif defined(IP_SENDSRCADDR)
        struct in_addr from;
        memcpy(&from, local + 8, 4);
        bw_cmsg_put(header, IPPROTO_IP, IP_SENDSRCADDR, &from, sizeof from);
#endif
    }
    if (header->msg_controllen == 0)
        header->msg_control = NULL;   /* stale bytes behind a forgotten length are EINVAL */
}

typedef struct {
    uint32_t segment;    /* GRO stride; 0: not said */
    uint8_t ecn;
    bool has_local;
    bool has_drops;
    uint32_t drops;      /* since the socket was made, modulo 2^32 */
    uint8_t local[BW_ADDRESS];
} bw_arrival;

static inline bool bw_cmsg_holds(const struct cmsghdr *c, size_t size)
{
    return c->cmsg_len >= CMSG_LEN(size);
}

static inline void bw_cmsg_read(struct msghdr *header, bw_arrival *out)
{
    memset(out, 0, sizeof *out);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        const uint8_t *data = CMSG_DATA(c);
        if (c->cmsg_level == IPPROTO_IP) {
#if defined(IP_PKTINFO)
            if (c->cmsg_type == IP_PKTINFO && bw_cmsg_holds(c, sizeof(struct in_pktinfo))) {
                /* spec_dst, not addr: for a broadcast addr is no address that an answer could come from */
                bw_address_v4(out->local, data + offsetof(struct in_pktinfo, ipi_spec_dst), 0);
                out->has_local = true;
            }
#elif defined(IP_RECVDSTADDR)
            if (c->cmsg_type == IP_RECVDSTADDR && bw_cmsg_holds(c, 4)) {
                bw_address_v4(out->local, data, 0);
                out->has_local = true;
            }
#endif
            bool is_tos = c->cmsg_type == IP_TOS;
#if defined(IP_RECVTOS) && !defined(__linux__)
            is_tos = is_tos || c->cmsg_type == IP_RECVTOS;   /* BSD answers under the name of the option */
#endif
            if (is_tos && bw_cmsg_holds(c, 1))
                out->ecn = data[0] & 3;
        } else if (c->cmsg_level == IPPROTO_IPV6) {
#ifdef IPV6_PKTINFO
            if (c->cmsg_type == IPV6_PKTINFO && bw_cmsg_holds(c, sizeof(struct in6_pktinfo))) {
                struct in6_pktinfo info;
                memcpy(&info, data, sizeof info);
                bw_address_v6(out->local, &info.ipi6_addr, 0, (uint32_t)info.ipi6_ifindex);
                out->has_local = true;
            }
#endif
#ifdef IPV6_TCLASS
            if (c->cmsg_type == IPV6_TCLASS && bw_cmsg_holds(c, sizeof(int))) {
                int value;
                memcpy(&value, data, sizeof value);
                out->ecn = (uint8_t)(value & 3);
            }
#endif
        }
#ifdef __linux__
        else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO && bw_cmsg_holds(c, sizeof(int))) {
            int value;
            memcpy(&value, data, sizeof value);
            out->segment = value > 0 ? (uint32_t)value : 0;
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL && bw_cmsg_holds(c, sizeof(uint32_t))) {
            memcpy(&out->drops, data, sizeof out->drops);
            out->has_drops = true;
        }
#endif
    }
}

#endif
