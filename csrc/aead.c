/*
 * aead.c: runs to be sealed or opened are checked here, cut into packets, and handed to the back end that holds the key.
 * The back ends are the files aead_*.c.
 *
 * A packet whose tag does not verify is wiped, so that nobody can take unverified bytes for plaintext.
 */
#include "aead.h"

/* The first packet, if the run lies in a leased slot and its packets can be what the numbers say. */
static uint8_t *run_at(const bw_ring *ring, uint32_t slot, uint32_t start, uint32_t size, uint32_t count, uint32_t last)
{
    if (!ring || count == 0 || count > BW_RUN_PACKETS || size > UINT16_MAX || last > size || last < BW_HEADER + BW_TAG)
        return NULL;
    const uint64_t length = (uint64_t)size * (count - 1u) + last;
    return bw_range_ok(ring, slot, start, length) ? bw_slot(ring, slot) + start : NULL;
}

void bw_cipher_free(bw_cipher *cipher)
{
    if (cipher)
        cipher->calls->dispose(cipher);
}

int32_t bw_seal_run(bw_cipher *cipher, bw_ring *ring, uint32_t slot, uint32_t start, uint32_t size, uint32_t count,
                    uint32_t last)
{
    uint8_t *packet = run_at(ring, slot, start, size, count, last);
    if (!cipher || !packet)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++, packet += size) {
        const uint32_t payload = (i + 1 == count ? last : size) - (BW_HEADER + BW_TAG);
        uint8_t *body = packet + BW_HEADER;
        const int32_t error = cipher->calls->seal(cipher, packet + 1, packet, BW_HEADER, body, payload, body + payload);
        if (error)
            return error;
    }
    return 0;
}

static int32_t open_run(bw_cipher *cipher, bw_ring *ring, uint32_t slot, uint32_t start, uint32_t size, uint32_t count,
                        uint32_t last, uint64_t mask, uint64_t *opened)
{
    uint8_t *packet = run_at(ring, slot, start, size, count, last);
    *opened = 0;
    if (!cipher || !packet)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++, packet += size) {
        if (!(mask >> i & 1))
            continue;
        const uint32_t payload = (i + 1 == count ? last : size) - (BW_HEADER + BW_TAG);
        uint8_t *body = packet + BW_HEADER;
        const int32_t verified = cipher->calls->open(cipher, packet + 1, packet, BW_HEADER, body, payload, body + payload);
        if (verified < 0)
            return verified;
        if (verified)
            *opened |= UINT64_C(1) << i;
        else
            memset(body, 0, payload);
    }
    return 0;
}

uint64_t bw_open_run(bw_cipher *cipher, bw_ring *ring, uint32_t slot, uint32_t start, uint32_t size, uint32_t count,
                     uint32_t last, uint64_t mask)
{
    uint64_t opened;
    (void)open_run(cipher, ring, slot, start, size, count, last, mask, &opened);
    return opened;
}

int32_t bw_seal_runs(bw_ring *ring, bw_protect *rows, uint32_t count)
{
    if (!ring)
        return -EBADF;
    for (uint32_t r = 0; r < count; r++) {
        bw_protect *row = &rows[r];
        row->error = bw_seal_run((bw_cipher *)(uintptr_t)row->cipher, ring, row->slot, row->start, row->size, row->count,
                                 row->last);
        if (row->error)
            return (int32_t)r;
    }
    return (int32_t)count;
}

int32_t bw_open_runs(bw_ring *ring, bw_protect *rows, uint32_t count)
{
    if (!ring)
        return -EBADF;
    int32_t good = 0;
    for (uint32_t r = 0; r < count; r++) {
        bw_protect *row = &rows[r];
        row->error = open_run((bw_cipher *)(uintptr_t)row->cipher, ring, row->slot, row->start, row->size, row->count,
                              row->last, row->mask, &row->opened);
        good += row->error == 0;
    }
    return good;
}
