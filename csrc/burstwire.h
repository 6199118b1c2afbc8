/*
 * burstwire.h: the whole C interface of burstwire, and the only header that Python sees.
 *
 * C moves bytes, Python decides. Nothing here knows timers, windows, retries or the lifetime of a key.
 * The text between the two "cdef" marks is handed to cffi as it stands, so it holds declarations and plain integer constants only.
 *
 * Conventions
 *  - A function that can fail returns a negative errno. Every length, index and address range that comes in is checked.
 *  - Nothing is global; an object is used by one thread at a time unless its comment says otherwise.
 *  - An address is 24 bytes: family (4 or 6), 0, port u16, scope u32 (both big-endian), 16 bytes of IP (IPv4 in the first 4).
 *    A path is the remote address followed by the local one (port 0; all zero: the kernel chooses). IPv4-mapped addresses never
 *    cross this interface: they are family 4 on both sides.
 */
#ifndef BURSTWIRE_H
#define BURSTWIRE_H

#include <stddef.h>
#include <stdint.h>

/* cdef begin */

/* --- numbers of the wire format (DATA packets) ------------------------------------------------------------------- */

#define BW_DATA 16               /* type byte of a DATA packet */
#define BW_NO_PACKET 255         /* bw_run.type of a datagram that cannot be what its first byte says */
#define BW_HEADER 13             /* type, connection id u32, counter u64 */
#define BW_TAG 16                /* of every AEAD that the protocol has */
#define BW_STREAM_HEADER 13      /* type, 4-byte stream id, 8-byte offset */
#define BW_RUN_OVERHEAD 42       /* the three together */
#define BW_RUN_PACKETS 64        /* what one mask of 64 bits can describe */
#define BW_GENERATION_BITS 22    /* counter >> 22 is the key generation; a run never spans two */
#define BW_COUNTER_BITS 62       /* counters are smaller than 2^62 */

/* --- ring.c: preallocated slots ---------------------------------------------------------------------------------- */

typedef struct bw_ring bw_ring;

typedef struct {
    uint32_t slots;        /* how many there are */
    uint32_t slot_size;    /* bytes of each */
    uint32_t leased;       /* handed out at this moment */
    uint32_t high_water;   /* the most that ever were */
    uint64_t leases;       /* since the start */
    uint64_t exhausted;    /* how often none was left */
} bw_ring_books;

/* Page-aligned, populated memory of slots * slot_size bytes; NULL when the numbers are out of range or memory is short.
 * The pointer owns everything: the ring that belongs to it lives exactly as long. */
uint8_t *bw_arena_new(uint32_t slots, uint32_t slot_size);
void bw_arena_free(uint8_t *arena);
bw_ring *bw_arena_ring(uint8_t *arena);

/* Any thread may lease and release. The slot returned last is handed out next: it is still in the cache. */
int32_t bw_ring_lease(bw_ring *ring);                  /* a slot, or -ENOBUFS (counted) */
int32_t bw_ring_release(bw_ring *ring, uint32_t slot); /* 0; -ERANGE: no such slot; -EALREADY: it is not leased */
int32_t bw_ring_release_all(bw_ring *ring, const uint32_t *slots, uint32_t count);
void bw_ring_read_books(bw_ring *ring, bw_ring_books *out);

/* --- packet.c: received datagrams to runs ------------------------------------------------------------------------ */

/* Consecutive packets of one connection that lie side by side in a slot. */
typedef struct {
    uint64_t counter;      /* of the first packet; 0 unless DATA */
    uint32_t cid;          /* bytes 1..4, or 0 where there are none */
    uint32_t slot;
    uint32_t start;        /* byte offset in the slot */
    uint16_t size;         /* bytes of each packet */
    uint16_t last;         /* bytes of the last one, at most size */
    uint16_t count;        /* 1 to BW_RUN_PACKETS */
    uint8_t type;          /* first byte, or BW_NO_PACKET */
    uint8_t ecn;           /* 0 to 3 (RFC 3168) */
    uint8_t pad[4];
    uint8_t path[48];
} bw_run;

/* What one wake-up brought: its runs, and the slots that they lie in. The arrays belong to the caller. */
typedef struct {
    bw_run *runs;
    uint32_t *held;
    uint32_t capacity;      /* of runs */
    uint32_t count;
    uint32_t held_capacity; /* of held */
    uint32_t held_count;
    uint64_t overflow;      /* packets dropped because runs was full */
} bw_batch;

/* Append the runs of one train (equal segments, the last may be shorter; segment 0: one datagram). The slot becomes held.
 * Returns how many runs the batch has now. */
