// reduce: out <- combine over some axes of expression(inputs), in a fixed order.
//
// The axes that remain are kept, the others are reduced. A work-item reduces one part of one position along the kept
// axes (rows: the lanes lie along the innermost reduced axis) or of COLUMN_BLOCK * WIDTH neighbouring ones (columns:
// the lanes lie along a kept axis). With several parts, each leaves a result of its own, which a second launch reduces.
// Parts, lanes, blocks and the tree that joins lanes are fixed by shape and device, so the same input gives the same
// bits. Sums of floats: BLOCK terms are added plainly, then the rounding error of each further addition is kept and
// added at the end (Knuth's two-sum, The Art of Computer Programming 2, 4.2.2), so that the error does not grow with
// the length. Bytes moved per element: the size of every input, once. Launch: positions (blocks of columns) times
// parts, rounded up to whole work-groups.

#include "lanes.clh"

#pragma OPENCL FP_CONTRACT OFF

// 1 for columns, 0 for rows.
#ifndef COLUMNS
#define COLUMNS 0
#endif
// Vectors side by side, a power of two: columns of one work-item, or independent accumulators of a row. Their loops are
// unrolled, or the accumulators would live in memory.
#ifndef COLUMN_BLOCK
#define COLUMN_BLOCK 4
#endif
// Terms that are added plainly in each lane.
#ifndef BLOCK
#define BLOCK 16
#endif
// 1 to keep the rounding errors of sums of blocks.
#ifndef COMPENSATED
#define COMPENSATED 1
#endif
// Tag of the dtype of the accumulator, and of the result.
#ifndef SUM
#define SUM float32
#endif
#ifndef OUT
#define OUT float32
#endif
#ifndef WORK_GROUP_SIZE
#define WORK_GROUP_SIZE 16
#endif

// What is generated, here for a sum of x0 * x1 with one kept axis and one outer reduced axis.
#ifndef NETCL_GENERATED
#define IDENTITY 0.0f
// Of a and b: vectors, and single values.
#define COMBINE_VECTORS return a + b;
#define COMBINE_VALUES return a + b;
#define LOADS                                                                                                          \
    FETCH(float32, v0, x0, x0_at + i)                                                                                  \
    FETCH(float32, v1, x1, x1_at + i)
#define STATEMENTS const float8 t0 = v0 * v1;
#define VALUE t0
#define OPERANDS                                                                                                       \
    const __global float *x0, const ulong x0_offset, const __global float *x1, const ulong x1_offset,                  \
        const ulong x0_kept0, const ulong x1_kept0, const ulong r0_kept0, const ulong x0_reduced0,                     \
        const ulong x1_reduced0
// From the position `rest` along the kept axes (for columns, but that of the lanes) to where its elements begin.
#define KEPT_AXES                                                                                                      \
    const size_t u0 = rest;                                                                                            \
    const size_t x0_kept = x0_offset + u0 * x0_kept0;                                                                  \
    const size_t x1_kept = x1_offset + u0 * x1_kept0;                                                                  \
    const size_t r0_kept = r0_offset + u0 * r0_kept0;
// From the position `rest` along the outer reduced axes to where the innermost one begins.
#define REDUCED_AXES                                                                                                   \
    const size_t w0 = rest;                                                                                            \
    const size_t x0_reduced = x0_kept + w0 * x0_reduced0;                                                              \
    const size_t x1_reduced = x1_kept + w0 * x1_reduced0;
#if COLUMNS
// With the number of columns.
#define PARAMETERS OPERANDS, const ulong x0_step, const ulong x1_step, const ulong lanes
// From the position k along the innermost reduced axis to where the lanes begin.
#define STEPS                                                                                                          \
    const size_t x0_at = x0_reduced + k * x0_step;                                                                     \
    const size_t x1_at = x1_reduced + k * x1_step;
