// batched_matmul: out[b, m, n] = sum over k of a[b, m, k] * b[b, k, n], on CPU runtimes.
//
// One work-item computes a block of block_m x block_n results in register tiles of MR x NR (6 x 16 floats: their sums
// take 12 of the 16 registers of AVX2). For each run of KC elements of k it first packs its columns of b into panels of
// NR, so that the inner loop reads whole aligned vectors; a is read one element at a time, whatever its strides. Sums
// pass from one run to the next in out, which is therefore of the arithmetic type: batched_matmul_sum narrows it.
// With k_splits > 1, work-item (.., .., batch * k_splits + s) sums the s-th `depth` elements of k, for
// batched_matmul_sum to add. The order of a sum depends on k, depth and KC alone, so the same call gives the same bits.
// Flops: 2 per (b, m, n, k). Bytes moved per block: those of (block_m + block_n) * k elements, and of the results twice
// for each further KC. Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
// Launch: (blocks of n, blocks of m, batch * k_splits) work-items in work-groups of one.

#include "storage.clh"

// Tags of the dtypes of a and b, and of the one whose arithmetic type the sums and out have.
#ifndef A
#define A float32
#endif
#ifndef B
#define B float32
#endif
#ifndef SUM
#define SUM float32
#endif
// Elements per vector: 8 for arithmetic types of up to 4 bytes, 4 for those of 8.
#ifndef LANES
#define LANES 8
#endif
// Elements of k that are packed at a time: a panel of KC * NR floats is 16 kB, half of a usual first-level cache.
#ifndef KC
#define KC 256
#endif
// The widest block, a multiple of NR: sizes the packed panels.
#ifndef BLOCK_N
#define BLOCK_N 64
#endif
// PACK_A: defined if tiles of a are packed too, because its elements need a conversion.
// PLAIN_B: defined if b is of the arithmetic type, so that rows are copied as vectors.
// TRANSPOSE: defined if both are float32, so that columns that are adjacent in k are transposed in registers.

#define MR 6
#define NR (2 * LANES)
#define REAL COMPUTED(SUM)
#define REALV STORAGE_PASTE(COMPUTED, LANES)(SUM)

// PoCL 3.0 calls fma(), mad(), vload8() and vstore8() as functions, at ten times the cost of this loop: hence a plain
// a * b + c, which becomes one instruction, and loads and stores through a vector type of lower alignment.
#pragma OPENCL FP_CONTRACT ON
typedef REALV unaligned_vector __attribute__((aligned(sizeof(REAL))));
#define VECTOR_AT(p) (*(__global unaligned_vector *)(p))
#define CONST_VECTOR_AT(p) (*(const __global unaligned_vector *)(p))

#ifdef TRANSPOSE
#define MERGE_LOW(a, b) (float8)(a.s0, b.s0, a.s1, b.s1, a.s4, b.s4, a.s5, b.s5)
#define MERGE_HIGH(a, b) (float8)(a.s2, b.s2, a.s3, b.s3, a.s6, b.s6, a.s7, b.s7)
#define PAIR_LOW(a, b) (float8)(a.s01, b.s01, a.s45, b.s45)
#define PAIR_HIGH(a, b) (float8)(a.s23, b.s23, a.s67, b.s67)

// Eight elements of k of eight columns, from rows of k to rows of columns; `to` counts vectors, a panel row has two.
static inline void transpose8(const __global float *from, const long column, __local float8 *to) {
    const float8 r0 = CONST_VECTOR_AT(from), r1 = CONST_VECTOR_AT(from + column);
    const float8 r2 = CONST_VECTOR_AT(from + 2 * column), r3 = CONST_VECTOR_AT(from + 3 * column);
    const float8 r4 = CONST_VECTOR_AT(from + 4 * column), r5 = CONST_VECTOR_AT(from + 5 * column);
    const float8 r6 = CONST_VECTOR_AT(from + 6 * column), r7 = CONST_VECTOR_AT(from + 7 * column);
    const float8 a0 = MERGE_LOW(r0, r1), a1 = MERGE_HIGH(r0, r1), a2 = MERGE_LOW(r2, r3), a3 = MERGE_HIGH(r2, r3);
    const float8 a4 = MERGE_LOW(r4, r5), a5 = MERGE_HIGH(r4, r5), a6 = MERGE_LOW(r6, r7), a7 = MERGE_HIGH(r6, r7);
    const float8 c0 = PAIR_LOW(a0, a2), c1 = PAIR_HIGH(a0, a2), c2 = PAIR_LOW(a1, a3), c3 = PAIR_HIGH(a1, a3);
    const float8 c4 = PAIR_LOW(a4, a6), c5 = PAIR_HIGH(a4, a6), c6 = PAIR_LOW(a5, a7), c7 = PAIR_HIGH(a5, a7);
    to[0] = (float8)(c0.lo, c4.lo);
    to[2] = (float8)(c1.lo, c5.lo);
    to[4] = (float8)(c2.lo, c6.lo);
    to[6] = (float8)(c3.lo, c7.lo);
    to[8] = (float8)(c0.hi, c4.hi);
    to[10] = (float8)(c1.hi, c5.hi);
    to[12] = (float8)(c2.hi, c6.hi);
    to[14] = (float8)(c3.hi, c7.hi);
}
#endif