int32_t bw_parse(bw_ring *ring, bw_batch *batch, uint32_t slot, uint32_t start, uint32_t length, uint32_t segment,
                 uint8_t ecn, const uint8_t *path);

/* --- packet.c: streams to packets and back ----------------------------------------------------------------------- */

/* Frame one range of a stream's send ring as `count` DATA packets, each with one STREAM frame, and seal them. */
typedef struct {
    uint64_t counter;      /* of the first packet */
    uint64_t offset;       /* stream offset of the first byte */
    uint64_t src;          /* address of the send ring */
    uint64_t src_mask;     /* its size - 1; the size is a power of two */
    uint64_t cipher;       /* address of a bw_cipher that lives until the call returned; 0: they are left unsealed */
    uint32_t cid;
    uint32_t stream;       /* below 2^30: written as a 4-byte varint */
    uint32_t slot;
    uint32_t start;
    uint32_t length;       /* bytes of the stream; 0 only for a lone FIN */
    uint16_t size;         /* bytes of each packet, tag included */
    uint16_t count;
    uint8_t fin;           /* the last packet's frame carries FIN */
    uint8_t pad[3];
    int32_t error;         /* out: 0, -EINVAL: the row breaks a rule, or why it was not sealed */
} bw_fill;

/* Copy the stream bytes of an opened run to its receive ring. */
typedef struct {
    uint64_t mask;         /* packets that were opened */
    uint64_t offset;       /* stream offset that packet 0 has or would have */
    uint64_t dst;          /* address of the receive ring */
    uint64_t dst_mask;     /* its size - 1 */
    uint64_t low;          /* what is below was delivered already */
    uint64_t high;         /* end of the window: nothing is written at or beyond */
    uint32_t stream;
    uint32_t slot;
    uint32_t start;
    uint16_t size;
    uint16_t last;
    uint16_t count;
    uint8_t fin;           /* out: the last packet was taken and carries FIN */
    uint8_t pad[5];
    uint64_t taken;        /* out: packets that held nothing but the expected frame and were copied */
} bw_gather;

/* Both work row by row and return how many rows were done: fewer than count means that the next row breaks a rule, or was
 * not sealed: then nothing of the table may be sent, and the counters of all its rows are used up. */
int32_t bw_fill_runs(bw_ring *ring, bw_fill *rows, uint32_t count);
int32_t bw_gather_runs(bw_ring *ring, bw_gather *rows, uint32_t count);

/* --- socket.c, send.c, recv.c ------------------------------------------------------------------------------------ */

typedef struct bw_socket bw_socket;

#define BW_BACKEND_AUTO 0
#define BW_BACKEND_PORTABLE 1    /* one datagram a system call; POSIX */
#define BW_BACKEND_MMSG 2        /* sendmmsg and recvmmsg, GSO and GRO where the kernel has them; Linux */

#define BW_OPEN_DUAL 1           /* an IPv6 socket that takes IPv4 too */
#define BW_OPEN_GSO 2
#define BW_OPEN_GRO 4
#define BW_OPEN_SHORT_TAILS 8    /* segments by GSO only what ends with a shorter one: some kernels spoil the rest */

#define BW_CAN_MMSG 1
#define BW_CAN_GSO 2
#define BW_CAN_GRO 4
#define BW_CAN_PKTINFO 8
#define BW_CAN_ECN 16
#define BW_CAN_DROPS 32          /* the kernel reports datagrams that it dropped */
#define BW_CAN_IPV6 64
#define BW_CAN_DUAL 128
#define BW_CAN_WIPE_ON_FORK 256

#define BW_BLOCKED_NO 0
#define BW_BLOCKED_AGAIN 1       /* the socket buffer is full: wait until it is writable */
#define BW_BLOCKED_NOBUFS 2      /* a queue below is full and will not say when it drained: wait a while */

#define BW_TRAIN_NO_GSO 1        /* out: the kernel refused to segment this train */
#define BW_TRAIN_NO_SOURCE 2     /* out: the kernel refused its local address, so it left from another */
#define BW_TRAIN_NO_ECN 4        /* out: the kernel refused its ECN mark */
#define BW_TRAIN_SINGLE 8        /* in: one datagram a message, for GSO is known to fail on the way to this destination */

/* Segments for one peer that lie side by side in a slot: at most one shorter, at the end. */
typedef struct {
    uint32_t slot;
    uint32_t start;
    uint32_t length;       /* of all segments */
    uint16_t segment;      /* bytes of each; 0 or >= length: one datagram */
    uint8_t ecn;           /* 0 to 3 */
    uint8_t flags;         /* BW_TRAIN_* */
    uint32_t sent;         /* out: bytes that the kernel took; in: where to go on */
    int32_t error;         /* out: 0, or the negative errno for which the rest was given up */
    uint8_t path[48];
} bw_train;

