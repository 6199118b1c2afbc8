/*
 * packet.c: headers to runs, stream ranges to packets, packets to stream ranges. Packets are sealed as soon as they are framed,
 * while they lie in the first cache; what bw_gather_runs reads was opened before.
 *
 * A DATA packet: 0x10, connection id u32, counter u64, ciphertext, 16-byte tag. In a run of stream data the plaintext is one
 * STREAM frame (RFC 9000 §19.8) without a length: type 0x0c (0x0d with FIN), stream id as a 4-byte varint, offset as an
 * 8-byte varint, data to the end. So all headers have the same size and packet i carries offset + i * (size - 42).
 */
#include "aead.h"

#define STREAM_OFF 0x0cu
#define STREAM_OFF_FIN 0x0du
#define VARINT4 0x80000000u
#define VARINT8 0xc000000000000000u
#define COUNTERS (UINT64_C(1) << BW_COUNTER_BITS)
#define OFFSETS (UINT64_C(1) << 62)
#define STREAMS (UINT32_C(1) << 30)
#define IN_GENERATION ((UINT64_C(1) << BW_GENERATION_BITS) - 1)

/* --- parse -------------------------------------------------------------------------------------------------------- */

static bool hold(bw_batch *batch, uint32_t slot)
{
    for (uint32_t i = batch->held_count; i > 0; i--)
        if (batch->held[i - 1] == slot)
            return true;
    if (batch->held_count >= batch->held_capacity)
        return false;
    batch->held[batch->held_count++] = slot;
    return true;
}

int32_t bw_parse(bw_ring *ring, bw_batch *batch, uint32_t slot, uint32_t start, uint32_t length, uint32_t segment,
                 uint8_t ecn, const uint8_t *path)
{
    if (!ring)
        return -EBADF;
    if (!bw_range_ok(ring, slot, start, length) || length == 0 || ecn > 3)
        return -EINVAL;
    if (segment == 0 || segment > length)
        segment = length;
    if (segment > UINT16_MAX)
        return -EMSGSIZE;
    if (!hold(batch, slot))
        return -ENOBUFS;

    const uint8_t *base = bw_slot(ring, slot);
    const uint32_t end = start + length;
    /* A datagram that follows its run directly may join it, even from another message of the kernel. */
    bw_run *run = batch->count > 0 ? &batch->runs[batch->count - 1] : NULL;
    if (run && (run->type != BW_DATA || run->slot != slot || run->ecn != ecn || memcmp(run->path, path, BW_PATH) != 0))
        run = NULL;

    for (uint32_t at = start; at < end;) {
        const uint32_t n = end - at < segment ? end - at : segment;
        const uint8_t *p = base + at;
        const uint32_t cid = n >= 5 ? bw_get32(p + 1) : 0;
        uint64_t counter = 0;
        uint8_t type = p[0];
        if (type == BW_DATA) {
            counter = n >= BW_HEADER + BW_TAG ? bw_get64(p + 5) : COUNTERS;
            if (counter >= COUNTERS) {
                counter = 0;
                type = BW_NO_PACKET;
            } else if (run && run->cid == cid && counter == run->counter + run->count && (counter & IN_GENERATION) != 0
                       && n <= run->size && run->last == run->size && run->count < BW_RUN_PACKETS
                       && at == run->start + (uint32_t)run->count * run->size) {
                run->last = (uint16_t)n;
                run->count++;
                at += n;
                continue;
            }
        }
        if (batch->count >= batch->capacity) {
            batch->overflow += (end - at + segment - 1) / segment;
            break;
        }
        bw_run *next = &batch->runs[batch->count++];
        next->counter = counter;
        next->cid = cid;
        next->slot = slot;
        next->start = at;
        next->size = (uint16_t)n;
        next->last = (uint16_t)n;
        next->count = 1;
        next->type = type;
        next->ecn = ecn;
        memset(next->pad, 0, sizeof next->pad);
        memcpy(next->path, path, BW_PATH);
        run = type == BW_DATA ? next : NULL;
        at += n;
    }
    return (int32_t)batch->count;
}

/* --- fill --------------------------------------------------------------------------------------------------------- */

static bool power_of_two_mask(uint64_t mask)
{
    return mask < (UINT64_C(1) << 40) && (mask & (mask + 1)) == 0;
}

static bool fill_ok(const bw_ring *ring, const bw_fill *row)
{
    if (row->count == 0 || row->count > BW_RUN_PACKETS || row->size <= BW_RUN_OVERHEAD || row->fin > 1)
        return false;
    const uint32_t payload = row->size - (uint32_t)BW_RUN_OVERHEAD;
    const uint32_t before_last = (row->count - 1u) * payload;
    if (row->length == 0) {
        if (row->count != 1 || !row->fin)
            return false;
    } else if (row->length <= before_last || row->length > before_last + payload) {
        return false;
    }
    const uint64_t bytes = (uint64_t)row->length + (uint64_t)row->count * BW_RUN_OVERHEAD;
    if (!bw_range_ok(ring, row->slot, row->start, bytes))
        return false;
    if (row->counter >= COUNTERS || (row->counter & IN_GENERATION) + row->count - 1u > IN_GENERATION)
        return false;
    if (row->stream >= STREAMS || row->offset >= OFFSETS || row->length >= OFFSETS - row->offset)
        return false;
    return power_of_two_mask(row->src_mask) && (row->length == 0 || (row->src && row->length <= row->src_mask + 1));
}