// To the results of columns i to i + WIDTH - 1.
#define RESULTS(value, i) PUT(OUT, value, r0, r0_kept + part * r0_part + i)
#else
#define PARAMETERS OPERANDS
#define STEPS                                                                                                          \
    const size_t x0_at = x0_reduced;                                                                                   \
    const size_t x1_at = x1_reduced;
#endif
#endif

static inline VECTOR(SUM) combine_vectors(const VECTOR(SUM) a, const VECTOR(SUM) b) { COMBINE_VECTORS }
static inline COMPUTED(SUM) combine_values(const COMPUTED(SUM) a, const COMPUTED(SUM) b){COMBINE_VALUES}

// total <- total + block, with what that rounds away added to `lost`.
#if COMPENSATED
#define FOLD(total, lost, block)                                                                                       \
    {                                                                                                                  \
        const VECTOR(SUM) sum = (total) + (block);                                                                     \
        const VECTOR(SUM) part = sum - (total);                                                                        \
        lost += ((total) - (sum - part)) + ((block) - part);                                                           \
        total = sum;                                                                                                   \
    }
// An infinite total has lost NaN, which is nothing.
#define CLOSE(total, lost) total = isfinite(lost) ? (total) + (lost) : total
#else
#define FOLD(total, lost, block) total = combine_vectors(total, block);
#define CLOSE(total, lost) (void)(lost)
#endif

__kernel __attribute__((reqd_work_group_size(WORK_GROUP_SIZE, 1, 1))) void reduce(
    PARAMETERS, __global STORED(OUT) * r0, const ulong r0_offset, const ulong r0_part, const ulong kept,
    const ulong outer, const ulong inner, const ulong outer_part_size, const ulong inner_part_size,
    const ulong inner_parts, const ulong parts) {
    const size_t item = get_global_id(0);
    const VECTOR(SUM) identity = (VECTOR(SUM))(IDENTITY);
#if COLUMNS
    const size_t column_blocks = (lanes + COLUMN_BLOCK * WIDTH - 1) / (COLUMN_BLOCK * WIDTH);
    const size_t row = item / column_blocks;
    const size_t part = row / kept;
    if (part >= parts)
        return;
    const size_t first = (item - row * column_blocks) * (COLUMN_BLOCK * WIDTH);
    size_t rest = row - part * kept;
#else
    size_t rest = item / parts;
    if (rest >= kept)
        return;
    const size_t part = item - rest * parts;
#endif
    KEPT_AXES
    // The part: a range of the outer reduced axes, and of the innermost one.
    const size_t outer_part = part / inner_parts;
    const size_t outer_from = outer_part * outer_part_size;
    const size_t outer_to = min(outer_from + outer_part_size, (size_t)outer);
    const size_t inner_from = (part - outer_part * inner_parts) * inner_part_size;
    const size_t inner_to = min(inner_from + inner_part_size, (size_t)inner);

#if COLUMNS
    if (first + COLUMN_BLOCK * WIDTH <= lanes) {
        const bool whole = true;
        const size_t count = WIDTH;
        VECTOR(SUM) total[COLUMN_BLOCK], lost[COLUMN_BLOCK];
#pragma unroll
        for (size_t s = 0; s < COLUMN_BLOCK; ++s) {
            total[s] = identity;
            lost[s] = (VECTOR(SUM))0;
        }
        for (size_t w = outer_from; w < outer_to; ++w) {
            rest = w;
            REDUCED_AXES
            for (size_t k = inner_from; k < inner_to;) {
                const size_t stop = min(k + BLOCK, inner_to);
                VECTOR(SUM) block[COLUMN_BLOCK];
#pragma unroll
                for (size_t s = 0; s < COLUMN_BLOCK; ++s)
                    block[s] = identity;
                for (; k < stop; ++k) {
                    STEPS
#pragma unroll
                    for (size_t s = 0; s < COLUMN_BLOCK; ++s) {
                        const size_t i = first + s * WIDTH;
                        LOADS
                        STATEMENTS
                        block[s] = combine_vectors(block[s], VALUE);
                    }
                }
#pragma unroll
                for (size_t s = 0; s < COLUMN_BLOCK; ++s)
                    FOLD(total[s], lost[s], block[s])
            }
        }
#pragma unroll
        for (size_t s = 0; s < COLUMN_BLOCK; ++s) {
            CLOSE(total[s], lost[s]);
            RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, total[s]), first + s * WIDTH)
        }
        return;
    }
    // The last block of columns, vector by vector.
    for (size_t i = first; i < lanes; i += WIDTH) {
        const bool whole = i + WIDTH <= lanes;
        const size_t count = min((size_t)WIDTH, (size_t)(lanes - i));
        VECTOR(SUM) total = identity, lost = (VECTOR(SUM))0;
        for (size_t w = outer_from; w < outer_to; ++w) {
            rest = w;
            REDUCED_AXES
            for (size_t k = inner_from; k < inner_to;) {
                const size_t stop = min(k + BLOCK, inner_to);
                VECTOR(SUM) block = identity;
                for (; k < stop; ++k) {
                    STEPS
                    LOADS
                    STATEMENTS
                    block = combine_vectors(block, VALUE);
                }
                FOLD(total, lost, block)
            }
        }
        CLOSE(total, lost);
        RESULTS(STORAGE_PASTE(CONVERT, WIDTH)(OUT, total), i)
    }
