// batched_matmul_tiled: out[b, m, n] = sum over k of a[b, m, k] * b[b, k, n], on GPUs.
//
// A work-group computes a tile of TILE x TILE results, a work-item PER_ITEM x PER_ITEM of them in registers, from tiles
// of a and b that the group reads together into local memory, DEPTH elements of k at a time. Neighbouring work-items
// read neighbours in memory: A_ALONG_K and B_ALONG_K say which axis is the contiguous one. With k_splits > 1,
// group (.., .., batch * k_splits + s) sums the s-th `depth` elements of k into the s-th result of its batch, for
// batched_matmul_sum to add. A sum runs in the order of k, so the same call gives the same bits.
// Flops: 2 per (b, m, n, k). Elements moved per tile: 2 * TILE * k, and each result once.
// Source: V. Volkov and J. W. Demmel, Benchmarking GPUs to Tune Dense Linear Algebra, 2008.
// Launch: (tiles of n, tiles of m, batch * k_splits) work-groups of GROUP x GROUP.

#include "storage.clh"

// Tags of the dtypes of a, b and out, and of the one whose arithmetic type the sums have.
#ifndef A
#define A float32
#endif
#ifndef B
#define B float32
#endif
#ifndef OUT
#define OUT float32
#endif
#ifndef SUM
#define SUM float32
#endif
// Work-items along each side of a group.
#ifndef GROUP
#define GROUP 16
#endif
// Results along each side of a work-item's share: 4 x 4 sums, 8 local reads for 16 multiply-adds.
#ifndef PER_ITEM
#define PER_ITEM 4
#endif
// Elements of k in local memory at a time.
#ifndef DEPTH
#define DEPTH 16
#endif
// 1 if neighbours in k lie closer in memory than neighbours in m (for a) or in n (for b).
#ifndef A_ALONG_K
#define A_ALONG_K 1
#endif
#ifndef B_ALONG_K
#define B_ALONG_K 0
#endif

#define TILE (GROUP * PER_ITEM)
#define REAL COMPUTED(SUM)
#pragma OPENCL FP_CONTRACT ON

__kernel __attribute__((reqd_work_group_size(GROUP, GROUP, 1))) void
batched_matmul_tiled(const __global STORED(A) * a, const ulong a_offset, const __global STORED(B) * b,
                     const ulong b_offset, __global STORED(OUT) * out, const ulong out_offset, const long a_b,
                     const long a_m, const long a_k, const long b_b, const long b_k, const long b_n, const long out_b,
                     const long out_s, const long out_m, const long out_n, const ulong size_m, const ulong size_n,
                     const ulong size_k, const ulong k_splits, const ulong depth) {
    // One element of padding keeps the rows of a tile in different banks when it is filled along k.
    __local REAL tile_a[DEPTH][TILE + 1], tile_b[DEPTH][TILE + 1];
    const size_t x = get_local_id(0), y = get_local_id(1), item = y * GROUP + x;
    const size_t n0 = get_group_id(0) * TILE, m0 = get_group_id(1) * TILE;
    const size_t batch = get_group_id(2) / k_splits, split = get_group_id(2) - batch * k_splits;
    const size_t k1 = min((size_t)size_k, (split + 1) * (size_t)depth);
    a += a_offset + (long)batch * a_b;
    b += b_offset + (long)batch * b_b;
    out += out_offset + (long)batch * out_b + (long)split * out_s;
    REAL sums[PER_ITEM][PER_ITEM];
    for (size_t i = 0; i < PER_ITEM; ++i)
        for (size_t j = 0; j < PER_ITEM; ++j)
            sums[i][j] = 0;
    for (size_t k0 = split * depth; k0 < k1; k0 += DEPTH) {
        for (size_t e = item; e < TILE * DEPTH; e += GROUP * GROUP) {
            const size_t ka = A_ALONG_K ? e % DEPTH : e / TILE, m = A_ALONG_K ? e / DEPTH : e % TILE;
            const size_t kb = B_ALONG_K ? e % DEPTH : e / TILE, n = B_ALONG_K ? e / DEPTH : e % TILE;
            tile_a[ka][m] = m0 + m < size_m && k0 + ka < k1
                                ? CONVERT(SUM, LOAD(A, a, (long)(m0 + m) * a_m + (long)(k0 + ka) * a_k))
                                : (REAL)0;
            tile_b[kb][n] = n0 + n < size_n && k0 + kb < k1
                                ? CONVERT(SUM, LOAD(B, b, (long)(k0 + kb) * b_k + (long)(n0 + n) * b_n))
                                : (REAL)0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (size_t k = 0; k < DEPTH; ++k) {
            REAL row[PER_ITEM], column[PER_ITEM];
            for (size_t i = 0; i < PER_ITEM; ++i) {
                row[i] = tile_a[k][y + i * GROUP];
                column[i] = tile_b[k][x + i * GROUP];
            }
            for (size_t i = 0; i < PER_ITEM; ++i)
                for (size_t j = 0; j < PER_ITEM; ++j)
                    sums[i][j] = row[i] * column[j] + sums[i][j];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (size_t i = 0; i < PER_ITEM; ++i)
        for (size_t j = 0; j < PER_ITEM; ++j) {
            const size_t m = m0 + y + i * GROUP, n = n0 + x + j * GROUP;
            if (m < size_m && n < size_n)
                STORE(OUT, CONVERT(OUT, sums[i][j]), out, (long)m * out_m + (long)n * out_n);
        }
}