typedef struct {
    uint64_t send_calls;          /* system calls that send, failed ones included */
    uint64_t recv_calls;
    uint64_t datagrams_sent;
    uint64_t datagrams_received;
    uint64_t bytes_sent;          /* of UDP payload */
    uint64_t bytes_received;
    uint64_t trains_received;     /* messages that the kernel delivered: one, or a GRO train */
    uint64_t trains_refused;      /* trains that ended with an error */
    uint64_t kernel_drops;        /* the receive buffer was full (SO_RXQ_OVFL) */
    uint64_t truncated;           /* longer than a slot */
    uint64_t control_truncated;   /* the control messages did not fit */
    uint64_t empty;               /* datagrams of no bytes */
    uint64_t overflow;            /* packets dropped because the table of runs was full */
    uint64_t receive_errors;      /* errors that an earlier send left on the socket */
    uint64_t no_slot;             /* receive calls that found no free slot */
    uint64_t packed;              /* small messages moved together into one slot */
    uint64_t gso_sends;           /* messages that the kernel was left to segment, and the datagrams in them; */
    uint64_t gso_datagrams;       /* the rest of datagrams_sent left one by one */
    uint64_t gso_fallbacks;       /* trains that the kernel refused to segment; their bytes left one datagram at a time */
    uint64_t ecn_fallbacks;       /* the ECN mark was refused and turned off */
    uint64_t source_fallbacks;    /* trains whose local address was refused */
    uint64_t mmsg_fallbacks;      /* sendmmsg or recvmmsg turned out not to exist */
} bw_socket_stats;

typedef struct {
    int32_t fd;                   /* -1 once closed */
    int32_t family;               /* 4, or 6 */
    int32_t dual;
    int32_t backend;              /* BW_BACKEND_PORTABLE or BW_BACKEND_MMSG */
    int32_t gso;                  /* there, and not switched off */
    int32_t gro;
    int32_t ecn;
    int32_t blocked;              /* why the last bw_send stopped early: BW_BLOCKED_* */
    uint32_t receive_buffer;      /* SO_RCVBUF as the kernel reports it */
    uint32_t send_buffer;
    uint8_t local[24];            /* as bound, with the port that the kernel chose */
    bw_socket_stats stats;
} bw_socket_info;

/* BW_CAN_* of this machine, found by asking the kernel, never by its version. */
uint32_t bw_probe(void);

bw_socket *bw_socket_open(const uint8_t *address, uint32_t flags, int32_t backend, uint32_t receive_buffer,
                          uint32_t send_buffer, int32_t *error);
void bw_socket_close(bw_socket *socket);   /* closes the descriptor; every later call says -EBADF */
void bw_socket_free(bw_socket *socket);
const bw_socket_info *bw_socket_look(const bw_socket *socket);
int32_t bw_socket_set_gso(bw_socket *socket, int32_t on);   /* a switch for all trains; -ENOTSUP */

/* Send rows[first..count). Returns how many trains, from first on, are finished: taken whole, or given up with an error.
 * When the kernel refuses to segment a train, it goes out datagram by datagram (BW_TRAIN_NO_GSO), and so do those behind it
 * to the same IP address, which are marked BW_TRAIN_SINGLE; trains to other addresses are segmented as before. */
int32_t bw_send(bw_socket *socket, bw_ring *ring, bw_train *rows, uint32_t first, uint32_t count);

/* Receive into at most max_slots slots. The batch must hold none. Returns the number of runs; 0: nothing was there. */
int32_t bw_recv(bw_socket *socket, bw_ring *ring, bw_batch *batch, uint32_t max_slots);

/* --- nonce.c: counters that never repeat -------------------------------------------------------------------------- */

typedef struct bw_counters bw_counters;

/* At least `capacity` counters in memory that a fork wipes; any thread may use them. NULL: out of memory. */
bw_counters *bw_counters_new(uint32_t capacity);
void bw_counters_free(bw_counters *counters);
uint32_t bw_counters_capacity(const bw_counters *counters);

/* A counter is used between start and stop. -ERANGE: no such counter; -EOWNERDEAD: this is the child of a fork;
 * -ENOENT: not started; -EOVERFLOW: 2^62 would be reached; -EINVAL: zero counters, or a step backwards. */
int32_t bw_counter_start(bw_counters *counters, uint32_t index);
int32_t bw_counter_stop(bw_counters *counters, uint32_t index);
int64_t bw_counter_reserve(bw_counters *counters, uint32_t index, uint32_t n);   /* the first of n */
int64_t bw_counter_peek(bw_counters *counters, uint32_t index);                   /* the next one */
int32_t bw_counter_skip(bw_counters *counters, uint32_t index, uint64_t value);