#else
    VECTOR(SUM) total = identity, lost = (VECTOR(SUM))0;
    for (size_t w = outer_from; w < outer_to; ++w) {
        rest = w;
        REDUCED_AXES
        STEPS
        size_t at = inner_from;
        while (at + COLUMN_BLOCK * WIDTH <= inner_to) {
            const bool whole = true;
            const size_t count = WIDTH;
            const size_t rounds = min((size_t)BLOCK, (inner_to - at) / (COLUMN_BLOCK * WIDTH));
            VECTOR(SUM) block[COLUMN_BLOCK];
#pragma unroll
            for (size_t s = 0; s < COLUMN_BLOCK; ++s)
                block[s] = identity;
            for (size_t round = 0; round < rounds; ++round) {
#pragma unroll
                for (size_t s = 0; s < COLUMN_BLOCK; ++s) {
                    const size_t i = at + s * WIDTH;
                    LOADS
                    STATEMENTS
                    block[s] = combine_vectors(block[s], VALUE);
                }
                at += COLUMN_BLOCK * WIDTH;
            }
            for (size_t join = COLUMN_BLOCK / 2; join > 0; join /= 2)
                for (size_t s = 0; s < join; ++s)
                    block[s] = combine_vectors(block[s], block[s + join]);
            FOLD(total, lost, block[0])
        }
        VECTOR(SUM) block = identity;
        for (size_t i = at; i < inner_to; i += WIDTH) {
            const bool whole = i + WIDTH <= inner_to;
            const size_t count = min((size_t)WIDTH, inner_to - i);
            LOADS
            STATEMENTS
            VECTOR(SUM) value = VALUE;
            if (!whole) {
                COMPUTED(SUM) values[WIDTH];
                TO_LANES(value, values);
                for (size_t lane = count; lane < WIDTH; ++lane)
                    values[lane] = IDENTITY;
                value = FROM_LANES(values);
            }
            block = combine_vectors(block, value);
        }
        FOLD(total, lost, block)
    }
    CLOSE(total, lost);
    COMPUTED(SUM) values[WIDTH];
    TO_LANES(total, values);
    for (size_t join = WIDTH / 2; join > 0; join /= 2)
        for (size_t lane = 0; lane < join; ++lane)
            values[lane] = combine_values(values[lane], values[lane + join]);
    STORE(OUT, CONVERT(OUT, values[0]), r0, r0_kept + part * r0_part);
#endif
}