/* Copy n bytes that may wrap; n is at most the ring's size. */
static void from_ring(uint8_t *to, const uint8_t *ring, uint64_t mask, uint64_t offset, size_t n)
{
    const size_t at = (size_t)(offset & mask);
    const size_t straight = (size_t)mask + 1 - at;
    if (n <= straight) {
        memcpy(to, ring + at, n);
    } else {
        memcpy(to, ring + at, straight);
        memcpy(to + straight, ring, n - straight);
    }
}

static void to_ring(uint8_t *ring, uint64_t mask, uint64_t offset, const uint8_t *from, size_t n)
{
    const size_t at = (size_t)(offset & mask);
    const size_t straight = (size_t)mask + 1 - at;
    if (n <= straight) {
        memcpy(ring + at, from, n);
    } else {
        memcpy(ring + at, from, straight);
        memcpy(ring, from + straight, n - straight);
    }
}

int32_t bw_fill_runs(bw_ring *ring, bw_fill *rows, uint32_t count)
{
    if (!ring)
        return -EBADF;
    for (uint32_t r = 0; r < count; r++) {
        bw_fill *row = &rows[r];
        row->error = fill_ok(ring, row) ? 0 : -EINVAL;
        if (row->error)
            return (int32_t)r;
        bw_cipher *cipher = (bw_cipher *)(uintptr_t)row->cipher;
        const uint8_t *src = (const uint8_t *)(uintptr_t)row->src;
        const uint32_t payload = row->size - (uint32_t)BW_RUN_OVERHEAD;
        uint8_t *p = bw_slot(ring, row->slot) + row->start;
        uint64_t offset = row->offset;
        uint32_t left = row->length;
        for (uint32_t i = 0; i < row->count; i++) {
            const uint32_t n = left < payload ? left : payload;
            const bool fin = row->fin && i == row->count - 1u;
            p[0] = BW_DATA;
            bw_put32(p + 1, row->cid);
            bw_put64(p + 5, row->counter + i);
            p[13] = fin ? STREAM_OFF_FIN : STREAM_OFF;
            bw_put32(p + 14, row->stream | VARINT4);
            bw_put64(p + 18, offset | VARINT8);
            if (n > 0)
                from_ring(p + BW_HEADER + BW_STREAM_HEADER, src, row->src_mask, offset, n);
            if (cipher) {
                uint8_t *body = p + BW_HEADER;
                const uint32_t size = n + BW_STREAM_HEADER;
                row->error = cipher->calls->seal(cipher, p + 1, p, BW_HEADER, body, size, body + size);
                if (row->error)
                    return (int32_t)r;
            }
            offset += n;
            left -= n;
            p += row->size;
        }
    }
    return (int32_t)count;
}

/* --- gather ------------------------------------------------------------------------------------------------------- */

static bool gather_ok(const bw_ring *ring, const bw_gather *row)
{
    if (row->count == 0 || row->count > BW_RUN_PACKETS || row->last > row->size)
        return false;
    if (row->count < 64 && row->mask >> row->count)
        return false;
    if (!bw_range_ok(ring, row->slot, row->start, (uint64_t)(row->count - 1u) * row->size + row->last))
        return false;
    return power_of_two_mask(row->dst_mask) && row->dst && row->low <= row->high && row->high - row->low <= row->dst_mask + 1
        && row->high <= OFFSETS && row->offset < OFFSETS && row->stream < STREAMS;
}

int32_t bw_gather_runs(bw_ring *ring, bw_gather *rows, uint32_t count)
{
    if (!ring)
        return -EBADF;
    for (uint32_t r = 0; r < count; r++) {
        bw_gather *row = &rows[r];
        row->taken = 0;
        row->fin = 0;
        if (!gather_ok(ring, row))
            return (int32_t)r;
        if (row->size < BW_RUN_OVERHEAD)
            continue;   /* too short for the frame: none is taken */
        uint8_t *dst = (uint8_t *)(uintptr_t)row->dst;
        const uint32_t payload = row->size - (uint32_t)BW_RUN_OVERHEAD;
        const uint8_t *base = bw_slot(ring, row->slot) + row->start;
        for (uint32_t i = 0; i < row->count; i++) {
            if (!(row->mask >> i & 1))
                continue;
            const bool is_last = i == row->count - 1u;
            const uint32_t size = is_last ? row->last : row->size;
            const uint8_t *p = base + (size_t)i * row->size + BW_HEADER;
            const uint64_t offset = row->offset + (uint64_t)i * payload;
            if (size < BW_RUN_OVERHEAD || offset >= OFFSETS)
                continue;
            const uint32_t n = size - (uint32_t)BW_RUN_OVERHEAD;
            const bool fin = p[0] == STREAM_OFF_FIN;
            if ((p[0] != STREAM_OFF && !(fin && is_last)) || bw_get32(p + 1) != (row->stream | VARINT4)
                || bw_get64(p + 5) != (offset | VARINT8) || offset > row->high || n > row->high - offset)
                continue;
            p += BW_STREAM_HEADER;
            if (offset >= row->low)
                to_ring(dst, row->dst_mask, offset, p, n);
            else if (offset + n > row->low)
                to_ring(dst, row->dst_mask, row->low, p + (row->low - offset), (size_t)(offset + n - row->low));
            row->taken |= UINT64_C(1) << i;
            if (fin)
                row->fin = 1;
        }
    }
    return (int32_t)count;
}