/* --- aead.c: packet protection of runs in place, whoever does it ------------------------------------------------ */

#define BW_AEADS 3   /* AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305, in this order */

/* One key of one AEAD (16 bytes for the first, 32 for the others) in the hands of one back end; for one thread at a time.
 * The header of each packet is there; the nonce is header bytes 1..12, the header is what is authenticated beside the payload. */
typedef struct bw_cipher bw_cipher;

void bw_cipher_free(bw_cipher *cipher);   /* wipes the key; NULL is fine */

/* Seal a run in place; tags go to each packet's end. -EINVAL: no such run; -ENOMEM; -EIO: the library refused. After an error
 * the run must not be sent and its counters are used up. */
int32_t bw_seal_run(bw_cipher *cipher, bw_ring *ring, uint32_t slot, uint32_t start, uint32_t size, uint32_t count,
                    uint32_t last);

/* Open those packets of a run whose bit is set; which of them verified. The others of them are wiped. Nothing verifies in
 * what is not a run. */
uint64_t bw_open_run(bw_cipher *cipher, bw_ring *ring, uint32_t slot, uint32_t start, uint32_t size, uint32_t count,
                     uint32_t last, uint64_t mask);

/* The same for runs of any mix of ciphers, in one call. */
typedef struct {
    uint64_t cipher;       /* address of a bw_cipher that lives until the call returned */
    uint64_t mask;         /* open: the packets to open */
    uint64_t opened;       /* out, open: those of them that verified */
    uint32_t slot;
    uint32_t start;
    uint16_t size;         /* bytes of each packet, tag included */
    uint16_t last;         /* of the last one, at most size */
    uint16_t count;
    uint8_t pad[2];
    int32_t error;         /* out: 0, or what bw_seal_run says */
    uint8_t pad2[4];
} bw_protect;

/* Seals row by row and returns how many rows were sealed: fewer than count means that the next row failed, and says why. */
int32_t bw_seal_runs(bw_ring *ring, bw_protect *rows, uint32_t count);

/* Opens every row that can be, whatever the others are like; returns how many rows have no error. */
int32_t bw_open_runs(bw_ring *ring, bw_protect *rows, uint32_t count);

/* --- aead_libcrypto.c: the system's libcrypto, opened at run time -------------------------------------------------- */

typedef struct bw_libcrypto bw_libcrypto;

bw_libcrypto *bw_libcrypto_open(const char *file);          /* NULL: not there, or without what is needed */
void bw_libcrypto_close(bw_libcrypto *lib);                 /* after the last cipher of it was freed */
const char *bw_libcrypto_version(const bw_libcrypto *lib);  /* for people */
bw_cipher *bw_libcrypto_cipher(const bw_libcrypto *lib, uint32_t aead, const uint8_t *key, uint32_t key_size);
                                                            /* NULL: wrong numbers, or no memory */

/* --- aead_ipsecmb.c: Intel's multi-buffer library, opened at run time ----------------------------------------------- */

typedef struct bw_ipsecmb bw_ipsecmb;

uint32_t bw_ipsecmb_major(void);                            /* of the header this was built with; 0: without, so it is absent */
bw_ipsecmb *bw_ipsecmb_open(const char *file);              /* NULL: absent, of another major version, or not for this processor */
void bw_ipsecmb_close(bw_ipsecmb *lib);                     /* after the last cipher of it was freed */
const char *bw_ipsecmb_version(const bw_ipsecmb *lib);      /* for people */
bw_cipher *bw_ipsecmb_cipher(const bw_ipsecmb *lib, uint32_t aead, const uint8_t *key, uint32_t key_size);
                                                            /* NULL: wrong numbers, or no memory */

/* cdef end */

_Static_assert(sizeof(bw_run) == 80, "bw_run is 80 bytes on both sides");
_Static_assert(sizeof(bw_train) == 72, "bw_train is 72 bytes on both sides");
_Static_assert(sizeof(bw_fill) == 72, "bw_fill is 72 bytes on both sides");
_Static_assert(sizeof(bw_gather) == 80, "bw_gather is 80 bytes on both sides");
_Static_assert(sizeof(bw_protect) == 48, "bw_protect is 48 bytes on both sides");
_Static_assert(offsetof(bw_run, path) == 32 && offsetof(bw_train, path) == 24, "no hidden padding before a path");
_Static_assert(offsetof(bw_fill, error) == 68, "no hidden padding in bw_fill");
_Static_assert(offsetof(bw_gather, taken) == 72, "no hidden padding in bw_gather");
_Static_assert(offsetof(bw_protect, error) == 40, "no hidden padding in bw_protect");

#endif