// Columns of b, from k = 0 to rows, as rows of NR; columns beyond the last are zero.
static inline void pack_panel(const __global STORED(B) * b, const long b_k, const long b_n, const size_t rows,
                              const size_t columns, __local REALV *panel) {
    __local REAL *to = (__local REAL *)panel;
    size_t k = 0;
#ifdef PLAIN_B
    if (b_n == 1 && columns == NR) {
        for (; k < rows; ++k) {
            panel[2 * k] = CONST_VECTOR_AT(b + (long)k * b_k);
            panel[2 * k + 1] = CONST_VECTOR_AT(b + (long)k * b_k + LANES);
        }
    }
#endif
#ifdef TRANSPOSE
    if (b_n != 1 && b_k == 1 && columns == NR)
        for (; k + 8 <= rows; k += 8) {
            transpose8(b + k, b_n, panel + 2 * k);
            transpose8(b + k + 8 * b_n, b_n, panel + 2 * k + 1);
        }
#endif
    for (; k < rows; ++k)
        for (size_t n = 0; n < NR; ++n)
            to[k * NR + n] = n < columns ? CONVERT(SUM, LOAD(B, b, (long)k * b_k + (long)n * b_n)) : (REAL)0;
}

#ifdef PACK_A
typedef const __local REAL *tile_pointer;
#else
typedef const __global STORED(A) * tile_pointer;
#endif
#define ROW(i) const tile_pointer a##i = a + (long)min((size_t)i, rows - 1) * a_m;
#define STEP(i)                                                                                                        \
    {                                                                                                                  \
        const REALV x = (REALV)a##i[(long)k * a_k];                                                                    \
        s##i##0 = x * b0 + s##i##0;                                                                                    \
        s##i##1 = x * b1 + s##i##1;                                                                                    \
    }
#define STORE_ROW(i)                                                                                                   \
    if (i < rows)                                                                                                      \
        store_row(s##i##0, s##i##1, out + i * out_m, out_n, columns, first);

// One row of a tile: stored, or added to what earlier runs of k have left.
static inline void store_row(const REALV s0, const REALV s1, __global REAL *out, const long out_n, const size_t columns,
                             const int first) {
    if (out_n == 1 && columns == NR) {
        VECTOR_AT(out) = first ? s0 : VECTOR_AT(out) + s0;
        VECTOR_AT(out + LANES) = first ? s1 : VECTOR_AT(out + LANES) + s1;
        return;
    }
    REALV row[2] = {s0, s1};
    for (size_t n = 0; n < columns; ++n) {
        const REAL sum = ((REAL *)row)[n];
        out[(long)n * out_n] = first ? sum : out[(long)n * out_n] + sum;
    }
}

// A tile of rows x columns results over one run of k. Rows beyond the last repeat it and are not stored.
static inline void compute_tile(const tile_pointer a, const long a_m, const long a_k, const __local REALV *panel,
                                const size_t depth, __global REAL *out, const long out_m, const long out_n,
                                const size_t rows, const size_t columns, const int first) {
    ROW(0)
    ROW(1)
    ROW(2)
    ROW(3)
    ROW(4)
    ROW(5)
    REALV s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0, s40 = 0, s41 = 0, s50 = 0, s51 = 0;
    for (size_t k = 0; k < depth; ++k) {
        const REALV b0 = panel[2 * k], b1 = panel[2 * k + 1];
        STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5)
    }
    STORE_ROW(0) STORE_ROW(1) STORE_ROW(2) STORE_ROW(3) STORE_ROW(4) STORE_ROW(5)
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
batched_matmul(const __global STORED(A) * a, const ulong a_offset, const __global STORED(B) * b, const ulong b_offset,
               __global REAL *out, const ulong out_offset, const long a_b, const long a_m, const long a_k,
               const long b_b, const long b_k, const long b_n, const long out_b, const long out_s, const long out_m,
               const long out_n, const ulong size_m, const ulong size_n, const ulong size_k, const ulong block_m,
               const ulong block_n, const ulong k_splits, const ulong depth) {
    __local REALV panels[KC * BLOCK_N / LANES];
#ifdef PACK_A
    __local REAL packed_a[KC * MR];
#endif
    const size_t n0 = get_global_id(0) * block_n, m0 = get_global_id(1) * block_m;
    const size_t n1 = min((size_t)size_n, n0 + (size_t)block_n), m1 = min((size_t)size_m, m0 + (size_t)block_m);
    const size_t batch = get_global_id(2) / k_splits, split = get_global_id(2) - batch * k_splits;
    const size_t k1 = min((size_t)size_k, (split + 1) * (size_t)depth);
    size_t k0 = split * depth;
    a += a_offset + (long)batch * a_b;
    b += b_offset + (long)batch * b_b;
    out += out_offset + (long)batch * out_b + (long)split * out_s;
    int first = 1;
    do { // once for no elements of k at all, whose sum is zero
        const size_t run = min((size_t)KC, k1 - k0);
        for (size_t n = n0; n < n1; n += NR)
            pack_panel(b + (long)k0 * b_k + (long)n * b_n, b_k, b_n, run, min((size_t)NR, n1 - n),
                       panels + (n - n0) / LANES * KC);
        for (size_t m = m0; m < m1; m += MR) {
            const __global STORED(A) *rows = a + (long)m * a_m + (long)k0 * a_k;
#ifdef PACK_A
            for (size_t k = 0; k < run; ++k)
                for (size_t i = 0; i < MR; ++i)
                    packed_a[k * MR + i] = CONVERT(SUM, LOAD(A, rows, (long)min(i, m1 - m - 1) * a_m + (long)k * a_k));
            const tile_pointer tile = packed_a;
            const long tile_m = 1, tile_k = MR;
#else
            const tile_pointer tile = rows;
            const long tile_m = a_m, tile_k = a_k;
#endif
            for (size_t n = n0; n < n1; n += NR)
                compute_tile(tile, tile_m, tile_k, panels + (n - n0) / LANES * KC, run,
                             out + (long)m * out_m + (long)n * out_n, out_m, out_n, min((size_t)MR, m1 - m),
                             min((size_t)NR, n1 - n), first);
        }
        k0 += KC;
        first = 0;
    } while (k0 < k1);
}
