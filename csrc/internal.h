/*
 * internal.h: what the C files share and Python does not see. Include it first: it sets the feature macros.
 */
#ifndef BW_INTERNAL_H
#define BW_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1            /* struct mmsghdr, SOCK_CLOEXEC, struct in6_pktinfo */
#endif
#ifdef __APPLE__
#define __APPLE_USE_RFC_3542 1   /* IPV6_RECVPKTINFO */
#endif

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "burstwire.h"

/* --- big-endian numbers at any address ---------------------------------------------------------------------------- */

static inline uint32_t bw_get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline uint64_t bw_get64(const uint8_t *p)
{
    return (uint64_t)bw_get32(p) << 32 | bw_get32(p + 4);
}

static inline void bw_put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline void bw_put64(uint8_t *p, uint64_t v)
{
    bw_put32(p, (uint32_t)(v >> 32));
    bw_put32(p + 4, (uint32_t)v);
}

/* --- ring --------------------------------------------------------------------------------------------------------- */

struct bw_ring {
    bw_ring_books books;
    uint8_t *memory;          /* first slot */
    size_t mapped;            /* bytes of the mapping, header page included */
    size_t header;            /* bytes of it before memory */
    uint32_t *free_slots;     /* stack: the top was returned last */
    uint32_t free_count;
    uint8_t *is_leased;       /* one byte a slot */
    atomic_flag lock;         /* held for a few instructions */
};

static inline uint8_t *bw_slot(const bw_ring *ring, uint32_t slot)
{
    return ring->memory + (size_t)slot * ring->books.slot_size;
}

/* Whether [start, start + length) lies in a slot that somebody holds. */
static inline bool bw_range_ok(const bw_ring *ring, uint32_t slot, uint64_t start, uint64_t length)
{
    return slot < ring->books.slots && ring->is_leased[slot] && start <= ring->books.slot_size
        && length <= ring->books.slot_size - start;
}

/* --- sockets ------------------------------------------------------------------------------------------------------ */

#define BW_ADDRESS 24
#define BW_PATH 48

/* Messages of one sendmmsg or recvmmsg. More do not pay: the cost is per message by then, and UIO_MAXIOV bounds them anyway. */
#define BW_MESSAGES 64

/* Room for every control message that we ask for, with space to spare, so that MSG_CTRUNC stays a theory. */
#define BW_CONTROL 256

#ifdef __linux__
typedef struct mmsghdr bw_message;
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned int msg_len;
} bw_message;
#endif

typedef union {
    struct cmsghdr align;
    uint8_t bytes[BW_CONTROL];
} bw_control;

typedef union {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
} bw_name;

/* Send or receive up to n messages: how many were handled, or a negative errno when the very first one failed.
 * An error behind the first shows itself in the next call, which begins with that message. */
typedef int (*bw_exchange)(int fd, bw_message *messages, unsigned int n);

int bw_portable_send(int fd, bw_message *messages, unsigned int n);
int bw_portable_recv(int fd, bw_message *messages, unsigned int n);
#ifdef __linux__
int bw_mmsg_send(int fd, bw_message *messages, unsigned int n);
int bw_mmsg_recv(int fd, bw_message *messages, unsigned int n);
#endif

/* One direction's headers, made once. */
typedef struct {
    bw_message messages[BW_MESSAGES];
    struct iovec vectors[BW_MESSAGES];
    bw_name names[BW_MESSAGES];
    bw_control controls[BW_MESSAGES];
    uint32_t rows[BW_MESSAGES];      /* send: the train; receive: the slot */
} bw_headers;

struct bw_socket {
    bw_socket_info info;
    bool can_gso;
    bool short_tails;          /* BW_OPEN_SHORT_TAILS */
    bool bound;                /* to one address: the kernel needs no hint for the source */
    bool source;               /* the kernel takes a source address with each message */
    uint32_t drops;            /* the kernel's 32-bit count when last seen */
    bw_exchange send;
    bw_exchange recv;
    bw_headers out;
    bw_headers in;
};

#endif
