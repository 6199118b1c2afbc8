/*
 * address.h: 24-byte addresses to socket addresses and back. IPv4-mapped IPv6 exists only between the kernel and this file:
 * it is made when an IPv6 socket sends to IPv4, and undone when something arrives.
 */
#ifndef BW_ADDRESS_H
#define BW_ADDRESS_H

#include "internal.h"

static const uint8_t bw_mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static inline bool bw_is_link_local(const uint8_t *ip6)
{
    return ip6[0] == 0xfe && (ip6[1] & 0xc0) == 0x80;
}

static inline bool bw_is_mapped(const uint8_t *ip6)
{
    return memcmp(ip6, bw_mapped_prefix, sizeof bw_mapped_prefix) == 0;
}

static inline void bw_address_v4(uint8_t *address, const void *ip4, uint16_t port_be)
{
    memset(address, 0, BW_ADDRESS);
    address[0] = 4;
    memcpy(address + 2, &port_be, 2);
    memcpy(address + 8, ip4, 4);
}

static inline void bw_address_v6(uint8_t *address, const void *ip6, uint16_t port_be, uint32_t scope)
{
    const uint8_t *ip = ip6;
    if (bw_is_mapped(ip)) {
        bw_address_v4(address, ip + 12, port_be);
        return;
    }
    memset(address, 0, BW_ADDRESS);
    address[0] = 6;
    memcpy(address + 2, &port_be, 2);
    if (bw_is_link_local(ip))
        bw_put32(address + 4, scope);
    memcpy(address + 8, ip, 16);
}

/* False: a family that no socket of ours has. */
static inline bool bw_address_from(uint8_t *address, const bw_name *name)
{
    if (name->sa.sa_family == AF_INET) {
        bw_address_v4(address, &name->in.sin_addr, name->in.sin_port);
        return true;
    }
    if (name->sa.sa_family == AF_INET6) {
        bw_address_v6(address, &name->in6.sin6_addr, name->in6.sin6_port, name->in6.sin6_scope_id);
        return true;
    }
    return false;
}

/* Length of the socket address, or 0 when the address does not suit a socket of this family. */
static inline socklen_t bw_address_to(bw_name *name, const uint8_t *address, int32_t socket_family, bool dual)
{
    memset(name, 0, sizeof *name);
    if (socket_family == 4) {
        if (address[0] != 4)
            return 0;
        name->in.sin_family = AF_INET;
        memcpy(&name->in.sin_port, address + 2, 2);
        memcpy(&name->in.sin_addr, address + 8, 4);
        return sizeof name->in;
    }
    uint8_t ip[16];
    if (address[0] == 6) {
        memcpy(ip, address + 8, 16);
        name->in6.sin6_scope_id = bw_get32(address + 4);
    } else if (address[0] == 4 && dual) {
        memcpy(ip, bw_mapped_prefix, sizeof bw_mapped_prefix);
        memcpy(ip + 12, address + 8, 4);
    } else {
        return 0;
    }
    name->in6.sin6_family = AF_INET6;
    memcpy(&name->in6.sin6_port, address + 2, 2);
    memcpy(&name->in6.sin6_addr, ip, 16);
    return sizeof name->in6;
}

#endif
