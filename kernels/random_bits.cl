// random_bits: out[j] = lane (first + j) % 4 of Philox4x32-10 with counter (first + j) / 4.
//
// Counter words 0 and 1 are the low and high half of the 64-bit counter, words 2 and 3 are zero; the key is the low and
// the high half of the seed. A work-item makes the 32 words of 8 counters, and stores those inside out.
// Bytes moved per word: 4.
// Source: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, 2011.
// Launch: one work-item per 8 counters, the global size rounded up to whole work-groups.

// Fixed, because a runtime may compile once for each size it meets.
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 64
#endif

#define ROUNDS 10
#define MULTIPLIER0 0xD2511F53u
#define MULTIPLIER1 0xCD9E8D57u
#define WEYL0 0x9E3779B9u
#define WEYL1 0xBB67AE85u

// Words `lane` of the 8 counters belong at j = 4 * counter + lane; the first few or last few may lie outside out.
static inline void store_some(const uint8 lanes, const ulong lane, const ulong block, const ulong skip, const ulong n,
                              __global uint *out) {
    uint words[8];
    vstore8(lanes, 0, words);
    for (ulong b = 0; b < 8; ++b) {
        const ulong j = (block + b) * 4 + lane;
        if (j >= skip && j - skip < n)
            out[j - skip] = words[b];
    }
}

// `counter` belongs to the first work-item's first words, of which `skip` (0 to 3) come before out[0].
__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void
random_bits(__global uint *out, const ulong out_offset, const ulong counter, const ulong skip, const ulong n,
            const uint key0, const uint key1) {
    const ulong block = (ulong)get_global_id(0) * 8;
    if (block * 4 >= skip + n)
        return;
    out += out_offset;
    // 64-bit sums in halves, for eight of them would be a vector of 64 bytes: a lane that wraps carries one (-1 is
    // true).
    const ulong first = counter + block;
    uint8 x0 = (uint8)(0, 1, 2, 3, 4, 5, 6, 7) + (uint)first;
    uint8 x1 = (uint8)((uint)(first >> 32)) - as_uint8(x0 < (uint8)((uint)first)), x2 = 0, x3 = 0;
    uint k0 = key0, k1 = key1;
    for (int round = 0; round < ROUNDS; ++round) {
        const uint8 high0 = mul_hi(x0, (uint8)MULTIPLIER0), high1 = mul_hi(x2, (uint8)MULTIPLIER1);
        const uint8 low0 = x0 * MULTIPLIER0, low1 = x2 * MULTIPLIER1;
        x0 = high1 ^ x1 ^ k0;
        x1 = low1;
        x2 = high0 ^ x3 ^ k1;
        x3 = low0;
        k0 += WEYL0;
        k1 += WEYL1;
    }
    if (skip == 0 && (block + 8) * 4 <= n) {
        __global uint *to = out + block * 4;
        vstore8((uint8)(x0.s0, x1.s0, x2.s0, x3.s0, x0.s1, x1.s1, x2.s1, x3.s1), 0, to);
        vstore8((uint8)(x0.s2, x1.s2, x2.s2, x3.s2, x0.s3, x1.s3, x2.s3, x3.s3), 1, to);
        vstore8((uint8)(x0.s4, x1.s4, x2.s4, x3.s4, x0.s5, x1.s5, x2.s5, x3.s5), 2, to);
        vstore8((uint8)(x0.s6, x1.s6, x2.s6, x3.s6, x0.s7, x1.s7, x2.s7, x3.s7), 3, to);
    } else {
        store_some(x0, 0, block, skip, n, out);
        store_some(x1, 1, block, skip, n, out);
        store_some(x2, 2, block, skip, n, out);
        store_some(x3, 3, block, skip, n, out);
    }
}
